"""The arithmetic of the benchmarks and what they print and draw, from made-up rates. Nothing is
timed here.
"""

import inspect
import json
import os
import re
import sys
from importlib.util import find_spec

import jax
import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import (
    against,
    barriers,
    costs,
    further,
    jax_steps,
    online,
    parts,
    picture,
    rivals,
    slices,
    words,
    worker,
)
from benchmarks.rivals import Figure
from plasticity_jax import Spec, environments, lanes
from plasticity_jax.cli import flags


def test_order_is_fair():
    names = ["a", "b", "c"]
    turns = [rivals.order(names, number) for number in range(6)]
    assert turns[:4] == [["a", "b", "c"], ["c", "b", "a"], ["b", "c", "a"], ["a", "c", "b"]]
    places = {name: sum(turn.index(name) for turn in turns) for name in names}
    assert set(places.values()) == {6}  # over a whole cycle everybody is as early as everybody else


def test_ratios_and_best_are_formed_within_rounds():
    assert rivals.divide([2, 9], [1, 3]) == [2, 3]
    assert rivals.best([1, 5], [3, 4]) == [3, 5]
    with pytest.raises(ValueError):
        rivals.divide([1, 2], [1])


def test_pinned_processes_have_a_core_each():
    works = rivals.rival("torch", processes=2, pinned=True, batch_size=64).works
    assert [dict(work.settings) for work in works] == [
        {"batch_size": 64, "core": 0},
        {"batch_size": 64, "core": 1},
    ]
    assert rivals.rival("torch").works == (rivals.Work("torch", {}),)


def test_pinned_processes_warm_up_on_cores_that_are_free():
    anywhere, first, second = (
        rivals.Work("torch", place) for place in ({}, {"core": 0}, {"core": 1})
    )
    assert rivals._next([anywhere, first], {None}) == 1
    assert rivals._next([first, anywhere], {0}) == 1
    assert rivals._next([anywhere, first, second], {0}) == 2
    assert rivals._next([first], {0}) == 0


def test_pin_keeps_to_one_core():
    before = os.sched_getaffinity(0)
    try:
        worker.pin(None)
        assert os.sched_getaffinity(0) == before
        worker.pin(0)
        assert os.sched_getaffinity(0) == {min(before)}
        assert rivals.cores() == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(
    ("values", "limits", "met"),
    [
        ([0.9, 1.2, 1.3], {"at_least": 1.2}, True),
        ([0.9, 1.1, 9.0], {"at_least": 1.2}, False),
        ([2.0, 1.08, 0.1], {"at_most": 1.08}, True),
        ([2.0, 1.09, 0.1], {"at_most": 1.08}, False),
        ([1.0], {}, None),
    ],
)
def test_the_median_decides(values, limits, met):
    assert Figure("part", "what", values, **limits).met is met


def test_useful_work_is_what_the_products_of_a_step_take():
    random = np.random.default_rng(0)
    x, gflop = random.random((2, 784)), 0.0
    for first, (before, after) in enumerate(worker.LAYERS):
        y = x @ random.random((before, after))
        assert y.shape == (2, after)
        # the input of the network needs no gradient
        gflop += 2e-9 * 2 * before * after * (2 if first == 0 else 3)
        x = y
    assert worker.useful_gflop(2) == pytest.approx(gflop)


def test_numbers_and_limits_in_words():
    assert words.number(0.4321, "%") == "43.2"
    assert words.number(0.0087, "%") == "0.87"
    assert words.number(1.0666, "x") == "1.067"
    assert words.number(1234.5, "steps/s") == "1,234"
    figure = Figure("mlp", "batch 64", [1.9, 2.1, 2.0], at_least=1.8)
    assert words.shown(figure) == "2.000 [1.900, 2.100] x"
    assert words.reach(figure) == "at least 1.800"
    lines = words.table(
        [figure, figure._replace(at_least=2.2), figure._replace(at_least=None)]
    ).splitlines()
    assert [line.split()[-1] for line in lines] == ["yes", "NO", "x"]


