"""One panel of a figure: a column of a table against the task, a line and a band for each arm."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from plasticity_jax.types import Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BANDS = {
    "minmax": "minimum to maximum",
    "sem": "mean ± one standard error",
    "ci": "95 % percentile-bootstrap interval of the mean",
    "t": "95 % interval of the mean by Student's t",
}
"""Bands over seeds, in words."""

# columns of the summary that are a band's edges; a standard error is around the mean
_EDGES = {"minmax": ("minimum", "maximum"), "ci": ("low", "high"), "t": ("t_low", "t_high")}

# Colours that stay apart for colour-blind readers (Okabe and Ito 2008), without the yellow that is
# faint on white.
COLOURS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = ("", "o", "s", "^", "D", "v", "P", "X")  # one more for each time round the colours
_DASHED = (0, (4, 1.6))
GREY = "#555555"
_DECADES = 100  # an axis whose means span more than this factor is logarithmic
_TINY = 1e-6  # of values, what is rounding
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

    Arms that differ in granularity alone get one ramp of colour; abrupt arms are dashed where there
    are others. How many seeds diverged is told in the label.
    """
    columns = list(arm_columns)
    numbers = ends[columns].assign(number=range(len(ends)))
    numbered = summary.merge(numbers, on=columns) if columns else summary.assign(number=0)
    made = []
    for number, look in enumerate(_looks(ends, columns)):
        rows = numbered[numbered["number"] == number]
        diverged, seeds = (ends[name].to_numpy()[number] for name in ("diverged", "seeds"))
        label = str(labels[number])
        if diverged:
            label += f"\n({diverged} of {seeds} seeds diverged)"
        made.append(Line(label, rows, look))
    return made


def _looks(ends: pd.DataFrame, columns: list[str]) -> list[dict[str, Any]]:
    """Colour, marker and dashes of each arm."""
    granularity = np.full(len(ends), np.nan)
    if "granularity" in columns:
        granularity = ends["granularity"].to_numpy(float)
    varying = [column for column in columns if len(ends[column].drop_duplicates()) > 1]
    abrupt = granularity == 1
    looks = []
    for number in range(len(ends)):
        times_round, colour = divmod(number, len(COLOURS))
        look: dict[str, Any] = {
            "color": COLOURS[colour],
            "marker": _MARKERS[times_round % len(_MARKERS)],
        }
        if varying == ["granularity"]:
            look = {"color": ramp(granularity, number), "marker": ""}
        look["linestyle"] = _DASHED if abrupt[number] and not abrupt.all() else "-"
        looks.append(look)
    return looks


def ramp(granularity: np.ndarray, number: int) -> Any:
    """Returns the colour of one granularity among all: abrupt is black, then from light (coarse) to
    dark (fine).
    """
    import matplotlib

    if granularity[number] == 1:
        return "#000000"
    finer = np.unique(granularity[granularity != 1])
    place = 0.5
    if len(finer) > 1:
        place = np.searchsorted(finer, granularity[number]) / (len(finer) - 1)
    return matplotlib.colormaps["viridis"](0.78 - 0.63 * place)


def draw(axes: "Axes", metric: Metric, arms: Sequence[Line], band: str, tasks: int) -> None:
    """Draws one column of every arm into `axes`, over as many tasks."""
    from matplotlib.ticker import MaxNLocator

    drawn = []
    for order, arm in enumerate(arms):
        rows = arm.rows[(arm.rows["metric"] == metric.name) & (arm.rows["count"] > 0)]
        drawn.append(rows)
        task = rows["task"].to_numpy() + 1
        look = arm.look | _marks(arm.look["marker"], len(rows), tasks)
        axes.plot(task, rows["mean"].to_numpy(), label=arm.label, zorder=3 + order / 100, **look)
        several = (rows["count"] > 1).to_numpy()
        if several.any():
            low, high = _edges(rows, band)
            style = {"color": look["color"], "alpha": 0.14, "linewidth": 0, "zorder": 2}
            axes.fill_between(task, low, high, where=several.tolist(), **style)
    axes.set_xlabel("task")
    axes.set_ylabel(metric.label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7, steps=[1, 2, 5, 10]))
    if tasks > 1:
        axes.set_xlim(1, tasks)
    else:
        axes.set_xlim(0.5, 1.5)
    _value_axis(axes, metric.share, pd.concat(drawn))


def _marks(marker: str, points: int, tasks: int) -> dict[str, Any]:
    """How points are marked: of arms that have a marker, and where a line has gaps or is a point."""
    gaps = points < tasks - 1 or tasks == 1
    if not points or not (marker or gaps):
        return {}
    return {"marker": marker or "o", "markersize": 3, "markevery": max(1, points // _MARKED)}


def _edges(rows: Any, band: str) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper edge of the band."""
    if band == "sem":
        mean, error = rows["mean"].to_numpy(), rows["standard_error"].to_numpy()
        return mean - error, mean + error
    low, high = _EDGES[band]
    return rows[low].to_numpy(), rows[high].to_numpy()


def _value_axis(axes: "Axes", share: bool, drawn: pd.DataFrame) -> None:
    """Scale, limits and ticks of the axis of values, of which rows of the summary are `drawn`."""
    from matplotlib.ticker import PercentFormatter

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
    if low > 0 and means.max() > _DECADES * means.min():
        axes.set_yscale("log")
        # a standard error may reach below zero, where a log scale has no end
        axes.set_ylim(bottom=low / 1.2)
    elif high - low <= _TINY * max(abs(low), abs(high)):
        # constant but for rounding, which is not to fill the axis
        around = 0.05 * abs(high) or 0.05
        axes.set_ylim(low - around, high + around)
    if share and low >= 0 and high <= 1:
        _limit_to_shares(axes)


def _limit_to_shares(axes: "Axes") -> None:
    """No more than 0 to 1 is shown, with room for a line at either."""
    bottom, top = axes.get_ylim()
    edge = 0.03 * (min(top, 1) - max(bottom, 0))
    limits = max(bottom, -edge), min(top, 1 + edge)
    axes.set_ylim(limits)
    axes.set_yticks([tick for tick in axes.get_yticks() if -1e-9 <= tick <= 1 + 1e-9])
    axes.set_ylim(limits)  # (ticks widen them)
