"""Probes against dense linear algebra, numpy and values worked out by hand; each also jitted and
over lanes.
"""

import functools

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse.linalg
from flax import nnx
from helpers import tiny
from helpers.networks import quickly
from hypothesis import given, settings
from hypothesis import strategies as st

from plasticity_jax import probes
from plasticity_jax.environments import ENVIRONMENTS
from plasticity_jax.execution import sweep
from plasticity_jax.lanes import grid
from plasticity_jax.probes import PROBES
from plasticity_jax.reporting import statistics, tables
from plasticity_jax.training import evaluation, network
from plasticity_jax.types import Snapshot, TrainState, View

KEY = jax.random.key(3)
KEYS = jax.random.split(KEY, 3)


def f32(values):
    return jnp.asarray(values, jnp.float32)


def value(function, *arguments):
    return jax.tree.map(np.asarray, jax.jit(function)(*arguments))


def everywhere(function, *arguments, plain=True):
    """The value of `function` jitted, after comparing it with its value as it is and in each of two
    lanes.
    """
    jitted = value(function, *arguments)
    stacked = jax.tree.map(lambda a: jnp.stack([a, a]), arguments)
    lanes = jax.jit(jax.vmap(function))(*stacked)
    others = [jax.tree.map(lambda a, i=i: a[i], lanes) for i in range(2)] + (
        [function(*arguments)] if plain else []
    )
    for other in others:
        jax.tree.map(
            lambda j, o: np.testing.assert_allclose(o, j, rtol=2e-5, atol=1e-6), jitted, other
        )
    return jitted


# --------------------------------------------------------------------------------------------------
# curvature


def symmetric(spectrum, seed=0):
    random = np.random.default_rng(seed)
    basis = np.linalg.qr(random.normal(size=(len(spectrum), len(spectrum))))[0]
    return basis @ np.diag(spectrum) @ basis.T


