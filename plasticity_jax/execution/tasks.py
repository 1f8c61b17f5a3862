"""The tasks of one program, one after another, with checkpoints and a way to stop."""

import re
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from plasticity_jax.execution import compiled as compiled_
from plasticity_jax.execution import history as history_
from plasticity_jax.execution.ahead import Ahead
from plasticity_jax.execution.program import History, Program
from plasticity_jax.spec import Spec
from plasticity_jax.storage.checkpoints import Checkpoints
from plasticity_jax.storage.workdir import Stop
from plasticity_jax.types import Data, PyTree


class Stopped(Exception):
    """The run was asked to stop (signal number in `signal`) and everything it had is saved."""

    def __init__(self, signal: int, message: str):
        super().__init__(message)
        self.signal = signal


class _Done(NamedTuple):
    """What is left of a task until it is kept.

    Attributes:
      tasks: how many are done.
      states: a copy to save, None if none is due.
      history: the metrics so far.
    """

    tasks: int
    states: PyTree | None
    history: History


class Safekeeping(NamedTuple):
    """Where a program's tasks are kept, to whom they are told, and what stops them.

    Attributes:
      checkpoints: where states are saved; None: nowhere.
      every: tasks between checkpoints.
      report: called with the metrics so far at the start and after each task that is safe on disk
        (each task, without `checkpoints`).
      stop: what may ask for an end; None: nothing does.
    """

    checkpoints: Checkpoints | None = None
    every: int = 1
    report: Callable[[History], None] = lambda history: None
    stop: Stop | None = None


_NOWHERE = Safekeeping()


def run_program(
    program: Program,
    data: Data,
    kept: Safekeeping = _NOWHERE,
    *,
    ahead: Ahead | None = None,
    compiled: Callable[[], None] = lambda: None,
) -> History:
    """Runs a program's tasks, from its newest checkpoint if there is one, and returns its metrics
    {name: [tasks, lanes]}.

    The next task is under way while one is saved and reported. `ahead` has this program and those
    that follow, of which the next is compiled from the first task on; `compiled` is called once
    this one is, if a task is left. Raises Stopped when a stop is requested: at once while the
    program is compiled and if the last checkpoint holds everything up to the task in progress, else
    after that task and a checkpoint, which is told then.
    """
    tasks = program.spec.tasks
    begun, history = history_.read(kept.checkpoints)
    if begun == tasks:
        kept.report(history)
        return history
    ahead = ahead or Ahead([], data)
    made = ahead.take(program, kept.stop)
    if made is None:
        raise _stopped(kept, begun, tasks)
    states = _begun(made, kept.checkpoints, begun)
    measured = history_.Growing(history)
    kept.report(history)
    saved, last = begun, None  # the task before the one that runs
    for number in range(begun, tasks):
        states, metrics = _run_task(made, states, number)
        ahead.begin()
        if last is None:
            compiled()
        saved, last = _keep(kept, program, last, saved), None  # while the devices are at work
        is_safe = kept.checkpoints is not None and saved == number
        if not wait(metrics, kept.stop, "" if is_safe else _first(number, tasks)):
            raise _stopped(kept, saved, tasks)
        measured.add(_measured(program, metrics, number))
        history = measured.so_far()
        stopped = kept.stop is not None and kept.stop.requested
        due = stopped or _is_due(kept, number + 1, saved, tasks)
        # the next task consumes `states`; what is saved is fetched while it runs
        last = _Done(number + 1, made.copy(states) if due else None, history)
        if stopped:
            raise _stopped(kept, _keep(kept, program, last, saved), tasks)
    _keep(kept, program, last, saved)
    return history


def _keep(kept: Safekeeping, program: Program, done: _Done | None, saved: int) -> int:
    """Saves a task if that is due, reports it if it is safe; returns the tasks saved."""
    if done is None:
        return saved
    if kept.checkpoints is None:
        kept.report(done.history)
        return saved
    if done.states is None:
        return saved
    _save(kept.checkpoints, done, len(program.lanes))
    kept.report(done.history)
    return done.tasks


def _is_due(kept: Safekeeping, done: int, saved: int, tasks: int) -> bool:
    """Whether the states after so many tasks are to be saved."""
    if kept.checkpoints is None:
        return False
    return done == tasks or done - saved >= kept.every or kept.checkpoints.always(done)


def _first(number: int, tasks: int) -> str:
    return f"task {number + 1} of {tasks} is finished and saved first"


def _stopped(kept: Safekeeping, saved: int, tasks: int) -> Stopped:
    number = kept.stop.signal if kept.stop else 0
    return Stopped(number or 0, f"{saved} of {tasks} tasks of this program are saved")


def _begun(compiled: compiled_.Compiled, checkpoints: Checkpoints | None, tasks: int) -> PyTree:
    """The states after so many tasks, on the devices."""
    found = checkpoints.restore({"state": compiled.shapes}, tasks) if checkpoints and tasks else 0
    return compiled.place(found[1]["state"]) if found else compiled.init()


def _save(checkpoints: Checkpoints, done: _Done, lanes: int) -> None:
    """Saves the states of the program's own lanes, which padding follows."""
    own = jax.tree.map(lambda a: a[:lanes], jax.device_get(done.states))
    # (its memory would be held until the next checkpoint)
    jax.tree.map(lambda a: a.delete(), done.states)
    history_.save(checkpoints, done.tasks, own, done.history)


def _run_task(
    compiled: compiled_.Compiled, states: PyTree, number: int
) -> tuple[PyTree, dict[str, jax.Array]]:
    # nothing goes to or from the host inside a task but what is said in the program
    with jax.transfer_guard("allow" if _op_by_op() else "disallow"):
        return compiled.run_task(states, number)


def _op_by_op() -> bool:
    """Whether jax may take a program apart, whose constants then come from the host one by one."""
    flags = ("jax_disable_jit", "jax_debug_nans", "jax_debug_infs")
    return any(getattr(jax.config, flag) for flag in flags)


def wait(arrays: PyTree, stop: Stop | None, first: str = "") -> bool:
    """Waits for arrays to be computed, or for a stop to be requested; returns whether they are
    computed. Where something is to be done `first`, in words, it tells so and goes on.

    Polls, because Python notices a signal only between two of its own instructions.
    """
    pause = 0.0005
    while not all(a.is_ready() for a in jax.tree.leaves(arrays)):
        if stop is not None and stop.requested:
            if not first:
                return False
            stop.tell(first)
        time.sleep(pause)
        pause = min(2 * pause, 0.02)
    return True


def _measured(program: Program, metrics: dict[str, jax.Array], number: int) -> History:
    """The metrics of a task as a history of one task, without padding."""
    lanes = len(program.lanes)
    found = {name: values[None, :lanes] for name, values in jax.device_get(metrics).items()}
    # (they are NaN already, but not where jax looks out for it)
    for name, values in found.items():
        if not _is_measured(program.spec, name, number):
            found[name] = np.full_like(values, np.nan)
    return found


def _is_measured(spec: Spec, column: str, task: int) -> bool:
    """Whether a column has a value at a task: it is the turn of its probe, or there is such an
    earlier task.
    """
    if _probe(column) in spec.probes:
        return (task + 1) % spec.probe_every == 0
    earlier = re.match(r"revisit_(\d+)_", column)
    return earlier is None or int(earlier[1]) <= spec.first_task + task


def _probe(column: str) -> str:
    """The probe whose number or detail a column is, if it is one's."""
    return column.partition("/")[0]
