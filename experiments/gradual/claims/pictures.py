"""Pictures of the deciding runs, beside their tables: `python -m experiments.gradual.claims
--pictures`.
"""

import pathlib
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from experiments import demo as demo_
from experiments import redrawing
from experiments.gradual.claims import decided, redrawn, tables
from experiments.gradual.claims.tables import Frame
from plasticity_jax.execution import program
from plasticity_jax.reporting import curves, metrics
from plasticity_jax.spec import Spec


def optimizer_state(table: Frame, path: pathlib.Path) -> None:
    """Draws every seed's accuracy against the task, a row without and one with change, a column for
    each optimizer.
    """
    figure, axes = plt.subplots(2, len(decided.VARIANTS), figsize=(13, 5), sharex=True, sharey=True)
    for row, changes in zip(axes, (False, True), strict=True):
        for axis, name in zip(row, decided.VARIANTS, strict=True):
            accuracy = decided.by_task(decided.variant(table, name, changes))
            axis.plot(accuracy.index, accuracy, linewidth=0.9)
            axis.set_title(f"{name}, {'abrupt change' if changes else 'no change'}", fontsize=9)
    _finish(figure, axes, "task", "online accuracy", path)


def postponed(table: Frame, path: pathlib.Path) -> None:
    """Draws the share of seeds that have not fallen below 90 % yet against the task, a panel for
    each learning rate.
    """
    known = decided.rates(table)
    figure, axes = plt.subplots(
        1,
        len(known),
        figsize=(3.3 * len(known), 3.2),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    tasks = np.arange(1, decided.NEVER)
    for axis, rate in zip(axes[0], known, strict=True):
        missing = ""
        for number, arm in enumerate(decided.ARMS):
            first = decided.survival(table, rate, arm).first.dropna().to_numpy()
            if not len(first):
                missing = f"{arm}:\nnever at 90 %"
                continue
            share = (first[:, None] > tasks).mean(axis=0)
            # (apart, so that all are seen)
            color = f"C{number}"
            axis.step(tasks, share + 0.01 * (number - 1), where="post", label=arm, color=color)
        axis.set_title(f"learning rate {rate:g}", fontsize=9)
        if missing:
            axis.text(
                0.97, 0.9, missing, transform=axis.transAxes, ha="right", va="top", fontsize=8
            )
    entries = axes[0, -1].get_legend_handles_labels()
    figure.legend(*entries, fontsize=8, ncols=3, loc="outside lower center")
    _finish(figure, axes, "task", "seeds above 90 % so far", path)


def foretelling(table: Frame, path: pathlib.Path) -> None:
    """Draws every lane's accuracy over tasks 46 to 50 against each probe at task 5, an arm in a
    color.
    """
    figure, axes = plt.subplots(2, 4, figsize=(14, 6.5), sharey=True)
    arms = decided.foretelling_arms(table)
    colors = plt.get_cmap("viridis")(np.linspace(0, 0.9, len(decided.DOSES))).tolist()
    colors += ["tab:red", "tab:orange", "tab:pink"]
    for axis, (probe, words) in zip(axes.flat, decided.PROBES.items(), strict=False):
        for color, (arm, rows) in zip(colors, arms.items(), strict=True):
            early = decided.by_task(rows, probe).loc[decided.EARLY]
            end = decided.by_task(rows).loc[46:50].mean()
            label = f"K = {arm[1:]}" if arm.startswith("K") else arm
            axis.scatter(early, end.loc[early.index], s=14, color=color, label=label)
        if probe in tables.LOGARITHMIC:
            axis.set_xscale("log")
        axis.set_title(f"{words} at task {decided.EARLY}", fontsize=9)
    axes.flat[-1].axis("off")
    axes.flat[-1].legend(*axes.flat[0].get_legend_handles_labels(), fontsize=8, ncols=2)
    _finish(figure, axes, "", "accuracy, tasks 46 to 50", path)


def _finish(figure, axes, across: str, up: str, path: pathlib.Path) -> None:
    for axis in axes[-1]:
        axis.set_xlabel(across)
    for axis in axes[:, 0]:
        axis.set_ylabel(up)
    if figure.get_layout_engine() is None:
        figure.tight_layout()
    curves.store_figure(figure, path, dpi=110)
    plt.close(figure)


PAPER = (
    "online_accuracy",
    "accuracy",
    "loss",
    "hessian_top",
    "representation_change",
    "dormant_fraction",
    "distance_from_init",
    "parameter_norm",
)
ARMS = ("transition", "method", "granularity")


class Whole(NamedTuple):
    """A run that is drawn and averaged apart from any figure's own settings.

    Attributes:
      lanes: names of its tables in results/lanes.
      file: name of its final table, without ending; `title`: of its picture and curves, which have
        the same name; none without one.
      arms: columns that tell its arms apart.
      metrics: what is drawn and averaged, the main one first.
    """

    lanes: tuple[str, ...]
    file: str
    title: str = ""
    arms: tuple[str, ...] = ARMS
    metrics: tuple[str, ...] = PAPER


SEQ2SEQ = ("bleu2", *PAPER[2:])
CONTROLS = (*ARMS, "epochs", "transition_fraction", "random_seq2seq.change")
WHOLE = (
    Whole(
        ("figure_1a_paper_new_seeds",),
        "figure_1a_paper_new_seeds",
        "Figure 1a: Random MNIST, MLP, at the paper's scale, 50 of 100 tasks, seeds 5 to 9",
    ),
    Whole(
        ("figure_1a_paper", "figure_1a_paper_methods"),
        "figure_1a_paper",
        "Figure 1a: Random MNIST, MLP, at the paper's scale, 50 of 100 tasks, 2 of 5 seeds",
    ),
    Whole(("figure_1a_selected",), "figure_1a_selected", arms=(*ARMS, "learning_rate")),
    Whole(("figure_5a_80_epochs",), "abrupt_80_epochs", arms=(*ARMS, "epochs")),
    Whole(
        ("figure_2_selected",),
        "figure_2_selected",
        "Figure 2 with selected settings: Random Seq2Seq, T5, reduced scale",
        (*ARMS, "learning_rate"),
        SEQ2SEQ,
    ),
    Whole(
        ("figure_2_controls",),
        "figure_2_controls",
        "Figure 2, controls: Random Seq2Seq, T5, reduced scale",
        CONTROLS,
        SEQ2SEQ,
    ),
)


def whole(one: Whole, folder: pathlib.Path) -> pathlib.Path:
    """Writes the final table of a run with all its arms, and with a title its picture and curves;
    returns the path of the picture, else that of the table.
    """
    table = redrawn.kept_lanes(one.lanes)
    # (arms in the order of their settings, not of the runs)
    table["lane"] = table.groupby([*one.arms, "seed"]).ngroup()
    return redrawing.store(table, one.arms, one.metrics, folder / one.file, one.title)


def demo(folder: pathlib.Path) -> pathlib.Path:
    """Draws what `make demo` draws, and its accuracy alone with its arms in plain words, for a
    first screen; returns the path of that picture.
    """
    spec = Spec(dataset="digits", samples=1280)
    data = program.device_data(program.load_dataset(spec))
    title, note = demo_.EXPERIMENT.title, demo_.NOTE
    chance = metrics.chance([spec.make_environment()], data, "online_accuracy")
    usual = curves.Drawing(title=title, note=note, chance=chance, formats=("png",))
    drawing = curves.Drawing(
        chance=chance,
        panels=(),
        names=("labels change at once", "in 4 steps", "in 20 steps"),
        width="double",
        formats=("png",),
    )
    table = redrawn.kept_lanes(("demo",))
    curves.curves(table, ["transition", "granularity"], folder / "demo", usual)
    (drawn,) = curves.curves(table, ["granularity"], folder / "demo_accuracy", drawing)
    return drawn


def _kept(one: Whole) -> bool:
    return all((tables.FOLDER / "lanes" / f"{name}.parquet").exists() for name in one.lanes)


PICTURES = {"optimizer_state": optimizer_state, "postponed": postponed, "foretelling": foretelling}


def draw(
    folder: pathlib.Path | None = None, found: dict[str, pd.DataFrame] | None = None
) -> list[pathlib.Path]:
    """Draws the picture of every run that is finished (or of the tables `found`) and returns their
    paths.
    """
    made = []
    for name, picture in PICTURES.items():
        table = (found or {}).get(name) if found is not None else decided.found(name)
        if table is not None:
            made.append((folder or tables.FOLDER) / f"{name}.png")
            picture(table, made[-1])
    if found is None:
        made += [whole(one, tables.FOLDER) for one in WHOLE if _kept(one)]
        if (tables.FOLDER / "lanes" / "demo.parquet").exists():
            made.append(demo(tables.FOLDER))
    return made
