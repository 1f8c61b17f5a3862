"""Slices on devices of another kind than those of the command that plans them, as where a node
with accelerators runs what a login node sends.

The options of XLA decide the name of a slice's checkpoints. Here those of slices are other ones
that change no number: a default of XLA, given.
"""

import dataclasses

import jax
import numpy as np
import pandas as pd
import pytest
from helpers import tiny

from plasticity_jax.cli import commands, dry_run
from plasticity_jax.execution import merging, placement, slices, starts, states, sweep, waves
from plasticity_jax.execution import program as program_
from plasticity_jax.execution.engines import description, local, sliced, status, worker
from plasticity_jax.storage import table as table_
from plasticity_jax.storage.workdir import WorkdirError, read_settings

OTHER = {"xla_cpu_enable_fast_min_max": False}
SEEDS = [{"seed": seed} for seed in range(4)]
METRIC = "online_accuracy"
usual = placement.options


@pytest.fixture(scope="module")
def spec(tmp_path_factory, compiled_quickly):
    return tiny.spec(dataset=tiny.arrays(tmp_path_factory.mktemp("data")), tasks=4)


@pytest.fixture(scope="module")
def straight(spec):
    """All tasks of all lanes in one process, which has the usual options."""
    return sweep.run(spec, SEEDS, lane_strategy="map")


@pytest.fixture(autouse=True)
def engine(monkeypatch):
    monkeypatch.setattr(local, "run", on_another_device)


def on_another_device(folders, options):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(placement, "options", lambda model: {**(usual(model) or {}), **OTHER})
        for folder in folders:
            worker.run(folder)
            options.moved()
    return {}


def run(spec, lanes, folder, tasks, size=2, start=None, **how):
    run = dataclasses.replace(spec, tasks=tasks), lanes
    dataset = program_.load_common_dataset([spec], None, False)
    data = program_.device_data(dataset)
    asked = sliced.Asked("local", size, 1, "cpu", (), {}, description.How(start=start))
    programs = program_.plan([run], program_.sizes([run[0]], data), "map", None)
    programs = starts.attached(programs, start, None, data)
    programs = sliced.on_one_device(programs, asked, "map", None)
    return sliced.run_in_slices(programs, dataset, folder, asked, **how)


def same(found, straight, lanes=SEEDS, tasks=4):
    """The rows of these lanes up to so many tasks, in whatever order lanes are numbered."""
    seeds = [lane["seed"] for lane in lanes]
    wanted = straight[straight["seed"].isin(seeds) & (straight["task"] < tasks)]
    columns = [name for name in straight if name != "lane"]
    tables = (t[columns].sort_values(["seed", "task"], ignore_index=True) for t in (found, wanted))
    pd.testing.assert_frame_equal(*tables, check_exact=True)


def check_known(folder, count):
    """config.json, as it is and as it is read, says what the process of each slice did."""
    found = slices.read(folder).slices
    assert len(found) == count
    for one, recorded in zip(found, read_settings(folder)["programs"], strict=True):
        assert one.options.items() >= OTHER.items()
        assert (recorded["folder"], recorded["compiler_options"]) == (one.folder, one.options)
        assert one.done(folder) == one.program.spec.tasks
        assert [path.name for path in (one.place(folder) / "checkpoints").iterdir()] == [one.folder]


@pytest.mark.long
def test_a_slice_is_known_by_what_its_process_wrote(spec, straight, tmp_path, monkeypatch):
    """It goes on in part where it was, and not in a process with other options."""
    same(run(spec, SEEDS[:2], tmp_path, 1), straight, SEEDS[:2], 1)
    check_known(tmp_path, 1)
    one = dataclasses.replace(spec, tasks=2), SEEDS[:2]
    with pytest.raises(WorkdirError, match=r"^[^\n]*compiled with other options of XLA[^\n]*\.$"):
        sweep.run(*one, tmp_path, lane_strategy="map")
    found = run(spec, SEEDS[:1], tmp_path, 2)
    same(found, straight, SEEDS[:1], 2)
    assert found["lane"].tolist() == [0, 0]
    # (the other lane stays where it was)
    whole = table_.read(tmp_path / "results.parquet")
    same(whole[whole["seed"].eq(1)], straight, SEEDS[1:2], 1)
    # the same command finds all done: nothing is run
    monkeypatch.setattr(local, "run", None)
    same(run(spec, SEEDS[:1], tmp_path, 2), straight, SEEDS[:1], 2)


@pytest.mark.long
def test_a_slice_that_nobody_began_is_of_whoever_runs_it(spec, straight, tmp_path, monkeypatch):
    monkeypatch.setattr(local, "run", lambda folders, _: dict.fromkeys(folders, "not tried"))
    with pytest.raises(WorkdirError, match="not tried"):
        run(spec, SEEDS[:2], tmp_path, 1)
    (one,) = slices.read(tmp_path).slices
    assert one.options is None
    spec = dataclasses.replace(spec, tasks=1)
    same(sweep.run(spec, SEEDS[:2], tmp_path, lane_strategy="map"), straight, SEEDS[:2], 1)
    (one,) = slices.read(tmp_path).slices
    assert (one.options or {}) == (usual("mlp") or {})
    assert one.done(tmp_path) == 1
    # and a process with other options says so, in its own turn
    monkeypatch.setattr(local, "run", on_another_device)
    with pytest.raises(WorkdirError, match="compiled with other options of XLA"):
        run(spec, SEEDS[:2], tmp_path, 2)


