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
from experiments.benchmark import NOTHING, SCALES, Benchmark
from plasticity_jax import registry
from plasticity_jax.cli import flags, launcher, pictures, settings
from plasticity_jax.reporting import curves, over_games, over_seeds
from plasticity_jax.storage import writing

# metric -> what the network scores that acts without chance, apart from training
GREEDY = {
    "reward_rate": "greedy_reward_rate",
    "episode_return": "greedy_return",
    "episode_return_mean": "greedy_return",
}

HELP = """
This figure's own flags
  --scale=paper                        numbers of every setting: paper, reduced or smoke
"""


class Recipe(NamedTuple):
    """What the arms of a benchmark are made of, besides the axes among its settings.

    Attributes:
      split: column with whose values the pictures are apart.
      controls: settings of further arms, which see the last phase alone.
      chance: which of them act by chance, by the values of their columns; nothing: none does.
    """

    split: str
    controls: Sequence[Mapping[str, Any]] = ({},)
    chance: Mapping[str, Any] = NOTHING


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
BY_CHANCE = {"dqn.epsilon": 1.0}
MINATAR = Benchmark(
    "minatar",
    "MinAtar",
    "episode_return",
    {
        "environment": "minatar",
        "minatar.game": ("breakout", "asterix", "freeway", "seaquest", "space_invaders"),
        "batch_size": 32,
        "phase_steps": 500_000,
        "tasks": 10,
        "seeds": 5,
        "norm": ("none", "layer"),
        "depth": 2,
        "width": 128,
        "learning_rate": 3e-4,
        "dqn.epsilon": 0.05,
        "dqn.explore": 100_000,
        "dqn.replay": 100_000,
        "dqn.warmup": 4_000,
        "dqn.target_every": 250,
        "dqn.evaluate": 20_000,
        "probes": ("dormant_fraction", "effective_rank", "parameter_norm", "hessian_top"),
    },
    {
        "minatar.game": ("breakout", "asterix"),
        "phase_steps": 20_000,
        "seeds": 3,
        "dqn.explore": 10_000,
        "dqn.replay": 40_000,
        "dqn.evaluate": 4_000,
    },
    {
        "minatar.game": "breakout",
        "phase_steps": 800,
        "tasks": 2,
        "seeds": 2,
        "width": 16,
        "dqn.explore": 400,
        "dqn.replay": 800,
        "dqn.warmup": 40,
        "dqn.evaluate": 400,
        "probe_samples": 64,
    },
    Recipe("minatar.game", ({}, {"norm": "none", **BY_CHANCE}), BY_CHANCE),
)

ATARI = Benchmark(
    "atari",
    "Atari, C51",
    "episode_return_mean",
    {
        "environment": "atari",
        "atari.game": ("breakout", "pong", "seaquest"),
        "head": "c51",
        "model": "game_cnn",
        "game_cnn.of": "atari",
        "batch_size": 32,
        "phase_steps": 1_000_000,
        "tasks": 50,
        "seeds": 5,
        "norm": ("none", "layer"),
        "learning_rate": 2.5e-4,
        "adam.eps": 3.125e-4,
        "dqn.epsilon": 0.01,
        "dqn.double": False,
        "dqn.explore": 250_000,
        "dqn.replay": 1_000_000,
        "dqn.warmup": 20_000,
        "dqn.target_every": 2_000,
        "dqn.evaluate": 20_000,
        "probes": ("dormant_fraction", "parameter_norm"),
    },
    {
        "atari.game": "breakout",
        "norm": "layer",
        "phase_steps": 12_500,
        "tasks": 20,
        "seeds": 1,
        "dqn.explore": 50_000,
        "dqn.replay": 50_000,
        "dqn.warmup": 2_000,
        "dqn.target_every": 500,
        "dqn.evaluate": 1_000,
    },
    {
        "atari.game": "breakout",
        "norm": "layer",
        "phase_steps": 200,
        "tasks": 2,
        "seeds": 1,
        "dqn.explore": 100,
        "dqn.replay": 200,
        "dqn.warmup": 40,
        "dqn.evaluate": 40,
        "probe_samples": 16,
    },
    Recipe("atari.game", ({}, BY_CHANCE), BY_CHANCE),
)


