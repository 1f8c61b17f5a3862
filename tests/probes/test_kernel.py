"""The empirical tangent kernel: against dense Jacobians, the fast form against the generic one, and
the loss after one step.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity_jax import probes
from plasticity_jax.models import CNN, MLP
from plasticity_jax.probes import kernel

pytestmark = pytest.mark.usefixtures("compiled_quickly")
X = jnp.asarray(np.random.default_rng(0).normal(size=(5, 4)), jnp.float32)


def network(model, x=X, seed=0):
    """(params -> outputs, params) with offsets and scales that are not 0 and 1."""
    variables = model.init(jax.random.key(seed), x)
    rest = {k: v for k, v in variables.items() if k not in ("params", "hidden", "preactivations")}
    leaves, tree = jax.tree.flatten(variables["params"])
    random = np.random.default_rng(seed)
    moved = [a + 0.3 * jnp.asarray(random.normal(size=a.shape), a.dtype) for a in leaves]

    def outputs(params):
        return model.apply({"params": params, **rest}, x)

    return outputs, jax.tree.unflatten(tree, moved)


def by_jacobian(outputs, params):
    jacobian = jax.jit(jax.jacobian(outputs))(params)
    rows = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(jacobian)]
    n, c = rows[0].shape[:2]
    return sum(r.reshape(n * c, -1) @ r.reshape(n * c, -1).T for r in rows)


def mean_of_classes(full, n):
    c = len(full) // n
    return np.mean([full.reshape(n, c, n, c)[:, i, :, i] for i in range(c)], axis=0)


@pytest.mark.parametrize("norm", ["none", "layer", "batch"])
@pytest.mark.parametrize("activation", ["relu", "crelu"])
@pytest.mark.long
def test_kernels_of_an_mlp_are_those_of_its_jacobian(norm, activation):
    outputs, params = network(MLP(3, width=6, depth=2, norm=norm, activation=activation))
    full = by_jacobian(outputs, params)
    size = np.abs(full).max()
    found = jax.jit(lambda p: probes.empirical_ntk(outputs, p))(params)
    np.testing.assert_allclose(found, full, atol=1e-5 * size)
    wanted = mean_of_classes(full, 5)
    generic = jax.jit(lambda p: probes.empirical_ntk(outputs, p, class_mean=True))(params)
    fast = jax.jit(lambda p: probes.layerwise_ntk(outputs, p))(params)
    np.testing.assert_allclose(generic, wanted, atol=1e-5 * size)
    np.testing.assert_allclose(fast, wanted, atol=1e-5 * size)


@pytest.mark.long
def test_a_network_with_other_layers_has_the_generic_form_alone():
    x = jnp.asarray(np.random.default_rng(1).normal(size=(3, 4, 4, 1)), jnp.float32)
    outputs, params = network(CNN(2, base=2, dense=4), x)
    assert probes.layerwise_ntk(outputs, params) is None
    found = jax.jit(lambda p: probes.empirical_ntk(outputs, p, class_mean=True))(params)
    wanted = mean_of_classes(by_jacobian(outputs, params), 3)
    np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.long
def test_any_tree_of_parameters_will_do():
    tree = [jnp.asarray([1.0, 2.0]), {"a": jnp.asarray(3.0)}]

    def outputs(p):
        return jnp.stack([p[0] * p[1]["a"], p[0] ** 2])

    found = probes.empirical_ntk(outputs, tree)
    np.testing.assert_allclose(found, by_jacobian(outputs, tree), rtol=1e-6)
    assert probes.layerwise_ntk(outputs, tree) is None


def test_a_layer_used_twice_is_no_layer_of_the_fast_form():
    class Shared(nn.Module):
        @nn.compact
        def __call__(self, x):
            layer = nn.Dense(4)
            return layer(nn.relu(layer(x)))

    outputs, params = network(Shared())
    assert probes.layerwise_ntk(outputs, params) is None


@pytest.mark.long
def test_the_loss_falls_by_the_kernel_in_one_small_step():
    """l = sum r^2, r = f - y: a step of size eta lowers it by 4 eta r' K r, to first order."""
    outputs, params = network(MLP(3, width=6, depth=2, activation="tanh"))
    y = jnp.asarray(np.random.default_rng(2).normal(size=(5, 3)), jnp.float32)

    def loss(p):
        return ((outputs(p) - y) ** 2).sum()

    residual = np.asarray(outputs(params) - y, np.float64).reshape(-1)
    wanted = 4 * residual @ by_jacobian(outputs, params) @ residual
    found = np.asarray(probes.empirical_ntk(outputs, params), np.float64)
    assert 4 * residual @ found @ residual == pytest.approx(wanted, rel=1e-5)
    gradient, eta = jax.grad(loss)(params), 2e-6
    after = jax.tree.map(lambda p, g: p - eta * g, params, gradient)
    fallen = np.float64(loss(params)) - np.float64(loss(after))
    assert fallen / eta == pytest.approx(4 * residual @ found @ residual, rel=0.02)


def summary(matrix):
    found = jax.jit(kernel.kernel_summary)(jnp.asarray(matrix, jnp.float32))
    return {name: float(value) for name, value in found.items()}


def test_what_is_read_off_kernels_worked_by_hand():
    one = summary(np.eye(4) * 5)
    assert one == pytest.approx(
        {"rank": 4, "normalised_rank": 4, "top_share": 0.25, "cosine": 0, "condition": 1}, abs=1e-5
    )
    flat = summary(np.full((4, 4), 3.0))
    assert flat["rank"] == pytest.approx(1, abs=1e-3)
    assert (flat["top_share"], flat["cosine"]) == pytest.approx((1, 1), abs=1e-5)
    assert flat["condition"] > 1e6
    # the diagonal is what differs, so the unit form has full rank
    uneven = summary(np.diag([8.0, 1, 1]))
    p = np.array([0.8, 0.1, 0.1])
    assert uneven["rank"] == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-5)
    assert uneven["normalised_rank"] == pytest.approx(3, rel=1e-5)
    assert (uneven["top_share"], uneven["condition"]) == pytest.approx((0.8, 8), rel=1e-5)
    assert summary(np.zeros((3, 3))) == {
        "rank": 0, "normalised_rank": 0, "top_share": 0, "cosine": 0, "condition": 1,
    }  # fmt: skip


@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_a_summary_has_no_scale(scale):
    matrix = np.asarray([[2.0, 1], [1, 3]])
    assert summary(matrix * scale) == pytest.approx(summary(matrix), rel=1e-4)


def test_change_of_a_kernel():
    now, before = jnp.asarray([[3.0, 0], [0, 4]]), jnp.zeros((2, 2))
    assert float(kernel.kernel_change(now, now)) == 0
    assert float(kernel.kernel_change(2 * now, now)) == pytest.approx(1)
    assert float(kernel.kernel_change(before, before)) == 0


@pytest.mark.long
def test_what_is_refused_and_what_is_nan():
    outputs, params = network(MLP(3, width=6, depth=1))
    with pytest.raises(ValueError, match=r"outputs have shape \[5\]: allowed are \[N, C\]"):
        probes.empirical_ntk(lambda p: outputs(p)[:, 0], params)
    with pytest.raises(ValueError, match="allowed are arrays of floating-point numbers"):
        probes.empirical_ntk(lambda p: p, jnp.ones((2, 2), int))
    broken = jax.tree.map(lambda p: p.at[..., 0].set(np.nan), params)
    for function in (probes.empirical_ntk, probes.layerwise_ntk):
        assert np.isnan(function(outputs, broken)).all()
