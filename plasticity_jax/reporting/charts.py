"""Curves as plain SVG for a page: one chart of a column against the task, a line and a band for
each arm, which style sheets color and switch off.
"""

import html
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from plasticity_jax.reporting import curves, panels
from plasticity_jax.types import Metric

POINTS = 30_000
"""Points of all lines of a page at most; longer runs are drawn at every so-manieth task."""
ROOM = (58.0, 12.0, 10.0, 40.0)  # left, right, top, bottom, in units of the drawing
_SIZE = (4.0, 2.4)  # inches of the figure that ends and ticks are taken from
_DIGITS = 4  # of the words of a tick at least
_DESCRIBED = 12  # arms whose course is told in words


class Course(NamedTuple):
    """One arm in one chart; arrays have an entry for each task that is drawn.

    Attributes:
      arm: its number.
      label: its name.
      tasks: from 1.
      mean, low, high: of the line, and the edges of the band; NaN where there is no band.
      dashes: of the line, as SVG has them; "" for none.
      marked: whether each point is marked.
    """

    arm: int
    label: str
    tasks: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    dashes: str
    marked: bool


class Frame(NamedTuple):
    """How a chart is drawn.

    Attributes:
      size: width and height, in units of its own.
      tasks: of the run, which the axis is long.
      band: one of `panels.BANDS`.
      every: tasks between points of a line.
    """

    size: tuple[int, int]
    tasks: int
    band: str = "t"
    every: int = 1


class Axis(NamedTuple):
    """The axis of values.

    Attributes:
      low, high: its ends.
      logarithmic: whether it is.
      ticks: values, with their words.
    """

    low: float
    high: float
    logarithmic: bool
    ticks: list[tuple[float, str]]

    def place(self, values: Any) -> Any:
        """Returns where values are, 0 at the lower end and 1 at the upper one; a value beyond is at
        the end.
        """
        values = np.clip(np.asarray(values, np.float64), self.low, self.high)
        if self.logarithmic:
            return np.log(values / self.low) / math.log(self.high / self.low)
        return (values - self.low) / (self.high - self.low)


def courses(lines: Sequence[panels.Line], column: str, band: str, every: int = 1) -> list[Course]:
    """Returns what is drawn of a column for each arm of a figure, at every `every`th task that it
    was measured at, and at the last.
    """
    found = []
    for arm, line in enumerate(lines):
        rows = line.rows[(line.rows["metric"] == column) & (line.rows["count"] > 0)]
        count = len(rows)
        kept = np.unique(np.append(np.arange(0, count, every), count - 1)) if count else []
        rows = rows.iloc[kept]
        low, high = panels.edges(rows, band)
        several = (rows["count"] > 1).to_numpy()
        tasks = rows["task"].to_numpy() + 1
        marked = line.look["marker"] != "" or len(rows) == 1
        low, high = np.where(several, low, np.nan), np.where(several, high, np.nan)
        label = " ".join(line.label.split())
        pattern = dashes(line.look["linestyle"])
        found.append(Course(arm, label, tasks, rows["mean"].to_numpy(), low, high, pattern, marked))
    return found


def dashes(linestyle: Any) -> str:
    """Returns matplotlib's dashes as those of SVG, for a line two units wide."""
    if isinstance(linestyle, str):
        return ""
    return " ".join(f"{2 * length:g}" for length in linestyle[1])


def axis(
    metric: Metric, lines: Sequence[panels.Line], band: str, chance: float | None = None
) -> Axis:
    """Returns the axis of values that `panels` gives a figure of these lines, with the ticks that
    lie within its ends; near enough, it reaches to `chance`.
    """
    rows: Any = pd.concat([line.rows for line in lines])
    rows = rows[(rows["metric"] == metric.name) & (rows["count"] > 0)]
    several = rows[rows["count"] > 1]
    bands = np.stack(panels.edges(several, band)) if len(several) else None
    with curves.style():
        axes = Figure(_SIZE).add_subplot()
        for values in (rows["mean"], *([] if bands is None else bands)):
            axes.plot(values)
        panels.fit_values(axes, metric, rows, bands, chance)
        low, high = axes.get_ylim()
        logarithmic = axes.get_yscale() == "log"
        # (a locator's 0 may be what is left of a sum)
        zero = 0 if logarithmic else 1e-9 * (high - low)
        found = [float(tick) for tick in axes.get_yticks() if low <= tick <= high]
        ticks = [tick if abs(tick) > zero else 0.0 for tick in found]
    digits = _DIGITS if logarithmic else _digits(ticks)
    worded = [(tick, _word(tick, metric.share, digits)) for tick in ticks]
    return Axis(low, high, logarithmic, worded)


def _digits(ticks: Sequence[float]) -> int:
    """How many tell neighbors apart."""
    if len(ticks) < 2:
        return _DIGITS
    step = min(np.diff(ticks))
    return max(_DIGITS, 1 + math.ceil(math.log10(max(map(abs, ticks)) / step)))


def _word(value: float, share: bool, digits: int = _DIGITS) -> str:
    """A value as a tick has it."""
    shown = f"{100 * value if share else value:.{digits}g}{'%' if share else ''}"
    return shown.replace("e+0", "e").replace("e-0", "e-")


def written(value: float, metric: Metric) -> str:
    """Returns a value of a metric in a sentence."""
    return f"{100 * value:.1f} %" if metric.share else f"{value:.3g}"


