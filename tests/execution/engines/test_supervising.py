"""What engines have in common, and processes on this machine."""

import itertools
import os
import pathlib
import signal
import subprocess
import time

import pandas as pd
import pytest
from helpers import tiny
from helpers.processes import command, finish, wait_for

from plasticity_jax.cli import commands
from plasticity_jax.execution import engines, slices
from plasticity_jax.execution.engines import local, status, supervising, worker
from plasticity_jax.storage import table as table_
from plasticity_jax.storage import workdir

ROOT = pathlib.Path(__file__).parents[3]


class Stop(workdir.Stop):
    """A stop that is asked for by the test."""


def options(folder, tell=lambda line: None, stop=None, workers=2, moved=lambda: None):
    return engines.Options(folder, workers, "cpu", (), {}, moved, tell, stop or Stop())


class Pretended:
    """Jobs that end at once with the codes listed for their folder."""

    def __init__(self, codes, room=2):
        self.codes = {name: list(found) for name, found in codes.items()}
        self.started, self.most, self.stopped, self.size = [], 0, [], room
        self.running = {}

    def jobs(self):
        return supervising.Jobs(self.room, self.start, self.ended, self.stop)

    def room(self, running):
        self.most = max(self.most, running)
        return self.size - running

    def start(self, folders):
        made = []
        for folder in folders:
            self.started.append(folder.name)
            self.running[len(self.started)] = folder
            made.append(len(self.started))
        return made

    def ended(self, jobs):
        return {job: self.codes[self.running[job].name].pop(0) for job in jobs}

    def stop(self, jobs):
        self.stopped += jobs


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(supervising, "PAUSE", 0.0)


def supervised(tmp_path, codes, **more):
    folders = [tmp_path / name for name in codes]
    for folder in folders:
        folder.mkdir()
    pretended = Pretended(codes)
    told = []
    failed = supervising.supervise(
        folders, options(tmp_path, told.append, **more), pretended.jobs()
    )
    return pretended, {folder.name: reason for folder, reason in failed.items()}, told


def test_what_dies_is_sent_again_three_times(tmp_path):
    codes = {"a": [0], "b": [-9, 137, 0], "c": [-9] * 4, "d": [0]}
    pretended, failed, told = supervised(tmp_path, codes)
    assert failed == {"c": "it died 4 times, the last with code -9"}
    assert [pretended.started.count(name) for name in "abcd"] == [1, 3, 4, 1]
    assert pretended.most <= 2
    assert "b ended with code -9: it is sent again" in told


def test_what_is_cancelled_or_at_fault_is_not(tmp_path):
    pretended, failed, _ = supervised(tmp_path, {"a": [None], "b": [1], "c": [0]})
    assert failed["a"] == "its job was cancelled"
    assert failed["b"].startswith("it ended with code 1; ")
    assert pretended.started == ["a", "b", "c"]


def test_what_is_given_up_is_noted_where_status_looks(tmp_path):
    """Its own process could not, as it was killed or never began."""
    codes = {"a": [None], "b": [1], "c": [-9] * 4, "d": [-9, 0], "e": [0]}
    _, failed, _ = supervised(tmp_path, codes)
    assert sorted(failed) == ["a", "b", "c"]
    for name in codes:
        noted = worker.fault(tmp_path / name)
        assert noted == (f"{failed[name]}." if name in failed else None)
    programs = [
        {"spec": {"tasks": 4}, "lanes": [{}], "numbers": [number], "folder": "0", "slice": name}
        for number, name in enumerate(codes)
    ]
    where = tmp_path / "run"
    (where / "slices").mkdir(parents=True)
    for name in codes:
        (tmp_path / name).rename(where / "slices" / name)
    workdir.write_config(where, {"programs": programs, "data": {}}, {})
    assert [one.state for one in status.read(where).slices] == ["failed"] * 3 + ["waiting"] * 2


def test_a_fault_is_told_in_its_own_words(tmp_path):
    (tmp_path / "a").mkdir()
    worker.note_fault(tmp_path / "a", "dataset emnist is not there.")
    pretended = Pretended({"a": [1]})
    failed = supervising.supervise([tmp_path / "a"], options(tmp_path), pretended.jobs())
    assert failed == {tmp_path / "a": "dataset emnist is not there."}
    assert worker.fault(tmp_path / "a") == "dataset emnist is not there."


def test_jobs_that_run_already_are_not_started(tmp_path):
    pretended = Pretended({"a": [0], "b": [0]})
    pretended.running["known"] = tmp_path / "a"
    folders = [tmp_path / "a", tmp_path / "b"]
    begun = {tmp_path / "a": "known"}
    assert not supervising.supervise(folders, options(tmp_path), pretended.jobs(), begun)
    assert pretended.started == ["b"]


def test_a_stop_starts_nothing_more(tmp_path):
    stop = Stop()
    stop.requested = True
    pretended, failed, _ = supervised(tmp_path, {"a": [0], "b": [0]}, stop=stop)
    assert (pretended.started, failed) == ([], {})


