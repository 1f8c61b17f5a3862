"""What the tests of methods share: a small network, contexts, and the usual optax loop on given
gradients.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from plasticity_jax.models import MLP
from plasticity_jax.types import Context, Structure

NET = MLP(4, width=4, depth=2)  # all kernels of one shape, which spares compilations
X = jnp.asarray(np.random.default_rng(0).normal(size=(6, 4)), jnp.float32)
COMPILED_INIT = jax.jit(lambda key: NET.init(key, X)["params"])


def init(key):
    with jax.disable_jit(False):
        return COMPILED_INIT(key)


STRUCTURE = Structure(NET.units(), init, NET.output_layer())
SILENT_FIRST = {group: jnp.ones((6, 4)).at[:, 0].set(0.0) for group in STRUCTURE.units}


def context(step=0, boundary=False, hidden=SILENT_FIRST, seed=7):
    return Context(
        jax.random.fold_in(jax.random.key(seed), step), jnp.int32(step), jnp.bool_(boundary), hidden
    )


def small_tree(seed=0):
    random = np.random.default_rng(seed)
    shapes = {
        "layer0": {"kernel": (2, 2), "bias": (2,)},
        "norm0": {"scale": (2,), "bias": (2,)},
        "conv": {"kernel": (2, 1, 2, 2), "bias": (2,)},
    }
    return jax.tree.map(
        lambda shape: jnp.asarray(random.normal(size=shape), jnp.float32),
        shapes,
        is_leaf=lambda s: isinstance(s, tuple),
    )


def leaves(tree):
    """{"layer0/kernel": array} in float64."""
    found = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(str(k.key) for k in path): np.asarray(a, np.float64) for path, a in found}


def assert_bitwise(got, want):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_array_equal(np.asarray(g), np.asarray(w))


def gradients(params, step):
    random = np.random.default_rng(100 + step)
    return jax.tree.map(lambda p: jnp.asarray(random.normal(size=p.shape), jnp.float32), params)


def drive(tx, params, steps, ctx=context, compiled=False):
    """The usual optax loop on fixed pseudo-random gradients; returns the params and the state after
    each step.

    If not compiled, operation by operation: two compiled programs may differ in a last bit, because
    the compiler contracts a product and a sum where it likes, and some tests compare bits.
    """

    @jax.jit
    def step(gradient, state, params, ctx):
        updates, state = tx.update(gradient, state, params, ctx=ctx)
        return optax.apply_updates(params, updates), state

    state, history = tx.init(params), []
    with jax.disable_jit(not compiled):
        for i in range(steps):
            params, state = step(gradients(params, i), state, params, ctx(i))
            history.append((params, state))
    return history
