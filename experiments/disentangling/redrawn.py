"""Makes tables and pictures again from the lanes kept in results/lanes.

Command: python -m experiments.disentangling.redrawn
Writes factorial_NAME.csv, factorial_NAME_cells.csv and factorial_NAME.png into
experiments/disentangling/results, and what stands between the marks of README.md beside it: the
factorials' tables, the arms of figures, the claims, and the tables of where an agent acts.
"""

import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments import accounts, figures, redrawing
from experiments import presence as effects
from experiments.disentangling import claims, factorial, ordering, presence, rewards, streams
from plasticity_jax.reporting import curves
from plasticity_jax.storage import table as table_
from plasticity_jax.storage import writing

HERE = Path(__file__).parent
RESULTS = HERE / "results"
LANES = RESULTS / "lanes"
README = HERE / "README.md"


class Kept(NamedTuple):
    """A factorial of which the lanes are kept.

    Attributes:
      stream: its stream.
      title: of its picture.
      last: tasks of the outcome.
    """

    stream: str
    title: str
    last: int = 5


KEPT = {
    "labels": Kept("labels", "labels"),
    "labels_scale_invariant": Kept("labels_scale_invariant", "labels, scale-invariant output"),
    "offset": Kept("offset", "offset"),
    "composite": Kept("composite", "composite"),
    "continual": Kept("continual", "continual: inputs and labels change"),
    "gradual": Kept("labels", "labels, abrupt and gradual"),
}

ARMS = {
    "figure_4": "Figure 4: each intervention alone, MLP on MNIST",
    "figure_4_cnn_digits": "Figure 4: each intervention alone, CNN on digits",
    "figure_4_resnet_digits": "Figure 4: each intervention alone, ResNet-18 on digits",
    "figure_25_resnet_digits": "Figure 25: axes of a norm, ResNet-18 on digits",
}
"""Titles of the figures whose arms come from several runs, and are too many for curves."""
COURSES = {
    "figure_1a_zero": "Figure 1a: the mean of targets is 0 from the second task on, MLP on MNIST",
    "figure_5b_mnist": "Figure 5: inputs and labels change, MLP on MNIST",
}
"""Titles of figures that are drawn as curves from their lanes alone."""
MEASURED = ("online_accuracy", "accuracy", "parameter_norm", "dormant_fraction")


def there() -> list[str]:
    """Returns the names of those whose lanes are there."""
    return [name for name in KEPT if lanes(name).is_file()]


def lanes(name: str) -> Path:
    """Returns where the lanes of a factorial are kept."""
    return LANES / f"factorial_{name}.parquet"


def cells(name: str) -> Any:
    """Returns `factorial.outcomes` of the lanes that are kept."""
    metric = streams.STREAMS[KEPT[name].stream].metric
    return factorial.outcomes(table_.read(lanes(name)), metric, KEPT[name].last)


def block(name: str) -> str:
    """Returns what README.md says of a factorial: effects, cells and verdicts."""
    metric = streams.STREAMS[KEPT[name].stream].metric
    share, last = metric != streams.ERROR, KEPT[name].last
    own = cells(name)
    found = factorial.effects(own)
    unit, scale = ("points", 100) if share else ("decades of squared error", 1)
    lines = [f"| effect | {unit} (95 %) |", "|---|---|"]
    for row in found.itertuples():
        lines.append(f"| {row.effect} | {_told(row, scale, '+')} |")
    unit = "%" if share else "-log10 of squared error"
    lines += ["", f"| cell | last {last} tasks, {unit} | best {last} in a row |", "|---|---|---|"]
    for row in factorial.summary(own).itertuples():
        peak = float(f"{row.peak}")  # (of pandas' record, whose types no checker knows)
        best = f"{peak * scale:.{accounts.digits_of(scale)}f}"
        lines.append(f"| {row.cell} | {_told(row, scale, '')} | {best} |")
    ceiling = factorial.CEILING if share else None
    lines += ["", *(f"- {one}" for one in factorial.verdicts(own, found, ceiling))]
    bare = presence.bare(table_.read(lanes(name)))
    lines.append(f"- {effects.told(KEPT[name].stream, effects.fallen(bare, metric, last))}")
    return "\n".join(lines)


def _told(row: Any, scale: int, sign: str) -> str:
    found = float(row.mean), float(row.low), float(row.high)
    return accounts.told(found, scale, sign)


