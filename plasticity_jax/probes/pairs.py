"""The two units of a layer that are nearest to being clones of each other."""

from typing import NamedTuple

import jax.numpy as jnp

from plasticity_jax.types import Array


class Pair(NamedTuple):
    """Two units of a group and how far the parameters are from those in which they are clones.

    Attributes:
      units: [2] int32.
      distance: [] to the nearest parameters in which nothing tells them apart.
      forward: [] to the nearest in which their activations are equal.
      relative: [] `distance` over the largest that weights of these norms have, those of opposite
        units; 0 for clones, 1 for opposite units, sqrt(1/2) for orthogonal ones of one norm.
      least: [] the least that `relative` is of any two units. These may be others: small units are
        near each other in parameters, however unlike they are.
    """

    units: Array
    distance: Array
    forward: Array
    relative: Array
    least: Array


def nearest_pair(own: Array, read: Array) -> Pair:
    """Returns the nearest pair of units, of which `own` [n, H] are the numbers that each has for
    itself and `read` [m, H] the weights by which it is read; H is 2 or more.

    The nearest parameters in which units a and b are clones, and no others are, have the mean of
    both: the squared distance is half the sum of squared differences. Source: ours, from the
    manifold of Joudaki et al. 2025.
    """
    both = jnp.concatenate([own, read])
    inner = jnp.matmul(both.T, both, precision="highest")
    size = jnp.diagonal(inner)
    squares = size[:, None] + size[None] - 2 * inner
    count = len(size)
    pairs = jnp.triu(jnp.ones((count, count), bool), 1)
    first, second = _least(jnp.where(pairs, squares, jnp.inf))
    # (differences of squares have few digits where units are almost alike: once more, directly)
    distance, forward = (_between(part, first, second) for part in (both, own))
    norms = jnp.sqrt(size)
    sums = norms[:, None] + norms[None]
    ratios = jnp.maximum(squares, 0.0) / jnp.where(sums > 0, sums, 1.0) ** 2
    alike = _least(jnp.where(pairs, ratios, jnp.inf))
    chosen = jnp.stack([first, second]).astype(jnp.int32)
    relative = _relative(both, distance, first, second)
    return Pair(
        chosen, distance, forward, relative, _relative(both, _between(both, *alike), *alike)
    )


def _least(values: Array) -> tuple[Array, Array]:
    """The row and the column of the least of [H, H]."""
    first, second = jnp.unravel_index(jnp.argmin(values), values.shape)
    return first, second


def _between(part: Array, first: Array, second: Array) -> Array:
    """How far two columns have to move to their mean, both together."""
    return jnp.linalg.norm(part[:, first] - part[:, second]) / jnp.sqrt(2.0)


def _relative(both: Array, distance: Array, first: Array, second: Array) -> Array:
    norms = jnp.linalg.norm(both[:, first]) + jnp.linalg.norm(both[:, second])
    return jnp.sqrt(2.0) * distance / jnp.where(norms > 0, norms, 1.0)


def columns(leaf: Array) -> Array:
    """Returns numbers [..., H] that each unit has for itself as [n, H]."""
    return leaf.reshape(-1, leaf.shape[-1])


def rows(kernel: Array, count: int) -> Array:
    """Returns the weights [..., m * count, out] by which `count` units are read as [n, count]."""
    read = kernel.reshape(*kernel.shape[:-2], -1, count, kernel.shape[-1])
    return jnp.moveaxis(read, -2, -1).reshape(-1, count)
