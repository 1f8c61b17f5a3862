"""A picture of the figures that have something to reach: how far each is from it.

matplotlib is imported where it is used, never through pyplot.
"""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from benchmarks.rivals import Figure
from benchmarks.words import reach, shown

# Colors that stay apart for color-blind readers (Okabe and Ito 2008); missed bars are hatched as
# well.
MET, MISSED, GREY = "#0072B2", "#D55E00", "#555555"
EDGE = 4.0  # the axis ends at this many times what is to be reached, and at its inverse


def advantage(figure: Figure, value: float) -> float:
    """Returns how many times better than its limit a value is: at least 1 where the limit is kept,
    0 if it is <= 0.

    The value divided by what it is to be at least, or what it is to be at most divided by the
    value; of both, the less. A value <= 0 that is to be at most something is infinitely good.
    """
    ratios = []
    if figure.at_least is not None:
        ratios.append(max(value, 0.0) / figure.at_least)
    if figure.at_most is not None:
        ratios.append(figure.at_most / value if value > 0 else float("inf"))
    if not ratios:
        raise ValueError(f"{figure.what!r} has nothing to reach: a limit is needed for a picture.")
    return min(ratios)


def draw(figures: Sequence[Figure], path: Path, note: str = "") -> None:
    """Writes bars from the limit to the median, with the range over rounds, for all figures with a
    limit.
    """
    import matplotlib.style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas
    from matplotlib.ticker import FuncFormatter, NullLocator

    limited = [figure for figure in figures if figure.met is not None]
    with matplotlib.style.context(["default", {"font.size": 8, "axes.axisbelow": True}]):
        canvas = Canvas(figsize=(11, 1.4 + 0.24 * len(limited)), layout="constrained")
        FigureCanvasAgg(canvas)
        axes = canvas.add_subplot()
        axes.set_xscale("log")
        axes.set_xlim(1 / EDGE, EDGE)
        for place, figure in enumerate(limited):
            _bar(axes, place, figure)
        axes.axvline(1, color="black", linewidth=1)
        axes.set_yticks(
            range(len(limited)), [f"{figure.part}: {figure.what}" for figure in limited]
        )
        axes.set_ylim(len(limited) - 0.4, -0.6)
        axes.set_xticks([0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.grid(axis="x", color="#E6E6E6", linewidth=0.6)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(
            "times as good as is to be reached: median over rounds, line from worst to best round"
        )
        axes.set_title(title(limited), loc="left", fontweight="bold")
        canvas.supxlabel(textwrap.fill(note, 200), x=0.01, ha="left", fontsize=7, color=GREY)
        canvas.savefig(path, dpi=150)


def _bar(axes, place: int, figure: Figure) -> None:
    def drawn(value: float) -> float:
        return min(max(advantage(figure, value), 1 / EDGE), EDGE)

    color = MET if figure.met else MISSED
    middle = drawn(figure.median)
    worst, best = sorted(drawn(value) for value in (min(figure.values), max(figure.values)))
    hatch = None if figure.met else "////"
    axes.barh(
        place,
        middle - 1,
        left=1,
        height=0.62,
        facecolor=color,
        alpha=0.75,
        edgecolor="white",
        hatch=hatch,
    )
    axes.plot([worst, best], [place, place], color="black", linewidth=1, solid_capstyle="butt")
    text = f"{shown(figure)}   ({reach(figure)})"
    axes.annotate(text, (1, place), (1.02, place), xycoords=("axes fraction", "data"),
                  textcoords=("axes fraction", "data"), va="center",
                  color="black" if figure.met else MISSED, annotation_clip=False)  # fmt: skip


def title(limited: Sequence[Figure]) -> str:
    """Returns how many figures reach what they are to reach, in words."""
    met = sum(bool(figure.met) for figure in limited)
    return f"{met} of {len(limited)} figures reached (blue), {len(limited) - met} missed (hatched)"
