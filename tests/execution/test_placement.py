"""How lanes are placed on devices, and that this does not change what they compute."""

import dataclasses
import functools

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny

from plasticity_jax import lanes
from plasticity_jax.execution import compiled as compiled_
from plasticity_jax.execution import placement, tasks
from plasticity_jax.execution import program as program_
from plasticity_jax.execution.placement import Execution
from plasticity_jax.models import MODELS
from plasticity_jax.training import supervised

DATA = tiny.data()
SPEC = tiny.spec(optimizer="momentum", norm="layer")
FOUR = lanes.grid(seed=[0, 1], granularity=[1, 3])
TASKS = 2


@functools.cache
def compiled(spec, how: Execution):
    """Init and task of a Spec for a lane axis of any length, compiled at first use."""
    run = supervised.make_run(spec)
    parts = (
        placement.over_lanes(run.init, how, split=1),
        placement.over_lanes(run.run_task, how, split=2),
    )
    return parts if how.strategy == "plain" else tuple(map(jax.jit, parts))


def as_bytes(result) -> bytes:
    return b"".join(leaf.tobytes() for leaf in jax.tree.leaves(result))


def results(given, strategy: str, width: int = 1, devices: int = 1, spec=SPEC) -> list:
    """Everything that each lane ends with: (train state, metrics of each task)."""
    how = Execution(strategy, width, devices)
    checked = lanes.check(spec, given, len(DATA.x))
    filled = [*checked, *checked[-1:] * (placement.padded(len(checked), how) - len(checked))]
    where = placement.placement(how)
    numbers, data = (
        jax.device_put(lanes.stack(filled), where.lanes),
        jax.device_put(DATA, where.shared),
    )
    init, run_task = compiled(spec, how)
    states, metrics = init(numbers, data), []
    for task in range(TASKS):
        states, found = run_task(numbers, states, data, jnp.int32(task))
        metrics.append(found)
    whole = jax.tree.map(np.asarray, (states, metrics))
    return [jax.tree.map(lambda leaf, i=i: leaf[i], whole) for i in range(len(checked))]


@pytest.mark.parametrize(
    ("count", "how", "total"),
    [
        (3, Execution("plain", 1, 1), 3),
        (3, Execution("vmap", 2, 1), 4),
        (4, Execution("vmap", 2, 1), 4),
        (3, Execution("sharded", 1, 2), 4),
        (5, Execution("sharded", 2, 2), 8),
        (1, Execution("vmap", 64, 1), 64),
    ],
)
def test_padding_fills_all_devices(count, how, total):
    assert placement.padded(count, how) == total


def test_execution_by_default_and_by_choice():
    assert jax.local_device_count() == 2, "these tests are made for two devices"
    assert placement.execution("mlp", 5) == Execution("sharded", 1, 2)
    # a second device would only compute padding
    assert placement.execution("mlp", 1) == Execution("sharded", 1, 1)
    assert placement.execution("mlp", 3, width=2) == Execution("sharded", 2, 2)
    assert placement.execution("mlp", 5, "map") == Execution("map", 1, 1)
    assert placement.execution("mlp", 5, "plain") == Execution("plain", 1, 1)
    assert placement.execution("mlp", 5, "vmap", 3) == Execution("vmap", 3, 1)


def test_a_default_width_is_no_larger_than_a_devices_share_of_the_lanes():
    assert placement.execution("mlp", 600, backend="gpu") == Execution("sharded", 256, 2)
    assert placement.execution("mlp", 5, backend="gpu") == Execution("sharded", 3, 2)
    assert placement.execution("mlp", 1, backend="gpu") == Execution("sharded", 1, 1)
    assert placement.execution("mlp", 5, "vmap") == Execution("vmap", 5, 1)
    assert placement.execution("mlp", 50, "vmap") == Execution("vmap", 8, 1)
    assert placement.execution("mlp", 5, width=64, backend="gpu") == Execution(
        "sharded", 64, 1
    )  # given, so left as it is
    assert placement.execution("mlp", 2, "vmap", 8) == Execution("vmap", 8, 1)
    # a model of one's own uses all devices
    assert placement.execution("mine", 5) == Execution("sharded", 1, 2)
    assert {model for _, model in placement.STRATEGY_TABLE} >= set(MODELS)


# How lanes are run does not change what they compute


def test_strategies_agree():
    one = results(FOUR, "map")
    assert len(set(map(as_bytes, one))) == 4
    for how in (("plain", 1, 1), ("sharded", 1, 1), ("sharded", 1, 2)):
        assert list(map(as_bytes, results(FOUR, *how))) == list(map(as_bytes, one))
    two = results(FOUR, "vmap", 2)
    # Wider than one, XLA orders sums otherwise, and simplifies a program for two devices otherwise
    # (x / c or x * (1 / c)).
    for other in (two, results(FOUR, "sharded", 2, 2)):
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-6)


def test_width_one_is_one_program_under_two_names():
    def double(lane, shared):
        return 2 * lane * shared

    programs = [
        jax.make_jaxpr(placement.over_lanes(double, Execution(name, 1, 1), split=1))(
            jnp.ones(3), jnp.ones(())
        )
        for name in ("vmap", "map")
    ]
    assert str(programs[0]) == str(programs[1])


