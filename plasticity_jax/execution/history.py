"""What a program measured so far: growing in memory, and on disk in segments of many tasks.

A checkpoint has the newest tasks alone, so that the time of a save does not grow with their number;
older ones are in segments beside it, which never change. Every task is in two places, so that no
single damaged file loses one.
"""

from collections.abc import Sequence

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
    newest = _segmented(checkpoints, tasks, history)
    checkpoints.save(tasks, {"state": states, "history": newest})


def _segmented(checkpoints: Checkpoints, tasks: int, history: History) -> History:
    """Writes the segments that are due, and returns what is left for the checkpoint."""
    segments, last = segments_of(checkpoints), tasks // SEGMENT * SEGMENT
    # (to look whether one is there takes as long however many there are)
    is_due = last > 0 and not (segments.folder / str(last)).exists()
    there = max(segments.steps(), default=0) if is_due else last
    for end in range(there // SEGMENT * SEGMENT + SEGMENT, last + 1, SEGMENT):
        segments.save(end, {"history": _rows(history, max(0, end - 2 * SEGMENT), end)})
    return _rows(history, max(0, last - SEGMENT), tasks)


def _rows(history: History, first: int, end: int) -> History:
    return {name: values[first:end] for name, values in history.items()}


def segments_of(checkpoints: Checkpoints) -> Checkpoints:
    """Returns the segments of a slice: checkpoints without states, none of which is removed. That
    of a step has the tasks up to it from the second segment before it.
    """
    folder = checkpoints.folder / _FOLDER
    return Checkpoints(folder, always=lambda step: True, check=checkpoints.check)


def read(checkpoints: Checkpoints | None, mend: bool = True) -> tuple[int, History]:
    """Returns after how many tasks the newest states are saved, 0 if none are, and what was
    measured; `mend` as in `Checkpoints.restore`.
    """
    if checkpoints is None:
        return 0, {}
    found = checkpoints.restore({"history": {}}, mend=mend)
    tasks, newest = (found[0], found[1]["history"]) if found else (0, {})
    return tasks, _whole(checkpoints, tasks, newest, mend)


def _whole(checkpoints: Checkpoints, tasks: int, newest: History, mend: bool) -> History:
    """All that was measured in `tasks` tasks, of which a checkpoint has the `newest`.

    What stands behind a checkpoint that was damaged is removed if it is to `mend`, and written
    again. Raises WorkdirError if a task is in no segment that verifies.
    """
    segments = segments_of(checkpoints)
    if mend:
        segments.remove_after(tasks)
    first = tasks - tasks_of(newest)
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
    found.add(_rows(newest, found.tasks - first, tasks - first))
    return found.so_far()


def join(
    sources: Sequence[tuple[Checkpoints, Sequence[int]]], target: Checkpoints, tasks: int
) -> None:
    """Writes the states and histories after `tasks` tasks of lanes of several slices, each with the
    places of its lanes, as those of one.

    Raises WorkdirError for a slice whose newest states are other ones.
    """
    states: dict[str, list[np.ndarray]] = {}
    histories: list[tuple[History, int]] = []
    for source, places in sources:
        done, history = read(source)
        if done != tasks:
            raise WorkdirError(
                f"{source.folder} has the states after {done} tasks, where those after {tasks} "
                "were to be joined with others: the same command plans anew."
            )
        own = {name: values.take(places, axis=1) for name, values in history.items()}
        histories.append((own, len(places)))
        for name, leaf in source.leaves(tasks).items():
            if not name.startswith("['history']"):
                states.setdefault(name, []).append(leaf.take(places, axis=0))
    newest = _segmented(target, tasks, _beside(histories))
    leaves = {name: np.concatenate(parts) for name, parts in states.items()}
    target.write(tasks, leaves | {f"['history'][{name!r}]": v for name, v in newest.items()})


def _beside(histories: Sequence[tuple[History, int]]) -> History:
    """Histories of equally many tasks, with their numbers of lanes, as one: lanes beside lanes, NaN
    where some were not measured.
    """
    like: History = {}
    for history, _ in histories:
        like = history | like
    found = {}
    for name, values in like.items():
        parts = []
        for history, lanes in histories:
            gap = np.full((len(values), lanes, *values.shape[2:]), np.nan, np.float32)
            parts.append(history.get(name, gap))
        found[name] = np.concatenate(parts, axis=1)
    return found
