"""Methods that act on whole networks at once."""

import jax
from jax.flatten_util import ravel_pytree

from plasticity_jax.methods import lifting
from plasticity_jax.types import Number


def shrink_and_perturb(*, shrink: Number = 0.9, noise: Number = 0.01, period: int = 0) -> lifting.Rewrite:
    """Shrink and perturb: p <- shrink * p + noise * N(0, 1), every parameter, at task changes or every `period` steps.

    With `period=0` it is told task boundaries and acts once a task, right after the first step of the new task; optimizer
    moments are kept. Source: Ash & Adams 2020; values Liu & Mou's for the MLP. Deviation: they act between two tasks,
    one gradient step earlier. Raises ValueError for a negative `period`.
    """
    if period < 0:
        raise ValueError(f"shrink_and_perturb.period is {period}: allowed are 0 (at task changes) or more steps.")

    def apply(params, ctx, memory):
        flat, unravel = ravel_pytree(params)
        after = unravel(shrink * flat + noise * jax.random.normal(ctx.key, flat.shape, flat.dtype))
        return after, lifting.untouched(params), memory

    return lifting.Rewrite(apply, lifting.every(period) if period else lifting.at_boundary)
