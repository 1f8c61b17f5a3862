"""What the probes share: arguments that are checked, numbers of any scale, NaN for what is no
measurement.

Numbers come out as float32, or as float64 where one goes in. Narrower ones (bfloat16, float16) are
widened first.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from plasticity_jax.types import Array, PyTree


def floating(name: str, tree: PyTree) -> PyTree:
    """Returns `tree` with its leaves as arrays of float32 or float64. Raises ValueError for no
    leaves, or a leaf that holds anything but floating-point numbers.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    if not leaves:
        raise ValueError(
            f"{name} has no arrays: allowed is a tree of at least one array of floating-point "
            "numbers."
        )
    for path, leaf in leaves:
        kind = getattr(leaf, "dtype", type(leaf))
        if not jnp.issubdtype(kind, jnp.floating):
            place = jax.tree_util.keystr(path)
            found = f"{getattr(kind, '__name__', kind)}{f' at {place}' if place else ''}"
            raise ValueError(f"{name} has {found}: allowed are arrays of floating-point numbers.")
    return jax.tree.map(_widened, tree)


def _widened(leaf: Any) -> Array:
    array = jnp.asarray(leaf)
    return array if array.dtype.itemsize >= 4 else array.astype(jnp.float32)


def activations(name: str, array: Any) -> Array:
    """Returns one array of activations [N, ..., H] of float32 or float64. Raises ValueError if it
    is none.
    """
    if not hasattr(array, "shape"):
        raise ValueError(
            f"{name} is a {type(array).__name__}: allowed is one array of activations [N, ..., H]."
        )
    if array.ndim < 2 or 0 in array.shape:
        raise ValueError(
            f"{name} has shape {array.shape}: allowed is [N, ..., H] with at least one input and "
            "one unit."
        )
    return floating(name, array)


def check_number(name: str, value: Any, high: float = float("inf")) -> None:
    """Raises ValueError unless `value` is a number from 0 to `high`; what is traced has no value
    yet and passes.
    """
    if isinstance(value, Tracer):
        return
    try:
        fits = 0 <= float(value) <= high and float(value) < float("inf")
    except (TypeError, ValueError):
        fits = False
    if not fits:
        allowed = "finite numbers from 0" if high == float("inf") else f"numbers from 0 to {high:g}"
        raise ValueError(f"{name} is {value!r}: allowed are {allowed}.")


def finite(*trees: PyTree) -> Array:
    """Returns whether every number in `trees` is finite, [] bool.

    Each tree is asked by itself, so that the compiler knows the question again where several ask it
    of the parameters.
    """
    leaves = [jax.tree.leaves(tree) for tree in trees]
    return functools.reduce(jnp.logical_and, [_all_finite(group) for group in leaves if group])


def _all_finite(leaves: Sequence[Array]) -> Array:
    """Whether every number in `leaves` is finite, [] bool. Arrays of one shape are asked together,
    which is one kernel to compile and not one for each of them.
    """
    alike: dict[tuple[int, ...], list[Array]] = {}
    for leaf in leaves:
        alike.setdefault(leaf.shape, []).append(jnp.isfinite(leaf))
    each = [functools.reduce(jnp.logical_and, group).all() for group in alike.values()]
    return jnp.stack(each).all()


def known(sound: Array, value: PyTree) -> PyTree:
    """Returns `value`, floats, where `sound` [], else NaN for each of them: nothing was measured
    there.
    """

    def one(number):
        # numpy's NaN, as `jax_debug_nans` stops at one that jax makes, even one that is not taken
        nan = np.full(number.shape, np.nan, number.dtype)
        if not jax.config.jax_disable_jit:  # pyright: ignore[reportAttributeAccessIssue]
            return jax.lax.select(sound, number, nan)
        # (op by op, vmap makes one for each of its lanes: as whole numbers of the same bits)
        bits = np.dtype(f"int{8 * nan.itemsize}")
        chosen = jax.lax.select(sound, jax.lax.bitcast_convert_type(number, bits), nan.view(bits))
        return jax.lax.bitcast_convert_type(chosen, number.dtype)

    return jax.tree.map(one, value)


def scale_of(array: Array) -> Array:
    """Returns a power of two near the largest magnitude in `array`, [], so that dividing by it
    rounds nothing.

    It is 1 where that is from 1e-12 to 1e12, whose squares float32 holds, even those of what
    rounding leaves; and where it is 0 or not finite.
    """
    largest = jnp.abs(array).max(initial=0)
    ordinary = (largest > 1e-12) & (largest < 1e12)
    odd = jnp.isfinite(largest) & (largest > 0) & ~ordinary
    exponent = jnp.frexp(jnp.where(odd, largest, 1))[1] - 1
    return jnp.where(odd, jnp.ldexp(jnp.ones_like(largest), exponent), 1)


def if_finite(value: Array) -> Array:
    """Returns `value` where it is finite, NaN elsewhere."""
    return known(jnp.isfinite(value), value)
