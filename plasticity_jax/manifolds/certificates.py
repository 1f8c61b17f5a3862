"""Certificates: whether gradients and optimizers keep parameters on a manifold, and whether the
loss is curved towards it or away from it.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from plasticity_jax.manifolds import fitting
from plasticity_jax.probes import numerics
from plasticity_jax.probes.curvature import Ritz, hessian_vector_product, top_eigenvalue
from plasticity_jax.types import Array, Key, PyTree


class Manifold(Protocol):
    """A manifold of parameters, such as `Clones` and `Frozen`."""

    def tangent(self, direction: PyTree) -> PyTree:
        """Returns the part of a direction within which gradients stay."""
        ...

    def inside(self, direction: PyTree) -> PyTree:
        """Returns the part of a direction along which one stays on the manifold."""
        ...

    def nearest(self, params: PyTree) -> PyTree:
        """Returns the nearest parameters on the manifold."""
        ...


class Invariance(NamedTuple):
    """What training does on a manifold: the largest over its steps.

    Attributes:
      gradient: share of the gradient's norm that is normal to the manifold.
      change: share of the change of the parameters since the start that is.
      distance: of the parameters from the manifold, over their norm.
    """

    gradient: Array
    change: Array
    distance: Array


class Stability(NamedTuple):
    """Curvature of a loss along the directions that leave a manifold.

    Attributes:
      lowest, highest: the extreme eigenvalues of the Hessian on these directions. Where `lowest`
        is negative there is a direction along which units that are parted a little part further
        under gradient descent; where it is not, they fall back or stay.
    """

    lowest: Ritz
    highest: Ritz


def normal(manifold: Manifold, direction: PyTree) -> PyTree:
    """Returns the part of a direction that is normal to the manifold's tangent space."""
    return jax.tree.map(jnp.subtract, direction, manifold.tangent(direction))


def distance(manifold: Manifold, params: PyTree) -> Array:
    """Returns the Euclidean distance of parameters from the manifold, []."""
    return optax.tree.norm(jax.tree.map(jnp.subtract, params, manifold.nearest(params)))


def is_member(manifold: Manifold, params: PyTree, tolerance: float = 1e-5) -> bool:
    """Returns whether parameters are on the manifold, up to `tolerance` of their norm."""
    return bool(distance(manifold, params) <= tolerance * optax.tree.norm(params))


def normal_fraction(manifold: Manifold, direction: PyTree) -> Array:
    """Returns the share of a direction's norm that is normal to the manifold, [] in [0, 1]; 0 of a
    direction that is 0.
    """
    part, size = normal(manifold, direction), optax.tree.norm(direction)
    return optax.tree.norm(part) / jnp.where(size > 0, size, 1.0)


def invariance(
    manifold: Manifold,
    loss: Callable[[PyTree, Any], Array],
    params: PyTree,
    optimizer: optax.GradientTransformation,
    batches: Iterable[Any],
) -> Invariance:
    """Returns how far training from `params` leaves the manifold: one step on each batch.

    `loss` is (params, batch) -> []. On the manifold of clones all three are rounding under gradient
    descent, momentum and Adam, whatever the batches; decoupled weight decay keeps clones
    (`distance`) and, where weights are not constant on blocks, has a normal `change`. Of frozen
    units momentum, Adam and decay may move what gradients do not. Source: Joudaki et al. 2025,
    proposition 4.1; optimizers other than gradient descent are ours.
    """

    @jax.jit
    def step(params, state, batch):
        gradient = jax.grad(loss)(params, batch)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, normal_fraction(manifold, gradient)

    jax.eval_shape(manifold.nearest, params)  # (before the loss meets parameters of another)
    start, state = params, optimizer.init(params)
    largest = Invariance(*(jnp.zeros(()) for _ in Invariance._fields))
    for batch in batches:
        params, state, fraction = step(params, state, batch)
        moved = jax.tree.map(jnp.subtract, params, start)
        away = distance(manifold, params) / optax.tree.norm(params)
        found = Invariance(fraction, normal_fraction(manifold, moved), away)
        largest = jax.tree.map(jnp.maximum, largest, found)
    return largest


def curvature(loss: Callable[[PyTree], Array], params: PyTree, direction: PyTree) -> Array:
    """Returns v'Hv / v'v of the Hessian of `loss` along a direction v, []. Raises ValueError for a
    direction that is not like the parameters.
    """
    fitting.like("the parameters are of", params, direction)
    product = hessian_vector_product(loss, params)(direction)
    along, whole = (optax.tree.vdot(direction, tree) for tree in (product, direction))
    return jnp.asarray(along) / jnp.asarray(whole)


def stability(
    manifold: Manifold,
    loss: Callable[[PyTree], Array],
    params: PyTree,
    key: Key,
    iterations: int = 30,
    tolerance: float = 1e-3,
) -> Stability:
    """Returns the extreme curvatures of `loss` along the directions that leave the manifold.

    By Lanczos on P H P, P the projection on the complement of what stays `inside`. A clone of two
    units has curvature 0 where only the weights that read them part, and these are coupled to their
    incoming weights wherever the loss has a gradient: then `lowest` is below 0, so that of a pair
    the size of it tells more than its sign. Source: the criterion of Joudaki et al. 2025, section
    4, who leave it open; how it is computed is ours.

    Args:
      loss: params -> [] on a fixed batch.
      key: for the start vector.
      iterations, tolerance: as of `probes.hessian_top`, for each end.
    """
    params = numerics.floating("params", params)
    jax.eval_shape(manifold.inside, params)  # (before anything is drawn for another's parameters)
    flat, unravel = ravel_pytree(params)
    start = _leaving(manifold, unravel(jax.random.normal(key, flat.shape, flat.dtype)))
    product = hessian_vector_product(loss, params)

    def along(direction: PyTree) -> PyTree:
        return _leaving(manifold, product(_leaving(manifold, direction)))

    def against(direction: PyTree) -> PyTree:
        return jax.tree.map(jnp.negative, along(direction))

    highest = top_eigenvalue(along, start, iterations, tolerance)
    lowest = top_eigenvalue(against, start, iterations, tolerance)
    return Stability(Ritz(-lowest.value, lowest.residual), highest)


def _leaving(manifold: Manifold, direction: PyTree) -> PyTree:
    return jax.tree.map(jnp.subtract, direction, manifold.inside(direction))
