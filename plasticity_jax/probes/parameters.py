"""Probes of parameter trees: any containers, leaves of floating-point numbers, results float32 or
float64.

Each is NaN where a parameter is not finite, and raises ValueError for a tree without leaves or with
other leaves. Numbers
are squared: in float32 those above 1e19 give NaN, and those below 1e-23 count as zero.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from plasticity_jax.probes import numerics
from plasticity_jax.types import Array, PyTree


def parameter_norm(params: PyTree) -> Array:
    """Returns the Euclidean norm of all parameters together, sqrt(sum p^2), [] >= 0. Source: Lyle
    et al. 2024, "Disentangling the Causes of Plasticity Loss", who follow it over tasks.
    """
    return numerics.if_finite(optax.tree.norm(numerics.floating("params", params)))


def distance_from_init(params: PyTree, initial: PyTree) -> Array:
    """Returns ||p - p_0||_2 over all parameters, [] >= 0. Source: Liu & Mou 2026, section 5.3
    (named there, no formula).

    Raises ValueError if the two differ in structure or in a shape.
    """
    params, initial = numerics.floating("params", params), numerics.floating("initial", initial)
    if jax.tree.structure(params) != jax.tree.structure(initial):
        raise ValueError(
            "params and initial are different trees: allowed are two of the same containers and "
            "names."
        )
    now, then = (list(map(jnp.shape, jax.tree.leaves(tree))) for tree in (params, initial))
    if now != then:
        raise ValueError(
            f"params has shapes {now}, initial {then}: allowed are two trees of the same shapes."
        )
    return numerics.if_finite(optax.tree.norm(jax.tree.map(jnp.subtract, params, initial)))


def gradient_norm(loss: Callable[[PyTree], Array], params: PyTree) -> Array:
    """Returns the Euclidean norm of the gradient of `loss` at `params`, sqrt(sum (dL/dp)^2), [] >=
    0; NaN where the loss is not finite. Source: Abbas et al. 2023, who find that gradients fade
    where plasticity is lost; that it is this norm is ours.
    """
    params = numerics.floating("params", params)
    value, gradient = jax.value_and_grad(loss)(params)
    return numerics.known(
        numerics.finite(params, value), numerics.if_finite(optax.tree.norm(gradient))
    )
