"""The manifold of cloned units: units in groups that no input, weight or gradient tells apart."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from plasticity_jax import registry, trees
from plasticity_jax.manifolds import fitting
from plasticity_jax.probes import layers
from plasticity_jax.surgery.clone import axes as grown
from plasticity_jax.types import Array, PyTree, UnitGroup

Labels = Mapping[str, Sequence[int]]
"""{group: number of the clones that each unit belongs to}; groups that are left out have none."""


class Equitability(NamedTuple):
    """How far a network is from clones: the largest difference within a block.

    Attributes:
      rows: of two clones' sums over the inputs of a block; 0: activations are equal (RE).
      columns: of two clones' sums over the units of a block that read them; 0 as well: gradients
        are equal (CE).
      vectors: of two clones' biases, scales, offsets.
    """

    rows: Array
    columns: Array
    vectors: Array


class Clones(NamedTuple):
    """A partition of units into clones, as a manifold of parameters.

    A kernel is a matrix of blocks, of the units of two groups of clones. Equitable parameters, of
    whose blocks all rows have one sum and all columns have one, are a linear space: there clones
    have equal activations and gradients. A gradient there is constant on each block, so that
    training stays in the affine space of equitable parameters plus what is block-constant.

    Attributes:
      blocks: {name of a parameter: (number of each input's block or None, number of each unit's or
        None)}, of its last two axes; None where there are no clones.
    """

    blocks: Mapping[trees.Path, tuple[np.ndarray | None, np.ndarray | None]]

    def tangent(self, direction: PyTree) -> PyTree:
        """Returns the block-constant part of a direction: what gradients on the manifold are."""
        return self._mapped(_block_constant, direction)

    def inside(self, direction: PyTree) -> PyTree:
        """Returns the equitable part of a direction: clones that move along it stay clones."""
        return self._mapped(_equitable, direction)

    def nearest(self, params: PyTree) -> PyTree:
        """Returns the nearest parameters in which these units are clones."""
        return self.inside(params)

    def equitability(self, params: PyTree) -> Equitability:
        """Returns how unequal the sums of clones are."""
        rows, columns, vectors = [jnp.zeros(())], [jnp.zeros(())], [jnp.zeros(())]
        for name, leaf in self._leaves(params).items():
            given, made = self.blocks.get(name, (None, None))
            if leaf.ndim > 1 and name[-1] == "kernel":
                row, column = _unequal(leaf, given, made)
                rows.append(jnp.abs(row).max())
                columns.append(jnp.abs(column).max())
            else:
                row, _ = _unequal(_matrix(leaf), given, made)
                vectors.append(jnp.abs(row).max())
        return Equitability(*(jnp.stack(part).max() for part in (rows, columns, vectors)))

    def _mapped(self, function: Callable, tree: PyTree) -> PyTree:
        leaves = []
        for name, leaf in self._leaves(tree).items():
            given, made = self.blocks.get(name, (None, None))
            leaves.append(function(_matrix(leaf), given, made).reshape(leaf.shape))
        return jax.tree.unflatten(jax.tree.structure(tree), leaves)

    def _leaves(self, tree: PyTree) -> dict[trees.Path, Any]:
        """The leaves of a tree by name; raises ValueError for one that is not of these clones."""
        axes = {name: tuple(map(_size, ends)) for name, ends in self.blocks.items()}
        # (of a vector there is one axis)
        axes = {name: (own if own[0] else own[1:]) for name, own in axes.items()}
        return fitting.leaves("the clones are of", axes, tree)


def of_units(units: Mapping[str, UnitGroup], params: PyTree, labels: Labels) -> Clones:
    """Returns the manifold on which units of the same number within their group are clones.

    Args:
      units: of the model, as `model.units()` gives them.
      params: of the model, for their names and shapes.
      labels: {group: [H] whole numbers}; a group that is left out has no clones.
    Raises ValueError for a group that there is not, or numbers that do not fit its units.
    """
    named = fitting.of_groups(units, params)
    blocks: dict[trees.Path, tuple] = {}
    for group, given in labels.items():
        unit = units[registry.one_of("group of clones", group, units)]
        numbers, number = _numbers(group, given, layers.count(unit, named))
        for name in layers.incoming(unit, named):
            blocks[name] = (blocks.get(name, (None, None))[0], numbers)
        reads = layers.outgoing(unit)
        times = named[reads].shape[-2] // len(numbers)
        # (a position, or a copy of CReLU, of one unit is no clone of another position of it)
        rows = np.concatenate([numbers + copy * number for copy in range(times)])
        blocks[reads] = (rows, blocks.get(reads, (None, None))[1])
    return Clones(blocks)


def of_factor(units: Mapping[str, UnitGroup], params: PyTree, factor: int) -> Clones:
    """Returns the manifold on which each `factor` neighbors of a group are clones.

    Raises ValueError for a factor below 2, or that does not divide the units of a group.
    """
    factor = registry.whole("factor", factor, 2)
    named = fitting.of_groups(units, params)
    labels = {}
    for group, unit in units.items():
        count = layers.count(unit, named)
        if count % factor:
            raise ValueError(
                f"factor is {factor}: allowed are whole numbers from 2 that divide the {count} "
                f"units of {group}."
            )
        labels[group] = np.arange(count) // factor
    return of_units(units, params, labels)


def of_widening(narrow: PyTree, wide: PyTree, factor: int) -> Clones:
    """Returns the manifold of the clones that `surgery.clone` makes, in any model: all units of
    `wide`, those of residual streams too, that stand for one of `narrow`.

    Of the two trees of parameters only shapes are read. Raises ValueError where `wide` is no
    widening of `narrow` by `factor`.
    """
    factor = registry.whole("factor", factor, 2)
    before, after = trees.named(narrow), trees.named(wide)
    if before.keys() != after.keys():
        odd = next(iter(before.keys() ^ after.keys()))
        raise ValueError(
            f"parameter {'/'.join(odd)} is in one of the trees only: allowed are trees of one "
            "model."
        )
    blocks = {}
    for name, leaf in after.items():
        found = grown(name, before[name].shape, leaf.shape, factor)
        ends = [np.arange(leaf.shape[a]) // factor if a in found else None for a in (-2, -1)]
        if found:
            blocks[name] = tuple(ends)
    return Clones(blocks)


def _numbers(group: str, given: Sequence[int], count: int) -> tuple[np.ndarray, int]:
    """The blocks' numbers from 0 in the order of `given`, and how many blocks there are."""
    numbers = np.asarray(given)
    if numbers.shape != (count,) or numbers.dtype.kind not in "iu":
        raise ValueError(
            f"labels of {group} are {registry.shown(numbers.tolist())}: allowed are {count} whole "
            "numbers, one of each unit."
        )
    values, places = np.unique(numbers, return_inverse=True)
    return places.reshape(-1), len(values)


