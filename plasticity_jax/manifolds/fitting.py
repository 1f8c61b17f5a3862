"""Whether a tree is like the parameters that a manifold or unit groups are of, by shapes alone, so
that it is told under `jax.jit` too.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from plasticity_jax import trees
from plasticity_jax.probes import layers
from plasticity_jax.types import PyTree, UnitGroup

Axes = tuple[int | None, ...]
"""Sizes of a parameter's last axes; None is any."""

_ALLOWED = "allowed is a tree like the parameters that they are of."


def leaves(
    whose: str, axes: Mapping[trees.Path, Axes], tree: PyTree, *, whole: bool = False
) -> dict[trees.Path, Any]:
    """Returns the leaves of a tree by name.

    Args:
      whose: words before the name of a parameter, such as "the clones are of".
      axes: {name of a parameter that the tree must have: its last axes}.
      whole: whether these are all axes of all parameters.
    Raises ValueError for a tree that lacks one of them, has one of another shape or, with `whole`,
    has more.
    """
    named = trees.named(tree)
    for name, wanted in axes.items():
        told = "/".join(name)
        if name not in named:
            raise ValueError(f"{whose} {told}, which the tree does not have: {_ALLOWED}")
        shape = np.shape(named[name])
        if not _fit(shape, wanted, whole):
            sizes = str(wanted).replace("None", "any")
            raise ValueError(
                f"the tree has {told} of shape {shape}, but {whose} one with last axes "
                f"{sizes}: {_ALLOWED}"
            )
    more = [name for name in named if name not in axes] if whole else []
    if more:
        raise ValueError(f"the tree has {'/'.join(more[0])}, which is one too many: {_ALLOWED}")
    return named


def like(whose: str, wanted: PyTree, tree: PyTree) -> dict[trees.Path, Any]:
    """Returns `leaves` of a tree that has to have the parameters of `wanted`, with their shapes."""
    axes = {name: np.shape(leaf) for name, leaf in trees.named(wanted).items()}
    return leaves(whose, axes, tree, whole=True)


def of_groups(units: Mapping[str, UnitGroup], params: PyTree) -> dict[trees.Path, Any]:
    """Returns parameters by name as `layers.checked` does.

    Raises ValueError as that does, and where what is of a group's units has another number of them.
    """
    named = layers.checked(units, params)
    for group, unit in units.items():
        count, reads = layers.count(unit, named), layers.outgoing(unit)
        own = layers.incoming(unit, named)
        odd = [name for name in own if np.shape(named[name])[-1:] != (count,)]
        # (positions of a unit, and copies of CReLU, are inputs of their own)
        odd += [reads] if np.shape(named[reads])[-2] % count else []
        if odd:
            raise ValueError(
                f"{'/'.join(odd[0])} of units {group!r} has shape {np.shape(named[odd[0]])}: "
                f"allowed is one of the {count} units that their layer makes."
            )
    return named


def _fit(shape: tuple[int, ...], wanted: Axes, whole: bool) -> bool:
    if len(shape) < len(wanted) or (whole and len(shape) != len(wanted)):
        return False
    last = shape[len(shape) - len(wanted) :]
    return all(want in (None, size) for size, want in zip(last, wanted, strict=True))
