"""Does the trap foretell a fall in accuracy, and better than what is usually measured?

Question: of tasks before a network's accuracy falls, which are followed by the fall within five
tasks? Can the probe `trap` tell, and how much better or worse than dormant units, effective rank,
the largest Hessian eigenvalue, or the mere number of the task?
Source: ours; the networks are those of Liu & Mou's figure 1a (abrupt change, no method), or of
class split with --stream=class_split, an MLP.
Command: python -m experiments.barriers.foretelling --data_dir=DIR --workdir=runs/foretelling
Rule: a fall is the first task below 90 % of the mean of tasks 2 to 5. A case is a lane at the end
of a task from the fifth on and before its fall, whose next five tasks are known or hold the fall.
Which way a score counts, and its threshold (largest sensitivity plus specificity), are chosen on
the first third of the seeds and reported on the others. Intervals are of bootstraps over lanes.
`of_one_task` compares cases of the same task alone: what a score tells beyond the time.
Writes: foretelling.csv, foretelling.png.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.barriers import settings
from experiments.benchmark import SCALES
from experiments.gradual import settings as gradual
from plasticity_jax import registry
from plasticity_jax.cli import flags, launcher
from plasticity_jax.reporting import curves
from plasticity_jax.storage import writing

HELP = """
This run's own flags
  --scale=reduced                      paper, reduced or smoke
  --stream=labels                      labels or class_split
"""
METRIC = "online_accuracy"
SHARE, AHEAD, FIRST = 0.9, 5, slice(1, 5)  # of what is called a fall, and tasks 2 to 5
SCORES = {
    "trap": "distance from a clone",
    "trap/relative": "least relative distance of two units",
    "trap/curvature": "curvature at the nearest clone",
    "trap/frozen_distance": "distance from a frozen unit",
    "trap/frozen": "inputs on which the flattest unit is not flat",
    "dormant_fraction": "dormant units",
    "effective_rank": "effective rank",
    "hessian_top": "largest Hessian eigenvalue",
    "task": "number of the task",
}
PROBES = ("trap", "dormant_fraction", "effective_rank", "hessian_top")
RESAMPLES = 2000
TIMELESS = ("of_one_task", "of_one_task_low", "of_one_task_high")  # columns of `at_one_time`


def defaults(stream: str, scale: str) -> dict[str, Any]:
    """Returns the settings of a run: abrupt change without a method."""
    own: dict[str, Any] = {"probes": PROBES, "seeds": 30, "first_seed": 0}
    if scale == "smoke":
        own |= {"seeds": 3, "tasks": 12}
    if stream == "class_split":
        known = settings.BENCHMARKS["class_split"].at(scale)
        return {**known, "model": "mlp", **own}
    known = gradual.BENCHMARKS["random_mnist"].at(scale)
    return {**known, "method": "none", "granularity": 1, **own}


def fall(accuracy: np.ndarray) -> int | None:
    """Returns the number of the task at which a lane's accuracy [tasks] has fallen, if it has."""
    low = np.flatnonzero(accuracy < SHARE * accuracy[FIRST].mean())
    later = low[low >= FIRST.stop]
    return int(later[0]) if len(later) else None


def cases(table: Any) -> Any:
    """Returns the rows of a table that are cases, with the column `falls`, bool."""
    import pandas as pd

    kept = []
    for _, lane in table.sort_values("task").groupby("lane"):
        at = fall(lane[METRIC].to_numpy())
        last = lane["task"].max() - AHEAD if at is None else at - 1
        within = lane["task"].between(FIRST.stop - 1, last)
        near = lane["task"] >= (np.inf if at is None else at - AHEAD)
        kept.append(lane.assign(falls=near)[within])
    return pd.concat(kept, ignore_index=True)


def area(score: np.ndarray, falls: np.ndarray) -> float:
    """Returns the area under the ROC curve, ties counting half; NaN where all cases are alike."""
    from scipy import stats

    known = np.isfinite(score)
    score, falls = score[known], falls[known]
    yes, no = falls.sum(), (~falls).sum()
    if not yes or not no:
        return float("nan")
    ranks = stats.rankdata(score)[falls].sum()
    return float((ranks - yes * (yes + 1) / 2) / (yes * no))


def threshold(score: np.ndarray, falls: np.ndarray) -> float:
    """Returns the score from which on a fall is foretold, of the largest sum of sensitivity and
    specificity.
    """
    places = np.unique(score[np.isfinite(score)])
    sums = [np.mean(score[falls] >= at) + np.mean(score[~falls] < at) for at in places]
    return float(places[int(np.argmax(sums))])


