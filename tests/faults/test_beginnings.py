"""Runs that are killed as they begin, two that begin at once, and logs that take no words."""

import pathlib
import random
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
from helpers import tiny
from helpers.processes import command, finish, wait_for

from plasticity_jax.execution import slices
from plasticity_jax.execution.engines import worker
from plasticity_jax.storage import table as table_
from plasticity_jax.storage import workdir

pytestmark = [pytest.mark.faults, pytest.mark.slow]

ROOT = pathlib.Path(__file__).parents[2]
PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny.arrays(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def straight(environment, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight") / "run"
    code, _, err = finish(subprocess.Popen(command(folder, data), env=environment, **PIPES))
    assert code == 0, err
    return table_.read(folder / "results.parquet")


def check_same(folder, straight):
    found = table_.read(folder / "results.parquet")
    pd.testing.assert_frame_equal(found, straight, check_exact=True)


# Killed as config.json is written for the first or the second time: before, in the middle, behind

KILLED = """
import os, signal, sys
from plasticity_jax.cli import commands
from plasticity_jax.storage import workdir

when, nth, seen, usual = sys.argv[1], int(sys.argv[2]), [], os.replace

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

def replace(source, target):
    if not str(target).endswith("config.json"):
        return usual(source, target)
    seen.append(target)
    if len(seen) == nth and when == "middle":
        with open(source, "r+b") as file:
            file.truncate(os.path.getsize(source) // 2)
    if len(seen) == nth and when != "behind":
        kill()
    usual(source, target)
    if len(seen) == nth:
        kill()

os.replace = replace
sys.exit(commands.main(sys.argv[3:]))
"""


@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("when", ["before", "middle", "behind"])
def test_a_run_that_is_killed_as_config_is_written(
    when, nth, environment, data, straight, tmp_path
):
    folder = tmp_path / "run"
    words = command(folder, data)[3:]
    begun = [sys.executable, "-c", KILLED, when, str(nth), *words]
    code, _, _ = finish(subprocess.Popen(begun, env=environment, **PIPES))
    assert code == -signal.SIGKILL
    assert (folder / "config.json").exists() == (nth == 2 or when == "behind")
    code, _, err = finish(subprocess.Popen(command(folder, data), env=environment, **PIPES))
    assert code == 0, err
    check_same(folder, straight)
    assert not list(folder.rglob("*.part"))


def test_runs_that_are_killed_before_their_first_checkpoint(environment, data, straight, tmp_path):
    """At any moment from the lock on, ten times the same one."""
    folder, generator, kills = tmp_path / "run", random.Random(0), 0
    for _ in range(10):
        process = subprocess.Popen(command(folder, data), env=environment, **PIPES)
        while not workdir.is_held(folder) and process.poll() is None:
            time.sleep(0.002)
        time.sleep(generator.uniform(0.0, 1.0))
        if any(folder.glob("checkpoints/*/[0-9]*")):
            process.communicate()
            break
        process.kill()
        process.communicate()
        kills += 1
    print(f"{kills} kills")
    assert kills >= 2
    code, _, err = finish(subprocess.Popen(command(folder, data), env=environment, **PIPES))
    assert code == 0, err
    check_same(folder, straight)


# Two at once

RACE = """
import sys, time
from plasticity_jax.storage import workdir

begin, rounds, root = float(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
for number in range(rounds):
    while time.time() < begin + number:
        pass
    try:
        with workdir.lock(f"{root}/{number}"):
            print(number, "won", flush=True)
            time.sleep(0.7)
    except workdir.InUse as error:
        print(number, time.time() - begin - number, error, flush=True)
"""


def test_of_processes_that_begin_at_once_one_wins(environment, tmp_path):
    """Four at a time in a new folder, at the same instant; the others are refused soon."""
    rounds, count, begin = 20, 4, str(time.time() + 30)
    words = [sys.executable, "-c", RACE, begin, str(rounds), str(tmp_path)]
    every = [subprocess.Popen(words, env=environment, **PIPES) for _ in range(count)]
    lines = []
    for process in every:
        code, out, err = finish(process)
        assert code == 0, err
        lines += out.splitlines()
    for number in range(rounds):
        own = [line.split(maxsplit=2) for line in lines if line.startswith(f"{number} ")]
        refused = [words for words in own if words[1] != "won"]
        assert len(own) == count
        assert len(refused) == count - 1
        assert all(" is in use by " in words[2] for words in refused)
        assert max(float(words[1]) for words in refused) < 1.0


def test_of_two_commands_that_begin_at_once_one_runs(environment, data, tmp_path):
    words = command(tmp_path / "run", data, "--tasks=100")
    both = [subprocess.Popen(words, env=environment, **PIPES) for _ in range(2)]
    ended = sorted(finish(process)[::2] for process in both)
    assert [code for code, _ in ended] == [0, 1], ended
    (said,) = ended[1][1].splitlines()
    assert said.startswith(f"error: {tmp_path / 'run'} is in use by ")


# Words that nobody takes


def begun_and_killed(words, environment, folder):
    """The folder of the one slice of a command that was killed, once its process is gone."""
    process = subprocess.Popen(words, env=environment, **PIPES)
    wait_for(folder)
    process.kill()
    process.communicate()
    (place,) = [one.place(folder) for one in slices.read(folder, devices=1).slices]
    while workdir.is_held(place):
        time.sleep(0.02)
    return place


def test_a_slice_whose_log_is_on_a_full_disk(environment, data, straight, tmp_path):
    """It trains, stops and fails as ever, with the same codes."""
    folder = tmp_path / "run"
    begun = [*command(folder, data, "--tasks=40"), "--engine=local", "--slice=2"]
    place = begun_and_killed(begun, environment, folder)
    words = [sys.executable, "-m", "plasticity_jax", "slice", str(place)]
    with open("/dev/full", "w") as full:
        stopped = subprocess.Popen(words, env=environment, stdout=full, stderr=full)
        wait_for(folder)
        time.sleep(1.0)
        stopped.send_signal(signal.SIGTERM)
        assert stopped.wait(timeout=60) == worker.STOPPED
        worker.forget(place)
        ended = subprocess.run(words, env=environment, stdout=full, stderr=full, check=False)
        assert ended.returncode == 0
        assert worker.is_done(place)
        (place / "slice.json").write_text("{")
        failed = subprocess.run(words, env=environment, stdout=full, stderr=full, check=False)
        assert failed.returncode == 1
        assert "slice.json cannot be read" in (worker.fault(place) or "")
    found = table_.read(place / "results.parquet")
    first = found[found["task"] < 3].reset_index(drop=True)
    columns = [name for name in straight if name in first]
    pd.testing.assert_frame_equal(first[columns], straight[columns], check_exact=True)


def test_a_log_that_cannot_be_opened_is_one_sentence(environment, data, tmp_path):
    """And the same command goes on once it can."""
    folder = tmp_path / "run"
    words = command(folder, data, "--engine=local", "--slice=2")
    place = begun_and_killed(words, environment, folder)
    (place / "log.txt").unlink()
    (place / "log.txt").mkdir()
    code, _, err = finish(subprocess.Popen(words, env=environment, **PIPES))
    assert (code, len(err.strip().splitlines())) == (1, 1)
    assert err == f"error: {place} cannot be started (Is a directory).\n"
    (place / "log.txt").rmdir()
    code, _, err = finish(subprocess.Popen(words, env=environment, **PIPES))
    assert code == 0, err


def test_a_folder_of_wandb_that_takes_nothing(environment, data, straight, tmp_path):
    """Offline: one that cannot be made is one sentence, and the same command goes on. What its own
    process cannot write to a full disk it drops and says nowhere; the run is as ever.
    """
    pytest.importorskip("wandb")
    folder, full = tmp_path / "run", tmp_path / "full"
    folder.mkdir()
    (folder / "wandb").write_text("")
    env = {**environment, "WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    env["PYTHONPATH"] = ":".join([str(ROOT), *sys.path[1:]])
    words = command(folder, data, "--tracker=wandb")
    code, _, err = finish(subprocess.Popen(words, env=env, **PIPES))
    said = [line for line in err.splitlines() if line.startswith("error: ")]
    assert (code, len(said), "Traceback" in err) == (1, 1, False), err
    assert said[0].startswith(f"error: {folder / 'wandb'}/")
    assert said[0].endswith(" cannot be used (Not a directory).")
    (folder / "wandb").unlink()
    full.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(full)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a file system cannot be mounted here")
    try:
        (folder / "wandb").symlink_to(full)
        (full / "filler").write_bytes(bytes(48 << 10))
        code, _, err = finish(subprocess.Popen(words, env=env, **PIPES))
        assert code == 0, err
    finally:
        subprocess.run(["umount", str(full)], check=True)
    check_same(folder, straight)
