"""One panel of a figure: a column of a table against the task, a line and a band for each arm."""

import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from plasticity_jax.reporting import looks
from plasticity_jax.types import Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.ticker import MaxNLocator

BANDS = {
    "minmax": "minimum to maximum",
    "sem": "mean ± one standard error",
    "ci": "95 % percentile-bootstrap interval of the mean",
    "t": "95 % interval of the mean by Student's t",
}
"""Bands over seeds, in words."""

# columns of the summary that are a band's edges; a standard error is around the mean
_EDGES = {"minmax": ("minimum", "maximum"), "ci": ("low", "high"), "t": ("t_low", "t_high")}

GREY = "#555555"
DECADES = 100  # an axis whose means span more than this factor is logarithmic
_TINY = 1e-6  # of values, what is rounding
_MANY = 20  # points of bands, of which a few may be called outliers
_OUTLIERS = 0.05  # share of them at either end
_FLATTENED = 3  # times what the rest needs
_LONGER = 0.25  # share by which an axis may be longer to show the value of guessing
_MARKED = 25  # points of a line that are marked at most


class Line(NamedTuple):
    """An arm in every panel.

    Attributes:
      label: in the legend.
      rows: of the summary (`statistics.summary`).
      look: keywords of `Axes.plot`.
    """

    label: str
    rows: Any
    look: dict[str, Any]


def lines(
    summary: pd.DataFrame, ends: pd.DataFrame, labels: pd.Series, arm_columns: Sequence[str]
) -> list[Line]:
    """Returns each arm's line; `ends` and `labels` have one row per arm.

    How they look is said in `looks`. How many seeds diverged, and from which task on, is told in
    the label.
    """
    columns = list(arm_columns)
    numbers = ends[columns].assign(number=range(len(ends)))
    numbered = summary.merge(numbers, on=columns) if columns else summary.assign(number=0)
    made = []
    for number, look in enumerate(looks.of_arms(ends[columns])):
        rows = numbered[numbered["number"] == number]
        diverged, seeds = (ends[name].to_numpy()[number] for name in ("diverged", "seeds"))
        label = str(labels[number])
        if diverged:
            first = rows.loc[rows["diverged"] > 0, "task"].min() + 1
            label += f"\n({diverged} of {seeds} seeds diverged, from task {first:g})"
        made.append(Line(label, rows, look))
    return made


def gaps(arms: Sequence[Line], metrics: Iterable[Metric]) -> str:
    """Returns a sentence on what some seeds that did not diverge lack where others have it, and
    from which task on; "" if there is nothing.
    """
    found = []
    for metric in metrics:
        tasks = []
        for arm in arms:
            rows = arm.rows[(arm.rows["metric"] == metric.name) & (arm.rows["count"] > 0)]
            tasks += rows.loc[rows["count"] + rows["diverged"] < rows["seeds"], "task"].to_list()
        if tasks:
            found.append(f"{metric.label} (from task {min(tasks) + 1})")
    return f"Some seeds have no value of: {', '.join(found)}." if found else ""


CHARACTERS = 30  # of an axis's name in a line, which a small panel is high enough for
_NONE = ("", "None", None)  # of matplotlib's markers


def draw(
    axes: "Axes",
    metric: Metric,
    arms: Sequence[Line],
    band: str,
    tasks: int,
    chance: float | None = None,
) -> None:
    """Draws one column of every arm into `axes`, over as many tasks; `chance` is as in
    `fit_values`.
    """
    drawn, bands = [], []
    for order, arm in enumerate(arms):
        rows = arm.rows[(arm.rows["metric"] == metric.name) & (arm.rows["count"] > 0)]
        drawn.append(rows)
        task = rows["task"].to_numpy() + 1
        look = arm.look | _marks(arm.look["marker"], task)
        axes.plot(task, rows["mean"].to_numpy(), label=arm.label, zorder=3 + order / 100, **look)
        several = (rows["count"] > 1).to_numpy()
        if several.any():
            low, high = edges(rows, band)
            style = {"color": look["color"], "alpha": 0.14, "linewidth": 0, "zorder": 2}
            axes.fill_between(task, low, high, where=several.tolist(), **style)
            bands.append(np.stack([low, high])[:, several])
    axes.set_xlabel("task")
    axes.set_ylabel(textwrap.fill(metric.label, CHARACTERS))
    axes.xaxis.set_major_locator(whole_ticks())
    if tasks > 1:
        # (a point at an end is whole)
        marked = any(line.get_marker() not in _NONE for line in axes.lines)
        room = 0.015 * (tasks - 1) if marked else 0
        axes.set_xlim(1 - room, tasks + room)
    else:
        axes.set_xlim(0.5, 1.5)
    fit_values(axes, metric, pd.concat(drawn), np.hstack(bands) if bands else None, chance)


