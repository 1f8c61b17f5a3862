"""Figures of a run: the metric and every probe against the task, one line per arm, a band over
seeds.

matplotlib is imported where it is used, never through pyplot, so nothing of its global state
changes.
"""

import contextlib
import io
import math
import os
import pathlib
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from plasticity_jax import registry
from plasticity_jax.reporting import metrics, over_seeds, statistics
from plasticity_jax.types import Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BESIDE = 12  # arms whose legend still fits beside the panel
BANDS = {
    "minmax": "minimum to maximum",
    "sem": "mean ± one standard error",
    "ci": "95 % percentile-bootstrap interval of the mean",
    "t": "95 % interval of the mean by Student's t",
}
"""Bands over seeds, in words."""


# Colours that stay apart for colour-blind readers (Okabe and Ito 2008), without the yellow that is
# faint on white.
_COLOURS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = ("", "o", "s", "^", "D", "v", "P", "X")  # one more for each time round the colours
_GREY = "#555555"
_STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _GREY,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "xtick.color": _GREY,
    "ytick.color": _GREY,
    "xtick.labelcolor": "black",
    "ytick.labelcolor": "black",
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "lines.linewidth": 1.6,
    "svg.hashsalt": "plasticity_jax",  # otherwise the names inside an SVG are random
    "savefig.dpi": 200,
}


@contextlib.contextmanager
def _style() -> Iterator[None]:
    """The same look whatever the user's matplotlib settings are, which come back afterwards."""
    import matplotlib.style

    with matplotlib.style.context(["default", _STYLE]):
        yield


def curves(
    table: pd.DataFrame,
    arm_columns: Sequence[str],
    path_without_suffix: str | os.PathLike,
    metric: str = "online_accuracy",
    band: str = "minmax",
    title: str = "",
    note: str = "",
    chance: float | None = None,
    panels: Sequence[str] | None = None,
) -> list[pathlib.Path]:
    """Returns the paths of the figure that it writes, `.png` and `.svg`; the same table gives the
    same bytes.

    Arguments and errors are those of `figure`; OSError if the folder is missing.
    """
    paths = []
    with _style():
        drawn = figure(table, arm_columns, metric, band, title, note, chance, panels)
        # Neither date nor version goes into the files. The SVG comes first: drawing fixes the
        # layout for both.
        for suffix, metadata in (
            ("svg", {"Date": None, "Creator": None}),
            ("png", {"Software": None}),
        ):
            content = io.BytesIO()
            drawn.savefig(content, format=suffix, metadata=metadata)
            path = pathlib.Path(f"{os.fspath(path_without_suffix)}.{suffix}")
            path.write_bytes(content.getvalue())
            paths.insert(0, path)
    return paths


def figure(
    table: pd.DataFrame,
    arm_columns: Sequence[str],
    metric: str = "online_accuracy",
    band: str = "minmax",
    title: str = "",
    note: str = "",
    chance: float | None = None,
    panels: Sequence[str] | None = None,
) -> "Figure":
    """Returns the figure: a wide panel of the metric beside the legend, then a panel per probe (no
    "/" in its name).

    Lines are means over the seeds that have a value. A probe that did not run at every task is
    marked where it did; a metric without any value gets an empty panel that says so. Axes of shares
    stay within 0 to 1, an axis is logarithmic where all values are positive and means span more
    than two decades. Arms that differ in granularity alone get one ramp of colour from coarse to
    fine; abrupt arms are dashed where there are others. How many seeds of an arm diverged is told
    in the legend.

    Args:
      metric: column of the wide panel.
      band: one of `BANDS`, drawn where at least two seeds are known.
      title, note: above the figure, and small below it after the sentence that says what line and
        band are.
      chance: level of guessing, drawn as a dotted line in the wide panel.
      panels: columns of the small panels; default every probe.

    Raises:
      ValueError: unknown metric or band, no rows, or an arm with the same seed twice.
    """
    registry.lookup(BANDS, "band", band)
    ends = statistics.final(table, arm_columns, metric)  # also checks the metric
    measured = statistics.metric_columns(table, arm_columns)
    scores = metrics.of_table(table).scores
    probes = (
        [c for c in measured if "/" not in c and c not in (*scores, metric)]
        if panels is None
        else list(panels)
    )
    about = {column: metrics.of_column(table, column) for column in (metric, *probes)}
    long = statistics.summary(
        table.drop(columns=[c for c in measured if c not in (metric, *probes)]), arm_columns
    )
    known = set(long["metric"][long["count"] > 0])
    probes = [c for c in probes if c in known]  # a panel only for what ran
    arms = _series(long, statistics.arm_labels(table, arm_columns), ends, arm_columns)

    with _style():
        many = len(arms) > _BESIDE
        columns = 2 if max(len(arm["label"]) for arm in arms) <= 60 else 1
        fig, top, legend, below = _panels(
            len(probes), math.ceil((len(arms) + 1) / columns) if many else 0
        )
        for axes, column in zip([top, *below], [metric, *probes], strict=True):
            _panel(axes, about[column], arms, band, max(table["task"]) + 1)
        fig.align_ylabels([top, *below])
        if chance is not None and math.isfinite(chance):
            line = top.axhline(chance, color=_GREY, linewidth=1, linestyle=":", label="chance")
            line.set_zorder(1)
        handles, labels = top.get_legend_handles_labels()
        style = {"loc": "upper left", "frameon": False, "borderaxespad": 0, "handlelength": 2.6}
        if many:  # a row of its own at the bottom, whose height is set aside
            legend.legend(handles, labels, ncols=columns, fontsize=8, **style).set_in_layout(False)
        else:
            legend.legend(handles, labels, **style)
        if title:
            fig.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        text = " ".join(filter(None, [_caption(ends, band), note]))
        fig.supxlabel(
            "\n".join(textwrap.wrap(text, 150)), x=0.01, ha="left", fontsize=8, color=_GREY
        )
    return fig


