"""Penalties against numpy re-implementations of their formulas and numbers worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.loops import assert_bitwise, context, drive, gradients, leaves, small_tree

from plasticity_jax import methods


class NumpyAdam:
    """Kingma & Ba 2015, algorithm 1, in float64."""

    def __init__(self, rate):
        self.rate, self.t, self.m, self.v = rate, 0, {}, {}

    def step(self, params, gradient):
        self.t += 1
        after = {}
        for k, p in params.items():
            self.m[k] = 0.9 * self.m.get(k, 0) + 0.1 * gradient[k]
            self.v[k] = 0.999 * self.v.get(k, 0) + 0.001 * gradient[k] ** 2
            m, v = self.m[k] / (1 - 0.9**self.t), self.v[k] / (1 - 0.999**self.t)
            after[k] = p - self.rate * m / (np.sqrt(v) + 1e-8)
        return after


def test_l2_and_l2_init_by_hand():
    params = {"layer": {"kernel": jnp.array([[2.0, -1.0]]), "bias": jnp.array([4.0, 0.5])}}
    zero = jax.tree.map(jnp.zeros_like, params)
    # gradient of s * p^2 is 2 s p: the step of SGD is -0.1 * 2 * 0.5 * p = -0.1 p
    tx = methods.l2(strength=0.5)(optax.sgd(0.1))
    updates, _ = tx.update(zero, tx.init(params), params, ctx=context())
    np.testing.assert_allclose(updates["layer"]["kernel"], [[-0.2, 0.1]], rtol=1e-6)
    np.testing.assert_allclose(updates["layer"]["bias"], [-0.4, -0.05], rtol=1e-6)
    # of s * (p - p0)^2 it is 2 s (p - p0), p0 all zero here: moved by (1, 3) from the anchor (1,
    # -4)
    tx = methods.l2_init(strength=0.5)(optax.sgd(0.1))
    anchored = tx.init(
        {"layer": {"kernel": jnp.array([[1.0, -4.0]]), "bias": jnp.array([4.0, 0.5])}}
    )
    updates, _ = tx.update(zero, anchored, params, ctx=context())
    np.testing.assert_allclose(updates["layer"]["kernel"], [[-0.1, -0.3]], rtol=1e-6)
    np.testing.assert_array_equal(updates["layer"]["bias"], [0.0, 0.0])


@pytest.mark.parametrize("on", ["all", "matrices"])
@pytest.mark.parametrize("name", ["l2", "l2_init"])
def test_l2_moments_of_adam_see_the_sum(name, on):
    params = small_tree()
    method = getattr(methods, name)(strength=0.3, on=on)
    got = drive(method(optax.adam(0.01)), params, 6, compiled=True)
    adam, want, anchor = NumpyAdam(0.01), leaves(params), leaves(params)
    for step, (after, _) in enumerate(got):
        gradient = leaves(gradients(params, step))
        for k, p in want.items():
            if on == "all" or p.ndim >= 2:
                gradient[k] = gradient[k] + 2 * 0.3 * (p - (anchor[k] if name == "l2_init" else 0))
        want = adam.step(want, gradient)
        for k, p in leaves(after).items():
            np.testing.assert_allclose(p, want[k], rtol=2e-5, atol=1e-6, err_msg=k)


def test_l2_is_half_of_pytorch_weight_decay_and_not_decoupled():
    # with Adam and no loss gradient, a coupled penalty gives a first step of lr * sign(p), whatever
    # its strength
    params = {"layer": {"kernel": jnp.array([[2.0, -0.01]]), "bias": jnp.array([-3.0, 0.2])}}
    tx = methods.l2(strength=0.05)(optax.adam(0.01))
    updates, _ = tx.update(
        jax.tree.map(jnp.zeros_like, params), tx.init(params), params, ctx=context()
    )
    # eps / |g| is 1e-5 here
    np.testing.assert_allclose(updates["layer"]["kernel"], [[-0.01, 0.01]], rtol=1e-4)
    np.testing.assert_allclose(updates["layer"]["bias"], [0.01, -0.01], rtol=1e-4)


@pytest.mark.parametrize("name", ["l2", "l2_init"])
def test_l2_refuses_another_on(name):
    with pytest.raises(
        ValueError, match=rf"{name}\.on is 'weights': allowed are 'all', 'matrices'"
    ):
        getattr(methods, name)(on="weights")


def with_spectrum(random, shape, spectrum):
    rows, columns = int(np.prod(shape[:-1])), shape[-1]
    left = np.linalg.qr(random.normal(size=(rows, rows)))[0]
    right = np.linalg.qr(random.normal(size=(columns, columns)))[0]
    sigma = np.zeros((rows, columns))
    np.fill_diagonal(sigma, spectrum)
    return (left @ sigma @ right.T).reshape(shape)


def spectral_tree(scale=1.0, seed=0):
    random = np.random.default_rng(seed)
    tree = {
        "layer0": {
            "kernel": with_spectrum(random, (3, 2), [1.7, 0.4]),
            "bias": random.normal(size=2),
        },
        "norm0": {"scale": random.normal(size=2), "bias": random.normal(size=2)},
        "conv": {
            "kernel": with_spectrum(random, (2, 2, 2, 3), [0.6, 0.2, 0.1]),
            "bias": random.normal(size=3),
        },
    }
    return jax.tree.map(lambda a: jnp.asarray(scale * a, jnp.float32), tree)


KERNELS, BIASES = ("layer0/kernel", "conv/kernel"), ("layer0/bias", "conv/bias")


def spectral_value(tree, tau, power, bias_power):
    total = 0.0
    for name in KERNELS:
        matrix = tree[name].reshape(-1, tree[name].shape[-1])
        total += (np.linalg.svd(matrix, compute_uv=False)[0] ** power - tau[name] ** power) ** 2
    return total + sum((tree[name] ** 2).sum() ** bias_power for name in BIASES)


def spectral_gradient(tree, tau, power, bias_power):
    gradient = {k: np.zeros_like(p) for k, p in tree.items()}
    for name in KERNELS:
        u, s, vt = np.linalg.svd(tree[name].reshape(-1, tree[name].shape[-1]))
        slope = 2 * power * (s[0] ** power - tau[name] ** power) * s[0] ** (power - 1)
        gradient[name] = (slope * np.outer(u[:, 0], vt[0])).reshape(tree[name].shape)
    for name in BIASES:
        gradient[name] = bias_power * (tree[name] ** 2).sum() ** (bias_power - 1) * 2 * tree[name]
    return gradient


@pytest.mark.parametrize("bias_power", [1, 2])
@pytest.mark.parametrize("power", [1, 2, 3])
@pytest.mark.parametrize("target", ["one", "initial"])
def test_spectral_against_svd(target, power, bias_power):
    initial, params = spectral_tree(), spectral_tree(scale=1.2, seed=1)
    tx = methods.spectral(strength=0.25, power=power, target=target, bias_power=bias_power)(
        optax.sgd(1.0)
    )
    state, zero = tx.init(initial), jax.tree.map(jnp.zeros_like, params)
    update = jax.jit(tx.update)
    # parameters held still, so the carried vectors converge; the spectra have wide gaps
    for _ in range(12):
        updates, state = update(zero, state, params, ctx=context())
    tau = {
        name: 1.0 if target == "one" else {"layer0": 1.7, "conv": 0.6}[name.split("/")[0]]
        for name in KERNELS
    }
    want = spectral_gradient(leaves(params), tau, power, bias_power)
    for name, update in leaves(updates).items():
        np.testing.assert_allclose(update, -0.25 * want[name], rtol=2e-5, atol=2e-6, err_msg=name)
    assert not np.any(leaves(updates)["norm0/scale"])
    assert not np.any(leaves(updates)["norm0/bias"])


def test_spectral_closed_form_against_finite_differences():
    """The closed form above is itself checked, in float64, along random directions."""
    tree, tau, random = (
        leaves(spectral_tree(seed=2)),
        dict.fromkeys(KERNELS, 1.0),
        np.random.default_rng(3),
    )
    gradient = spectral_gradient(tree, tau, 2, 2)
    for _ in range(4):
        along = {k: random.normal(size=p.shape) for k, p in tree.items()}
        there, back = ({k: p + h * along[k] for k, p in tree.items()} for h in (1e-6, -1e-6))
        slope = (spectral_value(there, tau, 2, 2) - spectral_value(back, tau, 2, 2)) / 2e-6
        assert slope == pytest.approx(sum((gradient[k] * along[k]).sum() for k in tree), rel=1e-6)


def test_spectral_value_and_one_power_iteration_per_step():
    # a narrow gap (1 : 0.95), so that vectors after 20 iterations are visibly not converged
    random = np.random.default_rng(4)
    matrix = with_spectrum(random, (6, 5), [1.0, 0.95, 0.9, 0.85, 0.8])
    params = {"layer": {"kernel": jnp.asarray(matrix, jnp.float32)}}
    penalty = methods.spectral(strength=1.0)
    memory = penalty.init(params)
    (v,) = (np.asarray(a, np.float64) for a in jax.tree.leaves(memory[0]))
    top = np.linalg.svd(matrix)[2][0]
    assert 1 - abs(v @ top) > 1e-3, "this test needs a vector on its way"
    sizes = [np.linalg.norm(matrix @ v)]
    for _ in range(3):
        np.testing.assert_allclose(
            penalty.value(params, memory), (sizes[-1] ** 2 - 1) ** 2, rtol=1e-3, atol=1e-7
        )
        memory = penalty.advance(memory, params)
        v = matrix.T @ matrix @ v
        v /= np.linalg.norm(v)
        np.testing.assert_allclose(jax.tree.leaves(memory[0])[0], v, atol=2e-6)
        sizes.append(np.linalg.norm(matrix @ v))
    assert sizes == sorted(sizes)
    memory = jax.lax.fori_loop(0, 400, lambda _, memory: penalty.advance(memory, params), memory)
    np.testing.assert_allclose(
        np.abs(top @ np.asarray(jax.tree.leaves(memory[0])[0])), 1, rtol=1e-5
    )


def test_spectral_vectors_are_carried_in_the_state():
    params = spectral_tree()
    tx = methods.spectral(strength=0.1)(optax.sgd(0.1))
    start = tx.init(params)
    _, after = tx.update(params, start, spectral_tree(seed=5), ctx=context())
    penalty = methods.spectral(strength=0.1)
    assert_bitwise(after[0], penalty.advance(start[0], spectral_tree(seed=5)))
    with pytest.raises(
        ValueError, match=r"spectral\.target is 'half': allowed are 'one', 'initial'"
    ):
        methods.spectral(target="half")


def test_the_anchor_may_be_donated_together_with_the_params():
    params = small_tree()
    tx = methods.l2_init()(optax.sgd(0.1))

    def step(params, state):
        updates, state = tx.update(jax.tree.map(jnp.zeros_like, params), state, params)
        return optax.apply_updates(params, updates), state

    after, _ = jax.jit(step, donate_argnums=(0, 1))(params, tx.init(params))
    assert_bitwise(after, small_tree())
