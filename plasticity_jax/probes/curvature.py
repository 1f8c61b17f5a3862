"""Curvature of a loss from Hessian-vector products. Everything here works on any matvec over any pytree."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from plasticity_jax.types import Array, Key, PyTree


class Ritz(NamedTuple):
    """Approximation of an extreme eigenvalue.

    Attributes:
      value: [] the largest eigenvalue of the Lanczos tridiagonal matrix; never above the true one but for rounding.
      residual: [] ||H y - value y|| for the Ritz vector y: some eigenvalue lies within this distance of `value`.
    """

    value: Array
    residual: Array


def hessian_vector_product(loss: Callable[[PyTree], Array], params: PyTree) -> Callable[[PyTree], PyTree]:
    """Returns v -> H v, H the Hessian of `loss` at `params`, linearized once so that each product costs one tangent pass."""
    return jax.linearize(jax.grad(loss), params)[1]


def top_eigenvalue(
    matvec: Callable[[PyTree], PyTree], start: PyTree, iterations: int = 12, tolerance: float = 1e-3
) -> Ritz:
    """Returns the algebraically largest eigenvalue of a symmetric `matvec` by Lanczos, with its residual bound.

    Args:
      matvec: v -> A v on pytrees like `start`.
      start: a vector with a share in the eigenvector, e.g. Gaussian; not zero.
      iterations: products spent at most.
      tolerance: stop as soon as residual <= tolerance * |value|. The value's own error is of the order of the residual
        squared, so far smaller.
    No re-orthogonalisation: the largest eigenvalue does not need it. NaN if a product is not finite.
    Source: Lanczos 1950; the bound |last coupling * last entry of the Ritz vector| is Parlett 1998, chapter 13.
    """
    flat, unravel = ravel_pytree(start)
    places = jnp.arange(iterations)

    def unfinished(carry):
        count, *_, ritz = carry
        return (count < iterations) & (ritz.residual > tolerance * jnp.abs(ritz.value))

    def step(carry):
        count, before, current, coupling, diagonal, off, _ = carry
        product = ravel_pytree(matvec(unravel(current)))[0]
        entry = current @ product
        rest = product - entry * current - coupling * before
        norm = jnp.linalg.norm(rest)
        diagonal, off = diagonal.at[count].set(entry), off.at[count].set(norm)
        ritz = _largest(diagonal, off, count, places)
        return count + 1, current, rest / jnp.maximum(norm, jnp.finfo(norm.dtype).tiny), norm, diagonal, off, ritz

    empty, unknown = jnp.zeros(iterations), Ritz(jnp.zeros(()), jnp.asarray(jnp.inf))
    carry = jnp.int32(0), jnp.zeros_like(flat), flat / jnp.linalg.norm(flat), jnp.zeros(()), empty, empty, unknown
    return jax.lax.while_loop(unfinished, step, carry)[-1]


def _largest(diagonal: Array, off: Array, last: Array, places: Array) -> Ritz:
    """Returns the largest eigenvalue of the tridiagonal matrix of entries 0..last; off[last] is the residual's size."""
    used = places <= last
    # places not reached yet hold something smaller, uncoupled: that cannot become the largest eigenvalue
    smallest = jnp.where(used, diagonal, jnp.inf).min()
    diagonal = jnp.where(used, diagonal, smallest - jnp.abs(diagonal).max() - jnp.abs(off).max())
    coupled = jnp.where(places < last, off, 0.0)[:-1]
    matrix = jnp.diag(diagonal) + jnp.diag(coupled, 1) + jnp.diag(coupled, -1)
    # a diverged lane must not feed NaN to the eigensolver, which some backends do not survive
    finite = jnp.isfinite(matrix).all() & jnp.isfinite(off).all()
    values, vectors = jnp.linalg.eigh(jnp.where(finite, matrix, 0.0))
    ritz = Ritz(values[-1], off[last] * jnp.abs(vectors[last, -1]))
    return jax.tree.map(lambda x: jnp.where(finite, x, jnp.nan), ritz)


def hessian_ritz(
    loss: Callable[[PyTree], Array], params: PyTree, key: Key, iterations: int = 12, tolerance: float = 1e-3
) -> Ritz:
    """Returns the largest eigenvalue of the loss Hessian at `params` with its residual bound; arguments as hessian_top."""
    flat, unravel = ravel_pytree(params)
    start = unravel(jax.random.normal(key, flat.shape, flat.dtype))
    return top_eigenvalue(hessian_vector_product(loss, params), start, iterations, tolerance)


def hessian_top(
    loss: Callable[[PyTree], Array], params: PyTree, key: Key, iterations: int = 12, tolerance: float = 1e-3
) -> Array:
    """Returns the algebraically largest eigenvalue of the Hessian of `loss` at `params`, [] float.

    Args:
      loss: params -> [] on a FIXED batch.
      params: any pytree of float32 (or float64) arrays.
      key: for the start vector.
      iterations, tolerance: at most so many Hessian-vector products (each about two gradients), fewer as soon as the
        residual is below tolerance * |value|.
    Source: Liu & Mou, section 5.3 (maximum eigenvalue). Power iteration would find the largest magnitude instead.
    """
    return hessian_ritz(loss, params, key, iterations, tolerance).value
