"""Streams of Lyle et al.: targets with an offset, composite changes, phases, and labels redrawn in
shares of one total; against their definitions in numpy.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny

from plasticity_jax.environments import (
    ENVIRONMENTS,
    composite,
    phased_shift,
    random_labels,
    target_offset,
)
from plasticity_jax.spec import Spec

pytestmark = pytest.mark.usefixtures("compiled_quickly")
KEY = jax.random.key(5)
DATA = tiny.data(60)
EVERYTHING = jnp.arange(60)


def drawn(environment, t, data=DATA):
    task = environment.task(KEY, data, jnp.int32(t))
    return environment.examples(data, task, jnp.arange(len(data.y)))


def plain(x):
    return (np.asarray(x, np.float64) - DATA.mean) / DATA.std


# --- target_offset ---


def network_by_hand(t, hidden):
    first, last = jax.random.split(jax.random.fold_in(KEY, t))
    weights = np.asarray(jax.random.normal(first, (9, hidden)), np.float64) / 3
    out = np.asarray(jax.random.normal(last, (hidden,)), np.float64) / hidden**0.5

    def of(x):
        return np.maximum(plain(x).reshape(len(x), -1) @ weights, 0) @ out

    return of


def standard(values, by):
    return (values - by.mean()) / by.std()


@pytest.mark.parametrize("targets", ["network", "frequency"])
@pytest.mark.long
def test_targets_are_of_a_random_network_at_any_offset_and_scale(targets):
    environment = target_offset(targets=targets, offset=-50.0, scale=2.0, hidden=7, frequency=3.0)
    for t in range(2):
        of = network_by_hand(t, 7)
        train, test = of(DATA.x), of(DATA.test_x)
        train, test = standard(train, train), standard(test, train)
        if targets == "frequency":
            train, test = np.sin(3 * train), np.sin(3 * test)
            train, test = standard(train, train), standard(test, train)
        task = environment.task(KEY, DATA, jnp.int32(t))
        found = environment.examples(DATA, task, EVERYTHING)
        np.testing.assert_allclose(found.y[:, 0], 2 * train - 50, atol=1e-4)
        np.testing.assert_allclose(found.x, plain(DATA.x), atol=1e-5)
        held_out = environment.test(DATA, task, jnp.arange(12))
        np.testing.assert_allclose(held_out.y[:, 0], 2 * test - 50, atol=1e-4)


@pytest.mark.parametrize(("later", "wanted"), [("same", 7.0), ("zero", 0.0)])
@pytest.mark.long
def test_random_labels_with_an_offset_that_stays_or_goes(later, wanted):
    environment = target_offset(targets="labels", offset=7.0, later=later)
    assert environment.test is None
    seen = []
    for t in range(3):
        y = np.asarray(drawn(environment, t).y)
        assert y.mean() == pytest.approx(7.0 if t == 0 else wanted, abs=1e-5)
        assert y.std() == pytest.approx(1, abs=1e-5)
        steps = np.diff(np.unique(y.round(4)))
        assert len(steps) == 3
        assert np.allclose(steps, steps[0], atol=1e-3)
        seen.append(y)
    assert not np.allclose(seen[1], seen[2])


def test_a_stationary_stage_and_then_a_task_at_a_time():
    schedule = target_offset(stationary=3).schedule
    stages = [schedule(number) for number in range(6)]
    assert [int(s.task) for s in stages] == [0, 0, 0, 1, 2, 3]
    assert [int(s.part) for s in stages] == [0, 1, 2, 0, 0, 0]
    traced = jax.jit(lambda n: schedule(n)[:2])(jnp.int32(4))
    assert [int(n) for n in traced] == [2, 0]


# --- composite ---


@pytest.mark.parametrize(
    ("settings", "changes"),
    [
        ({}, (True, True, True)),
        ({"mode": "continual"}, (True, True, False)),
        ({"mode": "growing"}, (False, False, True)),
        ({"inputs": False}, (False, True, True)),
        ({"labels": False}, (True, False, True)),
        ({"targets": False, "labels": False}, (True, False, False)),
    ],
)
def test_each_part_of_composite_is_a_switch(settings, changes):
    moves, redrawn, grows = changes
    environment = composite(growth=4.0, scale=0.5, **settings)
    for t in (0, 3):
        first, second = jax.random.split(jax.random.fold_in(KEY, t))
        order = np.asarray(jax.random.permutation(first, 9)) if moves else np.arange(9)
        label = np.asarray(jax.random.randint(second, (60,), 0, 4)) if redrawn else DATA.y
        found = drawn(environment, t)
        wanted = plain(DATA.x).reshape(60, 9)[:, order].reshape(60, 3, 3, 1)
        np.testing.assert_allclose(found.x, wanted, atol=1e-5)
        y = 0.5 * (label - 1.5) + (4.0 * t if grows else 0)
        np.testing.assert_allclose(found.y[:, 0], y, atol=1e-5)
    shared = "inputs" if not moves else "targets" if not (redrawn or grows) else "nothing"
    assert environment.shared == shared


@pytest.mark.long
def test_classes_change_places_as_a_whole():
    for environment in (composite(draw="classes", targets=False), random_labels(draw="classes")):
        y = np.asarray(drawn(environment, 2).y)
        rows = y if y.shape[1] == 1 else y.argmax(1)[:, None]
        by_class = [np.unique(rows[DATA.y == c]) for c in range(4)]
        assert all(len(values) == 1 for values in by_class)
        assert len(np.unique(by_class)) == 4


def test_an_answer_is_right_within_half_a_class():
    environment = composite(scale=2.0)
    batch = drawn(environment, 1)
    score = environment.metrics[0].of
    assert score(batch.y + 0.99, batch).all()
    assert not score(batch.y - 1.01, batch).any()


# --- phased_shift ---


@pytest.mark.long
def test_a_phase_has_its_own_frequencies_light_and_background():
    data = tiny.data(4000)
    environment = phased_shift(shift=0.3, skew=1.0)
    task = environment.task(KEY, data, jnp.int32(2))
    own = jax.random.split(jax.random.fold_in(KEY, 2), 6)
    weight = np.exp(np.asarray(jax.random.normal(own[0], (4,)), np.float64))
    batch = environment.examples(data, task, jnp.arange(4000))
    share = np.asarray(batch.y).mean(0)
    np.testing.assert_allclose(share, weight / weight.sum(), atol=0.03)
    gain, level = (np.asarray(jax.random.normal(own[i], (1,))) for i in (3, 4))
    background = np.asarray(jax.random.normal(own[5], (3, 3, 1)))
    raw = (data.x[np.asarray(task.rows)] - data.mean) / data.std
    wanted = np.exp(0.3 * gain) * raw + 0.3 * (level + background)
    np.testing.assert_allclose(batch.x, wanted, atol=1e-4)
    assert np.array_equal(np.asarray(batch.y).argmax(1), data.y[np.asarray(task.rows)])
    held_out = environment.test(data, task, jnp.arange(12))
    assert held_out.x.shape == (12, 3, 3, 1)


@pytest.mark.long
def test_no_shift_and_no_skew_are_no_change():
    found = drawn(phased_shift(shift=0.0, skew=0.0), 3)
    rows = np.asarray(found.x).reshape(60, 9)
    known = plain(DATA.x).reshape(60, 9)
    assert (np.abs(rows[:, None] - known[None]).max(2).min(1) < 1e-5).all()


# --- shares of labels, one total of changes ---


@pytest.mark.parametrize(("share", "every"), [(0.01, 1), (0.1, 10), (0.25, 25), (1.0, 100)])
@pytest.mark.long
def test_shares_and_periods_of_one_ratio_redraw_as_many_labels(share, every):
    """Over 100 changes each label is drawn anew once: a small share comes as much more often."""
    environment = random_labels(share=share, every=every, draw="iid")
    key = jax.jit(lambda t: environment.task(KEY, DATA, t))
    start = np.asarray(random_labels(draw="iid").task(KEY, DATA, jnp.int32(0)))
    end = np.asarray(random_labels(draw="iid").task(KEY, DATA, jnp.int32(1)))
    np.testing.assert_array_equal(key(jnp.int32(0)), start)
    np.testing.assert_array_equal(key(jnp.int32(100)), end)
    half = np.asarray(key(jnp.int32(99 if share < 1 else 50)))
    changed = half != start
    if share < 1:
        assert (half[changed] == end[changed]).all()
    else:
        assert not changed.any()


REFUSED = [
    (
        "target_offset", {"targets": "x"},
        "target_offset.targets is 'x': allowed are 'network', 'labels', 'frequency'.",
    ),
    ("target_offset", {"later": "x"}, "target_offset.later is 'x': allowed are 'same', 'zero'."),
    (
        "target_offset", {"stationary": 0},
        "target_offset.stationary is 0: allowed are whole numbers from 1.",
    ),
    (
        "composite", {"mode": "x"},
        "composite.mode is 'x': allowed are 'composite', 'continual', 'growing'.",
    ),
    ("composite", {"labels": 1}, "composite.labels is 1: allowed are True and False."),
    ("composite", {"draw": "x"}, "composite.draw is 'x': allowed are 'iid', 'classes'."),
    ("phased_shift", {"skew": -1}, "phased_shift.skew is -1: allowed are numbers from 0 on."),
]  # fmt: skip


@pytest.mark.parametrize(("factory", "settings", "message"), REFUSED)
def test_settings_that_are_refused(factory, settings, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        ENVIRONMENTS[factory](**settings)


@pytest.mark.long
def test_numbers_are_not_mixed_through_uniform_ones():
    with pytest.raises(ValueError, match="targets that are distributions, but those of"):
        Spec(environment="target_offset", transition="output")
