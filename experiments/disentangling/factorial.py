"""The factorial that the paper lacks: layer norm x L2 x output, on each stream: two-hot or
smoothed targets, or outputs divided by their norm.

Question: are the remedies additive, less or more than that, and on which stream?
Source: Lyle et al. name the mechanisms independent and the remedies additive; there is no factorial
design in the paper, so this one is ours.
Command: python -m experiments.disentangling.factorial --data_dir=DIR
    --workdir=runs/disentangling_factorial --scale=reduced
(--stream=labels, labels_scale_invariant, offset, composite, continual or growing for one;
--granularity=1,20 with --stream=labels and --transition=output makes gradual change a fourth
factor)
Rule: the outcome is a seed's mean over the last tasks (--last), of accuracy or of minus the
logarithm of the squared error to base 10; its best mean over as many tasks in a row is told beside
it. An effect is the mean with a remedy less that without, an interaction half the difference of two
such differences, with Student's intervals over seeds. A pair with a cell at its ceiling is called
saturated, not additive.
"""

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import presence as effects_
from experiments.disentangling import presence, streams
from experiments.disentangling.streams import STREAMS, Stream, defaults
from plasticity_jax.cli import flags, launcher
from plasticity_jax.reporting import curves
from plasticity_jax.storage import writing

CEILING = 0.99  # of an accuracy
FACTORS = ("layer norm", "L2", "output")
GRADUAL = "gradual change"  # the fourth, where there are two granularities
STRENGTH = 1e-4  # of L2 where it is on: ours


def arms(stream: Stream) -> list[dict[str, Any]]:
    """Returns the grids of the eight cells; L2 of strength 0 is none, so it is an axis of lanes."""
    strengths = {"method": "l2", "l2.strength": (0.0, STRENGTH), "norm": ("none", "layer")}
    own = {name: v for name, v in stream.changes.items() if streams.of_head(stream, name)}
    return [{**strengths, "head": "linear"}, {**strengths, "head": stream.head, **own}]


def factors(cells: Any) -> list[str]:
    """Returns the factors of `outcomes`."""
    return [name for name in (*FACTORS, GRADUAL) if name in cells]


def outcomes(table: Any, metric: str, last: int) -> Any:
    """Returns a row for each cell and seed: the factors as 0 or 1, seed, `outcome`, the mean over
    the `last` tasks, and `peak`, the best mean over as many tasks in a row.

    Raises ValueError if a cell lacks a seed that another one has, or for other than one or two
    granularities.
    """
    import pandas as pd

    whole = table.copy()
    whole[FACTORS[0]] = (whole["norm"] == "layer").astype(int)
    whole[FACTORS[1]] = (whole["l2.strength"] > 0).astype(int)
    whole[FACTORS[2]] = (whole["head"] != "linear").astype(int)
    known = sorted(set(whole["granularity"])) if "granularity" in whole else [1]
    if len(known) > 2:
        raise ValueError(f"granularities are {known}: allowed are one, or two for a fourth factor.")
    if len(known) == 2:
        whole[GRADUAL] = (whole["granularity"] == known[1]).astype(int)
    names = factors(whole)
    sign = -1 if metric == streams.ERROR else 1
    rows = []
    for cell, part in whole.groupby([*names, "seed"]):
        values = sign * part.sort_values("task")[metric]
        means = values.rolling(min(last, len(values))).mean()
        rows.append((*cell, sign * means.iloc[-1], sign * means.max()))
    found = pd.DataFrame(rows, columns=[*names, "seed", "outcome", "peak"])
    if sign < 0:
        found[["outcome", "peak"]] = -np.log10(found[["outcome", "peak"]])
    seeds, lacking = found["seed"].nunique(), bool(found["outcome"].isna().to_numpy().any())
    if len(found) != 2 ** len(names) * seeds or lacking:
        raise ValueError(
            f"there are {len(found.dropna())} outcomes of {seeds} seeds: allowed are all of "
            f"{2 ** len(names)} cells with each seed."
        )
    return found


def effects(cells: Any, level: float = 0.95) -> Any:
    """Returns the main effects and interactions of `outcomes`, with intervals over paired seeds.

    With signs s = -1, 1 of a factor's levels, an effect of n factors' design is the sum over its
    2^n cells of the product of the signs of the factors in question times the outcome, over
    2^(n-1); each seed gives one, and the interval is Student's. For a balanced design these are the
    coefficients, doubled, of a linear model with an intercept for each seed. One seed has no
    interval (NaN).
    """
    import pandas as pd

    names = factors(cells)
    wide = cells.pivot(index="seed", columns=names, values="outcome")
    signs = 2 * np.array(list(wide.columns)) - 1
    rows = []
    for size in range(1, len(names) + 1):
        for chosen in itertools.combinations(range(len(names)), size):
            contrast = wide.to_numpy() @ signs[:, chosen].prod(axis=1) / 2 ** (len(names) - 1)
            name = " x ".join(names[i] for i in chosen)
            rows.append((name, size, *_interval(contrast, level), len(contrast)))
    return pd.DataFrame(rows, columns=["effect", "factors", "mean", "low", "high", "seeds"])


