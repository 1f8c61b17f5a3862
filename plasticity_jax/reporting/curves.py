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
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from plasticity_jax import registry
from plasticity_jax.reporting import metrics, over_seeds, panels, statistics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BESIDE = 12  # arms whose legend still fits beside the panel
_NARROW = 60  # characters of labels that fit twice in a line of a legend below
_GRID = 6  # columns that panels share out among them
_STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": panels.GREY,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "xtick.color": panels.GREY,
    "ytick.color": panels.GREY,
    "xtick.labelcolor": "black",
    "ytick.labelcolor": "black",
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "lines.linewidth": 1.6,
    "svg.hashsalt": "plasticity_jax",  # otherwise the names inside an SVG are random
    "savefig.dpi": 200,
}


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Draws inside it with the same look whatever the user's matplotlib settings are, which come back afterwards."""
    import matplotlib.style

    with matplotlib.style.context(["default", _STYLE]):
        yield


class Drawing(NamedTuple):
    """What is drawn of a table, and how.

    Attributes:
      metric: column of the wide panel.
      band: one of `panels.BANDS`, drawn where at least two seeds are known.
      title, note: above the figure, and small below it after the sentence that says what line and
        band are.
      chance: level of guessing, drawn as a dotted line in the wide panel.
      panels: columns of the small panels; default every probe.
    """

    metric: str = "online_accuracy"
    band: str = "minmax"
    title: str = ""
    note: str = ""
    chance: float | None = None
    panels: Sequence[str] | None = None


_USUAL = Drawing()


def curves(
    table: pd.DataFrame,
    arm_columns: Sequence[str],
    path_without_suffix: str | os.PathLike,
    drawing: Drawing = _USUAL,
) -> list[pathlib.Path]:
    """Returns the paths of the figure that it writes, `.png` and `.svg`; the same table gives the
    same bytes.

    Arguments and errors are those of `figure`; OSError if the folder is missing.
    """
    # Neither date nor version goes into the files. The SVG comes first: drawing fixes the layout
    # for both.
    metadata = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}
    paths = []
    with style():
        drawn = figure(table, arm_columns, drawing)
        for suffix, left_out in metadata.items():
            content = io.BytesIO()
            drawn.savefig(content, format=suffix, metadata=left_out)
            path = pathlib.Path(f"{os.fspath(path_without_suffix)}.{suffix}")
            path.write_bytes(content.getvalue())
            paths.insert(0, path)
    return paths


def figure(table: pd.DataFrame, arm_columns: Sequence[str], drawing: Drawing = _USUAL) -> "Figure":
    """Returns the figure: a wide panel of the metric beside the legend, then a panel per probe (no
    "/" in its name).

    Lines are means over the seeds that have a value. A probe that did not run at every task is
    marked where it did; a metric without any value gets an empty panel that says so. Axes of shares
    stay within 0 to 1, an axis is logarithmic where all values are positive and means span more
    than two decades. Arms that differ in granularity alone get one ramp of colour from coarse to
    fine; abrupt arms are dashed where there are others. How many seeds of an arm diverged is told
    in the legend.

    Raises:
      ValueError: unknown metric or band, no rows, or an arm with the same seed twice.
    """
    registry.lookup(panels.BANDS, "band", drawing.band)
    ends = statistics.final(table, arm_columns, drawing.metric)  # also checks the metric
    shown, long = _shown(table, arm_columns, drawing)
    about = {column: metrics.of_column(table, column) for column in shown}
    arms = panels.lines(long, ends, statistics.arm_labels(table, arm_columns), arm_columns)
    with style():
        layout = _layout(len(shown) - 1, [arm.label for arm in arms])
        every = [layout.top, *layout.below]
        for axes, column in zip(every, shown, strict=True):
            panels.draw(axes, about[column], arms, drawing.band, max(table["task"]) + 1)
        layout.figure.align_ylabels(every)
        if drawing.chance is not None and math.isfinite(drawing.chance):
            dotted = {"color": panels.GREY, "linewidth": 1, "linestyle": ":", "label": "chance"}
            layout.top.axhline(drawing.chance, **dotted).set_zorder(1)
        _legend(layout)
        _words(layout.figure, drawing.title, f"{_caption(ends, drawing.band)} {drawing.note}")
    return layout.figure