def fit_values(
    axes: "Axes",
    metric: Metric,
    drawn: pd.DataFrame,
    bands: np.ndarray | None,
    chance: float | None = None,
) -> None:
    """Gives an axis of values its scale, ends and ticks; `drawn` are the rows of the summary whose
    lines are in `axes`, and `bands` [2, points] the edges of their bands. The axis reaches to
    `chance`, the value of guessing, where that makes it a quarter longer at most.
    """
    if chance is not None and len(drawn):
        low, high = float(np.min(drawn["minimum"])), float(np.max(drawn["maximum"]))
        if low - _LONGER * (high - low) <= chance <= high + _LONGER * (high - low):
            axes.update_datalim([(1, chance)], updatex=False)
            axes.autoscale_view(scalex=False)
    _value_axis(axes, metric.share, drawn)
    if bands is not None:
        _leave_out_outliers(axes, drawn["mean"].to_numpy(), bands)
    _not_below_zero(axes, drawn["minimum"].to_numpy())


def whole_ticks() -> "MaxNLocator":
    """Returns what chooses the ticks of an axis of tasks."""
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(integer=True, nbins=7, steps=[1, 2, 5, 10])


def _marks(marker: str, tasks: np.ndarray) -> dict[str, Any]:
    """How points are marked: of arms that have a marker, and where a line has gaps or is a point.

    A line that ends early, as a diverged arm's, is only shorter.
    """
    if not len(tasks):
        return {}
    gaps = len(tasks) == 1 or len(tasks) < tasks[-1] - tasks[0] + 1
    if not (marker or gaps):
        return {}
    return {"marker": marker or "o", "markersize": 3, "markevery": max(1, len(tasks) // _MARKED)}


def edges(rows: Any, band: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the lower and the upper edge of a band over rows of the summary."""
    if band == "sem":
        mean, error = rows["mean"].to_numpy(), rows["standard_error"].to_numpy()
        return mean - error, mean + error
    low, high = _EDGES[band]
    return rows[low].to_numpy(), rows[high].to_numpy()


def _value_axis(axes: "Axes", share: bool, drawn: pd.DataFrame) -> None:
    """Scale, limits and ticks of the axis of values, of which rows of the summary are `drawn`."""
    from matplotlib.ticker import FuncFormatter, PercentFormatter

    if drawn.empty:
        middle = {"ha": "center", "va": "center", "transform": axes.transAxes, "color": GREY}
        axes.text(0.5, 0.5, "nothing measured", **middle)
        axes.set_yticks([])
        return
    lows, means, highs = drawn[["minimum", "mean", "maximum"]].to_numpy(np.float64).T
    low, high = lows.min(), highs.max()
    axes.ticklabel_format(axis="y", useOffset=False)
    if share:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    if low > 0 and means.max() > DECADES * means.min():
        axes.set_yscale("log")
        if share:
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}%"))
        # a standard error may reach below zero, where a log scale has no end
        axes.set_ylim(bottom=low / 1.2)
    elif high - low <= _TINY * max(abs(low), abs(high)):
        # constant but for rounding, which is not to fill the axis
        around = 0.05 * abs(high) or 0.05
        axes.set_ylim(low - around, high + around)
    if share and low >= 0 and high <= 1:
        _limit_to_shares(axes)


def _leave_out_outliers(axes: "Axes", means: np.ndarray, bands: np.ndarray) -> None:
    """An axis that a few points of a band alone would flatten ends at what all lines and most of
    the bands [2, points] need.
    """
    limits = without_outliers(means, bands, axes.get_yscale() == "log")
    if limits is not None:
        axes.set_ylim(*limits)


def without_outliers(
    means: np.ndarray, bands: np.ndarray, logarithmic: bool
) -> tuple[float, float] | None:
    """Returns the ends of an axis that shows all lines and most of the bands [2, points]; None
    where it needs no other ends than those of everything.
    """
    bands = bands[:, (bands > 0).all(axis=0)] if logarithmic else bands
    if bands.shape[1] < _MANY:
        return None
    scaled = np.log if logarithmic else np.asarray
    edges, lines = scaled(bands), scaled(means)
    low = min(lines.min(), np.quantile(edges[0], _OUTLIERS))
    high = max(lines.max(), np.quantile(edges[1], 1 - _OUTLIERS))
    if high <= low or max(edges[1].max() - edges[0].min(), 0) < _FLATTENED * (high - low):
        return None
    room = 0.1 * (high - low)
    limits = np.array([low - room, high + room])
    bottom, top = (np.exp(limits) if logarithmic else limits).tolist()
    return bottom, top


def _not_below_zero(axes: "Axes", values: np.ndarray) -> None:
    """An axis of what is never negative, such as a count, ends a little below 0, whatever a band
    says.
    """
    bottom, top = axes.get_ylim()
    if len(values) and values.min() >= 0 and bottom < 0 < top:
        axes.set_ylim(bottom=max(bottom, -0.05 * top))


def _limit_to_shares(axes: "Axes") -> None:
    """No more than 0 to 1 is shown, with room for a line at either."""
    bottom, top = axes.get_ylim()
    edge = 0.03 * (min(top, 1) - max(bottom, 0))
    limits = max(bottom, -edge), min(top, 1 + edge)
    axes.set_ylim(limits)
    axes.set_yticks([tick for tick in axes.get_yticks() if -1e-9 <= tick <= 1 + 1e-9])
    axes.set_ylim(limits)  # (ticks widen them)
