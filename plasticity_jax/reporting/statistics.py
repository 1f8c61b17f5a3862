"""The tidy table of a run, one row per lane and task, and statistics over seeds.

An *arm* is a setting without its seed: one combination of values of the arm columns. Lanes of
different arms with the same seed see the same tasks, initial weights and batch order, so arms are
compared seed by seed.

A value that is not finite was not measured and never enters a statistic; `count` says how many did.
A lane that diverged (`finite` false) enters with whatever it still scored, is left out where it
scored nothing, and is counted in `diverged` either way, so a mean over the survivors can be told
from a mean over all. Arms come in the order of their lowest lane number everywhere; the order of
the table's rows never matters.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from plasticity_jax import spec
from plasticity_jax.reporting import labels, over_seeds

FIXED = ("lane", "task", "seed")
"""Columns that every table has: lane and task count from 0."""

STAGE = ("task_number", "part")
"""Columns of tables whose tasks come back or have parts: which task it is, and which part of it."""


def metric_columns(table: pd.DataFrame, arm_columns: Sequence[str]) -> list[str]:
    """Returns the columns that hold measurements, probes included, in the table's order.

    These are the numeric columns that are neither fixed, nor `finite` or `stopped`, nor name an
    arm, nor have the name of a setting.
    """
    others = {*FIXED, *STAGE, *arm_columns, "finite", "stopped"}
    left = [c for c in table.columns if c not in others and not spec.is_setting(c)]
    return [c for c in left if pd.api.types.is_numeric_dtype(table[c])]


class Arms(NamedTuple):
    """A table by arms.

    Attributes:
      values: one row per arm, numbered from 0: its arm columns.
      rows: of each arm, ordered by seed and task.
    """

    values: pd.DataFrame
    rows: list[pd.DataFrame]


def arms(table: pd.DataFrame, arm_columns: Sequence[str]) -> Arms:
    """Returns the table by arms, in the order of their lowest lane number. Raises ValueError for
    what is no table of runs, no rows, or an arm with the same seed twice.
    """
    columns = list(arm_columns)
    missing = [column for column in (*FIXED, *columns) if column not in table]
    if missing:
        raise ValueError(
            f"the table lacks the columns {', '.join(missing)}: it has {', '.join(table.columns)}."
        )
    if table.empty:
        raise ValueError("the table has no rows.")
    table = table.reset_index(drop=True)
    table.attrs = {}  # what metrics are called, which pandas would copy whole at every step below
    table["finite"] = table["finite"].astype(bool) if "finite" in table else True
    groups = [table]
    if columns:
        groups = [rows for _, rows in table.groupby(columns, dropna=False)]
    groups.sort(key=lambda rows: rows["lane"].min())
    ordered = [rows.sort_values(["seed", "task"]) for rows in groups]
    for rows in ordered:
        _check_seeds(rows, columns)
    # Taken from the table in one go, because joining rows one by one would lose the columns' types.
    firsts = [rows.index[0] for rows in ordered]
    return Arms(table.loc[firsts, columns].reset_index(drop=True), ordered)


def _check_seeds(rows: pd.DataFrame, columns: Sequence[str]) -> None:
    """Raises ValueError if an arm has the same seed twice at a task."""
    twice = rows.duplicated(["seed", "task"])
    if twice.any():
        row = rows[twice].iloc[0]
        raise ValueError(
            f"lane {row['lane']} repeats seed {row['seed']} at task {row['task']} of its arm: "
            f"arms are told apart by {', '.join(columns) or 'nothing'}, which does not tell "
            "these lanes apart."
        )


def arm_labels(table: pd.DataFrame, arm_columns: Sequence[str]) -> pd.Series:
    """Returns a short, distinct label for each arm, indexed by its number: the order of the rows of
    `final`.

    See `labels.of_arms` for what it names.
    """
    return pd.Series(labels.of_arms(arms(table, arm_columns).values), name="label")


def summary(table: pd.DataFrame, arm_columns: Sequence[str], level: float = 0.95) -> pd.DataFrame:
    """Returns statistics over seeds, one row per arm, metric and task: the long table of
    `summary.csv`.

    Columns: the arm columns, `task`, `metric`, `seeds` (lanes with a row at this task), `diverged`
    (how many of them are not finite), then those of `over_seeds.Statistics`. Rows without any
    measurement and without a diverged lane are left out: a probe that did not run.
    """
    values, groups = arms(table, arm_columns)
    metrics = metric_columns(table, arm_columns)
    parts = [_summary(rows, metrics, level) for rows in groups]
    repeated = np.repeat(values.index, [len(part) for part in parts])
    named = values.loc[repeated].reset_index(drop=True)
    return pd.concat([named, pd.concat(parts, ignore_index=True)], axis=1)


def _summary(rows: pd.DataFrame, metrics: list[str], level: float) -> pd.DataFrame:
    """The rows of one arm in the long table, without its arm columns."""
    own_seeds, seed = np.unique(rows["seed"], return_inverse=True)
    tasks, task = np.unique(rows["task"], return_inverse=True)
    cube = np.full((len(own_seeds), len(metrics), len(tasks)), np.nan)
    cube[seed, :, task] = rows[metrics].to_numpy(np.float64)
    diverged = np.bincount(task, ~rows["finite"]).astype(np.int64)
    part = {
        "task": np.tile(tasks, len(metrics)),
        "metric": np.repeat(np.array(metrics, dtype=object), len(tasks)),
        "seeds": np.tile(np.bincount(task), len(metrics)),
        "diverged": np.tile(diverged, len(metrics)),
    }
    for name, array in over_seeds.statistics(cube, level)._asdict().items():
        part[name] = array.reshape(-1)
    shown = (part["count"] > 0) | (part["diverged"] > 0)
    return pd.DataFrame({name: array[shown] for name, array in part.items()})


def final(
    table: pd.DataFrame,
    arm_columns: Sequence[str],
    metric: str = "online_accuracy",
    last: int = 5,
    level: float = 0.95,
) -> pd.DataFrame:
    """Returns one row per arm: each lane's mean over its last `last` measured tasks, then
    statistics over seeds.

    Columns: the arm columns, `seeds`, `diverged` (lanes not finite at any task), those of
    `over_seeds.Statistics`. A lane with fewer tasks is averaged over all it has; one that diverged
    within the window and has no value there has no mean. Raises ValueError for an unknown metric,
    `last` below 1, or an arm with the same seed twice.
    """
    check(table, arm_columns, metric, last)
    return final_of(arms(table, arm_columns), metric, last, level)


def final_of(found: Arms, metric: str, last: int, level: float = 0.95) -> pd.DataFrame:
    """Returns `final` of a table that is already by arms."""
    return _beside(found.values, final_records(found, metric, last, level))


def final_records(found: Arms, metric: str, last: int, level: float = 0.95) -> list[dict[str, Any]]:
    """Returns the rows of `final_of` without the arm columns."""
    return [
        _record(_Measured.of(rows["seed"], rows["finite"], rows[metric]), last, level)
        for rows in found.rows
    ]


def paired_differences(
    table: pd.DataFrame,
    arm_columns: Sequence[str],
    baseline: dict[str, Any],
    metric: str = "online_accuracy",
    last: int = 5,
    level: float = 0.95,
) -> pd.DataFrame:
    """Returns one row per arm but the baseline: statistics over seeds of the arm's metric minus the
    baseline's.

    Both are taken at the same seed and the same task, and averaged over the last `last` tasks that
    both have measured; the intervals are those of the mean difference. `seeds` counts the common
    seeds, `diverged` those of them where either lane diverged; an arm without a common seed has
    count 0. The index is the arm's number as in `final`.

    Args:
      baseline: arm columns and values, enough of them to name one arm, such as {"granularity": 1,
        "method": "none"}.

    Raises ValueError as `final`, where `baseline` names no arm or several, and where no arm has a
    seed in common with it.
    """
    found = arms(table, arm_columns)
    check(table, arm_columns, metric, last)
    number = baseline_of(found.values, baseline)
    result = differences(found, number, metric, last, level).drop(index=number)
    if len(result) and not any(result["seeds"]):
        raise ValueError(f"no arm has a seed and a task in common with the baseline {baseline}.")
    return result


def differences(
    found: Arms, number: int, metric: str, last: int, level: float = 0.95
) -> pd.DataFrame:
    """Returns `paired_differences` to the arm of a number, also of that arm itself."""
    paired = paired_rows(found, number, [metric])
    return _beside(found.values, difference_records(paired, metric, last, level))


def paired_rows(found: Arms, number: int, metrics: Sequence[str]) -> list[pd.DataFrame]:
    """Returns each arm's rows beside those that the arm of a number has at the same seed and task:
    `finite` and every metric twice, ending in "_x" and "_y".
    """
    columns = ["seed", "task", "finite", *metrics]
    base = found.rows[number][columns]
    return [rows[columns].merge(base, on=["seed", "task"]) for rows in found.rows]


def difference_records(
    paired: Sequence[pd.DataFrame], metric: str, last: int, level: float = 0.95
) -> list[dict[str, Any]]:
    """Returns the rows of `differences` without the arm columns, of what `paired_rows` gives."""
    records = []
    for pair in paired:
        value = pair[f"{metric}_x"] - pair[f"{metric}_y"]
        finite = pair["finite_x"] & pair["finite_y"]
        records.append(_record(_Measured.of(pair["seed"], finite, value), last, level))
    return records


class _Measured(NamedTuple):
    """A value at tasks of an arm, ordered by seed and task, [rows] each; NaN where unknown."""

    seed: np.ndarray
    finite: np.ndarray  # whether the lane is, at this task
    value: np.ndarray

    @classmethod
    def of(cls, seed: Any, finite: Any, value: Any) -> "_Measured":
        """From columns of a table."""
        value = value.astype(np.float64).to_numpy()
        value = np.where(np.isfinite(value), value, np.nan)
        return cls(seed.to_numpy(), finite.to_numpy(bool), value)


def _beside(values: pd.DataFrame, records: list[dict[str, Any]]) -> pd.DataFrame:
    """The records, one for each arm, behind the arms' columns."""
    return pd.concat([values, pd.DataFrame(records)], axis=1)