def _size(labels: np.ndarray | None) -> int | None:
    return None if labels is None else len(labels)


def _matrix(leaf: Any) -> Array:
    leaf = jnp.asarray(leaf)
    return leaf if leaf.ndim > 1 else leaf.reshape(1, -1)


def _equitable(leaf: Array, given: np.ndarray | None, made: np.ndarray | None) -> Array:
    rows, columns = _unequal(leaf, given, made)
    leaf = leaf - _spread(_over_sizes(rows, given, -2), given, -2)
    return leaf - _spread(_over_sizes(columns, made, -1), made, -1)


def _unequal(leaf: Array, given: np.ndarray | None, made: np.ndarray | None) -> tuple[Array, Array]:
    """What sums over a block's inputs [..., blocks, out] and over its units [..., in, blocks]
    differ from their means by.
    """
    rows, columns = _sums(leaf, given, -2), _sums(leaf, made, -1)
    return rows - _means(rows, made, -1), columns - _means(columns, given, -2)


def _block_constant(leaf: Array, given: np.ndarray | None, made: np.ndarray | None) -> Array:
    return _means(_means(leaf, given, -2), made, -1)


def _means(leaf: Array, labels: np.ndarray | None, axis: int) -> Array:
    """Each number's mean over its block along an axis."""
    return _spread(_over_sizes(_sums(leaf, labels, axis), labels, axis), labels, axis)


def _over_sizes(sums: Array, labels: np.ndarray | None, axis: int) -> Array:
    """Sums of blocks along an axis over the number of their members."""
    if labels is None:
        return sums
    shape = [1] * sums.ndim
    shape[axis] = -1
    return sums / jnp.asarray(np.bincount(labels).reshape(shape), sums.dtype)


def _sums(leaf: Array, labels: np.ndarray | None, axis: int) -> Array:
    """Sums over the blocks along an axis."""
    if labels is None:
        return leaf
    moved = jnp.moveaxis(leaf, axis, 0)
    summed = jax.ops.segment_sum(moved, jnp.asarray(labels), int(labels.max()) + 1)
    return jnp.moveaxis(summed, 0, axis)


def _spread(sums: Array, labels: np.ndarray | None, axis: int) -> Array:
    """A number of each block, for all its members."""
    return sums if labels is None else jnp.take(sums, jnp.asarray(labels), axis=axis)
