"""Trackers: what a run measures, in the tools that people watch runs with (`--tracker`).

A tracker is told of each task once, when the task is safe on disk. `results.parquet` has more, and
is what figures and statistics are made from.
"""

import collections
import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from plasticity_jax import registry
from plasticity_jax.reporting import labels as labels_
from plasticity_jax.reporting import statistics
from plasticity_jax.storage import writing
from plasticity_jax.storage.json_files import read_json, sealed, unsealed
from plasticity_jax.storage.workdir import WorkdirError, reason_of

if TYPE_CHECKING:
    import pandas

TRACKERS = {
    "jsonl": "a line of JSON for each lane and task, in metrics.jsonl",
    "tensorboard": "TensorBoard, a run for each arm: means over seeds",
    "wandb": "Weights & Biases, a chart for each measurement and arm: means over seeds",
}
# in a workdir: {tracker: {lane: tasks that it was told of}}
FILE = "trackers.json"


class Arms(NamedTuple):
    """What a run's lanes are called.

    Attributes:
      columns: that tell arms apart.
      labels: of each arm, by `key`.
      lanes: how many each has.
    """

    columns: Sequence[str]
    labels: Mapping[tuple[str, ...], str]
    lanes: Mapping[str, int]


Write = Callable[[str, int, Mapping[str, float]], None]
"""Takes the name of an arm, a task and what was measured: means over seeds."""
Rows = Callable[["pandas.DataFrame"], None]


def check(names: Sequence[str]) -> None:
    """Returns if there are such trackers, with what they need. Raises ValueError, one sentence."""
    for name in names:
        registry.one_of("tracker", name, TRACKERS)
        _module(name).check()


def missing(name: str, package: str) -> ValueError:
    """Returns the error of a tracker whose package is not installed."""
    return ValueError(
        f"tracker is {name!r}, but {package} is not installed: allowed with the extra {name}, as "
        f'in pip install "plasticity_jax[{name}]".'
    )


def arms(lanes: "pandas.DataFrame", columns: Sequence[str]) -> Arms:
    """Returns the arms of a run from a table with a row for each lane."""
    names = labels_.of_rows(lanes, columns)
    known = dict(zip(_keys(lanes, columns), names, strict=True))
    return Arms(columns, known, collections.Counter(names))


def opened(
    names: Sequence[str],
    workdir: str | Path,
    known: Arms,
    stopped: Callable[[], Mapping[int, int]] = dict,
) -> Rows | None:
    """Returns what is to be called with the new rows of each task; None without trackers.
    `stopped` says after how many tasks lanes were stopped, by their numbers.

    Each is told at once of rows in the workdir that it does not know of yet, as after it died.
    Raises WorkdirError if the workdir does not take it.
    """
    made = [_Tracker(name, Path(workdir), known, stopped) for name in names]
    if not made:
        return None

    def tell(rows: "pandas.DataFrame") -> None:
        for tracker in made:
            tracker.tell(rows)

    return tell


def behind(names: Sequence[str], workdir: str | Path, table: "pandas.DataFrame") -> bool:
    """Returns whether a tracker was not told of some rows of a workdir's table. Raises WorkdirError
    if what they were told cannot be read.
    """
    told = _read(Path(workdir))
    rows = list(zip(table["lane"].tolist(), table["task"].tolist(), strict=True))
    for name in names:
        known = told.get(name, {})
        if any(task >= known.get(str(lane), 0) for lane, task in rows):
            return True
    return False