def blocks() -> dict[str, str]:
    """Returns what stands in README.md after each mark, by the mark."""
    made = {f"factorial: {name}": block(name) for name in there()}
    for name in accounts.there(claims.KEPT, LANES):
        made[f"arms: {name}"] = accounts.rows_of_arms(name, claims.KEPT[name], LANES)
    others = {
        "units": ("figure_2b_cifar10", claims.rows_of_units),
        "shares": ("figure_1b", claims.rows_of_shares),
        "shares: cifar10": ("figure_1b_cifar10", claims.rows_of_shares),
    }
    for mark, (name, rows) in others.items():
        if accounts.there([name], LANES):
            made[mark] = rows(table_.read(LANES / f"{name}.parquet"))
    made["claims"] = accounts.rows_of_claims(claims.CLAIMS, claims.KEPT, LANES)
    made["claims: bandit"] = accounts.rows_of_claims(ordering.CLAIMS, {}, LANES)
    return {**made, **rewards.blocks()}


def filled(text: str) -> str:
    """Returns the text of README.md with its tables."""
    return accounts.filled(text, blocks())


def draw(name: str, folder: Path = RESULTS, *, picture: bool = True) -> Path:
    """Writes the tables of a figure of several runs, and unless told not to the picture of where
    its arms ended; returns the path of the final table.
    """
    table, kept = table_.read(LANES / f"{name}.parquet"), claims.KEPT[name]
    columns = accounts.differing(table)
    course = figures.drawn(table, columns, kept.metric)
    writing.text(folder / f"{name}.csv", course.to_csv(index=False))
    if picture:
        drawn = picture_of_ends(accounts.reached(table, kept), ARMS[name], kept.window)
        curves.store_figure(drawn, folder / f"{name}.png")
    return redrawing.store(table, columns, MEASURED, folder / name)


def picture_of_ends(arms: list[accounts.Reached], title: str, window: int) -> Any:
    """Returns a matplotlib figure with an arm a row, the worst below: where it ended, with its
    interval over seeds, its first task and the best in between.
    """
    from matplotlib.figure import Figure

    arms = sorted(arms, key=lambda one: one.end.mean())
    place = np.arange(len(arms))
    figure = Figure(figsize=(8, 1.5 + 0.24 * len(arms)), layout="constrained")
    axes = figure.subplots()
    mean, low, high = 100 * np.array([accounts.interval(one.end) for one in arms]).T
    axes.errorbar(mean, place, xerr=[mean - low, high - mean], fmt="o", capsize=3, label="end")
    for mark, label in (("|", "best"), ("x", "first")):
        values = [100 * getattr(one, label).mean() for one in arms]
        axes.plot(values, place, mark, color="0.4", markersize=8, label=label)
    axes.set_yticks(place, [one.label for one in arms])
    axes.set_xlim(0, 103)
    axes.set_xlabel("online accuracy, %")
    axes.grid(axis="x", color="0.9")
    figure.suptitle(title)
    said = {
        "end": f"last {window} tasks, 95 % interval",
        "best": f"best {window} tasks in a row",
        "first": "first task",
    }
    handles, labels = axes.get_legend_handles_labels()
    words = [said[label] for label in labels]
    figure.legend(handles, words, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return figure


def main() -> int:
    """Writes everything; returns the exit code."""
    for name in there():
        metric = streams.STREAMS[KEPT[name].stream].metric
        own = cells(name)
        found = factorial.effects(own)
        writing.text(RESULTS / f"factorial_{name}.csv", found.round(6).to_csv(index=False))
        summary = factorial.summary(own).round(6)
        writing.text(RESULTS / f"factorial_{name}_cells.csv", summary.to_csv(index=False))
        path = RESULTS / f"factorial_{name}.png"
        outcome = factorial.outcome_label(metric, KEPT[name].last)
        factorial.picture(own, found, f"Stream: {KEPT[name].title}", outcome, path)
    for name in accounts.there(ARMS, LANES):
        draw(name)
    for name in accounts.there(COURSES, LANES):
        table = table_.read(LANES / f"{name}.parquet")
        metrics = (claims.KEPT[name].metric, "ntk", *MEASURED)
        columns = accounts.differing(table)
        redrawing.store(table, columns, metrics, RESULTS / name, COURSES[name])
    writing.text(README, filled(README.read_text(encoding="utf-8")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
