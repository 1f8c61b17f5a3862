"""Runs that begin from the trained states of another workdir: whose lanes they take, and what does
not fit.
"""

import functools
import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from plasticity_jax import lanes as lanes_
from plasticity_jax import registry
from plasticity_jax.execution import slices, states
from plasticity_jax.execution.program import Program, Start
from plasticity_jax.execution.slices import Slice
from plasticity_jax.spec import Spec, of_model
from plasticity_jax.storage import paths
from plasticity_jax.storage.checkpoints import Checkpoints, Misfit
from plasticity_jax.storage.workdir import WorkdirError
from plasticity_jax.training import beginning
from plasticity_jax.training.supervised import make_run
from plasticity_jax.types import Data, PyTree, TrainState


class _Donor(NamedTuple):
    """A lane of the other workdir."""

    slice: Slice
    place: int


def attached(
    programs: Sequence[Program], folder: str | Path | None, task: int | None, data: Data
) -> list[Program]:
    """Returns the programs with what their lanes begin from; without a folder, as they are.

    Args:
      folder: a workdir with a finished lane for each seed, and only one.
      task: whose end its states are from; None: the last. A workdir keeps those of its last two.
    Raises ValueError for settings that need a start where there is none, and WorkdirError for a
    folder that has no such lanes, or lanes of another network. Nothing is compiled.
    """
    if folder is None:
        for program in programs:
            _check_without(program.spec, task)
        return list(programs)
    where = paths.expanded(folder, "start")
    if task is not None:
        task = registry.whole("start_task", task, 0)
    recorded = slices.read(where)
    if recorded is None:
        raise WorkdirError(
            f"start is {where}, which {slices.lacks(where)}: allowed is the folder of a finished "
            "run."
        )
    lanes = itertools.chain.from_iterable(program.lanes for program in programs)
    seeds = {lane["seed"] for lane in lanes}
    donors = _by_seed(where, recorded.slices, seeds)
    for program in programs:
        for lane in program.lanes:
            _check_model(where, donors[lane["seed"]].slice.program.spec, program.spec)
    used = {donor.slice.folder: donor.slice for donor in donors.values()}
    kept = {name: _states(where, task, data, one) for name, one in used.items()}
    return [_attached(program, where, donors, kept, data) for program in programs]


def _check_without(spec: Spec, task: int | None) -> None:
    for name, value in (("surgery", spec.surgery), ("start_optimizer", spec.start_optimizer)):
        if value != Spec.__dataclass_fields__[name].default:
            raise ValueError(
                f"{name} is {value!r}, but there is no start to operate on: give --start=DIR as "
                "well."
            )
    if task is not None:
        raise ValueError(f"start_task is {task}, but there is no start: give --start=DIR as well.")


def _by_seed(where: str, there: Sequence[Slice], seeds: set[int]) -> dict[int, _Donor]:
    """The lane of each seed. Raises WorkdirError if there are none or several."""
    found: dict[int, list[_Donor]] = {}
    for one in there:
        for place, lane in enumerate(one.program.lanes):
            found.setdefault(lane["seed"], []).append(_Donor(one, place))
    for seed in sorted(seeds):
        if seed not in found:
            known = ", ".join(map(str, sorted(found)[:10]))
            raise WorkdirError(
                f"start is {where}, which has no lane of seed {seed}: allowed are the seeds there "
                f"({known})."
            )
        if len(found[seed]) > 1:
            raise WorkdirError(
                f"start is {where}, which has {len(found[seed])} lanes of seed {seed}: allowed is "
                "a folder with one arm, so that it is known which to begin from."
            )
    return {seed: found[seed][0] for seed in seeds}


def _states(where: str, task: int | None, data: Data, one: Slice) -> tuple[int, TrainState]:
    """The task after whose end the states of a slice are, and the states of its lanes.

    Raises WorkdirError if the slice is not finished, or the states are not kept any more.
    """
    kept = Checkpoints(one.checkpoints(where))
    steps, tasks = kept.steps(), one.program.spec.tasks
    if not steps or steps[-1] < tasks:
        raise WorkdirError(
            f"start is {where}, which has {steps[-1] if steps else 0} of {tasks} tasks of lanes "
            "asked for: allowed are finished runs; the command that began it goes on from there."
        )
    step = tasks if task is None else task + 1
    if step not in steps:
        there = " and ".join(str(step - 1) for step in steps)
        raise WorkdirError(
            f"start_task is {task}, but {where} keeps the states after task {there}: allowed is "
            "one of these."
        )
    try:
        found = kept.restore({"state": states.shapes(one.program, data)}, step)
    except (TypeError, ValueError, Misfit) as error:
        raise _other_data(where) from error
    assert found is not None  # (there is such a step)
    return found[0] - 1, found[1]["state"]


def _attached(
    program: Program,
    where: str,
    donors: Mapping[int, _Donor],
    kept: Mapping[str, tuple[int, TrainState]],
    data: Data,
) -> Program:
    """A program with its start; `kept` are task and states of each slice, by its folder."""
    own, tasks = [], []
    for lane in program.lanes:
        donor = donors[lane["seed"]]
        task, every = kept[donor.slice.folder]
        tasks.append(task)
        own.append(jax.tree.map(lambda leaf, place=donor.place: leaf[place], every))
    _check_states(where, program, own[0], data)
    digests = [_digest(state) for state in own]
    together = jax.tree.map(lambda *leaves: np.stack(leaves), *own)
    return program._replace(start=Start(str(where), tasks, digests, lambda: together))


def _digest(state: TrainState) -> str:
    """16 digits of a SHA-256 over names, types, shapes and bytes of a lane's state."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        header = [jax.tree_util.keystr(path), leaf.dtype.name, list(leaf.shape)]
        digest.update(json.dumps(header).encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()[:16]


def _check_model(where: str, was: Spec, now: Spec) -> None:
    """Raises WorkdirError unless both networks are made from the same settings."""
    before, after = of_model(was, ended=True), of_model(now)
    for name in {**before, **after}:
        if before.get(name) != after.get(name):
            raise WorkdirError(
                f"{name} is {after.get(name, 'not given')}, but the networks in {where} have "
                f"{before.get(name, 'none')}: allowed is the model and the sizes of the start."
            )


def _check_states(where: str, program: Program, donor: TrainState, data: Data) -> None:
    """Raises WorkdirError if a state of the start is none that this program goes on from."""
    spec = program.spec
    lane = {name: values[0] for name, values in lanes_.stack(program.lanes[:1]).items()}
    own = jax.eval_shape(make_run(spec).init, lane, data)
    try:
        begun = jax.eval_shape(functools.partial(beginning.begun, spec), lane, donor, data)
    except (TypeError, ValueError) as error:
        raise _unlike(where, spec) from error
    for part in ("params", "variables"):
        if _shapes(getattr(begun, part)) != _shapes(getattr(own, part)):
            raise _other_data(where)
    if _shapes(begun) != _shapes(own):
        raise _unlike(where, spec)


def _other_data(where: str) -> WorkdirError:
    return WorkdirError(
        f"the networks in {where} have other inputs or outputs than those of this run: allowed are "
        "data of the same shape and as many classes."
    )


def _unlike(where: str, spec: Spec) -> WorkdirError:
    return WorkdirError(
        f"optimizer {spec.optimizer} with method {spec.method} cannot go on with the optimizer's "
        f"state of the lanes in {where}: allowed are those of the start, or "
        "--start_optimizer=fresh."
    )


def _shapes(tree: PyTree) -> dict[str, tuple[Any, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): (leaf.shape, leaf.dtype) for path, leaf in leaves}
