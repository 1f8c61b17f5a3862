"""The manifold of frozen units: units whose activation function is flat on all inputs, so that no
gradient reaches what they have for themselves.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from plasticity_jax import registry, trees
from plasticity_jax.manifolds import fitting
from plasticity_jax.probes import layers
from plasticity_jax.probes import units as units_
from plasticity_jax.types import Array, PyTree, UnitGroup


class Frozen(NamedTuple):
    """Units that are frozen, as a manifold: their incoming weights, biases, scales and offsets stay
    where they were, all other parameters move.

    It holds where nothing but the unit itself reads these numbers: under layer and group norm,
    which mix units before the activation, incoming weights of a frozen unit have gradients all the
    same.

    Attributes:
      marks: {name of a parameter: [last axis] bool, which units are frozen}.
      held: the parameters in which they were frozen.
    """

    marks: Mapping[trees.Path, np.ndarray]
    held: PyTree

    def tangent(self, direction: PyTree) -> PyTree:
        """Returns a direction without what moves frozen units."""
        return self._moved(direction, jax.tree.map(jnp.zeros_like, direction))

    def inside(self, direction: PyTree) -> PyTree:
        """Returns the same as `tangent`: the manifold is affine."""
        return self.tangent(direction)

    def nearest(self, params: PyTree) -> PyTree:
        """Returns the parameters with those of frozen units as they were."""
        return self._moved(params, self.held)

    def _moved(self, tree: PyTree, still: PyTree) -> PyTree:
        named = fitting.like("the frozen units are of", self.held, tree)
        others = trees.named(still)
        leaves = []
        for name, leaf in named.items():
            mark = self.marks.get(name)
            kept = jnp.zeros(leaf.shape, bool) if mark is None else jnp.asarray(mark)
            leaves.append(jnp.where(jnp.broadcast_to(kept, leaf.shape), others[name], leaf))
        return jax.tree.unflatten(jax.tree.structure(tree), leaves)


def of_frozen(
    units: Mapping[str, UnitGroup], params: PyTree, marks: Mapping[str, Sequence[bool]]
) -> Frozen:
    """Returns the manifold on which the marked units are frozen as they are in `params`.

    `marks` is {group: [H] bool}, as `frozen_units` finds them; groups that are left out have none.
    Raises ValueError for a group that there is not, or marks that do not fit its units.
    """
    named = fitting.of_groups(units, params)
    found = {}
    for group, given in marks.items():
        unit = units[registry.one_of("group of frozen units", group, units)]
        mark, count = np.asarray(given), layers.count(unit, named)
        if mark.shape != (count,) or mark.dtype != bool:
            raise ValueError(
                f"marks of {group} are {registry.shown(mark.tolist())}: allowed are {count} times "
                "true or false, one of each unit."
            )
        found |= dict.fromkeys(layers.incoming(unit, named), mark)
    return Frozen(found, params)


def frozen_units(
    preactivations: Mapping[str, Array],
    activation: Callable[[Array], Array],
    share: float = 1.0,
    slope: float = 1e-3,
) -> dict[str, np.ndarray]:
    """Returns {group: [H] bool}: the activation function has a derivative of magnitude below
    `slope` on at least `share` of the inputs.

    `preactivations` are {group: [N, ..., H]}; positions count as inputs. For a share of 1 and a
    ReLU the gradient of what these units have for themselves is exactly 0 on these inputs. Source:
    Joudaki et al. 2025, definition 4.1.
    """
    found = {}
    for group, values in preactivations.items():
        rows = values.reshape(-1, values.shape[-1])
        flat = (units_.steepness(activation, rows) < slope).mean(axis=0)
        found[group] = np.asarray(flat >= share * (1 - 1e-6))
    return found


def shift_to_frozen(preactivations: Array) -> Array:
    """Returns by how much the bias of each ReLU has to fall until it is silent on all inputs [N,
    ..., H] -> [H]; 0 of one that is.

    The distance to where the unit is frozen is at most that. Source: ours.
    """
    largest = preactivations.reshape(-1, preactivations.shape[-1]).max(axis=0)
    return jnp.maximum(largest, 0)
