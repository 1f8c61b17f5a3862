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
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from plasticity_jax import registry
from plasticity_jax.reporting import labels as labels_
from plasticity_jax.reporting import metrics, over_seeds, panels, statistics
from plasticity_jax.storage import writing

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


FORMATS = {  # of files: what is left out of them, so that the same table gives the same bytes
    "svg": {"Date": None, "Creator": None},
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


class _Width(NamedTuple):
    """How wide a figure is, in inches, and what else goes with it.

    Attributes:
      inches: of the whole figure.
      font: size of letters, over that of the usual figure.
      columns: of small panels at most.
      height: of panels, over that of the usual figure.
    """

    inches: float
    font: float
    columns: int
    height: float


WIDTHS = {
    "page": _Width(9.5, 1.0, 3, 1.0),
    "double": _Width(6.9, 0.8, 3, 0.75),
    "single": _Width(3.4, 0.78, 1, 0.75),
}
"""Widths of figures: for a screen, and for two columns or one of a paper."""


@contextlib.contextmanager
def style(width: str = "page") -> Iterator[None]:
    """Draws inside it with the same look whatever the user's matplotlib settings are, which come
    back afterwards.
    """
    import matplotlib.style

    font = WIDTHS[width].font
    sizes = {name: size * font for name, size in _STYLE.items() if "size" in name}
    sizes |= {"lines.linewidth": _STYLE["lines.linewidth"] * font, "pdf.fonttype": 42}
    with matplotlib.style.context(["default", _STYLE | sizes]):
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
      names: what the arms are called, in the order of the printed table; default `labels.of_arms`.
      width: one of `WIDTHS`.
      formats: of the files, of `FORMATS`.
    """

    metric: str = "online_accuracy"
    band: str = "minmax"
    title: str = ""
    note: str = ""
    chance: float | None = None
    panels: Sequence[str] | None = None
    names: Sequence[str] | None = None
    width: str = "page"
    formats: Sequence[str] = ("png", "svg")


_USUAL = Drawing()


def curves(
    table: pd.DataFrame,
    arm_columns: Sequence[str],
    path_without_suffix: str | os.PathLike,
    drawing: Drawing = _USUAL,
) -> list[pathlib.Path]:
    """Returns the paths of the figure that it writes, one for each format, and again for those of
    the files that an earlier call left; the same table gives the same bytes.

    Arguments and errors are those of `figure`; OSError if the folder is missing.
    """
    for name in drawing.formats:
        registry.lookup(FORMATS, "figure_format", name)
    files = {name: pathlib.Path(f"{os.fspath(path_without_suffix)}.{name}") for name in FORMATS}
    left = [name for name, file in files.items() if file.exists()]
    formats = dict.fromkeys([*drawing.formats, *left])
    with style(drawing.width):
        drawn = figure(table, arm_columns, drawing)
        # (the SVG comes first: drawing fixes the layout for all)
        for suffix in sorted(formats, key=[*FORMATS].index):
            store_figure(drawn, files[suffix], metadata=FORMATS[suffix])
    return [files[suffix] for suffix in formats]


def store_figure(drawn: "Figure", path: str | os.PathLike, **how: Any) -> None:
    """Writes a figure, whole or not at all, in the format that the file's name ends with; `how` is
    as for `Figure.savefig`. Raises OSError.
    """
    content = io.BytesIO()
    drawn.savefig(content, format=pathlib.Path(path).suffix.removeprefix("."), **how)
    with writing.whole(path) as file:
        file.write(content.getvalue())


def figure(table: pd.DataFrame, arm_columns: Sequence[str], drawing: Drawing = _USUAL) -> "Figure":
    """Returns the figure: a wide panel of the metric beside the legend, then a panel per probe (no
    "/" in its name).

    Lines are means over the seeds that have a value. A probe that did not run at every task is
    marked where it did; a metric without any value gets an empty panel that says so. Axes of shares
    stay within 0 to 1, an axis is logarithmic where all values are positive and means span more
    than two decades, and one that a few points of a band would flatten leaves these out. How arms
    look is said in `looks`. How many seeds of an arm diverged, and from which task on, is told in
    the legend, and what else seeds have no value of in the caption. Raises ValueError for an
    unknown metric, band or width, more or fewer names than arms, no rows, or an arm with the same
    seed twice.
    """
    registry.lookup(panels.BANDS, "band", drawing.band)
    registry.lookup(WIDTHS, "figure_width", drawing.width)
    ends = statistics.final(table, arm_columns, drawing.metric)  # also checks the metric
    shown, long = _shown(table, arm_columns, drawing)
    about = {column: metrics.of_column(table, column) for column in shown}
    arms = panels.lines(long, ends, _names(table, arm_columns, drawing), arm_columns)
    with style(drawing.width):
        layout = _layout(len(shown) - 1, [arm.label for arm in arms], WIDTHS[drawing.width])
        every = [layout.top, *layout.below]
        for axes, column in zip(every, shown, strict=True):
            chance = drawing.chance if axes is layout.top else None
            panels.draw(axes, about[column], arms, drawing.band, max(table["task"]) + 1, chance)
        layout.figure.align_ylabels(every)
        if drawing.chance is not None and math.isfinite(drawing.chance):
            _chance(layout.top, drawing.chance)
        _legend(layout)
        said = [_caption(ends, drawing.band), panels.gaps(arms, about.values()), drawing.note]
        caption = " ".join(filter(None, said))
        _words(layout.figure, drawing.title, caption, WIDTHS[drawing.width])
    return layout.figure


def _names(table: pd.DataFrame, arm_columns: Sequence[str], drawing: Drawing) -> pd.Series:
    """What each arm is called."""
    usual = statistics.arm_labels(table, arm_columns)
    if drawing.names is None:
        return usual
    return pd.Series(labels_.named(list(usual), drawing.names), name=usual.name)


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


def _layout(probes: int, labels: Sequence[str], width: _Width) -> _Layout:
    """The small panels are in rows of at most three. The legend is beside the wide panel, or, if
    the arms are too many for that, below everything.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    one = width.columns == 1
    many = one or len(labels) > _BESIDE
    legend_columns = 2 if not one and max(map(len, labels)) <= _NARROW else 1
    lines = math.ceil((len(labels) + 1) / legend_columns)
    columns = 2 if probes == 4 and not one else min(probes, width.columns)
    rows = math.ceil(probes / columns) if probes else 0
    below_all = [0.19 * lines * width.font + 0.1] if many else []  # inches
    size = width.inches, (3.6 + 2.5 * rows) * width.height + sum(below_all)
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08))
    FigureCanvasAgg(figure)
    heights = [3 * width.height] + [2.2 * width.height] * rows + below_all
    grid = figure.add_gridspec(len(heights), _GRID, height_ratios=heights)
    top = figure.add_subplot(grid[0, :] if many else grid[0, :4])
    legend = figure.add_subplot(grid[-1, :] if many else grid[0, 4:])
    legend.set_axis_off()
    # one small panel alone is as wide as the metric's, task under task
    wide = _GRID // max(columns, 1)
    wide = 4 if columns == 1 and not many else wide
    below = []
    for number in range(probes):
        row, column = divmod(number, columns)
        below.append(figure.add_subplot(grid[1 + row, column * wide : (column + 1) * wide]))
    return _Layout(figure, top, legend, below, legend_columns if many else 0)


