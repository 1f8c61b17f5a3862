"""Curvature of a loss from Hessian-vector products. Everything here works on any matvec over any
pytree.

Trees have leaves of floating-point numbers; narrow ones (bfloat16, float16) are computed with in
float32, and results are float32, or float64 where there is a leaf of float64.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from plasticity_jax.probes import numerics
from plasticity_jax.types import Array, Key, PyTree


class Ritz(NamedTuple):
    """Approximation of an extreme eigenvalue.

    Both hold but for rounding: a few eps times the largest magnitude of an eigenvalue, whatever the
    scale of the matrix, and tens of eps where a tolerance near eps asks for more than that. So a
    value near 0 beside large negative eigenvalues has few digits.

    Attributes:
      value: [] the largest eigenvalue of the Lanczos tridiagonal matrix; never above the true one.
      residual: [] ||H y - value y|| for the Ritz vector y: some eigenvalue lies within this
        distance of `value`. Once it is small that is the largest or one almost equal to it, unless
        the start vector had almost no share in them.
    """

    value: Array
    residual: Array


class _Lanczos(NamedTuple):
    """The state between two products, in units of `scale`.

    Attributes:
      count: [] int32 products so far.
      before, current: [n] the last two Lanczos vectors.
      coupling: [] between those two.
      diagonal, off: [iterations] the tridiagonal matrix so far; off[i] couples entries i and i + 1.
      scale: [] a power of two near the first product's largest entry, 1 if that is of ordinary
        size.
      ritz: what is known by now.
    """

    count: Array
    before: Array
    current: Array
    coupling: Array
    diagonal: Array
    off: Array
    scale: Array
    ritz: Ritz


def hessian_vector_product(
    loss: Callable[[PyTree], Array], params: PyTree
) -> Callable[[PyTree], PyTree]:
    """Returns v -> H v, H the Hessian of `loss` at `params`, linearized once so that each product
    costs one tangent pass.

    `v` has the containers, shapes and dtypes of `params`. Raises ValueError for leaves of other
    than floating-point numbers.
    """
    numerics.floating("params", params)
    return jax.linearize(jax.grad(loss), params)[1]


def top_eigenvalue(
    matvec: Callable[[PyTree], PyTree], start: PyTree, iterations: int = 12, tolerance: float = 1e-3
) -> Ritz:
    """Returns the algebraically largest eigenvalue of a symmetric `matvec` by Lanczos, with its
    residual bound.

    Args:
      matvec: v -> A v on pytrees like `start`; linear, of any scale at which the dtype holds its
        products.
      start: a vector with a share in the eigenvector, e.g. Gaussian; not zero.
      iterations: products spent at most.
      tolerance: stop as soon as residual <= tolerance * |value|, or nothing is left but rounding.
        With all other eigenvalues at least g below the value, it is too low by at most residual^2 /
        g, far less than the residual. Where others are almost equal to the largest, the value lies
        among them: it is too low by at most their spread and the residual.
    No re-orthogonalisation: the largest eigenvalue does not need it. NaN if a product is not
    finite, or if `start` or its square is zero.
    Source: Lanczos 1950; the bound |last coupling * last entry of the Ritz vector| is Parlett 1998,
    chapter 13. Raises ValueError for iterations < 1, a negative tolerance, or leaves of other than
    floating-point numbers.
    """
    _check_budget(iterations, tolerance)
    flat = ravel_pytree(numerics.floating("start", start))[0]
    given, unravel = ravel_pytree(start)
    dtype = flat.dtype

    def product(vector: Array) -> Array:
        return ravel_pytree(matvec(unravel(vector.astype(given.dtype))))[0].astype(dtype)

    def unfinished(at: _Lanczos) -> Array:
        # what may be left when the Krylov space is exhausted; more products would only follow noise
        rounding = 8 * jnp.finfo(dtype).eps * (jnp.abs(at.diagonal).max() + at.off.max())
        enough = jnp.maximum(tolerance * jnp.abs(at.ritz.value), rounding)
        return (at.count < iterations) & (at.ritz.residual > enough)

    def step(at: _Lanczos) -> _Lanczos:
        image = product(at.current)
        scale = jnp.where(at.count == 0, numerics.scale_of(image), at.scale)
        # (chosen, not just divided by 1, so that the compiler rounds what follows as it would
        # without)
        image = jnp.where(scale == 1, image, image / scale)
        entry = at.current @ image
        rest = image - entry * at.current - at.coupling * at.before
        norm = jnp.linalg.norm(rest)
        diagonal, off = at.diagonal.at[at.count].set(entry), at.off.at[at.count].set(norm)
        ritz = _largest(diagonal, off, at.count)
        following = rest / jnp.maximum(norm, jnp.finfo(dtype).tiny)
        return _Lanczos(at.count + 1, at.current, following, norm, diagonal, off, scale, ritz)

    zero, one, empty = jnp.zeros((), dtype), jnp.ones((), dtype), jnp.zeros(iterations, dtype)
    begin = _Lanczos(
        count=jnp.int32(0),
        before=jnp.zeros_like(flat),
        current=flat / jnp.linalg.norm(flat),
        coupling=zero,
        diagonal=empty,
        off=empty,
        scale=one,
        ritz=Ritz(zero, one),
    )
    end = jax.lax.while_loop(unfinished, step, begin)
    ritz = jax.tree.map(lambda number: number * end.scale, end.ritz)
    return numerics.known(numerics.finite(ritz), ritz)


def _largest(diagonal: Array, off: Array, last: Array) -> Ritz:
    """Returns the largest eigenvalue of the tridiagonal matrix of entries 0..last; off[last] is the
    residual's size.
    """
    places = jnp.arange(len(diagonal), dtype=jnp.int32)
    used = places <= last
    # places not reached yet hold something smaller, uncoupled: that cannot become the largest
    # eigenvalue
    smallest = jnp.where(used, diagonal, jnp.inf).min()
    diagonal = jnp.where(used, diagonal, smallest - jnp.abs(diagonal).max() - jnp.abs(off).max())
    coupled = jnp.where(places < last, off, 0.0)[:-1]
    matrix = jnp.diag(diagonal) + jnp.diag(coupled, 1) + jnp.diag(coupled, -1)
    # a diverged lane must not feed NaN to the eigensolver, which some backends do not survive
    finite = numerics.finite(matrix, off)
    values, vectors = jnp.linalg.eigh(jnp.where(finite, matrix, 0.0))
    return numerics.known(finite, Ritz(values[-1], off[last] * jnp.abs(vectors[last, -1])))


def hessian_ritz(
    loss: Callable[[PyTree], Array],
    params: PyTree,
    key: Key,
    iterations: int = 12,
    tolerance: float = 1e-3,
) -> Ritz:
    """Returns the largest eigenvalue of the loss Hessian at `params` with its residual bound;
    arguments as hessian_top.
    """
    _check_key(key)
    params = numerics.floating("params", params)
    flat, unravel = ravel_pytree(params)
    start = unravel(jax.random.normal(key, flat.shape, flat.dtype))

    def with_value(params):
        value = loss(params)
        return value, value

    _, product, value = jax.linearize(jax.grad(with_value, has_aux=True), params, has_aux=True)
    ritz = top_eigenvalue(product, start, iterations, tolerance)
    return numerics.known(numerics.finite(params, value), ritz)


def hessian_top(
    loss: Callable[[PyTree], Array],
    params: PyTree,
    key: Key,
    iterations: int = 12,
    tolerance: float = 1e-3,
) -> Array:
    """Returns the algebraically largest eigenvalue of the Hessian of `loss` at `params`, [] float.

    Args:
      loss: params -> [] on a FIXED batch, at any scale that the dtype holds.
      params: any pytree of floating-point arrays. Narrow ones (bfloat16, float16) reach `loss` as
        float32.
      key: for the start vector.
      iterations, tolerance: at most so many Hessian-vector products (each about two gradients),
        fewer as soon as the residual is below tolerance * |value|. See `top_eigenvalue` for what
        that says of the value.
    NaN where the loss or a parameter is not finite. Raises ValueError for leaves of other than
    floating-point numbers, a key that is no JAX random key, iterations < 1 or a negative tolerance.
    Source: Liu & Mou 2026, section 5.3 (maximum eigenvalue). Power iteration would find the largest
    magnitude instead.

    >>> loss = lambda params: 3 * params[0] ** 2 + params[1] ** 2
    >>> value = pj.probes.hessian_top(loss, jnp.ones(2), jax.random.key(0))
    >>> round(float(value), 2)  # of 6 and 2
    6.0
    """
    return hessian_ritz(loss, params, key, iterations, tolerance).value


def _check_budget(iterations: Any, tolerance: Any) -> None:
    if isinstance(iterations, bool) or not hasattr(iterations, "__index__") or iterations < 1:
        raise ValueError(f"iterations is {iterations!r}: allowed are whole numbers from 1.")
    numerics.check_number("tolerance", tolerance)


def _check_key(key: Any) -> None:
    dtype, shape = getattr(key, "dtype", None), getattr(key, "shape", None)
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key) and shape == ()
    # as jax.random.PRNGKey makes it
    raw = dtype == jnp.uint32 and shape is not None and len(shape) == 1
    if not (typed or raw):
        found = repr(key) if shape is None else f"an array of {dtype} of shape {shape}"
        raise ValueError(f"key is {found}: allowed is one key, as jax.random.key(0) makes it.")
