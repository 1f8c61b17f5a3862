"""Files of a run with one bit flipped, or cut short: the same call gives the table as it was, or
one sentence.
"""

import itertools
import os
import random
import shutil
from collections.abc import Callable
from typing import NamedTuple

import pandas as pd
import pytest
from helpers import tiny
from helpers.processes import ended

from plasticity_jax.cli import launcher
from plasticity_jax.execution import history, sweep
from plasticity_jax.execution import program as program_
from plasticity_jax.execution.engines import description, local, sliced
from plasticity_jax.storage import table as table_

FLIPS = int(os.environ.get("PLASTICITY_FAULTS_FLIPS", "1000"))
CUTS = int(os.environ.get("PLASTICITY_FAULTS_CUTS", "200"))
SEED = os.environ.get("PLASTICITY_FAULTS_SEED", "")  # (of further ones than those of a run before)
TASKS, SEEDS = 8, [{"seed": 0}, {"seed": 1}]
# in one of so many cases a further task is trained, which takes longer
GOES_ON = {"run": 50, "slices": 10}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory, compiled_quickly):
    """A folder with the data, and the workdirs of a way's runs once they are asked for."""
    root = tmp_path_factory.mktemp("pristine")

    def made(name, mores=(0, 1)):
        for more in mores:
            if not (root / f"{name}_{more}").exists():
                WAYS[name].run(spec(root, TASKS + more), root / f"{name}_{more}")
        return root

    return made


def run_here(patch):
    """With slices in this process, and segments of two tasks."""
    patch.setattr(history, "SEGMENT", 2)
    patch.setattr(local, "run", lambda folders, options: ended(folders))


def spec(root, tasks):
    data = root / "data"
    name = f"arrays:{data}" if data.exists() else tiny.arrays(data)
    return tiny.spec(dataset=name, tasks=tasks, points=2, optimizer="adam")


def flipped(content, generator):
    place = generator.randrange(len(content))
    changed = bytearray(content)
    changed[place] ^= 1 << generator.randrange(8)
    return bytes(changed)


def cut(content, generator):
    return content[: generator.randrange(len(content))]


def checkpoints(root):
    """Files of the newest states, and older ones of histories."""
    older = sorted(root.glob("checkpoints/*/history/**/*"))
    return [file for file in sorted(root.glob("checkpoints/**/*")) if file not in older], older


def of_run(root, data):
    tables = [root / "results.parquet", root / "points.parquet"]
    return [[root / "config.json"], tables, *checkpoints(root), sorted(data.iterdir())]


def homes_in(root):
    return [path for path in (root / "slices").iterdir() if path.is_dir()]


def of_slices(root, data):
    homes = homes_in(root)
    names = ("slice.json", "tries.json", "config.json")
    tables = [home / f"{name}.parquet" for home in homes for name in ("results", "points")]
    states = [list(itertools.chain(*found)) for found in zip(*map(checkpoints, homes), strict=True)]
    return [[home / name for home in homes] for name in names] + [tables, *states]


def in_one_process(spec, folder):
    return sweep.run(spec, SEEDS, folder)


def in_slices(spec, folder):
    dataset = program_.load_common_dataset([spec], None, False)
    sizes = program_.sizes([spec], program_.device_data(dataset))
    asked = sliced.Asked("local", 1, 1, "cpu", (), {}, description.How())
    planned = program_.plan([(spec, SEEDS)], sizes, "map", None)
    programs = sliced.on_one_device(planned, asked, "map", None)
    return sliced.run_in_slices(programs, dataset, folder, asked)


class Way(NamedTuple):
    """How a run is run, its kinds of files, and what processes say that meet them before it is run
    again.
    """

    run: Callable
    kinds: Callable
    meets: Callable


WAYS = {
    "run": Way(in_one_process, of_run, lambda root: []),
    "slices": Way(in_slices, of_slices, lambda root: ended(homes_in(root)).values()),
}


def chosen(kinds, generator):
    """A file; each kind as often as any other, however many files it has."""
    return generator.choice(
        [file for file in generator.choice(kinds) if file.is_file() and file.stat().st_size]
    )


def test_a_few_are_not_silently_wrong(pristine, monkeypatch):
    """What `make test` has of it."""
    run_here(monkeypatch)
    tried(pristine("run", [0]), "run", flipped, 8)


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize(("damage", "count"), [(flipped, FLIPS), (cut, CUTS)])
def test_no_damage_is_silently_wrong(damage, count, name, pristine, monkeypatch):
    run_here(monkeypatch)
    tried(pristine(name), name, damage, count)


def tried(pristine, name, damage, count):
    generator = random.Random(damage.__name__ + SEED)
    said = {"met": 0, "recovered": 0, "refused": 0}
    way = WAYS[name]
    straight = [table_.read(run / "results.parquet") for run in sorted(pristine.glob(f"{name}_*"))]
    root = pristine / "tried"
    for number in range(count):
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(pristine / f"{name}_0", root)
        file = chosen(way.kinds(root, pristine / "data"), generator)
        content, more = file.read_bytes(), int(number % GOES_ON[name] == GOES_ON[name] - 1)
        file.write_bytes(damage(content, generator))
        try:
            for text in way.meets(root):
                assert names(text, file, pristine), (file, text)
                said["met"] += 1
            found = way.run(spec(pristine, TASKS + more), root)
            on_disk = table_.read(root / "results.parquet")
            for table in (found, on_disk):
                pd.testing.assert_frame_equal(table, straight[more], check_exact=True)
            said["recovered"] += 1
        except (*launcher.ENVIRONMENT_FAULTS, ValueError) as error:
            text = launcher.sentence(error)
            assert names(text, file, pristine), (file, text)
            said["refused"] += 1
        except AssertionError as error:
            raise AssertionError(f"case {number}: {file.relative_to(pristine)}") from error
        finally:
            file.parent.mkdir(parents=True, exist_ok=True)
            if file.is_relative_to(pristine / "data"):
                file.write_bytes(content)
    print(f"{name}, {damage.__name__}: {said}")
    assert said["recovered"] + said["refused"] == count


def names(text, file, root):
    """Whether a sentence names a file, or a folder around it that is not that of all."""
    around = [file, *(path for path in file.parents if path.is_relative_to(root))]
    return text.endswith(".") and any(str(path) in text for path in around)
