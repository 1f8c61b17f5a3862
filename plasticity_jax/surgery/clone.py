"""Surgery that makes a network wider: every unit several times, side by side, with outputs as they
were.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from plasticity_jax import registry
from plasticity_jax.types import Array, Key, PyTree, Recipient, Surgery, TrainState

Path = tuple[str, ...]
_GRADIENTS = ("mu", "trace")  # what optimizers keep of gradients, by the names of optax's states
_SQUARES = ("nu",)
_COUNTS = ("count",)


@registry.checked
def clone(*, factor: int = 2, rescale: bool = True) -> Surgery:
    """A network `factor` times as wide with the same outputs: each unit stands `factor` times, side
    by side.

    A kernel W [..., in, out] becomes W / factor, each of its units repeated, where its inputs are
    cloned; biases, norms and running statistics are repeated; inputs and outputs of the network are
    as they were. Where scores of attention are divided by the square root of a head's size, queries
    are divided by the square root of `factor`. The public code leaves that out and changes the
    function, as does `rescale` = False. Clones stay clones under gradient descent, momentum and
    Adam; noise and dropout part them. Initial parameters are cloned as parameters are. What
    momentum and Adam remember is what they would remember of the clones: the gradient of a number
    that stands n times at scale a is 1 / (n a) of what it was; with `start_optimizer="fresh"` they
    begin anew. Source: Joudaki et al. 2025, section 4.

    Raises ValueError for a factor below 2, a model that does not say how it becomes wider
    (`widened`), group norm whose groups clones would part, or an optimizer's state that holds
    anything but moments and counts of steps, as that of many methods does: it may start afresh.
    """
    registry.whole("clone.factor", factor, 2)

    def model(narrow: Any) -> Any:
        if not hasattr(narrow, "widened"):
            name = type(narrow).__name__.lower()
            raise ValueError(
                f"surgery is 'clone', but a {name} cannot become wider: allowed are models with a "
                "method `widened`, such as mlp, cnn, resnet18 and vit."
            )
        return narrow.widened(factor)

    def operate(key: Key, state: TrainState, into: Recipient) -> TrainState:
        del key
        wide = into.shapes()
        scaled = rescale and hasattr(into.model, "rescaled")
        scales = into.model.rescaled(factor) if scaled else {}
        growths = {}
        for path, leaf in _named(state.params).items():
            found = axes(path, leaf.shape, _named(wide.params)[path].shape, factor)
            growths[path] = Growth(found, factor, scales.get(path[:-1], 1.0))
        return TrainState(
            params=_of_parameters(state.params, growths),
            variables=jax.tree.map(lambda leaf: jnp.repeat(leaf, factor, -1), state.variables),
            initial=_of_parameters(state.initial, growths),
            opt=_of_optimizer(state.opt, growths),
        )

    return Surgery(operate, model)


class Growth:
    """How one parameter becomes that of a wider network.

    Attributes:
      axes: those along which its units stand `factor` times; -2 is that of the inputs.
      scale: of the numbers, besides the 1 / factor of cloned inputs.
    """

    def __init__(self, axes: tuple[int, ...], factor: int, scale: float = 1.0):
        """Keeps the axes, and what numbers and their gradients are multiplied by."""
        self.axes, self.factor = axes, factor
        self.scale = scale / factor if -2 in axes else scale
        self.of_gradients = 1 / (self.scale * factor ** len(axes))

    def repeated(self, leaf: Array) -> Array:
        """Returns the numbers as they are, each with its copies beside it."""
        for axis in self.axes:
            leaf = jnp.repeat(leaf, self.factor, axis)
        return leaf


def axes(
    path: Path, narrow: tuple[int, ...], wide: tuple[int, ...], factor: int
) -> tuple[int, ...]:
    """Returns the axes of a parameter, from the end, along which a wider network has `factor` times
    as many units: -1, and of kernels -2.

    Raises ValueError for shapes that no widening by `factor` makes of each other.
    """
    last = (-2, -1) if path[-1:] == ("kernel",) else (-1,)
    found = []
    if len(narrow) == len(wide):
        found = [a for a in last if len(wide) >= -a and wide[a] == factor * narrow[a]]
    shape = list(narrow)
    for axis in found:
        shape[axis] *= factor
    if tuple(shape) != tuple(wide):
        raise ValueError(
            f"parameter {'/'.join(path)} has shape {narrow}, of which clones of factor {factor} "
            f"make none of shape {wide}: allowed are units and their inputs that stand "
            f"{factor} times."
        )
    return tuple(found)


def _named(tree: PyTree) -> dict[Path, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {_names(path): leaf for path, leaf in leaves}


def _names(path: tuple) -> Path:
    return tuple(jax.tree_util.keystr((key,), simple=True) for key in path)


def _of_parameters(params: PyTree, growths: Mapping[Path, Growth]) -> PyTree:
    def one(path: tuple, leaf: Array) -> Array:
        growth = growths[_names(path)]
        return growth.repeated(leaf) * jnp.asarray(growth.scale, leaf.dtype)

    return jax.tree_util.tree_map_with_path(one, params)


def _of_optimizer(opt: PyTree, growths: Mapping[Path, Growth]) -> PyTree:
    """The state of an optimizer for the clones; raises ValueError for what is none of theirs."""

    def one(path: tuple, leaf: Array) -> Array:
        names = _names(path)
        whose = next((p for p in growths if names[-len(p) :] == p), None)
        if whose is None and leaf.ndim == 0:  # such as the number of steps
            return leaf
        kind = names[-len(whose) - 1] if whose and len(names) > len(whose) else ""
        scaled = _SCALES.get(kind)
        if whose is None or scaled is None:
            raise ValueError(
                f"the optimizer's state has {'/'.join(names)}, of which clones know nothing: "
                "allowed are moments and counts of steps."
            )
        growth = growths[whose]
        factor = jnp.asarray(scaled(growth), leaf.dtype)
        return growth.repeated(leaf) * factor

    return jax.tree_util.tree_map_with_path(one, opt)


_SCALES: dict[str, Callable[[Growth], float]] = {
    **dict.fromkeys(_GRADIENTS, lambda growth: growth.of_gradients),
    **dict.fromkeys(_SQUARES, lambda growth: growth.of_gradients**2),
    **dict.fromkeys(_COUNTS, lambda growth: 1),
}
