import dataclasses
import functools
import itertools

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
from plasticity_jax.stream import keys as keys_
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


# Grids and stacks


def test_grid_is_the_product_with_the_last_axis_fastest():
    assert lanes.grid(seed=range(2), granularity=[1, 5]) == [
        {"seed": 0, "granularity": 1},
        {"seed": 0, "granularity": 5},
        {"seed": 1, "granularity": 1},
        {"seed": 1, "granularity": 5},
    ]
    assert lanes.grid(seed=3, **{"l2.strength": np.array([0.5])}) == [
        {"seed": 3, "l2.strength": 0.5}
    ]
    assert lanes.grid() == [{}]
    assert lanes.grid(seed=[]) == []
    assert lanes.grid(seed=(i for i in range(2))) == [{"seed": 0}, {"seed": 1}]


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        ({}, {"granularity": 1}, r"^a lane is given twice: "),
        (
            {"learning_rate": 0.1},
            {"learning_rate": float(np.float32(0.1))},
            r"^a lane with learning_rate 0\.1.* is the same",
        ),
        (
            {"learning_rate": 0.1},
            {"learning_rate": 0.10000000001},
            r"^a lane with learning_rate 0\.10000000001 is the same",
        ),
        (
            {},
            {"transition_fraction": 0.5},
            r"^a lane with transition_fraction 0\.5 is the same run as one before it: ",
        ),
    ],
)
def test_the_same_run_is_refused_in_python(first, second, told):
    with pytest.raises(ValueError, match=told):
        lanes.check(SPEC, [first, second], 64)
    # what is recorded is what was given
    assert lanes.check(SPEC, [second], 64)[0].items() >= second.items()


def test_an_abrupt_change_under_two_transitions_is_refused_in_python():
    sampling = dataclasses.replace(SPEC, transition="sampling")
    told = r"^a lane with transition sampling is the same run as one before it: .*\.$"
    with pytest.raises(ValueError, match=told):
        program_.plan([(SPEC, [{"granularity": 2}, {}]), (sampling, [{}])], 64)
    assert (
        len(program_.plan([(SPEC, [{"granularity": 2}]), (sampling, [{"granularity": 2}, {}])], 64))
        == 2
    )
    assert lanes.check(
        SPEC, [{"granularity": 2}, {"granularity": 2, "transition_fraction": 0.5}], 64
    )
    assert lanes.check(
        SPEC,
        [{"learning_rate": 0.1}, {"learning_rate": float(np.nextafter(np.float32(0.1), 1))}],
        64,
    )


@pytest.mark.parametrize(
    ("settings", "one", "two"),
    [
        ({}, {"random_labels.share": 0.5}, {"random_labels.share": 1.0}),
        ({"method": "redo"}, {"redo.threshold": 0.1}, {"redo.threshold": 5.0}),
        ({"method": "shrink_and_perturb"}, {}, {"shrink_and_perturb.shrink": 0.5}),
    ],
)
def test_numbers_of_what_never_acts_change_no_run(settings, one, two):
    made = dataclasses.replace(SPEC, **settings)
    part = settings.get("method", "random_labels")
    if settings:
        made = dataclasses.replace(made, options={f"{part}.period": "never"})
    never = {} if settings else {"random_labels.every": 2**31 - 1}
    with pytest.raises(ValueError, match=r"is the same run as one before it: .* that never acts"):
        lanes.check(made, [{**one, **never}, {**two, **never}], 64)


def test_stack_has_a_lane_axis_and_fixed_dtypes():
    checked = lanes.check(SPEC, [{"seed": 2**31 - 1}, {"learning_rate": 1, "granularity": 5}], 64)
    stacked = lanes.stack(checked)
    assert list(stacked) == list(checked[0])
    for name, values in stacked.items():
        assert values.shape == (2,)
        assert values.dtype == (
            np.int32 if name in ("seed", "granularity", "random_labels.every") else np.float32
        )
    assert stacked["seed"].tolist() == [2**31 - 1, 0]
    assert stacked["learning_rate"].tolist() == [np.float32(1e-3), 1]


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
        history = tasks.run_program(
            program, DATA, report=lambda history: seen.append(len(compilations))
        )
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


def test_lanes_with_one_seed_share_tasks_and_initial_weights():
    run = supervised.make_run(SPEC)
    stacked = lanes.stack(lanes.check(SPEC, lanes.grid(seed=[3, 4], granularity=[1, 2]), 64))
    states = jax.jit(jax.vmap(run.init, (0, None)))(stacked, DATA)
    for leaf in map(np.asarray, jax.tree.leaves(states.params)):
        np.testing.assert_array_equal(leaf[0], leaf[1])
    assert (
        np.asarray(states.params["layer0"]["kernel"][0]) != states.params["layer0"]["kernel"][2]
    ).all()
    keys = [keys_.role(jax.random.key(seed), keys_.INIT) for seed in (3, 3, 4)]
    assert keys[0] == keys[1] != keys[2]


# What is no grid


def test_grids_and_stacks_refuse_in_a_sentence():
    cases = [
        (
            lambda: lanes.grid(learning_rate="1e-3"),
            "learning_rate is '1e-3': allowed are finite numbers.",
        ),
        (
            lambda: lanes.grid(learning_rate=["1e-3"]),
            "learning_rate is '1e-3': allowed are finite numbers.",
        ),
        (
            lambda: lanes.grid(speed=1),
            "number 'speed' is known of no part: known are seed, granularity, learning_rate, "
            "transition_fraction, and numbers of parts as l2.strength.",
        ),
        (
            lambda: lanes.grid(**{"l3.strength": 1}),
            "number 'l3.strength' is known of no part: known are seed, granularity, learning_rate, "
            "transition_fraction, and numbers of parts as l2.strength.",
        ),
        (lambda: lanes.grid(seed=True), "seed is True: allowed are finite numbers."),
        (lambda: lanes.grid(seed={0: 1}), "seed is {0: 1}: allowed are finite numbers."),
        (lambda: lanes.grid(seed=[[0, 1]]), "seed is [0, 1]: allowed are finite numbers."),
        (
            lambda: lanes.grid(seed=itertools.count()),
            "seed has more than 100,000 values: allowed are at most so many lanes.",
        ),
        (
            lambda: lanes.grid(seed=range(1000), granularity=range(1, 1001)),
            "a grid of 1000 x 1000 lanes is given: allowed are at most 100,000.",
        ),
        (
            lambda: lanes.stack([]),
            "there are no lanes: give at least one, e.g. grid(seed=range(5)).",
        ),
        (
            lambda: lanes.stack([{"seed": 0, "granularity": 1}, {"seed": 1}]),
            "a lane lacks granularity: allowed are lanes",
        ),
        (
            lambda: lanes.stack([{"seed": 0}, {"sed": 1}]),
            "number 'sed' fits no part of this run: known are seed.",
        ),
        (
            lambda: lanes.stack({"seed": 0}),
            "lanes is {'seed': 0}: allowed is a list of lanes, as grid() makes.",
        ),
        (lambda: lanes.stack([{"seed": 2**31}]), "seed is 2147483648: allowed is 0 to 2147483647."),
        (
            lambda: placement.execution("mlp", 5, width="4"),
            "lane_width is '4': allowed are whole numbers from 0.",
        ),
    ]
    for call, told in cases:
        with pytest.raises(ValueError) as error:
            call()
        assert str(error.value).startswith(told)


def test_a_grid_may_be_traced():
    traced = jax.jit(
        lambda rate: lanes.grid(learning_rate=rate, seed=[0, 1])[1]["learning_rate"] * 2
    )
    assert traced(0.5) == 1
