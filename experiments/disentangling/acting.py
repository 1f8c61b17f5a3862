"""Figures in which an agent acts: their benchmarks, and what is told of their runs.

Source: Lyle et al. say of the bandit that a DQN with target network and replay acts on images, with
gamma 0 or 0.99 and L2 0 or 1e-6; of games that C51 and Rainbow have layer norm before each
activation. Learning rates, sizes, phases and all other numbers are ours.
Every arm has a control, a fresh network that begins with the last phase: what it reaches there is
what the phase allows. Pairs have the same seed, so the same worlds and initial weights.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments import figures
from experiments.benchmark import SCALES, Benchmark
from plasticity_jax import registry
from plasticity_jax.cli import flags, launcher, pictures, settings
from plasticity_jax.reporting import curves, over_seeds

HELP = """
This figure's own flags
  --scale=paper                        numbers of every setting: paper, reduced or smoke
"""


class Recipe(NamedTuple):
    """What the arms of a benchmark are made of, besides the axes among its settings.

    Attributes:
      split: column with whose values the pictures are apart.
      controls: settings of further arms, which see the last phase alone.
    """

    split: str
    controls: Sequence[Mapping[str, Any]] = ({},)


BANDIT = Benchmark(
    "bandit",
    "Contextual bandit, labels drawn anew in every phase",
    "reward_rate",
    {
        "environment": "bandit",
        "dataset": "cifar10",
        "samples": 5120,
        "batch_size": 64,
        "phase_steps": 160_000,
        "tasks": 20,
        "seeds": 5,
        "depth": 4,
        "width": 256,
        "learning_rate": 1e-3,
        "norm": ("none", "layer"),
        "method": "l2",
        "l2.strength": (0.0, 1e-6, 1e-5),
        "dqn.gamma": (0.0, 0.99),
        "dqn.environments": 16,
        "dqn.epsilon": 0.1,
        "dqn.replay": 16_000,
        "dqn.warmup": 320,
        "dqn.evaluate": 1_600,
        "probes": ("dormant_fraction", "effective_rank", "parameter_norm", "ntk"),
    },
    {
        "dataset": "digits",
        "samples": 256,
        "phase_steps": 20_000,
        "tasks": 10,
        "depth": 3,
        "width": 128,
        "dqn.replay": 4_000,
    },
    {
        "dataset": "digits",
        "samples": 64,
        "batch_size": 16,
        "phase_steps": 640,
        "tasks": 2,
        "seeds": 2,
        "depth": 1,
        "width": 16,
        "dqn.replay": 640,
        "dqn.evaluate": 160,
        "probe_samples": 64,
    },
    Recipe("dqn.gamma"),
)


def arms(benchmark: Benchmark[Recipe], tasks: int) -> list[dict[str, Any]]:
    """Returns the grids of a figure: all of its settings, and in the last of `tasks` phases its
    controls. One phase has none.
    """
    late = {"first_task": tasks - 1, "tasks": 1}
    controls = [{**control, **late} for control in benchmark.recipe.controls]
    return [{}, *(controls if tasks > 1 else ())]


def compared(table: Any, columns: Sequence[str], metric: str) -> Any:
    """Returns a row for each arm: means over seeds of the first phase, of the last one, of a fresh
    network in the last one, and of the paired differences last - first and last - fresh.

    Each has the ends of Student's 95 % interval over seeds; NaN where an arm has no control or
    fewer than two seeds.
    """
    import pandas as pd

    named = [name for name in columns if name not in ("first_task", "seed")]
    late = table["first_task"].max()
    aged, fresh = table[table["first_task"] == 0], table[table["first_task"] > 0]
    rows = []
    for values, own in aged.groupby(named, dropna=False, sort=False):
        own = own.set_index("seed")
        last = own["task"].max()
        first, end = own[own["task"] == 0][metric], own[own["task"] == last][metric]
        alike = (fresh[named] == pd.Series(dict(zip(named, values, strict=True)))).all(axis=1)
        control = fresh[alike & (last == late)].set_index("seed")[metric].reindex(end.index)
        found = {"first": first, "last": end, "fresh": control}
        found |= {"last - first": end - first, "last - fresh": end - control}
        row = dict(zip(named, values, strict=True)) | {"seeds": len(end)}
        for name, series in found.items():
            statistics = over_seeds.statistics(series.to_numpy())
            row[name] = float(statistics.mean)
            row[f"{name} low"], row[f"{name} high"] = statistics.t_low, statistics.t_high
        rows.append(row)
    return pd.DataFrame(rows)


def _differing(found: Any, columns: Sequence[str]) -> list[str]:
    """The columns by which arms are told apart."""
    return [name for name in columns if name in found and found[name].nunique(dropna=False) > 1]


def text(found: Any, columns: Sequence[str]) -> str:
    """Returns the table of `compared` in Markdown, intervals in brackets."""
    shown = _differing(found, columns)
    parts = ("first", "last", "fresh", "last - first", "last - fresh")
    head = [*shown, "seeds", *parts]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in found.to_dict("records"):
        cells = [f"{row[name]:g}" if _is_number(row[name]) else str(row[name]) for name in shown]
        cells.append(str(row["seeds"]))
        cells += [_cell(row, part) for part in parts]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _cell(row: Mapping[str, Any], part: str) -> str:
    low, high = row[f"{part} low"], row[f"{part} high"]
    if not np.isfinite(row[part]):
        return "-"
    interval = f" ({low:.3g} to {high:.3g})" if np.isfinite(low) else ""
    return f"{row[part]:.3g}{interval}"


def drawn(
    benchmark: Benchmark[Recipe], table: Any, columns: Sequence[str], values: flags.Values
) -> str:
    """Writes a picture and its numbers for each value of the recipe's `split`, and the comparison
    with fresh networks as NAME.csv and NAME.md, into the workdir; returns the comparison.
    """
    name, metric, split = benchmark.name, benchmark.metric, benchmark.recipe.split
    folder = Path(values["workdir"])
    aged = table[table["first_task"] == 0]
    rest = [column for column in columns if column not in ("first_task", split)]
    for value, part in aged.groupby(split, sort=False):
        path = folder / f"{name}_{value}"
        title = f"{benchmark.title}: {split.replace('.', ' ')} {value}"
        curves.curves(part, rest, path, pictures.drawing(values, metric, title, ""))
        figures.drawn(part, rest, metric).to_csv(f"{path}.csv", index=False)
    found = compared(table, columns, metric)
    found.to_csv(folder / f"{name}.csv", index=False)
    said = text(found, columns)
    (folder / f"{name}.md").write_text(f"{said}\n", encoding="utf-8")
    head = f"{metric.replace('_', ' ')}, mean and 95 % interval (Student's t) over seeds"
    return f"{head}\n\n{said}"


def main(doc: str | None, benchmark: Benchmark[Recipe], argv: Sequence[str] | None = None) -> int:
    """Runs and draws a figure from the command line and returns the exit code."""
    try:
        own, rest = flags.own({"scale": "paper"}, sys.argv[1:] if argv is None else argv)
        scale = registry.one_of("scale", own["scale"], SCALES)
        defaults = benchmark.at(scale)
        values, _ = flags.parse(rest, defaults)
        tasks = settings.read("tasks", values["tasks"])
    except ValueError as error:
        return launcher.fault(error, launcher.USAGE)
    experiment = launcher.Experiment(
        (doc or "") + HELP,
        defaults,
        arms(benchmark, tasks),
        title=benchmark.title,
        metric=benchmark.metric,
        then=lambda table, columns, values: drawn(benchmark, table, columns, values),
    )
    return launcher.launch(experiment, rest)
