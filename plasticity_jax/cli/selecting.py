"""The best configuration of each arm of a finished run, as the text of the flags that give it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from plasticity_jax.cli import flags
from plasticity_jax.methods import METHODS
from plasticity_jax.reporting import labels, metrics, statistics


def scored(table: Any, columns: Sequence[str], metric: str, arms: Callable[[Any], Any]) -> Any:
    """Returns one row for each configuration: `arm`, its settings, the mean of the metric over all
    tasks and seeds with its statistics, `known` (every seed has a value) and `chosen`.

    `arms` makes the arm of each row. Of an arm the configuration with the best mean is chosen; one
    with a lane that diverged without a value at the end is not.
    """
    tasks = int(table["task"].max()) + 1
    scores = statistics.final(table, columns, metric=metric, last=tasks)
    scores.insert(0, "arm", arms(scores))
    scores["known"] = scores["count"] == scores["seeds"]
    lower = metrics.of_column(table, metric).better == "lower"
    best = _best(scores[scores["known"]], np.argmin if lower else np.argmax)
    scores["chosen"] = scores.index.isin(list(best.values()))
    return scores


def chosen(scores: Any, values: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Returns {arm: {flag: text}} of what was chosen: the learning rate and all settings of an
    arm's methods, those that `values` (the flags) have for every configuration as well.
    """
    best = {str(scores.loc[row, "arm"]): row for row in scores.index[scores["chosen"]]}
    order = [str(arm) for arm in scores["arm"].drop_duplicates()]
    return {arm: _tuned(scores.loc[best[arm]], values) for arm in order if arm in best}


def told(selected: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Returns a line for each arm."""
    lines = ["", "chosen by the mean over all tasks and tuning seeds:"]
    for arm, settings in selected.items():
        lines.append(f"{arm}: {', '.join(f'{name} {text}' for name, text in settings.items())}")
    return lines


def by_label(columns: Sequence[str]) -> Callable[[Any], Any]:
    """Returns what makes the arm of each row of scores: its label by all columns that are not
    chosen among, which are the learning rate and methods' own settings.
    """
    apart = [name for name in columns if not is_tuned(name)]
    return lambda scores: labels.of_rows(scores, apart)


def is_tuned(name: str) -> bool:
    """Returns whether a setting is one that is chosen among, not one that tells arms apart."""
    return name == "learning_rate" or name.partition(".")[0] in METHODS


def _best(scores: Any, position: Callable[[Any], Any]) -> dict[str, Any]:
    """{arm: the index of its best row}; `position` finds the place of the best mean."""
    return {
        str(arm): rows.index[int(position(rows["mean"]))]
        for arm, rows in scores.groupby("arm", sort=False)
    }


def _tuned(row: Any, values: Mapping[str, Any]) -> dict[str, str]:
    """The learning rate and the methods' settings of a configuration, as text of their flags."""
    parts = ("learning_rate", *row["method"].split("+"))
    texts = {}
    for flag in ("learning_rate", *flags.part_settings()):
        if flag.partition(".")[0] not in parts:
            continue
        text = values.get(flag) if _empty(row.get(flag)) else _text(row[flag])
        if text is not None:
            texts[flag] = text
    return texts


def _text(value: Any) -> str:
    """A setting as its flag is written; whole numbers may have become fractions in a column with
    gaps.
    """
    if isinstance(value, bool | np.bool_):
        return str(value).lower()
    if isinstance(value, str):
        return value
    # (as precise as a lane is)
    return str(int(value)) if float(value).is_integer() else str(np.float32(value))


def _empty(value: Any) -> bool:
    return value != value or value is None
