"""Runs that begin from parameters that are given as a tree, rather than from a workdir."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax.core import unfreeze

from plasticity_jax import lanes as lanes_
from plasticity_jax.execution.program import Program, Start
from plasticity_jax.spec import Spec
from plasticity_jax.training import beginning
from plasticity_jax.training.supervised import make_run
from plasticity_jax.types import Data, Lane, PyTree, TrainState

FOLDER = "given parameters"  # stands where the record of a start has the folder


def states(program: Program, tree: Mapping[str, Any], data: Data) -> TrainState:
    """Returns the states [lanes, ...] from which a program begins that is given parameters: these,
    as initial parameters too; the network's other variables if they are given, else as they are
    drawn; and the optimizer at its start.

    Args:
      tree: parameters, or Flax variables with "params", of the network before the Spec's surgery.
    Raises ValueError for parameters or variables of another network.
    """
    spec, numbers = _before_surgery(program)
    init = make_run(spec).init
    first = jax.tree.map(lambda leaf: leaf[0], numbers)
    drawn = _train(jax.eval_shape(init, first, data))
    given = unfreeze(dict(tree))
    whole = isinstance(given.get("params"), Mapping)
    params = given.pop("params") if whole else given
    variables = {**drawn.variables, **given} if whole else drawn.variables
    _check("parameters", params, drawn.params)
    _check("variables", variables, drawn.variables)
    added = given if whole else {}
    fresh = dataclasses.replace(spec, start_optimizer="fresh")

    def one(lane: Lane, data: Data) -> Any:
        own = _train(init(lane, data))
        own = own._replace(params=params, initial=params, variables={**own.variables, **added})
        return beginning.begun(fresh, lane, own, data)

    return jax.jit(jax.vmap(one, (0, None)))(numbers, data)


def start(made: TrainState, digests: list[str]) -> Start:
    """Returns the start of a program whose lanes begin from these states."""
    return Start(FOLDER, [-1] * len(digests), digests, lambda: made)


def _before_surgery(program: Program) -> tuple[Spec, Lane]:
    """The Spec without its surgery, and its lanes stacked."""
    spec = program.spec

    def others(settings: Mapping[str, Any]) -> dict[str, Any]:
        own = f"{spec.surgery}."
        return {name: value for name, value in settings.items() if not name.startswith(own)}

    before = dataclasses.replace(spec, surgery="none", options=others(dict(spec.options)))
    return before, lanes_.stack([others(lane) for lane in program.lanes])


def _train(state: Any) -> TrainState:
    return state if isinstance(state, TrainState) else state.train


def _check(what: str, given: PyTree, allowed: PyTree) -> None:
    """Raises ValueError, one sentence, unless both have the same leaves."""
    have, want = _shapes(given), _shapes(allowed)
    for path in sorted({*have, *want}):
        if have.get(path) != want.get(path):
            raise ValueError(
                f"start has {have.get(path, 'nothing')} at {path} of its {what}: allowed is "
                f"{want.get(path, 'nothing')}, as this model has it before the surgery."
            )


def _shapes(tree: PyTree) -> dict[str, str]:
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        dtype = leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        found[name] = f"{dtype}[{','.join(map(str, np.shape(leaf)))}]"
    return found
