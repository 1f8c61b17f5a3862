"""Hyperparameter selection: the learning rate and each method's own settings, on seeds that no
figure reports.

Source: Liu & Mou, appendix B: each method's best configuration for each benchmark. Their grids are
not public; those below are ours, and the benchmark's own value is in each. Every point of a grid is
a lane of one run. The best is the one with the best mean of the benchmark's metric over all tasks
and tuning seeds; figures take it with --selection=FILE.
Command: python -m experiments.select --benchmark=random_mnist --data_dir=DIR --workdir=runs/select
    --scale=reduced
Writes into the workdir selected.json (what figures read; benchmarks already in it stay) and a
  folder of the benchmark's name with its run and selection.csv (the whole table). Another benchmark
  with the same workdir is added to selected.json. Figures refuse a selection that was tuned on
  their seeds or at another scale. A grid of one's own is given by its flags, such as
  --learning_rate=1e-3,1e-4 --l2.strength=1e-2,1e-3.
Cost: --dry_run says it. Grids differ in size, so methods are not tuned with equal effort:
selection.csv says how much.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments import figures, selection
from experiments.benchmark import Benchmark
from experiments.gradual import kinds as gradual_kinds
from experiments.gradual import settings as gradual_settings
from plasticity_jax import registry
from plasticity_jax.cli import flags, launcher, selecting, settings
from plasticity_jax.cli.settings import Setting
from plasticity_jax.methods import METHODS
from plasticity_jax.storage import paths, writing

# the benchmarks of every paper, and the kind of figure whose arms are tuned
KINDS: dict[str, tuple[Benchmark[Any], figures.Kind]] = {
    name: (benchmark, gradual_kinds.BY_METHOD)
    for name, benchmark in gradual_settings.BENCHMARKS.items()
}
FIRST_SEED = 1000  # figures report seeds from 0
DECADES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
GRIDS: dict[str, dict[str, tuple[Setting, ...]]] = {
    "paper": {
        "learning_rate": (1e-2, 1e-3, 1e-4, 1e-5),
        "l2.strength": DECADES,
        "l2_init.strength": DECADES,
        "spectral.strength": DECADES,
        "shrink_and_perturb.shrink": (0.5, 0.8, 0.9, 0.95),
        "shrink_and_perturb.noise": (1e-3, 1e-2, 1e-1),
        "redo.period": (100, 500, 1000, 2000),
    },
    "reduced": {
        "learning_rate": (1e-2, 1e-3, 1e-4),
        "l2.strength": (1e-2, 1e-4, 1e-6),
        "l2_init.strength": (1e-1, 1e-3, 1e-5),
        "spectral.strength": (1e-1, 1e-2, 1e-3),
        "shrink_and_perturb.shrink": (0.5, 0.9),
        "shrink_and_perturb.noise": (1e-3, 1e-2),
        "redo.period": (100, 1000),
    },
    "smoke": {"learning_rate": (1e-2, 1e-3), "l2.strength": (1e-2, 1e-4)},
}
HELP = """
This command's own flags
  --benchmark=random_mnist             a benchmark of experiments/gradual/settings.py
  --scale=paper                        numbers and grids: paper, reduced or smoke
  --methods=none,l2,...                the abrupt arms to tune; gradual ones are always
"""


OWN = {"benchmark": "random_mnist", "scale": "paper", "methods": None, "workdir": None}
FILE = "selected.json"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the grids of a benchmark, writes what was chosen and returns the exit code."""
    try:
        own, rest = flags.own(OWN, sys.argv[1:] if argv is None else argv)
        benchmark, kind = registry.lookup(KINDS, "benchmark", own["benchmark"])
        choices = figures.chosen(figures.OWN | own)
        arms = kind.arms(figures.Figure("", benchmark, kind), choices)
        defaults = tuning(kind.defaults(benchmark, choices), choices.scale)
        _check_grids(*flags.parse(rest, defaults))
        if own["workdir"]:
            folder = Path(paths.expanded(own["workdir"], "workdir"))
            # a file that cannot be added to is told before the run
            selection.others(folder / FILE)
            rest.append(f"--workdir={folder / benchmark.name}")
    except ValueError as error:
        return launcher.fault(error, launcher.USAGE)

    def choose(table: Any, columns: Sequence[str], values: Mapping[str, Any]) -> str:
        folder = Path(values["workdir"]).parent
        return chosen(table, columns, benchmark, choices.scale, values, folder)

    title = f"{benchmark.title}: selection"
    doc = (__doc__ or "") + HELP
    return launcher.launch(launcher.Experiment(doc, defaults, arms, title, then=choose), rest)


def tuning(usual: settings.Settings, scale: str) -> dict[str, Setting]:
    """Returns the settings of a tuning run: a benchmark's usual ones with the grids of a scale."""
    grids = {name: with_usual(grid, usual.get(name)) for name, grid in GRIDS[scale].items()}
    return {**usual, **grids, "first_seed": FIRST_SEED, "seeds": 2, "probes": "none"}


def with_usual(grid: tuple[Setting, ...], usual: Setting) -> tuple[Setting, ...]:
    """Returns a grid with the benchmark's own value in it: tuning on a grid that lacks it could do
    worse than not tuning.
    """
    return grid if usual is None or usual in grid else (*grid, usual)


def _check_grids(values: flags.Values, given: set[str]) -> None:
    """Raises ValueError for a grid of something that a figure would not take from selected.json."""
    for name in sorted(given - {"probes", "dataset", "data_dir", "learning_rate"}):
        if "," in str(values[name]) and name.partition(".")[0] not in METHODS:
            raise ValueError(
                f"{name} is {values[name]!r}: allowed here are several values of learning_rate and "
                "of methods' settings, one of others."
            )


def chosen(
    table: Any,
    columns: Sequence[str],
    benchmark: Benchmark[Any],
    scale: str,
    values: Mapping[str, Any],
    folder: Path,
) -> str:
    """Writes selected.json into `folder`, selection.csv into the benchmark's there, and returns
    what was chosen as text.

    A method's configuration is the one with the best mean of the metric over all tasks and seeds; a
    lane that diverged without a value at the end rules its configuration out. A gradual arm goes by
    the name of its transition. All settings of an arm's methods are written, those that `values`
    (the flags) have for every configuration as well.
    """

    def arms(scores: Any) -> Any:
        return scores["method"].where(scores["granularity"] == 1, scores["transition"])

    scores = selecting.scored(table, columns, benchmark.metric, arms)
    writing.text(folder / benchmark.name / "selection.csv", scores.to_csv(index=False))
    selected = selecting.chosen(scores, values)
    file = folder / FILE
    selection.write(file, benchmark.name, scale, sorted(set(table["seed"])), selected)
    return "\n".join([*selecting.told(selected), f"written: {file}"])


if __name__ == "__main__":
    sys.exit(main())
