"""Waves: the lanes that go on have the bits of a run without waves, and what is left out is
told.
"""

import json
import math

import numpy as np
import pandas as pd
import pytest
from helpers import tiny

from plasticity_jax.cli import settings
from plasticity_jax.cli import status as cli_status
from plasticity_jax.execution import history, merging, slices, sweep, waves
from plasticity_jax.execution import program as program_
from plasticity_jax.execution.engines import description, local, sliced, status, worker
from plasticity_jax.storage import table as table_
from plasticity_jax.storage.checkpoints import Checkpoints
from plasticity_jax.storage.workdir import WorkdirError

TASKS, WAVE = 6, 2
# the last one diverges
LANES = [{"seed": seed} for seed in range(5)] + [{"seed": 5, "learning_rate": 1e30}]
METRIC = "online_loss_mean"  # (which no two lanes have alike)


@pytest.fixture(scope="module")
def spec(tmp_path_factory, compiled_quickly):
    folder = tmp_path_factory.mktemp("data")
    return tiny.spec(dataset=tiny.arrays(folder), tasks=TASKS, points=2, optimizer="adam")


@pytest.fixture(scope="module")
def straight(spec, tmp_path_factory):
    """A run without waves, two lanes together, on one device as a slice has it."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    run_in_slices(spec, folder, 6)
    return folder


def table_of(folder):
    return table_.read(folder / "results.parquet")


def limit(straight):
    """A value that parts the lanes in the middle after the first wave."""
    table = table_of(straight)
    first = table[(table["task"] < WAVE) & table["finite"] & (table["lane"] < 5)]
    means = np.sort(first.groupby("lane")[METRIC].mean())
    assert means[1] < means[2]
    return float(means[1:3].mean())


def run_in_slices(spec, folder, lanes, below=None, every=None, on_task=None):
    run = (spec, LANES)
    dataset = program_.load_common_dataset([spec], None, False)
    samples = program_.sizes([spec], program_.device_data(dataset))
    asked = sliced.Asked("local", lanes, 1, "cpu", (), {}, description.How())
    programs = program_.plan([run], samples, "vmap", 2)
    programs = sliced.on_one_device(programs, asked, "vmap", 2)
    parted = waves.checked(every, below, programs)

    def run_all(programs):
        return sliced.run_in_slices(
            programs, dataset, folder, asked, joined=parted is not None, on_task=on_task
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "run", in_this_process)
        if parted is None:
            return run_all(programs)
        return waves.run_in_waves(programs, parted, folder, run_all)


def in_this_process(folders, options):
    """As processes that each have one device."""
    for folder in folders:
        worker.run(folder)
        options.moved()
    return {}


def expected(straight, below):
    """The rows that a run in waves has, from one without, by other means than its own."""
    whole = table_of(straight)
    kept = []
    for _, own in whole.groupby("lane"):
        own = own.assign(stopped=False)
        for end in range(WAVE, TASKS, WAVE):
            wave = own[(own["task"] >= end - WAVE) & (own["task"] < end)]
            if not wave["finite"].all() or np.nanmean(wave[METRIC]) < below:
                own = own[own["task"] < end].copy()
                own.loc[own["task"] == end - 1, "stopped"] = True
                break
        kept.append(own)
    return pd.concat(kept, ignore_index=True)


def same(left, right):
    pd.testing.assert_frame_equal(left, right, check_exact=True)


def without(table):
    return table.drop(columns="stopped")


@pytest.mark.long
def test_lanes_that_go_on_are_those_of_a_run_without_waves(spec, straight, tmp_path):
    below = limit(straight)
    wanted = expected(straight, below)
    assert wanted["stopped"].sum() >= 3
    folder = tmp_path / "run"
    found = run_in_slices(spec, folder, 6, {METRIC: below}, WAVE)
    same(found[wanted.columns], wanted)
    same(found, table_of(folder))
    record = json.loads((folder / "config.json").read_text())["waves"]
    stopped = wanted[wanted["stopped"]]
    after = dict(zip(stopped["lane"].map(str), stopped["task"] + 1, strict=True))
    assert {lane: entry["after"] for lane, entry in record["stopped"].items()} == after
    assert record["stopped"]["5"]["why"] == "diverged"
    assert record["stop_below"] == {METRIC: below}
    assert (record["every"], record["tasks"]) == (WAVE, TASKS)
    # nothing is run again, and nothing changes
    same(run_in_slices(spec, folder, 6, {METRIC: below}, WAVE), found)
    # without waves all lanes go on
    whole = run_in_slices(spec, folder, 6)
    same(whole[table_of(straight).columns], table_of(straight))
    assert not whole.get("stopped", pd.Series([False])).any()


@pytest.mark.long
def test_what_is_left_is_planned_into_fuller_slices(spec, straight, tmp_path):
    """Six lanes in three slices of two, of which fewer go on, whose lanes are put together; in the
    middle of the second wave the run is interrupted.
    """
    below, folder = limit(straight), tmp_path / "run"
    wanted = expected(straight, below)
    left = wanted[wanted["task"] >= WAVE]["lane"].nunique()
    assert 0 < left < 5

    def stop(rows):
        if rows["task"].max() >= WAVE:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_in_slices(spec, folder, 2, {METRIC: below}, WAVE, stop)
    running = [one for one in slices.read(folder).slices if one.program.spec.tasks > WAVE]
    assert sorted(len(one.numbers) for one in running) == sorted(
        [2] * (left // 2) + [1] * (left % 2)
    )
    found = run_in_slices(spec, folder, 2, {METRIC: below}, WAVE)
    same(found[wanted.columns], wanted)
    points = [table_.read(path / "points.parquet") for path in (folder, straight)]
    same(points[0], points[1].merge(wanted[["lane", "task"]]))
    told = status.read(folder)
    assert sum(one.stopped for one in told.slices) == wanted["stopped"].sum()
    assert f"{wanted['stopped'].sum()} lanes stopped" in cli_status.text("run", told)


def test_in_one_process_resumed_merged_and_loaded(spec, tmp_path):
    """By the library, with `stop_below` that no lane is above: only a limit of its own."""
    lanes = LANES[3:]
    whole = sweep.run(spec, lanes, tmp_path / "whole", lane_strategy="map")
    means = whole[whole["task"] < WAVE].groupby("lane")[METRIC].mean()
    below = {METRIC: float(means[[0, 1]].mean())}
    found = sweep.run(
        spec, lanes, tmp_path / "run", lane_strategy="map", wave=WAVE, stop_below=below
    )
    assert found.groupby("lane")["task"].max()[2] == WAVE - 1
    assert found.groupby("lane")["task"].max().max() == TASKS - 1
    merged = whole.merge(found[["lane", "task", "stopped"]])
    same(found[merged.columns], merged)
    same(without(merging.load(tmp_path / "run")), without(found))
    assert (
        merging.load(tmp_path / "run", tmp_path / "run")["stopped"].sum() == found["stopped"].sum()
    )
    merging.merge([tmp_path / "run"], tmp_path / "merged")
    same(table_of(tmp_path / "merged"), found)
    assert waves.stopped(tmp_path / "merged") == waves.stopped(tmp_path / "run")


def test_slices_are_joined_with_what_they_measured(tmp_path):
    """Also where one measured something that the other did not, and of older tasks in segments."""
    made = []
    for index, name in enumerate(("loss", "probe")):
        own = Checkpoints(tmp_path / str(index))
        values = 10.0 * index + np.arange(300, dtype=np.float32).reshape(150, 2)
        measured = {"finite": values >= 0, name: values}
        history.save(own, 150, {"weights": np.full((2, 3), index)}, measured)
        made.append(own)
    joined = Checkpoints(tmp_path / "joined")
    history.join([(made[0], [1]), (made[1], [0, 1])], joined, 150)
    done, found = history.read(joined)
    assert done == 150
    assert found["finite"].shape == (150, 3)
    assert found["finite"].dtype == bool
    np.testing.assert_array_equal(found["loss"][:, 0], np.arange(1, 300, 2))
    assert np.isnan(found["loss"][:, 1:]).all()
    np.testing.assert_array_equal(found["probe"][:, 2], 11 + np.arange(0, 300, 2))
    _, tree = joined.restore({"state": {"weights": np.zeros((3, 3), int)}})
    assert tree["state"]["weights"][:, 0].tolist() == [0, 1, 1]
    with pytest.raises(WorkdirError, match="has the states after 150 tasks, where those after 151"):
        history.join([(made[0], [0])], joined, 151)


def test_what_cannot_be_asked_for_is_told(spec, tmp_path):
    with pytest.raises(ValueError, match=r"^wave or stop_below is given without a workdir: .*\.$"):
        sweep.run(spec, LANES, wave=2)
    with pytest.raises(ValueError, match=r"^wave is 0: allowed are .*\.$"):
        sweep.run(spec, LANES, tmp_path, wave=0)
    with pytest.raises(ValueError, match=r"^stop_below names 'speed': allowed are .*loss.*\.$"):
        sweep.run(spec, LANES, tmp_path, stop_below={"speed": 1.0})
    with pytest.raises(ValueError, match=r"^stop_below of loss is .*\.$"):
        sweep.run(spec, LANES, tmp_path, stop_below={"loss": math.nan})
    over = tiny.spec(tasks=4, schedule="cosine", options={"cosine.over": "run"})
    with pytest.raises(ValueError, match=r"^wave is given, but the learning rate changes .*\.$"):
        sweep.run(over, LANES, tmp_path, wave=2)
    for given in ("loss", "loss:", ":1", "loss:1,loss:2", "loss:x"):
        with pytest.raises(ValueError, match=r"^stop_below.*\.$"):
            settings.limits("stop_below", given)
    assert settings.limits("stop_below", "online_accuracy:1/5,probe/h0:-1") == {
        "online_accuracy": 0.2,
        "probe/h0": -1.0,
    }


def test_a_record_that_says_something_else_is_refused(spec, straight, tmp_path):
    (tmp_path / "config.json").write_text(
        json.dumps({"settings": {}, "waves": {"stopped": {"x": {"after": 1, "why": ""}}}})
    )
    with pytest.raises(WorkdirError, match=r"cannot be read as the record of a run \(waves\)"):
        waves.stopped(tmp_path)
