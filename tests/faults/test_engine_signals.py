"""Signals to a command with an engine, and to the process of one slice: each says what it does, is
gone soon with its exit code, and the same command goes on to the table of an undisturbed run.
"""

import itertools
import os
import pathlib
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
from helpers import tiny
from helpers.processes import finish, wait_for

from plasticity_jax.execution import slices
from plasticity_jax.execution.engines import worker
from plasticity_jax.storage import table as table_
from plasticity_jax.storage import workdir

pytestmark = [pytest.mark.faults, pytest.mark.slow]

ROOT = pathlib.Path(__file__).parents[2]
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
MOMENTS = ("compile", "task")
TASKS = 150  # far more than are done in all before the last signal
SECONDS = 10.0


@pytest.fixture(scope="module")
def begin(tmp_path_factory):
    """Starts a command of plasticity and returns its process."""
    root = tmp_path_factory.mktemp("common")
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PLASTICITY_CACHE_DIR": str(root / "cache")}
    data = tiny.arrays(root / "data")
    words = [f"--tasks={TASKS}", "--epochs=5", "--width=8", "--depth=1", "--norm=none"]
    words += ["--seeds=2", "--batch_size=16", "--probes=none", "--noprogress", f"--dataset={data}"]

    def start(name, folder, *more):
        given = [f"--workdir={folder}", *words, *more] if name == "run" else [str(folder), *more]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        command = [sys.executable, "-m", "plasticity_jax", name, *given]
        return subprocess.Popen(command, env=env, **pipes)

    return start


@pytest.fixture(scope="module")
def straight(begin, tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight") / "run"
    code, _, err = finish(begin("run", folder, "--lane_strategy=map"))
    assert code == 0, err
    return table_.read(folder / "results.parquet")


def wait_for_a_task(folders, done):
    """Until one of the slices has more tasks than before."""
    for _ in range(6000):
        if any(worker.tasks_done(folder) > done[folder] for folder in folders):
            return
        time.sleep(0.01)
    raise AssertionError("no task is done")


def sent(process, number):
    """What a process says and its exit code, once it is gone after a signal."""
    assert process.poll() is None
    began = time.monotonic()
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    took = time.monotonic() - began
    print(f"{signal.Signals(number).name}: gone after {took:.2f} s")
    assert took < SECONDS, err
    return process.returncode, err


def ways(folder):
    """Every signal at every moment, with how many tasks the slices have done."""
    for number, moment in itertools.product(SIGNALS, MOMENTS):
        places = [one.place(folder) for one in slices.read(folder).slices]
        yield number, moment, {place: worker.tasks_done(place) for place in places}


def test_a_signal_to_a_command_with_an_engine(begin, straight, tmp_path):
    """Its slices are stopped with it, two at a time, and save what they have."""
    folder = tmp_path / "run"
    engine = ("--engine=local", "--slice=1", "--workers=2", "--lane_strategy=map")
    process = begin("run", folder, *engine)
    wait_for(folder)
    sent(process, signal.SIGTERM)
    for number, moment, done in ways(folder):
        process = begin("run", folder, *engine)
        pids = wait_for(folder)
        if moment == "task":
            wait_for_a_task(done, done)
        code, err = sent(process, number)
        assert code == 128 + number, err
        said, last = err.strip().splitlines()
        assert said.startswith(f"{signal.Signals(number).name}: ")
        assert said.endswith(" slices save what they have and end")
        assert last.startswith("stopped: 0 of 2 slices are done; the same command goes on")
        assert not [pid for pid in pids if pathlib.Path(f"/proc/{pid}/status").exists()]
        assert not any(map(workdir.is_held, done))
        assert all(worker.tasks_done(place) >= before for place, before in done.items())
    code, _, err = finish(begin("run", folder, *engine))
    assert code == 0, err
    found = table_.read(folder / "results.parquet")
    pd.testing.assert_frame_equal(found, straight, check_exact=True)


def test_a_signal_to_the_process_of_a_slice(begin, straight, tmp_path):
    """As a scheduler sends it: code 143, whichever it was."""
    folder = tmp_path / "run"
    process = begin("run", folder, "--engine=local", "--slice=2", "--lane_strategy=map")
    wait_for(folder)
    sent(process, signal.SIGTERM)
    for number, moment, done in ways(folder):
        (place,) = done
        process = begin("slice", place)
        wait_for(folder)
        if moment == "task":
            wait_for_a_task(done, done)
        code, err = sent(process, number)
        assert code == worker.STOPPED == 143, err
        assert err.startswith("stopped: ")
        assert f" of {TASKS} tasks of this program are saved" in err
        assert worker.fault(place) is None
        worker.forget(place)  # (as a command does: tries without a task are counted)
    code, _, err = finish(begin("slice", place))
    assert code == 0, err
    found = table_.read(place / "results.parquet")
    columns = [name for name in straight if name in found]
    pd.testing.assert_frame_equal(found[columns], straight[columns], check_exact=True)
