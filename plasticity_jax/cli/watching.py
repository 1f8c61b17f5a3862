"""Who is told of each task of a run: trackers, and the figure, which is drawn as the run goes."""

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from plasticity_jax.cli import flags, settings
from plasticity_jax.execution import rows, waves
from plasticity_jax.execution.program import Program
from plasticity_jax.reporting import trackers
from plasticity_jax.storage import table as table_

# all figures of a run, with one more that takes as long as the last, take a so many times smaller
# share of its time: 1 %; until one was drawn, it is taken to need so many seconds
_SELDOM, _AT_FIRST = 100, 3.0


def names(values: flags.Values) -> list[str]:
    """Returns the trackers of a command line, checked. Raises ValueError."""
    found = settings.items(values["tracker"]) if values["tracker"] else []
    trackers.check(found)
    return found


class Watchers:
    """What a run calls with the rows of each task.

    Trackers are opened with the first of them, when the workdir is held.
    """

    def __init__(
        self, values: flags.Values, programs: Sequence[Program], draw: Callable[[Any], None]
    ):
        self._names, self._programs = names(values), programs
        self._workdir = Path(values["workdir"])
        self._draw = draw
        self._began, self._spent = time.monotonic(), 0.0
        self._next = self._began + _SELDOM * _AT_FIRST
        self._told: trackers.Rows | None = None

    def __call__(self, new: Any) -> None:
        """Tells of new rows. Raises WorkdirError if a tracker cannot write."""
        self._tell(new)
        if time.monotonic() < self._next:
            return
        began = time.monotonic()
        # (a figure of an unfinished run is worth no fault)
        with contextlib.suppress(OSError, ValueError):
            self._draw(table_.read(self._workdir / "results.parquet"))
        took = time.monotonic() - began
        self._spent += took
        self._next = self._began + _SELDOM * (self._spent + took)

    def ends(self, table: Any) -> None:
        """Tells trackers of what they miss of a run's table: rows of a task that was safe when its
        run died, after which none was left to train. Raises WorkdirError.
        """
        if self._names and trackers.behind(self._names, self._workdir, table):
            self._tell(table)

    def _tell(self, new: Any) -> None:
        if self._names and self._told is None:
            known, stopped = _arms(self._programs), _Stopped(self._workdir)
            self._told = trackers.opened(self._names, self._workdir, known, stopped)
        if self._told:
            self._told(new)


class _Stopped:
    """After how many tasks waves stopped lanes of a workdir; read when its config.json has changed,
    which is not with each task.
    """

    def __init__(self, workdir: Path):
        self._workdir = workdir
        self._seen: tuple[int, ...] = ()
        self._found: dict[int, int] = {}

    def __call__(self) -> dict[int, int]:
        with contextlib.suppress(FileNotFoundError):
            about = (self._workdir / "config.json").stat()
            seen = about.st_ino, about.st_size, about.st_mtime_ns
            if seen != self._seen:
                self._seen, self._found = seen, waves.stopped(self._workdir)
        return self._found


def _arms(programs: Sequence[Program]) -> trackers.Arms:
    """The arms of a run, whatever of it is done."""
    return trackers.arms(rows.of_programs(programs), rows.arm_columns(programs))
