"""The factorial that the paper lacks: layer norm x L2 x two-hot or smoothed targets, on each
stream.

Question: are the remedies additive, less or more than that, and on which stream?
Source: Lyle et al. name the mechanisms independent and the remedies additive; there is no factorial
design in the paper, so this one is ours.
Command: python -m experiments.disentangling.factorial --data_dir=DIR
--workdir=runs/disentangling_factorial --scale=reduced (--stream=labels, offset or composite for
one; --granularity=1,20 with --stream=labels and --transition=output adds how gradual a change is)
Rule: the outcome is a seed's mean over the last tasks (--last), of accuracy or of minus the
logarithm of the squared error to base 10. An effect is the mean with a remedy less that without, an
interaction half the difference of two such differences, with Student's intervals over seeds. A pair
with a cell at its ceiling is called saturated, not additive.
"""

import itertools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.benchmark import SCALES
from experiments.disentangling import settings
from plasticity_jax import registry
from plasticity_jax.cli import flags, launcher

HELP = """
This run's own flags
  --scale=reduced                      numbers of every setting: paper, reduced or smoke
  --stream=labels,offset,composite     which streams
"""
CEILING = 0.99  # of an accuracy
FACTORS = ("layer norm", "L2", "output")
STRENGTH = 1e-4  # of L2 where it is on: ours


class Stream(NamedTuple):
    """One stream.

    Attributes:
      benchmark: whose settings it has.
      changes: settings of its own.
      head: what stands against the linear head.
      metric: column of the outcome.
    """

    benchmark: str
    changes: Mapping[str, Any]
    head: str
    metric: str


STREAMS = {
    "labels": Stream("interventions", {"smoothed.smoothing": 0.01}, "smoothed", "online_accuracy"),
    "offset": Stream(
        "offsets",
        {"target_offset.offset": 100.0, "two_hot.low": 90.0, "two_hot.high": 110.0},
        "two_hot",
        "squared_error",
    ),
    "composite": Stream("composite", {}, "two_hot", "online_accuracy"),
}


def arms(stream: Stream) -> list[dict[str, Any]]:
    """Returns the grids of the eight cells; L2 of strength 0 is none, so it is an axis of lanes."""
    strengths = {"method": "l2", "l2.strength": (0.0, STRENGTH), "norm": ("none", "layer")}
    own = {name: value for name, value in stream.changes.items() if _of_head(stream, name)}
    return [{**strengths, "head": "linear"}, {**strengths, "head": stream.head, **own}]


def _of_head(stream: Stream, name: str) -> bool:
    return name.partition(".")[0] == stream.head


def defaults(stream: Stream, scale: str) -> dict[str, Any]:
    """Returns the settings of all cells of a stream at a scale."""
    known = settings.BENCHMARKS[stream.benchmark].at(scale)
    rest = {name: value for name, value in stream.changes.items() if not _of_head(stream, name)}
    head = {k: v for k, v in known.items() if k.partition(".")[0] not in ("l2", "two_hot")}
    return {**head, **rest, "probes": ("parameter_norm",)}


def outcomes(table: Any, metric: str, last: int) -> Any:
    """Returns a row for each cell and seed: the three factors as 0 or 1, seed, outcome.

    Raises ValueError if a cell lacks a seed that another one has.
    """
    kept = table[table["task"] > table["task"].max() - last].copy()
    kept[FACTORS[0]] = (kept["norm"] == "layer").astype(int)
    kept[FACTORS[1]] = (kept["l2.strength"] > 0).astype(int)
    kept[FACTORS[2]] = (kept["head"] != "linear").astype(int)
    found = kept.groupby([*FACTORS, "seed"], as_index=False)[metric].mean()
    found = found.rename(columns={metric: "outcome"})
    if metric == "squared_error":
        found["outcome"] = -np.log10(found["outcome"])
    seeds = found["seed"].nunique()
    if len(found) != 2 ** len(FACTORS) * seeds or found["outcome"].isna().any():
        raise ValueError(
            f"there are {len(found.dropna())} outcomes of {seeds} seeds: allowed are all of "
            f"{2 ** len(FACTORS)} cells with each seed."
        )
    return found


