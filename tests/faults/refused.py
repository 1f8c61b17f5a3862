"""What is done while a disk refuses calls (`disk.c`, preloaded): python refused.py CASE FOLDER
TRIES.

Every try begins with what was there before the case, and one call, or it and all that follow, fail.
Then there is one sentence that names what it is about, what was there can be read, and the same
once more ends as if nothing had failed.
"""

import contextlib
import ctypes
import errno
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from helpers import data_files, tiny
from helpers.processes import ended

import plasticity_jax as pj
from experiments import select
from plasticity_jax import datasets
from plasticity_jax.cli import commands, launcher
from plasticity_jax.execution import sweep
from plasticity_jax.execution.engines import local, slurm, worker
from plasticity_jax.storage import table as table_
from plasticity_jax.storage import workdir

KINDS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
LAST = 1 << 40
DISK = ctypes.CDLL(None)
DATA, ORIGINALS = "", Path()  # set by `main`
LANES = [{"seed": 0}, {"seed": 1}]


class Refused(Exception):
    """A command that ended with a fault; the message is its sentence."""


def spec(tasks: int = 2):
    return tiny.spec(dataset=DATA, tasks=tasks, points=2)


def given(*words: str, main: Callable[..., int] = commands.main) -> None:
    """Does what a command line says."""
    said, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(err):
        code = main(words)
    if code:
        lines = [line for line in err.getvalue().splitlines() if line.startswith("error: ")]
        assert code == launcher.ENVIRONMENT, err.getvalue()
        assert len(lines) == 1, err.getvalue()
        raise Refused(lines[0].removeprefix("error: "))


def small() -> tuple[str, ...]:
    words = ("--tasks=2", "--epochs=2", "--width=8", "--depth=1", "--norm=none", "--seeds=2")
    return (*words, "--batch_size=16", "--probes=none", "--noprogress", f"--dataset={DATA}")


def command(root: Path, *more: str) -> None:
    given("run", f"--workdir={root / 'run'}", *small(), *more)


def nothing(root: Path) -> None:
    """There is nothing before."""


def finished(root: Path) -> None:
    pj.run(spec(), LANES, root / "run")
    shutil.copytree(root / "run", root / "other")
    pj.run(spec(), [{"seed": 2}], root / "other")


def shorter(root: Path) -> None:
    pj.run(spec(1), LANES, root / "run")


def run(root: Path) -> None:
    sweep.run(spec(), LANES, root / "run")


def wider(root: Path) -> None:
    """A workdir grows by a lane and a task."""
    sweep.run(spec(), [*LANES, {"seed": 2}], root / "run")


def merge(root: Path) -> None:
    given("merge", str(root / "run"), str(root / "other"), f"--to={root / 'merged'}")


def report(root: Path) -> None:
    given("report", str(root / "run"))


def figure(root: Path) -> None:
    given("show", str(root / "run"), f"--figure={root / 'curves.pdf'}")


def whole(root: Path) -> None:
    """A run from the command line, with a tracker, figures, tables and the page."""
    command(root, "--tracker=jsonl", "--export=markdown", "--figure_format=png,svg")


def sliced(root: Path) -> None:
    """A run in slices, each in this process."""
    command(root, "--engine=local", "--slice=1", "--workers=1")


def sent(root: Path) -> None:
    """A run in slices, each an array of SLURM's that ends as soon as it is sent."""
    command(root, "--engine=slurm", "--slice=1", "--lane_width=1")


def in_waves(root: Path) -> None:
    """A run of which a lane is not run on after its first task."""
    command(root, "--wave=1", "--stop_below=online_accuracy:0.3")


def tuned(root: Path) -> None:
    words = ("--scale=smoke", "--samples=64", "--methods=none", f"--workdir={root / 'tuned'}")
    given(*words, *small(), main=select.main)


def cached(root: Path) -> None:
    """A data set that is prepared from its original files."""
    os.environ["PLASTICITY_CACHE_DIR"] = str(root / "cache")
    datasets.load("mnist", data_dir=str(ORIGINALS))


def tracked(name: str) -> Callable[[Path], None]:
    return lambda root: command(root, f"--tracker={name}")