def arms(benchmark: Benchmark[Recipe], tasks: int) -> list[dict[str, Any]]:
    """Returns the grids of a figure: all of its settings, and in the last of `tasks` phases its
    controls. One phase has none.
    """
    late = {"first_task": tasks - 1, "tasks": 1}
    controls = [{**control, **late} for control in benchmark.recipe.controls]
    return [{}, *(controls if tasks > 1 else ())]


def compared(table: Any, columns: Sequence[str], benchmark: Benchmark[Recipe]) -> Any:
    """Returns a row for each arm: means over seeds of the first phase, of the last one, of a fresh
    network in the last one, where there is one of a player by chance, of the paired differences of
    the last phase to each, and what the network scores at its end if it acts greedily.

    Each has the ends of Student's 95 % interval over seeds; NaN where an arm has no control or
    fewer than two seeds.
    """
    import pandas as pd

    metric, recipe = benchmark.metric, benchmark.recipe
    named = [name for name in columns if name not in ("first_task", "seed")]
    aged, late = table[table["first_task"] == 0], table[table["first_task"] > 0]
    guessing = late[_has(late, recipe.chance)] if recipe.chance else late[:0]
    rows = []
    for values, own in aged.groupby(named, dropna=False, sort=False):
        arm = dict(zip(named, values, strict=True))
        own = own.set_index("seed")
        first = own[own["task"] == 0][metric]
        end = own[own["task"] == own["task"].max()][metric]
        found = {
            "first": first,
            "last": end,
            "fresh": _of_seeds(late[_has(late, arm)], metric, end),
        }
        if recipe.chance:
            split = {recipe.split: arm[recipe.split]}
            found["chance"] = _of_seeds(guessing[_has(guessing, split)], metric, end)
        found |= {f"last - {name}": end - of for name, of in found.items() if name != "last"}
        if GREEDY[metric] in own:
            found["greedy"] = own[own["task"] == own["task"].max()][GREEDY[metric]]
        row = arm | {"seeds": len(end)}
        for name, series in found.items():
            statistics = over_seeds.statistics(series.to_numpy())
            row[name] = float(statistics.mean)
            row[f"{name} low"], row[f"{name} high"] = statistics.t_low, statistics.t_high
        rows.append(row)
    return pd.DataFrame(rows)


def _has(table: Any, values: Mapping[str, Any]) -> Any:
    """Which rows have these values; none of a column is one as well."""
    import pandas as pd

    same = np.ones(len(table), bool)
    for name, value in values.items():
        same &= (table[name].isna() if pd.isna(value) else table[name] == value).to_numpy(bool)
    return same


def _of_seeds(rows: Any, metric: str, like: Any) -> Any:
    """A metric by the seeds of `like`, its mean where a seed has several rows, as players by chance
    of several networks; NaN where a seed is lacking.
    """
    return rows.groupby("seed")[metric].mean().reindex(like.index)


def _differing(found: Any, columns: Sequence[str]) -> list[str]:
    """The columns by which arms are told apart."""
    return [name for name in columns if name in found and found[name].nunique(dropna=False) > 1]


