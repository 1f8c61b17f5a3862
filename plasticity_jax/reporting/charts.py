"""Curves as plain SVG for a page: one chart of a column against the task, a line and a band for
each arm, which style sheets colour and switch off.
"""

import html
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from plasticity_jax.reporting import panels
from plasticity_jax.types import Metric

POINTS = 30_000
"""Points of all lines of a page at most; longer runs are drawn at every so-manieth task."""
ROOM = (52.0, 12.0, 10.0, 40.0)  # left, right, top, bottom, in units of the drawing
_TICKS = 6
_NICE = (1.0, 2.0, 5.0, 10.0)
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


def axis(drawn: Sequence[Course], share: bool) -> Axis:
    """Returns the axis of what is drawn: logarithmic where all is positive and means span more than
    two decades, of shares within 0 to 1.
    """
    means = np.concatenate([one.mean for one in drawn])
    lows = np.concatenate([one.low for one in drawn])
    ends = np.stack([lows, np.concatenate([one.high for one in drawn])])
    bands = ends[:, np.isfinite(ends).all(axis=0)]
    every = np.concatenate([means, bands.ravel()])
    low, high = float(every.min()), float(every.max())
    logarithmic = means.min() > 0 and means.max() > panels.DECADES * means.min()
    if logarithmic:
        low = min(float(means.min()), low) if low > 0 else float(means.min())
    fitting = panels.without_outliers(means, bands, logarithmic)
    if fitting is not None:
        low, high = max(low, fitting[0]), min(high, fitting[1])
    if share and not logarithmic and means.min() >= 0 and means.max() <= 1:
        low, high = max(low, 0.0), min(high, 1.0)
    if logarithmic:
        low, high = low / 1.2, high * 1.2
        return Axis(low, high, True, _decades(low, high, share))
    if high - low <= 1e-6 * max(abs(low), abs(high)):
        around = 0.05 * abs(high) or 0.05
        low, high = low - around, high + around
    else:
        around = 0.03 * (high - low)
        low, high = low - around, high + around
    return Axis(low, high, False, _steps(low, high, share))


def _steps(low: float, high: float, share: bool) -> list[tuple[float, str]]:
    """Ticks at round values."""
    rough = (high - low) / _TICKS
    unit = 10.0 ** math.floor(math.log10(rough))
    step = unit * next(nice for nice in _NICE if nice * unit >= rough)
    first = math.ceil(low / step - 1e-9)
    values = [step * n for n in range(first, math.floor(high / step + 1e-9) + 1)]
    return [(value, _word(value, share, step)) for value in values]


def _decades(low: float, high: float, share: bool) -> list[tuple[float, str]]:
    """Ticks at powers of ten, of which not too many have words."""
    first, last = math.ceil(math.log10(low)), math.floor(math.log10(high))
    every = max(1, math.ceil((last - first + 1) / _TICKS))
    return [(10.0**n, _word(10.0**n, share, 10.0**n)) for n in range(first, last + 1, every)]


def _word(value: float, share: bool, step: float) -> str:
    """A value as a tick has it."""
    value, step = (100 * value, 100 * step) if share else (value, step)
    value = 0.0 if abs(value) < 1e-9 * step else value
    return f"{value:.4g}{'%' if share else ''}".replace("e+0", "e").replace("e-0", "e-")


def chart(
    metric: Metric, drawn: Sequence[Course], size: tuple[int, int], tasks: int, name: str
) -> str:
    """Returns the SVG of a chart, with its words for those who hear it.

    Args:
      metric: what is drawn.
      drawn: of each arm.
      size: width and height of the drawing, in its own units.
      tasks: of the run, which the axis is long.
      name: of the chart, for what refers to it.
    """
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
    scale = axis(known, metric.share)
    left, right, top, bottom = ROOM
    width, height = size[0] - left - right, size[1] - top - bottom
    last = max(tasks, 2)
    data = (
        f' data-low="{scale.low:.6g}" data-high="{scale.high:.6g}" data-tasks="{last}"'
        f' data-log="{int(scale.logarithmic)}" data-share="{int(metric.share)}"'
        f' data-box="{left:g} {top:g} {width:g} {height:g}"'
    )
    pieces = [f"{head}{data}>", f'<title id="{name}-title">{title}</title>']
    pieces.append(f'<desc id="{name}-words">{html.escape(words(known, metric))}</desc>')
    pieces += _grid(scale, (left, top, width, height), last)

    def across(task: np.ndarray) -> np.ndarray:
        return left + width * (task - 1) / (last - 1)

    def down(values: np.ndarray) -> np.ndarray:
        return top + height * (1 - scale.place(values))

    for one in known:
        x, y = across(one.tasks), down(one.mean)
        pieces.append(f'<g class="arm a{one.arm}">')
        several = np.isfinite(one.low) & np.isfinite(one.high)
        if several.sum() > 1:
            upper = _path(x[several], down(one.high[several]))
            lower = _path(x[several][::-1], down(one.low[several])[::-1])
            pieces.append(f'<path class="band" d="{upper}L{lower[1:]}Z"/>')
        dashes = f' stroke-dasharray="{one.dashes}"' if one.dashes else ""
        pieces.append(f'<path class="line" d="{_path(x, y)}"{dashes}/>')
        if one.marked:
            step = max(1, len(x) // 25)
            pieces += [
                f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2.5"/>'
                for a, b in zip(x[::step], y[::step], strict=True)
            ]
        pieces.append("</g>")
    return "".join([*pieces, "</svg>"])


def words(drawn: Sequence[Course], metric: Metric) -> str:
    """Returns how arms go from their first to their last task, in words."""
    if len(drawn) > _DESCRIBED:
        return f"Lines of {len(drawn)} arms against the task; their ends are in the table."
    told = []
    for one in drawn:
        ends = [_word(value, metric.share, 0) for value in (one.mean[0], one.mean[-1])]
        told.append(f"{one.label}: from {ends[0]} at task {one.tasks[0]} to {ends[1]} at task ")
        told[-1] += f"{one.tasks[-1]}"
    return f"Lines against the task. {'; '.join(told)}."


def _path(x: np.ndarray, y: np.ndarray) -> str:
    points = [f"{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True)]
    return f"M{'L'.join(points)}"


def _grid(scale: Axis, box: tuple[float, float, float, float], last: int) -> list[str]:
    """Lines and words of both axes."""
    left, top, width, height = box
    pieces = []
    for value, word in scale.ticks:
        y = top + height * (1 - float(scale.place(value)))
        pieces.append(f'<path class="grid" d="M{left:g} {y:.1f}h{width:g}"/>')
        pieces.append(f'<text class="y" x="{left - 6:g}" y="{y + 4:.1f}">{word}</text>')
    ticks = [round(value) for value, _ in _steps(1, last, False) if value >= 1 and value % 1 == 0]
    for task in dict.fromkeys([1, *ticks]):
        x = left + width * (task - 1) / (last - 1)
        pieces.append(f'<text class="x" x="{x:.1f}" y="{top + height + 16:g}">{task}</text>')
    middle = left + width / 2
    pieces.append(f'<text class="x" x="{middle:g}" y="{top + height + 33:g}">task</text>')
    return pieces
