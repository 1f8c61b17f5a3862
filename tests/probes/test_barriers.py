"""Probes of dead, duplicate, frozen and cloned units and of ranks, on networks made by hand and
against numpy.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny
from helpers.networks import quickly

from plasticity_jax import probes
from plasticity_jax.models import ACTIVATIONS
from plasticity_jax.probes import PROBES
from plasticity_jax.training import network
from plasticity_jax.types import Snapshot

RANDOM = np.random.default_rng(0)


def f32(values):
    return jnp.asarray(values, jnp.float32)


def test_dead_units_are_counted_by_magnitude_on_more_than_a_share_of_inputs():
    units = np.ones((100, 4))
    units[:95, 0] = 0  # 95 of 100 are not more than 95 %
    units[:96, 1] = 0
    units[:, 2] = -1  # negative is not zero
    units[:, 3] = 9e-8
    assert float(probes.dead_fraction(f32(units))) == pytest.approx(2 / 4)
    assert float(probes.dead_fraction(f32(units), 0.94)) == pytest.approx(3 / 4)
    assert float(probes.dead_fraction(f32(units), 0.95, 1e-8)) == pytest.approx(1 / 4)


@pytest.mark.long
def test_of_equal_units_all_but_one_are_duplicates():
    column = RANDOM.normal(size=(50, 1))
    alike = np.concatenate([column * scale for scale in (1, 2, 1e-20, 1e20)], axis=1)
    assert float(probes.duplicate_fraction(f32(alike))) == pytest.approx(3 / 4)
    opposed = np.concatenate([column, -column], axis=1)
    assert float(probes.duplicate_fraction(f32(opposed))) == 0
    assert float(probes.duplicate_fraction(jnp.zeros((50, 4)))) == 0
    # groups are not compared with each other
    assert float(probes.duplicate_fraction({"a": f32(column), "b": f32(column)})) == 0


def test_duplicates_as_a_loop_over_pairs():
    units = np.abs(RANDOM.normal(size=(30, 12))).astype(np.float32)
    units[:, 4] = units[:, 9] + 0.05 * units[:, 2]
    for cosine in (0.5, 0.7, 0.95):
        found = 0
        for j in range(12):
            pairs = [
                units[:, j]
                @ units[:, k]
                / np.linalg.norm(units[:, j])
                / np.linalg.norm(units[:, k])
                for k in range(j + 1, 12)
            ]
            found += any(value > cosine for value in pairs)
        got = float(jax.jit(probes.duplicate_fraction)(f32(units), cosine))
        assert got == pytest.approx(found / 12)


def test_a_frozen_unit_has_no_slope_on_nearly_all_inputs():
    before = np.full((100, 3), -2.0)
    before[:6, 0] = 2.0  # a ReLU is flat on 94 of 100
    before[:5, 1] = 2.0
    frozen = probes.frozen_fraction
    assert float(frozen(f32(before), ACTIVATIONS["relu"])) == pytest.approx(2 / 3)
    assert float(frozen(f32(before), ACTIVATIONS["leaky_relu"])) == 0
    assert float(frozen(f32(before), ACTIVATIONS["crelu"])) == 0
    assert float(frozen(f32(before), ACTIVATIONS["identity"])) == 0
    assert float(frozen(f32(before), ACTIVATIONS["tanh"])) == 0
    assert float(frozen(f32(3 * before), ACTIVATIONS["tanh"])) == 1  # 1 - tanh(6)^2 is 2.5e-5


@pytest.mark.long
def test_saturated_units_by_hand():
    """Beside a mean magnitude of 2, gradients below 2e-4 are small; 99 of 100 are not enough."""
    hidden = np.repeat(np.r_[np.full(50, 1.0), np.full(50, -3.0)][:, None], 3, axis=1)
    gradient = np.full((100, 3), 1e-5)
    gradient[:, 1] *= -1
    gradient[0, 1], gradient[0, 2] = 1.0, -2.1e-4
    saturated = probes.saturated_fraction
    assert float(saturated(f32(hidden), f32(gradient))) == pytest.approx(1 / 3)
    assert float(saturated(f32(hidden), f32(gradient), 0.98)) == 1
    assert float(saturated(f32(hidden), f32(gradient), 0.99, 1.1e-4)) == pytest.approx(2 / 3)
    assert float(saturated(f32(hidden), 30 * f32(gradient), 0.98)) == 0
    silent = saturated(jnp.zeros((4, 2)), f32([[0, 1e-15]] * 4))
    assert float(silent) == pytest.approx(1 / 2)
    with pytest.raises(ValueError, match=r"^gradients have shapes \{'': \(2,\)\}, activations "):
        saturated(jnp.ones((2, 2)), jnp.ones(2))


@pytest.mark.parametrize("activation", ["tanh", "crelu"])
@pytest.mark.long
def test_gradients_by_activations_are_those_of_the_layer_above(activation):
    """By the chain rule on a network of two hidden layers, in numpy; and both forms of the
    probe.
    """
    spec = tiny.spec(depth=2, activation=activation, probes=("saturated_fraction",))
    environment, data = spec.make_environment({}), jax.tree.map(jnp.asarray, tiny.data())
    net = network.network(spec, environment, data)
    params = net.init(jax.random.key(0))["params"]
    x, y = f32(RANDOM.normal(size=(6, 3, 3, 1))), f32(RANDOM.normal(size=(6, 4)))

    def loss(logits):
        return jnp.square(logits - y).mean(axis=0).sum()

    assert net.unit_gradients is not None
    found = jax.jit(lambda p: net.unit_gradients(loss, p, {}, x))(params)
    logits, hidden, _ = net.apply(params, {}, x, False)
    last = np.asarray(2 / 6 * (logits - y) @ params["head"]["kernel"].T)
    np.testing.assert_allclose(found["h1"], last, rtol=1e-4, atol=1e-6)
    before = hidden["h0"] @ params["layer1"]["kernel"] + params["layer1"]["bias"][None]
    _, pull = jax.vjp(ACTIVATIONS[activation], before)
    first = pull(jnp.asarray(last))[0] @ params["layer1"]["kernel"].T
    np.testing.assert_allclose(found["h0"], first, rtol=1e-4, atol=1e-6)


@pytest.mark.long
def test_every_model_has_gradients_by_all_that_an_activation_made():
    """Also T5, whose groups are made inside its blocks; none is zero altogether."""
    for model, options in (("t5", {"t5.feed_forward": 8, "t5.heads": 2}), ("vit", TINY_VIT)):
        text = model == "t5"
        environment = "bigram_cipher" if text else "random_labels"
        words = {f"bigram_cipher.{size}": 2 for size in ("words", "word_length")} if text else {}
        spec = tiny.spec(model=model, environment=environment, options=options | words)
        made, data = spec.make_environment({}), jax.tree.map(jnp.asarray, tiny.data())
        net = network.network(spec, made, data)
        batch = made.examples(data, made.task(jax.random.key(0), data, 0), jnp.arange(3))
        params = net.init(jax.random.key(0))["params"]
        found = quickly(lambda p, n=net, x=batch.x: n.unit_gradients(jnp.max, p, {}, x), params)
        assert found.keys() == spec.make_model(4).units().keys()
        assert all(np.abs(gradient).max() > 0 for gradient in found.values())


TINY_VIT = {"vit.embedding": 8, "vit.blocks": 2, "vit.heads": 2, "vit.patch": 2}


def test_both_forms_of_saturated_units_in_a_run():
    hidden = {"h0": f32(RANDOM.normal(size=(12, 5, 3)))}
    gradient = {"h0": f32(RANDOM.normal(size=(12, 5, 3)) ** 3)}
    snapshot = probes_snapshot(hidden, lambda params: gradient)
    probe = PROBES["saturated_fraction"]
    shares = []
    for size in (0.5, 1.0, 2.0, 4.0):
        mean = probe(snapshot, share=0.7, size=size)
        own = probe(snapshot, share=0.7, size=12 * size, gradient="example")
        assert mean == own
        shares.append(float(mean["h0"]))
    assert shares[0] < shares[-1]
    with pytest.raises(ValueError, match=r"^saturated_fraction.gradient is 'x': allowed are"):
        probe(snapshot, gradient="x")
    with pytest.raises(ValueError, match="saturated_fraction needs a Snapshot with unit_gradients"):
        probe(snapshot._replace(unit_gradients=None))


def probes_snapshot(hidden, unit_gradients):
    key = jax.random.key(0)
    return Snapshot(
        {}, {}, {}, lambda p: jnp.float32(0), hidden, hidden, key, unit_gradients=unit_gradients
    )


@pytest.mark.long
def test_ranks_of_matrices_with_known_singular_values():
    left, _ = np.linalg.qr(RANDOM.normal(size=(40, 6)))
    right, _ = np.linalg.qr(RANDOM.normal(size=(6, 6)))
    sigma = np.array([4, 2, 2, 1, 1e-3, 0])
    matrix = f32(left * sigma @ right)
    assert float(probes.stable_rank(matrix)) == pytest.approx(25 / 16, rel=1e-5)
    assert float(probes.hard_rank(matrix)) == 5
    assert float(probes.hard_rank(matrix, 1e-2)) == 4
    assert float(probes.hard_rank(matrix, 0.3)) == 3
    for function in (probes.stable_rank, probes.hard_rank, probes.participation_ratio):
        assert float(function(jnp.zeros((4, 3)))) == 0


def test_participation_ratio_is_that_of_the_covariance():
    units = RANDOM.normal(size=(200, 7)) * np.arange(1, 8) + 5
    covariance = np.cov(units.T)
    want = np.trace(covariance) ** 2 / np.trace(covariance @ covariance)
    assert float(probes.participation_ratio(f32(units))) == pytest.approx(want, rel=1e-4)
    # as Joudaki et al. write their stable rank
    centred = units - units.mean(0)
    gram = centred.T @ centred
    assert want == pytest.approx(np.linalg.norm(centred) ** 4 / np.trace(gram @ gram))


@pytest.mark.long
def test_clones_explain_all_and_strangers_little():
    base = RANDOM.normal(size=(60, 4))
    clones = np.repeat(base, 3, axis=1)
    assert float(probes.clone_r2(f32(clones), 3)) == pytest.approx(1, abs=1e-6)
    assert float(probes.clone_score(f32(clones), 3)) == pytest.approx(1, abs=1e-6)
    assert float(probes.clone_r2(f32(np.tile(base, 3)), 3)) < 0.5
    assert float(probes.clone_r2(jnp.ones((5, 4)))) == 1
    noisy = clones + 0.3 * RANDOM.normal(size=clones.shape)
    groups = noisy.reshape(60, 4, 3)
    within = ((groups - groups.mean(2, keepdims=True)) ** 2).sum()
    total = ((noisy - noisy.mean(1, keepdims=True)) ** 2).sum()
    assert float(probes.clone_r2(f32(noisy), 3)) == pytest.approx(1 - within / total, rel=1e-5)
    score = 1 - (groups.std(2) / noisy.std(1)[:, None]).mean()
    assert float(probes.clone_score(f32(noisy), 3)) == pytest.approx(score, rel=1e-5)
    assert score < 1 - within / total  # deviations are larger shares than variances


def test_clones_may_differ_in_their_backward_signals_alone():
    clones = np.repeat(RANDOM.normal(size=(60, 4)), 2, axis=1)
    signals = RANDOM.normal(size=clones.shape)
    key, hidden = jax.random.key(0), {"h0": f32(clones)}
    of = Snapshot({}, {}, {}, lambda _: jnp.float32(0), hidden, hidden, key)
    found = PROBES["clone_r2"](of._replace(unit_gradients=lambda _: {"h0": f32(signals)}))
    pairs = signals.reshape(60, 4, 2)
    within = ((pairs - pairs.mean(2, keepdims=True)) ** 2).sum()
    backward = 1 - within / ((signals - signals.mean(1, keepdims=True)) ** 2).sum()
    assert float(found[""]) == pytest.approx(1, abs=1e-6)
    assert float(found["backward"]) == pytest.approx(backward, rel=1e-5)
    assert float(found["both"]) == pytest.approx((1 + backward) / 2, rel=1e-5)
    assert "backward" not in PROBES["clone_r2"](of)


def test_clones_of_channels_count_each_position():
    maps = RANDOM.normal(size=(3, 2, 2, 6)).astype(np.float32)
    rows = float(probes.clone_r2(f32(maps.reshape(12, 6))))
    assert float(probes.clone_r2(f32(maps))) == pytest.approx(rows, rel=1e-6)