def _chance(axes: "Axes", level: float) -> None:
    """A dotted line, if the axis shows its place: else the legend would name what is not there."""
    dotted = {"color": panels.GREY, "linewidth": 1, "linestyle": ":", "label": "chance"}
    line = axes.axhline(level, **dotted)
    line.set_zorder(1)
    low, high = axes.get_ylim()
    if not low <= level <= high:
        line.remove()


def _legend(layout: _Layout) -> None:
    """The names of what is in the wide panel."""
    handles, labels = layout.top.get_legend_handles_labels()
    style = {"loc": "upper left", "frameon": False, "borderaxespad": 0, "handlelength": 2.6}
    if layout.legend_columns:  # a row of its own at the bottom, whose height is set aside
        style |= {"ncols": layout.legend_columns, "fontsize": "small"}
    made = layout.legend.legend(handles, labels, **style)
    if layout.legend_columns:
        made.set_in_layout(False)


def _words(figure: "Figure", title: str, text: str, width: _Width) -> None:
    """What is said above and below the figure."""
    characters = int(150 * width.inches / WIDTHS["page"].inches / width.font)
    left = {"x": 0.01, "ha": "left"}
    if title:
        lines = "\n".join(textwrap.wrap(title, int(0.6 * characters)))
        figure.suptitle(lines, fontsize=11 * width.font, fontweight="bold", **left)
    lines = "\n".join(textwrap.wrap(text, characters))
    figure.supxlabel(lines, fontsize=8 * width.font, color=panels.GREY, **left)


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