def test_a_slice_whose_record_is_damaged_loses_nothing(spec, straight, tmp_path):
    """It is not looked for elsewhere."""
    run(spec, SEEDS[:2], tmp_path, 1)
    (one,) = slices.read(tmp_path).slices
    record = one.place(tmp_path) / "config.json"
    content = record.read_bytes()
    for damaged in (b"{", content.replace(b'"seed": 1', b'"seed": 3')):
        record.write_bytes(damaged)
        with pytest.raises(WorkdirError, match=rf"{one.home}/config\.json cannot be read"):
            run(spec, SEEDS[:1], tmp_path, 2)
        assert one.done(tmp_path) == 1
    record.write_bytes(content)
    same(run(spec, SEEDS[:1], tmp_path, 2), straight, SEEDS[:1], 2)


@pytest.mark.long
def test_a_dry_run_tells_what_is_new_in_slices_of_other_devices(spec, tmp_path):
    """Which lanes go on elsewhere, though they could not go on in this process."""
    run(spec, SEEDS[:1], tmp_path, 1)
    dataset = program_.load_common_dataset([spec], None, False)
    samples = program_.sizes([spec], program_.device_data(dataset))
    programs = program_.plan([(spec, SEEDS[:2])], samples, "map", None)
    (line,) = dry_run.workdir(str(tmp_path), programs, dataset, elsewhere=True)
    assert line.endswith("seed 1 is new: 1 lane")
    with pytest.raises(WorkdirError, match="compiled with other options of XLA"):
        dry_run.workdir(str(tmp_path), programs, dataset)


@pytest.mark.long
def test_a_workdir_grows_on_other_devices(spec, straight, tmp_path, capsys):
    """By lanes, by tasks of all, by tasks of some; two of them are merged and go on."""
    folder = tmp_path / "run"
    run(spec, SEEDS[:2], folder, 1, 1)
    run(spec, SEEDS, folder, 1)
    check_known(folder, 3)
    run(spec, SEEDS[1:3], folder, 2)
    check_known(folder, 4)
    same(run(spec, SEEDS, folder, 3), straight, SEEDS, 3)
    shown = status.read(folder)
    assert {one.state for one in shown.slices} == {status.DONE}
    other = tmp_path / "other"
    run(spec, SEEDS[:1], other, 4)
    assert commands.main(["merge", str(folder), str(other), f"--to={tmp_path / 'all'}"]) == 0
    assert "5 lanes" not in capsys.readouterr().out
    same(merging.load(folder, other), straight[(straight["seed"] < 1) | (straight["task"] < 3)])
    same(run(spec, SEEDS, tmp_path / "all", 4), straight)
    check_known(tmp_path / "all", len(slices.read(tmp_path / "all").slices))


@pytest.mark.long
def test_waves_on_other_devices(spec, straight, tmp_path):
    """Lanes that go on are put together in fuller slices, with the states that they had."""
    first = straight[straight["task"] < 1].sort_values(METRIC)
    below = float(first[METRIC].iloc[1:3].mean())
    kept = [lane for lane in SEEDS if lane["seed"] in set(first["seed"].iloc[2:])]
    how = waves.Waves(1, {METRIC: below})
    whole = dataclasses.replace(spec, tasks=2)
    data = program_.load_common_dataset([spec], None, False)
    samples = program_.sizes([whole], program_.device_data(data))
    programs = program_.plan([(whole, SEEDS)], samples, "map", None)
    seen = []

    def of_one_wave(programs):
        (program,) = programs
        seen.append([lane["seed"] for lane in program.lanes])
        lanes, tasks = program.lanes, program.spec.tasks
        return run(spec, lanes, tmp_path, tasks, joined=True)

    found = waves.run_in_waves(programs, how, tmp_path, of_one_wave)
    assert seen[1] == [lane["seed"] for lane in kept]
    same(found[found["seed"].isin(seen[1])], straight, kept, 2)
    same(found[found["task"] < 1], straight, SEEDS, 1)
    running = [one for one in slices.read(tmp_path).slices if one.program.spec.tasks == 2]
    assert [len(one.numbers) for one in running] == [2]
    # all of them, to the end, without waves
    same(run(spec, SEEDS, tmp_path, 4), straight)


@pytest.mark.long
def test_other_runs_begin_from_slices_on_other_devices(spec, tmp_path):
    """In slices as in one process, and their states can be read."""
    run(spec, SEEDS[:2], tmp_path / "start", 1)
    sweep.run(dataclasses.replace(spec, tasks=1), SEEDS[:2], tmp_path / "usual")
    ours, wanted = (states.load_state(tmp_path / name, 1) for name in ("start", "usual"))
    assert jax.tree.map(np.array_equal, ours.params, wanted.params) == jax.tree.map(
        lambda _: True, ours.params
    )
    begun = dataclasses.replace(spec, surgery="perturb")
    ours = run(begun, SEEDS[:2], tmp_path / "a", 2, start=str(tmp_path / "start"))
    two = dataclasses.replace(begun, tasks=2)
    wanted = sweep.run(two, SEEDS[:2], start=tmp_path / "usual", lane_strategy="map")
    same(ours, wanted, SEEDS[:2], 2)
    check_known(tmp_path / "a", 1)
    again = run(begun, SEEDS[:1], tmp_path / "a", 3, start=str(tmp_path / "start"))
    same(again[again["task"] < 2], wanted, SEEDS[:1], 2)
    assert again["task"].max() == 2