def _panels(probes: int, lines: int = 0) -> tuple["Figure", "Axes", "Axes", list["Axes"]]:
    """An empty figure: the wide panel, the legend's place, the small panels in rows of at most
    three.

    The legend is beside the wide panel, or, if it has `lines` lines, below everything.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    columns = min(probes, 3) if probes != 4 else 2
    rows = math.ceil(probes / columns) if probes else 0
    below_all = [0.19 * lines + 0.1] if lines else []  # inches
    size = 9.5, 3.6 + 2.5 * rows + sum(below_all)
    fig = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08))
    FigureCanvasAgg(fig)
    grid = fig.add_gridspec(
        1 + rows + len(below_all), 6, height_ratios=[3] + [2.2] * rows + below_all
    )
    top = fig.add_subplot(grid[0, :] if lines else grid[0, :4])
    legend = fig.add_subplot(grid[-1, :] if lines else grid[0, 4:])
    legend.set_axis_off()
    # one small panel alone is as wide as the metric's, task under task
    width = {0: 6, 1: 4, 2: 3, 3: 2}[columns]
    places = [(1 + i // columns, i % columns) for i in range(probes)]
    below = [
        fig.add_subplot(grid[row, column * width : (column + 1) * width]) for row, column in places
    ]
    return fig, top, legend, below


def _series(
    long: pd.DataFrame, labels: pd.Series, ends: pd.DataFrame, arm_columns: Sequence[str]
) -> list[dict]:
    """Each arm's rows of the summary with its label and how its line looks."""
    columns = list(arm_columns)
    numbers = ends[columns].assign(number=range(len(ends)))
    numbered = long.merge(numbers, on=columns) if columns else long.assign(number=0)
    granularity = (
        ends["granularity"].to_numpy(float)
        if "granularity" in columns
        else np.full(len(ends), np.nan)
    )
    varying = [c for c in columns if len(ends[c].drop_duplicates()) > 1]
    abrupt = granularity == 1
    arms = []
    for number in range(len(ends)):
        look: dict[str, Any] = {"color": _COLOURS[number % len(_COLOURS)]}
        look["marker"] = _MARKERS[number // len(_COLOURS) % len(_MARKERS)]
        if varying == ["granularity"]:
            look = {"color": _ramp(granularity, number), "marker": ""}
        look["linestyle"] = (0, (4, 1.6)) if abrupt[number] and not abrupt.all() else "-"
        diverged, seeds = int(ends["diverged"].to_numpy()[number]), ends["seeds"].to_numpy()[number]
        label = labels[number] + (f"\n({diverged} of {seeds} seeds diverged)" if diverged else "")
        arms.append({"rows": numbered[numbered["number"] == number], "label": label, "look": look})
    return arms


def _ramp(granularity: np.ndarray, number: int) -> Any:
    """Colour of one granularity among all: abrupt is black, then from light (coarse) to dark
    (fine).
    """
    import matplotlib

    if granularity[number] == 1:
        return "#000000"
    finer = np.unique(granularity[granularity != 1])
    place = (
        np.searchsorted(finer, granularity[number]) / max(1, len(finer) - 1)
        if len(finer) > 1
        else 0.5
    )
    return matplotlib.colormaps["viridis"](0.78 - 0.63 * place)


def _panel(axes: "Axes", metric: Metric, arms: list[dict], band: str, tasks: int) -> None:
    """Draws one column of every arm."""
    from matplotlib.ticker import MaxNLocator

    drawn = []
    for order, arm in enumerate(arms):
        rows = arm["rows"][(arm["rows"]["metric"] == metric.name) & (arm["rows"]["count"] > 0)]
        task, mean = rows["task"].to_numpy() + 1, rows["mean"].to_numpy()
        drawn.append(rows)
        look: dict[str, Any] = dict(arm["look"], zorder=3 + order / 100)
        if len(rows) and (look["marker"] or len(rows) < tasks - 1 or tasks == 1):
            look |= {
                "marker": look["marker"] or "o",
                "markersize": 3,
                "markevery": max(1, len(rows) // 25),
            }
        axes.plot(task, mean, label=arm["label"], **look)
        low, high = _edges(rows, band)
        several = (rows["count"] > 1).to_numpy()
        if several.any():
            colour = arm["look"]["color"]
            axes.fill_between(
                task,
                low,
                high,
                where=several.tolist(),
                color=colour,
                alpha=0.14,
                linewidth=0,
                zorder=2,
            )
    axes.set_xlabel("task")
    axes.set_ylabel(metric.label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7, steps=[1, 2, 5, 10]))
    axes.set_xlim(1, tasks) if tasks > 1 else axes.set_xlim(0.5, 1.5)
    _value_axis(axes, metric.share, pd.concat(drawn))


def _value_axis(axes: "Axes", share: bool, drawn: pd.DataFrame) -> None:
    """Scale, limits and ticks of the axis of values, of which rows of the summary are `drawn`."""
    from matplotlib.ticker import PercentFormatter

    if drawn.empty:
        axes.text(
            0.5,
            0.5,
            "nothing measured",
            transform=axes.transAxes,
            ha="center",
            va="center",
            color=_GREY,
        )
        axes.set_yticks([])
        return
    lows, means, highs = drawn[["minimum", "mean", "maximum"]].to_numpy(np.float64).T
    low, high = lows.min(), highs.max()
    axes.ticklabel_format(axis="y", useOffset=False)
    if share:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    if low > 0 and means.max() > 100 * means.min():
        axes.set_yscale("log")
        # a standard error may reach below zero, where a log scale has no end
        axes.set_ylim(bottom=low / 1.2)
    elif high - low <= 1e-6 * max(
        abs(low), abs(high)
    ):  # constant but for rounding, which is not to fill the axis
        around = 0.05 * abs(high) or 0.05
        axes.set_ylim(low - around, high + around)
    if share and low >= 0 and high <= 1:
        bottom, top = axes.get_ylim()
        edge = 0.03 * (min(top, 1) - max(bottom, 0))  # room for a line at 0 or 1
        limits = max(bottom, -edge), min(top, 1 + edge)
        axes.set_ylim(limits)
        axes.set_yticks([tick for tick in axes.get_yticks() if -1e-9 <= tick <= 1 + 1e-9])
        axes.set_ylim(limits)  # (ticks widen them)


def _edges(rows: pd.DataFrame, band: str) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper edge of the band."""
    mean, error = rows["mean"].to_numpy(), rows["standard_error"].to_numpy()
    if band == "sem":
        return mean - error, mean + error
    low, high = {"minmax": ("minimum", "maximum"), "ci": ("low", "high"), "t": ("t_low", "t_high")}[
        band
    ]
    return rows[low].to_numpy(), rows[high].to_numpy()


def _caption(ends: pd.DataFrame, band: str) -> str:
    """What line and band are, in a sentence."""
    fewest, most = min(ends["seeds"]), max(ends["seeds"])
    lost = " A diverged seed is left out where it has no value." if any(ends["diverged"]) else ""
    if most == 1:
        return f"One seed.{lost}"
    seeds = f"{most} seeds" if fewest == most else f"{fewest} to {most} seeds"
    few = fewest < over_seeds.ENOUGH and band == "ci"
    narrow = f", too narrow with fewer than {over_seeds.ENOUGH} seeds" if few else ""
    return f"Line: mean over {seeds}; band: {BANDS[band]}{narrow}.{lost}"
