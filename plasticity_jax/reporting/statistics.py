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

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.special

from plasticity_jax.reporting import labels
from plasticity_jax.reporting import metrics as metrics_

FIXED = ("lane", "task", "seed")
"""Columns that every table has: lane and task count from 0."""

STAGE = ("task_number", "part")
"""Columns of tables whose tasks come back or have parts: which task it is, and which part of it."""

SEEDS_ENOUGH = 10
"""With fewer seeds a percentile bootstrap is clearly too narrow (see `statistics`), and the t
interval is shown.
"""

_ENDS = ("low", "high", "t_low", "t_high")  # of intervals


class Statistics(NamedTuple):
    """Statistics over seeds, one array [...] each; NaN where too few seeds are known.

    Attributes:
      count: number of seeds whose value is finite; all else is over these.
      mean, minimum, maximum: NaN only if there is none.
      standard_error: sample standard deviation (n - 1) over sqrt(n); NaN for one seed, which tells
        nothing of spread.
      low, high: ends of the bootstrap interval of the mean; NaN for one seed.
      interquartile_mean: mean of the middle half of the sorted values.
      t_low, t_high: ends of Student's t interval of the mean; NaN for one seed.
    """

    count: np.ndarray
    mean: np.ndarray
    minimum: np.ndarray
    maximum: np.ndarray
    standard_error: np.ndarray
    low: np.ndarray
    high: np.ndarray
    interquartile_mean: np.ndarray
    t_low: np.ndarray
    t_high: np.ndarray