class _Tracker:
    """A tracker with what it was told of, which is written down behind it: after a kill it may be
    told of a task again, and misses none.
    """

    def __init__(
        self, name: str, workdir: Path, known: Arms, stopped: Callable[[], Mapping[int, int]]
    ):
        self._name, self._workdir, self._known, self._stopped = name, workdir, known, stopped
        self._lanes: dict[str, set[int]] = {}  # of each arm, as far as they were seen
        self._told: dict[str, int] = _read(workdir).get(name, {})
        self._write: Any = _module(name).start(workdir)
        self._waiting: pandas.DataFrame | None = None
        table = _there(workdir)
        if table is not None:
            self.tell(table)

    def tell(self, rows: "pandas.DataFrame") -> None:
        """Passes on rows that are new. Raises WorkdirError."""
        if self._name != "jsonl":
            first = rows.drop_duplicates("lane")
            for lane, arm in zip(first["lane"], self._arms(first), strict=True):
                self._lanes.setdefault(arm, set()).add(int(lane))
        told = [self._told.get(str(lane), 0) for lane in rows["lane"]]
        new = rows.loc[rows["task"] >= told]
        if new.empty:
            return
        try:
            if self._name == "jsonl":
                self._write(new)
                self._note(new)
            else:
                self._means(new)
        except OSError as error:
            raise WorkdirError(
                f"tracker {self._name} cannot write in {self._workdir} ({reason_of(error)})."
            ) from error

    def _arms(self, rows: "pandas.DataFrame") -> list[str]:
        keys = _keys(rows, self._known.columns)
        return [self._known.labels.get(key, "others") for key in keys]

    def _means(self, new: "pandas.DataFrame") -> None:
        """Passes on the means of arms all of whose lanes have done a task, but for those that were
        stopped before; others wait. Of a lane that does a task later than its arm was told of it,
        as one that was added, the arm is told again, with the mean over all.
        """
        import pandas

        waiting = new if self._waiting is None else pandas.concat([self._waiting, new])
        waiting = waiting.drop_duplicates(["lane", "task"], ignore_index=True)
        stopped, kept = self._stopped(), []
        arms = np.asarray(self._arms(waiting))
        for arm in sorted(set(arms.tolist())):
            rows, every = waiting.loc[arms == arm], self._lanes[arm]
            for task in sorted(set(rows["task"].tolist())):
                own = rows.loc[rows["task"] == task]
                before = {lane for lane in every if self._told.get(str(lane), 0) > task}
                done = before | set(own["lane"])
                over = {lane for lane in every - done if stopped.get(lane, task + 1) <= task}
                if len(done) + len(over) < self._known.lanes.get(arm, 0):
                    kept.append(rows.loc[rows["task"] >= task])
                    break
                self._write(arm, task, self._mean(own, task, before))
                self._note(own)
        self._waiting = pandas.concat(kept) if kept else None

    def _mean(self, rows: "pandas.DataFrame", task: int, before: set[int]) -> dict[str, float]:
        """The means of a task over lanes that have done it now, and those that had before."""
        import pandas

        whole = _there(self._workdir) if before else None
        if whole is not None:
            known = whole.loc[whole["task"].eq(task) & whole["lane"].isin(list(before))]
            rows = pandas.concat([rows, known]).drop_duplicates("lane")
        metrics = statistics.metric_columns(rows, self._known.columns)
        means = rows[metrics].mean().dropna()
        return {str(name): float(value) for name, value in means.items()}

    def _note(self, rows: "pandas.DataFrame") -> None:
        for lane, task in zip(rows["lane"], rows["task"], strict=True):
            self._told[str(lane)] = max(self._told.get(str(lane), 0), int(task) + 1)
        content = {**_read(self._workdir), self._name: self._told}
        with writing.whole(self._workdir / FILE) as file:
            file.write(json.dumps(sealed(content)).encode())


def _keys(rows: "pandas.DataFrame", columns: Sequence[str]) -> list[tuple[str, ...]]:
    """What tells the arm of each row, as text; as NaN, for no such number, equals nothing."""
    found = [rows[column].map(_word) for column in columns if column in rows]
    return list(zip(*found, strict=True))


def _word(value: Any) -> str:
    """A value as text; of a whole number the same as of that number in a column with gaps."""
    if value is None or value != value:
        return ""
    return repr(float(value)) if isinstance(value, int | float | np.number) else str(value)


def _module(name: str) -> Any:
    return importlib.import_module(f"{__name__}.{name}")


def _read(workdir: Path) -> dict[str, Any]:
    """What trackers were told of. Raises WorkdirError if that cannot be read."""
    try:
        return unsealed(read_json(workdir / FILE))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise WorkdirError(
            f"{workdir / FILE} cannot be read ({reason_of(error)}): without it trackers are told "
            "of all tasks again."
        ) from error


def _there(workdir: Path) -> "pandas.DataFrame | None":
    """The rows of a workdir so far."""
    from plasticity_jax.storage import table

    try:
        return table.read(workdir / "results.parquet")
    except (OSError, ValueError):
        return None
