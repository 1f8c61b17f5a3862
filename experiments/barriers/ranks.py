"""The figures on ranks, which train nothing: what activation functions do to a layer near collapse.

Source: Joudaki et al., section 3 and appendix A; `plasticity_jax/theory/ranks` has the numbers.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import computation
from experiments.benchmark import SCALES
from plasticity_jax.models import ACTIVATIONS
from plasticity_jax.reporting import curves
from plasticity_jax.storage import writing
from plasticity_jax.theory import ranks

HELP = """
This figure's flags
  --workdir=DIR                        where its picture and table go
  --scale=paper                        paper or reduced (2,000 samples of 10,000), smoke (200)
  --as_published                       A.4 has a column more, alpha as the public code takes it;
                                       the others are the same
"""
SAMPLES: dict[str, int] = {"paper": 10_000, "reduced": 2_000, "smoke": 200}
SCALED = (0.01, 0.1, 1.0, 5.0, 20.0, 100.0)
PAPER_3_1 = dict(zip(SCALED, (4.25, 4.25, 5.1, 7.9, 9.2, 9.65), strict=True))
PAPER_A_3 = {  # alpha and frozen inputs
    ("tanh", 0.1, 0.0): (0.0, 0.0),
    ("tanh", 100.0, 0.0): (53.0, 0.94),
    ("relu", 1.0, -4.0): (9.2, 1.0),
    ("relu", 1.0, 2.0): (-0.8, 0.02),
}
SLOPE = 1e-4  # below which a unit is frozen
OF_SHIFTED = ("relu", "selu")  # in figure A.4 of a z + b, the others of a (z + b)

Table = Any  # pandas.DataFrame


class Numbers(NamedTuple):
    """A figure of numbers.

    Attributes:
      name: as in the paper.
      table: samples -> its table.
      draw: (a matplotlib figure, its table) -> None.
      height: of the picture, in inches.
      published: its table -> that with what the public code gives; None where it is the same.
    """

    name: str
    table: Callable[[int], Table]
    draw: Callable[[Any, Table], None]
    height: float = 3.6
    published: Callable[[Table], Table] | None = None


def _frame(rows: Sequence[Mapping[str, Any]]) -> Table:
    import pandas as pd

    return pd.DataFrame(rows)


def spectra(samples: int) -> Table:
    """Returns eigenvalues after tanh(a x), the sign and nothing, of 20 units of rank 5."""
    functions: dict[str, Callable] = {f"tanh({a:g} x)": _steeper(a) for a in SCALED}
    functions |= {"sign": jnp.sign, "input": lambda x: x}
    known = {f"tanh({a:g} x)": rank for a, rank in PAPER_3_1.items()}
    known |= {"sign": 9.8, "input": 4.25}
    rows = []
    for name, function in functions.items():
        shares = ranks.spectrum_after(function, samples=samples)
        rank = ranks.rank_of_eigenvalues(shares)
        for place, share in enumerate(shares):
            own = {"function": name, "index": place + 1, "share": share}
            rows.append({**own, "effective_rank": rank, "paper": known[name]})
    return _frame(rows)


def _steeper(a: float) -> Callable:
    return lambda x: jnp.tanh(a * x)


def _draw_spectra(figure: Any, table: Table) -> None:
    left, right = figure.subplots(1, 2)
    for name, one in table.groupby("function", sort=False):
        left.plot(one["index"], np.maximum(one["share"], 1e-12), label=name)
    left.set(yscale="log", xlabel="eigenvalue", ylabel="share", ylim=(1e-6, 1))
    left.legend(fontsize="x-small")
    ends = table.drop_duplicates("function")
    place = np.arange(len(ends))
    right.plot(place, ends["effective_rank"], "o", label="here")
    right.plot(place, ends["paper"], "x", label="paper, read off")
    right.set_xticks(place, ends["function"], rotation=60, fontsize="x-small")
    right.set(ylabel="effective rank", ylim=(0, None))
    right.legend(fontsize="x-small")


def hard(samples: int) -> Table:
    """Returns numerical ranks before and after five activation functions, of 50 units of rank
    10.
    """
    rows = []
    for name in ("relu", "tanh", "gelu", "sigmoid", "elu"):
        before, after = ranks.hard_ranks(ACTIVATIONS[name], samples=samples)
        own = {"function": name, "before": before, "after": after}
        rows.append({**own, "paper_before": 10, "paper_after": 50})
    return _frame(rows)


def _draw_hard(figure: Any, table: Table) -> None:
    axes = figure.subplots()
    place = np.arange(len(table))
    axes.bar(place - 0.2, table["before"], 0.4, label="before")
    axes.bar(place + 0.2, table["after"], 0.4, label="after")
    axes.set_xticks(place, table["function"])
    axes.set_ylabel("singular values above 1e-6 of the largest")
    axes.legend()


def formula(samples: int) -> Table:
    """Returns simulated effective ranks of 100 units and what the formula says, with alpha as the
    paper has it and centered.
    """
    places = 10 if samples >= SAMPLES["reduced"] else 2
    rows = []
    for name in ("relu", "tanh", "gelu"):
        function = ACTIVATIONS[name]
        alphas = [ranks.alpha(function, centred=centred) for centred in (False, True)]
        for eps in np.logspace(-3, -1, places):
            plain, centred = (ranks.effective_rank_after(100, eps, a) for a in alphas)
            simulated = ranks.simulated_rank(function, 100, eps, samples)
            own = {"function": name, "eps": eps, "simulated": simulated}
            rows.append({**own, "uncentred": plain, "centred": centred})
    return _frame(rows)


def _draw_formula(figure: Any, table: Table) -> None:
    every = figure.subplots(1, 3, sharey=True)
    for axes, (name, one) in zip(every, table.groupby("function", sort=False), strict=True):
        axes.plot(one["eps"], one["simulated"], "o", label="simulated")
        axes.plot(one["eps"], one["centred"], "-", label="alpha centered")
        axes.plot(one["eps"], one["uncentred"], "--", label="alpha of the paper")
        axes.set(xscale="log", xlabel="1 - correlation", title=name)
    every[0].set_ylabel("effective rank after")
    every[0].legend(fontsize="x-small")


def frozen(samples: int) -> Table:
    """Returns alpha and the share of frozen inputs of tanh(a z) and relu(z + b), by quadrature, and
    what the paper's figure has at their ends.
    """
    del samples
    rows = [_frozen("tanh", a, 0.0) for a in np.logspace(-1, 2, 20)]
    rows += [_frozen("relu", 1.0, b) for b in np.linspace(-4, 2, 20)]
    places = [(row["function"], row["scale"], row["shift"]) for row in rows]
    known = [PAPER_A_3.get(place, (np.nan, np.nan)) for place in places]
    told = {"paper_alpha": [one[0] for one in known], "paper_frozen": [one[1] for one in known]}
    return _frame(rows).assign(**told)


def _frozen(name: str, scale: float, shift: float) -> dict[str, Any]:
    function = ACTIVATIONS[name]
    silent = ranks.moments(function, scale, shift).square == 0  # where there is no alpha
    return {
        "function": name,
        "scale": scale,
        "shift": shift,
        "alpha": np.nan if silent else ranks.alpha(function, scale, shift),
        "frozen": ranks.frozen_probability(function, scale, shift, SLOPE),
    }


def _draw_frozen(figure: Any, table: Table) -> None:
    every = figure.subplots(1, 2)
    for axes, name, by in zip(every, ("tanh", "relu"), ("scale", "shift"), strict=True):
        one = table[table["function"] == name]
        axes.plot(one[by], one["frozen"], label="share of inputs that are frozen")
        axes.plot(one[by], one["alpha"] / one["alpha"].abs().max(), label="alpha over its largest")
        axes.set(xlabel=by, title=name, xscale="log" if by == "scale" else "linear")
    every[0].legend(fontsize="x-small")


def maps(samples: int) -> Table:
    """Returns alpha and the share of frozen inputs of four functions by scale and shift: f(a z + b)
    of ReLU and SELU, f(a (z + b)) of tanh and the sigmoid.
    """
    places = 25 if samples >= SAMPLES["reduced"] else 2
    shifts = {"relu": (-20, 5), "selu": (-20, 5), "tanh": (-3, 1), "sigmoid": (-3, 1)}
    rows = []
    for name, (low, high) in shifts.items():
        for a in np.logspace(-0.5, 2, places):
            for b in np.linspace(low, high, places):
                times = 1.0 if name in OF_SHIFTED else a
                rows.append({**_frozen(name, a, times * b), "shift": b})
    return _frame(rows)


def with_published(table: Table) -> Table:
    """Returns the table of figure A.4 with a column more, alpha by the public code's quadrature.

    Its nodes of Gauss and Hermite, x of the weight exp(-x^2), become z = x / sqrt(2) instead of
    sqrt(2) x: it is of N(0, 1/4), not of N(0, 1). So its ratio is that of f at half the scale, with
    the derivative of the whole: 4 (1 + alpha) - 1. How far its few nodes are from the integral is
    left out.
    """
    found = []
    for row in table.to_dict("records"):
        times = 1.0 if row["function"] in OF_SHIFTED else row["scale"]
        half = _frozen(row["function"], row["scale"] / 2, times * row["shift"])
        found.append(4 * (1 + half["alpha"]) - 1)
    return table.assign(alpha_as_published=found)


def _draw_maps(figure: Any, table: Table) -> None:
    every = figure.subplots(2, 4)
    for column, (name, one) in enumerate(table.groupby("function", sort=False)):
        for row, value in enumerate(("alpha", "frozen")):
            wide = one.pivot(index="shift", columns="scale", values=value)
            colors = np.log1p(np.maximum(wide, 0)) if value == "alpha" else wide
            axes = every[row][column]
            made = axes.pcolormesh(wide.columns, wide.index, colors, shading="nearest")
            axes.set(xscale="log", title=f"{name}: {'log(1 + alpha)' if not row else 'frozen'}")
            figure.colorbar(made, ax=axes)


FIGURES = {
    one.name: one
    for one in (
        Numbers("3.1", spectra, _draw_spectra),
        Numbers("A.1", hard, _draw_hard),
        Numbers("A.2", formula, _draw_formula),
        Numbers("A.3", frozen, _draw_frozen),
        Numbers("A.4", maps, _draw_maps, height=5, published=with_published),
    )
}


def main(doc: str | None, name: str, argv: Sequence[str] | None = None) -> int:
    """Writes figure_NAME.csv, .png and .svg from the command line and returns the exit code."""
    return computation.main(
        (doc or "") + HELP,
        SCALES,
        lambda folder, scale, progress, as_published: run(
            FIGURES[name], folder, scale, as_published
        ),
        argv,
        {"progress": True, "as_published": False},
    )


def run(numbers: Numbers, folder: Path, scale: str, as_published: bool = False) -> str:
    """Writes table and picture of a figure and returns the line to print. Raises OSError."""
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    with jax.enable_x64(True):
        table = numbers.table(SAMPLES[scale])
        if as_published and numbers.published is not None:
            table = numbers.published(table)
    path = folder / f"figure_{numbers.name}"
    writing.text(f"{path}.csv", table.to_csv(index=False, float_format="%.6g"))
    figure = Figure(figsize=(9, numbers.height), layout="constrained")
    numbers.draw(figure, table)
    for kind in ("png", "svg"):
        curves.store_figure(figure, f"{path}.{kind}")
    return f"figure {numbers.name}: {path}.png"
