"""What is printed and written of a run's end: every arm with its difference to a baseline."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from plasticity_jax.reporting import labels, over_seeds, significance, statistics
from plasticity_jax.reporting import metrics as metrics_

_ENDS = ("low", "high", "t_low", "t_high")  # of intervals
_DIGITS = 4  # that are shown of the largest mean of what is no share


def finals(
    table: pd.DataFrame,
    arm_columns: Sequence[str],
    last: int = 5,
    level: float = 0.95,
    names: Sequence[str] | None = None,
    *,
    tested: bool = False,
    baseline: dict[str, Any] | None = None,
) -> pd.DataFrame:
    """Returns one row per metric (not those of single layers) and arm: what `final_table` prints,
    as numbers.

    Columns: metric, arm (its label, or its name), seeds, diverged, mean, low, high, t_low, t_high
    (as in `over_seeds.Statistics`); minus, minus_low, minus_high, minus_t_low, minus_t_high: the
    paired difference to the baseline (by default the first abrupt arm of method "none"), which has
    none itself. Where `tested`, also p and p_holm, of the paired t test and corrected for the
    number of arms. Raises ValueError as `statistics.final`, and for a baseline that fits no arm or
    several.
    """
    arms = statistics.arms(table, arm_columns)
    names = labels.named(labels.of_arms(arms.values), names)
    number = statistics.baseline_of(arms.values, baseline)
    metrics = [one for one in statistics.metric_columns(table, arm_columns) if "/" not in one]
    pairs = statistics.paired_rows(arms, number, metrics)
    rows = []
    for metric in metrics:
        means = statistics.final_records(arms, metric, last, level)
        differences = statistics.difference_records(pairs, metric, last, level)
        tests = significance.tests(pd.DataFrame(differences), number) if tested else None
        for arm, (mean, minus) in enumerate(zip(means, differences, strict=True)):
            row = {"metric": metric, "arm": names[arm]}
            row |= {name: mean[name] for name in ("seeds", "diverged", "mean", *_ENDS)}
            if arm != number:
                row["minus"] = minus["mean"]
                row |= {f"minus_{end}": minus[end] for end in _ENDS}
            if tests is not None and arm != number:
                row |= {name: tests.at[arm, name] for name in ("p", "p_holm")}
            rows.append(row)
    return pd.DataFrame(rows)


def final_table(
    table: pd.DataFrame,
    arm_columns: Sequence[str],
    metric: str = "online_accuracy",
    baseline: dict[str, Any] | None = None,
    last: int = 5,
    names: Sequence[str] | None = None,
    *,
    tested: bool = False,
) -> str:
    """Returns the plain-text table for the terminal: per arm seeds, mean, interval, and paired
    difference to a baseline.

    The baseline is by default the first abrupt arm of method "none", or the first arm if there is
    none. Shares are in percent and their differences in percentage points; the head says where
    lower is better. A "-" stands where nothing is known. Intervals are Student's t if any of them
    is of fewer than `over_seeds.ENOUGH` seeds, else the bootstrap's; the head says which. Arms are
    called by what differs between them, or as `names` say. Where `tested`, a column has the p
    values of the differences, corrected for the number of arms. Raises ValueError as
    `statistics.final`, for a baseline that fits no arm or several, and for more or fewer names than
    arms.
    """
    head, rows = final_cells(table, arm_columns, metric, baseline, last, names, tested=tested)
    return "\n".join([*head, "", *_aligned(rows)])


def final_cells(
    table: pd.DataFrame,
    arm_columns: Sequence[str],
    metric: str = "online_accuracy",
    baseline: dict[str, Any] | None = None,
    last: int = 5,
    names: Sequence[str] | None = None,
    *,
    tested: bool = False,
) -> tuple[list[str], list[list[str]]]:
    """Returns the sentences at the head of `final_table`, and its cells by row; where `tested`,
    with a column of p values, corrected for the number of arms. Raises ValueError as `final_table`.
    """
    arms = statistics.arms(table, arm_columns)
    statistics.check(table, arm_columns, metric, last)
    means = statistics.final_of(arms, metric, last)
    number = statistics.baseline_of(arms.values, baseline)
    differences = statistics.differences(arms, number, metric, last)
    interval = _interval([*means["count"], *differences["count"]])
    about = metrics_.of_column(table, metric)
    shown = _notation(means["mean"], about.share)

    names = labels.named(labels.of_arms(arms.values), names)
    unit, points = (", %", ", points") if about.share else ("", "")
    minus = f"minus {names[number]}{points}"
    lines = [["arm", "seeds", f"mean{unit}", "95 % interval", minus, "95 % interval"]]
    for arm, (mean, difference) in enumerate(
        zip(_records(means), _records(differences), strict=True)
    ):
        line = [names[arm], _seeds(mean), shown.of(mean, ["mean"]), shown.of(mean, interval.ends)]
        if arm == number:
            line += ["", ""]
        else:
            line += [shown.of(difference, ends, "+") for ends in (["mean"], interval.ends)]
        lines.append(line)
    alone = len(names) == 1
    rows = [line[:4] for line in lines] if alone else lines
    if tested and not alone:
        found = significance.tests(differences, number)["p_holm"]
        rows = [[*line, cell] for line, cell in zip(rows, ["p", *map(p_value, found)], strict=True)]

    tasks = min(last, len(set(table["task"])))
    over = f"the last {tasks} tasks" if tasks > 1 else "the last task"
    better = "; lower is better" if about.better == "lower" else ""
    head = [
        f"{metric.replace('_', ' ')}: mean over {over} measured, over seeds{better}",
        f"intervals: {interval.words}",
    ]
    if not alone:
        head.append("differences: paired, same seed and same tasks")
    if tested and not alone:
        head.append("p: paired t test over seeds, corrected for the number of arms (Holm)")
    return [*head, *_lengths(arms.rows)], rows


def _lengths(rows: Sequence[pd.DataFrame]) -> list[str]:
    """What is said where lanes have different numbers of tasks, as in a workdir that grew."""
    counts: set[int] = set()
    for arm in rows:
        last: Any = arm.groupby("seed")["task"].max()
        counts |= {int(task) + 1 for task in last.to_numpy()}
    if len(counts) < 2:
        return []
    return [
        f"lanes have {min(counts)} to {max(counts)} tasks: a mean is over the last that each has, "
        "a difference over tasks of both"
    ]


def p_value(p: float) -> str:
    """Returns a p value as it is printed; nothing where there is none."""
    if not math.isfinite(p):
        return ""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


class _Notation(NamedTuple):
    """How numbers of a metric are written."""

    scale: float
    digits: int  # after the point

    def of(self, row: dict[Any, Any], names: Sequence[str], sign: str = "") -> str:
        """What is known of these columns of a row; "-" if nothing is."""
        known = [row[name] * self.scale for name in names if math.isfinite(row[name])]
        return " to ".join(f"{value:{sign}.{self.digits}f}" for value in known) or "-"


def _notation(means: Any, share: bool) -> _Notation:
    if share:
        return _Notation(100, 1)
    largest = np.nanmax(np.abs([*means, 0.0]))
    if not largest:
        return _Notation(1, _DIGITS - 1)
    before = math.floor(math.log10(largest)) + 1  # digits before the point
    return _Notation(1, int(np.clip(_DIGITS - before, 0, 9)))


class _Interval(NamedTuple):
    ends: tuple[str, str]  # columns
    words: str


def _interval(counts: Sequence[int]) -> _Interval:
    """The interval to show for means over so many seeds."""
    several = [count for count in counts if count > 1]
    student = ("t_low", "t_high")
    if not several:
        return _Interval(student, "none, since they take two seeds")
    if min(several) < over_seeds.ENOUGH:
        return _Interval(student, f"95 %, Student's t over seeds (fewer than {over_seeds.ENOUGH})")
    return _Interval(("low", "high"), "95 % percentile bootstrap over seeds")


def _seeds(mean: dict[Any, Any]) -> str:
    """How many seeds are in a mean, of how many, and how many diverged."""
    text = f"{mean['count']}"
    if mean["count"] != mean["seeds"]:
        text += f" of {mean['seeds']}"
    return f"{text} ({mean['diverged']} diverged)" if mean["diverged"] else text


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """The rows as lines: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [first.ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return lines


def _records(frame: pd.DataFrame) -> list[dict[Any, Any]]:
    return frame.to_dict("records")
