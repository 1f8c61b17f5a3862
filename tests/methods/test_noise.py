"""Gradient noise: its size and schedule against numpy, and what it breaks."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.loops import STRUCTURE, assert_bitwise, context, gradients

from plasticity_jax import methods
from plasticity_jax.methods import noise

pytestmark = pytest.mark.usefixtures("compiled_quickly")

SHAPES = {"layer": {"kernel": (400, 500), "bias": (3,)}, "head": {"kernel": (20_000, 2)}}
TREE = jax.tree.map(jnp.zeros, SHAPES, is_leaf=lambda shape: isinstance(shape, tuple))


def added(step=0, gradient=None, **settings):
    """What the method adds to `gradient` at a step, from the update of plain descent."""
    gradient = gradients(TREE, 0) if gradient is None else gradient
    tx = methods.gradient_noise(**settings)(optax.sgd(1.0))
    updates, _ = tx.update(gradient, tx.init(TREE), TREE, ctx=context(step))
    return jax.tree.map(lambda u, g: np.asarray(-u - g, np.float64), updates, gradient)


@pytest.mark.parametrize("form", ["tensor", "parameter"])
@pytest.mark.long
def test_the_noise_is_as_large_as_it_says(form):
    gradient, step = gradients(TREE, 0), 7
    found = added(step, gradient, scale=0.02, decay=0.9, form=form)
    spread = 0.02 * 0.9**step
    key = jax.random.fold_in(context(step).key, noise._DRAW)
    sizes = [leaf.size for leaf in jax.tree.leaves(gradient)]
    drawn = np.split(np.asarray(jax.random.normal(key, (sum(sizes),))), np.cumsum(sizes)[:-1])
    pairs = zip(jax.tree.leaves(gradient), jax.tree.leaves(found), drawn, strict=True)
    for g, extra, normal in pairs:
        g = np.asarray(g, np.float64)
        size = np.sqrt((g**2).sum()) if form == "tensor" else np.abs(g)
        want = spread * size * normal.reshape(g.shape)
        np.testing.assert_allclose(extra, want, rtol=1e-3, atol=2e-6)
        if g.size > 1000:
            scaled = extra / (spread * size)
            assert scaled.std() == pytest.approx(1, abs=0.02)
            assert scaled.mean() == pytest.approx(0, abs=0.02)


def test_equal_gradients_are_told_apart_and_zero_gradients_are_not():
    """Clones separate at the first noisy step; a frozen tensor has no gradient, and stays."""
    twins = {"kernel": jnp.ones((4, 2)), "frozen": jnp.zeros((4, 2))}
    tx = methods.gradient_noise(scale=0.01)(optax.sgd(1.0))
    updates, _ = tx.update(twins, tx.init(twins), twins, ctx=context())
    assert (updates["kernel"][:, 0] != updates["kernel"][:, 1]).all()
    assert not np.any(updates["frozen"])


@pytest.mark.long
def test_each_step_has_noise_of_its_own_and_none_when_it_has_decayed():
    first, second = added(0)["layer"]["bias"], added(1)["layer"]["bias"]
    assert (first != second).all()
    assert np.any(added(0, decay=0.0)["layer"]["bias"])
    assert not np.any(added(1, decay=0.0)["layer"]["bias"])


def test_the_order_with_clipping_is_the_one_given():
    """Clipped first, the noise keeps its part of the clipped gradient; clipped last, all is cut."""
    gradient = {"w": jnp.full(3, 100.0)}

    def norm_after(method):
        built = methods.build(method, STRUCTURE, {"clip.norm": 1.0, "gradient_noise.scale": 5.0})
        tx = built(optax.sgd(1.0))
        return optax.tree.norm(tx.update(gradient, tx.init(gradient), gradient, ctx=context())[0])

    built = [norm_after("clip+gradient_noise"), norm_after("gradient_noise+clip")]
    assert min(built) == pytest.approx(1, rel=1e-5)
    assert max(built) > 1.5


def test_what_is_refused():
    with pytest.raises(
        ValueError, match=r"gradient_noise\.form is 'layer': allowed are 'tensor', "
    ):
        methods.gradient_noise(form="layer")
    with pytest.raises(ValueError, match=r"gradient_noise needs update.*ctx=Context"):
        methods.gradient_noise()(optax.sgd(1.0)).update(TREE, (optax.EmptyState(),) * 2, TREE)


@pytest.mark.long
def test_dtypes_of_updates_stay():
    narrow = {"w": jnp.ones(3, jnp.bfloat16)}
    tx = methods.gradient_noise()(optax.sgd(1.0))
    updates, _ = tx.update(narrow, tx.init(narrow), narrow, ctx=context())
    assert updates["w"].dtype == jnp.bfloat16
    assert_bitwise(tx.init(narrow), optax.sgd(1.0).init(narrow))
