"""Processes that are killed, stopped, or started in odd surroundings: what they leave is a run that
goes on to the table of an undisturbed one, to the bit.
"""

import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

from plasticity_jax.execution import progress
from plasticity_jax.storage import table as table_
from plasticity_jax.storage import workdir
from plasticity_jax.storage.checkpoints import Checkpoints

ROOT = pathlib.Path(__file__).parents[2]
SCRIPT = ROOT / "tests" / "faults" / "worked.py"
# kills in all; fewer for a look
KILLS = int(os.environ.get("PLASTICITY_FAULTS_KILLS", "200"))
CASES = ("methods", "split", "replay", "text")
TASKS = {"methods": 30, "split": 30, "replay": 12, "text": 20}
# from the request to the end of the process, where a task takes far less
SECONDS = 10.0
SIGNALED = 40  # tasks of a run that gets a signal

pytestmark = [pytest.mark.faults, pytest.mark.slow]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def begin(cache):
    """Starts a run and returns its process."""

    def start(case, folder, tasks, **more):
        env = {**os.environ, "PYTHONPATH": str(ROOT), "PLASTICITY_CACHE_DIR": str(cache)}
        words = [sys.executable, str(SCRIPT), case, str(folder), str(tasks)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(words, env={**env, **more.pop("env", {})}, **pipes, **more)

    return start


def finished(process):
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return [int(line) for line in out.split()]


def steps(folder):
    found = [0]
    for own in (folder / "checkpoints").glob("*"):
        found += Checkpoints(own).steps()
    return max(found)


def same(one, other):
    tables = [table_.read(folder / "results.parquet") for folder in (one, other)]
    pd.testing.assert_frame_equal(*tables, check_exact=True)


@pytest.mark.parametrize("case", CASES)
def test_killed_runs_lose_a_task_at_most(case, begin, tmp_path):
    """Half of the kills come at any moment after the first task, half in the middle of a save; what
    comes too late for a process is not counted.
    """
    tasks = TASKS[case]
    finished(begin(case, tmp_path / "straight", tasks))
    generator, kills, tried, number = random.Random(case), 0, 0, 0
    while kills < max(1, KILLS // len(CASES)):
        number += 1
        folder = tmp_path / str(number)
        while steps(folder) < tasks and kills < max(1, KILLS // len(CASES)):
            process = begin(case, folder, tasks)
            told = steps(folder)
            line = first_task(process)
            tried += 1
            if tried % 2:
                wait_for_a_save(folder, process)
            else:
                time.sleep(generator.uniform(0.0, 0.2))
            process.kill()
            out, _ = process.communicate()
            lines = (line + out).split()
            told = max([told, *map(int, lines)])
            kills += process.returncode == -signal.SIGKILL  # (not of a run that had ended by then)
            # what was told is safe: not even that task is lost
            assert steps(folder) >= told
        finished(begin(case, folder, tasks))
        same(folder, tmp_path / "straight")
    print(f"{case}: {kills} of {tried} kills met a process")


def first_task(process):
    """What the run says of the first task that it does, "" if it does none."""
    line = "0"
    while line.strip() == "0":
        line = process.stdout.readline()
    return line


def wait_for_a_save(folder, process):
    """Until a checkpoint is half written, or the run has ended."""
    for _ in range(20_000):
        if list(folder.glob("checkpoints/*/*.orbax-checkpoint-tmp*")) or process.poll() is not None:
            return
        time.sleep(0.0005)


@pytest.fixture(scope="module")
def straight(cache, tmp_path_factory):
    """An undisturbed run."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PLASTICITY_CACHE_DIR": str(cache)}
    words = [sys.executable, str(SCRIPT), "methods", str(folder), str(SIGNALED)]
    subprocess.run(words, env=env, check=True, capture_output=True)
    return folder


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP])
@pytest.mark.parametrize("moment", ["start", "compile", "task", "save"])
def test_a_signal_ends_a_run_soon_and_says_so(number, moment, begin, straight, tmp_path):
    process = begin("methods", tmp_path / "run", SIGNALED)
    process.stdout.readline()
    if moment == "start":
        pass
    elif moment == "compile":
        while not (tmp_path / "run" / "config.json").exists() and process.poll() is None:
            time.sleep(0.01)
    else:
        first_task(process)
    if moment == "save":
        wait_for_a_save(tmp_path / "run", process)
    assert process.poll() is None
    began = time.monotonic()
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - began < SECONDS
    assert process.returncode == 128 + number
    assert err.startswith(("stopped: ", "interrupted: ")), err
    assert "the same command goes on" in err
    finished(begin("methods", tmp_path / "run", SIGNALED))
    same(tmp_path / "run", straight)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_a_long_compilation_ends_a_run_soon(number, begin, tmp_path):
    process = begin("long", tmp_path / "run", 2)
    compiles = wait_for_the_compiler(tmp_path / "run")
    assert "resnet18" in compiles
    time.sleep(5.0)
    # (it is at it still, else nothing is tried here)
    assert progress.read(tmp_path / "run").compiling == compiles
    began = time.monotonic()
    process.send_signal(number)
    _, err = process.communicate(timeout=600)
    took = time.monotonic() - began
    print(f"{signal.Signals(number).name}: gone after {took:.2f} s")
    assert took < SECONDS
    assert process.returncode == 128 + number
    assert err.startswith("stopped: 0 of 2 tasks of this program are saved; the same command"), err
    assert not (tmp_path / "run" / "results.parquet").exists()


def wait_for_the_compiler(folder):
    """What a run says that it compiles."""
    for _ in range(6000):
        found = progress.read(folder)
        if found and found.compiling:
            return found.compiling
        time.sleep(0.02)
    raise AssertionError("nothing is compiled")


def test_surroundings_make_no_difference(begin, tmp_path):
    """Another zone of time and locale, a strict umask, and a workdir with spaces and letters that
    are not ASCII, behind a link.
    """
    finished(begin("methods", tmp_path / "straight", 4))
    (tmp_path / "ein Ordner, ü 研究").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "ein Ordner, ü 研究")
    env = {"TZ": "Pacific/Chatham", "LC_ALL": "tr_TR.UTF-8", "LANG": "C", "PYTHONUTF8": "0"}
    finished(begin("methods", tmp_path / "link" / "run", 4, env=env, umask=0o077))
    same(tmp_path / "link" / "run", tmp_path / "straight")


def test_a_locale_with_other_letters_and_commas_makes_no_difference(begin, tmp_path):
    """Turkish, in which a capital i has a dot and a decimal point is a comma, also in C."""
    locales = tmp_path / "locales"
    locales.mkdir()
    words = ["localedef", "-i", "tr_TR", "-f", "UTF-8", str(locales / "tr_TR.UTF-8")]
    if shutil.which("localedef") is None or subprocess.run(words, capture_output=True).returncode:
        pytest.skip("this machine cannot make the locale tr_TR (localedef and its sources)")
    env = {"LOCPATH": str(locales), "LC_ALL": "tr_TR.UTF-8", "PLASTICITY_FAULTS_LOCALE": "1"}
    process = begin("methods", tmp_path / "run", 4, env=env)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert err.splitlines()[0] == "1,5"  # (else nothing is tried here)
    finished(begin("methods", tmp_path / "straight", 4))
    same(tmp_path / "run", tmp_path / "straight")
    configs = [workdir.read_settings(tmp_path / name) for name in ("run", "straight")]
    assert configs[0] == configs[1]