def chart(
    metric: Metric,
    lines: Sequence[panels.Line],
    frame: Frame,
    name: str,
    chance: float | None = None,
) -> str:
    """Returns the SVG of a chart, with its words for those who hear it.

    Args:
      metric: what is drawn.
      lines: of each arm.
      frame: how it is drawn.
      name: of the chart, for what refers to it.
      chance: the value of guessing, a dotted line if the axis has it.
    """
    size, tasks = frame.size, frame.tasks
    drawn = courses(lines, metric.name, frame.band, frame.every)
    known = [one for one in drawn if len(one.tasks)]
    title = html.escape(metric.label or metric.name.replace("_", " "))
    head = (
        f'<svg class="chart" id="{name}" viewBox="0 0 {size[0]} {size[1]}" role="img" '
        f'aria-labelledby="{name}-title {name}-words"'
    )
    if not known:
        said = f"<title id='{name}-title'>{title}</title><desc id='{name}-words'>Nothing measured"
        middle = f"<text x='{size[0] / 2}' y='{size[1] / 2}' text-anchor='middle'>nothing measured"
        return f"{head}>{said}.</desc>{middle}</text></svg>"
    left, right, top, bottom = ROOM
    box = (left, top, size[0] - left - right, size[1] - top - bottom)
    plot = _Plot(axis(metric, lines, frame.band, chance), *box, max(tasks, 2))
    pieces = [f"{head}{_data(plot, metric.share)}>", f'<title id="{name}-title">{title}</title>']
    told = words(known, metric)
    if chance is not None:
        told += f" Chance: {written(chance, metric)}."
    pieces.append(f'<desc id="{name}-words">{html.escape(told)}</desc>')
    pieces += _grid(plot)
    if chance is not None and plot.scale.low <= chance <= plot.scale.high:
        pieces.append(_dotted(plot, chance))
    for one in known:
        pieces += _arm(plot, one)
    return "".join([*pieces, "</svg>"])


class _Plot(NamedTuple):
    """Where things are in a chart.

    Attributes:
      scale: of the axis of values.
      left, top, width, height: of what is inside the axes.
      last: the task at its right end.
    """

    scale: Axis
    left: float
    top: float
    width: float
    height: float
    last: int

    def across(self, task: Any) -> Any:
        """Returns where tasks are."""
        return self.left + self.width * (task - 1) / (self.last - 1)

    def down(self, values: Any) -> Any:
        """Returns where values are."""
        return self.top + self.height * (1 - self.scale.place(values))


def _data(plot: _Plot, share: bool) -> str:
    """What the script needs to say of a place which value it is."""
    scale = plot.scale
    return (
        f' data-low="{scale.low:.6g}" data-high="{scale.high:.6g}" data-tasks="{plot.last}"'
        f' data-log="{int(scale.logarithmic)}" data-share="{int(share)}"'
        f' data-box="{plot.left:g} {plot.top:g} {plot.width:g} {plot.height:g}"'
    )


def _arm(plot: _Plot, one: Course) -> list[str]:
    """A line with its band and its points."""
    x, y = plot.across(one.tasks), plot.down(one.mean)
    pieces = [f'<g class="arm a{one.arm}">']
    several = np.isfinite(one.low) & np.isfinite(one.high)
    if several.sum() > 1:
        upper = _path(x[several], plot.down(one.high[several]))
        lower = _path(x[several][::-1], plot.down(one.low[several])[::-1])
        pieces.append(f'<path class="band" d="{upper}L{lower[1:]}Z"/>')
    dashes = f' stroke-dasharray="{one.dashes}"' if one.dashes else ""
    pieces.append(f'<path class="line" d="{_path(x, y)}"{dashes}/>')
    if one.marked:
        step = max(1, len(x) // 25)
        pieces += [
            f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2.5"/>'
            for a, b in zip(x[::step], y[::step], strict=True)
        ]
    return [*pieces, "</g>"]


def words(drawn: Sequence[Course], metric: Metric) -> str:
    """Returns how arms go from their first to their last task, in words."""
    if len(drawn) > _DESCRIBED:
        return f"Lines of {len(drawn)} arms against the task; their ends are in the table."
    told = []
    for one in drawn:
        ends = [_word(value, metric.share) for value in (one.mean[0], one.mean[-1])]
        told.append(f"{one.label}: from {ends[0]} at task {one.tasks[0]} to {ends[1]} at task ")
        told[-1] += f"{one.tasks[-1]}"
    return f"Lines against the task. {'; '.join(told)}."


def _path(x: np.ndarray, y: np.ndarray) -> str:
    points = [f"{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True)]
    return f"M{'L'.join(points)}"


def _grid(plot: _Plot) -> list[str]:
    """Lines and words of both axes."""
    pieces = []
    for value, word in plot.scale.ticks:
        y = float(plot.down(value))
        pieces.append(f'<path class="grid" d="M{plot.left:g} {y:.1f}h{plot.width:g}"/>')
        pieces.append(f'<text class="y" x="{plot.left - 6:g}" y="{y + 4:.1f}">{word}</text>')
    below = plot.top + plot.height
    ticks = panels.whole_ticks().tick_values(1, plot.last)
    for task in dict.fromkeys([1, *(int(tick) for tick in ticks if 1 <= tick <= plot.last)]):
        x = plot.across(task)
        pieces.append(f'<text class="x" x="{x:.1f}" y="{below + 16:g}">{task}</text>')
    middle = plot.left + plot.width / 2
    pieces.append(f'<text class="x" x="{middle:g}" y="{below + 33:g}">task</text>')
    return pieces


def _dotted(plot: _Plot, chance: float) -> str:
    """A line across a chart, with its word at the right: above it or, at the top, below it."""
    y = float(plot.down(chance))
    line = f'<path class="chance" d="M{plot.left:g} {y:.1f}h{plot.width:g}"/>'
    place = y - 4 if y > plot.top + 18 else y + 13
    return f'{line}<text class="y" x="{plot.left + plot.width:g}" y="{place:.1f}">chance</text>'
