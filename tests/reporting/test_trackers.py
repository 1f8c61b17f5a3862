"""What trackers are told: each task once, whatever dies in between."""

import json
import resource

import numpy as np
import pandas as pd
import pytest

from plasticity_jax.cli import watching
from plasticity_jax.execution import waves
from plasticity_jax.reporting import trackers
from plasticity_jax.storage import table as table_
from plasticity_jax.storage import workdir

COLUMNS = ["method", "l2.strength"]


def rows(tasks=range(2), lanes=range(4)):
    """Two seeds of two arms; only one arm has a strength."""
    found = []
    for lane in lanes:
        method = "none" if lane < 2 else "l2"
        strength = np.nan if lane < 2 else 3
        for task in tasks:
            loss = np.nan if (lane, task) == (1, 1) else 10.0 * lane + task
            found.append([lane, task, lane % 2, method, strength, loss, not np.isnan(loss)])
    names = ["lane", "task", "seed", *COLUMNS, "loss", "finite"]
    return pd.DataFrame(found, columns=names)


@pytest.fixture
def arms():
    lanes = rows(tasks=[0])
    # whole numbers, where a column with gaps has floats
    lanes["l2.strength"] = lanes["l2.strength"].astype(object).where(lanes["lane"] < 2, 3)
    return trackers.arms(lanes, COLUMNS)


@pytest.fixture
def means(monkeypatch):
    """What the tracker of means is told, in place of a package."""
    told = []

    class Module:
        @staticmethod
        def start(folder):
            return lambda arm, task, values: told.append((arm, task, values))

    monkeypatch.setattr(trackers, "_module", lambda name: Module)
    return told


def test_arms_are_told_their_means_once_all_seeds_are_there(arms, means, tmp_path):
    tell = trackers.opened(["tensorboard"], tmp_path, arms)
    assert tell is not None
    tell(rows(tasks=[0], lanes=[0, 2, 3]))
    assert means == [("L2", 0, {"loss": 25.0})]
    tell(rows(tasks=[0, 1], lanes=[0, 1]))
    assert means[1:] == [("none", 0, {"loss": 5.0}), ("none", 1, {"loss": 1.0})]


def test_nothing_is_told_twice_or_missed(arms, means, tmp_path):
    """A run that died after its results were written, with a seed of one arm behind."""
    tell = trackers.opened(["wandb"], tmp_path, arms)
    tell(rows(tasks=[0]))
    tell(rows(tasks=[0]))
    assert [(arm, task) for arm, task, _ in means] == [("L2", 0), ("none", 0)]
    whole = pd.concat([rows(tasks=[0, 1], lanes=[0, 1, 2]), rows(tasks=[0], lanes=[3])])
    table_.write(whole.reset_index(drop=True), tmp_path / "results.parquet")
    tell = trackers.opened(["wandb"], tmp_path, arms)
    assert [(arm, task) for arm, task, _ in means[2:]] == [("none", 1)]
    tell(rows(tasks=[1], lanes=[3]))
    assert means[-1] == ("L2", 1, {"loss": 26.0})


def test_a_lane_that_a_wave_stopped_is_not_waited_for(arms, means, tmp_path):
    """Nor do rows pile up behind it; if it goes on later, its arm is told again."""
    stopped = {}
    tell = trackers._Tracker("wandb", tmp_path, arms, lambda: stopped)
    tell.tell(rows(tasks=[0, 1], lanes=[2, 3]))
    stopped[3] = 2
    for task in range(2, 30):
        tell.tell(rows(tasks=[task], lanes=[2]))
        assert means[-1] == ("L2", task, {"loss": 20.0 + task})
        assert tell._waiting is None
    assert [(arm, task) for arm, task, _ in means] == [("L2", task) for task in range(30)]
    table_.write(rows(range(30), [2]), tmp_path / "results.parquet")
    tell.tell(rows(tasks=[2], lanes=[3]))
    assert means[-1] == ("L2", 2, {"loss": 27.0})
    assert tell._waiting is None


def test_lanes_that_waves_stopped_are_read_when_that_was_written(tmp_path):
    stopped = watching._Stopped(tmp_path)
    assert stopped() == {}
    for lanes in ({}, {"3": 2}, {"3": 2, "1": 4}):
        entries = {lane: {"after": after, "why": "diverged"} for lane, after in lanes.items()}
        workdir.write_config(tmp_path, {"programs": []}, waves.record(entries))
        assert stopped() == {int(lane): after for lane, after in lanes.items()}


def test_seeds_that_are_added_are_told_with_those_before(arms, means, tmp_path):
    """A run of a seed of each arm, which got another one: means over both, once both are there."""
    first = arms._replace(lanes={"none": 1, "L2": 1})
    trackers.opened(["wandb"], tmp_path, first)(rows(tasks=[0, 1], lanes=[0, 2]))
    assert [values["loss"] for _, _, values in means] == [20.0, 21.0, 0.0, 1.0]
    table_.write(rows(lanes=[0, 2]), tmp_path / "results.parquet")
    tell = trackers._Tracker("wandb", tmp_path, arms, dict)
    means.clear()
    tell.tell(rows(tasks=[0], lanes=[3]))
    assert means == [("L2", 0, {"loss": 25.0})]
    tell.tell(rows(tasks=[1], lanes=[3]))
    assert means[1:] == [("L2", 1, {"loss": 26.0})]
    tell.tell(rows(tasks=[2], lanes=[3]))
    assert len(means) == 2  # (the other seed may yet do that task)
    tell.tell(rows(tasks=[2], lanes=[2]))
    assert means[2:] == [("L2", 2, {"loss": 27.0})]
    assert tell._waiting is None


