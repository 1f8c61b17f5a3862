"""What was measured, in memory and in segments on disk."""

import logging

import numpy as np
import pandas
import pytest
from helpers import tiny

from plasticity_jax.execution import history, merging, sweep
from plasticity_jax.storage import table as table_
from plasticity_jax.storage.checkpoints import Checkpoints
from plasticity_jax.storage.workdir import WorkdirError

SEGMENT, TASKS = 3, 11
LANES = [{"seed": 0}, {"seed": 1}]


def measured(first, count, *names):
    """Numbers that say which task and lane they are of."""
    values = np.arange(2 * first, 2 * (first + count), dtype=np.float32).reshape(count, 2)
    return {"finite": values >= 0} | {name: values + 0.5 for name in names}


def same(left, right):
    assert left.keys() == right.keys()
    for name, values in left.items():
        np.testing.assert_array_equal(values, right[name])
        assert values.dtype == right[name].dtype


# In memory


def test_a_history_grows_by_whatever_is_added():
    growing = history.Growing(measured(0, 3, "loss"))
    views = [growing.so_far()]
    for task in range(3, 40):
        growing.add(measured(task, 1, "loss"))
        views.append(growing.so_far())
    for done, view in enumerate(views, 3):
        same(view, measured(0, done, "loss"))  # (what was given out stays as it was)


def test_a_column_is_nan_where_it_was_not_measured():
    growing = history.Growing({})
    for task in range(6):
        growing.add(measured(task, 1, *["loss", "probe"][task // 3 :][:1]))
    found = growing.so_far()
    assert np.isnan(found["loss"]).tolist() == [[task > 2] * 2 for task in range(6)]
    assert np.isnan(found["probe"]).tolist() == [[task < 3] * 2 for task in range(6)]
    assert found["finite"].dtype == bool
    assert found["finite"].all()


def test_adding_does_not_copy_what_is_there():
    growing, copies = history.Growing(measured(0, 1, "loss")), set()
    for task in range(1, 1000):
        growing.add(measured(task, 1, "loss"))
        copies.add(growing.so_far()["loss"].__array_interface__["data"][0])
    assert len(copies) < 15


# On disk


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(history, "SEGMENT", SEGMENT)


@pytest.fixture
def saved(short, tmp_path):
    """Checkpoints after each of eleven tasks."""
    checkpoints = Checkpoints(tmp_path / "own")
    for done in range(1, TASKS + 1):
        state = {"weights": np.full(2, done)}
        history.save(checkpoints, done, state, measured(0, done, "loss"))
    return checkpoints


def ends(checkpoints):
    return history.segments_of(checkpoints).steps()


def damage(checkpoints, step):
    file = checkpoints.folder / str(step) / "manifest" / "metadata"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_a_checkpoint_has_the_newest_tasks_and_segments_the_others(saved):
    assert ends(saved) == [3, 6, 9]
    assert saved.steps() == [10, 11]
    _, newest = saved.restore({"history": {}})
    same(newest["history"], measured(6, 5, "loss"))
    tasks_, whole = history.read(saved)
    assert tasks_ == TASKS
    same(whole, measured(0, TASKS, "loss"))


@pytest.mark.parametrize("end", [3, 6, 9])
def test_every_task_is_in_two_places(saved, end, caplog):
    damage(history.segments_of(saved), end)
    with caplog.at_level(logging.WARNING):
        same(history.read(saved)[1], measured(0, TASKS, "loss"))
    assert ("is damaged" in caplog.text) == (end < 9)  # (a checkpoint has what the last one has)


def test_what_is_lost_is_told_by_one_sentence(saved):
    for end in (3, 6):
        damage(history.segments_of(saved), end)
    with pytest.raises(WorkdirError) as error:
        history.read(saved)
    text = str(error.value)
    assert text.startswith(
        f"{saved.folder / 'history'} lacks what was measured in task 0 (step 6: "
    )
    assert text.endswith(f"; delete {saved.folder} to start from zero.")


def test_segments_behind_a_damaged_checkpoint_are_written_again(saved):
    """Also after a kill between a segment and its checkpoint."""
    history.save(saved, 12, {}, measured(0, 12, "loss"))
    damage(saved, 12)
    assert history.read(saved, mend=False)[0] == 11
    assert ends(saved) == [3, 6, 9, 12]
    same(history.read(saved)[1], measured(0, 11, "loss"))
    assert ends(saved) == [3, 6, 9]
    history.save(saved, 12, {}, measured(0, 12, "loss", "probe"))
    assert "probe" in history.segments_of(saved).restore({"history": {}}, 12)[1]["history"]


def test_a_whole_history_in_a_checkpoint_is_read_and_cut(short, tmp_path):
    """As it was before there were segments."""
    old = Checkpoints(tmp_path / "own")
    old.save(TASKS, {"state": {}, "history": measured(0, TASKS, "loss")})
    done, found = history.read(old)
    same(found, measured(0, TASKS, "loss"))
    growing = history.Growing(found)
    growing.add(measured(TASKS, 1, "loss"))
    history.save(old, done + 1, {}, growing.so_far())
    assert ends(old) == [3, 6, 9, 12]
    same(history.read(old)[1], measured(0, TASKS + 1, "loss"))


# In a run


@pytest.fixture(scope="module")
def spec(tmp_path_factory, compiled_quickly):
    folder = tmp_path_factory.mktemp("data")
    return tiny.spec(dataset=tiny.arrays(folder), tasks=TASKS, points=2, optimizer="adam")


def assert_same(left, right):
    pandas.testing.assert_frame_equal(left, right, check_exact=True)


@pytest.mark.long
def test_a_run_in_segments_is_resumed_parted_and_merged(spec, short, tmp_path):
    """Stopped after its seventh task; then one of its lanes goes on alone, and then the other."""
    straight = sweep.run(spec, LANES)
    path, told = tmp_path / "run", []

    def stop(rows):
        told.append(rows)
        if rows["task"].max() == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep.run(spec, LANES, path, on_task=stop)
    assert_same(sweep.run(spec, LANES[:1], path), straight[straight["lane"] == 0])
    other = straight[straight["lane"] == 1].reset_index(drop=True)
    assert_same(sweep.run(spec, LANES[1:], path), other)
    assert_same(table_.read(path / "results.parquet"), straight)
    for folder in (path / "checkpoints").iterdir():
        assert ends(Checkpoints(folder)) == [3, 6, 9]
    merging.merge([path], tmp_path / "merged")
    assert_same(table_.read(tmp_path / "merged" / "results.parquet"), straight)
    points = [table_.read(tmp_path / n / "points.parquet") for n in ("run", "merged")]
    assert len(points[0]) == 2 * 2 * TASKS
    assert_same(*points)
    # (what is told of each task is a row of the table)
    rows = pandas.concat(told).sort_values(["lane", "task"], ignore_index=True)
    assert_same(rows, straight[straight["task"] < 7].reset_index(drop=True))