@functools.partial(jax.jit, static_argnames="iterations")
def ritz_of(matrix, tolerance, iterations):
    """hessian_ritz of a quadratic form whose parameters are split over a tree."""
    size = len(matrix)
    params = {"b": jnp.ones((size + 1) // 2), "a": {"w": jnp.ones((size // 2, 1))}}

    def loss(p):
        flat = jnp.concatenate([p["b"], p["a"]["w"].reshape(-1)])
        return 0.5 * flat @ (matrix @ flat)

    return probes.hessian_ritz(loss, params, KEY, iterations, tolerance)


def top_of(matrix, iterations=20, tolerance=1e-3):
    return jax.tree.map(float, ritz_of(f32(matrix), tolerance, iterations))


def mlp_loss(sign=1.0):
    random = np.random.default_rng(1)
    x, y = f32(random.normal(size=(20, 4))), jax.nn.one_hot(jnp.arange(20) % 3, 3)
    params = {
        "one": {"kernel": f32(random.normal(size=(4, 5))), "bias": f32(random.normal(size=5))},
        "two": {"kernel": f32(random.normal(size=(5, 3))), "bias": jnp.zeros(3)},
    }

    def loss(p):
        hidden = jnp.tanh(x @ p["one"]["kernel"] + p["one"]["bias"][None])
        logits = hidden @ p["two"]["kernel"] + p["two"]["bias"][None]
        return -sign * (y * jax.nn.log_softmax(logits)).sum(-1).mean()

    return loss, params


def dense_spectrum(loss, params):
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    hessian = np.asarray(jax.jit(jax.hessian(lambda p: loss(unravel(p))))(flat), np.float64)
    return np.linalg.eigvalsh((hessian + hessian.T) / 2)


@pytest.mark.parametrize("seed", range(3))
def test_hessian_top_against_the_dense_hessian(seed):
    loss, params = mlp_loss()
    spectrum = dense_spectrum(loss, params)
    compared = functools.partial(everywhere, plain=False) if seed == 0 else value
    assert compared(lambda p: probes.hessian_top(loss, p, KEYS[seed]), params) == pytest.approx(
        spectrum[-1], rel=1e-4
    )


def test_hessian_top_is_the_algebraic_maximum():
    # the loss with its sign changed: the eigenvalue of largest magnitude is negative and power
    # iteration would find it
    loss, params = mlp_loss(sign=-1.0)
    spectrum = dense_spectrum(loss, params)
    assert -spectrum[0] > 1.5 * spectrum[-1] > 0
    found = jax.jit(lambda p: probes.hessian_top(loss, p, KEY, 43, 1e-4))(params)
    assert float(found) == pytest.approx(spectrum[-1], rel=1e-4)


def test_hessian_vector_product_is_the_hessian():
    loss, params = mlp_loss()
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    product = probes.hessian_vector_product(loss, params)
    rows = jax.jit(jax.vmap(lambda e: jax.flatten_util.ravel_pytree(product(unravel(e)))[0]))(
        jnp.eye(len(flat))
    )
    dense = jax.jit(jax.hessian(lambda p: loss(unravel(p))))(flat)
    np.testing.assert_allclose(rows, dense, atol=2e-6)


SPECTRA = {
    "both signs": [-7.0, -3, -1, 0, 0.5, 2],
    "all negative": [-9.0, -5, -4, -3.5, -2.5, -2],
    "positive": [1.0, 2, 3, 4, 5, 6],
    "two equal tops": [-1.0, 0.5, 1, 2, 3, 3],
    "identity": [1.0] * 6,
    "minus identity": [-1.0] * 6,
    "zero": [0.0] * 6,
    "small": [-1e-8, -1e-9, 0, 0, 1e-9, 2e-9],
    "large": [-1e8, 0, 0, 1, 1e7, 3e7],
    "rank one": [0.0] * 29 + [2.5],
    "minus rank one": [-2.5] + [0.0] * 29,
    "one dimension": [-4.0],
}


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("rotated", [False, True], ids=["diagonal", "rotated"])
def test_known_spectra_whose_space_is_exhausted(name, rotated):
    """Fewer distinct eigenvalues than iterations: exact after as many, and nothing may go wrong in
    those left over.
    """
    spectrum = np.asarray(SPECTRA[name])
    matrix = symmetric(spectrum) if rotated and len(spectrum) > 1 else np.diag(spectrum)
    scale = np.abs(spectrum).max()
    for tolerance in (1e-3, 0.0):  # 0 goes on for as long as rounding lets it
        ritz = top_of(matrix, tolerance=tolerance)
        assert ritz.value == pytest.approx(spectrum.max(), rel=1e-5, abs=3e-6 * scale)
        assert 0 <= ritz.residual <= (1e-5 if tolerance == 0 else 1e-3) * scale


def numpy_lanczos(matrix, start, iterations):
    """(value, residual) in float64 from an explicit orthonormal basis of the Krylov space."""
    krylov = [start / np.linalg.norm(start)]
    for _ in range(iterations - 1):
        after = matrix @ krylov[-1]
        for _ in range(2):
            after -= sum((after @ q) * q for q in krylov)
        krylov.append(after / np.linalg.norm(after))
    basis = np.stack(krylov, axis=1)
    values, vectors = np.linalg.eigh(basis.T @ matrix @ basis)
    ritz = basis @ vectors[:, -1]
    return values[-1], np.linalg.norm(matrix @ ritz - values[-1] * ritz)


@pytest.mark.parametrize("iterations", [1, 3, 8])
def test_value_and_residual_after_few_iterations(iterations):
    """Far from converged: both numbers are those of the Krylov space, and the residual bounds the
    error truly.
    """
    spectrum = np.concatenate([np.linspace(-4, 1, 40), [3, 5]])
    matrix = symmetric(spectrum, seed=2)
    # the start vector: one normal draw, in the order of the flattened tree {"a": {"w"}, "b"}
    draw = np.asarray(jax.random.normal(KEY, (len(matrix),)), np.float64)
    start = np.concatenate([draw[len(matrix) // 2 :], draw[: len(matrix) // 2]])
    ritz = top_of(matrix, iterations, tolerance=0.0)
    value, residual = numpy_lanczos(
        np.asarray(matrix, np.float32).astype(np.float64), start, iterations
    )
    assert ritz.value == pytest.approx(value, rel=1e-4, abs=1e-5)
    assert ritz.residual == pytest.approx(residual, rel=2e-3, abs=1e-5)
    assert np.abs(spectrum - ritz.value).min() <= ritz.residual + 1e-5
    assert ritz.value <= spectrum.max() + 1e-5


@pytest.mark.parametrize("power", [-100, -60, 60, 100])
@pytest.mark.long
def test_a_scale_that_is_a_power_of_two_changes_no_bit(power):
    """Lanczos of 2^k A is 2^k times that of A, which no rounding tells apart as long as nothing
    vanishes or overflows.
    """
    matrix = symmetric(np.concatenate([np.linspace(-4, 1, 40), [3, 5]]), seed=2)
    for iterations in (3, 20):
        one, scaled = (top_of(a, iterations) for a in (matrix, matrix * 2.0**power))
        assert scaled == (one.value * 2.0**power, one.residual * 2.0**power)
        assert one.residual > 0


@pytest.mark.long
def test_curvature_of_a_loss_of_any_scale():
    """Against scipy's Lanczos of the dense Hessian in float64."""
    loss, params = mlp_loss()
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    dense = np.asarray(jax.jit(jax.hessian(lambda p: loss(unravel(p))))(flat), np.float64)
    want = scipy.sparse.linalg.eigsh(
        (dense + dense.T) / 2, 1, which="LA", return_eigenvectors=False
    )[0]
    ritz = jax.jit(lambda p, scale: probes.hessian_ritz(lambda q: scale * loss(q), p, KEY))
    for scale in (1e-30, 1e-18, 1.0, 1e18, 1e30):
        value, residual = map(float, ritz(params, scale))
        assert value / scale == pytest.approx(want, rel=1e-4)
        assert 0 < residual <= 1e-3 * value


@pytest.mark.long
def test_a_loss_without_curvature_has_eigenvalue_0_exactly():
    _, params = mlp_loss()
    for loss in (lambda p: jnp.float32(3.0), lambda p: 1e30 * p["one"]["bias"].sum()):
        ritz = quickly(lambda p, loss=loss: probes.hessian_ritz(loss, p, KEY), params)
        assert jax.tree.map(float, ritz) == (0.0, 0.0)


@st.composite
def spectra(draw):
    """Eigenvalues of both signs, degenerate, clustered, of one sign or of one rank, on scales from
    1e-30 to 1e30.
    """
    size = draw(st.sampled_from([1, 2, 8, 30]))
    one = st.floats(-1, 1, width=16) | st.sampled_from(
        [-1.0, 0.0, 1.0, 1 - 1e-3, 1 - 1e-5, 1 - 1e-6]
    )
    one = draw(st.sampled_from([one, one.map(lambda x: -abs(x)), st.sampled_from([0.0, 0.5])]))
    spectrum = np.array(draw(st.lists(one, min_size=size, max_size=size)))
    return spectrum * 10.0 ** draw(st.integers(-30, 30))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(spectrum=spectra(), seed=st.integers(0, 2**16), tolerance=st.sampled_from([1e-3, 0.0]))
@pytest.mark.long
def test_what_is_said_of_value_and_residual_holds(spectrum, seed, tolerance):
    """Never above the largest, some eigenvalue within the residual; after enough products it is
    among the largest.
    """
    matrix = symmetric(spectrum, seed).astype(np.float32)
    true = np.linalg.eigvalsh(matrix.astype(np.float64))
    value, residual = top_of(matrix, tolerance=tolerance)
    largest = np.abs(true).max()
    rounding = (100 if tolerance == 0 else 20) * np.finfo(np.float32).eps * largest
    assert value <= true[-1] + rounding
    assert np.abs(true - value).min() <= residual + rounding
    assert residual >= 0
    if len(spectrum) <= 8:  # of 20 products
        almost_largest = true[true >= true[-1] - 2e-3 * largest].min()
        assert value >= almost_largest - residual - rounding


@pytest.mark.long
def test_almost_equal_eigenvalues_are_not_told_apart():
    """The value lies between 1 - 1e-4 and 1: an error of the order of the residual, which a gap
    would make its square.
    """
    spectrum = np.concatenate([np.linspace(-1, 0.3, 40), [1 - 1e-4, 1]])
    value, residual = top_of(symmetric(spectrum, seed=4), iterations=12, tolerance=1e-4)
    assert residual**2 < 0.1 * (1 - value) < residual
    assert 1 - 1e-4 - residual <= value <= 1


def test_tolerance_stops_early_and_bounds_the_residual():
    matrix = symmetric(np.concatenate([np.linspace(-4, 1, 60), [3, 5]]), seed=2)
    counted = []

    def product(v):
        jax.debug.callback(lambda: counted.append(1))
        return f32(matrix) @ v

    start = jax.random.normal(KEY, (len(matrix),))
    spent = []
    for tolerance in (1.0, 0.1, 1e-2, 1e-3):
        counted.clear()
        ritz = jax.block_until_ready(probes.top_eigenvalue(product, start, 40, tolerance))
        jax.effects_barrier()
        spent.append(len(counted))
        assert float(ritz.residual) <= tolerance * abs(float(ritz.value))
        if tolerance <= 1e-2:  # the value's error is of the order of the residual squared
            assert float(ritz.value) == pytest.approx(5.0, rel=1e-4)
    assert spent == sorted(set(spent))
    assert spent[-1] < 40


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_curvature_of_something_not_finite_is_nan(bad):
    matrix = np.diag([1.0, 2, 3])
    matrix[1, 1] = bad
    ritz = probes.top_eigenvalue(lambda v: f32(matrix) @ v, jnp.ones(3))
    assert np.isnan(ritz.value)
    assert np.isnan(ritz.residual)
    # a diverged lane leaves its neighbour alone
    both = jax.vmap(lambda m: probes.top_eigenvalue(lambda v: m @ v, jnp.ones(3)))(
        f32([matrix, np.diag([1.0, 2, 3])])
    )
    assert np.isnan(both.value[0])
    assert float(both.value[1]) == pytest.approx(3.0, rel=1e-5)


# --------------------------------------------------------------------------------------------------
# units

RARE = np.zeros((200, 5), np.float32)  # units positive on 0, 1, 2, 3 and 200 of 200 inputs
for unit, count in enumerate([0, 1, 2, 3, 200]):
    RARE[:count, unit] = 0.5


def test_dormant_fraction():
    # less than 1 % of 200 is less than 2 inputs; exactly at the threshold is alive
    assert everywhere(probes.dormant_fraction, f32(RARE)) == pytest.approx(2 / 5)
    assert value(lambda a: probes.dormant_fraction(a, 0.015), f32(RARE)) == pytest.approx(3 / 5)
    # positive, not just different from zero
    assert value(probes.dormant_fraction, f32(-RARE)) == 1
    assert value(probes.dormant_fraction, jnp.ones((7, 3))) == 0
    # over all units of all groups, not the mean of the groups' fractions
    groups = {"h0": f32(RARE), "h1": jnp.ones((200, 3))}
    assert value(probes.dormant_fraction, groups) == pytest.approx(2 / 8)


@pytest.mark.parametrize("inputs", [100, 200, 300, 500, 512, 700, 1000, 30_000])
def test_dormant_fraction_at_the_threshold(inputs):
    """A unit positive on exactly 1 % of the inputs is not positive on less than 1 %; one input
    fewer is.
    """
    exact, activations = inputs // 100, np.zeros((inputs, 2), np.float32)
    activations[:exact, 0], activations[: exact - 1, 1] = 1, 1
    share = exact / inputs
    for function in (probes.dormant_fraction, jax.jit(probes.dormant_fraction, static_argnums=1)):
        assert float(function(f32(activations), share)) == 0.5


def test_never_active_fraction():
    # 200 inputs are fewer than 1 / share, so that one input is enough
    assert value(probes.never_active_fraction, f32(RARE)) == pytest.approx(1 / 5)
    # exactly at the threshold counts, other than for dormant_fraction: 2 of 200 inputs
    assert value(lambda a: probes.never_active_fraction(a, 0.01), f32(RARE)) == pytest.approx(3 / 5)
    assert value(lambda a: probes.dormant_fraction(a, 0.01), f32(RARE)) == pytest.approx(2 / 5)
    # active is positive, not different from zero
    assert value(probes.never_active_fraction, f32(-RARE)) == 1
    # over all units of all groups, not the mean of the groups' fractions
    groups = {"h0": f32(RARE), "h1": jnp.ones((200, 3))}
    assert value(probes.never_active_fraction, groups) == pytest.approx(1 / 8)


@pytest.mark.parametrize("inputs", [9_999, 10_000, 30_000])
def test_never_active_is_at_most_one_input_in_ten_thousand(inputs):
    activations, allowed = np.zeros((inputs, 3), np.float32), inputs // 10_000
    activations[:allowed, 1], activations[: allowed + 1, 2] = 1, 1
    assert float(probes.never_active_fraction(f32(activations))) == pytest.approx(2 / 3)


def test_tau_dormant_fraction():
    magnitudes = np.array([0.0, 0.1, 0.11, 1.0, 3.79])  # mean 1
    signs = np.array([1, -1])[:, None]
    activations = f32(signs * magnitudes)
    assert everywhere(probes.tau_dormant_fraction, activations) == pytest.approx(2 / 5)
    assert value(lambda a: probes.tau_dormant_fraction(a, 0.0), activations) == pytest.approx(1 / 5)
    # exactly at the threshold is dormant: magnitudes 1, 2, 3 (mean 2) with tau a half
    assert value(
        lambda a: probes.tau_dormant_fraction(a, 0.5), f32([[1, 2, 3], [-1, 2, -3]])
    ) == pytest.approx(1 / 3)
    # the mean of the layer, not its sum: 0.2 of the mean is 0.04 of the sum
    assert value(probes.tau_dormant_fraction, f32([[0.2, 1, 1, 1, 1.8]])) == 0
    # each group has its own mean, and a silent group is dormant altogether
    groups = {"h0": f32([[1.0, 1.0]]), "h1": f32([[0.01, 0.01, 0.01]]), "h2": jnp.zeros((1, 3))}
    assert value(probes.tau_dormant_fraction, groups) == pytest.approx(3 / 8)
    assert (
        value(
            lambda a: probes.tau_dormant_fraction(a, 0.1), jnp.concatenate(list(groups.values()), 1)
        )
        == 6 / 8
    )


def test_positions_count_as_inputs():
    maps = np.zeros((2, 10, 10, 3), np.float32)  # [N, H, W, C]: 200 positions
    maps[0, 0, :2, 0], maps[0, 0, 0, 1], maps[..., 2] = 1, 1, 1
    assert everywhere(probes.dormant_fraction, f32(maps)) == pytest.approx(1 / 3)
    assert value(probes.tau_dormant_fraction, f32(maps)) == pytest.approx(2 / 3)
    rank = value(probes.effective_rank, f32(maps))
    assert rank == pytest.approx(value(probes.effective_rank, f32(maps.reshape(200, 3))), rel=1e-6)


# --------------------------------------------------------------------------------------------------
# representation


def test_representation_change():
    before = f32([[3.0, 4], [0, 1], [0, 0]])
    now = f32([[3.0, 4 + 5], [0, 1], [9, 9]])
    # ratios 5/5, 0/1, and none for the input whose old representation is zero
    assert everywhere(probes.representation_change, now, before) == pytest.approx(0.5)
    assert value(probes.representation_change, before, before) == 0
    assert value(probes.representation_change, 3 * before, before) == pytest.approx(2.0)
    assert value(probes.representation_change, jnp.zeros((3, 2)), before) == pytest.approx(1.0)
    assert np.isnan(probes.representation_change(now, jnp.zeros((3, 2))))
    # a mean of ratios, not a ratio of means: 1/1 and 0/100
    assert value(
        probes.representation_change, f32([[2.0], [100]]), f32([[1.0], [100]])
    ) == pytest.approx(0.5)
    # positions belong to the input
    maps = f32(np.random.default_rng(0).normal(size=(2, 4, 2, 2, 3)))
    want = [
        np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in zip(*np.asarray(maps), strict=True)
    ]
    assert value(probes.representation_change, maps[0], maps[1]) == pytest.approx(
        np.mean(want), rel=1e-5
    )


def test_ranks_of_many_positions_need_no_square_of_them():
    many = jax.ShapeDtypeStruct((50_000, 3), jnp.float32)
    compiled = jax.jit(probes.effective_rank).lower(many).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 10 * 50_000 * 3 * 4


def test_effective_rank():
    rank = jax.jit(probes.effective_rank)
    for n in (1, 3, 7):
        assert float(rank(0.01 * jnp.eye(n))) == pytest.approx(n, rel=1e-5)
    assert float(rank(f32(np.outer(np.arange(1, 9), [1, -2, 3])))) == pytest.approx(1, rel=1e-4)
    assert float(rank(jnp.zeros((4, 3)))) == 0
    # singular values 3 and 1: p = 3/4, 1/4, exp(entropy) = 4 / 27^(1/4)
    assert float(rank(f32([[3, 0], [0, 0], [0, -1]]))) == pytest.approx(4 / 27**0.25, rel=1e-5)
    # not centred: equal rows have rank one, not zero
    assert float(rank(jnp.ones((8, 3)))) == pytest.approx(1, rel=1e-4)
    matrix = np.random.default_rng(0).normal(size=(30, 8)) * np.arange(8)
    p = np.linalg.svd(matrix, compute_uv=False)
    p = p[p > 1e-9] / p.sum()
    assert everywhere(probes.effective_rank, f32(matrix)) == pytest.approx(
        np.exp(-(p * np.log(p)).sum()), rel=1e-4
    )
    for bad in (np.nan, np.inf):
        assert np.isnan(probes.effective_rank(f32([[1, 2], [bad, 3]])))


# --------------------------------------------------------------------------------------------------
# parameters

TREE = {
    "a": {"kernel": f32([[3.0, 0], [0, 0]]), "bias": f32([4.0, 0])},
    "b": {"scale": f32([12.0])},
}


def test_norms_and_distance():
    assert everywhere(probes.parameter_norm, TREE) == pytest.approx(13.0)
    start = {
        "a": {"kernel": f32([[3.0, 2], [0, 0]]), "bias": f32([4.0, 3])},
        "b": {"scale": f32([6.0])},
    }
    assert everywhere(probes.distance_from_init, TREE, start) == pytest.approx(7.0)  # 2, 3, 6
    assert value(probes.distance_from_init, TREE, TREE) == 0
    # gradient of sum c x^2 / 2 is c x
    quadratic = lambda p: 0.5 * sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(p)) * 2.0  # noqa: E731
    assert everywhere(lambda p: probes.gradient_norm(quadratic, p), TREE) == pytest.approx(26.0)


# --------------------------------------------------------------------------------------------------
# on a Snapshot


# those that look into the layers of a network: in test_mechanisms.py, test_kernel.py, test_traps.py
OF_NETWORKS = ("gradient_alignment", "ntk", "trap", "normal_gradient_fraction")
# those for groups of units that can be clones of each other
OF_CLONES = ("clone_r2",)
ANY_WIDTH = [name for name in PROBES if name not in (*OF_NETWORKS, *OF_CLONES)]


def viewing(hidden):
    """The view of a Snapshot whose preactivations are its activations."""
    return lambda params: View(None, None, hidden, hidden, params, params)


def gradients_of(hidden):
    """Gradients by activations that make those of magnitude below 1e-4 of their mean few."""
    return lambda params: {g: 1e-3 * (h - h[:1]) for g, h in hidden.items()}


def test_columns_of_every_probe():
    loss, params = mlp_loss()
    initial = jax.tree.map(lambda p: p + 1, params)
    now, before = (
        {"h0": f32(RARE), "h1": jnp.ones((200, 2))},
        {"h0": f32(2 * RARE), "h1": 4 * jnp.ones((200, 2))},
    )
    seen = {"view": viewing(now), "activation": jnp.tanh, "unit_gradients": gradients_of(now)}
    snapshot = Snapshot(params, params, initial, loss, now, before, KEY, **seen)
    linear = float(((RARE > 0).mean(0) >= 0.99).sum())
    found = {
        name: jax.tree.map(float, jax.jit(lambda probe=probe: probe(snapshot))())
        for name, probe in PROBES.items()
        if name not in (*OF_NETWORKS, *OF_CLONES, "feature_spectrum", "preactivation")
    }
    usual = np.maximum(np.abs(RARE).mean(0), 1e-12)
    small = np.abs(RARE - RARE[:1]) < 0.1 * usual
    still = int((small.mean(0) > 0.99).sum())
    flat = float((1 - np.tanh(RARE[0, 4]) ** 2 < 1e-3).sum())
    centred = np.linalg.svd(RARE - RARE.mean(0), compute_uv=False)
    spectrum = PROBES["feature_spectrum"](snapshot)[""]  # of rank 1
    np.testing.assert_allclose(spectrum, np.eye(1, 32)[0], atol=1e-6)
    preactivation = PROBES["preactivation"](snapshot)
    assert float(preactivation["h1"]) == 1
    assert float(preactivation["histogram"].sum()) == pytest.approx(1)
    units = np.concatenate([RARE.mean(0), np.ones(2)])
    assert float(preactivation[""]) == pytest.approx(units.mean(), abs=1e-5)
    gradient = jax.grad(loss)(params)

    def norm(tree):
        squares = [(np.asarray(leaf) ** 2).sum() for leaf in jax.tree.leaves(tree)]
        return float(np.sqrt(sum(squares)))

    want = {
        "hessian_top": {
            "": dense_spectrum(loss, params)[-1],
            "residual": found["hessian_top"]["residual"],
        },
        "representation_change": {"": 0.75, "h0": 0.5, "h1": 0.75},
        "dormant_fraction": {"": 2 / 7, "h0": 2 / 5, "h1": 0},
        "never_active_fraction": {"": 1 / 7, "h0": 1 / 5, "h1": 0},
        "tau_dormant_fraction": {"": 4 / 7, "h0": 4 / 5, "h1": 0},
        "distance_from_init": {
            "": 43**0.5,
            "relative": 43**0.5 / norm(initial),
            "one": 25**0.5,
            "two": 18**0.5,
        },
        "parameter_norm": {
            "": norm(params),
            "one": norm(params["one"]),
            "two": norm(params["two"]),
        },
        "gradient_norm": {
            "": norm(gradient),
            "one": norm(gradient["one"]),
            "two": norm(gradient["two"]),
        },
        "effective_rank": {"": 1, "h0": found["effective_rank"]["h0"], "h1": 1},
        # (what goes in comes out: a line, but for units that never change)
        "linearized_fraction": {
            "": (linear + 2) / 7,
            "line": (RARE.std(0) > 0).sum() / 7,
            "line/h0": (RARE.std(0) > 0).sum() / 5,
            "line/h1": 0,
            "h0": linear / 5,
            "h1": 1,
        },
        "dead_fraction": {"": 4 / 7, "h0": 4 / 5, "h1": 0},
        "duplicate_fraction": {"": 1 / 7, "h0": 0, "h1": 1 / 2},
        "frozen_fraction": {"": flat, "h0": flat, "h1": flat},
        # (units that never change have no gradient here)
        "saturated_fraction": {"": (2 + still) / 7, "h0": still / 5, "h1": 1},
        "participation_ratio": {
            "": 0,
            "h0": (centred**2).sum() ** 2 / (centred**4).sum(),
            "h1": 0,
        },
        "stable_rank": {
            "": 1,
            "h0": (RARE**2).sum() / np.linalg.norm(RARE, 2) ** 2,
            "h1": 1,
        },
        "hard_rank": {"": 1, "h0": 4, "h1": 1},
    }
    assert set(found) == set(want)
    for name, columns in want.items():
        assert found[name] == pytest.approx(columns, rel=1e-4, abs=1e-6), name
    assert 0 < found["hessian_top"]["residual"] <= 1e-3 * found["hessian_top"][""]
    assert found["effective_rank"]["h0"] == pytest.approx(float(probes.effective_rank(now["h0"])))


def snapshot_of(arrays):
    """A Snapshot whose arrays are all given: params, initial, hidden, previous_hidden, and what is
    added to the loss.
    """
    params, initial, hidden, previous_hidden, more = arrays
    plain = mlp_loss()[0]
    return Snapshot(
        params,
        params,
        initial,
        lambda p: plain(p) + more,
        hidden,
        previous_hidden,
        KEY,
        view=viewing(hidden),
        activation=jnp.tanh,
        unit_gradients=gradients_of(hidden),
    )


def healthy_arrays():
    params = mlp_loss()[1]
    hidden = {"h0": f32(RARE[:20]), "h1": jnp.ones((20, 2))}
    before = {"h0": f32(2 * RARE[:20]), "h1": 4 * jnp.ones((20, 2))}
    return params, jax.tree.map(lambda p: p + 1, params), hidden, before, jnp.zeros(())


def columns_that_depend(path, columns):
    """Which of the columns depend on the array at `path` of `healthy_arrays`."""
    kind = ("params", "initial", "hidden", "previous_hidden", "loss")[path[0].idx]
    layer = path[1].key if len(path) > 1 else ""
    # probes that depend on it in all of their columns, and those that do in that of the layer and
    # in others
    whole = {
        "params": (
            ("hessian_top", "gradient_norm"),
            {"distance_from_init": ("", "relative"), "parameter_norm": ("",)},
        ),
        "initial": ((), {"distance_from_init": ("", "relative")}),
        "hidden": (
            (),
            dict.fromkeys(
                (
                    "dormant_fraction",
                    "never_active_fraction",
                    "tau_dormant_fraction",
                    "linearized_fraction",
                    "dead_fraction",
                    "duplicate_fraction",
                    "frozen_fraction",
                    "saturated_fraction",
                ),
                ("",),
            ),
        ),
        "previous_hidden": ((), {}),
        "loss": (("hessian_top", "gradient_norm"), {}),
    }
    everywhere, partly = whole[kind]
    last = ("",) if layer == "h1" else ()
    if kind in ("hidden", "previous_hidden"):
        partly = partly | {"representation_change": last}
    if kind == "hidden":
        ranks = ("effective_rank", "participation_ratio", "stable_rank", "hard_rank")
        partly = partly | {
            **dict.fromkeys(ranks, last),
            "feature_spectrum": (*last, *(("largest",) if last else ())),
            "linearized_fraction": ("", "line", f"line/{layer}"),
            "preactivation": ("", "size", "deviation", "histogram"),
        }
    found = {(name, column) for name, column in columns if name in everywhere}
    some = {(name, column) for name, others in partly.items() for column in (*others, layer)}
    return found | (some & set(columns))


@pytest.mark.long
def test_what_depends_on_something_not_finite_is_nan_and_nothing_else():
    """Each array of a Snapshot in turn gets one NaN, inf or -inf; every lane is a network of its
    own.
    """
    healthy = healthy_arrays()
    leaves, tree = jax.tree_util.tree_flatten_with_path(healthy)
    lanes, paths = [healthy], [None]
    for place, (path, leaf) in enumerate(leaves):
        for bad in (np.nan, np.inf, -np.inf):
            changed = [a for _, a in leaves]
            changed[place] = leaf.reshape(-1).at[leaf.size // 2].set(bad).reshape(leaf.shape)
            lanes.append(jax.tree.unflatten(tree, changed))
            paths.append(path)

    def columns(arrays):
        snapshot = snapshot_of(arrays)
        return {(name, c): v for name in ANY_WIDTH for c, v in PROBES[name](snapshot).items()}

    found = jax.tree.map(
        np.asarray, quickly(jax.vmap(columns), jax.tree.map(lambda *a: jnp.stack(a), *lanes))
    )
    touched = set()
    for lane, path in enumerate(paths):
        lost = columns_that_depend(path, found) if path else set()
        touched |= lost
        for column, numbers in found.items():
            wanted = np.nan if column in lost else numbers[0]
            np.testing.assert_array_equal(
                numbers[lane], wanted, err_msg=f"{column} with {path} not finite"
            )
    assert touched == set(found), "a column that depends on nothing"
    assert {name for name, _ in touched} == set(ANY_WIDTH)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
@pytest.mark.long
def test_shares_and_ranks_have_no_scale(scale):
    activations = np.abs(np.random.default_rng(0).normal(size=(40, 6))).astype(np.float32)
    for function in (
        probes.effective_rank,
        probes.participation_ratio,
        probes.stable_rank,
        probes.hard_rank,
        probes.clone_r2,
        lambda a: probes.duplicate_fraction(a, 0.5),
        lambda a: probes.tau_dormant_fraction(a, 0.9),
    ):
        assert float(function(f32(activations * scale))) == pytest.approx(
            float(function(f32(activations))), rel=1e-5
        )


def test_norms_whose_squares_overflow_are_nan():
    large = {"a": jnp.full(3, 1e30)}
    assert np.isnan(probes.parameter_norm(large))
    assert np.isnan(probes.distance_from_init(large, {"a": jnp.zeros(3)}))
    assert np.isnan(probes.gradient_norm(lambda p: 1e30 * p["a"].sum(), {"a": jnp.zeros(3)}))
    assert np.isnan(probes.representation_change(jnp.full((2, 3), 1e30), jnp.ones((2, 3))))


# ------------------------------------------------------------------------------------------ other
# trees and dtypes


OF_ONE_ARRAY = ("rank", "change", "participation", "stable", "hard", "clone", "score")


def every_number(dtype, second=None):
    """All probes of plain arguments on random arrays of a dtype, one leaf of each tree of a second
    one.
    """
    random = np.random.default_rng(0)
    first, other = (jnp.asarray(random.normal(size=(12, 4)), dtype) for _ in range(2))
    mixed = {"a": first, "b": (other[:2].astype(second or dtype),)}
    loss = lambda p: jnp.cos(p["a"]).sum() + (p["b"][0] ** 4).sum()  # noqa: E731
    return {
        "dormant": probes.dormant_fraction(mixed, 0.5),
        "never": probes.never_active_fraction(mixed, 0.25),
        "tau": probes.tau_dormant_fraction(mixed, 0.9),
        "rank": probes.effective_rank(first),
        "change": probes.representation_change(first, other),
        "dead": probes.dead_fraction(mixed, 0.05, 0.5),
        "duplicate": probes.duplicate_fraction(mixed, 0.1),
        "frozen": probes.frozen_fraction(mixed, jnp.tanh, 0.2, 0.5),
        "participation": probes.participation_ratio(first),
        "stable": probes.stable_rank(first),
        "hard": probes.hard_rank(first),
        "clone": probes.clone_r2(first),
        "score": probes.clone_score(first),
        "norm": probes.parameter_norm(mixed),
        "distance": probes.distance_from_init(mixed, jax.tree.map(jnp.zeros_like, mixed)),
        "gradient": probes.gradient_norm(loss, mixed),
        **probes.hessian_ritz(loss, mixed, KEY)._asdict(),
        "top": probes.top_eigenvalue(lambda v: jax.tree.map(lambda a: 3 * a, v), mixed).value,
    }


@pytest.mark.long
def test_dtypes():
    """float32 and float64 stay, bfloat16 is computed with in float32, mixed trees in the wider."""

    def found(*dtypes):
        return quickly(lambda: every_number(*map(jnp.dtype, dtypes)))

    plain, narrow, mixed = found("float32"), found("bfloat16"), found("bfloat16", "float32")
    assert {number.dtype for number in (*narrow.values(), *mixed.values())} == {
        jnp.dtype("float32")
    }
    with jax.enable_x64(True):
        single, double, wide = found("float32"), found("float64"), found("float32", "float64")
        assert {number.dtype for number in single.values()} == {jnp.dtype("float32")}
        assert {number.dtype for number in double.values()} == {jnp.dtype("float64")}
        assert {n.dtype for name, n in wide.items() if name not in OF_ONE_ARRAY} == {
            jnp.dtype("float64")
        }
    for name in plain.keys() - {"residual"}:
        assert float(single[name]) == pytest.approx(float(plain[name]), rel=1e-5), name
        assert float(double[name]) == pytest.approx(float(plain[name]), rel=1e-4), name
        # rounded to 8 bits
        assert float(narrow[name]) == pytest.approx(float(plain[name]), rel=0.05), name


@pytest.mark.long
def test_trees_of_other_containers():
    tree = {"a": {"kernel": f32([[3.0, 0], [0, 0]]), "bias": f32([4.0, 0])}}
    state = nnx.state(nnx.Linear(2, 2, rngs=nnx.Rngs(0)), nnx.Param)
    quadratic = lambda p: 1.5 * sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(p))  # noqa: E731

    def numbers(params):
        distance = probes.distance_from_init(params, jax.tree.map(jnp.zeros_like, params))
        gradient = probes.gradient_norm(quadratic, params)
        return (
            probes.parameter_norm(params),
            distance,
            gradient,
            probes.hessian_top(quadratic, params, KEY),
        )

    for params in (tree, flax.core.freeze(tree), [*tree["a"].values()], state):
        size = float(
            np.sqrt(sum((np.asarray(leaf) ** 2).sum() for leaf in jax.tree.leaves(params)))
        )
        assert np.allclose(quickly(numbers, params), (size, size, 3 * size, 3), rtol=1e-5)
    # activations as Flax's sow leaves them
    sown = {"Dense_0": {"h": (f32(RARE),)}, "Dense_1": {"h": (jnp.ones((200, 3)),)}}
    for function in (
        probes.dormant_fraction,
        probes.never_active_fraction,
        probes.tau_dormant_fraction,
    ):
        want = function({"h0": f32(RARE), "h1": jnp.ones((200, 3))})
        assert function(sown) == function(flax.core.freeze(sown)) == want


GOOD = jnp.ones((4, 3))
FLAT = jnp.ones(3)
SQUARES = lambda p: (p**2).sum()  # noqa: E731
REFUSED = {
    "one dimension": (
        probes.dormant_fraction,
        (FLAT,),
        r"activations has shape \(3,\): allowed is \[N, ..., H\]",
    ),
    "a group of one": (
        probes.tau_dormant_fraction,
        ({"h": FLAT},),
        r"activations\['h'\] has shape \(3,\)",
    ),
    "no inputs": (
        probes.never_active_fraction,
        (jnp.ones((0, 3)),),
        r"shape \(0, 3\): .* at least one input",
    ),
    "no groups": (
        probes.dormant_fraction,
        ({},),
        "activations has no arrays: allowed is at least one",
    ),
    "lists of numbers": (
        probes.dormant_fraction,
        ([[1.0]],),
        r"activations\[0\]\[0\] is a float: allowed is one array",
    ),
    "counts": (
        probes.dormant_fraction,
        (jnp.ones((4, 3), int),),
        "activations has int32: allowed are arrays of float",
    ),
    "share in percent": (
        probes.dormant_fraction,
        (GOOD, 5),
        "share is 5: allowed are numbers from 0 to 1",
    ),
    "negative share": (
        probes.never_active_fraction,
        (GOOD, -0.1),
        "share is -0.1: allowed are numbers from 0 to 1",
    ),
    "tau": (
        probes.tau_dormant_fraction,
        (GOOD, float("nan")),
        "tau is nan: allowed are finite numbers from 0",
    ),
    "a tuple": (
        probes.effective_rank,
        ((GOOD,),),
        "activations is a tuple: allowed is one array of activations",
    ),
    "a factor of one": (
        probes.clone_r2,
        (GOOD, 1),
        "factor is 1: allowed are whole numbers from 2",
    ),
    "a factor that does not divide": (
        probes.clone_score,
        (GOOD, 2),
        "factor is 2: allowed are whole numbers from 2 that divide the 3 units",
    ),
    "cosine": (
        probes.duplicate_fraction,
        (GOOD, 1.5),
        "cosine is 1.5: allowed are numbers from 0 to 1",
    ),
    "other inputs": (
        probes.representation_change,
        (GOOD, GOOD[:2]),
        r"now has shape \(4, 3\), before \(2, 3\)",
    ),
    "empty tree": (
        probes.parameter_norm,
        ({"a": {}},),
        "params has no arrays: allowed is a tree of at least one",
    ),
    "integers": (
        probes.parameter_norm,
        ({"a": jnp.arange(3)},),
        r"params has int32 at \['a'\]: allowed are arrays",
    ),
    "words": (
        probes.parameter_norm,
        ({"a": "b"},),
        r"params has str at \['a'\]: allowed are arrays",
    ),
    "other trees": (
        probes.distance_from_init,
        ({"a": FLAT}, {"b": FLAT}),
        "params and initial are different trees",
    ),
    "other shapes": (
        probes.distance_from_init,
        ({"a": FLAT}, {"a": FLAT[:1]}),
        r"shapes \[\(3,\)\], initial \[\(1,\)\]",
    ),
    "gradient": (
        probes.gradient_norm,
        (SQUARES, jnp.arange(3)),
        "params has int32: allowed are arrays",
    ),
    "no steps": (
        probes.hessian_top,
        (SQUARES, FLAT, KEY, 0),
        "iterations is 0: allowed are whole numbers from 1",
    ),
    "half a step": (
        probes.hessian_top,
        (SQUARES, FLAT, KEY, 1.5),
        "iterations is 1.5: allowed are whole numbers",
    ),
    "tolerance": (
        probes.hessian_ritz,
        (SQUARES, FLAT, KEY, 3, -1.0),
        "tolerance is -1.0: allowed are finite numbers",
    ),
    "seed as key": (
        probes.hessian_top,
        (SQUARES, FLAT, 0),
        r"key is 0: allowed is one key, as jax.random.key\(0\)",
    ),
    "many keys": (
        probes.hessian_top,
        (SQUARES, FLAT, KEYS),
        r"key is an array of key<fry> of shape \(3,\): allowed",
    ),
    "curvature of integers": (
        probes.hessian_top,
        (SQUARES, {"n": jnp.arange(3)}, KEY),
        r"params has int32 at \['n'\]",
    ),
    "product of integers": (
        probes.hessian_vector_product,
        (SQUARES, jnp.arange(3)),
        "params has int32: allowed",
    ),
    "start": (
        probes.top_eigenvalue,
        (lambda v: v, {}),
        "start has no arrays: allowed is a tree of at least one",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_arguments_that_are_none_get_one_sentence(case):
    function, arguments, sentence = REFUSED[case]
    with pytest.raises(ValueError, match=sentence) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)


def test_a_raw_key_is_a_key():
    quadratic = lambda p: 1.5 * (p**2).sum()  # noqa: E731
    assert float(probes.hessian_top(quadratic, FLAT, jax.random.PRNGKey(0))) == pytest.approx(
        3.0, rel=1e-5
    )


# -----------------------------------------------------------------------------------------------
# lanes that diverge


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.long
def test_logits_that_are_not_finite_have_no_loss(bad):
    """One such number among the logits of all examples is enough, also where their largest one is
    another.
    """
    data = jax.tree.map(jnp.asarray, tiny.data())
    environment = ENVIRONMENTS["random_labels"]()
    labels = environment.task(KEY, data, jnp.int32(0))

    def evaluated(bad):
        def apply(params, variables, x, train):
            logits = jnp.zeros((len(x), 4)).at[:, 1].set(x.mean((1, 2, 3)))
            return (
                jnp.where(
                    x[:, :1, 0, 0] == data_x[50, 0, 0, 0], jnp.array([0.0, 1.0, bad, 0.0]), logits
                ),
                {},
                {},
            )

        data_x = environment.examples(data, labels, jnp.arange(64)).x
        net = network.Network(None, apply, None, None, frozenset(), None, "float32")
        state = TrainState({}, {}, {}, {})
        return evaluation.evaluate(
            environment, net, state, lambda i: environment.examples(data, labels, i), 64, 32
        )

    assert np.isnan(jax.jit(evaluated)(bad)["loss"])
    assert np.isfinite(jax.jit(evaluated)(0.5)["loss"])


@pytest.mark.long
def test_a_lane_that_diverged_has_no_measurement(tmp_path):
    """Neither accuracy, nor test accuracy, nor any probe; it enters no statistic but is counted."""
    spec = tiny.spec(
        dataset=tiny.arrays(tmp_path), environment="permuted_pixels", transition="input", tasks=1,
        epochs=1, probes=("hessian_top", "dormant_fraction"),
    )  # fmt: skip
    lanes = grid(learning_rate=[0.1, 1e30], seed=[0, 1])
    table, arms = sweep.run(spec, lanes).set_index("learning_rate"), ["learning_rate"]
    settings = {*spec.axes(), "granularity", "transition_fraction"}
    measured = [
        m for m in statistics.metric_columns(table.reset_index(), arms) if m not in settings
    ]
    assert {
        "online_accuracy",
        "accuracy",
        "test_accuracy",
        "hessian_top/residual",
        "dormant_fraction/h0",
    } <= {*measured}
    assert table["finite"].to_dict() == {0.1: True, 1e30: False}
    for metric in measured:
        assert np.isfinite(table.loc[0.1, metric]).all(), metric
        assert not np.isfinite(table.loc[1e30, metric]).any(), metric
        assert metric == "loss" or table.loc[1e30, metric].isna().all(), metric
    summary = statistics.summary(table.reset_index(), arms).set_index([*arms, "metric"])
    for metric in measured:
        assert summary.loc[(0.1, metric), ["seeds", "count", "diverged"]].tolist() == [2, 2, 0]
        assert summary.loc[(1e30, metric), ["seeds", "count", "diverged"]].tolist() == [2, 0, 2]
    assert "0 of 2 (2 diverged)" in tables.final_table(table.reset_index(), arms, "accuracy")


@pytest.mark.long
def test_singular_values_of_lanes_on_two_devices_come_to_an_end():
    """LAPACK's routine for many matrices, on two devices at once, waited for ever from some size
    on.
    """
    spec = tiny.spec(samples=1000, epochs=1, batch_size=64, width=5, probes=("effective_rank",))
    table = sweep.run(spec, grid(seed=range(8)), lane_strategy="sharded", lane_width=4)
    assert np.isfinite(table["effective_rank"]).all()
