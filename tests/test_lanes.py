"""The numbers of lanes: their grids, what is refused, and what lanes of one seed share."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest
from helpers import tiny

from plasticity_jax import lanes
from plasticity_jax.execution import program as program_
from plasticity_jax.stream import keys as keys_
from plasticity_jax.training import supervised

DATA = tiny.data()
SPEC = tiny.spec(optimizer="momentum", norm="layer")


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
