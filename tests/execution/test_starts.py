"""Runs that begin from the trained networks of another workdir."""

import dataclasses
import json
import pathlib
import shutil

import flax
import numpy as np
import pandas as pd
import pytest
from helpers import tiny

from plasticity_jax.cli import launcher
from plasticity_jax.execution import slices, states, sweep, tasks
from plasticity_jax.reporting import collect
from plasticity_jax.spec import Spec
from plasticity_jax.storage import workdir

pytestmark = pytest.mark.usefixtures("compiled_quickly")

SEEDS = [{"seed": 3}, {"seed": 1}]
MEASURED = ["seed", "loss", "accuracy", "online_accuracy"]


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    dataset = tiny.arrays(tmp_path_factory.mktemp("data"))
    return tiny.spec(dataset=dataset, tasks=2, optimizer="adam", probes="distance_from_init")


@pytest.fixture(scope="module")
def donor(spec, tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("donor")
    sweep.run(spec, [*SEEDS, {"seed": 0}], folder)
    return folder


@pytest.fixture(scope="module")
def longer(spec):
    """The same as the donor, and two more tasks."""
    table = sweep.run(dataclasses.replace(spec, tasks=4), SEEDS)
    return table[table["task"] >= 2].reset_index(drop=True)


def going_on(spec, **changes):
    return dataclasses.replace(spec, first_task=2, **changes)


def assert_measured(table, expected):
    columns = [*MEASURED, "distance_from_init"]
    pd.testing.assert_frame_equal(
        table[columns].reset_index(drop=True), expected[columns], check_exact=True
    )


@pytest.mark.long
def test_a_run_that_begins_where_another_ended_goes_on_as_that_would(spec, donor, longer, tmp_path):
    assert_measured(sweep.run(going_on(spec), SEEDS, tmp_path, start=donor), longer)
    recorded = json.loads((tmp_path / "config.json").read_text())["settings"]["programs"][0]
    assert recorded["start"]["folder"] == str(donor)
    assert recorded["start"]["tasks"] == [1, 1]
    assert len(set(recorded["start"]["digests"])) == 2
    # in memory, and with noise of scale 0 beside other noise
    scales = [{**lane, "perturb.scale": scale} for lane in SEEDS for scale in (0, 0.5)]
    moved = sweep.run(going_on(spec, surgery="perturb"), scales, start=donor)
    assert_measured(moved[moved["perturb.scale"] == 0], longer)
    assert (moved.loc[moved["perturb.scale"] == 0.5, "loss"].to_numpy() != longer["loss"]).all()
    assert set(moved["surgery"]) == {"perturb"}


@pytest.mark.long
def test_a_stream_may_begin_anew(spec, donor):
    """Task 0 is the task 0 of the donor, which a trained network finds easier."""
    first = sweep.run(spec, SEEDS, start=donor).query("task == 0")
    fresh = sweep.run(spec, SEEDS).query("task == 0")
    assert (first["distance_from_init"].to_numpy() > fresh["distance_from_init"].to_numpy()).all()


@pytest.mark.long
def test_resumed_and_grown_equals_straight_through(spec, donor, longer, tmp_path):
    one = dataclasses.replace(going_on(spec), tasks=1)
    sweep.run(one, SEEDS[:1], tmp_path, start=donor)
    table = sweep.run(going_on(spec), SEEDS, tmp_path, start=donor)
    assert_measured(table, longer)


@pytest.mark.long
def test_a_run_killed_before_its_first_checkpoint_begins_from_the_same(
    spec, donor, longer, tmp_path, monkeypatch
):
    def interrupts(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(tasks, "run_program", interrupts)
        with pytest.raises(KeyboardInterrupt):
            sweep.run(going_on(spec), SEEDS, tmp_path, start=donor)
    (recorded,) = slices.read(tmp_path).slices
    assert recorded.program.start.folder == str(donor)
    assert_measured(sweep.run(going_on(spec), SEEDS, tmp_path, start=donor), longer)


def test_a_run_with_a_start_is_not_taken_for_one_without(spec, donor, tmp_path):
    sweep.run(spec, SEEDS, tmp_path, start=donor)
    with pytest.raises(workdir.WorkdirError, match="lacks 2 of the 2 lanes asked for"):
        collect.collect([tmp_path], [(spec, SEEDS)])
    assert len(collect.collect([donor], [(spec, SEEDS)])) == 4


# Refused


@pytest.mark.usefixtures("nothing_compiles")
def test_what_is_no_start_is_said_in_one_sentence(spec, donor, tmp_path):
    empty, twice, unfinished = (tmp_path / name for name in ("empty", "twice", "unfinished"))
    for folder in (empty, twice, unfinished):
        folder.mkdir()
    data = sweep.program_.load_dataset(spec)
    arms = [{**lane, "learning_rate": rate} for lane in SEEDS for rate in (1e-3, 1e-2)]
    programs = sweep.program_.plan([(spec, arms)], 64)
    workdir.write_config(twice, slices.settings(slices.in_order(programs), data), {})
    programs = sweep.program_.plan([(spec, SEEDS)], 64)
    workdir.write_config(unfinished, slices.settings(slices.in_order(programs), data), {})
    target = tmp_path / "run"
    cases = [
        ({}, {"start": tmp_path / "gone"}, "start is .+gone, which is no folder: allowed is"),
        ({}, {"start": empty}, "start is .+empty, which has no config.json: allowed is"),
        ({}, {"start": twice}, "which has 2 lanes of seed 1: allowed is one, so that"),
        ({}, {"start": unfinished}, "which has 0 of 2 tasks of lanes asked for: allowed are"),
        ({"width": 9}, {"start": donor}, "width is 9, but the networks in .+ have 8: allowed is"),
        (
            {"model": "vit", "width": Spec.width, "depth": Spec.depth},
            {"start": donor},
            "model is vit, but the networks in .+ have mlp: allowed is",
        ),
        ({"norm": "batch"}, {"start": donor}, "norm is batch, but the networks in .+ have none"),
        (
            {"optimizer": "sgd", "method": "l2_init"},
            {"start": donor},
            "optimizer sgd with method l2_init cannot go on with .+ or --start_optimizer=fresh",
        ),
        ({}, {"start": donor, "start_task": 9}, "start_task is 9, but .+ after task 0 and 1: allo"),
        ({"surgery": "perturb"}, {}, "surgery is 'perturb', but there is no start to operate on"),
        ({"start_optimizer": "fresh"}, {}, "start_optimizer is 'fresh', but there is no start"),
        ({}, {"start_task": 0}, "start_task is 0, but there is no start: give --start=DIR as well"),
    ]
    for changes, how, said in cases:
        with pytest.raises((ValueError, workdir.WorkdirError), match=said) as caught:
            sweep.run(dataclasses.replace(spec, **changes), SEEDS, target, **how)
        assert str(caught.value).count(". ") == 0
        assert not target.exists()
    with pytest.raises(workdir.WorkdirError, match=r"no lane of seed 7: .+ there \(0, 1, 3\)"):
        sweep.run(spec, [{"seed": 7}], target, start=donor)


def test_data_of_another_shape_are_refused(spec, donor, tmp_path, nothing_compiles):
    other = dataclasses.replace(spec, dataset="digits", samples=64)
    with pytest.raises(
        workdir.WorkdirError, match="allowed are data of the same shape and as many"
    ):
        sweep.run(other, SEEDS, tmp_path / "run", start=donor)


@pytest.mark.long
def test_a_start_that_has_changed_is_refused(spec, donor, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(donor, moved)
    run = tmp_path / "run"
    one = dataclasses.replace(spec, tasks=1)
    sweep.run(one, SEEDS, run, start=moved)
    files = [file for file in run.rglob("*") if file.is_file() and file.name != "lock"]
    before = {file: file.read_bytes() for file in files}
    # the same states from elsewhere are the same
    sweep.run(one, SEEDS, run, start=donor)
    sweep.run(dataclasses.replace(spec, tasks=3), [*SEEDS, {"seed": 0}], moved)
    for start, said in [
        (moved, r"start is .+moved after task 2, whose states are other ones than the lanes in"),
        (None, r"start is not given, but the lanes in .+run began from .+moved: allowed is one"),
    ]:
        with pytest.raises(workdir.WorkdirError, match=said):
            sweep.run(one, SEEDS, run, start=start)
    fresh = dataclasses.replace(one, method="l2")
    with pytest.raises(workdir.WorkdirError, match="start is not given, but the lanes in"):
        sweep.run(fresh, SEEDS, run)
    assert {file: file.read_bytes() for file in before} == before


@pytest.mark.long
def test_the_command_line_has_it_all(spec, donor, longer, tmp_path, capsys):
    argv = [
        f"--dataset={spec.dataset}",
        "--tasks=2",
        "--epochs=2",
        "--batch_size=16",
        "--width=8",
        "--depth=1",
        "--norm=none",
        "--probes=distance_from_init",
        "--first_seed=3",
        "--seeds=1",
        "--noprogress",
        f"--workdir={tmp_path / 'run'}",
        "--first_task=2",
        f"--start={donor}",
        "--surgery=none,perturb",
        "--perturb.scale=0,0.1",
    ]
    experiment = launcher.Experiment("")
    assert launcher.launch(experiment, argv) == 0
    table = pd.read_parquet(tmp_path / "run" / "results.parquet")
    assert table["lane"].nunique() == 3
    expected = longer[longer["seed"] == 3]
    for query in ("surgery == 'none'", "`perturb.scale` == 0"):
        assert np.array_equal(table.query(query)["loss"], expected["loss"])
    assert "perturb" in capsys.readouterr().out
    assert launcher.launch(experiment, [*argv, "--start_task=9"]) == 1
    assert "start_task is 9" in capsys.readouterr().err
    assert launcher.launch(experiment, [f for f in argv if "--start" not in f]) == 2
    assert "there is no start to operate on: give --start=DIR" in capsys.readouterr().err


# One of several arms, and given parameters


@pytest.fixture(scope="module")
def arms(spec, tmp_path_factory) -> pathlib.Path:
    """Two arms of each seed."""
    folder = tmp_path_factory.mktemp("arms")
    numbers = [{**lane, "learning_rate": rate} for lane in SEEDS for rate in (1e-3, 1e-2)]
    sweep.run(spec, numbers, folder)
    return folder


@pytest.mark.long
def test_an_arm_is_named_where_there_are_several(spec, arms, tmp_path):
    one = dataclasses.replace(spec, tasks=1)
    named = sweep.run(one, SEEDS, tmp_path / "a", start=arms, start_arm={"learning_rate": 1e-2})
    recorded = json.loads((tmp_path / "a" / "config.json").read_text())["settings"]["programs"][0]
    donors = recorded["start"]["donors"]
    assert [(d["lane"], d["seed"], d["learning_rate"]) for d in donors] == [
        (1, 3, 1e-2),
        (3, 1, 1e-2),
    ]
    assert donors[0]["method"] == "none"
    read = slices.read(str(tmp_path / "a")).slices[0].program.start
    assert list(read.donors) == donors
    command = [
        f"--dataset={spec.dataset}", "--tasks=1", "--epochs=2", "--batch_size=16", "--width=8",
        "--depth=1", "--norm=none", "--probes=distance_from_init", "--first_seed=3", "--seeds=1",
        "--noprogress", f"--start={arms}", "--start_arm=learning_rate=1e-2,method=none",
        f"--workdir={tmp_path / 'b'}",
    ]  # fmt: skip
    assert launcher.launch(launcher.Experiment(""), command) == 0
    table = pd.read_parquet(tmp_path / "b" / "results.parquet")
    assert np.array_equal(table["loss"], named[named["seed"] == 3]["loss"])


@pytest.mark.usefixtures("nothing_compiles")
@pytest.mark.parametrize(
    ("arm", "said"),
    [
        (None, r"2 lanes of seed 1: allowed is one, .+ they differ in learning_rate\."),
        ({"method": "none"}, r"2 lanes of seed 1 with method none: allowed is one, "),
        ({"learning_rate": 5.0}, r"no lane of seed 1 with learning_rate 5.0: allowed are"),
        ({"granularty": 2}, r"'granularty', which no lane in .+ has: .+ such as granularity"),
    ],
)
def test_an_arm_that_is_not_one_is_refused(spec, arms, tmp_path, arm, said):
    with pytest.raises(workdir.WorkdirError, match=said):
        sweep.run(spec, SEEDS, tmp_path / "run", start=arms, start_arm=arm)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("text", "code"), [("granularity", 2), ("a=1,a=2", 2), ("tasks=x", 2)])
def test_an_arm_is_settings_and_values(arms, tmp_path, capsys, text, code):
    argv = [f"--start={arms}", f"--start_arm={text}", f"--workdir={tmp_path / 'run'}"]
    assert launcher.launch(launcher.Experiment(""), argv) == code
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_given_parameters_are_where_lanes_begin(spec, donor):
    """With a step so small that they stay; each lane with the same ones, and Adam at its start."""
    still = dataclasses.replace(spec, tasks=1)
    lanes = [{**lane, "learning_rate": 1e-30} for lane in SEEDS]
    params = states.load_state(donor, 0).params
    for tree in (params, {"params": params}, flax.core.freeze(params)):
        found = sweep.run(still, lanes, start=tree)
        assert (found["distance_from_init"] == 0).all()  # (they are the initial ones too)
    ended = sweep.run(dataclasses.replace(still, first_task=1), lanes, start=params)
    kept = dataclasses.replace(still, start_optimizer="fresh", first_task=1)
    same = sweep.run(kept, lanes, start=donor, start_task=1)
    seed = ended["seed"] == SEEDS[0]["seed"]  # (lane 0 of the donor)
    assert np.array_equal(ended["accuracy"][seed], same["accuracy"][seed])
    assert ended["accuracy"].nunique() == 2  # (of one network on the labels of each seed)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda p: {**p, "more": np.zeros(2)},
         r"float64\[2\] at more of its parameters: allowed is n"),
        (lambda p: {"head": p["head"]},
         r"nothing at layer0/.+ of its parameters: allowed is float32\["),
        (lambda p: {"params": p, "batch_stats": {"a": np.zeros(1)}},
         "at batch_stats/a of its varia"),
        (lambda p: [p],
         "start is .+: allowed are the folder of a finished run, and a tree of param"),
    ],
)  # fmt: skip
def test_parameters_of_another_network_are_refused(spec, donor, tmp_path, change, said):
    given = change(states.load_state(donor, 0).params)
    with pytest.raises(ValueError, match=said):
        sweep.run(spec, SEEDS, tmp_path / "run", start=given)
    assert not (tmp_path / "run").exists()


def test_given_parameters_have_no_task(spec, donor):
    params = states.load_state(donor, 0).params
    with pytest.raises(
        ValueError, match="start_task is 0, but start are given parameters: allowed"
    ):
        sweep.run(spec, SEEDS, start=params, start_task=0)
