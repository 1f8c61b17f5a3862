"""Trained states in a workdir: of which tasks they are kept, and how they are read."""

from pathlib import Path

import jax
import numpy as np

from plasticity_jax import lanes as lanes_
from plasticity_jax import registry
from plasticity_jax.execution import program as program_
from plasticity_jax.execution import slices
from plasticity_jax.execution.program import Program
from plasticity_jax.execution.slices import Recorded, Slice
from plasticity_jax.storage import paths
from plasticity_jax.storage.checkpoints import Checkpoints
from plasticity_jax.storage.workdir import WorkdirError
from plasticity_jax.training.supervised import make_run
from plasticity_jax.types import Data, PyTree, TrainState


def load_state(
    workdir: str | Path, lane: int, task: int | None = None, *, data_dir: str | None = None
) -> TrainState:
    """Returns the trained state of a lane as numpy arrays: `params`, `variables` (running
    statistics), `initial` parameters, and `opt`, the state of optimizer and methods.

    Args:
      lane: its number, as in the column `lane` of results.parquet.
      task: after whose end; None: the newest. A workdir keeps the states of its last two tasks, and
        those that `keep_checkpoints` names.
      data_dir: where the original files of its dataset are, of which sizes of the network follow.
    Nothing is compiled or changed. Raises ValueError for what is no number, WorkdirError for a
    folder, a lane or a task that is not there, or a damaged checkpoint, DataError for data that is
    not there.

    >>> small = {"width": 4, "depth": 1, "norm": "none", "optimizer": "sgd", "probes": ()}
    >>> spec = pj.Spec(samples=64, transition="abrupt", tasks=2, epochs=1, **small)
    >>> table = pj.run(spec, pj.grid(seed=range(2)), "runs/tiny")
    >>> state = pj.load_state("runs/tiny", lane=1)
    >>> state.params["layer0"]["kernel"].shape
    (64, 4)
    """
    where = paths.expanded(workdir, "workdir")
    number = registry.whole("lane", lane, 0)
    after = None if task is None else registry.whole("task", task, 0)
    recorded = slices.read(where, devices=1)
    if recorded is None:
        raise WorkdirError(
            f"workdir is {where}, which {slices.lacks(where)}: allowed is the folder of a run."
        )
    one = _slice(where, recorded, number)
    kept = Checkpoints(one.checkpoints(where))
    step = _step(where, number, after, kept.steps())
    dataset = program_.load_dataset(one.program.spec, data_dir)
    found = kept.restore({"state": shapes(one.program, program_.device_data(dataset))}, step)
    assert found is not None  # (there is such a step)
    place = one.numbers.index(number)
    return jax.tree.map(lambda leaf: np.array(leaf[place]), found[1]["state"])


def shapes(program: Program, data: Data) -> PyTree:
    """Returns the shapes and types of the states of a program's lanes, [lanes, ...]."""
    lane = {name: values[0] for name, values in lanes_.stack(program.lanes[:1]).items()}
    count = len(program.lanes)
    state = jax.eval_shape(make_run(program.spec).init, lane, data)
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct((count, *a.shape), a.dtype), state)


def _slice(where: str, recorded: Recorded, number: int) -> Slice:
    for one in recorded.slices:
        if number in one.numbers:
            return one
    last = sum(len(one.numbers) for one in recorded.slices) - 1
    raise WorkdirError(
        f"lane is {number}, but {where} has no such lane: allowed are 0 to {last}, as in the "
        "column lane of its results.parquet."
    )


def _step(where: str, number: int, task: int | None, steps: list[int]) -> int:
    """The step of the checkpoint after a task."""
    if not steps:
        raise WorkdirError(
            f"{where} has no state of lane {number} yet: allowed are lanes with a finished task."
        )
    step = steps[-1] if task is None else task + 1
    if step not in steps:
        there = ", ".join(str(step - 1) for step in steps)
        raise WorkdirError(
            f"task is {task}, but {where} keeps the states of lane {number} after task {there}: "
            "allowed is one of these (more are kept with --keep_checkpoints=every:10)."
        )
    return step
