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


def run_program(
    program: Program,
    data: Data,
    checkpoints: Checkpoints | None = None,
    stop: Stop | None = None,
    checkpoint_every: int = 1,
    report: Callable[[History], None] = lambda history: None,
    *,
    ahead: Ahead | None = None,
    compiled: Callable[[], None] = lambda: None,
) -> History:
    """Runs a program's tasks, from its newest checkpoint if there is one, and returns its metrics
    {name: [tasks, lanes]}.

    `report` is called with the metrics so far at the start and after each task that is safe on disk
    (each task, without `checkpoints`); the next task is under way while one is saved and reported.
    `ahead` has this program and those that follow, of which the next is compiled from the first
    task on; `compiled` is called once this one is, if a task is left. Raises Stopped when `stop` is
    requested: at once while the program is compiled and if the last checkpoint holds everything up
    to the task in progress, else after that task and a checkpoint, which is told then.
    """
    tasks = program.spec.tasks
    saved, history = history_.read(checkpoints)
    if saved == tasks:
        report(history)
        return history
    ahead = ahead or Ahead([], data)
    made = ahead.take(program, stop)
    if made is None:
        raise _stopped(stop, saved, tasks)
    states = _begun(made, checkpoints, saved)
    measured = history_.Growing(history)

    def keep(done: _Done) -> int:
        """Saves a task if that is due, reports it if it is safe; returns the tasks saved."""
        if checkpoints is None:
            report(done.history)
        if checkpoints is None or done.states is None:
            return saved
        _save(checkpoints, done, len(program.lanes))
        report(done.history)
        return done.tasks

    report(history)
    last: _Done | None = None  # the task before the one that runs
    for number in range(saved, tasks):
        states, metrics = _run_task(made, states, number)
        ahead.begin()
        if last is None:
            compiled()
        else:
            saved, last = keep(last), None  # while the devices are at work
        is_safe = checkpoints is not None and saved == number
        if not wait(metrics, stop, "" if is_safe else _first(number, tasks)):
            raise _stopped(stop, saved, tasks)
        measured.add(_measured(program, metrics, number))
        history = measured.so_far()
        stopped = stop is not None and stop.requested
        due = stopped or number + 1 == tasks or number + 1 - saved >= checkpoint_every
        due = due or (checkpoints is not None and checkpoints.always(number + 1))
        # the next task consumes `states`; what is saved is fetched while it runs
        copied = made.copy(states) if checkpoints and due else None
        last = _Done(number + 1, copied, history)
        if stopped:
            raise _stopped(stop, keep(last), tasks)
    if last:
        keep(last)
    return history


def _first(number: int, tasks: int) -> str:
    return f"task {number + 1} of {tasks} is finished and saved first"


def _stopped(stop: Stop | None, saved: int, tasks: int) -> Stopped:
    number = stop.signal if stop else 0
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
