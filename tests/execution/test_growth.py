"""A workdir takes more lanes, Specs, tasks and probes, and lanes that are there stay what they
are.
"""

import dataclasses
import json
import os
import pathlib

import pandas as pd
import pytest
from helpers import tiny

from plasticity_jax.execution import compiled as compiled_
from plasticity_jax.execution import growth, placement, rows, slices, sweep
from plasticity_jax.execution import program as program_
from plasticity_jax.reporting import statistics
from plasticity_jax.storage import table as table_
from plasticity_jax.storage import workdir

pytestmark = pytest.mark.usefixtures("compiled_quickly")

SEEDS = [{"seed": 0}, {"seed": 1}, {"seed": 2}]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> str:
    return tiny.arrays(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def spec(dataset):
    return tiny.spec(dataset=dataset, tasks=3)


@pytest.fixture(scope="module")
def straight(spec):
    """All that the tests below run in pieces, run at once and in memory."""
    return {
        name: sweep.run(changed, SEEDS)
        for name, changed in {
            "none": spec,
            "l2": dataclasses.replace(spec, method="l2"),
            "probed": dataclasses.replace(spec, probes=("parameter_norm",)),
        }.items()
    }


def everything(path) -> pd.DataFrame:
    return table_.read(pathlib.Path(path) / "results.parquet")


def assert_lanes(table, expected, **lanes):
    """The lanes that a query finds in both tables measured the same, to the bit."""
    columns = ["seed", "task", "loss", "accuracy", "online_accuracy"]
    found = [one.sort_values(["seed", "task"], ignore_index=True) for one in (table, expected)]
    query = " and ".join(f"{name} == {value!r}" for name, value in lanes.items()) or "task >= 0"
    left, right = (one.query(query).reset_index(drop=True)[columns] for one in found)
    assert len(left)
    pd.testing.assert_frame_equal(left, right, check_exact=True)


def files(path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


# What a slice is


def planned(spec, lanes, **how):
    (one,) = slices.in_order(program_.plan([(spec, lanes)], 64, **how))
    return one


def test_a_folder_is_named_by_what_decides_numbers(spec):
    own = planned(spec, SEEDS).folder
    for same in [
        planned(spec, SEEDS[::-1]),
        planned(dataclasses.replace(spec, tasks=9, probes="parameter_norm"), SEEDS),
        planned(spec, [{"seed": s, "learning_rate": 1e-3} for s in range(3)]),
    ]:
        assert same.folder == own
    others = [
        planned(spec, SEEDS[:2]),
        planned(dataclasses.replace(spec, epochs=3), SEEDS),
        planned(spec, [{"seed": s, "learning_rate": 1e-2} for s in range(3)]),
        planned(spec, SEEDS, strategy="vmap", width=2),
        planned(spec, SEEDS, strategy="map"),
    ]
    assert len({own, *(other.folder for other in others)}) == 1 + len(others)


def test_a_slice_is_read_as_it_was_written(spec, tmp_path):
    data = program_.load_dataset(spec)
    runs = [(spec, SEEDS), (dataclasses.replace(spec, method="l2"), SEEDS[:1])]
    written = slices.in_order(program_.plan(runs, 64))
    workdir.write_config(tmp_path, slices.settings(written, data), {})
    found = slices.read(tmp_path)
    assert found.slices == written
    assert [one.numbers for one in found.slices] == [[0, 1, 2], [3]]


@pytest.mark.parametrize(
    "changed",
    [
        {"folder": "../elsewhere"},
        {"numbers": [0, 1, 1]},
        {"numbers": [0, 1]},
        {"numbers": [0, 1, "2"]},
        {"lanes": []},
        {"lane_strategy": "?"},
        {"lane_width": 2},
        {"unknown": 1},
        {"spec": {"method": "?"}},
    ],
)
def test_a_record_that_is_none_is_refused(spec, tmp_path, changed):
    settings = slices.settings([planned(spec, SEEDS)], program_.load_dataset(spec))
    settings["programs"][0] |= changed
    workdir.write_config(tmp_path, settings, {})
    with pytest.raises(workdir.WorkdirError, match=r"as the record of a run \(.+\); use another"):
        slices.read(tmp_path)


# What is added


@pytest.mark.long
def test_lanes_and_methods_are_added_and_lanes_there_stay(spec, straight, tmp_path, monkeypatch):
    l2 = dataclasses.replace(spec, method="l2")
    sweep.run(spec, SEEDS[1:], tmp_path)
    trained = []
    compile_program = compiled_.compile_program

    def noted(program, data):
        trained.append((program.spec.method, [lane["seed"] for lane in program.lanes]))
        return compile_program(program, data)

    monkeypatch.setattr(compiled_, "compile_program", noted)
    # (in another order, the new lane first)
    more = sweep.run([(l2, SEEDS[:1]), (spec, SEEDS)], workdir=tmp_path)
    assert trained == [("l2", [0]), ("none", [0])]
    assert_lanes(more, straight["none"], method="none")
    assert_lanes(more.query("method == 'l2'"), straight["l2"], seed=0)
    first = more[more["task"] == 0]
    seeds = first.set_index("lane")[["method", "seed"]]
    assert seeds.to_numpy().tolist() == [["none", 1], ["none", 2], ["l2", 0], ["none", 0]]
    # what is no longer asked for stays, and is not run
    fewer = sweep.run(l2, SEEDS[:1], tmp_path)
    assert set(fewer["lane"]) == {2}
    pd.testing.assert_frame_equal(everything(tmp_path), more, check_exact=True)
    assert len(trained) == 2


@pytest.mark.long
def test_some_lanes_go_on_alone(spec, straight, tmp_path):
    """Of a slice of three lanes one goes on, then all: as if they had never been parted."""
    sweep.run(dataclasses.replace(spec, tasks=1), SEEDS, tmp_path)
    one = sweep.run(spec, SEEDS[1:2], tmp_path)
    assert_lanes(one, straight["none"], seed=1)
    assert everything(tmp_path)["lane"].value_counts(sort=False).tolist() == [1, 3, 1]
    assert len(os.listdir(tmp_path / "checkpoints")) == 2
    whole = sweep.run(spec, SEEDS, tmp_path)
    assert_lanes(whole, straight["none"])
    assert whole["lane"].tolist() == sorted(whole["lane"])
    folders = {one.folder for one in slices.read(tmp_path).slices}
    assert folders == set(os.listdir(tmp_path / "checkpoints"))


@pytest.mark.long
def test_a_parting_that_was_killed_is_begun_anew(spec, straight, tmp_path, monkeypatch):
    sweep.run(dataclasses.replace(spec, tasks=1), SEEDS, tmp_path)
    before = (tmp_path / "config.json").read_bytes()

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(workdir, "write_config", killed)
        with pytest.raises(KeyboardInterrupt):
            sweep.run(spec, SEEDS[1:2], tmp_path)
    assert (tmp_path / "config.json").read_bytes() == before
    sweep.run(dataclasses.replace(spec, tasks=2), SEEDS, tmp_path)
    assert_lanes(sweep.run(spec, SEEDS[1:2], tmp_path), straight["none"], seed=1)


@pytest.mark.long
def test_a_probe_is_measured_from_now_on(spec, straight, tmp_path):
    sweep.run(dataclasses.replace(spec, tasks=1), SEEDS, tmp_path)
    probed = sweep.run(dataclasses.replace(spec, probes="parameter_norm"), SEEDS, tmp_path)
    assert_lanes(probed, straight["none"])
    assert probed.loc[probed["task"] == 0, "parameter_norm"].isna().all()
    later = probed["task"] > 0
    expected = straight["probed"].loc[straight["probed"]["task"] > 0, "parameter_norm"]
    assert probed.loc[later, "parameter_norm"].tolist() == expected.tolist()
    # and is no longer, if it is no longer asked for
    without = sweep.run(dataclasses.replace(spec, tasks=4), SEEDS, tmp_path)
    assert without.groupby("task")["parameter_norm"].count().tolist() == [0, 3, 3, 0]


@pytest.mark.long
def test_every_row_says_what_decides_it(spec, dataset, tmp_path):
    """Whatever is added, and arms that differ in what is no axis are told apart."""
    cut = dataclasses.replace(spec, tasks=1, samples=48)
    sweep.run(cut, SEEDS[:1], tmp_path)
    shifted = dataclasses.replace(
        cut, batch_size=12, environment="permuted_pixels", transition="input", first_task=2
    )
    sweep.run(shifted, SEEDS[:1], tmp_path)
    rows_ = everything(tmp_path)
    assert rows_["dataset"].tolist() == [dataset] * 2
    for name, values in {
        "samples": [48, 48],
        "subsample_seed": [0, 0],
        "batch_size": [16, 12],
        "first_task": [0, 2],
        "cycle": [0, 0],
    }.items():
        assert rows_[name].tolist() == values
    for one in (cut, shifted):
        own = rows_[rows_["environment"] == one.environment].iloc[0]
        for name, value in one.known_options().items():
            assert own[name] == value
    programs = program_.plan([(cut, SEEDS[:1]), (shifted, SEEDS[:1])], 48)
    columns = rows.arm_columns(programs)
    assert columns[-2:] == ["batch_size", "first_task"]
    assert "samples" not in columns
    assert statistics.metric_columns(rows_, columns)[0] == "accuracy"
    assert not set(cut.settings()) & set(statistics.metric_columns(rows_, ["method"]))


@pytest.mark.usefixtures("nothing_compiles")
def test_what_is_new_is_told(spec, tmp_path):
    data = program_.load_dataset(spec)
    there = slices.in_order(program_.plan([(spec, SEEDS)], 64))
    workdir.write_config(tmp_path, slices.settings(there, data), {})

    def told(*runs):
        return growth.plan(tmp_path, program_.plan(runs, 64), data).news

    assert told((spec, SEEDS)) == []
    assert told((spec, [*SEEDS, {"seed": 3}])) == ["seed 3 is new: 1 lane"]
    rates = [{"seed": s, "learning_rate": r} for s in range(3) for r in (1e-3, 3e-3)]
    assert told((spec, rates)) == ["learning_rate 0.003 is new: 3 lanes"]
    spectral = dataclasses.replace(spec, method="spectral")
    assert told((spec, SEEDS), (spectral, SEEDS)) == ["method spectral is new: 3 lanes"]
    both = dataclasses.replace(spec, method="l2", epochs=3)
    assert told((both, SEEDS)) == ["epochs 3, method l2 are new: 3 lanes"]
    assert told((both, [*SEEDS, {"seed": 3}])) == [
        "epochs 3, method l2 are new: 3 lanes",
        "epochs 3, method l2, seed 3 are new: 1 lane",
    ]
    batches = dataclasses.replace(spec, batch_size=spec.batch_size // 2)
    assert told((batches, SEEDS)) == [f"batch_size {batches.batch_size} is new: 3 lanes"]


@pytest.mark.long
def test_a_probe_without_a_task_left_is_told(spec, tmp_path):
    sweep.run(spec, SEEDS[:1], tmp_path)
    more = dataclasses.replace(spec, probes=(*spec.probes, "gradient_norm"))
    data = program_.load_dataset(spec)
    [said] = growth.plan(tmp_path, program_.plan([(more, SEEDS[:1])], 64), data).news
    assert said == (
        "probe gradient_norm is measured from the next task on, and all "
        f"{spec.tasks} are done: --tasks says how many more"
    )
    longer = dataclasses.replace(more, tasks=spec.tasks + 1)
    assert growth.plan(tmp_path, program_.plan([(longer, SEEDS[:1])], 64), data).news == []


# What cannot be added


@pytest.mark.usefixtures("nothing_compiles")
def test_what_cannot_be_added_is_said_in_the_words_of_the_flags(spec, tmp_path):
    lanes = [{"seed": seed} for seed in range(3)]
    data = program_.load_dataset(spec)
    there = slices.in_order(program_.plan([(spec, lanes)], 64))
    workdir.write_config(tmp_path, slices.settings(there, data), {})
    before = files(tmp_path)
    where = str(tmp_path)
    for changed, how, said in [
        (
            {"tasks": 2},
            {},
            f"tasks is 2, but lanes in {where} have 3: allowed are as many or more; use another",
        ),
        ({"revisit": 2}, {}, f"revisit is 2, but the lanes in {where} have 0: allowed is one"),
        ({"samples": 32}, {}, f"samples is 32, but the lanes in {where} have not given: allowed"),
        (
            {},
            {"lane_width": 2},
            f"lane_width is 2, but the lanes in {where} were run with 1: allowed is --lane_width=1",
        ),
        ({}, {"lane_strategy": "map"}, f"lane_strategy is map, but the lanes in {where} were run"),
    ]:
        with pytest.raises(workdir.WorkdirError) as caught:
            sweep.run(dataclasses.replace(spec, **changed), lanes, tmp_path, **how)
        assert str(caught.value).startswith(said)
        assert str(caught.value).endswith("another --workdir.")
    assert files(tmp_path) == before


@pytest.mark.usefixtures("nothing_compiles")
def test_other_data_of_the_same_name_are_refused(spec, tmp_path):
    data = program_.load_dataset(spec)
    programs = program_.plan([(spec, SEEDS)], 64)
    settings = slices.settings(slices.in_order(programs), data)
    settings["data"]["fingerprint"] = "0" * 64
    workdir.write_config(tmp_path, settings, {})
    with pytest.raises(workdir.WorkdirError, match="is not what the lanes in"):
        growth.plan(tmp_path, programs, data)


@pytest.mark.parametrize(("over", "allowed"), [("task", True), ("run", False)])
def test_a_schedule_over_the_run_forbids_a_longer_one(dataset, tmp_path, over, allowed):
    """A rate that falls over the run has other values from the first task on if the run is
    longer.
    """
    common = {"dataset": dataset, "schedule": "cosine", "options": {"cosine.over": over}}
    data = program_.load_dataset(tiny.spec(**common))
    two, three = (program_.plan([(tiny.spec(**common, tasks=tasks), [{}])], 64) for tasks in (2, 3))
    workdir.write_config(tmp_path, slices.settings(slices.in_order(two), data), {})
    if allowed:
        assert not growth.plan(tmp_path, three, data).is_recorded
    else:
        with pytest.raises(workdir.WorkdirError, match="tasks is 3, but the learning rate of"):
            growth.plan(tmp_path, three, data)


def test_other_options_of_the_compiler_are_refused(spec, tmp_path, monkeypatch):
    data = program_.load_dataset(spec)
    programs = program_.plan([(spec, SEEDS)], 64)
    made = slices.in_order(programs)
    recorded = slices.settings(made, data)
    workdir.write_config(tmp_path, recorded, {})
    (made[0].checkpoints(tmp_path) / "1").mkdir(parents=True)
    if "compiler_options" not in json.dumps(recorded):
        pytest.skip("this backend has none")
    monkeypatch.setattr(placement, "OPTIONS_TABLE", {})
    with pytest.raises(workdir.WorkdirError, match="were compiled with other options of XLA"):
        growth.plan(tmp_path, programs, data)


def test_lanes_that_were_vmapped_keep_their_width_and_devices(tmp_path):
    """How many lanes are vmapped by default follows their number, but lanes there stay as they
    were, and new ones follow them.
    """
    spec = tiny.spec(environment="bit_flip", batch_size=1, epochs=1, dataset=None)
    data = program_.load_dataset(spec)
    lanes = [{"seed": seed} for seed in range(8)]
    first = slices.in_order(program_.plan([(spec, lanes[:2])], 64))
    workdir.write_config(tmp_path, slices.settings(first, data), {})
    grown = growth.plan(tmp_path, program_.plan([(spec, lanes)], 64), data)
    old, new = (one.program.execution for one in grown.slices)
    assert old == first[0].program.execution
    assert new.width == old.width
