"""Methods that keep weights within bounds after every step."""

import jax
import jax.numpy as jnp

from plasticity_jax import registry
from plasticity_jax.methods import lifting
from plasticity_jax.types import Array, Share


@registry.checked
def weight_norm_constraint(*, pull: Share = 1.0) -> lifting.Rewrite:
    """Weight norm constraint: after every step each matrix is rescaled towards its norm at
    initialization.

    W <- (1 - pull + pull ||W_0||_F / ||W||_F) W for parameters of 2 or more axes, each tensor by
    itself; biases and norms are left alone, and so is a tensor of zeros. Optimizer moments are
    kept. Source: Lyle et al. 2024, "Disentangling the Causes of Plasticity Loss", who rescale to
    the initial norm; a partial `pull` is ours.
    """

    def apply(params, ctx, memory):
        del ctx

        def rescaled(p: Array, size: Array) -> Array:
            if p.ndim < 2:
                return p
            now = _size(p)
            ratio = jnp.where(now > 0, size / jnp.where(now > 0, now, 1.0), 1.0)
            return jnp.asarray((1 + pull * (ratio - 1)) * p, p.dtype)

        return jax.tree.map(rescaled, params, memory), None, memory

    def begin(params):
        return jax.tree.map(_size, params)

    return lifting.Rewrite(apply, lifting.every(1), begin)


def _size(p: Array) -> Array:
    """The Euclidean norm of a tensor in float32 or wider, []."""
    wide = jnp.asarray(p, jnp.promote_types(p.dtype, jnp.float32))
    return jnp.sqrt((wide**2).sum())
