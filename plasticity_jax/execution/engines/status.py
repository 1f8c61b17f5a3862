"""How far a run is, read from its folder alone: on any machine that sees it, without jax."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from plasticity_jax.execution import progress, slices, waves
from plasticity_jax.execution.engines import worker
from plasticity_jax.execution.progress import Progress
from plasticity_jax.reporting import metrics
from plasticity_jax.storage import table as table_
from plasticity_jax.storage import workdir as workdir_
from plasticity_jax.storage.workdir import WorkdirError, reason_of

if TYPE_CHECKING:
    import pandas

DONE, RUNNING, WAITING, FAILED = "done", "running", "waiting", "failed"


class State(NamedTuple):
    """How far a slice is.

    Attributes:
      name: of its folder.
      done: tasks whose states are saved.
      state: `DONE`, `RUNNING`, `WAITING` (also: stopped, killed, or its turn is to come) or
        `FAILED`.
      reason: why it failed, else "".
      diverged: lanes of it that are not finite any more.
      stopped: lanes of it that are not run on (see `waves`).
      last: mean over its lanes of what the run is judged by, in the last task that the table has;
        None: not known.
      told: tasks that the table has, which may be fewer than are done.
      rate: tasks of lanes in a second since its process began; 0: not known.
      compiling: what its process compiles, in words; "" if nothing.
    """

    name: str
    lanes: int
    tasks: int
    done: int
    state: str
    reason: str
    diverged: int
    last: float | None
    rate: float
    stopped: int = 0
    told: int = 0
    compiling: str = ""


class Status(NamedTuple):
    """How far a run is.

    Attributes:
      metric: column of `State.last`, "" as long as there are no results.
      goal: tasks of lanes that no wave stops; 0 if there are no waves.
    """

    slices: list[State]
    metric: str
    goal: int = 0

    def count(self, state: str) -> int:
        """Returns how many slices are in a state."""
        return sum(one.state == state for one in self.slices)

    def seconds_left(self) -> float | None:
        """Returns how long the slices that are not done take at the rate of those that run; None
        if that is not known.
        """
        rate = sum(one.rate for one in self.slices if one.state == RUNNING)
        left = 0
        for one in self.slices:
            if one.state in (RUNNING, WAITING):
                left += one.lanes * (one.tasks - one.done)
        return left / rate if rate else None


class _Recorded(NamedTuple):
    """A slice as config.json has it."""

    folder: str
    home: str | None
    numbers: list[int]
    tasks: int


def read(workdir: str | Path) -> Status:
    """Returns how far a run is. Raises WorkdirError for a folder in which nothing was run."""
    settings = workdir_.read_settings(workdir)
    if settings is None:
        raise WorkdirError(f"{workdir} {slices.lacks(workdir)}: allowed are folders of runs.")
    try:
        recorded = _recorded(settings["programs"])
    except (KeyError, TypeError, ValueError) as error:
        raise WorkdirError(
            f"{Path(workdir, 'config.json')} cannot be read as the record of a run "
            f"({reason_of(error)})."
        ) from error
    whole = _table(Path(workdir))
    after = waves.stopped(workdir)
    found, metric = [], ""
    for one in recorded:
        state, judged = _state(Path(workdir), one, whole)
        stopped = sum(after.get(number) == state.done for number in one.numbers)
        found.append(state._replace(stopped=stopped))
        metric = metric or judged
    at = progress.read(workdir)
    if at is not None:
        found = _one_after_another(found, at)
    return Status(found, metric, waves.goal(workdir))


def _one_after_another(found: Sequence[State], at: Progress) -> list[State]:
    """The states of slices that one process trains, which is `at` one of them."""
    done = sum(one.lanes * one.done for one in found)
    made = []
    for one in found:
        if one.state != DONE and one.name == at.folder:
            one = one._replace(state=RUNNING, reason="", **_at(at, done))
        elif one.state == RUNNING:  # (its folder is held, too)
            one = one._replace(state=WAITING, rate=0.0, compiling="")
        made.append(one)
    return made


def _recorded(programs: Any) -> list[_Recorded]:
    """The slices of a workdir, of those from before there were any as well."""
    found, first = [], 0
    for index, program in enumerate(programs):
        count = len(program["lanes"])
        numbers = program.get("numbers", list(range(first, first + count)))
        folder, home = program.get("folder", str(index)), program.get("slice")
        found.append(_Recorded(str(folder), home, numbers, int(program["spec"]["tasks"])))
        first += count
    return found


def _state(workdir: Path, one: _Recorded, whole: "pandas.DataFrame | None") -> tuple[State, str]:
    """How far a slice is, and by which column it is judged."""
    place = slices.home(workdir, one.home) if one.home else workdir
    done = worker.newest(place / "checkpoints" / one.folder)
    reason, state, is_held = "", WAITING, False
    if one.home:
        done = worker.tasks_done(place)
        reason, is_held = worker.fault(place) or "", workdir_.is_held(place)
    if done >= one.tasks:
        state, reason = DONE, ""
    elif is_held:
        state, reason = RUNNING, ""
    elif reason:
        state = FAILED
    rows, metric = _rows(place, one, whole if state == DONE or not one.home else None)
    diverged, last = _said(rows, metric)
    at = progress.read(place) if state == RUNNING else None
    lanes = len(one.numbers)
    name = one.home or one.folder
    told = 0 if rows is None or rows.empty else int(rows["task"].to_numpy().max()) + 1
    found = State(name, lanes, one.tasks, done, state, reason, diverged, last, 0.0, told=told)
    return found._replace(**_at(at, lanes * done)) if at else found, metric


def _rows(
    place: Path, one: _Recorded, whole: "pandas.DataFrame | None"
) -> tuple["pandas.DataFrame | None", str]:
    """The rows of a slice so far: from the table of all, or its own; and the column to judge by."""
    table = whole if whole is not None else _table(place)
    if table is None:
        return None, ""
    known: Mapping[str, Any] = table.attrs.get(metrics.KEY) or {}
    judged = next((name for name in known.get("scores", ()) if name in table), "")
    if whole is not None:
        table = table.loc[table["lane"].isin(one.numbers)]
    return table, judged


def _said(rows: "pandas.DataFrame | None", metric: str) -> tuple[int, float | None]:
    """How many lanes diverged, and the mean over lanes in the last task."""
    if rows is None or rows.empty:
        return 0, None
    diverged = rows.loc[~rows["finite"], "lane"].nunique()
    if not metric:
        return diverged, None
    mean = float(rows.loc[rows["task"].eq(rows["task"].max()), metric].to_numpy().mean())
    return diverged, mean


def _at(at: Progress, done: int) -> dict[str, Any]:
    """What a process is at; `done` are the tasks of lanes in its workdir."""
    seconds = time.time() - at.began
    rate = (done - at.before) / seconds if seconds > 0 else 0.0
    return {"rate": max(rate, 0.0), "compiling": at.compiling}


def _table(folder: Path) -> "pandas.DataFrame | None":
    try:
        return table_.read(folder / "results.parquet")
    except (OSError, ValueError):
        return None
