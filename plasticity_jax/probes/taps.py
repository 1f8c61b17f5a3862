"""What goes into and comes out of the layers of a Flax network, seen from outside.

Any function that calls Flax modules can be looked into, whatever it closes over: nothing is asked
of the network but that its layers are modules with parameters of the usual names.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from plasticity_jax.types import Array

Path = tuple[str, ...]


class Tap(NamedTuple):
    """One layer in one call of a function.

    Attributes:
      parameters: its parameters by name, none of those of layers inside it.
      before, after: what goes in, and what comes out.
      dense: whether it is a dense layer, which multiplies the last axis by its kernel.
    """

    parameters: Mapping[str, Array]
    before: Array
    after: Array
    dense: bool


def tapped(
    function: Callable[..., Array], *arguments: Any, shifts: Mapping[Path, Array] | None = None
) -> tuple[Array, dict[Path, Tap]]:
    """Returns the value of `function` and {path: Tap} of its layers, in the order of their calls.

    `shifts` are added to what comes out of layers, so that derivatives with respect to them are
    those with respect to the layers' outputs. A layer that is called twice is not listed.
    """
    found: dict[Path, Tap] = {}
    again: set[Path] = set()

    def look(call, args, kwargs, context):
        after = call(*args, **kwargs)
        module = context.module
        own = _own_parameters(module)
        if context.method_name != "__call__" or not own or not args:
            return after
        if shifts and module.path in shifts:
            after = after + shifts[module.path]
        if module.path in found:
            again.add(module.path)
        found[module.path] = Tap(own, args[0], after, isinstance(module, nn.Dense))
        return after

    with nn.intercept_methods(look):
        value = function(*arguments)
    return value, {path: tap for path, tap in found.items() if path not in again}


def _own_parameters(module: nn.Module) -> dict[str, Array]:
    """The parameters that are a module's own, {} of one that has none."""
    known = module.variables.get("params", {}) if module.scope is not None else {}
    return {
        name: jnp.asarray(leaf) for name, leaf in known.items() if not isinstance(leaf, Mapping)
    }


def shapes(function: Callable[..., Array], *arguments: Any) -> tuple[Any, dict[Path, Tap]]:
    """Returns the shapes of what `tapped` returns; nothing is computed."""
    kinds: dict[Path, bool] = {}

    def arrays(*given: Any) -> tuple[Array, dict[Path, tuple]]:
        value, taps = tapped(function, *given)
        kinds.update({path: tap.dense for path, tap in taps.items()})
        return value, {path: tuple(tap)[:3] for path, tap in taps.items()}

    value, found = jax.eval_shape(arrays, *arguments)
    taps: dict[Path, Tap] = {}
    for path, dense in kinds.items():
        own, before, after = found[path]
        taps[path] = Tap(own, before, after, dense)
    return value, taps