@pytest.mark.parametrize(
    ("strategy", "width", "devices"), [("sharded", 1, 2), ("vmap", 2, 1), ("sharded", 2, 2)]
)
def test_company_does_not_change_a_lanes_bits(strategy, width, devices):
    how = strategy, width, devices
    want = {
        str(lane): as_bytes(result) for lane, result in zip(FOUR, results(FOUR, *how), strict=True)
    }
    wild, wilder = ({"seed": 4, "learning_rate": rate} for rate in (1e30, 1e31))
    companies = [
        FOUR[::-1],  # order
        [FOUR[2], FOUR[0], FOUR[3], FOUR[1]],
        [wild, FOUR[1], FOUR[3], wilder],  # neighbours, diverging ones
        FOUR[:3],  # padding
        [{"seed": 9}, *FOUR, wild, wilder],  # more lanes in all, and padding
    ]
    for company in companies:
        for lane, (state, metrics) in zip(company, results(company, *how), strict=True):
            finite = [bool(of_task["finite"]) for of_task in metrics]
            assert finite == [lane not in (wild, wilder)] * TASKS
            assert as_bytes((state, metrics)) == want.get(str(lane), as_bytes((state, metrics)))


def test_abrupt_lanes_are_the_same_under_every_transition():
    abrupt = lanes.grid(seed=range(4))
    output, sampling = (
        results(abrupt, "sharded", 1, 2, dataclasses.replace(SPEC, transition=name))
        for name in ("output", "sampling")
    )
    assert list(map(as_bytes, output)) == list(map(as_bytes, sampling))


# One program for all lanes and tasks


@pytest.mark.parametrize(("strategy", "width"), [("plain", 1), ("sharded", 2)])
def test_one_trace_and_one_compilation_for_all_lanes_and_tasks(monkeypatch, strategy, width):
    traces, compilations, seen = [], [], []

    def counted(spec):
        run = supervised.make_run(spec)

        def run_task(*arguments):
            traces.append(spec)
            return run.run_task(*arguments)

        return supervised.Run(run.init, run_task)

    def listen(event, duration, **_):
        del duration
        if event == "/jax/core/compile/backend_compile_duration":
            compilations.append(event)

    monkeypatch.setattr(compiled_, "make_run", counted)
    (program,) = program_.plan([(tiny.spec(tasks=4), [*FOUR, {"seed": 7}])], 64, strategy, width)
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        kept = tasks.Safekeeping(report=lambda history: seen.append(len(compilations)))
        history = tasks.run_program(program, DATA, kept)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert len(traces) == 1
    assert len(seen) == 5  # before the first task and after each of four
    assert seen[0] < seen[1] == seen[4]
    assert history["loss"].shape == (4, 5)


@pytest.mark.parametrize("model", ["mlp", "cnn", "resnet18"])
def test_less_optimisation_draws_the_same_bits(model):
    spec = tiny.spec(model=model, options={"resnet18.base": 8} if model == "resnet18" else {})
    given = lanes.stack([lanes.complete(spec, lane) for lane in FOUR])
    init = placement.over_lanes(supervised.make_run(spec).init, Execution("map", 1, 1), split=1)
    assert as_bytes(placement.jit_once(init)(given, DATA)) == as_bytes(jax.jit(init)(given, DATA))


@pytest.mark.parametrize("method", ["none", "spectral"])
def test_a_sweep_starts_from_the_bits_of_a_plain_program(method):
    spec = tiny.spec(method=method)
    program = program_.plan([(spec, FOUR)], len(DATA.x), "map")[0]
    init = placement.over_lanes(supervised.make_run(spec).init, program.execution, split=1)
    given = lanes.stack(list(program.lanes))
    assert as_bytes(compiled_.compile_program(program, DATA).init()) == as_bytes(
        jax.jit(init)(given, DATA)
    )


def test_options_that_this_xla_does_not_know_are_left_out(monkeypatch):
    assert placement.options("mlp") == placement.OPTIONS_TABLE["cpu", "mlp"]
    assert placement.options("resnet18") is None
    monkeypatch.setitem(placement.OPTIONS_TABLE, ("cpu", "mlp"), {"xla_no_such_option": True})
    assert placement.options("mlp") is None


def test_options_of_a_model_come_before_those_of_every_model(monkeypatch):
    every = {"xla_backend_optimization_level": 1}
    monkeypatch.setitem(placement.OPTIONS_TABLE, ("cpu", placement.ANY), every)
    assert placement.options("resnet18") == placement.options("own.py's") == every
    assert placement.options("mlp") == placement.OPTIONS_TABLE["cpu", "mlp"]
    monkeypatch.setitem(placement.OPTIONS_TABLE, ("cpu", "mlp"), {})
    assert placement.options("mlp") is None


def test_an_mlp_that_sees_one_example_a_step_is_a_row_of_its_own():
    assert placement.kind(tiny.spec(batch_size=1)) == "mlp online"
    assert placement.kind(tiny.spec(batch_size=2)) == "mlp"
    assert placement.execution("mlp online", 64) == Execution("sharded", 32, 2)


def test_a_width_that_is_no_number_is_refused():
    with pytest.raises(ValueError) as error:
        placement.execution("mlp", 5, width="4")
    assert str(error.value) == "lane_width is '4': allowed are whole numbers from 0."