def test_a_job_against_its_bare_steps_and_without_what_it_writes():
    bare, start, saving, writing = 1000.0, 1.5, 0.4, 0.2
    epoch = 640 / bare

    def job(epochs, besides):
        return 1 / (start + 3 * (epochs * epoch + besides))

    rates = {
        "bare": [bare],
        "job": [job(20, saving + writing)],
        "short": [job(1, saving + writing)],
    }
    rates |= {"no checkpoints": [job(1, writing)], "no results": [job(1, saving)]}
    found = {figure.what: figure.values[0] for figure in parts.job_figures(rates)}
    beyond, whole = start + 3 * (saving + writing), 1 / rates["job"][0]
    assert found == pytest.approx({
        "time, 8 lanes, 3 tasks of 20 epochs / bare steps": whole / (60 * epoch),
        "the job beyond its bare steps": beyond,
        "time, with checkpoints / without": whole / (whole - 3 * saving),
        "time, with results on disk / without": whole / (whole - 3 * writing),
        "time, tasks of 240 epochs (if an epoch is as bare steps) / bare steps":
            (beyond + 720 * epoch) / (720 * epoch),
    })  # fmt: skip


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
@pytest.mark.parametrize("part", sorted(set(parts.PARTS) - {"start", "figure", "costs", "slices"}))
def test_every_part_asks_for_work_there_is(part, backend, monkeypatch):
    rounds_run = []

    def alternate(competitors, rounds):
        for one in competitors.values():
            for work in one.works:
                settings = {name: value for name, value in work.settings.items() if name != "core"}
                fits(worker.WORK[work.kind], settings)
        rounds_run.append(rounds)
        return {name: [number + 1.0] * rounds for number, name in enumerate(competitors)}

    for module in (parts, further, barriers):
        monkeypatch.setattr(module, "alternate", alternate)
    for module in (parts, further):
        monkeypatch.setattr(module, "devices", lambda: rivals.Devices(backend, 2, "one"))
    figures = parts.PARTS[part](5)
    assert all(1 <= rounds <= 5 for rounds in rounds_run)
    assert all(figure.part == part and len(figure.values) in rounds_run for figure in figures)
    assert len({figure.what for figure in figures}) == len(figures)
    further_ones = ("one_lane", "acting", "mechanisms", "bit_flip", "vit", "trap")
    to_reach = (*parts.USUAL, *further_ones)
    assert any(figure.met is not None for figure in figures) == (part in to_reach)


def test_steps_of_whole_runs_are_those_of_a_long_one_beyond_a_short_one():
    start, rate = 7.0, {"none": 2e6, "continual_backprop": 1e6}
    rates = {"scan": [4e6], "autograd": [2e3], "by hand": [8e3], "compile": [0.2]}
    for method, speed in rate.items():
        for tasks in (barriers.SHORT, barriers.LONG):
            rates[f"{method} {tasks}"] = [1 / (start + tasks * 320_000 / speed)]
    found = [figure.values[0] for figure in barriers.bit_flip_figures(rates)]
    assert found == pytest.approx([2e6, 0.5, 1000, 250, 5, 2])


@pytest.mark.long
def test_slices_are_made_read_and_merged(monkeypatch):
    """With as few as there can be: what is called in the package is called as it is there."""
    for name, value in {"COUNT": 2, "LANES": 1, "TASKS": 1, "ROWS": 5}.items():
        monkeypatch.setattr(slices, name, value)
    files, *rest = parts.PARTS["slices"](1)
    assert files.values[0] > 5
    assert [figure.unit for figure in rest] == [*["ms"] * 4, "s"]
    assert all(figure.values[0] > 0 for figure in rest)


def test_costs_are_processor_time_in_turns_beside_what_they_are_measured_in(monkeypatch):
    clock, calls = [0.0], []

    def work(name, seconds):
        def call():
            calls.append(name)
            clock[0] += seconds

        return call

    monkeypatch.setattr(costs.time, "process_time", lambda: clock[0])
    found = costs.ratios(work("probe", 0.5), work("gradient", 0.125), turns=2, piece=0.25)
    assert found == [4, 4]
    first, second = ["gradient"] * 2 + ["probe"], ["probe"] + ["gradient"] * 2
    assert calls == ["probe", "gradient", *first, *second]


