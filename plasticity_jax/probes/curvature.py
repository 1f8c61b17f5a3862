"""Curvature of a loss from Hessian-vector products. Everything here works on any matvec over any pytree."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

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


def lanczos(matvec: Callable[[PyTree], PyTree], start: PyTree, iterations: int) -> tuple[Array, Array]:
    """Returns the tridiagonal matrix of the Lanczos recurrence: diagonal [k] and off-diagonal [k], k = iterations.

    No re-orthogonalisation: extreme eigenvalues do not need it, copies of them do no harm. The last off-diagonal entry
    belongs to the residual. If the space is exhausted before k, the rest repeats the smallest diagonal entry so far,
    uncoupled, which leaves the largest eigenvalue as it is.
    """

    def step(carry, _):
        before, current, coupling, alive, lowest = carry
        product = matvec(current)
        diagonal = optax.tree.vdot(current, product)
        rest = jax.tree.map(lambda p, c, b: p - diagonal * c - coupling * b, product, current, before)
        norm = optax.tree.norm(rest)
        scale = jnp.maximum(jnp.abs(diagonal), coupling)
        diagonal = jnp.where(alive, diagonal, lowest)
        lowest = jnp.minimum(lowest, diagonal)
        onward = alive & (norm > 10 * jnp.finfo(norm.dtype).eps * scale)
        norm = jnp.where(onward, norm, 0.0)
        following = optax.tree.scale(jnp.where(onward, 1 / jnp.maximum(norm, jnp.finfo(norm.dtype).tiny), 0.0), rest)
        return (current, following, norm, onward, lowest), (diagonal, norm)

    first = optax.tree.scale(1 / optax.tree.norm(start), start)
    zero = jnp.zeros((), jnp.float32)
    carry = optax.tree.zeros_like(first), first, zero, jnp.bool_(True), jnp.float32(jnp.inf)
    return jax.lax.scan(step, carry, length=iterations)[1]


def top_eigenvalue(matvec: Callable[[PyTree], PyTree], start: PyTree, iterations: int = 15) -> Ritz:
    """Returns the algebraically largest eigenvalue of a symmetric `matvec`, with its residual bound.

    Args:
      matvec: v -> A v on pytrees like `start`.
      start: a vector with a share in the eigenvector, e.g. Gaussian.
      iterations: products spent.
    Source: Lanczos 1950; the bound is Parlett 1998, chapter 13: |last coupling * last entry of the Ritz vector|.
    """
    diagonal, off = lanczos(matvec, start, iterations)
    tridiagonal = jnp.diag(diagonal) + jnp.diag(off[:-1], 1) + jnp.diag(off[:-1], -1)
    # a diverged lane would feed NaN to the eigensolver, which some backends do not survive
    finite = jnp.isfinite(tridiagonal).all()
    values, vectors = jnp.linalg.eigh(jnp.where(finite, tridiagonal, 0.0))
    ritz = Ritz(values[-1], jnp.abs(off[-1] * vectors[-1, -1]))
    return jax.tree.map(lambda x: jnp.where(finite, x, jnp.nan), ritz)


def hessian_ritz(loss: Callable[[PyTree], Array], params: PyTree, key: Key, iterations: int = 15) -> Ritz:
    """Returns the largest eigenvalue of the loss Hessian at `params` and its residual bound; arguments as hessian_top."""
    start = optax.tree.random_like(key, params)
    return top_eigenvalue(hessian_vector_product(loss, params), start, iterations)


def hessian_top(loss: Callable[[PyTree], Array], params: PyTree, key: Key, iterations: int = 15) -> Array:
    """Returns the algebraically largest eigenvalue of the Hessian of `loss` at `params`, [] float.

    Args:
      loss: params -> [] on a FIXED batch.
      params: any pytree of float arrays.
      key: for the start vector.
      iterations: Hessian-vector products, each about the cost of one to two gradients; 15 gave relative errors below 1e-5.
    Source: Liu & Mou, section 5.3 (maximum eigenvalue). Power iteration would find the largest magnitude instead.
    """
    return hessian_ritz(loss, params, key, iterations).value