def judged(table: Any, seed: int = 0) -> Any:
    """Returns a row for each score: which way it counts, the area under its ROC curve on the later
    seeds with a 95 % interval, the same among cases of one task, and sensitivity and specificity
    of the chosen threshold there.

    Raises ValueError if there are no cases of both kinds in both parts.
    """
    import pandas as pd

    found = cases(table)
    seeds = np.sort(table["seed"].unique())
    early = found["seed"].isin(seeds[: len(seeds) // 3]).to_numpy()
    for part, name in ((early, "first"), (~early, "other")):
        count = found["falls"][part].nunique()
        if count < 2:
            raise ValueError(
                f"the {name} seeds have {part.sum()} cases, all alike: allowed are runs in which "
                "some networks fall and some do not."
            )
    rows = []
    for column in (name for name in SCORES if name in found):
        score, falls = found[column].to_numpy(float), found["falls"].to_numpy(bool)
        sign = 1.0 if area(score[early], falls[early]) >= 0.5 else -1.0
        edge = threshold(sign * score[early], falls[early])
        late = found[~early].assign(score=sign * score[~early])
        low, high = _interval(late, np.random.default_rng(seed))
        timeless = at_one_time(late, np.random.default_rng(seed))
        told = (late["score"] >= edge).to_numpy()
        yes = late["falls"].to_numpy(bool)
        rows.append(
            {
                "score": column,
                "falls_if": "high" if sign > 0 else "low",
                "area": area(late["score"].to_numpy(), yes),
                "low": low,
                "high": high,
                **dict(zip(TIMELESS, timeless, strict=True)),
                "threshold": sign * edge,
                "sensitivity": told[yes].mean(),
                "specificity": (~told)[~yes].mean(),
                "cases": len(yes),
                "falls": int(yes.sum()),
                "lanes": late["lane"].nunique(),
            }
        )
    return pd.DataFrame(rows)


def at_one_time(late: Any, random: np.random.Generator) -> tuple[float, float, float]:
    """Returns the area under the curve of `late["score"]` among cases of the same task alone, and
    95 % of bootstraps over lanes: what a score tells beyond the time. NaN where no two cases of one
    task differ.
    """
    score, task = late["score"].to_numpy(float), late["task"].to_numpy()
    falls, known = late["falls"].to_numpy(bool), np.isfinite(score)
    pairs = np.outer(falls & known, ~falls & known) & np.equal.outer(task, task)
    won = pairs * (np.greater.outer(score, score) + np.equal.outer(score, score) / 2)
    lane = np.equal.outer(late["lane"].to_numpy(), late["lane"].unique()).astype(float)
    count = lane.shape[1]
    drawn = random.multinomial(count, [1 / count] * count, size=RESAMPLES)
    times = np.concatenate([np.ones((1, count)), drawn])
    parts = [np.einsum("ra,ab,rb->r", times, lane.T @ one @ lane, times) for one in (won, pairs)]
    areas = np.divide(*parts, out=np.full(len(times), np.nan), where=parts[1] > 0)
    if np.isnan(areas).all():
        return float("nan"), float("nan"), float("nan")
    low, high = np.nanpercentile(areas[1:], [2.5, 97.5])
    return float(areas[0]), float(low), float(high)


def _interval(late: Any, random: np.random.Generator) -> tuple[float, float]:
    """95 % of bootstraps over lanes of the area under the curve."""
    lanes = [one[["score", "falls"]].to_numpy(float) for _, one in late.groupby("lane")]
    areas = []
    for _ in range(RESAMPLES):
        drawn = [lanes[place] for place in random.integers(len(lanes), size=len(lanes))]
        both = np.concatenate(drawn)
        areas.append(area(both[:, 0], both[:, 1] > 0))
    low, high = np.nanpercentile(areas, [2.5, 97.5])
    return float(low), float(high)


def picture(found: Any, title: str, path: Path) -> None:
    """Draws the areas with their intervals."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    place = np.arange(len(found))[::-1]
    width = np.stack([found["area"] - found["low"], found["high"] - found["area"]])
    axes.errorbar(found["area"], place, xerr=np.maximum(width, 0), fmt="o", capsize=3)
    axes.axvline(0.5, color="0.6", linewidth=1)
    axes.set_yticks(place, [SCORES[name] for name in found["score"]])
    axes.set_xlabel("area under the ROC curve, 95 % interval over lanes")
    axes.set_title(title)
    curves.store_figure(figure, path)


def analysed(table: Any, values: flags.Values, title: str) -> str:
    """Writes foretelling.csv and foretelling.png into the workdir; returns what was found."""
    folder = Path(values["workdir"])
    fallen = [fall(lane[METRIC].to_numpy()) for _, lane in table.groupby("lane")]
    told = f"{sum(at is not None for at in fallen)} of {len(fallen)} networks fell."
    try:
        found = judged(table)
    except ValueError as error:
        return f"{told} Nothing can be said: {error}"
    writing.text(folder / "foretelling.csv", found.round(6).to_csv(index=False))
    picture(found, title, folder / "foretelling.png")
    shown = ["score", "falls_if", "area", "low", "high", *TIMELESS, "sensitivity", "specificity"]
    return f"{told}\n{found[shown].round(3).to_string(index=False)}"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs it from the command line and returns the exit code."""
    known: dict[str, Any] = {"scale": "reduced", "stream": "labels"}
    try:
        own, rest = flags.own(known, sys.argv[1:] if argv is None else argv)
        scale = registry.one_of("scale", own["scale"], SCALES)
        stream = registry.one_of("stream", own["stream"], ("labels", "class_split"))
    except ValueError as error:
        return launcher.fault(error, launcher.USAGE)
    title = f"What foretells a fall: {'random labels' if stream == 'labels' else 'class split'}"
    experiment = launcher.Experiment(
        (__doc__ or "") + HELP,
        defaults(stream, scale),
        title=title,
        metric="trap",
        then=lambda table, columns, values: analysed(table, values, title),
    )
    return launcher.launch(experiment, rest)


if __name__ == "__main__":
    sys.exit(main())
