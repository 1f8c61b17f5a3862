"""How far a run is, read from its folder alone: on any machine that sees it, without jax."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from plasticity_jax.execution import slices, waves
from plasticity_jax.execution.engines import worker
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
    is_held = workdir_.is_held(workdir)
    whole = _table(Path(workdir))
    after = waves.stopped(workdir)
    found, metric = [], ""
    for one in recorded:
        state, judged = _state(Path(workdir), one, is_held, whole)
        stopped = sum(after.get(number) == state.done for number in one.numbers)
        found.append(state._replace(stopped=stopped))
        metric = metric or judged
    own = [n for n, one in enumerate(recorded) if not one.home and found[n].state == RUNNING]
    # one process trains its slices one after another: now the one that it saved last, or the first
    now = max(own, key=lambda n: _saved(Path(workdir), recorded[n]), default=None)
    for number in own:
        if number != now:
            found[number] = found[number]._replace(state=WAITING)
    return Status(found, metric, waves.goal(workdir))


def _saved(workdir: Path, one: _Recorded) -> float:
    """When a slice's states were saved last; 0: never."""
    folder = workdir / "checkpoints" / one.folder
    return folder.stat().st_mtime if folder.exists() else 0.0


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


def _state(
    workdir: Path, one: _Recorded, is_held: bool, whole: "pandas.DataFrame | None"
) -> tuple[State, str]:
    """How far a slice is, and by which column it is judged."""
    place = slices.home(workdir, one.home) if one.home else workdir
    done = worker.newest(place / "checkpoints" / one.folder)
    reason, state = "", WAITING
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
    rate = _rate(place, one, done) if one.home and state == RUNNING else 0.0
    name = one.home or one.folder
    lanes = len(one.numbers)
    told = 0 if rows is None or rows.empty else int(rows["task"].to_numpy().max()) + 1
    found = State(name, lanes, one.tasks, done, state, reason, diverged, last, rate, told=told)
    return found, metric


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


def _rate(place: Path, one: _Recorded, done: int) -> float:
    """Tasks of lanes in a second since the process of a slice began."""
    last = worker.tries(place)
    seconds = time.time() - last["started"] if last else 0.0
    return len(one.numbers) * (done - last["tasks"]) / seconds if seconds > 0 else 0.0


def _table(folder: Path) -> "pandas.DataFrame | None":
    try:
        return table_.read(folder / "results.parquet")
    except (OSError, ValueError):
        return None
