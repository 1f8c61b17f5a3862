"""The committed lane tables, their arms by short names, and what is read from them."""

import functools
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from plasticity_jax.reporting import metrics
from plasticity_jax.storage import table as table_

FOLDER = pathlib.Path(__file__).parents[1] / "results"
FLOOR = 1e-6  # of an eigenvalue under a logarithm: a dead network's may be 0 or a little below
LOGARITHMIC = ("hessian_top",)
Filters = Mapping[str, Any]
NONE = {"method": "none"}
Frame = Any  # pandas.DataFrame and .Series, of which the type checker knows too little
Series = Any


class Table(NamedTuple):
    """A lane table.

    Attributes:
      files: names in results/lanes without ending; rows of several are put together, but for what
        is not there yet.
      metric: what its figure shows.
      tasks: the window of the verdicts, first and last, counted from 1.
      arms: short name -> values of columns that pick the arm's rows.
    """

    files: tuple[str, ...]
    metric: str
    tasks: tuple[int, int]
    arms: Mapping[str, Filters]


def _by_method(gradual: Mapping[str, Filters], **usual: Any) -> dict[str, Filters]:
    abrupt = {"granularity": 1, **usual}
    names = {"l2": "l2", "sp": "shrink_and_perturb", "spectral": "spectral", "redo": "redo"}
    made: dict[str, Filters] = {"abrupt": {**NONE, **abrupt}}
    made |= {short: {"method": name, **abrupt} for short, name in names.items()}
    return made | {name: {**NONE, **usual, **filters} for name, filters in gradual.items()}


OUTPUT, SAMPLING, INPUT = ({"transition": name} for name in ("output", "sampling", "input"))
GRADUAL = {"granularity": 20}
FULL = {"epochs": 120, "random_labels.change": True}
STILL = {"random_labels.change": False}
GRANULARITIES = {f"K{k}": {"granularity": k} for k in (1, 2, 4, 10, 20, 40, 1600)}
WITH_CONTROLS = {
    **_by_method({"output": {**GRADUAL, **OUTPUT}, "sampling": {**GRADUAL, **SAMPLING}}, **FULL),
    "smoothing": {"transition": "smoothing"},
    "transition": {"epochs": 80},
    "stable": {"epochs": 40},
    "still": {**STILL, "granularity": 1},
    "still_gradual": {**STILL, "granularity": 20},
}
CIPHER = {f"K{k}": {"granularity": k} for k in (1, 2, 4, 10, 20)}

WITHOUT = {  # a method
    "abrupt": {"granularity": 1, **NONE},
    "output": {**GRADUAL, **OUTPUT},
    "sampling": {**GRADUAL, **SAMPLING},
}