def text(found: Any, columns: Sequence[str]) -> str:
    """Returns the table of `compared` in Markdown, intervals in brackets."""
    shown = _differing(found, columns)
    parts = [name.removesuffix(" low") for name in found if name.endswith(" low")]
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
    columns = list(dict.fromkeys([*columns, split]))  # (also of one value)
    aged = table[table["first_task"] == 0]
    rest = [column for column in columns if column not in ("first_task", split)]
    for value, part in aged.groupby(split, sort=False):
        path = folder / f"{name}_{value}"
        title = f"{benchmark.title}: {split.replace('.', ' ')} {value}"
        curves.curves(part, rest, path, pictures.drawing(values, metric, title, ""))
        writing.text(f"{path}.csv", figures.drawn(part, rest, metric).to_csv(index=False))
    found = compared(table, columns, benchmark)
    # (without the columns of controls that were not run)
    measured = found.dropna(axis="columns", how="all")
    writing.text(folder / f"{name}.csv", measured.to_csv(index=False))
    said = text(found, columns)
    if benchmark.recipe.chance:
        scores = normalised(table, columns, benchmark)
        said += f"\n\n{of_games(scores)}"
        profiles(scores, benchmark.title, folder / f"{name}_profiles")
    writing.text(folder / f"{name}.md", f"{said}\n")
    head = f"{metric.replace('_', ' ')}, mean and 95 % interval (Student's t) over seeds"
    return f"{head}\n\n{said}"


def normalised(
    table: Any, columns: Sequence[str], benchmark: Benchmark[Recipe]
) -> dict[str, list[np.ndarray]]:
    """Returns {arm: scores of each game [seeds]} in the last phase: 0 is the mean of a player by
    chance in that game, 1 that of the first arm. Without those that measured no score.
    """
    metric, (split, _, chance) = benchmark.metric, benchmark.recipe
    aged, late = table[table["first_task"] == 0], table[table["first_task"] > 0]
    last = aged[aged["task"] == aged["task"].max()]
    named = [name for name in columns if name not in ("first_task", "seed", split)]
    shown = _differing(last, named)
    found: dict[str, list[np.ndarray]] = {}
    for game, own in last.groupby(split, sort=False):
        zero = late[_has(late, {**chance, split: game})][metric].mean()
        arms = list(own.groupby(named, dropna=False, sort=False))
        one = arms[0][1][metric].mean()
        for values, rows in arms:
            arm = dict(zip(named, values, strict=True))
            label = ", ".join(f"{name} {arm[name]}" for name in shown) or "the only arm"
            scores = ((rows[metric] - zero) / (one - zero)).to_numpy()
            found.setdefault(label, []).append(scores[np.isfinite(scores)])
    return found


def of_games(scores: Mapping[str, Sequence[np.ndarray]]) -> str:
    """Returns the interquartile mean of each arm over games and seeds, in Markdown."""
    lines = ["| over games and seeds | runs | interquartile mean |", "|---|---|---|"]
    for arm, games in scores.items():
        if not all(map(len, games)):
            continue  # (a game in which no run measured a score)
        found = over_games.interquartile_mean(games)
        interval = f"{found.value:.3g} ({found.low:.3g} to {found.high:.3g})"
        lines.append(f"| {arm} | {sum(map(len, games))} | {interval} |")
    return "\n".join([*lines, "", "0 is chance, 1 the mean of the first arm, in each game."])


def profiles(scores: Mapping[str, Sequence[np.ndarray]], title: str, path: Path) -> None:
    """Draws which share of runs has more than a score, against the score, into PATH.png; the
    numbers are in PATH.csv.
    """
    import pandas as pd
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    everything = np.concatenate([np.concatenate(games) for games in scores.values()])
    most = everything.max(initial=1.0)
    edges = np.linspace(min(everything.min(initial=0.0), 0.0), most, 200)
    tables = []
    for arm, games in scores.items():
        if not all(map(len, games)):
            continue
        found = over_games.profile(games, edges)
        axes.plot(edges, found.value, label=arm)
        axes.fill_between(edges, found.low, found.high, alpha=0.2, linewidth=0)
        tables.append(pd.DataFrame({"arm": arm, "score": edges, "share": found.value}))
        tables[-1] = tables[-1].assign(low=found.low, high=found.high)
    axes.set(xlabel="score: 0 is chance, 1 the first arm's mean", ylabel="share of runs above it")
    axes.set_title(title)
    if tables:  # (none where no run measured a score)
        axes.legend()
        numbers = pd.concat(tables).to_csv(index=False, float_format="%.6g")
        writing.text(f"{path}.csv", numbers)
    curves.store_figure(figure, path.with_suffix(".png"))


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
