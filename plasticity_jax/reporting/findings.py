"""What a table says, in sentences: which arms lose plasticity and when, which measurements moved
before, what diverged, and where few seeds say little.

The rules are simple, the same for every run, and stated with what they find (`RULES`).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from plasticity_jax.reporting import labels, metrics, over_seeds, significance, statistics, tables
from plasticity_jax.types import Metric

WINDOW = 5
"""Tasks at either end that are compared, at most half of a run."""
FEWEST = 4
"""Tasks of a run in which anything is looked for."""
DECADES = 100
"""A positive measurement that spans more than this factor is looked at by its logarithm."""
TOLD = 4
"""Measurements that are named for an arm."""
STEADY = 0.95
"""Share of the variance of a course from which on it is called a steady drift, if a line has it."""
SECURE = 20
"""Seeds from which on a bootstrap interval is nearly as wide as it should be."""
RULES = (
    "Start and end are means over the first and the last {window} tasks. An arm falls, or rises, "
    "if the 95 % Student's t interval of the change over seeds does not hold 0. The task at which "
    "a seed has fallen is the first by which its mean over {window} tasks in a row is half of the "
    "way from start to end; a measurement has moved by the same rule (by its logarithm where it "
    "spans more than a factor of 100), if its own change is told from 0. One that drifts steadily "
    "(a line has 95 % of the variance of its course) is half of the way in the middle of a run "
    "whatever happens, and is named apart. A measurement that is not made after every task is held "
    "against the score at the tasks that have it. What moves first need not be a cause, and many "
    "measurements of a few seeds are looked at."
)


class Findings(NamedTuple):
    """Sentences, each complete in itself.

    Attributes:
      ends: how arms compare at the end.
      changes: which arms fall or rise, and when.
      first: which measurements moved before an arm fell.
      diverged: which lanes are not finite from some task on.
      warnings: what to be careful about.
    """

    ends: list[str]
    changes: list[str]
    first: list[str]
    diverged: list[str]
    warnings: list[str]


class Change(NamedTuple):
    """How a measurement of one arm changed over a run; arrays have an entry for each seed.

    Attributes:
      start, end: means over the tasks at either end, [seeds].
      mean, low, high: of the change, with the ends of Student's 95 % interval.
      half: the task, from 0, by which half of the change is made, [seeds]; NaN where a seed changed
        the other way or is not known.
      steady: whether the mean over seeds, or that of logarithms, is nearly a line of the task.
    """

    start: np.ndarray
    end: np.ndarray
    mean: float
    low: float
    high: float
    half: np.ndarray
    steady: bool

    @property
    def told(self) -> bool:
        """Whether the change is told from 0."""
        return bool(self.low > 0 or self.high < 0)


def of_table(
    table: Any,
    arm_columns: Sequence[str],
    metric: str,
    last: int = 5,
    names: Sequence[str] | None = None,
    *,
    baseline: dict[str, Any] | None = None,
) -> Findings:
    """Returns what a table says of `metric`; `last` tasks are averaged over at the end, `names` are
    what arms are called, and `baseline` is as in `statistics.baseline_of`. Raises ValueError as
    `statistics.final` and `statistics.baseline_of`.
    """
    arms = statistics.arms(table, arm_columns)
    named = labels.named(labels.of_arms(arms.values), names)
    about = metrics.of_column(table, metric)
    probes = _probes(table, arm_columns, metric)
    changes: list[str] = []
    first: list[str] = []
    for name, rows in zip(named, arms.rows, strict=True):
        found = change(rows, metric)
        if found is None:
            continue
        changes.append(_changed(name, found, about))
        if found.told and _is_worse(found.mean, about):
            first += _moved(name, rows, metric, probes)
    if not changes:
        changes.append(f"With fewer than {FEWEST} tasks nothing is said of falls.")
    number = statistics.baseline_of(arms.values, baseline)
    return Findings(
        _ends(arms, named, number, about, last),
        changes,
        first,
        _diverged(named, arms.rows),
        _warnings(arms, named, about, last),
    )


def rules(tasks: int) -> str:
    """Returns the rules that findings of runs of so many tasks follow."""
    return RULES.format(window=_window(tasks))


def change(rows: Any, column: str) -> Change | None:
    """Returns how a column of one arm's rows changed; None for fewer than `FEWEST` measured tasks,
    or no seed that has them all.
    """
    wide = rows.pivot(index="task", columns="seed", values=column).dropna(how="all")
    wide = wide.dropna(axis="columns")
    if len(wide) < FEWEST or not wide.shape[1]:
        return None
    values = wide.to_numpy(np.float64)
    if not np.isfinite(values).all():
        return None
    if values.min() > 0 and values.max() > DECADES * values.min():
        values = np.log(values)
    window = _window(len(values))
    # [tasks - window + 1, seeds]: means over `window` tasks in a row, by the last of them
    means = np.lib.stride_tricks.sliding_window_view(values, window, axis=0).mean(axis=-1)
    start, end = means[0], means[-1]
    found = over_seeds.statistics(end - start)
    made = (means - start) * np.sign(end - start) >= 0.5 * np.abs(end - start)
    at = wide.index.to_numpy()[window - 1 :][made.argmax(axis=0)].astype(np.float64)
    whole = float(found.mean)
    at[np.sign(end - start) != np.sign(whole)] = np.nan
    steady = _is_line(wide.to_numpy(np.float64).mean(axis=1)) or _is_line(values.mean(axis=1))
    return Change(start, end, whole, float(found.t_low), float(found.t_high), at, steady)


def _is_line(course: np.ndarray) -> bool:
    """Whether a line of the task has nearly all of a course's variance."""
    if np.ptp(course) == 0:
        return False
    return bool(np.corrcoef(course, np.arange(len(course)))[0, 1] ** 2 > STEADY)


