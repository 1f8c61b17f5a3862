"""The arithmetic of the network in training steps: what a Spec's `precision` names."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from plasticity_jax.types import PyTree


class Precision(NamedTuple):
    """How forward and backward pass of a training step compute; evaluation, probes and methods are
    float32 always.

    Attributes:
      products: least precision of matrix products and convolutions, by jax's name
        (`jax.default_matmul_precision`).
      dtype: what parameters and inputs are cast to; parameters at rest, statistics of norms and
        gradients are float32.
    """

    products: str
    dtype: Any


PRECISIONS = {
    "float32": Precision("float32", jnp.float32),
    "tensorfloat32": Precision("tensorfloat32", jnp.float32),
    "bfloat16": Precision("bfloat16", jnp.bfloat16),
}


def cast(tree: PyTree, dtype: Any) -> PyTree:
    """Returns `tree` with its floating-point arrays as `dtype`; ids and masks stay."""
    return jax.tree.map(
        lambda a: a.astype(dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a, tree
    )


def in_float32(function: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """Returns `function` computed in 32 bits however jax is set up, so that its results are the
    same to the bit.

    Products of float32 are computed as such, which accelerators by default do not.
    `jax_enable_x64`, which would make draws and sums of other types, and
    `jax_numpy_dtype_promotion="strict"`, which optax's Adam does not bear, stay outside.
    """

    @functools.wraps(function)
    def exact(*arguments, **keyword):
        with (
            jax.default_matmul_precision("float32"),
            jax.enable_x64(False),
            jax.numpy_dtype_promotion("standard"),
        ):
            return function(*arguments, **keyword)

    return exact