@pytest.mark.parametrize(("cores", "workers", "shares"), [(4, 2, 2), (4, 3, 1), (2, 4, 1)])
def test_workers_share_the_cores(cores, workers, shares, tmp_path, monkeypatch):
    monkeypatch.setattr(local, "cores", lambda: list(range(8, 8 + cores)))
    found = local._places(options(tmp_path, workers=workers))
    given = [found[number]["cores"].split(",") for number in found]
    assert [len(own) for own in given] == [shares] * workers
    if workers * shares <= cores:
        assert len(set(itertools.chain.from_iterable(given))) == workers * shares


def test_each_worker_has_an_accelerator_of_its_own(tmp_path, monkeypatch):
    asked = options(tmp_path)._replace(backend="gpu")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert [p["CUDA_VISIBLE_DEVICES"] for p in local._places(asked).values()] == ["3", "5"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert [p["CUDA_VISIBLE_DEVICES"] for p in local._places(asked).values()] == ["0", "1"]


def test_no_more_workers_than_accelerators(tmp_path, monkeypatch, capsys):
    """The next one would have none, and jax would start it on a CPU."""
    monkeypatch.setattr(local, "devices", lambda: local.Devices("gpu", 1))
    given = ["run", "--dataset=digits", "--engine=local", "--workers=2"]
    assert commands.main([*given, f"--workdir={tmp_path / 'new'}"]) == 2
    assert "error: workers is 2: allowed are 1 to 1, as many as this machine has accelerators " in (
        capsys.readouterr().err
    )
    assert not (tmp_path / "new").exists()


def test_a_process_is_told_for_which_accelerator_it_is(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(local.subprocess, "Popen", lambda words, **more: started.append(words))
    for backend in ("gpu", "cpu"):
        asked = options(tmp_path)._replace(backend=backend)
        local._started(tmp_path, asked, {})
    told = ["--backend=gpu" in words for words in started]
    assert told == [True, False]


def test_it_is_asked_for_the_devices_elsewhere(monkeypatch):
    """This process starts no backend, which would take an accelerator's memory."""
    monkeypatch.setattr(local, "_ASKS", "print('gpu', 4)")
    assert local.devices() == ("gpu", 4)
    monkeypatch.setattr(local, "_ASKS", "print('cpu', 1)")
    assert local.devices() == ("cpu", len(local.cores()))
    monkeypatch.setattr(local, "_ASKS", "raise RuntimeError('no such backend.')")
    with pytest.raises(workdir.WorkdirError, match=r"\(RuntimeError: no such backend\)\.$"):
        local.devices()


# Processes


@pytest.mark.faults
@pytest.mark.slow
def test_a_killed_slice_and_a_killed_run_lose_nothing(tmp_path):
    """One process of a slice is killed, then the run itself, whose slices end with it; the same
    command goes on, to the table of one process.
    """
    data = tiny.arrays(tmp_path / "data")
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PLASTICITY_CACHE_DIR": str(tmp_path / "cache")}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    words = command(tmp_path / "run", data, "--engine=local", "--slice=1", "--workers=1")
    first = subprocess.Popen(words, env=env, **pipes)
    victims = wait_for(tmp_path / "run")
    os.kill(victims[0], signal.SIGKILL)
    second = wait_for(tmp_path / "run", besides=victims)
    first.kill()
    first.communicate()
    time.sleep(0.3)
    assert (
        not pathlib.Path(f"/proc/{second[-1]}/cmdline").exists()
        or not pathlib.Path(f"/proc/{second[-1]}/cmdline").read_bytes()
    )
    code, _, err = finish(subprocess.Popen(words, env=env, **pipes))
    assert code == 0, err
    code, _, err = finish(subprocess.Popen(command(tmp_path / "one", data), env=env, **pipes))
    assert code == 0, err
    found, whole = (table_.read(tmp_path / n / "results.parquet") for n in ("run", "one"))
    pd.testing.assert_frame_equal(found, whole, check_exact=True)


@pytest.mark.faults
@pytest.mark.slow
def test_lanes_vmapped_in_slices_are_those_of_one_run_at_that_width(tmp_path):
    """In processes of their own, the last slice shorter than the width; another width is refused,
    and the recorded one is kept where none is given.
    """
    data = tiny.arrays(tmp_path / "data")
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PLASTICITY_CACHE_DIR": str(tmp_path / "cache")}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}

    def ran(name, *more):
        words = command(tmp_path / name, data, "--seeds=3", "--lane_strategy=vmap", *more)
        return finish(subprocess.Popen(words, env=env, **pipes))

    sliced = ("--engine=local", "--slice=2")
    for name, more in (("run", ("--lane_width=2", *sliced)), ("one", ("--lane_width=2",))):
        code, _, err = ran(name, *more)
        assert code == 0, err
    found, whole = (table_.read(tmp_path / n / "results.parquet") for n in ("run", "one"))
    pd.testing.assert_frame_equal(found, whole, check_exact=True)
    code, _, err = ran("run", "--lane_width=1", "--tasks=4", *sliced)
    assert code == 1
    assert "lane_width is 1, but the lanes in" in err
    assert "were run with 2: allowed is --lane_width=2" in err
    assert "Traceback" not in err
    recorded = slices.read(tmp_path / "run", devices=1)
    assert {one.program.execution.width for one in recorded.slices} == {2}
