"""Runs that begin from the trained states of another workdir: whose lanes they take, and what does
not fit.
"""

import difflib
import functools
import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from plasticity_jax import lanes as lanes_
from plasticity_jax import registry
from plasticity_jax.execution import parameters, slices, states
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

    def settings(self) -> dict[str, Any]:
        """Everything that the lane was made from."""
        spec = self.slice.program.spec
        return {**spec.settings(), **spec.axes(), **self.slice.program.lanes[self.place]}

    def told(self) -> dict[str, Any]:
        """What is recorded of it."""
        program = self.slice.program
        number, numbers = self.slice.numbers[self.place], program.lanes[self.place]
        return {"lane": number, "method": program.spec.method, **numbers}


def attached(
    programs: Sequence[Program],
    start: str | Path | PyTree | None,
    task: int | None,
    data: Data,
    arm: Mapping[str, Any] | None = None,
) -> list[Program]:
    """Returns the programs with what their lanes begin from; without a start, as they are.

    Args:
      start: a workdir with a finished lane for each seed, and only one; or a tree of parameters, or
        of Flax variables, from which all lanes begin.
      task: whose end its states are from; None: the last. A workdir keeps those of its last two.
      arm: settings that a lane there must have to be taken; None: any.
    Raises ValueError for settings that need a start where there is none, and for parameters of
    another network; WorkdirError for a folder that has no such lanes, or lanes of another network.
    Nothing is compiled but, for given parameters, what draws a network.
    """
    if not isinstance(start, str | Path | None):
        _check_tree(start, task, arm)
        return [_given(program, start, data) for program in programs]
    if start is None:
        for program in programs:
            _check_without(program.spec, task, arm)
        return list(programs)
    where = paths.expanded(start, "start")
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
    donors = _by_seed(where, recorded.slices, seeds, arm or {})
    for program in programs:
        for lane in program.lanes:
            _check_model(where, donors[lane["seed"]].slice.program.spec, program.spec)
    used = {donor.slice.folder: donor.slice for donor in donors.values()}
    kept = {name: _states(where, task, data, one) for name, one in used.items()}
    return [_attached(program, where, donors, kept, data) for program in programs]


def _given(program: Program, tree: Mapping[str, Any], data: Data) -> Program:
    """A program with its start from given parameters."""
    made = jax.tree.map(np.asarray, parameters.states(program, tree, data))
    own = [jax.tree.map(lambda leaf, i=i: leaf[i], made) for i in range(len(program.lanes))]
    _check_states(parameters.FOLDER, program, own[0], data)
    start = parameters.start(made, [_digest(state) for state in own])
    return program._replace(start=start)


def _check_without(spec: Spec, task: int | None, arm: Mapping[str, Any] | None) -> None:
    for name, value in (("surgery", spec.surgery), ("start_optimizer", spec.start_optimizer)):
        if value != Spec.__dataclass_fields__[name].default:
            raise ValueError(
                f"{name} is {value!r}, but there is no start to operate on: give --start=DIR as "
                "well."
            )
    for name, given in (("start_task", task), ("start_arm", arm)):
        if given is not None:
            raise ValueError(f"{name} is {given}, but there is no start: give --start=DIR as well.")


def _by_seed(
    where: str, there: Sequence[Slice], seeds: set[int], arm: Mapping[str, Any]
) -> dict[int, _Donor]:
    """The lane of each seed with these settings. Raises WorkdirError if there are none or
    several.
    """
    every: list[_Donor] = []
    for one in there:
        every += [_Donor(one, place) for place in range(len(one.numbers))]
    _check_names(where, every, arm)
    found: dict[int, list[_Donor]] = {}
    for donor in every:
        own = donor.settings()
        if all(name in own and own[name] == value for name, value in arm.items()):
            found.setdefault(own["seed"], []).append(donor)
    of_arm = f" with {_told(arm)}" if arm else ""
    for seed in sorted(seeds):
        if seed not in found:
            known = ", ".join(map(str, sorted(found)[:10]))
            raise WorkdirError(
                f"start is {where}, which has no lane of seed {seed}{of_arm}: allowed are the "
                f"seeds there ({known or 'none'})."
            )
        if len(found[seed]) > 1:
            raise WorkdirError(
                f"start is {where}, which has {len(found[seed])} lanes of seed {seed}{of_arm}: "
                "allowed is one, so that it is known which to begin from; start_arm names "
                f"settings, and they differ in {_differing(found[seed])}."
            )
    return {seed: found[seed][0] for seed in seeds}


def _told(arm: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in arm.items())


def _check_names(where: str, donors: Sequence[_Donor], arm: Mapping[str, Any]) -> None:
    known = _names(donor.settings() for donor in donors) - {"seed"}
    for name in arm:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3) or ["method", "granularity"]
            raise WorkdirError(
                f"start_arm has {name!r}, which no lane in {where} has: allowed are settings of "
                f"its lanes, such as {', '.join(near)}."
            )


def _differing(donors: Sequence[_Donor]) -> str:
    """The settings in which lanes differ, in words."""
    every = [donor.settings() for donor in donors]
    differing = []
    for name in sorted(_names(every)):
        values = {str(own.get(name)) for own in every}
        differing += [name] if len(values) > 1 else []
    return ", ".join(differing[:5]) or "nothing"


def _names(every: Iterable[Mapping[str, Any]]) -> set[str]:
    return set(itertools.chain.from_iterable(every))


def _check_tree(tree: PyTree, task: int | None, arm: Mapping[str, Any] | None) -> None:
    """Raises ValueError for what is no tree of parameters, or for what only a workdir has."""
    if not isinstance(tree, Mapping):
        raise ValueError(
            f"start is {registry.shown(tree)}: allowed are the folder of a finished run, and a "
            "tree of parameters as a dictionary."
        )
    for name, given in (("start_task", task), ("start_arm", arm)):
        if given is not None:
            raise ValueError(
                f"{name} is {given}, but start are given parameters: allowed is it with a folder."
            )


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
    own, tasks, told = [], [], []
    for lane in program.lanes:
        donor = donors[lane["seed"]]
        task, every = kept[donor.slice.folder]
        tasks.append(task)
        told.append(donor.told())
        own.append(jax.tree.map(lambda leaf, place=donor.place: leaf[place], every))
    _check_states(where, program, own[0], data)
    digests = [_digest(state) for state in own]
    together = jax.tree.map(lambda *leaves: np.stack(leaves), *own)
    return program._replace(start=Start(str(where), tasks, digests, lambda: together, told))


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
