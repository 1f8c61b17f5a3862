"""Manifolds of parameters that training does not leave: cloned units and frozen units, how far a
network is from them, and whether it stays.

A manifold has `tangent(direction)`, the part of a direction within which gradients stay, `inside`,
the part along which one stays on the manifold, and `nearest(params)`. The rest of a direction is
normal to it. All raise ValueError for a tree that is not like the parameters of the manifold. Trees
are parameters of any container, layers as `UnitGroup` has them. Source: Joudaki et al. 2025,
section 4.
"""

from plasticity_jax.manifolds.certificates import (
    Invariance,
    Stability,
    curvature,
    distance,
    invariance,
    is_member,
    normal,
    normal_fraction,
    stability,
)
from plasticity_jax.manifolds.clones import Clones, Equitability, of_factor, of_units, of_widening
from plasticity_jax.manifolds.found import (
    Pair,
    alike_by_activations,
    alike_by_weights,
    nearest_pairs,
)
from plasticity_jax.manifolds.frozen import Frozen, frozen_units, of_frozen, shift_to_frozen

__all__ = [
    "Clones",
    "Equitability",
    "Frozen",
    "Invariance",
    "Pair",
    "Stability",
    "alike_by_activations",
    "alike_by_weights",
    "curvature",
    "distance",
    "frozen_units",
    "invariance",
    "is_member",
    "nearest_pairs",
    "normal",
    "normal_fraction",
    "of_factor",
    "of_frozen",
    "of_units",
    "of_widening",
    "shift_to_frozen",
    "stability",
]