def statistics(values: Any, level: float = 0.95, resamples: int = 2000) -> Statistics:
    """Returns the statistics over the leading axis of `values` [seeds, ...], as arrays [...].

    `low` and `high` are the percentile bootstrap of the mean over seeds, always with the same
    draws. From few seeds it is too narrow, with three exactly from the smallest to the largest: for
    normal data a 95 % interval holds the true mean in about 75 % of cases with 3 seeds, 83 % with
    5, 89 % with 10, 92 % with 20. `t_low` and `t_high` are Student's (1908) interval, mean ± t(n -
    1) standard errors, which holds it in 95 % with any number of seeds from 2 if the data are
    normal; it knows nothing of the range of a metric, so one of a share may reach below 0 or above
    1. The interquartile mean cuts exactly a quarter of the weight off each end, seeds on the edge
      counting in part, so it differs from `scipy.stats.trim_mean(_, 0.25)` unless 4 divides the
      number of seeds.

    Raises:
      ValueError: no leading axis, a level outside (0, 1), or fewer than one resample.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim == 0:
        raise ValueError("values must have a leading axis of seeds, not be a single number.")
    if not 0 < level < 1:
        raise ValueError(f"level is {level!r}: allowed is a share between 0 and 1, such as 0.95.")
    if resamples < 1:
        raise ValueError(f"resamples is {resamples!r}: allowed is at least 1.")
    shape = values.shape[1:]
    flat = values.reshape(len(values), math.prod(shape))
    known = np.isfinite(flat)
    out = np.full((len(Statistics._fields), flat.shape[1]), np.nan)
    out[0] = known.sum(axis=0)
    if known.any():
        # Positions that lack the same seeds are computed together; nearly always all seeds are
        # known.
        patterns, which = np.unique(known, axis=1, return_inverse=True)
        for number, seeds in enumerate(patterns.T):
            if seeds.any():
                positions = which.reshape(-1) == number
                out[1:, positions] = _complete(flat[np.ix_(seeds, positions)], level, resamples)
    count, *rest = (row.reshape(shape) for row in out)
    return Statistics(count.astype(np.int64), *rest)


def _complete(values: np.ndarray, level: float, resamples: int) -> np.ndarray:
    """All statistics but the count, [9, P], of finite values [n, P]."""
    n = len(values)
    mean = values.mean(axis=0)
    # Sorted value i stands for the stretch [i, i + 1] of [0, n]; the middle half is [n/4, 3n/4].
    middle = np.clip(
        np.minimum(np.arange(n) + 1, 0.75 * n) - np.maximum(np.arange(n), 0.25 * n), 0, None
    )
    interquartile = middle @ np.sort(values, axis=0) / (n / 2)
    error = low = high = half = np.full_like(mean, np.nan)
    if n > 1:
        error = values.std(axis=0, ddof=1) / math.sqrt(n)
        low, high = mean + _bootstrap(values - mean, level, resamples)
        half = scipy.special.stdtrit(n - 1, (1 + level) / 2) * error
    extremes = values.min(axis=0), values.max(axis=0)
    return np.stack([mean, *extremes, error, low, high, interquartile, mean - half, mean + half])


def _bootstrap(values: np.ndarray, level: float, resamples: int) -> np.ndarray:
    """Quantiles [2, P] of the means of resamples of values [n, P]; the draws are the same for every
    position.
    """
    n, positions = values.shape
    drawn = np.random.default_rng(0).integers(0, n, (resamples, n))
    share = np.stack([(drawn == seed).mean(axis=1) for seed in range(n)], axis=1)
    tails = [(1 - level) / 2, (1 + level) / 2]
    width = max(1, 4_000_000 // resamples)  # positions at a time, which bounds the memory
    parts = [
        np.quantile(share @ values[:, i : i + width], tails, axis=0)
        for i in range(0, positions, width)
    ]
    return np.concatenate(parts, axis=1)


def metric_columns(table: pd.DataFrame, arm_columns: Sequence[str]) -> list[str]:
    """Returns the columns that hold measurements, probes included, in the table's order.

    These are the numeric columns that are neither fixed, nor `finite`, nor name an arm.
    """
    others = {*FIXED, *STAGE, *arm_columns, "finite"}
    return [c for c in table.columns if c not in others and pd.api.types.is_numeric_dtype(table[c])]


class _Arms(NamedTuple):
    values: pd.DataFrame  # one row per arm, numbered from 0, its arm columns
    rows: list[pd.DataFrame]  # of each arm, ordered by seed and task


def _split(table: pd.DataFrame, arm_columns: Sequence[str]) -> _Arms:
    """The table by arms; raises ValueError where it is no table of runs or an arm has a seed twice."""
    columns = list(arm_columns)
    missing = [c for c in (*FIXED, *columns) if c not in table]
    if missing:
        raise ValueError(
            f"the table lacks the columns {', '.join(missing)}: it has {', '.join(table.columns)}."
        )
    if table.empty:
        raise ValueError("the table has no rows.")
    table = table.reset_index(drop=True)
    table["finite"] = table["finite"].astype(bool) if "finite" in table else True
    groups = [rows for _, rows in table.groupby(columns, dropna=False)] if columns else [table]
    groups = [
        rows.sort_values(["seed", "task"])
        for rows in sorted(groups, key=lambda rows: rows["lane"].min())
    ]
    for rows in groups:
        if (twice := rows.duplicated(["seed", "task"])).any():
            row = rows[twice].iloc[0]
            raise ValueError(
                f"lane {row['lane']} repeats seed {row['seed']} at task {row['task']} of its arm: "
                f"arms are told apart by {', '.join(columns) or 'nothing'}, which does not tell "
                "these lanes apart."
            )
    # Taken from the table in one go, because joining rows one by one would lose the columns' types.
    values = table.loc[[rows.index[0] for rows in groups], columns].reset_index(drop=True)
    return _Arms(values, groups)


def summary(table: pd.DataFrame, arm_columns: Sequence[str], level: float = 0.95) -> pd.DataFrame:
    """Returns statistics over seeds, one row per arm, metric and task: the long table of
    `summary.csv`.

    Columns: the arm columns, `task`, `metric`, `seeds` (lanes with a row at this task), `diverged`
    (how many of them are not finite), then those of `Statistics`. Rows without any measurement and
    without a diverged lane are left out: a probe that did not run.
    """
    values, groups = _split(table, arm_columns)
    metrics = metric_columns(table, arm_columns)
    parts, repeats = [], []
    for rows in groups:
        seeds, seed = np.unique(rows["seed"], return_inverse=True)
        tasks, task = np.unique(rows["task"], return_inverse=True)
        cube = np.full((len(seeds), len(metrics), len(tasks)), np.nan)
        cube[seed, :, task] = rows[metrics].to_numpy(np.float64)
        part = {
            "task": np.tile(tasks, len(metrics)),
            "metric": np.repeat(np.array(metrics, dtype=object), len(tasks)),
            "seeds": np.tile(np.bincount(task), len(metrics)),
            "diverged": np.tile(np.bincount(task, ~rows["finite"]).astype(np.int64), len(metrics)),
        }
        part |= {
            name: array.reshape(-1) for name, array in statistics(cube, level)._asdict().items()
        }
        shown = (part["count"] > 0) | (part["diverged"] > 0)
        parts.append({name: array[shown] for name, array in part.items()})
        repeats.append(shown.sum())
    long = pd.DataFrame({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
    return pd.concat(
        [values.loc[np.repeat(values.index, repeats)].reset_index(drop=True), long], axis=1
    )


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
    `Statistics`. A lane with fewer tasks is averaged over all it has; one that diverged within the
    window and has no value there has no mean.

    Raises:
      ValueError: unknown metric, `last` below 1, or an arm with the same seed twice.
    """
    values, groups = _split(table, arm_columns)
    _check(table, arm_columns, metric, last)
    return _tabulated(values, [rows.assign(value=rows[metric]) for rows in groups], last, level)


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

    Raises:
      ValueError: what `final` raises; `baseline` names no arm or several; no arm has a seed in
        common with it.
    """
    values, groups = _split(table, arm_columns)
    _check(table, arm_columns, metric, last)
    number = _baseline(values, baseline)
    result = _differences(values, groups, number, metric, last, level).drop(index=number)
    if len(result) and not any(result["seeds"]):
        raise ValueError(f"no arm has a seed and a task in common with the baseline {baseline}.")
    return result


def _differences(values, groups, number: int, metric: str, last: int, level: float) -> pd.DataFrame:
    base = groups[number][["seed", "task", "finite", metric]]
    pairs = [
        rows[["seed", "task", "finite", metric]].merge(base, on=["seed", "task"]) for rows in groups
    ]
    differences = [
        pair.assign(
            value=pair[f"{metric}_x"] - pair[f"{metric}_y"],
            finite=pair["finite_x"] & pair["finite_y"],
        )
        for pair in pairs
    ]
    return _tabulated(values, differences, last, level)


def _tabulated(
    values: pd.DataFrame, groups: list[pd.DataFrame], last: int, level: float
) -> pd.DataFrame:
    """One row per group: statistics over seeds of the mean `value` over the last tasks measured."""
    records = []
    for rows in groups:
        # A diverged lane's missing value stays in, so that it makes the lane's mean unknown instead
        # of vanishing.
        value = rows["value"].astype(np.float64).where(np.isfinite(rows["value"]))
        kept = (value.notna() | ~rows["finite"]).to_numpy()
        seeds, value = rows["seed"].to_numpy()[kept], value.to_numpy()[kept]
        means = [value[seeds == seed][-last:].mean() for seed in np.unique(seeds)]
        counts = {
            "seeds": rows["seed"].nunique(),
            "diverged": rows.loc[~rows["finite"], "seed"].nunique(),
        }
        records.append(
            counts | {k: v[()] for k, v in statistics(np.array(means), level)._asdict().items()}
        )
    return pd.concat([values, pd.DataFrame(records)], axis=1)


def _check(table: pd.DataFrame, arm_columns: Sequence[str], metric: str, last: int) -> None:
    known = metric_columns(table, arm_columns)
    if metric not in known:
        raise ValueError(f"unknown metric {metric!r}: known are {', '.join(known)}.")
    if last < 1:
        raise ValueError(f"last is {last!r}: allowed is at least 1 task.")


def _baseline(values: pd.DataFrame, baseline: dict[str, Any]) -> int:
    """The number of the one arm that has the baseline's values."""
    fits = np.ones(len(values), dtype=bool)
    for column, wanted in baseline.items():
        if column not in values:
            raise ValueError(
                f"unknown arm column {column!r} in the baseline: known are {', '.join(values.columns)}."
            )
        fits &= [
            pd.isna(value) if pd.isna(wanted) else value == wanted
            for value in values[column].to_list()
        ]
    if fits.sum() != 1:
        arms = np.array(labels.of_arms(values), dtype=object)
        found = "no arm" if not fits.any() else f"{fits.sum()} arms ({'; '.join(arms[fits])})"
        raise ValueError(
            f"the baseline {baseline} fits {found}: it must fit one of {'; '.join(arms)}."
        )
    return int(fits.argmax())


