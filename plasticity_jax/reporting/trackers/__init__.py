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


def opened(names: Sequence[str], workdir: str | Path, known: Arms) -> Rows | None:
    """Returns what is to be called with the new rows of each task; None without trackers.

    Each is told at once of rows in the workdir that it does not know of yet, as after it died.
    Raises WorkdirError if the workdir does not take it.
    """
    made = [_Tracker(name, Path(workdir), known) for name in names]
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

    def __init__(self, name: str, workdir: Path, known: Arms):
        self._name, self._workdir, self._known = name, workdir, known
        self._told: dict[str, int] = _read(workdir).get(name, {})
        self._write: Any = _module(name).start(workdir)
        self._waiting: pandas.DataFrame | None = None
        table = _there(workdir)
        if table is not None:
            self.tell(table)

    def tell(self, rows: "pandas.DataFrame") -> None:
        """Passes on rows that are new. Raises WorkdirError."""
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

    def _means(self, new: "pandas.DataFrame") -> None:
        """Passes on the means of arms all of whose lanes have done a task; others wait."""
        import pandas

        waiting = new if self._waiting is None else pandas.concat([self._waiting, new])
        waiting = waiting.drop_duplicates(["lane", "task"], ignore_index=True)
        keys = _keys(waiting, self._known.columns)
        waiting["arm"] = [self._known.labels.get(key, "others") for key in keys]
        kept = []
        metrics = statistics.metric_columns(waiting, [*self._known.columns, "arm"])
        for _, own in waiting.groupby(["arm", "task"], sort=True):
            arm, task = str(own["arm"].to_numpy()[0]), int(own["task"].to_numpy()[0])
            own = own.drop(columns="arm")
            if len(own) < self._known.lanes.get(arm, 0):
                kept.append(own)
                continue
            means = own[metrics].mean().dropna()
            self._write(arm, task, {str(name): float(value) for name, value in means.items()})
            self._note(own)
        self._waiting = pandas.concat(kept) if kept else None

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