def test_the_table_of_costs_has_median_least_and_most(tmp_path):
    found = {"probes": {"ntk": [3.0, 1.0, 2.0]}, "methods": {"l2": [1.0421], "redo": [1.0]}}
    costs.write(found, "a machine, of a day", tmp_path / "costs.csv")
    assert (tmp_path / "costs.csv").read_text().splitlines() == [
        "part,kind,ratio,low,high,unit,machine",
        'ntk,probes,2,1,3,gradients,"a machine, of a day"',
        'l2,methods,1.04,1.04,1.04,steps,"a machine, of a day"',
        'redo,methods,1,1,1,"steps of 1,000 in which it acts once","a machine, of a day"',
    ]


@pytest.mark.long
def test_a_scan_of_plain_jax_learns_bit_flipping():
    go = online.scan(width=5, lanes=2, samples=300)
    assert go() == 600


def fits(work, settings):
    """Raises TypeError if the work cannot be called with the settings; looks through `lazily`."""
    if work.__closure__:
        module, name = (cell.cell_contents for cell in work.__closure__)
        needed = ["torch", "transformers"] if module.startswith("benchmarks.torch") else []
        needed += ["minatar"] if module == "benchmarks.torch_dqn" else []
        if not all(map(find_spec, needed)):
            return  # what comes with the extra `oracles` only
        work = getattr(__import__(module, fromlist=[name]), name)
    inspect.signature(work).bind(**settings)


def test_the_methods_part_has_every_method(monkeypatch):
    from plasticity_jax.methods import METHODS

    monkeypatch.setattr(
        parts, "alternate", lambda competitors, rounds: {name: [1.0] for name in competitors}
    )
    limits = {figure.what.split()[1]: figure.at_most for figure in parts.methods(1)}
    others = {name: 1.08 for name in METHODS if name not in ("none", *parts.REACH)}
    assert limits == parts.REACH | others


@pytest.mark.parametrize("method", ["shrink_and_perturb", "optimizer_reset", "feature_norm"])
def test_bare_steps_do_what_a_method_does_at_them_and_where_a_task_begins(method):
    """A step that is told to be no task's first as a constant would have the method compiled away,
    and one without the terms that a method adds to the loss would time nothing.
    """

    def trained(method, first):
        spec = Spec(width=4, depth=1, batch_size=4, probes=(), method=method)
        subject = jax_steps.Subject(spec, environments.random_labels(), worker.data(8))
        init, several, _ = jax_steps.pure(subject, 8, task=2)
        lane = {name: value[0] for name, value in lanes.stack([lanes.complete(spec, {})]).items()}
        clocks = jax.numpy.arange(first, first + 2)
        run = jax.jit(lambda lane, data: several(lane, init(lane, data), data, clocks)[0].params)
        return jax.flatten_util.ravel_pytree(run(lane, subject.data))[0]

    # steps 1 and 2: 2 begins a task
    plain, treated = (np.asarray(trained(one, first=1)) for one in ("none", method))
    assert np.abs(plain - treated).max() > 1e-5


def test_advantage_is_above_one_where_a_limit_is_kept():
    least, most = Figure("a", "b", [1.0], at_least=2.0), Figure("a", "b", [1.0], at_most=2.0)
    assert picture.advantage(least, 3.0) == 1.5
    assert picture.advantage(most, 4.0) == 0.5
    assert picture.advantage(least, -1.0) == 0
    assert picture.advantage(most, -1.0) == float("inf")
    both = Figure("a", "b", [1.0], at_least=1.0, at_most=3.0)
    assert picture.advantage(both, 2.0) == 1.5
    with pytest.raises(ValueError, match="nothing to reach"):
        picture.advantage(Figure("a", "b", [1.0]), 1.0)