def _usual_baseline(values: pd.DataFrame) -> int:
    """The number of the first abrupt arm of method "none", or of the first arm if there is none."""
    plain = np.ones(len(values), dtype=bool)
    for column, value in (("granularity", 1), ("method", "none")):
        plain &= (values[column] == value).to_numpy(dtype=bool) if column in values else True
    return int(plain.argmax())


def finals(
    table: pd.DataFrame, arm_columns: Sequence[str], last: int = 5, level: float = 0.95
) -> pd.DataFrame:
    """Returns one row per metric (not those of single layers) and arm: what `final_table` prints,
    as numbers.

    Columns: metric, arm (its label), seeds, diverged, mean, low, high, t_low, t_high (as in
    `Statistics`); minus,
    minus_low, minus_high, minus_t_low, minus_t_high: the paired difference to the baseline, the
    first abrupt arm of method "none", which has none itself.

    Raises:
      ValueError: as `final`.
    """
    values, groups = _split(table, arm_columns)
    names, number, rows = labels.of_arms(values), _usual_baseline(values), []
    for metric in metric_columns(table, arm_columns):
        if "/" in metric:
            continue
        means = _records(final(table, arm_columns, metric, last, level))
        differences = _records(_differences(values, groups, number, metric, last, level))
        for arm, (mean, minus) in enumerate(zip(means, differences, strict=True)):
            row = {
                "metric": metric,
                "arm": names[arm],
                **{k: mean[k] for k in ("seeds", "diverged", "mean", *_ENDS)},
            }
            if arm != number:
                row |= {"minus": minus["mean"], **{f"minus_{k}": minus[k] for k in _ENDS}}
            rows.append(row)
    return pd.DataFrame(rows)


