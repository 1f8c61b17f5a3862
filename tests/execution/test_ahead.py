"""The next program is compiled while one runs; nothing else is different for it."""

import dataclasses
import logging
import threading

import jax
import pandas as pd
import pytest

from plasticity_jax import grid
from plasticity_jax.execution import ahead, sweep, tasks
from plasticity_jax.execution import compiled as compiled_
from plasticity_jax.execution import program as program_
from plasticity_jax.storage import table as table_
from plasticity_jax.storage import workdir as workdir_
from tests.helpers import tiny

DATA = tiny.data()
MAIN = threading.main_thread()


def planned(strategy=None, width=None, lanes=3, **changes):
    spec = tiny.spec(samples=64, **changes)
    (program,) = program_.plan([(spec, grid(seed=range(lanes)))], 64, strategy, width)
    return program


def specs(methods=("none", "l2"), **changes):
    one = tiny.spec(tasks=2, **changes)
    return [(dataclasses.replace(one, method=method), [{"seed": 0}]) for method in methods]


@pytest.fixture
def made(monkeypatch):
    """Notes (thread, method) of what is compiled."""
    noted, plain = [], compiled_.compile_program

    def compile_program(program, data):
        noted.append((threading.current_thread(), program.spec.method))
        return plain(program, data)

    monkeypatch.setattr(compiled_, "compile_program", compile_program)
    return noted


@pytest.mark.parametrize(
    ("strategy", "width"),
    [
        ("sharded", 1),
        pytest.param("vmap", 2, marks=pytest.mark.long),
        pytest.param("map", 1, marks=pytest.mark.long),
    ],
)
def test_what_was_compiled_from_shapes_runs_without_compiling(strategy, width, caplog):
    compiled = compiled_.compile_program(planned(strategy, width), DATA)
    compiled.compile()
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        states, metrics = compiled.run_task(compiled.init(), 0)
        jax.block_until_ready(compiled.run_task(states, 1))
    assert metrics["accuracy"].shape[0] >= 3
    assert [line for line in caplog.messages if "ompil" in line] == []


class Fake:
    """Stands for a compiled program."""

    def compile(self):
        pass


def test_one_program_is_compiled_ahead_and_the_others_in_turn(monkeypatch):
    made = []

    def compile_program(program, data):
        made.append((program, threading.current_thread() is MAIN))
        return Fake()

    monkeypatch.setattr(compiled_, "compile_program", compile_program)
    first, second, third = [planned(lanes=number) for number in (1, 2, 3)]
    programs = ahead.Ahead([first, second, third], DATA)
    assert isinstance(programs.take(first), Fake)
    for _ in range(2):
        programs.begin()
    assert isinstance(programs.take(second), Fake)
    assert made == [(first, True), (second, False)]
    assert isinstance(programs.take(third), Fake)
    programs.begin()  # (nothing is left)
    assert made == [(first, True), (second, False), (third, True)]


def test_what_only_the_thread_cannot_compile_is_compiled_in_its_turn(monkeypatch):
    failed = []

    def compile_program(program, data):
        if threading.current_thread() is not MAIN:
            failed.append(program)
            raise MemoryError("not while another runs")
        return Fake()

    monkeypatch.setattr(compiled_, "compile_program", compile_program)
    first, second = [planned(lanes=number) for number in (1, 2)]
    programs = ahead.Ahead([first, second], DATA)
    programs.take(first)
    programs.begin()
    assert isinstance(programs.take(second), Fake)
    assert failed == [second]


def test_a_stop_does_not_wait_for_a_program_in_its_turn(monkeypatch):
    """Whether it was compiled ahead or not."""
    begun, ends = threading.Event(), threading.Event()

    class Long:
        def compile(self):
            begun.set()
            assert ends.wait(60)

    class Stop(workdir_.Stop):
        @property
        def requested(self):
            return begun.is_set()

        @requested.setter
        def requested(self, _):
            pass

    monkeypatch.setattr(compiled_, "compile_program", lambda program, data: Long())
    first, second = [planned(lanes=number) for number in (1, 2)]
    programs = ahead.Ahead([first, second], DATA)
    stop = Stop()
    try:
        assert programs.take(first, stop) is None
        programs.begin()
        assert programs.take(second, stop) is None
    finally:
        ends.set()
    assert isinstance(ahead.Ahead([first], DATA).take(first), Long)


def test_what_is_done_aside_returns_or_raises():
    assert ahead.aside(threading.current_thread) is not MAIN
    with pytest.raises(MemoryError, match="none"):
        ahead.aside(lambda: (_ for _ in ()).throw(MemoryError("none")))


@pytest.mark.long
def test_results_and_their_order_are_those_of_programs_one_by_one(made, tmp_path):
    alone = [sweep.run([one]) for one in specs()]
    made.clear()
    told = []
    together = sweep.run(specs(), workdir=tmp_path, on_task=told.append)
    assert [method for _, method in made] == ["none", "l2"]
    assert [thread is MAIN for thread, _ in made] == [True, False]
    for number, one in enumerate(alone):
        own = together.loc[together["lane"] == number, one.columns].reset_index(drop=True)
        own["lane"] = 0
        pd.testing.assert_frame_equal(own, one, check_exact=True)
    assert [(rows["lane"].tolist(), rows["task"].tolist()) for rows in told] == [
        ([lane], [task]) for lane in range(2) for task in range(2)
    ]


@pytest.mark.long
def test_what_is_done_is_not_compiled(made, tmp_path):
    sweep.run(specs(("l2",)), workdir=tmp_path)
    made.clear()
    sweep.run(specs(), workdir=tmp_path)
    assert [method for _, method in made] == ["none"]


@pytest.mark.long
def test_a_program_that_cannot_be_compiled_fails_in_its_turn(monkeypatch, tmp_path):
    plain = compiled_.compile_program

    def compile_program(program, data):
        if program.spec.method == "l2":
            raise FloatingPointError("never")
        return plain(program, data)

    monkeypatch.setattr(compiled_, "compile_program", compile_program)
    safe = []
    with pytest.raises(FloatingPointError):
        sweep.run(specs(), workdir=tmp_path, on_task=safe.append)
    assert [rows["task"].tolist() for rows in safe] == [[0], [1]]


@pytest.mark.long
def test_who_stops_does_not_wait_for_the_compiler(monkeypatch, tmp_path):
    plain, begun, ends = compiled_.compile_program, threading.Event(), threading.Event()

    def compile_program(program, data):
        if threading.current_thread() is not MAIN:
            begun.set()
            assert ends.wait(60)
        return plain(program, data)

    stop = workdir_.Stop()

    def stops(rows):
        assert begun.wait(60)
        stop.requested = True

    monkeypatch.setattr(compiled_, "compile_program", compile_program)
    monkeypatch.setattr(workdir_, "Stop", lambda: stop)
    try:
        with pytest.raises(tasks.Stopped):
            sweep.run(specs(), workdir=tmp_path, on_task=stops)
        assert threading.active_count() > 1
    finally:
        ends.set()
    assert set(table_.read(tmp_path / "results.parquet")["method"]) == {"none"}
