"""The results of a run in its workdir: the table, values within tasks, and arrays."""

import contextlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from plasticity_jax.execution import pieces, rows, tasks, waves
from plasticity_jax.execution.program import History, Program
from plasticity_jax.execution.slices import Slice

# they are written anew after so many times the seconds that it took: at most 1 % of the time, since
# the time of a write grows with the number of tasks
_SELDOM = 99


class Written:
    """Results that follow what is measured: written where there is time for it, and at the end of
    the context, also if the run is stopped.

    The histories are read as they are then. Without a `path` nothing is written.
    """

    def __init__(self, slices: Sequence[Slice], histories: Sequence[History], path: Path | None):
        self._slices, self._histories, self._path = slices, histories, path
        self._next = 0.0
        self._is_due = False

    def moved(self) -> None:
        """Is called after each task that is safe. Raises OSError."""
        self._is_due = True
        if time.monotonic() >= self._next:
            self._write()

    def _write(self) -> None:
        if self._path is None or not self._is_due:
            return
        began = time.monotonic()
        write(self._slices, self._histories, self._path)
        self._is_due = False
        self._next = time.monotonic() + _SELDOM * (time.monotonic() - began)

    def __enter__(self) -> "Written":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, _: TracebackType | None
    ) -> None:
        if fault is None:
            self._write()
        elif isinstance(fault, tasks.Stopped):
            # (that it was stopped is what is to be told; what is safe is in the checkpoints)
            with contextlib.suppress(OSError):
                self._write()


def laid_out(
    slices: Sequence[Slice], histories: Sequence[History]
) -> tuple[list[Program], Sequence[History], list[list[int]]]:
    """Returns the arguments of what makes tables."""
    return [one.program for one in slices], histories, [one.numbers for one in slices]


def write(
    slices: Sequence[Slice],
    histories: Sequence[History],
    path: Path,
    stopped: Mapping[int, int] | None = None,
) -> None:
    """Writes the results so far into a workdir; `stopped` as `waves.stopped` gives it, None: as the
    workdir records it. Raises OSError.
    """
    from plasticity_jax.storage import table

    arguments = laid_out(slices, histories)
    stops = waves.stopped(path) if stopped is None else stopped
    table.write_parts(*pieces.of_table(*arguments, stops), path / "results.parquet")
    points = pieces.of_points(*arguments)
    if points is not None:
        table.write_parts(*points, path / "points.parquet")
    for name, values in rows.arrays(*arguments).items():
        table.write_array(values, path / "arrays", name)
