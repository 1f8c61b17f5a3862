"""Trained states of a workdir are kept as asked, and read by lane and task; what ran is written
down.
"""

import dataclasses
import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from helpers import tiny

import plasticity_jax as pj
from plasticity_jax.execution import growth, record, slices, sweep
from plasticity_jax.storage import checkpoints
from plasticity_jax.storage.workdir import WorkdirError

SEEDS = [{"seed": 0}, {"seed": 1}]
TASKS = 5


@pytest.fixture(scope="module")
def spec(tmp_path_factory, compiled_quickly):
    data = tiny.arrays(tmp_path_factory.mktemp("data"))
    return tiny.spec(dataset=data, tasks=TASKS, optimizer="adam")


@pytest.fixture(scope="module")
def kept(spec, tmp_path_factory):
    """A run of five tasks that keeps the states of each second one."""
    folder = tmp_path_factory.mktemp("kept") / "run"
    sweep.run(spec, SEEDS, folder, checkpoint_every="never", keep_checkpoints="every:2,last")
    return folder


def steps(folder) -> list[int]:
    (one,) = slices.read(folder).slices
    return checkpoints.Checkpoints(one.checkpoints(folder)).steps()


@pytest.mark.long
def test_asked_states_stay(spec, kept, tmp_path):
    assert steps(kept) == [2, 4, 5]
    # whoever goes on without asking again removes none of them
    sweep.run(dataclasses.replace(spec, tasks=TASKS + 1), SEEDS, kept)
    assert steps(kept) == [2, 4, 5, 6]
    sweep.run(dataclasses.replace(spec, tasks=TASKS + 2), SEEDS, kept)
    assert steps(kept) == [2, 4, 6, 7]
    sweep.run(dataclasses.replace(spec, tasks=3), SEEDS, tmp_path)
    assert steps(tmp_path) == [2, 3]


@pytest.mark.long
def test_a_state_is_that_of_a_lane_after_a_task(spec, kept, tmp_path):
    """As that of a run that ended there, of this lane alone."""
    sweep.run(dataclasses.replace(spec, tasks=2), SEEDS[1:], tmp_path)
    expected = pj.load_state(tmp_path, 0)
    found = pj.load_state(kept, 1, task=1)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for left, right in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(left, right)
    assert found.params.keys() == found.initial.keys()
    later = jax.tree.leaves(pj.load_state(kept, 1).params)
    assert any((a != b).any() for a, b in zip(later, jax.tree.leaves(found.params), strict=True))


@pytest.mark.long
def test_lanes_that_part_take_their_kept_states_along(spec, kept, tmp_path):
    (one,) = slices.read(kept).slices
    folder = tmp_path / "part"
    growth.copy_lanes(one.checkpoints(kept), folder, [1])
    copied = checkpoints.Checkpoints(folder)
    assert copied.steps() == steps(kept)
    (history,) = (copied.restore({"history": {}}, step)[1] for step in [2])
    assert history["history"]["loss"].shape == (2, 1)


@pytest.mark.long
@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ((2,), WorkdirError, "lane is 2, but .* has no such lane: allowed are 0 to 1, as in the"),
        ((-1,), ValueError, "lane is -1: allowed"),
        (("a",), ValueError, "lane is 'a': allowed"),
        ((0, 0), WorkdirError, "task is 0, but .* after task 1, 3, .*: allowed is one of these"),
        ((0, -1), ValueError, "task is -1: allowed"),
    ],
)
def test_states_that_are_not_there(kept, arguments, error, said):
    with pytest.raises(error, match=said):
        pj.load_state(kept, *arguments)


def test_a_folder_without_states(tmp_path):
    with pytest.raises(WorkdirError, match=r"has no config.json: allowed is the folder of a run\."):
        pj.load_state(tmp_path, 0)
    with pytest.raises(WorkdirError, match="is no folder"):
        pj.load_state(tmp_path / "nowhere", 0)


@pytest.mark.parametrize(
    ("given", "steps"),
    [
        ("last", []),
        ("every:3", [3, 6]),
        ("every:3, last", [3, 6]),
        ("every:2,every:3", [2, 3, 4, 6]),
    ],
)
def test_what_is_kept(given, steps):
    always = checkpoints.keeping(given)
    assert [step for step in range(1, 7) if always(step)] == steps


@pytest.mark.parametrize(
    "given", ["", "all", "every", "every:", "every:0", "every:-1", "last:2", 3]
)
def test_what_cannot_be_kept(given):
    with pytest.raises(ValueError, match=r"keep_checkpoints is .*: allowed are last, every:N"):
        checkpoints.keeping(given)


# What is written down


@pytest.mark.long
def test_every_command_that_ran_something_is_written_down(spec, tmp_path):
    sweep.run(dataclasses.replace(spec, tasks=1), SEEDS[:1], tmp_path)
    sweep.run(dataclasses.replace(spec, tasks=1), SEEDS[:1], tmp_path)  # nothing is left to run
    sweep.run(dataclasses.replace(spec, tasks=2), SEEDS[:1], tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert len(config["calls"]) == 2
    for call in config["calls"]:
        assert call["started"] <= call["ended"] <= record.now()
        assert call["command"]
        assert {"commit", "dirty", "host", "platform", "device", "versions"} <= set(call)
        assert call["versions"]["jax"] == jax.__version__
    assert "calls" not in config["before"]


def test_a_command_that_fails_is_written_down(spec, tmp_path, monkeypatch):
    def fails(*_, **__):
        raise FloatingPointError

    with monkeypatch.context() as context:
        context.setattr(sweep.tasks, "run_program", fails)
        with pytest.raises(FloatingPointError):
            sweep.run(spec, SEEDS[:1], tmp_path)
    (call,) = json.loads((tmp_path / "config.json").read_text())["calls"]
    assert call["ended"] is not None


def git(folder, *words):
    settings = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *settings, *words], cwd=folder, check=True, capture_output=True)


def test_the_commit_is_that_of_the_package(tmp_path):
    package = tmp_path / "plasticity_jax" / "execution"
    package.mkdir(parents=True)
    assert record.checkout(package) == (None, None)
    git(tmp_path, "init")
    (package / "a.py").write_text("1")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    commit, dirty = record.checkout(package)
    assert (len(commit), dirty) == (40, False)
    assert record.code_version(package) == commit[:12]
    (package / "a.py").write_text("2")
    assert record.checkout(package) == (commit, True)
    assert record.code_version(package) == f"{commit[:12]}+"


@pytest.mark.long
def test_a_package_that_is_only_on_the_path_is_recorded(tmp_path):
    """From another folder, without an installed package of this name."""
    where = os.path.dirname(os.path.dirname(pj.__file__))
    script = (
        "from plasticity_jax.execution import record; print(*record.checkout());"
        "print(record.version('plasticity_jax'))"
    )
    environment = {**os.environ, "PYTHONPATH": where}
    found = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert found.stdout.split() == [*map(str, record.checkout()), pj.__version__]