def test_what_a_tracker_misses_is_known(arms, tmp_path):
    """As when a run died after a task was saved, and before the table was written."""
    assert trackers.behind(["jsonl"], tmp_path, rows(tasks=[0]))
    trackers.opened(["jsonl"], tmp_path, arms)(rows(tasks=[0]))
    assert not trackers.behind(["jsonl"], tmp_path, rows(tasks=[0]))
    assert trackers.behind(["jsonl"], tmp_path, rows(tasks=[0, 1], lanes=[2]))
    assert trackers.behind(["jsonl", "wandb"], tmp_path, rows(tasks=[0]))


def test_lines_are_json_with_null_for_what_was_not_measured(arms, tmp_path):
    tell = trackers.opened(["jsonl"], tmp_path, arms)
    tell(rows(tasks=[0]))
    table_.write(rows(), tmp_path / "results.parquet")
    trackers.opened(["jsonl"], tmp_path, arms)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    assert sorted((row["lane"], row["task"]) for row in found) == [
        (lane, task) for lane in range(4) for task in range(2)
    ]
    lost = next(row for row in found if (row["lane"], row["task"]) == (1, 1))
    assert (lost["loss"], lost["finite"], lost["l2.strength"]) == (None, False, None)


def test_a_line_that_was_half_written_is_removed(arms, tmp_path):
    """As by a process that was killed; what a disk does not take leaves no part of a line."""
    tell = trackers.opened(["jsonl"], tmp_path, arms)
    tell(rows(tasks=[0]))
    file = tmp_path / "metrics.jsonl"
    whole = file.read_bytes()
    for size in (3, 100_000):
        file.write_bytes(whole + b'{"lane": 1' + b" " * size)
        tell = trackers.opened(["jsonl"], tmp_path, arms)
        assert file.read_bytes() == whole
    file.write_bytes(b"{" * 100_000)
    trackers.opened(["jsonl"], tmp_path, arms)
    assert file.read_bytes() == b""
    file.write_bytes(whole)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 20, resource.RLIM_INFINITY))
    try:
        with pytest.raises(workdir.WorkdirError, match=r"jsonl cannot write .*File too large"):
            tell(rows(tasks=[1]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    assert file.read_bytes() == whole


def test_without_trackers_nobody_is_told(arms, tmp_path):
    assert trackers.opened([], tmp_path, arms) is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "package"), [("tensorboard", "tensorboardX"), ("wandb", "wandb")])
def test_what_is_not_installed_is_one_sentence(name, package, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    said = f"tracker is '{name}', but {package} is not installed: allowed with the extra {name}, as"
    with pytest.raises(ValueError, match=said):
        trackers.check([name])
    with pytest.raises(ValueError, match="tracker is 'mlflow': allowed are 'jsonl', 'tensorboard'"):
        trackers.check(["mlflow"])
    trackers.check(["jsonl"])


def test_a_tracker_that_cannot_write_is_one_sentence(arms, tmp_path):
    tell = trackers.opened(["jsonl"], tmp_path / "gone", arms)
    with pytest.raises(workdir.WorkdirError, match=r"^tracker jsonl cannot write in .*\.$"):
        tell(rows())
    (tmp_path / trackers.FILE).write_text("[")
    with pytest.raises(workdir.WorkdirError, match=r"trackers\.json cannot be read"):
        trackers.opened(["jsonl"], tmp_path, arms)


def test_another_digit_in_what_was_told_is_refused(arms, tmp_path):
    """As a tracker would be told of a task twice, or miss one."""
    trackers.opened(["jsonl"], tmp_path, arms)(rows(tasks=[0]))
    file = tmp_path / trackers.FILE
    told = file.read_text()
    assert '"0": 1' in told
    file.write_text(told.replace('"0": 1', '"0": 3'))
    with pytest.raises(workdir.WorkdirError, match=r"trackers\.json cannot be read .*again\.$"):
        trackers.behind(["jsonl"], tmp_path, rows(tasks=[1]))
    content = json.loads(told)
    del content["sha256"]  # (as from before there was one)
    file.write_text(json.dumps(content))
    assert not trackers.behind(["jsonl"], tmp_path, rows(tasks=[0]))


@pytest.mark.oracle
def test_event_files_are_those_of_tensorboard(arms, tmp_path):
    pytest.importorskip("tensorboardX")
    from tensorboardX import proto  # noqa: F401
    from tensorboardX.record_writer import RecordWriter  # noqa: F401

    tell = trackers.opened(["tensorboard"], tmp_path, arms)
    tell(rows())
    for arm in ("L2", "none"):
        (file,) = (tmp_path / "tensorboard" / arm).iterdir()
        assert b"loss" in file.read_bytes()


@pytest.mark.oracle
def test_wandb_writes_offline(arms, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    tell = trackers.opened(["wandb"], tmp_path, arms)
    tell(rows())
    assert list((tmp_path / "wandb").glob("offline-run-*"))
