"""Memory that is cut off by a control group, and a clock that jumps: the run that goes on has the
table of an undisturbed one, to the bit.
"""

import contextlib
import os
import pathlib
import subprocess
import sys
import time

import pandas as pd
import pytest
from helpers import processes, tiny

from plasticity_jax.cli import status as status_command
from plasticity_jax.execution import program as program_
from plasticity_jax.execution import sweep
from plasticity_jax.execution.engines import description, local, sliced, status, worker
from plasticity_jax.storage import table as table_

pytestmark = [pytest.mark.faults, pytest.mark.slow]

ROOT = pathlib.Path(__file__).parents[2]
SCRIPT = ROOT / "tests" / "faults" / "worked.py"
TASKS, MIB = 60, 1 << 20
SECONDS = 300  # in which a process has ended, one way or another, on a busy machine too
DAY = 86400.0
# where version 1 and version 2 have their groups, and the files of the limit and of what is used
VERSIONS = (
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ("/sys/fs/cgroup", "memory.max", "memory.current"),
)


class Group:
    """A control group that limits the memory of processes."""

    def __init__(self, folder, limit, used):
        self.folder, self._limit, self._used = folder, folder / limit, folder / used

    def limit(self, count):
        self._limit.write_text(str(count))

    def used(self):
        return int(self._used.read_text())

    def inside(self, words):
        """The command that runs `words` in the group; a fork of this process, which has threads of
        jax, would warn.
        """
        enter = 'echo $$ > "$0" && exec "$@"'
        return ["sh", "-c", enter, str(self.folder / "cgroup.procs"), *words]


@pytest.fixture
def group():
    for root, limit, used in VERSIONS:
        made = Group(pathlib.Path(root, f"plasticity_{os.getpid()}"), limit, used)
        try:
            made.folder.mkdir()
        except OSError:
            continue
        try:
            made.limit(1 << 40)
            yield made
            return
        except OSError:
            continue
        finally:
            made.folder.rmdir()
    pytest.skip("a control group that limits memory cannot be made here")


@pytest.fixture(scope="module")
def begin(environment):
    def start(folder, group=None):
        words = [sys.executable, str(SCRIPT), "methods", str(folder), str(TASKS)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(group.inside(words) if group else words, env=environment, **pipes)

    return start


@pytest.fixture(scope="module")
def straight(begin, tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight") / "run"
    goes_on(begin, folder)
    return table_.read(folder / "results.parquet")


def goes_on(begin, folder):
    process = begin(folder)
    _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err


@pytest.mark.parametrize("limit", [150, 250, 350, 500])
def test_too_little_memory_ends_a_run_or_does_not(limit, group, begin, straight, tmp_path):
    group.limit(limit * MIB)
    process = begin(tmp_path, group)
    out, err = process.communicate(timeout=SECONDS)
    print(f"{limit} MiB: code {process.returncode}, {out.split()[-1:]} tasks, said {err[-200:]!r}")
    assert process.returncode in (0, 1, -9)
    goes_on(begin, tmp_path)
    found = table_.read(tmp_path / "results.parquet")
    pd.testing.assert_frame_equal(found, straight, check_exact=True)


def test_a_limit_that_falls_below_what_a_run_has(group, begin, straight, tmp_path):
    process = begin(tmp_path, group)
    while (line := process.stdout.readline()) not in ("5\n", ""):
        pass
    assert line
    end = time.monotonic() + SECONDS
    while process.poll() is None and time.monotonic() < end:
        # (refused where nothing can be taken back at once)
        with contextlib.suppress(OSError):
            group.limit(group.used() - MIB // 4)
        time.sleep(0.01)
    out, _ = process.communicate(timeout=SECONDS)
    assert process.returncode in (0, -9)
    print(f"code {process.returncode} after {(line + out).split()[-1]} tasks")
    goes_on(begin, tmp_path)
    found = table_.read(tmp_path / "results.parquet")
    pd.testing.assert_frame_equal(found, straight, check_exact=True)


def test_an_estimate_refuses_what_the_group_has_not(group, environment, tmp_path):
    group.limit(900 * MIB)
    wide = ("--width=4096", "--depth=4", "--seeds=8")
    words = processes.command(tmp_path / "run", tiny.arrays(tmp_path / "data"), *wide)
    pipes = {"capture_output": True, "text": True, "timeout": SECONDS}
    done = subprocess.run(group.inside(words), env=environment, **pipes)
    assert done.returncode == 1
    assert done.stderr.startswith("error: 8 lanes of mlp")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


class Clock:
    """Is set forward at one look, and back at another one behind it, by years."""

    def __init__(self, at):
        self._real, self._at, self._looks = time.time, at, 0

    def __call__(self):
        self._looks += 1
        days = 0 if self._looks < self._at else 400 if self._looks < 2 * self._at else -4000
        return self._real() + days * DAY


@pytest.mark.parametrize("at", [5, 34])
def test_a_clock_that_jumps_makes_no_difference(at, tmp_path, monkeypatch, compiled_quickly):
    """In a run that is resumed, in slices, and where it is asked how far they are."""
    spec = tiny.spec(dataset=tiny.arrays(tmp_path / "data"), tasks=2)
    lanes = [{"seed": 0}, {"seed": 1}]
    straight = sweep.run(spec, lanes)
    monkeypatch.setattr(time, "time", Clock(at))
    sweep.run(tiny.spec(dataset=spec.dataset, tasks=1), lanes, tmp_path / "run")
    found = sweep.run(spec, lanes, tmp_path / "run")
    pd.testing.assert_frame_equal(found, straight, check_exact=True)
    said = []
    monkeypatch.undo()
    monkeypatch.setattr(time, "time", Clock(at))

    def in_this_process(folders, options):
        for folder in folders:
            worker.run(folder)
            said.append(status_command.text("run", status.read(tmp_path / "slices")))
        return {}

    monkeypatch.setattr(local, "run", in_this_process)
    dataset = program_.load_common_dataset([spec], None, False)
    asked = sliced.Asked("local", 1, 1, "cpu", (), {}, description.How())
    programs = program_.plan([(spec, lanes)], 64, None, None)
    programs = sliced.on_one_device(programs, asked, None, None)
    found = sliced.run_in_slices(programs, dataset, tmp_path / "slices", asked)
    columns = [name for name in straight if not name.startswith("lane_")]
    pd.testing.assert_frame_equal(found[columns], straight[columns], check_exact=True)
    assert len(said) == 2
    assert "2 done" in status_command.text("run", status.read(tmp_path / "slices"))
