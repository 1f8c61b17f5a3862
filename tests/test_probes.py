"""Probes against dense linear algebra, numpy and values worked out by hand; each also jitted and over lanes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity_jax import probes
from plasticity_jax.probes import PROBES
from plasticity_jax.types import Snapshot

KEY = jax.random.key(3)
KEYS = jax.random.split(KEY, 3)


def f32(values):
    return jnp.asarray(values, jnp.float32)


def value(function, *arguments):
    return jax.tree.map(np.asarray, jax.jit(function)(*arguments))


def everywhere(function, *arguments, plain=True):
    """The value of `function` jitted, after comparing it with its value as it is and in each of two lanes."""
    jitted = value(function, *arguments)
    stacked = jax.tree.map(lambda a: jnp.stack([a, a]), arguments)
    lanes = jax.jit(jax.vmap(function))(*stacked)
    others = [jax.tree.map(lambda a, i=i: a[i], lanes) for i in range(2)] + ([function(*arguments)] if plain else [])
    for other in others:
        jax.tree.map(lambda j, o: np.testing.assert_allclose(o, j, rtol=2e-5, atol=1e-6), jitted, other)
    return jitted


# ---------------------------------------------------------------------------------------------------------- curvature


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
    assert compared(lambda p: probes.hessian_top(loss, p, KEYS[seed]), params) == pytest.approx(spectrum[-1], rel=1e-4)


def test_hessian_top_is_the_algebraic_maximum():
    # the loss with its sign changed: the eigenvalue of largest magnitude is negative and power iteration would find it
    loss, params = mlp_loss(sign=-1.0)
    spectrum = dense_spectrum(loss, params)
    assert -spectrum[0] > 1.5 * spectrum[-1] > 0
    found = jax.jit(lambda p: probes.hessian_top(loss, p, KEY, 43, 1e-4))(params)
    assert float(found) == pytest.approx(spectrum[-1], rel=1e-4)


def test_hessian_vector_product_is_the_hessian():
    loss, params = mlp_loss()
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    product = probes.hessian_vector_product(loss, params)
    rows = jax.jit(jax.vmap(lambda e: jax.flatten_util.ravel_pytree(product(unravel(e)))[0]))(jnp.eye(len(flat)))
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
    """Fewer distinct eigenvalues than iterations: exact after as many, and nothing may go wrong in those left over."""
    spectrum = np.asarray(SPECTRA[name])
    matrix = symmetric(spectrum) if rotated and len(spectrum) > 1 else np.diag(spectrum)
    scale = np.abs(spectrum).max()
    for tolerance in (1e-3, 0.0):  # 0 goes on for as long as rounding lets it
        ritz = top_of(matrix, tolerance=tolerance)
        assert ritz.value == pytest.approx(spectrum.max(), rel=1e-5, abs=3e-6 * scale)
        assert 0 <= ritz.residual <= 1e-3 * scale  # beyond exhaustion it may be larger than it need be


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
    """Far from converged: both numbers are those of the Krylov space, and the residual bounds the error truly."""
    spectrum = np.concatenate([np.linspace(-4, 1, 40), [3, 5]])
    matrix = symmetric(spectrum, seed=2)
    # the start vector: one normal draw, in the order of the flattened tree {"a": {"w"}, "b"}
    draw = np.asarray(jax.random.normal(KEY, (len(matrix),)), np.float64)
    start = np.concatenate([draw[len(matrix) // 2 :], draw[: len(matrix) // 2]])
    ritz = top_of(matrix, iterations, tolerance=0.0)
    value, residual = numpy_lanczos(np.asarray(matrix, np.float32).astype(np.float64), start, iterations)
    assert ritz.value == pytest.approx(value, rel=1e-4, abs=1e-5)
    assert ritz.residual == pytest.approx(residual, rel=2e-3, abs=1e-5)
    assert np.abs(spectrum - ritz.value).min() <= ritz.residual + 1e-5
    assert ritz.value <= spectrum.max() + 1e-5


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
    both = jax.vmap(lambda m: probes.top_eigenvalue(lambda v: m @ v, jnp.ones(3)))(f32([matrix, np.diag([1.0, 2, 3])]))
    assert np.isnan(both.value[0])
    assert float(both.value[1]) == pytest.approx(3.0, rel=1e-5)


# -------------------------------------------------------------------------------------------------------------- units

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


@pytest.mark.parametrize("inputs", [100, 200, 300, 500, 512, 700, 1000])
def test_dormant_fraction_at_the_threshold(inputs):
    """A unit positive on exactly 1 % of the inputs is not positive on less than 1 %; one input fewer is."""
    exact, activations = inputs // 100, np.zeros((inputs, 2), np.float32)
    activations[:exact, 0], activations[: exact - 1, 1] = 1, 1
    share = exact / inputs
    for function in (probes.dormant_fraction, jax.jit(probes.dormant_fraction, static_argnums=1)):
        assert float(function(f32(activations), share)) == 0.5


def test_tau_dormant_fraction():
    magnitudes = np.array([0.0, 0.1, 0.11, 1.0, 3.79])  # mean 1
    signs = np.array([1, -1])[:, None]
    activations = f32(signs * magnitudes)
    assert everywhere(probes.tau_dormant_fraction, activations) == pytest.approx(2 / 5)
    assert value(lambda a: probes.tau_dormant_fraction(a, 0.0), activations) == pytest.approx(1 / 5)
    # exactly at the threshold is dormant: magnitudes 1, 2, 3 (mean 2) with tau a half
    assert value(lambda a: probes.tau_dormant_fraction(a, 0.5), f32([[1, 2, 3], [-1, 2, -3]])) == pytest.approx(1 / 3)
    # the mean of the layer, not its sum: 0.2 of the mean is 0.04 of the sum
    assert value(probes.tau_dormant_fraction, f32([[0.2, 1, 1, 1, 1.8]])) == 0
    # each group has its own mean, and a silent group is dormant altogether
    groups = {"h0": f32([[1.0, 1.0]]), "h1": f32([[0.01, 0.01, 0.01]]), "h2": jnp.zeros((1, 3))}
    assert value(probes.tau_dormant_fraction, groups) == pytest.approx(3 / 8)
    assert value(lambda a: probes.tau_dormant_fraction(a, 0.1), jnp.concatenate(list(groups.values()), 1)) == 6 / 8


def test_positions_count_as_inputs():
    maps = np.zeros((2, 10, 10, 3), np.float32)  # [N, H, W, C]: 200 positions
    maps[0, 0, :2, 0], maps[0, 0, 0, 1], maps[..., 2] = 1, 1, 1
    assert everywhere(probes.dormant_fraction, f32(maps)) == pytest.approx(1 / 3)
    assert value(probes.tau_dormant_fraction, f32(maps)) == pytest.approx(2 / 3)
    rank = value(probes.effective_rank, f32(maps))
    assert rank == pytest.approx(value(probes.effective_rank, f32(maps.reshape(200, 3))), rel=1e-6)


# ----------------------------------------------------------------------------------------------------- representation


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
    assert value(probes.representation_change, f32([[2.0], [100]]), f32([[1.0], [100]])) == pytest.approx(0.5)
    # positions belong to the input
    maps = f32(np.random.default_rng(0).normal(size=(2, 4, 2, 2, 3)))
    want = [np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in zip(*np.asarray(maps), strict=True)]
    assert value(probes.representation_change, maps[0], maps[1]) == pytest.approx(np.mean(want), rel=1e-5)


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
    assert everywhere(probes.effective_rank, f32(matrix)) == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-4)
    for bad in (np.nan, np.inf):
        assert np.isnan(probes.effective_rank(f32([[1, 2], [bad, 3]])))


# --------------------------------------------------------------------------------------------------------- parameters

TREE = {"a": {"kernel": f32([[3.0, 0], [0, 0]]), "bias": f32([4.0, 0])}, "b": {"scale": f32([12.0])}}


def test_norms_and_distance():
    assert everywhere(probes.parameter_norm, TREE) == pytest.approx(13.0)
    start = {"a": {"kernel": f32([[3.0, 2], [0, 0]]), "bias": f32([4.0, 3])}, "b": {"scale": f32([6.0])}}
    assert everywhere(probes.distance_from_init, TREE, start) == pytest.approx(7.0)  # 2, 3, 6
    assert value(probes.distance_from_init, TREE, TREE) == 0
    # gradient of sum c x^2 / 2 is c x
    quadratic = lambda p: 0.5 * sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(p)) * 2.0  # noqa: E731
    assert everywhere(lambda p: probes.gradient_norm(quadratic, p), TREE) == pytest.approx(26.0)


# ---------------------------------------------------------------------------------------------------- on a Snapshot


def test_columns_of_every_probe():
    loss, params = mlp_loss()
    initial = jax.tree.map(lambda p: p + 1, params)
    now, before = {"h0": f32(RARE), "h1": jnp.ones((200, 2))}, {"h0": f32(2 * RARE), "h1": 4 * jnp.ones((200, 2))}
    snapshot = Snapshot(params, params, initial, loss, now, before, KEY)
    found = {
        name: jax.tree.map(float, jax.jit(lambda probe=probe: probe(snapshot))()) for name, probe in PROBES.items()
    }
    gradient = jax.grad(loss)(params)
    norm = lambda tree: float(np.sqrt(sum((np.asarray(leaf) ** 2).sum() for leaf in jax.tree.leaves(tree))))  # noqa: E731
    want = {
        "hessian_top": {"": dense_spectrum(loss, params)[-1], "residual": found["hessian_top"]["residual"]},
        "representation_change": {"": 0.75, "h0": 0.5, "h1": 0.75},
        "dormant_fraction": {"": 2 / 7, "h0": 2 / 5, "h1": 0},
        "tau_dormant_fraction": {"": 4 / 7, "h0": 4 / 5, "h1": 0},
        "distance_from_init": {
            "": 43**0.5,
            "relative": 43**0.5 / norm(initial),
            "one": 25**0.5,
            "two": 18**0.5,
        },
        "parameter_norm": {"": norm(params), "one": norm(params["one"]), "two": norm(params["two"])},
        "gradient_norm": {"": norm(gradient), "one": norm(gradient["one"]), "two": norm(gradient["two"])},
        "effective_rank": {"": 1, "h0": found["effective_rank"]["h0"], "h1": 1},
    }
    assert set(found) == set(want)
    for name, columns in want.items():
        assert found[name] == pytest.approx(columns, rel=1e-4, abs=1e-6), name
    assert 0 < found["hessian_top"]["residual"] <= 1e-3 * found["hessian_top"][""]
    assert found["effective_rank"]["h0"] == pytest.approx(float(probes.effective_rank(now["h0"])))
