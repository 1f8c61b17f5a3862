"""How near a network is to manifolds that gradient descent does not leave: of cloned and of frozen
units.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from plasticity_jax import trees
from plasticity_jax.probes import layers, numerics, pairs
from plasticity_jax.probes.curvature import hessian_vector_product
from plasticity_jax.probes.units import steepness
from plasticity_jax.types import Array, PyTree, UnitGroup

_FAR = 30.0  # inputs between which an activation function is looked at, its negative and this


def clone_pairs(units: Mapping[str, UnitGroup], params: PyTree) -> dict[str, pairs.Pair]:
    """Returns {group: its nearest pair of units}; groups of one unit are left out. Raises
    ValueError if there are no unit groups, or a layer of theirs is missing.
    """
    named = layers.checked(units, params)
    found = {}
    for group, unit in units.items():
        own, read = _of_units(unit, named)
        if own.shape[-1] > 1:
            found[group] = pairs.nearest_pair(own, read)
    return found


def normal_shares(
    units: Mapping[str, UnitGroup], gradient: PyTree, found: Mapping[str, pairs.Pair]
) -> dict[str, Array]:
    """Returns {group: the share of a gradient's norm that parts its pair of units}, each [] in [0,
    1]: what is normal to the manifold on which they are clones. 0 of a gradient that is 0.
    """
    size = jnp.asarray(optax.tree.norm(gradient))
    named = layers.checked(units, gradient)
    shares = {}
    for group, pair in found.items():
        both = jnp.concatenate(_of_units(units[group], named))
        apart = jnp.linalg.norm(both[:, pair.units[0]] - both[:, pair.units[1]])
        shares[group] = apart / jnp.sqrt(2.0) / jnp.where(size > 0, size, 1.0)
    return shares


def unfrozen_share(
    preactivations: Array, activation: Callable[[Array], Array], slope: float = 1e-3
) -> Array:
    """Returns the share of inputs on which the activation function has a derivative of magnitude
    `slope` or more, of the unit for which it is smallest, []: 0 where a unit is frozen.
    """
    array = numerics.activations("preactivations", preactivations)
    before = array.reshape(-1, array.shape[-1])
    return (steepness(activation, before) >= slope).mean(axis=0).min()


def frozen_distance(
    preactivations: Array,
    activation: Callable[[Array], Array],
    sizes: Array,
    slope: float = 1e-3,
) -> Array:
    """Returns by how much, relative to all of its numbers, the bias of a unit has to move until the
    activation function is flat on all inputs, of the unit of which that is least, [].

    min over units i of s_i / ||w_i||_2, s_i the least |s| such that |phi'(z_i(x) + s)| < `slope`
    for all inputs x, z_i [N, ..., H] what goes into the activation function phi, `sizes` [H] the
    norms ||w_i||_2. A bound from above of how near a unit is to frozen, as more than its bias could
    move; NaN of a function that has no flat end between -30 and 30. Source: ours.
    """
    rows = preactivations.reshape(-1, preactivations.shape[-1])
    below, above = _flat_ends(activation, slope, rows.dtype)
    shift = jnp.minimum(rows.max(axis=0) - below, above - rows.min(axis=0))
    relative = jnp.maximum(shift, 0) / jnp.where(sizes > 0, sizes, 1)
    found = relative.min()
    return jnp.where(jnp.isfinite(found), found, jnp.nan)


def _flat_ends(activation: Callable[[Array], Array], slope: float, kind: Any) -> tuple[Any, Any]:
    """Below and above which numbers a function is flat: -inf and inf where it nowhere is."""
    z = jnp.linspace(-_FAR, _FAR, 6001, dtype=kind)[:, None]
    steep = steepness(activation, z)[:, 0] >= slope
    low, high = z[jnp.argmax(steep), 0], z[len(z) - 1 - jnp.argmax(steep[::-1]), 0]
    return jnp.where(steep[0], -jnp.inf, low), jnp.where(steep[-1], jnp.inf, high)


def sizes(units: Mapping[str, UnitGroup], params: PyTree) -> dict[str, Array]:
    """Returns {group: [H] the norm of all numbers of each unit}, as `clone_pairs` has them."""
    named = layers.checked(units, params)
    both = {group: jnp.concatenate(_of_units(unit, named)) for group, unit in units.items()}
    return {group: jnp.linalg.norm(values, axis=0) for group, values in both.items()}


def pull_of_clones(
    loss: Callable[[PyTree], Array],
    params: PyTree,
    units: Mapping[str, UnitGroup],
    chosen: Mapping[str, tuple[pairs.Pair, Array]],
) -> Array:
    """Returns v'Hv / v'v along what parts pairs of units, []: above 0 where gradient descent brings
    them together. 0 where nothing parts them.

    `chosen` is {group: (a pair of it, [] bool whether it counts)}.
    """
    named = layers.checked(units, params)
    moved = {name: jnp.zeros_like(leaf) for name, leaf in named.items()}
    for group, (pair, counts) in chosen.items():
        unit = units[group]
        for name in layers.incoming(unit, named):
            moved[name] = moved[name] + counts * _apart(named[name], pair, -1, 0)
        reads, count = layers.outgoing(unit), layers.count(unit, named)
        moved[reads] = moved[reads] + counts * _apart(named[reads], pair, -2, count)
    direction = jax.tree.unflatten(jax.tree.structure(params), list(moved.values()))
    product = hessian_vector_product(loss, params)(direction)
    along, size = (jnp.asarray(optax.tree.vdot(direction, v)) for v in (product, direction))
    return jnp.where(size > 0, along / jnp.where(size > 0, size, 1.0), 0.0)


def _of_units(unit: UnitGroup, named: Mapping[trees.Path, Array]) -> tuple[Array, Array]:
    """What each unit has for itself [n, H], and the weights by which it is read [m, H]."""
    own = [pairs.columns(named[name]) for name in layers.incoming(unit, named)]
    read = pairs.rows(named[layers.outgoing(unit)], layers.count(unit, named))
    return jnp.concatenate(own), read


def _apart(leaf: Array, pair: pairs.Pair, axis: int, count: int) -> Array:
    """Half of what two units differ by along an axis, with opposite signs; all else is 0.

    `count` is the number of units where an axis has several copies of each, else 0.
    """
    moved = jnp.moveaxis(leaf, axis, 0)
    grouped = moved.reshape(-1, count or moved.shape[0], *moved.shape[1:])
    half = (grouped[:, pair.units[0]] - grouped[:, pair.units[1]]) / 2
    apart = jnp.zeros_like(grouped).at[:, pair.units[0]].set(half).at[:, pair.units[1]].set(-half)
    return jnp.moveaxis(apart.reshape(moved.shape), 0, axis)


def known(params: PyTree, values: Mapping[str, Array]) -> dict[str, Array]:
    """Returns numbers of parameters, NaN where one of these is not finite."""
    return dict(numerics.known(numerics.finite(params), dict(values)))