def test_bars_show_what_is_met_and_what_is_missed():
    from matplotlib.colors import to_hex
    from matplotlib.figure import Figure as Canvas
    from matplotlib.patches import Rectangle

    axes = Canvas().add_subplot()
    picture._bar(axes, 0, Figure("mlp", "good", [2.0, 3.0, 4.0], at_least=2.0))
    picture._bar(axes, 1, Figure("mlp", "bad", [2.0, 4.0, 100.0], at_most=2.0))
    good, bad = (bar for bar in axes.patches if isinstance(bar, Rectangle))
    assert (good.get_x(), good.get_width()) == pytest.approx((1, 0.5))
    assert (bad.get_x(), bad.get_width()) == pytest.approx((1, -0.5))
    assert [to_hex(bar.get_facecolor()).upper() for bar in (good, bad)] == [
        picture.MET,
        picture.MISSED,
    ]
    assert good.get_hatch() is None
    assert bad.get_hatch() is not None
    ranges = [list(np.asarray(line.get_xdata())) for line in axes.lines]
    assert ranges == [[1, 2], [0.25, 1]]  # what lies beyond the axis is drawn at its end


CPUINFO = "processor\t: 0\nmodel\t\t: 85\nmodel name\t: Some @ 2.50GHz\nflags\t\t: fpu avx2 {}\n"


@pytest.mark.parametrize("name", against.PROGRAMS)
def test_a_program_that_is_measured_beside_another_commit_is_known(name):
    program = against.PROGRAMS[name]
    given = flags.runs(*flags.parse([*program.flags, "--epochs=1", "--tasks=1"]))
    ((spec, _),) = given
    assert spec.samples == program.steps * spec.batch_size


def test_a_step_is_what_a_long_command_takes_beyond_a_short_one(monkeypatch, capsys):
    """Here a start takes 5 s and a step 0.5, there 4 s and 0.25."""

    def seconds(root, program, epochs):
        start, step = (5, 0.5) if root == against.ROOT else (4, 0.25)
        return start + step * program.steps * (epochs - 1)

    ran = []
    monkeypatch.setattr(against, "processor_seconds", seconds)
    monkeypatch.setattr(against.subprocess, "run", lambda command, **_: ran.append(command))
    against.main("abc", 2)
    said = capsys.readouterr().out
    assert "T5, start: 5 s here, 4 there, ratio 1.250 [5, 4: 1.250]" in said
    assert "demo, step: 0.5 s here, 0.25 there, ratio 2.000 [0.5, 0.25: 2.000]" in said
    assert [one[4:6] for one in ran if one[0] == "git"] == [
        ["add", "--quiet"],
        ["remove", "--force"],
    ]


def test_a_command_that_fails_is_told():
    fails = against.Program(("--environment=nothing",), 2, 1)
    with pytest.raises(RuntimeError, match=r"nothing .* ended with 2 in "):
        against.processor_seconds(against.ROOT, fails, 1)


def test_the_processor_is_named_with_its_vectors():
    narrow, wide = CPUINFO.format("sse2"), CPUINFO.format("avx512f avx512dq")
    assert words.processor(narrow) == "Some @ 2.50GHz, model 85, AVX2"
    assert words.processor(wide + narrow).endswith(", AVX-512")
    with pytest.raises(KeyError):
        words.processor("processor\t: 0\n")


def test_command_prints_writes_and_draws(monkeypatch, tmp_path, capsys):
    def made_up(rounds):
        """Made-up figures."""
        return [
            Figure("made", "reached", [1.0] * rounds, at_most=2.0),
            Figure("made", "known", [5.0] * rounds, "s"),
        ]

    monkeypatch.setattr(command, "PARTS", {"made": made_up})
    monkeypatch.setattr(command, "machine", lambda: {"machine": "2 cores", "versions": "none"})
    written, drawn = tmp_path / "found.json", tmp_path / "found.png"
    monkeypatch.setattr(
        sys, "argv", ["x", "made", "--rounds=2", f"--json={written}", f"--picture={drawn}"]
    )
    command.main()
    printed = capsys.readouterr().out
    assert "at most 2.000" in printed
    assert re.fullmatch(r"took \d+ s", printed.splitlines()[-1])
    found = json.loads(written.read_text())
    assert [(row["median"], row["met"]) for row in found["figures"]] == [(1.0, True), (5.0, None)]
    assert drawn.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize(
    "arguments",
    [["nothing"], ["--rounds=0"], ["--precision=half"], ["--json=/no/such/folder/x.json"]],
)
def test_command_refuses_what_it_does_not_know(arguments, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["x", *arguments])
    with pytest.raises(SystemExit) as stopped:
        command.main()
    assert stopped.value.code == 2
    assert "allowed" in capsys.readouterr().err
