"""Probes of dead, duplicate, frozen and cloned units and of ranks, on networks made by hand and
against numpy.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity_jax import probes
from plasticity_jax.models import ACTIVATIONS

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


def test_clones_of_channels_count_each_position():
    maps = RANDOM.normal(size=(3, 2, 2, 6)).astype(np.float32)
    rows = float(probes.clone_r2(f32(maps.reshape(12, 6))))
    assert float(probes.clone_r2(f32(maps))) == pytest.approx(rows, rel=1e-6)
