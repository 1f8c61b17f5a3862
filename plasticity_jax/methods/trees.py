"""Parameter trees of any container, by the names of their leaves."""

import collections
import itertools
from typing import Any

import jax
import optax
from jax.tree_util import DictKey, GetAttrKey, SequenceKey

from plasticity_jax.types import PyTree

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
