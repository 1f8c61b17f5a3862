"""Probes of what goes into activation functions, and of how gradients move it.

`preactivations` is one array [N, ..., H] or a tree of them, a leaf for each group of units;
positions count as inputs. Results are NaN where a number is not finite.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from plasticity_jax.probes import numerics, taps
from plasticity_jax.types import Array, PyTree


def moments(preactivations: PyTree) -> tuple[Array, Array]:
    """Returns each unit's mean and deviation over the inputs, [units] and [units], all groups one
    after another.
    """
    means, deviations, groups = [], [], []
    for path, leaf in jax.tree_util.tree_leaves_with_path(preactivations):
        array = numerics.activations(f"preactivations{jax.tree_util.keystr(path)}", leaf)
        rows = array.reshape(-1, array.shape[-1])
        means.append(rows.mean(axis=0))
        deviations.append(rows.std(axis=0))
        groups.append(rows)
    if not groups:
        raise ValueError("preactivations has no arrays: allowed is at least one array [N, ..., H].")
    sound = numerics.finite(groups)
    found = jnp.concatenate(means), jnp.concatenate(deviations)
    return numerics.known(sound, found)


def histogram(values: Array, bins: int, edge: float) -> Array:
    """Returns [bins] the shares of `values` [n] in equal bins from -edge to edge; what is beyond
    counts in the outermost bins. NaN where a value is not finite.
    """
    numerics.check_number("edge", edge)
    place = jnp.floor((values + edge) / (2 * edge) * bins)
    place = jnp.clip(jnp.where(jnp.isfinite(place), place, 0), 0, bins - 1).astype(jnp.int32)
    counts = jnp.zeros(bins, values.dtype).at[place].add(1.0)
    return numerics.known(numerics.finite(values), counts / len(values))


def linear_fraction(hidden: PyTree, preactivations: PyTree, rest: float = 1e-3) -> Array:
    """Returns the fraction of units that are a straight line of their preactivation on the inputs.

    Unit i counts if the least-squares line leaves less than `rest` of its variance and it varies at
    all: 1 - R^2 < `rest`. For any activation function, smooth ones too; a dead unit is none. Groups
    whose activation makes more units than it takes, as CReLU, are left out; 0 if none is left.
    Source: Lyle et al. 2024, "Disentangling the Causes of Plasticity Loss", for the idea; rule and
    threshold are ours.
    """
    numerics.check_number("rest", rest)
    marks, groups = [jnp.zeros(0)], []
    pairs = zip(jax.tree.leaves(hidden), jax.tree.leaves(preactivations), strict=True)
    for after, before in pairs:
        groups += [after, before]
        if after.shape == before.shape:
            marks.append(_is_line(after, before, rest))
    whole = jnp.concatenate(marks)
    share = whole.sum() / max(1, len(whole))
    return numerics.known(numerics.finite(groups), share)


def _is_line(after: Array, before: Array, rest: float) -> Array:
    """Which units [H] of one group are a line of their preactivation, as 0 or 1."""
    after, before = (a.reshape(-1, a.shape[-1]) for a in (after, before))
    y, x = (a - a.mean(axis=0, keepdims=True) for a in (after, before))
    spread, varies = (x * x).sum(axis=0), (y * y).sum(axis=0)
    slope = (x * y).sum(axis=0) / jnp.where(spread > 0, spread, 1.0)
    left = ((y - slope[None] * x) ** 2).sum(axis=0)
    return ((varies > 0) & (left < rest * varies)).astype(jnp.float32)


def gradient_alignment(
    loss: Callable[[PyTree], Array], network: Callable[[PyTree], Array], params: PyTree
) -> tuple[Array, Array]:
    """Returns how uniformly a gradient step on the first layer moves each of its units, [H], and
    the mean of the cosine between gradient and inputs, [H].

    With g_i the gradient of `loss` with respect to unit i's incoming weights and bias, and x an
    input (with 1 for the bias), a step moves what the unit gets on x by -eta <g_i, x>. The first is
    |mean over inputs of the sign of <g_i, x>|, 1 where all inputs move one way; the second is the
    mean of <g_i, x> / (|g_i| |x|), for layers that read rows, else of <g_i, x> over its root mean
    square. Positions of images count as inputs; a unit without a gradient has 0. `network` is
    params -> outputs of a Flax network, whose first layer with a kernel is taken. Source: Lyle et
    al. 2024, "Disentangling the Causes of Plasticity Loss", figure 2; the formula is ours.
    """
    params = numerics.floating("params", params)
    _, found = taps.shapes(network, params)
    first = next((path for path, tap in found.items() if "kernel" in tap.parameters), None)
    if first is None:
        raise ValueError(
            "gradient_alignment needs a Flax network: allowed is one with a layer that has a "
            "kernel."
        )
    value, gradient = jax.value_and_grad(loss)(params)
    # (the layer is linear in its parameters, and convolutions on a CPU have no forward mode)
    tap = taps.tapped(network, _with(params, gradient, first))[1][first]
    change = tap.after.reshape(-1, tap.after.shape[-1])
    uniform = jnp.abs(jnp.sign(change).mean(axis=0))
    if tap.dense:
        size = jnp.sqrt(sum(map(_squares, tap.parameters.values())))
        rows = tap.before.reshape(-1, tap.before.shape[-1])
        more = 1.0 if "bias" in tap.parameters else 0.0
        length = jnp.sqrt((rows**2).sum(axis=1) + more)
        scale = length[:, None] * size[None]
    else:
        scale = jnp.broadcast_to(jnp.sqrt((change**2).mean(axis=0, keepdims=True)), change.shape)
    cosine = (change / jnp.where(scale > 0, scale, 1.0)).mean(axis=0)
    return numerics.known(numerics.finite(params, value, change), (uniform, cosine))


def _with(params: PyTree, others: PyTree, path: taps.Path) -> PyTree:
    """The parameters with those of the layer at `path` replaced by what `others` has there."""

    def one(where: tuple, leaf: Array, other: Array) -> Array:
        names = tuple(str(getattr(key, "key", key)) for key in where)
        return other if names[:-1] == path else leaf

    return jax.tree_util.tree_map_with_path(one, params, others)


def _squares(leaf: Array) -> Array:
    """Sum of squares over all axes but the last, [H]."""
    return (leaf.reshape(-1, leaf.shape[-1]) ** 2).sum(axis=0)
