"""Where the numbers of a group of units are in a parameter tree."""

from collections.abc import Mapping
from typing import Any

from plasticity_jax import trees
from plasticity_jax.types import Array, UnitGroup


def checked(units: Mapping[str, UnitGroup], params: Any) -> dict[trees.Path, Any]:
    """Returns the parameters by name. Raises ValueError if there are no unit groups, or a layer of
    theirs is missing.
    """
    if not units:
        raise ValueError(
            "units is empty: allowed are the unit groups of a model, of which this one has none."
        )
    named = trees.named(params)
    for group, unit in units.items():
        for path in (unit.made_by, unit.feeds):
            name = (*trees.path_of(path), "kernel")
            if name not in named:
                raise ValueError(
                    f"units {group!r} are of {'/'.join(name)}, which the parameters do not have: "
                    "allowed are the unit groups of their model."
                )
        if unit.norm:
            trees.check_layer(f"the norm of units {group!r}", params, unit.norm)
    return named


def count(unit: UnitGroup, named: Mapping[trees.Path, Array]) -> int:
    """Returns how many units a group has."""
    return named[*trees.path_of(unit.made_by), "kernel"].shape[-1]


def incoming(unit: UnitGroup, named: Mapping[trees.Path, Array]) -> list[trees.Path]:
    """Returns the names of what a unit has for itself, the last axis of each: kernel and bias of
    the layer that makes it, scale and offset of the norm.
    """
    paths = [trees.path_of(path) for path in (unit.made_by, unit.norm) if path]
    return [name for name in named if name[:-1] in paths]


def outgoing(unit: UnitGroup) -> trees.Path:
    """Returns the name of the kernel that reads the units."""
    return (*trees.path_of(unit.feeds), "kernel")
