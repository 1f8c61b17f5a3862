"""Weight norms that stay, and what L2 may leave out, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.loops import assert_bitwise, context, drive, gradients, leaves, small_tree

from plasticity_jax import methods


@pytest.mark.parametrize("pull", [1.0, 0.3])
@pytest.mark.long
def test_weight_norm_constraint_by_hand(pull):
    """Three steps of SGD; each matrix is moved towards its first norm, by itself."""
    start = small_tree()
    history = drive(methods.weight_norm_constraint(pull=pull)(optax.sgd(0.3)), start, 3)
    wanted, first = leaves(start), leaves(start)
    for step, (params, _) in enumerate(history):
        slopes = leaves(gradients(start, step))
        for name, values in wanted.items():
            moved = values - 0.3 * slopes[name]
            if moved.ndim > 1:
                ratio = np.linalg.norm(first[name]) / np.linalg.norm(moved)
                moved = (1 - pull + pull * ratio) * moved
            wanted[name] = moved
        for name, values in leaves(params).items():
            np.testing.assert_allclose(values, wanted[name], rtol=1e-5, err_msg=name)
    if pull == 1:
        norms = [np.linalg.norm(leaves(history[-1][0])[k]) for k in first]
        kept = [np.linalg.norm(v) for v in first.values()]
        same = [np.isclose(a, b, rtol=1e-5) for a, b in zip(norms, kept, strict=True)]
        assert same == [v.ndim > 1 for v in first.values()]


@pytest.mark.long
def test_no_pull_is_no_method_and_moments_are_kept():
    start = small_tree()
    plain = drive(optax.adam(0.01), start, 3)
    none = drive(methods.weight_norm_constraint(pull=0.0)(optax.adam(0.01)), start, 3)
    assert_bitwise(none[-1][0], plain[-1][0])
    pulled = methods.weight_norm_constraint()(optax.adam(0.01))
    gradient = gradients(start, 0)
    _, state = pulled.update(gradient, pulled.init(start), start, ctx=context())
    _, wanted = optax.adam(0.01).update(gradient, optax.adam(0.01).init(start), start)
    mu = [s for s in jax.tree.leaves(state) if s.ndim > 1]
    assert_bitwise(mu, [s for s in jax.tree.leaves(wanted) if s.ndim > 1])


@pytest.mark.long
def test_a_matrix_of_zeros_stays_finite():
    params = {"kernel": jnp.zeros((2, 2))}
    tx = methods.weight_norm_constraint()(optax.sgd(0.0))
    updates, _ = tx.update(params, tx.init(params), params, ctx=context())
    np.testing.assert_array_equal(updates["kernel"], 0)


@pytest.mark.parametrize(
    ("on", "left_out"),
    [
        ("all", ()),
        ("matrices", ("layer0/bias", "norm0/scale", "norm0/bias", "conv/bias")),
        ("not_norms", ("norm0/scale", "norm0/bias")),
        ("not_biases", ("layer0/bias", "norm0/bias", "conv/bias")),
    ],
)
def test_what_l2_leaves_out(on, left_out):
    params = small_tree()
    tx = methods.l2(strength=0.5, on=on)(optax.sgd(0.1))
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = tx.update(zero, tx.init(params), params, ctx=context())
    start = leaves(params)
    for name, update in leaves(updates).items():
        wanted = 0 * start[name] if name in left_out else -0.1 * start[name]
        np.testing.assert_allclose(update, wanted, rtol=1e-6, err_msg=name)
