from fractions import Fraction
from math import ceil, floor

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plasticity_jax.environments import ENVIRONMENTS, random_labels
from plasticity_jax.spec import Spec
from plasticity_jax.stream import order
from plasticity_jax.stream.transitions import TRANSITIONS, alpha_at, transition_steps
from plasticity_jax.types import Batch

pytestmark = pytest.mark.usefixtures("compiled_quickly")

# one step after another, as in a task, and all steps at once, which XLA computes as a product with
# 1 / granularity
alphas = jax.jit(
    lambda at, steps, granularity: jax.lax.map(lambda step: alpha_at(step, steps, granularity), at)
)
together = jax.jit(jax.vmap(alpha_at, (0, None, None)))


def exact(step: int, steps: int, granularity: int) -> np.float32:
    """Which of K equal plateaus `step` lies on, in whole numbers without a limit, then one division
    in float32.
    """
    plateau = floor(Fraction(step, steps) * granularity) + 1 if step < steps else granularity
    return np.float32(plateau) / np.float32(granularity)


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 20, 97])
def test_alpha_equals_exact_arithmetic(steps):
    for granularity in range(1, steps + 1):  # K = 1, K = steps, and all that do not divide
        got = np.asarray(alphas(jnp.arange(steps + 4), steps, granularity))
        assert got.dtype == np.float32
        want = [exact(step, steps, granularity) for step in range(steps + 4)]
        np.testing.assert_array_equal(got, want)
        got = np.asarray(together(jnp.arange(steps + 4), steps, granularity))
        np.testing.assert_array_max_ulp(got, np.array(want), maxulp=1)
        # in the stable phase, not nearly
        np.testing.assert_array_equal(got == 1, np.array(want) == 1)