def _shown(
    table: pd.DataFrame, arm_columns: Sequence[str], drawing: Drawing
) -> tuple[list[str], pd.DataFrame]:
    """The columns that get a panel, the metric first, and the statistics of them."""
    measured = statistics.metric_columns(table, arm_columns)
    small = drawing.panels
    if small is None:
        others = {*metrics.of_table(table).scores, drawing.metric}
        small = [column for column in measured if "/" not in column and column not in others]
    wanted = [drawing.metric, *small]
    rest = [column for column in measured if column not in wanted]
    long = statistics.summary(table.drop(columns=rest), arm_columns)
    known = set(long["metric"][long["count"] > 0])
    # a small panel only for what ran
    return [drawing.metric, *(column for column in small if column in known)], long


class _Layout(NamedTuple):
    """An empty figure: the wide panel, the legend's place, the small panels."""

    figure: "Figure"
    top: "Axes"
    legend: "Axes"
    below: list["Axes"]
    legend_columns: int  # 0 if it is beside the wide panel


def _layout(probes: int, labels: Sequence[str]) -> _Layout:
    """The small panels are in rows of at most three. The legend is beside the wide panel, or, if
    the arms are too many for that, below everything.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    many = len(labels) > _BESIDE
    legend_columns = 2 if max(map(len, labels)) <= _NARROW else 1
    lines = math.ceil((len(labels) + 1) / legend_columns)
    columns = 2 if probes == 4 else min(probes, 3)
    rows = math.ceil(probes / columns) if probes else 0
    below_all = [0.19 * lines + 0.1] if many else []  # inches
    size = 9.5, 3.6 + 2.5 * rows + sum(below_all)
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08))
    FigureCanvasAgg(figure)
    heights = [3] + [2.2] * rows + below_all
    grid = figure.add_gridspec(len(heights), _GRID, height_ratios=heights)
    top = figure.add_subplot(grid[0, :] if many else grid[0, :4])
    legend = figure.add_subplot(grid[-1, :] if many else grid[0, 4:])
    legend.set_axis_off()
    # one small panel alone is as wide as the metric's, task under task
    width = 4 if columns == 1 else _GRID // max(columns, 1)
    below = []
    for number in range(probes):
        row, column = divmod(number, columns)
        below.append(figure.add_subplot(grid[1 + row, column * width : (column + 1) * width]))
    return _Layout(figure, top, legend, below, legend_columns if many else 0)


def _legend(layout: _Layout) -> None:
    """The names of what is in the wide panel."""
    handles, labels = layout.top.get_legend_handles_labels()
    style = {"loc": "upper left", "frameon": False, "borderaxespad": 0, "handlelength": 2.6}
    if layout.legend_columns:  # a row of its own at the bottom, whose height is set aside
        style |= {"ncols": layout.legend_columns, "fontsize": 8}
    made = layout.legend.legend(handles, labels, **style)
    if layout.legend_columns:
        made.set_in_layout(False)


def _words(figure: "Figure", title: str, text: str) -> None:
    """What is said above and below the figure."""
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    lines = "\n".join(textwrap.wrap(text, 150))
    figure.supxlabel(lines, x=0.01, ha="left", fontsize=8, color=panels.GREY)


def _caption(ends: pd.DataFrame, band: str) -> str:
    """What line and band are, in a sentence."""
    fewest, most = min(ends["seeds"]), max(ends["seeds"])
    lost = " A diverged seed is left out where it has no value." if any(ends["diverged"]) else ""
    if most == 1:
        return f"One seed.{lost}"
    seeds = f"{most} seeds" if fewest == most else f"{fewest} to {most} seeds"
    few = fewest < over_seeds.ENOUGH and band == "ci"
    narrow = f", too narrow with fewer than {over_seeds.ENOUGH} seeds" if few else ""
    return f"Line: mean over {seeds}; band: {panels.BANDS[band]}{narrow}.{lost}"
