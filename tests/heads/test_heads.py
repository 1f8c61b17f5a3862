"""Heads against their definitions, computed with numpy and scipy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny
from scipy import stats

import plasticity_jax as pj
from plasticity_jax import lanes
from plasticity_jax.environments import class_split, random_labels, regression
from plasticity_jax.heads import HEADS, attached, linear, scale_invariant, smoothed, two_hot
from plasticity_jax.spec import Spec
from plasticity_jax.training import supervised
from plasticity_jax.types import Batch

pytestmark = pytest.mark.usefixtures("compiled_quickly")
RANDOM = np.random.default_rng(0)


def batch(y):
    y = jnp.asarray(y, jnp.float32)
    return Batch(None, y, jnp.ones(len(y)))


def cross_entropy(wanted, logits):
    logits = np.asarray(logits, np.float64)
    logits = logits - logits.max(-1, keepdims=True)
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return -(wanted * logs).sum(-1)


def two_hot_by_hand(y, low, high, bins, smoothing):
    places, made = np.linspace(low, high, bins), np.zeros((len(y), bins))
    for row, value in enumerate(np.clip(y, low, high)):
        right = min(max(int(np.searchsorted(places, value)), 1), bins - 1)
        step = places[right] - places[right - 1]
        made[row, right - 1] = (places[right] - value) / step
        made[row, right] = (value - places[right - 1]) / step
    return (1 - smoothing) * made + smoothing / bins


def hl_gauss_by_hand(y, low, high, bins, smoothing, deviation=0.75):
    edges = np.linspace(low, high, bins + 1)
    normal = stats.norm(np.clip(y, low, high)[:, None], deviation * (high - low) / bins)
    share = np.diff(normal.cdf(edges), axis=1)
    return (1 - smoothing) * share / share.sum(1, keepdims=True) + smoothing / bins


BY_HAND = {"two_hot": two_hot_by_hand, "hl_gauss": hl_gauss_by_hand}


@pytest.mark.parametrize("name", BY_HAND)
@pytest.mark.parametrize(("low", "high", "bins"), [(-10, 10, 101), (-1, 3, 2), (990, 1010, 7)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.long
def test_loss_and_reading_of_bins_are_as_defined(name, low, high, bins, smoothing):
    y = RANDOM.uniform(low - 1, high + 1, 40)
    y[:3] = low, high, (low + high) / 2
    logits = RANDOM.normal(size=(40, bins)) * 3
    head = HEADS[name](bins=bins, low=low, high=high, smoothing=smoothing)
    wanted = BY_HAND[name](y, low, high, bins, smoothing)
    found = head.loss(None, jnp.asarray(logits), batch(y[:, None]))
    np.testing.assert_allclose(found, cross_entropy(wanted, logits), rtol=1e-4, atol=1e-4)
    middles = np.linspace(low, high, bins)
    if name == "hl_gauss":
        middles = low + (np.arange(bins) + 0.5) * (high - low) / bins
    weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    read = head.read(jnp.asarray(logits))
    assert read.shape == (40, 1)
    np.testing.assert_allclose(read[:, 0], weights @ middles, rtol=1e-6, atol=1e-5)


@pytest.mark.long
def test_two_hot_worked_by_hand():
    """Bins at 0, 1, 2: 0.25 is three quarters of the first and one of the second."""
    head = two_hot(bins=3, low=0.0, high=2.0)
    uniform = head.loss(None, jnp.zeros((1, 3)), batch([[0.25]]))
    assert float(uniform[0]) == pytest.approx(np.log(3))
    logits = jnp.log(jnp.asarray([[0.75, 0.25, 1e-30]]))
    assert float(head.read(logits)[0, 0]) == pytest.approx(0.25)
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert float(head.loss(None, logits, batch([[0.25]]))[0]) == pytest.approx(entropy)


@pytest.mark.long
def test_two_hot_reads_what_it_encodes():
    """The gradient of the loss is zero where the outputs are the encoded target, whose expected
    position is the target itself.
    """
    y = RANDOM.uniform(-5, 5, (30, 2))
    head = two_hot(bins=11, low=-5.0, high=5.0)
    encoded = np.stack([two_hot_by_hand(y[:, i], -5, 5, 11, 0) for i in range(2)], 1)
    outputs = jnp.log(jnp.asarray(encoded + 1e-30, jnp.float32)).reshape(30, 22)
    np.testing.assert_allclose(head.read(outputs), y, atol=1e-5)
    slope = jax.grad(lambda o: head.loss(None, o, batch(y)).sum())(outputs)
    assert np.abs(slope).max() < 1e-6


@pytest.mark.parametrize("name", [*BY_HAND, "c51"])
def test_targets_outside_the_range_are_counted(name):
    head = HEADS[name](bins=5, low=-1.0, high=1.0)
    y = [[-1.0, 0.0], [1.0, 1.1], [-3.0, 4.0]]
    (metric,) = head.metrics
    found = metric.of(jnp.zeros((3, 10)), batch(y))
    np.testing.assert_array_equal(found, [0, 0.5, 1])
    at_the_end = [head.loss(None, jnp.arange(5.0)[None], batch([[v]])) for v in (1.0, 1.1)]
    assert at_the_end[0] == at_the_end[1]


@pytest.mark.parametrize("head", ["two_hot", "c51"])
def test_where_an_agent_acts_targets_are_counted_that_are_numbers(head):
    """Those of C51 are distributions, already within its atoms."""
    given = Spec(environment="target_offset", head=head, transition="abrupt").make_environment()
    acting = Spec(
        environment="bandit", agent="dqn", head=head, transition="abrupt", phase_steps=400
    )
    counted = [
        "outside_range" in [one.name for one in made.metrics]
        for made in (given, acting.make_environment())
    ]
    assert counted == [True, head == "two_hot"]


def examples(active):
    """An environment of six classes, eight of its examples, outputs, and which of them count."""
    data = tiny.data(60, classes=6)
    environment = class_split(per_task=2) if active else random_labels()
    task = environment.task(jax.random.key(0), data, jnp.int32(1))
    made = environment.examples(data, task, jnp.arange(8))
    logits = jax.random.normal(jax.random.key(1), (8, 6))
    return environment, made, logits, np.asarray(made.active[0]) if active else np.ones(6, bool)


@pytest.mark.parametrize("active", [False, True])
@pytest.mark.long
def test_smoothing_mixes_with_the_outputs_that_count(active):
    environment, made, logits, count = examples(active)
    wanted = 0.7 * np.asarray(made.y)[:, count] + 0.3 / count.sum()
    seen = attached(environment, smoothed(smoothing=0.3))
    expected = cross_entropy(wanted, np.asarray(logits)[:, count])
    np.testing.assert_allclose(seen.loss(logits, made), expected, rtol=1e-5)
    plain = attached(environment, smoothed(smoothing=0.0)).loss(logits, made)
    np.testing.assert_array_equal(plain, environment.loss(logits, made))
    assert seen.metrics[0].of(logits, made).shape == (8,)


@pytest.mark.parametrize("active", [False, True])
def test_outputs_count_by_their_direction_alone(active):
    """By hand in float64; ten times the outputs give the same loss, and no step along them."""
    environment, made, logits, count = examples(active)
    loss = attached(environment, scale_invariant(temperature=0.3)).loss
    z = np.asarray(logits, np.float64)[:, count]
    z /= 0.3 * np.sqrt((z**2).sum(1, keepdims=True))
    wanted = cross_entropy(np.asarray(made.y, np.float64)[:, count], z)
    np.testing.assert_allclose(loss(logits, made), wanted, rtol=1e-5)
    np.testing.assert_allclose(loss(10 * logits, made), wanted, rtol=1e-5)
    gradient = jax.grad(lambda given: loss(given, made).sum())(logits)
    length = jnp.linalg.norm(gradient, axis=1) * jnp.linalg.norm(logits, axis=1)
    assert (length > 0.01).all()
    np.testing.assert_allclose((gradient * logits).sum(1) / length, 0, atol=1e-5)
    of_zeros = jax.grad(lambda given: loss(given, made).sum())(jnp.zeros_like(logits))
    assert jnp.isfinite(of_zeros).all()
    assert (of_zeros != 0).any()


def test_a_certain_target_has_the_least_loss_that_is_documented():
    """The best direction has one output above five that are equal."""
    z = np.full(6, -1 / np.sqrt(30))
    z[2] = np.sqrt(5 / 6)
    made = Batch(None, jax.nn.one_hot(jnp.array([2]), 6), jnp.ones(1))
    loss = attached(random_labels(), scale_invariant(temperature=0.3)).loss
    least = np.log(1 + 5 * np.exp(-np.sqrt(6 / 5) / 0.3))
    np.testing.assert_allclose(loss(jnp.asarray(z, jnp.float32)[None], made), least, rtol=1e-5)
    near = z + 0.05 * RANDOM.normal(size=(50, 6))
    targets = made._replace(y=jnp.broadcast_to(made.y, (50, 6)), weight=jnp.ones(50))
    assert (loss(jnp.asarray(near, jnp.float32), targets) > least).all()


def test_a_last_layer_of_another_scale_learns_the_same():
    """Without weight decay the last layer's scale changes nothing but how far a step turns it: a
    layer c times as large, with steps c times as long, goes the same way.
    """
    loss = attached(random_labels(), scale_invariant(temperature=0.5)).loss
    x, kernel = (
        jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate([(20, 5), (5, 4)])
    )
    made = Batch(None, jax.nn.one_hot(jnp.arange(20) % 4, 4), jnp.ones(20))

    def trained(scale):
        weights = scale * kernel
        for _ in range(5):
            gradient = jax.grad(lambda w: loss(x @ w, made).mean())(weights)
            weights = weights - 0.5 * scale**2 * gradient
        return weights / scale

    np.testing.assert_allclose(trained(8.0), trained(1.0), rtol=1e-4)
    assert np.abs(trained(1.0) - kernel).max() > 0.1


def test_linear_is_the_environment_itself():
    environment = regression()
    assert attached(environment, linear()) is environment
    assert "head" not in Spec().record()
    assert Spec(head="smoothed").record()["head"] == "smoothed"


@pytest.mark.parametrize("name", BY_HAND)
@pytest.mark.long
def test_a_run_reads_numbers_from_bins(name):
    """A network with bins is trained; its squared error falls, and lanes differ in their range."""
    spec = tiny.spec(
        environment="regression", dataset="arrays:nowhere", head=name, options={f"{name}.bins": 9},
        optimizer="adam", width=32, epochs=30,
    )  # fmt: skip
    run, data = supervised.make_run(spec), tiny.real()
    grid = lanes.grid(**{f"{name}.high": [3.0, 0.1], f"{name}.low": -3.0, "learning_rate": 1e-2})
    stacked = lanes.stack(lanes.check(spec, grid, 64))

    def whole(lane, data):
        return run.run_task(lane, run.init(lane, data), data, jnp.int32(0))

    state, found = jax.jit(jax.vmap(whole, (0, None)))(stacked, data)
    assert state.params["head"]["kernel"].shape == (2, 32, 2 * 9)
    assert found["finite"].all()
    outside = [(np.abs(data.y) > 3).mean(), ((data.y < -3) | (data.y > 0.1)).mean()]
    np.testing.assert_allclose(found["outside_range"], outside, atol=1e-6)
    assert found["squared_error"][0] < 0.5 * np.var(data.y)
    assert found["squared_error"][1] > found["squared_error"][0]
    assert {"test_outside_range", "loss", "online_squared_error"} <= found.keys()


NOWHERE = {"environment": "regression", "dataset": "arrays:nowhere"}


REFUSED = [
    (
        {"head": "two_hot"}, {},
        "head 'two_hot' needs targets that are numbers, but those of 'random_labels' are "
        "distributions: allowed are linear, smoothed, scale_invariant.",
    ),
    (
        {**NOWHERE, "head": "smoothed"}, {},
        "head 'smoothed' needs targets that are distributions, but those of 'regression' are "
        "numbers: allowed are linear, two_hot, hl_gauss, c51.",
    ),
    (
        {**NOWHERE, "head": "two_hot", "options": {"two_hot.bins": 1}}, {},
        "two_hot.bins is 1: allowed are whole numbers from 2.",
    ),
    (
        {**NOWHERE, "head": "two_hot"}, {"two_hot.low": 10},
        "two_hot.high is 10.0: allowed are numbers above two_hot.low, which is 10.0.",
    ),
    (
        {**NOWHERE, "head": "hl_gauss"}, {"hl_gauss.high": -10},
        "hl_gauss.high is -10.0: allowed are numbers above hl_gauss.low, which is -10.0.",
    ),
    (
        {**NOWHERE, "head": "hl_gauss"}, {"hl_gauss.deviation": 0},
        "hl_gauss.deviation is 0.0: allowed are numbers above 0.",
    ),
    (
        {"head": "smoothed"}, {"smoothed.smoothing": 1.5},
        "smoothed.smoothing is 1.5: allowed is 0 to 1.",
    ),
    (
        {"head": "scale_invariant"}, {"scale_invariant.temperature": 0},
        "scale_invariant.temperature is 0.0: allowed are numbers above 0.",
    ),
    (
        {**NOWHERE, "head": "scale_invariant"}, {},
        "head 'scale_invariant' needs targets that are distributions, but those of 'regression' "
        "are numbers: allowed are linear, two_hot, hl_gauss, c51.",
    ),
    (
        {"head": "squared"}, {},
        "unknown head 'squared': known are linear, two_hot, hl_gauss, c51, smoothed, "
        "scale_invariant.",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "lane", "message"), REFUSED)
def test_what_does_not_fit_is_refused(settings, lane, message):
    with pytest.raises(ValueError) as caught:
        lanes.check(Spec(probes=(), **settings), [lane], 512)
    assert str(caught.value) == message


def test_heads_are_found_from_python():
    assert pj.heads.two_hot(bins=3).outputs(2) == 6
