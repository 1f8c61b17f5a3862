"""Clones that are there: by weights, by activations, and the pair of units that is nearest to
being clones.
"""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from plasticity_jax import trees
from plasticity_jax.manifolds import fitting
from plasticity_jax.probes import layers, pairs
from plasticity_jax.probes.pairs import Pair
from plasticity_jax.types import Array, PyTree, UnitGroup


def nearest_pairs(units: Mapping[str, UnitGroup], params: PyTree) -> dict[str, Pair]:
    """Returns {group: the two units that are nearest to being clones of each other}, as
    `probes.nearest_pair` finds them by what they have for themselves and the weights by which they
    are read. A group of one unit is left out.
    """
    named = fitting.of_groups(units, params)
    found = {}
    for group, unit in units.items():
        count = layers.count(unit, named)
        if count > 1:
            own = [pairs.columns(named[name]) for name in layers.incoming(unit, named)]
            read = pairs.rows(named[layers.outgoing(unit)], count)
            found[group] = pairs.nearest_pair(jnp.concatenate(own), read)
    return found


def alike_by_activations(
    hidden: Mapping[str, Array], tolerance: float = 1e-5
) -> dict[str, np.ndarray]:
    """Returns {group: [H] int, a number for the units that have the same activations}.

    `hidden` is {group: [N, ..., H]}. Units are alike if their activations differ by at most
    `tolerance` times the largest of the group on every input; likeness is passed on. Silent units
    are alike.
    """
    found = {}
    for group, values in hidden.items():
        rows = np.asarray(values, np.float64).reshape(-1, values.shape[-1])
        found[group] = _alike(rows, tolerance * np.abs(rows).max(initial=0))
    return found


def alike_by_weights(
    units: Mapping[str, UnitGroup], params: PyTree, tolerance: float = 1e-5
) -> dict[str, np.ndarray]:
    """Returns {group: [H] int, a number for the units that compute the same on any input}.

    In the order of the groups, which is that of the layers: two units are alike if their sums of
    weights from each set of alike inputs are, and their biases, scales and offsets, up to
    `tolerance` times the largest of each. These are row-equitable clones; whether gradients keep
    them, `Clones.equitability` tells by columns.
    """
    named = fitting.of_groups(units, params)
    inputs: dict[trees.Path, np.ndarray] = {}
    found = {}
    for group, unit in units.items():
        made = (*trees.path_of(unit.made_by), "kernel")
        sums = []
        for name in layers.incoming(unit, named):
            leaf = np.asarray(named[name], np.float64)
            if name == made and name in inputs:
                leaf = _summed(leaf, inputs[name])
            rows = leaf.reshape(-1, leaf.shape[-1])
            largest = np.abs(rows).max(initial=0)
            sums.append(rows / (largest or 1.0))
        labels = _alike(np.concatenate(sums), tolerance)
        found[group] = labels
        reads = layers.outgoing(unit)
        times = named[reads].shape[-2] // len(labels)
        number = labels.max() + 1
        inputs[reads] = np.concatenate([labels + copy * number for copy in range(times)])
    return found


def _summed(kernel: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Sums of a kernel [..., in, out] over inputs of one number."""
    sums = np.zeros((*kernel.shape[:-2], labels.max() + 1, kernel.shape[-1]))
    np.add.at(np.moveaxis(sums, -2, 0), labels, np.moveaxis(kernel, -2, 0))
    return sums


def _alike(columns: np.ndarray, tolerance: float) -> np.ndarray:
    """Numbers from 0 of columns that differ by at most `tolerance` in each entry, in the order of
    their first members.
    """
    count = columns.shape[-1]
    labels = np.arange(count)
    for one in range(count):
        near = np.abs(columns - columns[:, [one]]).max(axis=0, initial=0) <= tolerance
        joined = np.isin(labels, labels[near])
        labels[joined] = labels[near].min()
    return np.unique(labels, return_inverse=True)[1].reshape(-1)