def _record(rows: _Measured, last: int, level: float) -> dict[str, Any]:
    """Statistics over seeds of the mean over the last tasks measured, and counts of seeds."""
    found = over_seeds.statistics(_means(rows, last), level)
    counts = {
        "seeds": len(np.unique(rows.seed)),
        "diverged": len(np.unique(rows.seed[~rows.finite])),
    }
    return counts | {name: array[()] for name, array in found._asdict().items()}


def _means(rows: _Measured, last: int) -> np.ndarray:
    """The mean value of each seed over its last tasks, [seeds]."""
    # A diverged lane's missing value stays in, so that it makes the lane's mean unknown instead of
    # vanishing.
    kept = ~np.isnan(rows.value) | ~rows.finite
    seed, value = rows.seed[kept], rows.value[kept]
    return np.array([value[seed == one][-last:].mean() for one in np.unique(seed)])


def check(table: pd.DataFrame, arm_columns: Sequence[str], metric: str, last: int) -> None:
    """Raises ValueError for a metric that the table lacks, or no task to average over."""
    known = metric_columns(table, arm_columns)
    if metric not in known:
        raise ValueError(f"unknown metric {metric!r}: known are {', '.join(known)}.")
    if last < 1:
        raise ValueError(f"last is {last!r}: allowed is at least 1 task.")


