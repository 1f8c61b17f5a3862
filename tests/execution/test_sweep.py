import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys

import jax
import numpy as np
import pandas
import pandas.testing
import pytest
from helpers import tiny

from plasticity_jax.execution import compiled as compiled_
from plasticity_jax.execution import placement, rows, sweep, tasks
from plasticity_jax.execution import program as program_
from plasticity_jax.storage import table as table_
from plasticity_jax.storage import workdir
from plasticity_jax.storage.checkpoints import Checkpoints

ROOT = pathlib.Path(__file__).parents[2]
LANES = [{"seed": 0, "granularity": 3}, {"seed": 1}, {"seed": 0}]  # three on two devices: one pads
TASKS = 4


THRESHOLDS = {
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, compiled_quickly) -> str:
    return tiny.arrays(tmp_path_factory.mktemp("data"))


def spec(dataset: str, **changes):
    return tiny.spec(dataset=dataset, tasks=TASKS, optimizer="adam", **changes)


def only_slice(path) -> pathlib.Path:
    """The folder of checkpoints of the one slice of a workdir."""
    (folder,) = pathlib.Path(path, "checkpoints").iterdir()
    return folder


def ended(path) -> tuple[int, bytes]:
    """Step and bytes of everything in the newest checkpoint of the first program."""
    checkpoints = Checkpoints(only_slice(path))
    step, tree = checkpoints.restore({"state": {}, "history": {}})
    checkpoints.close()
    assert len(tree["state"]) > 10
    assert {"loss", "finite"} <= tree["history"].keys()
    return step, b"".join(
        name.encode() + part[name].tobytes() for part in tree.values() for name in sorted(part)
    )


def assert_same(left: pandas.DataFrame, right: pandas.DataFrame):
    pandas.testing.assert_frame_equal(left, right, check_exact=True)
    for name in left:
        assert (
            left[name].to_numpy().tobytes() == right[name].to_numpy().tobytes()
            or left[name].dtype.kind not in "fiub"
        )


@pytest.fixture(scope="module")
def straight(dataset, tmp_path_factory):
    """Table and last checkpoint of a run that nothing disturbed."""
    path = tmp_path_factory.mktemp("straight")
    table = sweep.run(spec(dataset), LANES, path)
    return table, ended(path)


# What a run gives


def test_table_has_one_row_per_lane_and_task(straight, dataset):
    table, (step, _) = straight
    assert step == TASKS
    assert list(table[["lane", "task"]].itertuples(index=False, name=None)) == [
        (lane, task) for lane in range(3) for task in range(TASKS)
    ]
    assert list(table.columns[:3]) == ["lane", "task", "seed"]
    for column, values in {
        "seed": (0, 1, 0),
        "granularity": (3, 1, 1),
        "transition": ("output",) * 3,
    }.items():
        assert list(table.loc[table["task"] == 0, column]) == list(values)
    assert table["finite"].dtype == bool
    assert table["finite"].all()
    assert np.isfinite(table[["loss", "accuracy", "online_accuracy"]].to_numpy()).all()
    same = [table.loc[table["lane"] == lane, "loss"].to_numpy() for lane in (0, 2)]
    # the first task arrives whole, so one seed gives one loss; then they part
    assert same[0][0] == same[1][0]
    assert same[0][1] != same[1][1]


def test_in_memory_equals_in_a_workdir(straight, dataset):
    assert_same(sweep.run(spec(dataset), LANES), straight[0])


def test_a_finished_run_is_read_not_computed(straight, dataset, tmp_path, monkeypatch):
    assert_same(sweep.run(spec(dataset), LANES, tmp_path), straight[0])
    assert_same(table_.read(tmp_path / "results.parquet"), straight[0])
    files = {
        file: file.read_bytes()
        for file in tmp_path.rglob("*")
        if file.is_file() and file.name == "config.json"
    }

    def refuse(*_):
        raise AssertionError("nothing is to be compiled or trained")

    monkeypatch.setattr(compiled_, "compile_program", refuse)
    assert_same(sweep.run(spec(dataset), LANES, tmp_path), straight[0])
    assert ended(tmp_path) == straight[1]
    for file, content in files.items():
        assert file.read_bytes() == content


# Stopped and resumed


