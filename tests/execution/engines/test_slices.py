"""A run in slices gives the table of one run, whatever happens to the processes of its slices."""

import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
import shutil

import numpy as np
import pandas as pd
import pytest
from helpers import tiny

from plasticity_jax.cli import commands
from plasticity_jax.execution import growth, slices, sweep
from plasticity_jax.execution import program as program_
from plasticity_jax.execution.engines import description, local, sliced, worker
from plasticity_jax.storage import json_files, workdir
from plasticity_jax.storage import table as table_

SEEDS = [{"seed": 0}, {"seed": 1}, {"seed": 2}]


@pytest.fixture(scope="module")
def runs(tmp_path_factory, compiled_quickly):
    """Two programs with numbers, probes and points, one of which only one has each."""
    data = tiny.arrays(tmp_path_factory.mktemp("data"))
    plain = tiny.spec(dataset=data, tasks=2, points=2, probes=("feature_spectrum",))
    l2 = dataclasses.replace(plain, method="l2", probes=("dormant_fraction",))
    return [(plain, SEEDS), (l2, [{**seed, "l2.strength": 0.01} for seed in SEEDS[:2]])]


@pytest.fixture(scope="module")
def whole(runs, tmp_path_factory):
    """The same in one process, on one device."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    sweep.run(runs, workdir=folder, lane_strategy="map")
    return folder


def planned(runs, lanes: int = 2):
    """What a command line makes of runs."""
    specs = [one for one, _ in runs]
    dataset = program_.load_common_dataset(specs, None, False)
    samples = program_.sizes(specs, program_.device_data(dataset))
    asked = sliced.Asked("local", lanes, 1, "cpu", (), {}, description.How())
    programs = program_.plan(runs, samples, "map", None)
    return sliced.on_one_device(programs, asked, "map", None), dataset, asked


def in_this_process(folders, options):
    for folder in folders:
        worker.run(folder)
        options.moved()
    return {}


@pytest.fixture
def engine(monkeypatch):
    """Lets slices be run by a function; by default in this process."""

    def use(run=in_this_process):
        monkeypatch.setattr(local, "run", run)

    use()
    return use


def test_slices_that_do_not_fit_together_are_refused(runs, engine, monkeypatch, tmp_path):
    programs, dataset, asked = planned(runs, 1)
    monkeypatch.setattr(sliced.memory, "free_bytes", lambda: 2 * sliced.memory.PROCESS)
    three = asked._replace(workers=3)
    with pytest.raises(MemoryError, match=r"3 slices at a time .* allowed is --workers=1"):
        sliced.run_in_slices(programs, dataset, tmp_path / "run", three)
    assert not (tmp_path / "run" / "config.json").exists()


def run(runs, folder, lanes: int = 2):
    programs, dataset, asked = planned(runs, lanes)
    return sliced.run_in_slices(programs, dataset, folder, asked)


def same(left, right):
    pd.testing.assert_frame_equal(left, right, check_exact=True)
    assert left.attrs == right.attrs


def check_same(one, other):
    """Everything that a run leaves to read."""
    for name in ("results.parquet", "points.parquet"):
        same(table_.read(one / name), table_.read(other / name))
    names = [sorted(path.name for path in (folder / "arrays").iterdir()) for folder in (one, other)]
    assert names[0] == names[1]
    for name in names[0]:
        np.testing.assert_array_equal(*(np.load(f / "arrays" / name) for f in (one, other)))


@pytest.mark.long
def test_slices_give_the_table_of_one_run(runs, whole, engine, tmp_path, nothing_compiles_after):
    found = run(runs, tmp_path)
    same(found, table_.read(whole / "results.parquet"))
    check_same(tmp_path, whole)
    made = slices.read(tmp_path).slices
    assert [one.numbers for one in made] == [[0, 1], [2], [3, 4]]
    assert {one.home for one in made} == {
        path.name for path in (tmp_path / "slices").iterdir() if path.is_dir()
    }
    # what is done is not run again, and an ordinary run finds it too
    nothing_compiles_after()
    same(run(runs, tmp_path), found)
    same(sweep.run(runs, workdir=tmp_path, lane_strategy="map"), found)


@pytest.mark.long
def test_an_agent_in_slices_gives_the_table_of_one_run(engine, tmp_path):
    """With what it remembers in the checkpoints of each slice."""
    one = tiny.spec(
        dataset=tiny.arrays(tmp_path / "data"),
        environment="bandit",
        phase_steps=240,
        epochs=40,
        batch_size=16,
        tasks=2,
        options={"dqn.replay": 200, "dqn.evaluate": 40, "dqn.warmup": 40},
    )
    runs = [(one, SEEDS)]
    found = run(runs, tmp_path / "slices")
    same(found, sweep.run(runs, workdir=tmp_path / "whole", lane_strategy="map"))
    longer = [(dataclasses.replace(one, tasks=3), SEEDS)]
    again = sweep.run(longer, workdir=tmp_path / "straight", lane_strategy="map")
    same(run(longer, tmp_path / "slices"), again)


@pytest.fixture
def nothing_compiles_after(monkeypatch):
    """Makes every later compilation an error."""
    from plasticity_jax.execution import compiled

    def refuse(*_):
        raise AssertionError("nothing is to be compiled")

    return lambda: monkeypatch.setattr(compiled, "compile_program", refuse)


@pytest.mark.faults
@pytest.mark.slow
def test_a_workdir_grows_by_slices_and_without_them(runs, engine, tmp_path):
    """One task of some lanes in one process, all in slices, one task more in one process."""
    one = [(dataclasses.replace(spec, tasks=1), lanes[:2]) for spec, lanes in runs[:1]]
    sweep.run(one, workdir=tmp_path / "grown", lane_strategy="map")
    run(runs, tmp_path / "grown", lanes=1)
    made = slices.read(tmp_path / "grown").slices
    assert [one.numbers for one in made] == [[0, 1], [2], [3], [4]]
    more = [(dataclasses.replace(spec, tasks=3), lanes[1:]) for spec, lanes in runs]
    sweep.run(more, workdir=tmp_path / "grown", lane_strategy="map")
    last = [(dataclasses.replace(spec, tasks=3), lanes) for spec, lanes in runs]
    found = run(last, tmp_path / "grown", lanes=1)
    straight = sweep.run(last, workdir=tmp_path / "straight", lane_strategy="map")
    same(found, straight)


@pytest.mark.long
def test_a_slice_that_is_lost_is_run_again(runs, whole, engine, tmp_path):
    """From its states where only its results are gone or damaged, from its start if all are."""
    run(runs, tmp_path)
    first, second, third = slices.read(tmp_path).slices
    (first.place(tmp_path) / "results.parquet").write_bytes(b"PAR1")
    (second.place(tmp_path) / "results.parquet").unlink()
    shutil.rmtree(third.place(tmp_path))
    run(runs, tmp_path)
    check_same(tmp_path, whole)


def test_what_fails_is_told_and_the_rest_is_kept(runs, engine, tmp_path):
    def only_first(folders, options):
        worker.note_fault(folders[1], "no room.")
        return {folders[1]: "no room.", folders[2]: "it died"}

    engine(only_first)
    with pytest.raises(workdir.WorkdirError) as error:
        run(runs, tmp_path)
    assert f"slices/{slices.read(tmp_path).slices[1].home} failed (no room), and 1 more" in str(
        error.value
    )
    assert "0 of 3 slices are done" in str(error.value)


def test_a_run_waits_while_another_runs_its_slices(runs, engine, tmp_path, monkeypatch):
    """The second command is told who it is; it goes on once the first is gone."""
    engine(lambda folders, options: dict.fromkeys(folders, "not tried"))
    monkeypatch.setattr(sliced, "_LOOK", 0.01)
    programs, dataset, asked = planned(runs)
    told = []
    first = contextlib.ExitStack()
    first.enter_context(workdir.lock(tmp_path / "slices"))

    def tell(line):
        told.append(line)
        first.close()

    with pytest.raises(workdir.WorkdirError, match="not tried"):
        sliced.run_in_slices(programs, dataset, tmp_path, asked, tell=tell)
    (line,) = told
    assert f"process {os.getpid()}" in line
    assert line.endswith(f": it is waited for (plasticity status {tmp_path} says more)")


def test_a_run_that_waits_shows_how_far_the_slices_are(runs, engine, tmp_path, capsys):
    engine(lambda folders, options: dict.fromkeys(folders, "not tried"))
    with pytest.raises(workdir.WorkdirError, match="not tried"):
        run(runs, tmp_path)
    for one in slices.read(tmp_path).slices[:2]:
        (one.checkpoints(tmp_path) / "2").mkdir(parents=True)
    capsys.readouterr()
    shown = sliced._Waiting(tmp_path, True)
    shown.look()
    shown.close()
    bar = capsys.readouterr().err
    assert "2 of 3 slices" in bar
    assert "6/10" in bar


def test_a_damaged_file_of_a_slice_is_told(runs, tmp_path):
    """Beside its table: values within tasks, and arrays, of which objects are not read."""
    programs, _, _ = planned(runs)
    one = sliced.cut(slices.in_order(programs)[0], 2)[0]
    place = one.place(tmp_path)
    (place / "arrays" / "preactivations").mkdir(parents=True)
    np.save(place / "arrays" / "preactivations" / "histogram.npy", np.ones((2, 2, 3), np.float32))
    assert sliced._arrays([one], tmp_path, 2).keys() == {"preactivations/histogram"}
    np.save(place / "arrays" / "x.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(workdir.WorkdirError, match=r"x\.npy cannot be read .*pickled.* delete "):
        sliced._arrays([one], tmp_path, 2)
    (place / "points.parquet").write_bytes(b"PAR1")
    with pytest.raises(workdir.WorkdirError, match=r"points\.parquet cannot be read .* delete "):
        sliced._points([one], tmp_path)


def test_an_ordinary_run_keeps_off_slices_that_run(runs, engine, tmp_path):
    engine(lambda folders, options: dict.fromkeys(folders, "not tried"))
    with pytest.raises(workdir.WorkdirError, match="not tried"):
        run(runs, tmp_path)
    home = slices.read(tmp_path).slices[0].place(tmp_path)
    with workdir.lock(home), pytest.raises(workdir.InUse, match=home.name):
        sweep.run(runs, workdir=tmp_path, lane_strategy="map")


def test_lanes_whose_digits_stand_on_two_devices_are_refused(runs, engine, tmp_path):
    """Where lanes are vmapped, the number of devices decides last digits."""
    spec, _ = runs[0]
    one = [(spec, [{"seed": seed} for seed in range(4)])]
    programs, dataset, asked = planned(one)
    how = programs[0].execution._replace(strategy="sharded", width=2, devices=2)
    made = slices.in_order([programs[0]._replace(execution=how)])
    workdir.write_config(tmp_path, slices.settings(made, dataset), {})
    programs = sliced.on_one_device(programs, asked, "sharded", 2)
    with pytest.raises(workdir.WorkdirError, match=r"2 at a time on each of 2 devices.*--engine"):
        sliced.run_in_slices(programs, dataset, tmp_path, asked)


@pytest.mark.parametrize("when", ["moved", "done"])
def test_another_folder_in_the_place_of_the_workdir_is_left_alone(when, runs, engine, tmp_path):
    """While slices run, or as the last of them ends."""
    folder = tmp_path / "run"

    def replaced(folders, options):
        folder.rename(tmp_path / "away")
        folder.mkdir()
        (folder / "theirs.txt").write_text("x")
        if when == "moved":
            options.moved()
        return {}

    engine(replaced)
    with pytest.raises(workdir.WorkdirError, match=r"was deleted while it was in use, or another"):
        run(runs, folder)
    assert [path.name for path in folder.iterdir()] == ["theirs.txt"]
    # (what was there is as it was, and goes on)
    shutil.rmtree(folder)
    (tmp_path / "away").rename(folder)
    engine(lambda folders, options: dict.fromkeys(folders, "not tried"))
    with pytest.raises(workdir.WorkdirError, match="not tried"):
        run(runs, folder)


# What is written of a slice


def test_a_slice_for_an_accelerator_is_not_run_on_a_cpu(runs, tmp_path, capsys):
    """Where its accelerator is gone jax starts on a CPU, with a warning alone."""
    programs, _, _ = planned(runs)
    description.write(tmp_path, programs[0], description.How())
    assert commands.main(["slice", str(tmp_path), "--backend=gpu"]) == 1
    said = "jax starts on cpu in the process of a slice: allowed is gpu, for which the run was "
    assert said in capsys.readouterr().err
    assert said in worker.fault(tmp_path)
    assert not (tmp_path / "checkpoints").exists()


def test_a_description_says_the_program_again(runs, tmp_path):
    programs, _, _ = planned(runs)
    how = description.How(data_dir="/data", start_task=3)
    description.write(tmp_path, programs[1], how)
    found, again = description.read(tmp_path)
    assert (found.spec, found.lanes, again) == (programs[1].spec, programs[1].lanes, how)
    assert found.execution == programs[1].execution


@pytest.mark.parametrize(
    "change",
    [
        {"imports": ["evil.py"]},
        {"how": {"data_dir": 3}},
        {"how": {"shell": "rm"}},
        {"how": None},
        {"lanes": []},
        {"lanes": [{"seed": "x"}]},
        {"lanes": "ab"},
        {"spec": {"width": 8}},
        {"spec": []},
        {"lane_width": -1},
        {"lane_strategy": "fork"},
    ],
)
def test_a_description_that_says_something_else_is_one_sentence(change, runs, tmp_path):
    programs, _, _ = planned(runs)
    description.write(tmp_path, programs[0], description.How())
    file = tmp_path / description.FILE
    content = json_files.unsealed(json.loads(file.read_text())) | change
    file.write_text(json.dumps(json_files.sealed(content)))
    with pytest.raises(workdir.WorkdirError, match=r"^.*slice\.json cannot be read .*makes\.$"):
        description.read(tmp_path)


def test_a_description_with_another_digit_is_refused(runs, tmp_path, capsys):
    """As it would be another setting, that stands in the table of all in the name of the first."""
    programs, _, _ = planned(runs)
    description.write(tmp_path, programs[0], description.How(checkpoint_every=3))
    file = tmp_path / description.FILE
    content = file.read_bytes()
    places = [place for place, byte in enumerate(content) if chr(byte).isdigit()]
    assert len(places) > 50
    for place in places:
        file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        for reads in (description.read, description.read_how, description.tasks):
            with pytest.raises(workdir.WorkdirError, match=r"^.*slice\.json cannot be read"):
                reads(tmp_path)
    assert commands.main(["slice", str(tmp_path)]) == 1
    said = capsys.readouterr().err.strip()
    assert str(file) in said
    assert len(said.splitlines()) == 1
    assert str(file) in (worker.fault(tmp_path) or "")


def test_a_description_from_before_checksums_is_read(runs, tmp_path):
    programs, _, _ = planned(runs)
    description.write(tmp_path, programs[0], description.How())
    file = tmp_path / description.FILE
    content = json.loads(file.read_text())
    del content["sha256"]
    file.write_text(json.dumps(content))
    assert description.read(tmp_path)[0].lanes == programs[0].lanes


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100000, b"\x80\x04pickle", b"{}"])
def test_a_description_that_is_none_is_one_sentence(content, tmp_path):
    (tmp_path / description.FILE).write_bytes(content)
    with pytest.raises(workdir.WorkdirError, match=r"slice\.json cannot be read"):
        description.read_how(tmp_path)


def test_a_slice_that_never_finishes_a_task_says_so(runs, tmp_path):
    """Such as a task that is longer than the time limit of its job."""
    programs, _, _ = planned(runs)
    description.write(tmp_path, programs[0], description.How())
    for _ in range(worker.WITHOUT_PROGRESS):
        worker._count_try(tmp_path, 2)
    with pytest.raises(workdir.WorkdirError, match=r"ended 2 times without finishing task 1 of 2"):
        worker.run(tmp_path)
    worker.forget(tmp_path)
    worker._count_try(tmp_path, 2)
    (tmp_path / "checkpoints" / "ab" / "1").mkdir(parents=True)
    worker._count_try(tmp_path, 2)
    assert worker.tries(tmp_path)["count"] == 1


def test_tries_that_are_damaged_are_counted_anew(tmp_path):
    """Whatever digit of them is another one."""
    worker._count_try(tmp_path, 2)
    file = tmp_path / worker.TRIES
    assert worker.tries(tmp_path) == {"tasks": 0, "count": 1}
    content = file.read_bytes()
    for place, byte in enumerate(content):
        if chr(byte).isdecimal():
            file.write_bytes(content[:place] + bytes([byte ^ 1]) + content[place + 1 :])
            assert worker.tries(tmp_path) == {}
    worker._count_try(tmp_path, 2)
    assert worker.tries(tmp_path) == {"tasks": 0, "count": 1}


@pytest.mark.parametrize("count", range(1, 8))
def test_every_lane_is_in_one_slice(count, runs):
    spec, _ = runs[0]
    programs, _, _ = planned([(spec, [{"seed": seed} for seed in range(7)])])
    (one,) = slices.in_order(programs)
    made = sliced.cut(one._replace(numbers=[3, 1, 4, 7, 5, 9, 2]), count)
    chained = itertools.chain.from_iterable
    assert list(chained(part.numbers for part in made)) == [3, 1, 4, 7, 5, 9, 2]
    assert list(chained(part.program.lanes for part in made)) == programs[0].lanes
    assert all(len(part.numbers) <= count for part in made)
    assert len({part.home for part in made}) == len(made)
    assert growth.identity(spec, made[-1].program.lanes[-1]) == growth.identity(
        spec, programs[0].lanes[-1]
    )


def test_a_folder_that_is_no_slice_is_one_sentence(tmp_path):
    with pytest.raises(workdir.WorkdirError, match=r"has no slice\.json: allowed"):
        worker.check_ready(tmp_path)
    with pytest.raises(workdir.WorkdirError, match="is no folder: allowed"):
        worker.check_ready(pathlib.Path(tmp_path, "nowhere"))
