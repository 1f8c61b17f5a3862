"""Methods that act on whole networks or optimizers at once."""

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from plasticity_jax import registry
from plasticity_jax.methods import lifting
from plasticity_jax.types import Method, Number, Share


@registry.checked
def shrink_and_perturb(
    *, shrink: Share = 0.9, noise: Number = 0.01, period: int = 0
) -> lifting.Rewrite:
    """Shrink and perturb: p <- shrink * p + noise * N(0, 1), every parameter, at task changes or
    every `period` steps.

    With `period=0` it is told task boundaries and acts once a task, right after the first step of
    the new task; optimizer
    moments are kept. Source: Ash & Adams 2020; values Liu & Mou's for the MLP. Deviation: they act
      between two tasks,
    one gradient step earlier. Raises ValueError for a negative `period`.
    """
    if period < 0:
        raise ValueError(
            f"shrink_and_perturb.period is {period}: allowed are 0 (at task changes) or more steps."
        )

    def apply(params, ctx, memory):
        flat, unravel = ravel_pytree(params)
        drawn = jax.random.normal(ctx.key, flat.shape, flat.dtype)
        after = unravel(jnp.asarray(shrink * flat + noise * drawn, flat.dtype))
        return after, None, memory

    return lifting.Rewrite(apply, lifting.every(period) if period else lifting.at_boundary)


@registry.checked
def clip(*, norm: Number = 1.0) -> Method:
    """Gradient clipping: the whole gradient, penalties included, scaled down to at most `norm`.

    g <- g min(1, norm / ||g||_2). Source: Pascanu et al. 2013.
    """

    def method(optimizer: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
        inner = lifting.extended(optimizer)
        clipping = optax.clip_by_global_norm(norm)

        def update(updates, state, params=None, **extra):
            clipped, _ = clipping.update(updates, optax.EmptyState())
            return inner.update(clipped, state, params, **extra)

        return optax.GradientTransformationExtraArgs(inner.init, update)

    return method


def optimizer_reset() -> Method:
    """Optimizer reset: the optimizer starts afresh (moments and step counts) at every task change;
    weights are kept.

    It is told task boundaries. Acts before the first update of the new task; what other methods
    remember is kept, numbers that were changed in the state of optax.inject_hyperparams are not.
    Source: Liu & Mou's public code re-creates AdamW every task in some arms; Asadi et al. 2023 for
    reinforcement learning.
    """

    def method(optimizer: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
        inner = lifting.extended(optimizer)

        def update(updates, state, params=None, *, ctx=None, **extra):
            if ctx is None or params is None:
                raise ValueError("optimizer_reset needs update(..., params, ctx=Context(...)).")

            def afresh(new, old):
                return old if new is lifting.KEPT else lifting.replaced(ctx.boundary, new, old)

            fresh = jax.tree.map(afresh, lifting.own_state(inner, params), state)
            return inner.update(updates, fresh, params, ctx=ctx, **extra)

        return optax.GradientTransformationExtraArgs(inner.init, update)

    return method
