"""Parameter trees of any container, by the names of their leaves."""

import collections
import itertools
from typing import Any

import jax
import optax
from jax.tree_util import DictKey, GetAttrKey, SequenceKey

from plasticity_jax.types import Array, PyTree

Path = tuple[str, ...]


def named(params: PyTree, masked: bool = False) -> dict[Path, Any]:
    """Returns {path of names: leaf} in the order of `jax.tree.leaves`.

    A sequence's names are its indices; a name such as "layer0/kernel" or "layer0.kernel" is two; a
    tree that is one leaf has the name "". With `masked`, an optax.MaskedNode counts as a leaf.
    Raises ValueError where two leaves have one name.
    """
    leaves = _leaves(params, masked)
    children = collections.Counter(path[:-1] for path, _ in leaves)
    found = {}
    for path, leaf in leaves:
        # flax.nnx keeps every parameter in a Variable, whose only child is called `value`
        variable = path and path[-1] == GetAttrKey("value") and children[path[:-1]] == 1
        name = path_of(path[:-1] if variable else path) or ("",)
        if name in found:
            raise ValueError(f"two parameters are called {'/'.join(name)}.")
        found[name] = leaf
    return found


def check_layer(what: str, params: PyTree, layer: tuple) -> None:
    """Raises ValueError unless a path of names leads to something in `params`; what is masked there
    counts. `what` is what to call it.
    """
    there, path = named(params, masked=True), path_of(layer)
    if not any(
        name[: len(path)] == path or _hides(leaf, name, path) for name, leaf in there.items()
    ):
        known = sorted({"/".join(name[:-1]) for name in there} - {""})
        raise ValueError(
            f"{what} is {'/'.join(path)!r}, which the parameters do not have: allowed are "
            f"{', '.join(map(repr, known)) or 'none'}."
        )


def _hides(leaf: Any, name: Path, layer: Path) -> bool:
    """Whether what is masked under a name may hold a layer."""
    return isinstance(leaf, optax.MaskedNode) and layer[: len(name)] == name


def activations(what: str, value: Any) -> Array:
    """Returns a group of activations as an array, also as plain Flax `sow` leaves one, a tuple of
    one. Raises ValueError for several; `what` is what to call them.
    """
    if not isinstance(value, tuple):
        return value
    if len(value) != 1:
        raise ValueError(
            f"{what} has {len(value)} arrays: allowed is one, as `sow` leaves of one call."
        )
    return value[0]


def keys(params: PyTree, masked: bool = False) -> list[str]:
    """Returns jax's text of each path, in the order of `named`."""
    return [jax.tree_util.keystr(path) for path, _ in _leaves(params, masked)]


def _leaves(params: PyTree, masked: bool) -> list[tuple[tuple, Any]]:
    def ends(node):
        return masked and isinstance(node, optax.MaskedNode)

    return jax.tree_util.tree_leaves_with_path(params, is_leaf=ends)


def path_of(path: tuple) -> Path:
    """Returns a path of jax's keys, or of names and indices, as names."""
    return tuple(itertools.chain.from_iterable(map(_names, path)))


def _names(key: Any) -> Path:
    if isinstance(key, DictKey):
        key = key.key
    elif isinstance(key, GetAttrKey):
        key = key.name
    elif isinstance(key, SequenceKey):
        key = key.idx
    elif isinstance(key, jax.tree_util.FlattenedIndexKey):
        key = key.key
    if isinstance(key, tuple):
        return path_of(key)
    return tuple(str(key).replace("/", ".").split("."))
