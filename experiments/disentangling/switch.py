"""The course of a task's first steps, from a run's points.parquet: what happens after a switch, and
what Lyle et al. say of it (figure 2, left and middle).
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from experiments.accounts import Claim, Contrast, arm
from plasticity_jax.reporting import curves, statistics
from plasticity_jax.storage import writing

SHOWN = {
    "dormant_fraction": "dormant units",
    "preactivation": "mean preactivation",
    "preactivation/size": "mean size of a unit's mean preactivation",
    "gradient_alignment": "alignment of first-layer gradients",
    "online_loss": "loss of the minibatch",
}
KINDS = ("-", "--", ":", "-.")


DEAD, ALONG = "dormant_fraction", "gradient_alignment"
POINTS = "figure_2a_points"  # kept lanes, on MNIST
TASKS = (2, 10)  # from 1
ARMS = tuple(itertools.product(("none", "layer"), TASKS))


def _between(norm: str, metric: str, task: int, first: int, then: int) -> Contrast:
    """What a measurement has some steps after a switch less what it has after fewer."""

    def of(table: Any) -> np.ndarray:
        before, after = (
            arm(table, {"norm": norm, "point": point}, metric).loc[task - 1]
            for point in (first, then)
        )
        return (after - before).to_numpy()

    return of


def _most(norm: str, task: int) -> Contrast:
    """By how much gradients move a unit more uniformly than half of the way, at once."""
    where = {"norm": norm, "point": 0}
    return lambda table: arm(table, where, ALONG).loc[task - 1].to_numpy() - 0.5


CLAIMS = (
    Claim(
        "2, left, MNIST",
        "without norm units die after a switch: dormant units after 50 steps over those before",
        POINTS,
        "points",
        {f"task {task}": _between("none", DEAD, task, 0, 50) for task in TASKS},
    ),
    Claim(
        "2, left, MNIST",
        "with layer norm they do too, but are back within 400 steps: after 50 steps over those "
        "before, and over those after 400",
        POINTS,
        "points",
        {f"task {task}, up": _between("layer", DEAD, task, 0, 50) for task in TASKS}
        | {f"task {task}, down": _between("layer", DEAD, task, 400, 50) for task in TASKS},
    ),
    Claim(
        "2, middle, MNIST",
        "gradients push what a first-layer unit gets one way: uniformity at once over one half",
        POINTS,
        "",
        {f"{norm}, task {task}": _most(norm, task) for norm, task in ARMS},
    ),
    Claim(
        "2, middle, MNIST",
        "in a first phase, so more than later: uniformity at once over that after 700 steps",
        POINTS,
        "",
        {f"{norm}, task {task}": _between(norm, ALONG, task, 700, 0) for norm, task in ARMS},
    ),
)


def drawn(table: Any, columns: Sequence[str], workdir: Path, path: Path) -> list[str]:
    """Draws PATH_switch.png and writes PATH_switch.csv, of the first switch and of the last one, if
    the run measured at chosen steps; returns a line that says where.

    The lines are means over seeds with Student's intervals (95 %).
    """
    if not (workdir / "points.parquet").is_file():
        return []
    found = course(table, columns, workdir)
    if found["point"].max() < 2:
        return []
    writing.text(f"{path}_switch.csv", found.round(6).to_csv(index=False))
    picture(found, f"{path}_switch.png")
    return [f"first steps after a switch: {path}_switch.png"]


def course(table: Any, columns: Sequence[str], workdir: Path) -> Any:
    """Returns a row for each arm, task (the second and the last), measurement and step: mean, low
    and high over seeds, as pandas.DataFrame.
    """
    import pandas as pd

    points = pd.read_parquet(workdir / "points.parquet")
    metrics = [name for name in SHOWN if name in points]
    labels = statistics.arm_labels(table, columns)
    arms = statistics.final(table, columns, "online_loss")[list(columns)].assign(arm=labels)
    lanes = table.drop_duplicates("lane")[["lane", *columns]].merge(arms, on=list(columns))
    points = points.merge(lanes[["lane", "arm"]], on="lane")
    ends = sorted({1, int(points["task"].to_numpy().max())} & set(points["task"]))
    long = points[points["task"].isin(ends)].melt(["arm", "task", "seed", "point"], metrics)
    names, rows = ["arm", "task", "variable", "point"], []
    for key, part in long.dropna().groupby(names, sort=False):
        about = dict(zip(names, cast(tuple, key), strict=True))
        mean, low, high = _interval(part["value"].to_numpy(np.float64))
        rows.append({**about, "mean": mean, "low": low, "high": high, "seeds": len(part)})
    return pd.DataFrame(rows).rename(columns={"variable": "metric"})


def _interval(values: np.ndarray) -> tuple[float, float, float]:
    from scipy import stats

    mean, count = values.mean(), len(values)
    if count < 2:
        return mean, np.nan, np.nan
    half = stats.t.ppf(0.975, count - 1) * values.std(ddof=1) / np.sqrt(count)
    return mean, mean - half, mean + half


def picture(found: Any, path: str) -> None:
    """Draws every measurement against the step after a switch, a row for each task."""
    from matplotlib.figure import Figure

    metrics = [name for name in SHOWN if name in set(found["metric"])]
    tasks = sorted(set(found["task"]))
    size = 3.2 * len(metrics), 2.6 * len(tasks)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(tasks), len(metrics), squeeze=False, sharex=True)
    for row, task in zip(grid, tasks, strict=True):
        for axes, metric in zip(row, metrics, strict=True):
            part = found[(found["task"] == task) & (found["metric"] == metric)]
            for kind, (name, line) in zip(KINDS, part.groupby("arm", sort=False), strict=False):
                line = line.sort_values("point")
                axes.plot(line["point"], line["mean"], kind, label=name)
                axes.fill_between(line["point"], line["low"], line["high"], alpha=0.2)
            axes.set_xscale("symlog", linthresh=1)
            axes.set_title(f"{SHOWN[metric]}, task {task + 1}", fontsize=7)
    for axes in grid[-1]:
        axes.set_xlabel("steps after the switch")
    grid[0][0].legend(frameon=False, fontsize=8)
    curves.store_figure(figure, path)