TABLES = {
    "paper gpu": Table(
        ("figure_1a_paper_gpu",),
        "online_accuracy",
        (26, 30),
        WITHOUT,
    ),
    "paper new": Table(
        ("figure_1a_paper_new_seeds",),
        "online_accuracy",
        (46, 50),
        WITHOUT,
    ),
    "paper": Table(
        ("figure_1a_paper", "figure_1a_paper_methods"),
        "online_accuracy",
        (46, 50),
        {
            **WITHOUT,
            "l2": {"method": "l2"},
            "spectral": {"method": "spectral"},
        },
    ),
    "1a": Table(("figure_1a",), "online_accuracy", (46, 50), WITH_CONTROLS),
    "1a norm": Table(("figure_1a_norm",), "online_accuracy", (46, 50), WITH_CONTROLS),
    "80": Table(("figure_5a_80_epochs",), "online_accuracy", (46, 50), {"abrupt": {}}),
    "5a": Table(("figure_5a", "figure_5a_finest"), "online_accuracy", (46, 50), GRANULARITIES),
    "5a dormancy": Table(("figure_5a_dormancy",), "online_accuracy", (46, 50), GRANULARITIES),
    "foretelling": Table(
        ("foretelling",),
        "online_accuracy",
        (46, 50),
        {
            **{k: {**filters, **OUTPUT} for k, filters in GRANULARITIES.items()},
            **{kind: {"transition": kind} for kind in ("sampling", "smoothing", "annealing")},
        },
    ),
    "demo": Table(
        ("demo",),
        "online_accuracy",
        (26, 30),
        {"abrupt": {"granularity": 1}, "K4": {"granularity": 4}, "K20": {"granularity": 20}},
    ),
    "selected": Table(
        ("figure_1a_selected",),
        "online_accuracy",
        (21, 25),
        {
            "abrupt": {**NONE, "granularity": 1},
            "output": GRADUAL,
            "l2": {"method": "l2"},
            "sp": {"method": "shrink_and_perturb"},
        },
    ),
    "1b": Table(
        ("figure_1b",),
        "online_accuracy",
        (2, 6),
        _by_method({"output": {**GRADUAL, **OUTPUT}, "sampling": {**GRADUAL, **SAMPLING}}),
    ),
    "1c": Table(
        ("figure_1c",),
        "online_accuracy",
        (2, 2),
        _by_method(
            {"output": {"granularity": 4, **OUTPUT}, "sampling": {"granularity": 4, **SAMPLING}}
        ),
    ),
    "2": Table(("figure_2",), "bleu2", (6, 10), _by_method({"sampling": GRADUAL})),
    "2 selected": Table(
        ("figure_2_selected",), "bleu2", (6, 10), _by_method({"sampling": GRADUAL})
    ),
    "tuning": Table(
        ("momentum_tuning",),
        "online_accuracy",
        (1, 5),
        {
            "large": {"learning_rate": 0.1},
            "middle": {"learning_rate": 0.01},
            "small": {"learning_rate": 0.001},
        },
    ),
    "2 redo": Table(("figure_2_redo",), "bleu2", (6, 10), _by_method({"sampling": GRADUAL})),
    "4 redo": Table(("figure_4_redo",), "test_bleu2", (26, 30), _by_method({"sampling": GRADUAL})),
    "2 controls": Table(
        ("figure_2_controls",),
        "bleu2",
        (6, 10),
        {
            "abrupt": {"granularity": 1, "epochs": 120, "random_seq2seq.change": True},
            "sampling": {"granularity": 20, "epochs": 120, "random_seq2seq.change": True},
            "transition": {"epochs": 80},
            "stable": {"epochs": 40},
            "still": {"random_seq2seq.change": False, "granularity": 1},
            "still_gradual": {"random_seq2seq.change": False, "granularity": 20},
        },
    ),
    "3": Table(
        ("figure_3",),
        "test_accuracy",
        (26, 30),
        _by_method({"input": {**GRADUAL, **INPUT}, "sampling": {**GRADUAL, **SAMPLING}}),
    ),
    "4": Table(("figure_4",), "test_bleu2", (26, 30), _by_method({"sampling": GRADUAL})),
    "5b": Table(("figure_5b",), "test_bleu2", (26, 30), CIPHER),
}


@functools.cache
def is_share(metric: str) -> bool:
    """Returns whether a metric is a share of 1, to be shown in percent."""
    return metrics.of_column(pd.DataFrame(), metric).share


def there(name: str) -> bool:
    """Returns whether the run of a table is finished and reported."""
    return (FOLDER / "lanes" / f"{TABLES[name].files[0]}.parquet").exists()


@functools.cache
def lanes(name: str) -> Frame:
    """Returns the rows of a table, with `task` counted from 1. Raises OSError if a file is
    missing.
    """
    first, *more = (FOLDER / "lanes" / f"{file}.parquet" for file in TABLES[name].files)
    frames = [table_.read(path) for path in (first, *filter(pathlib.Path.exists, more))]
    whole = pd.concat(frames, ignore_index=True)
    return whole.assign(task=whole["task"] + 1)


def has(name: str, which: str) -> bool:
    """Returns whether a table has rows of an arm; those of a run that is not finished come
    later.
    """
    try:
        arm(name, which)
    except ValueError:
        return False
    return True


@functools.cache
def arm(name: str, which: str) -> Frame:
    """Returns an arm's rows. Raises ValueError for an unknown arm, or if a seed has a task twice or
    there are none.
    """
    table, rows = TABLES[name], lanes(name)
    if which not in table.arms:
        raise ValueError(f"arm is {which!r}: table {name!r} has {', '.join(table.arms)}.")
    for column, value in table.arms[which].items():
        rows = rows[rows[column] == value]
    if rows.empty or rows.duplicated(["seed", "task"]).any():
        raise ValueError(
            f"arm {which!r} of table {name!r} is {len(rows)} rows, not one a seed and task."
        )
    return rows


@functools.cache
def per_seed(
    name: str, which: str, metric: str = "", tasks: tuple[int, int] | None = None
) -> Series:
    """Returns an arm's mean over a window of tasks by seed, over those where it has a value.

    Eigenvalues are averaged as logarithms (base 10), and stay so: differences are ratios.
    """
    metric, (first, last) = metric or TABLES[name].metric, tasks or TABLES[name].tasks
    rows = arm(name, which)
    rows = rows[rows["task"].between(first, last)]
    if rows["task"].nunique() != last - first + 1:
        raise ValueError(f"tasks {first} to {last} are not all in arm {which!r} of table {name!r}.")
    value = rows[metric].astype(np.float64)
    value = value.where(np.isfinite(value))
    if metric in LOGARITHMIC:
        value = np.log10(value.clip(lower=FLOOR))
    return value.groupby(rows["seed"]).mean()
