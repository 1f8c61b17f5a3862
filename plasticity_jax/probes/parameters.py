"""Probes of parameter trees."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from plasticity_jax.types import Array, PyTree


def parameter_norm(params: PyTree) -> Array:
    """Returns the Euclidean norm of all parameters together, [] >= 0."""
    return optax.tree.norm(params)


def distance_from_init(params: PyTree, initial: PyTree) -> Array:
    """Returns ||p - p_0||_2 over all parameters, [] >= 0. Source: Liu & Mou, section 5.3 (named there, no formula)."""
    return optax.tree.norm(jax.tree.map(jnp.subtract, params, initial))


def gradient_norm(loss: Callable[[PyTree], Array], params: PyTree) -> Array:
    """Returns the Euclidean norm of the gradient of `loss` at `params`, [] >= 0."""
    return optax.tree.norm(jax.grad(loss)(params))
