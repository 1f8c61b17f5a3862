"""Files of a run with one bit flipped, or cut short: the same call gives the table as it was, or
one sentence.
"""

import os
import random
import shutil

import pandas as pd
import pytest
from helpers import tiny

from plasticity_jax.cli import launcher
from plasticity_jax.execution import history, sweep
from plasticity_jax.storage import table as table_

pytestmark = [pytest.mark.faults, pytest.mark.slow]

FLIPS = int(os.environ.get("PLASTICITY_FAULTS_FLIPS", "1000"))
CUTS = int(os.environ.get("PLASTICITY_FAULTS_CUTS", "200"))
SEED = os.environ.get("PLASTICITY_FAULTS_SEED", "")  # (of further ones than those of a run before)
TASKS, SEEDS = 8, [{"seed": 0}, {"seed": 1}]
GOES_ON = 50  # in one of so many cases a further task is trained, which takes longer


@pytest.fixture(scope="module")
def pristine(tmp_path_factory, compiled_quickly):
    """A folder with the data and the workdir of a run whose history is in segments."""
    root = tmp_path_factory.mktemp("pristine")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(history, "SEGMENT", 2)
        sweep.run(spec(root, TASKS), SEEDS, root / "run")
        sweep.run(spec(root, TASKS + 1), SEEDS, root / "longer")
    return root


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


def chosen(root, data, generator):
    """A file; each kind as often as any other, however many files it has."""
    older = sorted(root.glob("checkpoints/*/history/**/*"))
    kinds = [
        [root / "config.json"],
        [root / "results.parquet", root / "points.parquet"],
        [file for file in sorted(root.glob("checkpoints/**/*")) if file not in older],
        older,
        sorted(data.iterdir()),
    ]
    return generator.choice(
        [file for file in generator.choice(kinds) if file.is_file() and file.stat().st_size]
    )


@pytest.mark.parametrize(("damage", "count"), [(flipped, FLIPS), (cut, CUTS)])
def test_no_damage_is_silently_wrong(damage, count, pristine, tmp_path, monkeypatch):
    monkeypatch.setattr(history, "SEGMENT", 2)
    generator, said = random.Random(damage.__name__ + SEED), {"recovered": 0, "refused": 0}
    straight = {
        more: table_.read(pristine / name / "results.parquet")
        for more, name in ((0, "run"), (1, "longer"))
    }
    root = pristine / "tried"
    for number in range(count):
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(pristine / "run", root)
        file = chosen(root, pristine / "data", generator)
        content, more = file.read_bytes(), int(number % GOES_ON == 0)
        file.write_bytes(damage(content, generator))
        try:
            found = sweep.run(spec(pristine, TASKS + more), SEEDS, root)
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
    print(f"{damage.__name__}: {said}")
    assert sum(said.values()) == count


def names(text, file, root):
    """Whether a sentence names a file, or a folder around it that is not that of all."""
    around = [file, *(path for path in file.parents if path.is_relative_to(root))]
    return text.endswith(".") and any(str(path) in text for path in around)
