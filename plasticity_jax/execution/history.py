"""What a program measured so far: growing in memory, and on disk in segments of many tasks.

A checkpoint has the newest tasks alone, so that the time of a save does not grow with their number;
older ones are in segments beside it, which never change. Every task is in two places, so that no
single damaged file loses one.
"""

from collections.abc import Mapping

import numpy as np
from absl import logging

from plasticity_jax.execution.program import History
from plasticity_jax.storage.checkpoints import Checkpoints, Unverified
from plasticity_jax.storage.workdir import WorkdirError
from plasticity_jax.types import PyTree

# tasks between the ends of two segments
SEGMENT = 100
_FOLDER = "history"  # of segments, in that of the checkpoints


class Growing:
    """A history to which tasks are added, each in time that does not grow with their number."""

    def __init__(self, history: History):
        self.tasks = tasks_of(history)
        self._columns = dict(history)

    def add(self, new: History) -> None:
        """Adds tasks. NaN stands for what one of the two has not: versions measure more or less."""
        end = self.tasks + tasks_of(new)
        for name in {**self._columns, **new}:
            column = self._with_room(name, new, end)
            column[self.tasks : end] = new.get(name, np.nan)
            self._columns[name] = column
        self.tasks = end

    def so_far(self) -> History:
        """Returns the history: views, which later tasks do not change."""
        return {name: column[: self.tasks] for name, column in self._columns.items()}

    def _with_room(self, name: str, new: History, end: int) -> np.ndarray:
        """A column with places for `end` tasks, of a type that holds all of them."""
        column = self._columns.get(name)
        known = [values for values in (column, new.get(name)) if values is not None]
        # (what has gaps must be able to hold NaN)
        gaps = [np.float32] if name not in new or (column is None and self.tasks) else []
        dtype = np.result_type(*known, *gaps)
        if column is not None and len(column) >= end and column.dtype == dtype:
            return column
        made = np.empty((max(end, 2 * self.tasks), *known[0].shape[1:]), dtype)
        made[: self.tasks] = np.nan if column is None else column[: self.tasks]
        return made


def tasks_of(history: History) -> int:
    """Returns how many tasks a history has."""
    return max(map(len, history.values()), default=0)


def save(checkpoints: Checkpoints, tasks: int, states: PyTree, history: History) -> None:
    """Saves states after `tasks` tasks with what was measured, segments that are due before them.

    Raises WorkdirError as `Checkpoints.save`.
    """
    segments = segments_of(checkpoints)
    there = max(segments.steps(), default=0)
    for end in range(there // SEGMENT * SEGMENT + SEGMENT, tasks + 1, SEGMENT):
        segments.save(end, {"history": _rows(history, max(0, end - 2 * SEGMENT), end)})
    first = max(0, tasks // SEGMENT * SEGMENT - SEGMENT)
    checkpoints.save(tasks, {"state": states, "history": _rows(history, first, tasks)})


def _rows(history: History, first: int, end: int) -> History:
    return {name: values[first:end] for name, values in history.items()}


def segments_of(checkpoints: Checkpoints) -> Checkpoints:
    """Returns the segments of a slice: checkpoints without states, none of which is removed. That
    of a step has the tasks up to it from the second segment before it.
    """
    return Checkpoints(checkpoints.folder / _FOLDER, always=lambda step: True)


def whole(
    checkpoints: Checkpoints, tasks: int, newest: Mapping[str, np.ndarray], mend: bool
) -> History:
    """Returns all that was measured in `tasks` tasks, of which a checkpoint has the `newest`.

    What stands behind a checkpoint that was damaged is removed if it is to `mend`, and written
    again. Raises WorkdirError if a task is in no segment that verifies.
    """
    segments = segments_of(checkpoints)
    if mend:
        segments.remove_after(tasks)
    first = tasks - tasks_of(dict(newest))
    found, lost = Growing({}), "there is no such file"
    for end in segments.steps():
        if found.tasks >= first or end > tasks:
            break
        try:
            _, tree = segments.restore({"history": {}}, end) or (0, {})
        except Unverified as error:
            lost = error.reasons
            logging.warning("Part of %s is damaged (%s).", segments.folder, lost)
            continue
        begin = end - tasks_of(tree["history"])
        if begin <= found.tasks:
            found.add(_rows(tree["history"], found.tasks - begin, end - begin))
    if found.tasks < first:
        raise WorkdirError(
            f"{segments.folder} lacks what was measured in task {found.tasks} ({lost}); delete "
            f"{checkpoints.folder} to start from zero."
        )
    found.add(_rows(dict(newest), found.tasks - first, tasks - first))
    return found.so_far()