def called(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """What SLURM's commands do, in this process."""
    if words[0] == "sbatch":
        script = Path(words[-1])
        (names,) = re.findall(r"^slices=\((.*)\)$", script.read_text(), re.MULTILINE)
        for folder, sentence in ended([script.parent / name for name in names.split()]).items():
            worker.note_fault(folder, sentence)
    return subprocess.CompletedProcess(words, 0, "100" if words[0] == "sbatch" else "", "")


class Case(NamedTuple):
    before: Callable[[Path], None]
    does: Callable[[Path], None]
    makes: str  # the workdir that it makes


CASES = {
    "run": Case(nothing, run, "run"),
    "growth": Case(shorter, wider, "run"),
    "merge": Case(finished, merge, "merged"),
    "report": Case(finished, report, "run"),
    "figure": Case(finished, figure, "run"),
    "command": Case(nothing, whole, "run"),
    "slices": Case(nothing, sliced, "run"),
    "slurm": Case(nothing, sent, "run"),
    "waves": Case(nothing, in_waves, "run"),
    "select": Case(nothing, tuned, "tuned/random_mnist"),
    "cache": Case(nothing, cached, "cache"),
    "tensorboard": Case(nothing, tracked("tensorboard"), "run"),
    "wandb": Case(nothing, tracked("wandb"), "run"),
}


def found(root: Path, makes: str) -> dict[str, Any]:
    """What is to be the same whatever happened: tables, and files without dates or paths."""
    folder = root / makes
    made: dict[str, Any] = {}
    if (folder / "results.parquet").exists():
        made["results.parquet"] = table_.read(folder / "results.parquet")
    names = ["points.parquet", "summary.csv", "final.csv", "final.md", "curves.png"]
    for name in (*names, "selection.csv", "../selected.json", "arrays/*/manifest.json"):
        for path in folder.glob(name):
            made[name] = path.read_bytes()
    assert made
    if (folder / "metrics.jsonl").exists():
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        told = {(line["lane"], line["task"]): line for line in map(json.loads, lines)}
        made["metrics.jsonl"] = [told[key] for key in sorted(told)]
    made["report"] = (folder / "report.html").exists()
    return made


def check_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name, content in one.items():
        if isinstance(content, pd.DataFrame):
            pd.testing.assert_frame_equal(content, other[name], check_exact=True)
        else:
            assert content == other[name], name


def check_readable(root: Path) -> None:
    """Whatever is there is whole: as it was before, or as it is to be."""
    for path in root.rglob("*"):
        # (what a disk does not let go of a data set's preparation is nowhere read)
        inside = not re.search("/checkpoints/|/preparing-", str(path.relative_to(root.parent)))
        if path.suffix == ".parquet":
            table_.read(path)
        elif path.name == "config.json":
            assert workdir.read_settings(path.parent)
        elif path.suffix == ".json" and inside:
            json.loads(path.read_bytes())
        elif path.name == "metrics.jsonl":
            for line in path.read_text().splitlines():  # (none, if it could only be made)
                json.loads(line)
        elif path.name == "report.html":
            assert path.read_text().endswith("</html>\n")
        elif path.suffix == ".csv":
            assert len(pd.read_csv(path))


def check_sentence(said: str, root: Path, number: int) -> None:
    assert "\n" not in said
    assert said.endswith(".")
    assert str(root) in said, f"no file is named: {said}"
    assert os.strerror(number) in said, said


def tried(case: Case, root: Path, before: Path, calls: tuple[int, int], number: int) -> bool:
    """Whether something was refused and told while these calls failed."""
    shutil.copytree(before, root)
    DISK.disk_refuses(str(root).encode(), *map(ctypes.c_long, calls), number)
    said = ""
    try:
        case.does(root)
    except (Refused, *launcher.ENVIRONMENT_FAULTS) as error:
        said = str(error) if isinstance(error, Refused) else launcher.sentence(error)
    finally:
        DISK.disk_refuses(b"", ctypes.c_long(0), ctypes.c_long(0), 0)
    if said:
        check_sentence(said, root, number)
    check_readable(root)
    if said:
        case.does(root)
    return bool(said)


def main(name: str, folder: str, tries: str) -> None:
    global DATA, ORIGINALS
    DISK.disk_calls.restype = ctypes.c_long
    case, where = CASES[name], Path(folder)
    DATA = tiny.arrays(where / "data")
    arrays, patch = data_files.tiny_arrays(), pytest.MonkeyPatch()
    ORIGINALS = data_files.write_originals("mnist", where / "originals", arrays, patch)
    local.run = lambda folders, options: ended(folders)
    slurm.check, slurm._called, slurm.SECONDS = lambda passed: None, called, 0.0
    before, clean = where / "before", where / "clean"
    before.mkdir()
    case.before(before)
    shutil.copytree(before, clean)
    DISK.disk_refuses(str(clean).encode(), ctypes.c_long(0), ctypes.c_long(0), 0)
    case.does(clean)
    calls = DISK.disk_calls()
    DISK.disk_refuses(b"", ctypes.c_long(0), ctypes.c_long(0), 0)
    straight = found(clean, case.makes)
    chosen = np.unique(np.linspace(1, calls, min(int(tries), calls)).astype(int)).tolist()
    told = 0
    for place, first in enumerate(chosen):
        number = KINDS[place % len(KINDS)]
        last = LAST if place // len(KINDS) % 2 else first
        root = where / f"try_{first}"
        try:
            told += tried(case, root, before, (first, last), number)
            check_same(found(root, case.makes), straight)
        except BaseException as error:
            which = f"call {first} of {calls}{' and on' if last > first else ''}"
            raise AssertionError(f"{name}: {which}: {os.strerror(number)}") from error
        shutil.rmtree(root)
    print(json.dumps({"calls": calls, "tries": len(chosen), "told": told}))


if __name__ == "__main__":
    main(*sys.argv[1:])
