"""The tables of a run in pieces of so many rows: what is written again and again as a run goes on
would take more and more memory if it were put together first.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from plasticity_jax.execution import history as history_
from plasticity_jax.execution import rows, waves
from plasticity_jax.execution.program import History, Program
from plasticity_jax.training.supervised import POINTS

if TYPE_CHECKING:
    import pandas

# rows of a piece, and of a large table a share of all: each piece costs some milliseconds
ROWS, MOST = 1024, 256


class Pieces(NamedTuple):
    """A table that is made a piece at a time.

    Attributes:
      like: a few rows that have the columns, types and attributes of all.
      parts: the pieces, in order.
    """

    like: "pandas.DataFrame"
    parts: "Iterator[pandas.DataFrame]"


@dataclasses.dataclass(frozen=True)
class _Lanes:
    """Lanes by their places in programs, in the order of their numbers, with tasks from `first` up
    to `end`.
    """

    places: Mapping[int, list[int]]  # by the place of the program
    first: int = 0
    end: int | None = None


def of_table(
    programs: Sequence[Program],
    histories: Sequence[History],
    numbers: Sequence[Sequence[int]],
    stopped: Mapping[int, int],
) -> Pieces:
    """Returns the pieces of `rows.table`, with marks as `waves.marked` makes them."""
    heads = [_tasks(history, 0, 1) for history in histories]
    like = waves.marked(rows.table(programs, heads, numbers), stopped)
    # (a piece does not tell whether a lane went on)
    stops = dict.fromkeys(stopped, -1)
    for history, own in zip(histories, numbers, strict=True):
        done = history_.tasks_of(history)
        stops |= {lane: done for lane in own if stopped.get(lane) == done}

    def parts() -> "Iterator[pandas.DataFrame]":
        for own in _chosen(histories, numbers, 1):
            found = rows.unordered(*_of(own, programs, histories, numbers), own.first)
            yield _alike(waves.marked(found, stops), like)

    return Pieces(like, parts())


def of_points(
    programs: Sequence[Program], histories: Sequence[History], numbers: Sequence[Sequence[int]]
) -> Pieces | None:
    """Returns the pieces of `rows.points`, None where it is None."""
    heads = [_tasks(history, 0, 1) for history in histories]
    like = rows.points(programs, heads, numbers)
    if like is None:
        return None

    def parts() -> "Iterator[pandas.DataFrame]":
        for own in _chosen(histories, numbers, max(map(_width, histories))):
            some, measured, named = _of(own, programs, histories, numbers)
            order = np.sort(np.concatenate([np.asarray(part) for part in named]))
            # (numbered among themselves, as those of a run are)
            local = [np.searchsorted(order, part).tolist() for part in named]
            after = [_tasks(history, own.first, own.end) for history in measured]
            found = rows.points(some, after, local)
            if found is not None:
                placed = {"lane": order[found["lane"]], "task": found["task"] + own.first}
                yield _alike(found.assign(**placed), like)

    return Pieces(like, parts())


def _tasks(history: History, first: int, end: int | None) -> History:
    return {name: values[first:end] for name, values in history.items()}


def _width(history: History) -> int:
    """How many values within a task are measured."""
    within = [values for name, values in history.items() if name.startswith(POINTS)]
    return max((values.shape[2] for values in within), default=1)


def _chosen(
    histories: Sequence[History], numbers: Sequence[Sequence[int]], rows_: int
) -> Iterator[_Lanes]:
    """What each piece has, where a task has at most so many rows: whole lanes, or a part of one."""
    lengths = [history_.tasks_of(history) * rows_ for history in histories]
    total = sum(length * len(own) for length, own in zip(lengths, numbers, strict=True))
    most = max(ROWS, total // MOST)
    lanes: list[tuple[int, int, int]] = []
    for index, own in enumerate(numbers):
        lanes += [(lane, index, place) for place, lane in enumerate(own) if lengths[index]]
    places: dict[int, list[int]] = {}
    count = 0
    for _, index, place in sorted(lanes):
        length = lengths[index]
        if places and count + length > most:
            yield _Lanes(places)
            places, count = {}, 0
        if length > most:
            step = max(1, most // rows_)
            for first in range(0, length // rows_, step):
                yield _Lanes({index: [place]}, first, first + step)
            continue
        places.setdefault(index, []).append(place)
        count += length
    if places:
        yield _Lanes(places)


def _of(
    own: _Lanes,
    programs: Sequence[Program],
    histories: Sequence[History],
    numbers: Sequence[Sequence[int]],
) -> tuple[list[Program], list[History], list[list[int]]]:
    """Programs, histories and numbers of some lanes, up to their last task."""
    some, measured, named = [], [], []
    for index, places in own.places.items():
        lanes = [programs[index].lanes[place] for place in places]
        some.append(programs[index]._replace(lanes=lanes))
        history = histories[index].items()
        measured.append({name: values[: own.end, places] for name, values in history})
        named.append([numbers[index][place] for place in places])
    return some, measured, named


def _alike(found: "pandas.DataFrame", like: "pandas.DataFrame") -> "pandas.DataFrame":
    """A piece with the columns and types of all; without attributes, which pandas would copy for
    each column that is looked at.
    """
    found = found.reindex(columns=like.columns)
    kinds = zip(like.columns, like.dtypes, found.dtypes, strict=True)
    types: dict[Any, Any] = {name: kind for name, kind, own in kinds if own != kind}
    if types:
        found = found.astype(types)
    found.attrs = {}
    return found