def _window(tasks: int) -> int:
    return max(1, min(WINDOW, tasks // 2))


def _probes(table: Any, arm_columns: Sequence[str], metric: str) -> dict[str, str]:
    """The words of columns that are measurements of their own, no scores or parts of others."""
    scores = metrics.of_table(table).scores
    found = {}
    for column in statistics.metric_columns(table, arm_columns):
        if "/" not in column and column not in scores and column != metric:
            label = metrics.of_column(table, column).label
            found[column] = label or column.replace("_", " ")
    return found


def _is_worse(difference: float, about: Metric) -> bool:
    return difference > 0 if about.better == "lower" else difference < 0


def _written(about: Metric, value: float, sign: str = "") -> str:
    """A value of a metric, or with a sign a difference, as words have it."""
    if about.share:
        return f"{100 * value:{sign}.1f} {'points' if sign else '%'}"
    return f"{value:{sign}.3g}"


def _changed(name: str, found: Change, about: Metric) -> str:
    """The sentence on one arm's change."""
    ends = f"from {_written(about, found.start.mean())} to {_written(about, found.end.mean())}"
    if len(found.start) == 1:
        return f"{name}: {ends} in its one seed, which says nothing of chance."
    scale = 100 if about.share else 1
    digits = ".1f" if about.share else ".3g"
    between = " to ".join(f"{scale * end:+{digits}}" for end in (found.low, found.high))
    by = f"{ends}, by {_written(about, found.mean, '+')} ({between})"
    if not found.told:
        return f"{name} neither falls nor rises for certain: {by}."
    verb = "falls" if _is_worse(found.mean, about) else "rises"
    known = found.half[np.isfinite(found.half)] + 1
    seeds = f"{len(known)} of {len(found.start)} seeds {verb.removesuffix('s')}"
    return f"{name} {verb} {by}: {seeds}, half of the way by task {_range(known)}."


def _range(values: np.ndarray) -> str:
    """The median of whole numbers, with the smallest and the largest where they differ."""
    middle = f"{np.median(values):g}"
    low, high = f"{values.min():g}", f"{values.max():g}"
    return middle if low == high else f"{middle} ({low} to {high})"


def _moved(name: str, rows: Any, metric: str, columns: Mapping[str, str]) -> list[str]:
    """The sentence on which measurements (their words by column) moved before an arm fell; none
    where nothing was measured.
    """
    leads: list[tuple[int, float, str, int]] = []
    drifting = []
    falls: dict[frozenset[int], Change | None] = {}
    measured = False
    for column, words in columns.items():
        found = change(rows, column)
        if found is None:
            continue
        # the score at the same tasks: of what is measured less often, means over as many values
        # reach back further and would move late
        tasks = frozenset(rows["task"][rows[column].notna()])
        if tasks not in falls:
            falls[tasks] = change(rows[rows["task"].isin(list(tasks))], metric)
        fall = falls[tasks]
        if fall is None or len(found.half) != len(fall.half):
            continue
        measured = True
        if not found.told:
            continue
        if found.steady:
            drifting.append(words)
            continue
        lead = fall.half - found.half
        lead = lead[np.isfinite(lead)]
        if len(lead) and np.median(lead) > 0:
            fell = int(np.isfinite(fall.half).sum())
            leads.append((int((lead > 0).sum()), float(np.median(lead)), words, fell))
    apart = f" Drifting steadily all along: {', '.join(drifting)}." if drifting else ""
    if not leads:
        return [f"Before {name} fell, nothing moved.{apart}"] if measured else []
    leads.sort(key=lambda one: one[:2], reverse=True)
    told = []
    for before, median, words, fell in leads[:TOLD]:
        word = "task" if median == 1 else "tasks"
        told.append(f"{words} in {before} of {fell} seeds (median {median:g} {word} earlier)")
    more = f"; and {len(leads) - TOLD} more" if len(leads) > TOLD else ""
    return [f"Before {name} fell, there moved: {', '.join(told)}{more}.{apart}"]


def _ends(
    arms: statistics.Arms, names: Sequence[str], number: int, about: Metric, last: int
) -> list[str]:
    """How arms compare at the end, each with the baseline, the arm of this number."""
    if len(names) == 1:
        return []
    found = statistics.differences(arms, number, about.name, last)
    tests = significance.tests(found, number)["p_holm"].to_numpy()
    told: dict[str, list[str]] = {"better": [], "worse": [], "": []}
    for arm, (row, p) in enumerate(zip(found.to_dict("records"), tests, strict=True)):
        if arm == number:
            continue
        known = np.isfinite(p) and p < significance.LEVEL
        which = ("worse" if _is_worse(row["mean"], about) else "better") if known else ""
        by = _written(about, row["mean"], "+") if row["count"] else "no common seed"
        chance = f", p {_p(p)}" if np.isfinite(p) else ""
        told[which].append(f"{names[arm]} ({by}{chance})")
    lines = []
    for which, words in (
        ("better", f"Better than {names[number]} at the end"),
        ("worse", f"Worse than {names[number]} at the end"),
        ("", f"Not told from {names[number]} at the end"),
    ):
        if told[which]:
            lines.append(f"{words}: {'; '.join(told[which])}.")
    return lines


def _p(p: float) -> str:
    text = tables.p_value(p)
    return text if text.startswith("<") else f"= {text}"


def _diverged(names: Sequence[str], groups: Sequence[Any]) -> list[str]:
    lines = []
    for name, rows in zip(names, groups, strict=True):
        lost = rows[~rows["finite"]].groupby("seed")["task"].min()
        if len(lost):
            each = ", ".join(f"seed {seed} from task {task + 1}" for seed, task in lost.items())
            lines.append(f"{name}: {len(lost)} of {rows['seed'].nunique()} seeds diverged: {each}.")
    return lines


def _warnings(arms: statistics.Arms, names: Sequence[str], about: Metric, last: int) -> list[str]:
    """What a reader of the numbers has to be careful about."""
    counts = [len(set(rows["seed"])) for rows in arms.rows]
    lines = _of_seeds(min(counts), max(counts))
    if len({frozenset(rows["seed"]) for rows in arms.rows}) > 1:
        lines.append("Arms have different seeds: a difference is over the seeds of both.")
    lengths: set[int] = set()
    for rows in arms.rows:
        lengths |= set(rows.groupby("seed").size())
    if len(lengths) > 1:
        lines.append(
            f"Lanes have {min(lengths)} to {max(lengths)} tasks: the end of one is not that of "
            "another."
        )
    if len(names) > 2:
        lines.append(
            f"Intervals are of one arm each, of {len(names)}; only the p values are corrected for "
            "their number."
        )
    equal: list[str] = []
    whole: Any = pd.concat(arms.rows)
    for name, rows in zip(names, arms.rows, strict=True):
        final: Any = rows[rows["task"] > rows["task"].max() - last]
        ends = set(final.groupby("seed")[about.name].mean())
        if len(set(rows["seed"])) > 1 and len(ends) == 1:
            equal.append(name)
    if equal:
        lines.append(
            f"All seeds end alike: {', '.join(equal)}; an interval without width says nothing "
            "there."
        )
    if not np.isfinite(whole[about.name]).all():
        lines.append("Values that are not finite are left out of every mean, and counted.")
    return lines


def _of_seeds(fewest: int, most: int) -> list[str]:
    """Warnings for so many seeds an arm."""
    if fewest == 1:
        return ["Some arms have one seed, which says nothing of chance: they have no interval."]
    seeds = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    if fewest < over_seeds.ENOUGH:
        return [
            f"With {seeds} seeds an arm the intervals are Student's, which hold the mean in 95 % "
            "of cases only if seeds are normally distributed; so few cannot show that they are, "
            "and scores near a limit are not. A bootstrap would be clearly too narrow."
        ]
    if fewest < SECURE:
        return [
            f"With {seeds} seeds an arm the bootstrap intervals are somewhat too narrow: they hold "
            "the mean in about 89 % of cases with 10 seeds and 92 % with 20, instead of 95 %."
        ]
    return []