def arm_labels(table: pd.DataFrame, arm_columns: Sequence[str]) -> pd.Series:
    """Returns a short, distinct label for each arm, indexed by its number: the order of the rows of
    `final`.

    See `labels.of_arms` for what it names.
    """
    return pd.Series(labels.of_arms(_split(table, arm_columns).values), name="label")


def final_table(
    table: pd.DataFrame,
    arm_columns: Sequence[str],
    metric: str = "online_accuracy",
    baseline: dict[str, Any] | None = None,
    last: int = 5,
) -> str:
    """Returns the plain-text table for the terminal: per arm seeds, mean, interval, and paired
    difference to a baseline.

    The baseline is by default the first abrupt arm of method "none", or the first arm if there is
    none. Shares are in percent and their differences in percentage points; the head says where
    lower is better. A "-" stands where nothing is known. Intervals are Student's t if any of them
    is of fewer than `SEEDS_ENOUGH` seeds, else the bootstrap's; the head says which.

    Raises:
      ValueError: as `final`, and a baseline that fits no arm or several.
    """
    values, groups = _split(table, arm_columns)
    _check(table, arm_columns, metric, last)
    names, about = labels.of_arms(values), metrics_.of_column(table, metric)
    means = final(table, arm_columns, metric, last)
    number = _usual_baseline(values) if baseline is None else _baseline(values, baseline)
    differences = _differences(values, groups, number, metric, last, 0.95)

    scale, unit, points = (100, ", %", ", points") if about.share else (1, "", "")
    largest = np.nanmax(np.abs([*means["mean"], 0.0])) * scale
    digits = (
        1 if unit else int(np.clip(3 - math.floor(math.log10(largest)), 0, 9)) if largest else 3
    )

    ends, kind = _interval([*means["count"], *differences["count"]])

    def shown(row: dict, names: str, sign: str = "") -> str:
        known = [
            f"{row[n] * scale:{sign}.{digits}f}" for n in names.split() if math.isfinite(row[n])
        ]
        return " to ".join(known) or "-"

    lines = [
        [
            "arm",
            "seeds",
            f"mean{unit}",
            "95 % interval",
            f"minus {names[number]}{points}",
            "95 % interval",
        ]
    ]
    for arm, (mean, difference) in enumerate(
        zip(_records(means), _records(differences), strict=True)
    ):
        seeds = (
            f"{mean['count']}"
            if mean["count"] == mean["seeds"]
            else f"{mean['count']} of {mean['seeds']}"
        )
        seeds += f" ({mean['diverged']} diverged)" if mean["diverged"] else ""
        paired = (
            ["", ""]
            if arm == number
            else [shown(difference, "mean", "+"), shown(difference, ends, "+")]
        )
        lines.append([names[arm], seeds, shown(mean, "mean"), shown(mean, ends), *paired])
    columns = list(zip(*lines, strict=True))[: 6 if len(values) > 1 else 4]
    padded = [[cell.rjust(max(map(len, c))) if i else cell.ljust(max(map(len, c))) for cell in c]
              for i, c in enumerate(columns)]  # fmt: skip
    tasks = min(last, len(set(table["task"])))
    over = f"the last {f'{tasks} tasks' if tasks > 1 else 'task'} measured, over seeds"
    better = f"; {about.better} is better" if about.better == "lower" else ""
    head = [
        f"{metric.replace('_', ' ')}: mean over {over}{better}",
        f"intervals: {kind}",
        *(["differences: paired, same seed and same tasks"] if len(values) > 1 else []),
    ]
    return "\n".join([*head, "", *("  ".join(line).rstrip() for line in zip(*padded, strict=True))])


def _interval(counts: Sequence[int]) -> tuple[str, str]:
    """The columns of the interval to show for means over so many seeds, and what it is in words."""
    several = [count for count in counts if count > 1]
    if not several:
        return "t_low t_high", "none, since they take two seeds"
    if min(several) < SEEDS_ENOUGH:
        return "t_low t_high", f"95 %, Student's t over seeds (fewer than {SEEDS_ENOUGH})"
    return "low high", "95 % percentile bootstrap over seeds"


def _records(frame: pd.DataFrame) -> list[dict[Any, Any]]:
    return frame.to_dict("records")