CHILD = """
import sys
import conftest  # the same devices as the tests
from helpers import tiny
from plasticity_jax.execution import sweep, tasks
from test_sweep import LANES, spec

waited = tasks.wait

def wait(*arguments):
    print("running", flush=True)
    sys.stdin.readline()
    return waited(*arguments)

tasks.wait = wait
try:
    sweep.run(spec(sys.argv[1]), LANES, sys.argv[2])
except tasks.Stopped as stopped:
    print("stopped", stopped.signal, stopped, flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_stopped_by_a_signal_and_resumed(straight, dataset, tmp_path, number):
    environment = os.environ | {
        "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}:{ROOT / 'tests/execution'}",
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,  # pyright: ignore
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # as what it is compared with
    }
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, dataset, str(tmp_path)],
        env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdin
        assert process.stdout
        for task in range(3):
            assert process.stdout.readline() == "running\n"
            if task == 2:  # two tasks are done, the third is on its way
                process.send_signal(number)
            if number == signal.SIGTERM or task < 2:
                process.stdin.write("\n")
                process.stdin.flush()
        said = process.stdout.read()
    step, _ = ended(tmp_path)
    table = table_.read(tmp_path / "results.parquet")
    if number == signal.SIGTERM:
        assert said == f"stopped {number:d} {step} of {TASKS} tasks of this program are saved\n"
        assert process.returncode == 0
        assert step in (2, 3)
    else:
        assert said == ""
        assert process.returncode == -number
        assert step == 2
    first = straight[0]
    assert_same(table, first[first["task"] < len(table) // 3].reset_index(drop=True))
    assert_same(sweep.run(spec(dataset), LANES, tmp_path), first)
    assert ended(tmp_path) == straight[1]


@pytest.mark.parametrize(("every", "at", "saved"), [(1, 2, 2), (3, 1, 2), (3, 3, 3)])
def test_stop_saves_what_is_computed_and_drops_what_is_not(
    straight, dataset, tmp_path, monkeypatch, every, at, saved
):
    """A stop in task `at` leaves it unfinished if all before is saved, else waits for it and saves
    it.
    """
    waited, seen = tasks.wait, []

    def wait(arrays, stop, first):
        seen.append(len(seen))
        if seen[-1] == at:
            os.kill(os.getpid(), signal.SIGTERM)
            if not first:
                return False  # as if the task would still take long
        return waited(arrays, None)

    monkeypatch.setattr(tasks, "wait", wait)
    with pytest.raises(
        tasks.Stopped, match=f"^{saved} of {TASKS} tasks of this program are saved$"
    ) as caught:
        sweep.run(spec(dataset), LANES, tmp_path, checkpoint_every=every)
    assert caught.value.signal == signal.SIGTERM
    assert ended(tmp_path)[0] == saved
    assert len(table_.read(tmp_path / "results.parquet")) == saved * 3
    monkeypatch.setattr(tasks, "wait", waited)
    assert_same(sweep.run(spec(dataset), LANES, tmp_path, checkpoint_every=every), straight[0])
    assert ended(tmp_path) == straight[1]


def test_wait_returns_at_a_stop(capsys):
    """Or says at once what is waited for, and that once."""

    class Slow:
        looks = 0

        def is_ready(self):
            self.looks += 1
            return self.looks > 3

    stop = workdir.Stop()
    stop.requested = True
    assert tasks.wait([Slow()], stop) is False
    assert capsys.readouterr().err == ""
    stop.signal = signal.SIGUSR1
    assert tasks.wait([Slow()], stop, "task 3 of 4 is finished and saved first") is True
    assert capsys.readouterr().err == "SIGUSR1: task 3 of 4 is finished and saved first\n"
    assert tasks.wait([jax.numpy.zeros(3)], stop) is True
    assert tasks.wait([jax.numpy.zeros(3)], None) is True


def test_corrupt_newest_checkpoint(straight, dataset, tmp_path, caplog):
    sweep.run(spec(dataset), LANES, tmp_path)
    assert sorted(os.listdir(only_slice(tmp_path))) == ["3", "4"]
    file = only_slice(tmp_path) / "4" / "manifest" / "metadata"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert_same(sweep.run(spec(dataset), LANES, tmp_path), straight[0])
    assert "is damaged" in caplog.text
    assert ended(tmp_path) == straight[1]
    assert_same(table_.read(tmp_path / "results.parquet"), straight[0])


def test_a_finished_run_goes_on_with_more_tasks_as_if_it_had_begun_with_them(
    straight, dataset, tmp_path
):
    shorter = dataclasses.replace(spec(dataset), tasks=TASKS - 2)
    first = sweep.run(shorter, LANES, tmp_path)
    assert set(first["task"]) == set(range(TASKS - 2))
    assert_same(sweep.run(spec(dataset), LANES, tmp_path), straight[0])
    assert ended(tmp_path) == straight[1]


# Several programs


def test_rows_of_every_program_stay_while_a_run_becomes_longer(dataset, tmp_path, monkeypatch):
    def runs(tasks):
        common = {"dataset": dataset, "optimizer": "adam", "tasks": tasks}
        return [(tiny.spec(**common), LANES[:1]), (tiny.spec(**common, method="l2"), LANES[:1])]

    sweep.run(runs(2), workdir=tmp_path)
    seen = []
    write = table_.write_parts

    def counted(like, parts, file):
        made = list(parts)
        seen.append(sum(map(len, made)))
        write(like, made, file)

    monkeypatch.setattr(table_, "write_parts", counted)
    longer = sweep.run(runs(3), workdir=tmp_path)
    assert seen[0] == 4
    assert seen == sorted(seen)
    assert_same(longer, sweep.run(runs(3)))
    record = json.loads((tmp_path / "config.json").read_text())
    assert record["settings"]["programs"][0]["spec"]["tasks"] == 3
    assert record["before"]["versions"] == record["versions"]


def test_two_programs_make_one_table(dataset, tmp_path):
    probed = spec(dataset, probes="parameter_norm", probe_every=2)
    other = spec(dataset, transition="sampling", method="l2", options={"l2.on": "matrices"})
    runs = [(probed, LANES[:2]), (other, [{"seed": 7, "l2.strength": 0.2}])]
    table = sweep.run(runs, workdir=tmp_path)
    assert_same(table_.read(tmp_path / "results.parquet"), table)
    assert list(table["lane"]) == [0] * TASKS + [1] * TASKS + [2] * TASKS
    assert list(table["task"]) == [*range(TASKS)] * 3
    first, second = table["lane"] < 2, table["lane"] == 2
    assert (table.loc[first, "transition"] == "output").all()
    assert (table.loc[second, ["transition", "method"]] == ["sampling", "l2"]).all(axis=None)
    assert table.loc[first, ["l2.strength", "l2.on"]].isna().all(axis=None)
    assert (table.loc[second, ["l2.strength", "l2.on"]] == [0.2, "matrices"]).all(axis=None)
    norms = table.pivot(index="task", columns="lane", values="parameter_norm")
    assert norms.isna().to_numpy().tolist() == [[True] * 3, [False, False, True]] * 2
    assert len(os.listdir(tmp_path / "checkpoints")) == 2
    assert_same(sweep.run(runs, workdir=tmp_path), table)


def test_programs_share_a_dataset(dataset):
    message = "^samples is None and 32: allowed is one for all programs of a run.$"
    with pytest.raises(ValueError, match=message):
        sweep.run([(spec(dataset), LANES), (spec(dataset, samples=32), LANES)])
    with pytest.raises(ValueError, match=r"^spec is 3: allowed is a Spec, or a list of .*\.$"):
        sweep.run(3, [{"seed": 0}])  # pyright: ignore
    with pytest.raises(ValueError, match=r"^lanes are given twice: .*\.$"):
        sweep.run([(spec(dataset), LANES)], LANES)


def test_a_lane_once_not_finite_stays_so_in_the_table(dataset):
    programs = program_.plan([(spec(dataset), LANES)], 64)
    finite = np.array([[True, True, False], [True, False, True], [True, True, True]])
    table = rows.table(programs, [{"loss": np.zeros((3, 3), np.float32), "finite": finite}])
    assert table.groupby("lane")["finite"].apply(list).tolist() == [
        [True] * 3,
        [True, False, False],
        [False] * 3,
    ]
    assert list(rows.table(programs, [{}]).columns) == ["lane", "task", "seed"]


def test_padding_lanes_are_not_in_the_table(straight):
    assert placement.padded(3, placement.Execution("sharded", 1, 2)) == 4
    assert sorted(straight[0]["lane"].unique()) == [0, 1, 2]


def test_a_transfer_inside_a_task_is_refused(monkeypatch):
    plain = compiled_.compile_program

    def leaking(program, data):
        compiled = plain(program, data)

        def run_task(states, number):
            jax.numpy.sin(np.ones(3))  # an array of the host's, handed to the device unasked
            return compiled.run_task(states, number)

        return compiled._replace(run_task=run_task)

    sweep.run(tiny.spec())
    monkeypatch.setattr(compiled_, "compile_program", leaking)
    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        sweep.run(tiny.spec())


def test_a_task_is_fetched_and_saved_while_the_next_one_is_computed(monkeypatch, tmp_path):
    """All that the loop waits for between two tasks is the fetch of the metrics."""
    seen, plain, save, get = [], compiled_.compile_program, Checkpoints.save, jax.device_get

    def watched(program, data):
        compiled = plain(program, data)
        return compiled._replace(
            run_task=lambda states, number: (
                seen.append(f"task {number}") or compiled.run_task(states, number)
            )
        )

    def saving(self, step, tree):
        seen.append(f"save {step}")
        save(self, step, tree)

    def fetching(tree):
        if isinstance(jax.tree.leaves(tree)[0], jax.Array):
            seen.append("metrics" if "finite" in tree else "states")
        return get(tree)

    monkeypatch.setattr(compiled_, "compile_program", watched)
    monkeypatch.setattr(Checkpoints, "save", saving)
    monkeypatch.setattr(jax, "device_get", fetching)
    sweep.run(tiny.spec(tasks=3), workdir=tmp_path / "run")
    saved = [["states", f"save {number}"] for number in (1, 2, 3)]
    assert seen == [
        "task 0", "metrics", "task 1", *saved[0], "metrics", "task 2", *saved[1], "metrics",
        *saved[2],
    ]  # fmt: skip