@pytest.mark.parametrize(
    ("steps", "granularity"),
    [
        (2**16, 2**16 - 1),
        (2**16 - 1, 2**16),
        (2**31 - 1, 2),
        (19_200, 223_696),
        (2**24 + 1, 255),
        (2**32 - 1, 1),
    ],
)
def test_alpha_is_exact_up_to_the_limit(steps, granularity):
    assert 2**32 - 2**25 < steps * granularity < 2**32
    edges = [
        ceil(Fraction(steps * plateau, granularity))
        for plateau in (1, 2, granularity // 2, granularity - 1)
    ]
    at = {
        0,
        1,
        steps - 2,
        steps - 1,
        steps,
        steps + 1,
        2**32 - 1,
        *edges,
        *(edge - 1 for edge in edges),
    }
    at = sorted(step for step in at if 0 <= step < 2**32)
    got = alphas(np.array(at, np.uint32), np.uint32(steps), np.uint32(granularity))
    np.testing.assert_array_equal(got, [exact(step, steps, granularity) for step in at])


@settings(max_examples=60, deadline=None)
@given(steps=st.integers(1, 300), granularity=st.integers(1, 300))
def test_plateaus_are_equal_and_rise_evenly(steps, granularity):
    granularity = min(granularity, steps)
    got = np.asarray(alphas(jnp.arange(301), steps, granularity))
    levels, lengths = np.unique(got[:steps], return_counts=True)
    np.testing.assert_array_equal(
        levels, np.arange(1, granularity + 1, dtype=np.float32) / np.float32(granularity)
    )
    assert np.ptp(lengths) <= 1
    assert (np.diff(got) >= 0).all()
    assert (got[steps:] == 1).all()


def test_no_transition_and_no_granularity_are_one_throughout():
    for steps, granularity in [(0, 1), (0, 5), (9, 1)]:
        assert (np.asarray(alphas(jnp.arange(12), steps, granularity)) == 1).all()


@settings(max_examples=60, deadline=None)
@given(fraction=st.floats(0, 1, width=32), steps=st.integers(1, 2**20))
def test_transition_length_is_the_same_before_and_inside_a_program(fraction, steps):
    before = transition_steps(np.float32(fraction), steps)
    inside = jax.jit(transition_steps)(jnp.float32(fraction), steps)
    assert before.dtype == inside.dtype == np.float32
    assert int(before) == int(inside)
    assert abs(int(before) - Fraction(fraction) * steps) <= Fraction(1, 2) + Fraction(steps, 2**23)


def pair(seed: int = 0, size: int = 12, classes: int = 5) -> tuple[Batch, Batch]:
    """Two batches that share nothing."""
    random = np.random.default_rng(seed)

    def one():
        onehot = np.eye(classes, dtype=np.float32)[random.integers(0, classes, size)]
        x, weight = random.normal(size=(size, 3, 2, 1)), random.integers(0, 2, size)
        return Batch(jnp.float32(x), jnp.asarray(onehot), jnp.float32(weight))

    return one(), one()


@pytest.mark.parametrize("alpha", [0.05, 0.25, 0.45, 0.5, 0.55, 0.75, 0.95, 1.0])
def test_formulas(alpha):
    old, new = pair()
    rank = (np.arange(12) + 0.5) / 12
    a, uniform = np.float64(np.float32(alpha)), 1 / 5
    got = {
        name: t.mix(old, new, jnp.float32(alpha), jnp.float32(rank))
        for name, t in TRANSITIONS.items()
    }
    if alpha <= 0.5:
        target = (1 - 2 * a) * np.float64(old.y) + 2 * a * uniform
    else:
        target = (2 - 2 * a) * uniform + (2 * a - 1) * np.float64(new.y)
    np.testing.assert_allclose(got["output"].y, target, rtol=0, atol=2e-7)
    np.testing.assert_allclose(got["output"].y.sum(1), 1, rtol=0, atol=3e-7)
    np.testing.assert_array_equal(got["output"].x, new.x)
    np.testing.assert_allclose(
        got["input"].x, (1 - a) * np.float64(old.x) + a * np.float64(new.x), rtol=0, atol=1e-6
    )
    np.testing.assert_array_equal(got["input"].y, new.y)
    constant = got["smoothing"]
    np.testing.assert_array_equal(constant.x, new.x)
    want = np.float64(new.y) if alpha == 1 else (np.float64(new.y) + uniform) / 2
    np.testing.assert_allclose(constant.y, want, rtol=0, atol=1e-7)
    annealed = got["annealing"]
    np.testing.assert_array_equal(annealed.x, new.x)
    np.testing.assert_allclose(annealed.y, a * np.float64(new.y) + (1 - a) / 5, rtol=0, atol=1e-7)
    of_new = rank < a
    for field in ("x", "y", "weight"):
        mixed, parts = (
            getattr(got["sampling"], field),
            [np.asarray(getattr(side, field)) for side in (new, old)],
        )
        want = np.stack([parts[0][i] if of_new[i] else parts[1][i] for i in range(12)])
        np.testing.assert_array_equal(mixed, want)
    assert got["abrupt"] is new
    np.testing.assert_array_equal(got["output"].weight, new.weight)
    np.testing.assert_array_equal(got["input"].weight, new.weight)


@pytest.mark.parametrize("granularity", [2, 4, 20, 100])
def test_constant_smoothing_is_as_soft_as_output_interpolation_on_the_mean(granularity):
    alpha = np.arange(1, granularity + 1) / granularity
    uniform_share = 1 - np.abs(1 - 2 * alpha)
    assert uniform_share.mean() == pytest.approx(0.5)


def test_annealed_smoothing_worked_by_hand():
    # four classes, K = 4: new targets at 1/4, 1/2, 3/4, 1 of themselves, the rest uniform; the old
    # task is nowhere
    old = Batch(jnp.zeros((1, 2)), jnp.float32([[1, 0, 0, 0]]), jnp.ones(1))
    new = Batch(jnp.ones((1, 2)), jnp.float32([[0, 0, 1, 0]]), jnp.ones(1))
    at = [alpha_at(step, 8, 4) for step in (0, 2, 4, 6, 8)]
    got = [TRANSITIONS["annealing"].mix(old, new, a, jnp.zeros(1)) for a in at]
    small, large = [3 / 16, 1 / 8, 1 / 16, 0, 0], [7 / 16, 5 / 8, 13 / 16, 1, 1]
    want = [[[s, s, b, s]] for s, b in zip(small, large, strict=True)]
    np.testing.assert_array_equal([g.y for g in got], want)
    for g in got:
        np.testing.assert_array_equal(g.x, new.x)


def test_output_interpolation_passes_through_uniform_and_meets_itself_there():
    old, new = pair()
    mix = TRANSITIONS["output"].mix
    at, below = (
        mix(old, new, jnp.float32(a), jnp.zeros(12)).y
        for a in (0.5, np.nextafter(np.float32(0.5), 0))
    )
    np.testing.assert_allclose(at, 0.2, rtol=0, atol=1e-7)
    np.testing.assert_allclose(below, 0.2, rtol=0, atol=2e-7)


@pytest.mark.parametrize("name", TRANSITIONS)
@pytest.mark.parametrize("compiled", [False, True])
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_one_is_the_new_task_bit_for_bit(name, compiled, seed):
    old, new = pair(seed)
    rank = jnp.float32(np.random.default_rng(seed).uniform(size=12))
    mix = MIXES[name] if compiled else TRANSITIONS[name].mix
    got = mix(old, new, jnp.float32(1), rank)
    for left, right in zip(jax.tree.leaves(got), jax.tree.leaves(new), strict=True):
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(
            np.asarray(left).view(np.uint32), np.asarray(right).view(np.uint32)
        )


MIXES = {name: jax.jit(transition.mix) for name, transition in TRANSITIONS.items()}


def of_new(places: np.ndarray, samples: int, alpha: np.float32) -> np.ndarray:
    """Which examples task sampling takes from the new task, as `order.batch` asks for them: bool
    like `places`.
    """
    marks = [Batch(*(jnp.full(places.size, value) for _ in range(3))) for value in (0.0, 1.0)]
    rank = (jnp.asarray(places).reshape(-1) + 0.5) / samples
    return np.asarray(MIXES["sampling"](*marks, alpha, rank).x).reshape(places.shape) == 1


def rounded(alpha: Fraction, samples: int) -> set[int]:
    """round(alpha n); of two whole numbers equally near, either."""
    return {ceil(alpha * samples - Fraction(1, 2)), floor(alpha * samples + Fraction(1, 2))}


EPOCHS = jax.jit(order.epoch, static_argnums=(1, 2))


@pytest.mark.parametrize(
    ("samples", "batch_size"), [(64, 16), (60, 5), (64, 64), (48, 1), (5120, 64)]
)
def test_sampling_shares_are_exact(samples, batch_size):
    for granularity in (1, 2, 3, 7, 20):
        before = np.zeros(samples, bool)
        for plateau in range(1, granularity + 1):
            alpha = Fraction(plateau, granularity)
            places = np.asarray(EPOCHS(jax.random.key(3), samples, batch_size, 1, plateau))
            new = of_new(places, samples, np.float32(plateau) / np.float32(granularity))
            assert new.sum() in rounded(alpha, samples)
            assert set(new.sum(axis=1)) <= {floor(alpha * batch_size), ceil(alpha * batch_size)}
            now = np.zeros(samples, bool)
            now[places[new]] = True
            assert now[before].all()  # nested: who has changed over stays
            before = now
        assert before.all()


@pytest.mark.parametrize(("samples", "batch_size"), [(67, 16), (100, 64), (1437, 64), (31, 4)])
def test_sampling_shares_are_exact_where_examples_sit_out(samples, batch_size):
    for granularity in (2, 3, 20):
        for plateau in range(1, granularity + 1):
            alpha = Fraction(plateau, granularity)
            share = np.float32(plateau) / np.float32(granularity)
            assert of_new(np.arange(samples), samples, share).sum() in rounded(alpha, samples)
            places = np.asarray(EPOCHS(jax.random.key(3), samples, batch_size, 1, plateau))
            new = of_new(places, samples, share)
            assert set(new.sum(axis=1)) <= {floor(alpha * batch_size), ceil(alpha * batch_size)}


# What transitions need of targets


@pytest.mark.parametrize("name", ["output", "input", "smoothing", "annealing"])
def test_tasks_in_which_other_outputs_count_are_not_mixed(name):
    old, new = pair(0)
    counting = new._replace(active=jnp.ones(new.y.shape, bool))
    for both in ((old, counting), (counting, old), (counting, counting)):
        with pytest.raises(ValueError, match=f"transition {name} mixes tasks in which other outp"):
            TRANSITIONS[name].mix(*both, jnp.float32(0.5), jnp.ones(12))


def test_task_sampling_takes_outputs_that_count_from_both_or_none():
    old, new = pair(0)
    counting = new._replace(active=jnp.ones(new.y.shape, bool))
    with pytest.raises(ValueError, match="sampling is given `active` of one of two batches"):
        TRANSITIONS["sampling"].mix(old, counting, jnp.float32(0.5), jnp.ones(12))


REGRESSION = random_labels()._replace(targets="values")


@pytest.mark.parametrize("name", ["output", "smoothing", "annealing"])
@pytest.mark.long
def test_targets_that_are_no_distributions_are_not_mixed_with_uniform_ones(name):
    with pytest.raises(ValueError) as error:
        order.make_stream(REGRESSION, name, 16, 2)
    assert str(error.value) == (
        f"transition {name!r} needs targets that are distributions, but those of this environment "
        "are values: allowed are "
        "sampling, abrupt."
    )
    # also where an environment does not say so
    for y in (jnp.ones((4, 1)), jnp.ones((4, 3), int), jnp.ones(4)):
        both = Batch(jnp.ones((4, 2)), y, jnp.ones(4))
        with pytest.raises(
            ValueError,
            match=r"targets are .*: allowed in this transition are distributions over C >= 2",
        ):
            TRANSITIONS[name].mix(both, both, jnp.float32(0.5), jnp.ones(4))
    with pytest.raises(
        ValueError, match=r"needs targets of 2 or more classes, but the dataset has 1: allowed are"
    ):
        Spec(transition=name).check_classes(1)
    Spec(transition="sampling").check_classes(1)


@pytest.mark.long
def test_a_spec_asks_its_environment_what_targets_are(monkeypatch):
    monkeypatch.setitem(ENVIRONMENTS, "random_labels", lambda: REGRESSION)
    with pytest.raises(
        ValueError,
        match="needs targets that are distributions, but those of 'random_labels' are values",
    ):
        Spec(transition="output")
    assert Spec(transition="sampling").transition == "sampling"