def _interval(values: Any, level: float = 0.95) -> tuple[float, float, float]:
    """Mean of a value of each seed, and Student's interval."""
    from scipy import stats

    mean, count = values.mean(), len(values)
    if count < 2:
        return mean, np.nan, np.nan
    spread = values.std(ddof=1) / np.sqrt(count)
    half = stats.t.ppf((1 + level) / 2, count - 1) * spread
    return mean, mean - half, mean + half


def verdicts(cells: Any, found: Any, ceiling: float | None) -> list[str]:
    """Returns a sentence for each pair of remedies; `ceiling` is the outcome that none can pass."""
    means = cells.groupby(factors(cells), as_index=False)["outcome"].mean()
    told = []
    for row in found[found["factors"] == 2].itertuples():
        pair = str(row.effect)
        both = means[(means[pair.split(" x ")] == 1).all(axis=1)]["outcome"]
        if ceiling is not None and (both >= ceiling).any():
            told.append(f"{pair}: saturated, a cell with both is at its ceiling.")
        elif row.low > 0:
            told.append(f"{pair}: together more than the sum.")
        elif row.high < 0:
            told.append(f"{pair}: together less than the sum.")
        else:
            told.append(f"{pair}: no interaction seen, the interval holds 0.")
    return told


def summary(cells: Any) -> Any:
    """Returns a row for each cell: its name, mean outcome with interval, mean peak."""
    import pandas as pd

    names, rows = factors(cells), []
    for cell, part in cells.groupby(names):
        on = [name for name, level in zip(names, cell, strict=True) if level]
        interval = _interval(part["outcome"].to_numpy())
        rows.append((" + ".join(on) or "none", len(on), *interval, part["peak"].mean()))
    found = pd.DataFrame(rows, columns=["cell", "remedies", "mean", "low", "high", "peak"])
    return found.sort_values("remedies", kind="stable", ignore_index=True)


def picture(cells: Any, found: Any, title: str, outcome: str, path: Path) -> None:
    """Draws what each cell reaches beside the effects, with their intervals."""
    from matplotlib.figure import Figure

    reached = summary(cells)
    figure = Figure(figsize=(11, 0.9 + 0.26 * len(reached)), layout="constrained")
    left, right = figure.subplots(1, 2)
    place = np.arange(len(reached))[::-1]
    _intervals(left, reached, place)
    left.plot(reached["peak"], place, "|", color="0.4", markersize=10, label="best in between")
    left.set_yticks(place, reached["cell"])
    left.set_xlabel(outcome)
    place = np.arange(len(found))[::-1]
    _intervals(right, found, place)
    right.axvline(0, color="0.6", linewidth=1)
    right.set_yticks(place, found["effect"])
    right.set_xlabel("effect, 95 % interval over seeds")
    figure.suptitle(title)
    # (inside the axes its tick would read as one more cell's)
    figure.legend(loc="outside lower left", frameon=False, fontsize=8)
    curves.store_figure(figure, path)


def outcome_label(metric: str, last: int) -> str:
    """Returns what the outcome is called in pictures."""
    what = "-log10 of the squared error" if metric == streams.ERROR else metric.replace("_", " ")
    return f"mean of the last {last} tasks: {what}"


def _intervals(axes: Any, rows: Any, place: Any) -> None:
    width = np.stack([rows["mean"] - rows["low"], rows["high"] - rows["mean"]])
    axes.errorbar(rows["mean"], place, xerr=np.nan_to_num(width), fmt="o", capsize=3)


def analysed(stream: str, table: Any, values: flags.Values) -> str:
    """Writes factorial.csv, factorial_cells.csv and factorial.png of a stream into the workdir;
    returns what was found.
    """
    metric, last = STREAMS[stream].metric, int(values["last"])
    cells = outcomes(table, metric, last)
    found = effects(cells)
    folder = Path(values["workdir"])
    writing.text(folder / "factorial.csv", found.round(6).to_csv(index=False))
    writing.text(folder / "factorial_cells.csv", summary(cells).round(6).to_csv(index=False))
    outcome = outcome_label(metric, last)
    picture(cells, found, f"Stream: {stream}", outcome, folder / "factorial.png")
    ceiling = CEILING if metric == "online_accuracy" else None
    effect = effects_.told(stream, effects_.fallen(presence.bare(table), metric, last))
    return "\n".join([effect, *verdicts(cells, found, ceiling)])


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the streams one after another, each in a folder of its own; returns the exit code."""

    def experiment(name: str, scale: str, doc: str) -> launcher.Experiment:
        stream = STREAMS[name]
        return launcher.Experiment(
            doc,
            defaults(stream, scale),
            arms(stream),
            title=f"Factorial: {streams.title(stream)}",
            metric=stream.metric,
            then=lambda table, columns, values: analysed(name, table, values),
        )

    return streams.launch(__doc__, experiment, argv)


if __name__ == "__main__":
    sys.exit(main())