def effects(cells: Any, level: float = 0.95) -> Any:
    """Returns the main effects and interactions of `outcomes`, with intervals over paired seeds.

    With signs s = -1, 1 of a factor's levels, an effect is the sum over the eight cells of the
    product of its factors' signs times the outcome, over four; each seed gives one, and the
    interval is Student's. For a balanced design these are the coefficients, doubled, of a linear
    model with an intercept for each seed. One seed has no interval (NaN).
    """
    import pandas as pd
    from scipy import stats

    wide = cells.pivot(index="seed", columns=list(FACTORS), values="outcome")
    signs = 2 * np.array(list(wide.columns)) - 1
    rows = []
    for size in range(1, len(FACTORS) + 1):
        for chosen in itertools.combinations(range(len(FACTORS)), size):
            contrast = wide.to_numpy() @ signs[:, chosen].prod(axis=1) / 4
            count = len(contrast)
            half = np.nan
            if count > 1:
                spread = contrast.std(ddof=1) / np.sqrt(count)
                half = stats.t.ppf((1 + level) / 2, count - 1) * spread
            mean = contrast.mean()
            name = " x ".join(FACTORS[i] for i in chosen)
            rows.append((name, size, mean, mean - half, mean + half, count))
    return pd.DataFrame(rows, columns=["effect", "factors", "mean", "low", "high", "seeds"])


def verdicts(cells: Any, found: Any, ceiling: float | None) -> list[str]:
    """Returns a sentence for each pair of remedies; `ceiling` is the outcome that none can pass."""
    means = cells.groupby(list(FACTORS), as_index=False)["outcome"].mean()
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


def picture(found: Any, title: str, path: Path) -> None:
    """Draws the effects with their intervals."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    place = np.arange(len(found))[::-1]
    width = np.stack([found["mean"] - found["low"], found["high"] - found["mean"]])
    axes.errorbar(found["mean"], place, xerr=np.nan_to_num(width), fmt="o", capsize=3)
    axes.axvline(0, color="0.6", linewidth=1)
    axes.set_yticks(place, found["effect"])
    axes.set_xlabel("effect on the outcome, 95 % interval over seeds")
    axes.set_title(title)
    figure.savefig(path)


def analysed(stream: str, table: Any, values: flags.Values) -> str:
    """Writes factorial.csv and factorial.png of a stream into the workdir; returns what was
    found.
    """
    metric = STREAMS[stream].metric
    cells = outcomes(table, metric, int(values["last"]))
    found = effects(cells)
    folder = Path(values["workdir"])
    found.round(6).to_csv(folder / "factorial.csv", index=False)
    picture(found, f"Stream: {stream}", folder / "factorial.png")
    ceiling = CEILING if metric == "online_accuracy" else None
    return "\n".join([f"stream {stream}:", *verdicts(cells, found, ceiling)])


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the streams one after another, each in a folder of its own; returns the exit code."""
    known: dict[str, Any] = {"scale": "reduced", "stream": ",".join(STREAMS)}
    try:
        own, rest = flags.own(known, sys.argv[1:] if argv is None else argv)
        scale = registry.one_of("scale", own["scale"], SCALES)
        names = own["stream"].split(",")
        for name in names:
            registry.lookup(STREAMS, "stream", name)
    except ValueError as error:
        return launcher.fault(error, launcher.USAGE)
    for name in names:
        stream = STREAMS[name]
        inside = [
            f"{text.rstrip('/')}/{name}" if text.startswith("--workdir=") else text for text in rest
        ]
        experiment = launcher.Experiment(
            (__doc__ or "") + HELP,
            defaults(stream, scale),
            arms(stream),
            title=f"Factorial: {settings.BENCHMARKS[stream.benchmark].title}",
            metric=stream.metric,
            then=lambda table, columns, values, name=name: analysed(name, table, values),
        )
        if code := launcher.launch(experiment, inside):
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