def baseline_of(values: pd.DataFrame, baseline: dict[str, Any] | None = None) -> int:
    """Returns the number of the one arm that has the baseline's values.

    Without a baseline it is the first abrupt arm of method "none", or the first arm if there is
    none. Raises ValueError if it fits no arm or several.
    """
    if baseline is None:
        return _usual_baseline(values)
    fits = np.ones(len(values), dtype=bool)
    for column, wanted in baseline.items():
        if column not in values:
            listed = ", ".join(values.columns)
            raise ValueError(f"unknown arm column {column!r} in the baseline: known are {listed}.")
        fits &= _equal(values[column], wanted)
    if fits.sum() != 1:
        named = np.array(labels.of_arms(values), dtype=object)
        several = f"{fits.sum()} arms ({'; '.join(named[fits])})"
        raise ValueError(
            f"the baseline {baseline} fits {several if fits.any() else 'no arm'}: it must fit one "
            f"of {'; '.join(named)}."
        )
    return int(fits.argmax())


def _equal(column: Any, wanted: Any) -> np.ndarray:
    """Where a column has a value, or none if none is wanted, [arms]."""
    if pd.isna(wanted):
        return column.isna().to_numpy()
    return np.array([value == wanted for value in column.to_list()], dtype=bool)


def _usual_baseline(values: pd.DataFrame) -> int:
    plain = np.ones(len(values), dtype=bool)
    for column, value in (("granularity", 1), ("method", "none")):
        if column in values:
            plain &= (values[column] == value).to_numpy(dtype=bool)
    return int(plain.argmax())
