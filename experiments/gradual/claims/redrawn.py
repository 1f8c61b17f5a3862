"""Every figure whose lanes are kept, drawn from them as its own file draws it after a run: picture,
curves and final table.
"""

import pathlib
from typing import NamedTuple

import pandas as pd

from experiments import figures, redrawing
from experiments.figures import Figure
from experiments.gradual import kinds, settings
from experiments.gradual.claims import tables
from plasticity_jax.cli import flags


class Redrawn(NamedTuple):
    """A figure and what it is drawn from.

    Attributes:
      figure: `name` is that of the files, after "figure_".
      lanes: names of tables in results/lanes, whose rows are put together.
      argv: what the run's command said, as far as a caption tells it.
    """

    figure: Figure
    lanes: tuple[str, ...]
    argv: tuple[str, ...] = ()


def _figure(name: str, benchmark: str, kind: figures.Kind, metric: str = "") -> Figure:
    return Figure(name, settings.BENCHMARKS[benchmark], kind, metric)


METHODS, DOSES = kinds.BY_METHOD, kinds.BY_GRANULARITY
FIVE_A = ("figure_5a", "figure_5a_finest")
CHOSEN = ("--selection=experiments/gradual/results/selected.json",)
REDRAWN = (
    Redrawn(_figure("1a", "random_mnist", METHODS), ("figure_1a",), ("--controls",)),
    Redrawn(
        _figure("1b", "random_cifar10", METHODS),
        ("figure_1b",),
        ("--dataset=arrays:DIR", "--samples=500"),
    ),
    Redrawn(_figure("2", "random_seq2seq", METHODS), ("figure_2",)),
    Redrawn(_figure("3", "permuted_emnist", METHODS), ("figure_3",), ("--dataset=emnist/letters",)),
    Redrawn(_figure("4", "bigram_cipher", METHODS), ("figure_4",)),
    Redrawn(_figure("5a", "random_mnist", DOSES), FIVE_A, ("--controls",)),
    Redrawn(_figure("5b", "bigram_cipher", DOSES), ("figure_5b",)),
    Redrawn(_figure("6a", "random_mnist", METHODS, "hessian_top"), ("figure_1a",), ("--controls",)),
    Redrawn(_figure("6b", "bigram_cipher", METHODS, "hessian_top"), ("figure_4",)),
    *(
        Redrawn(_figure(f"{number}{part}", benchmark, DOSES, metric), lanes, argv)
        for number, metric in (
            (7, "hessian_top"),
            (8, "representation_change"),
            (9, "dormant_fraction"),
        )
        for part, benchmark, lanes, argv in (
            ("a", "random_mnist", FIVE_A, ("--controls",)),
            ("b", "bigram_cipher", ("figure_5b",), ()),
        )
    ),
)


def draw(folder: pathlib.Path = tables.FOLDER) -> list[pathlib.Path]:
    """Draws every figure into `folder` and returns the pictures' paths."""
    return [_draw(one, folder) for one in REDRAWN]


def kept_lanes(names: tuple[str, ...]) -> pd.DataFrame:
    """The rows of several tables with lane numbers of their own, without the columns that say where
    a table is from.
    """
    return redrawing.read(names, tables.FOLDER / "lanes")


def _draw(one: Redrawn, folder: pathlib.Path) -> pathlib.Path:
    table = kept_lanes(one.lanes)
    tasks, seeds = table["task"].max() + 1, sorted(table["seed"].unique())
    said = [f"--tasks={tasks}", f"--seeds={len(seeds)}", f"--first_seed={seeds[0]}"]
    argv = ["--scale=reduced", *said, "--figure_format=png", *one.argv]
    own, rest = flags.own(figures.OWN, argv)
    plan = figures.plan(one.figure, figures.chosen(own, rest), rest)
    values, given = flags.parse(plan.argv, plan.defaults)
    columns = figures.arm_columns(flags.runs(values, given, plan.arms))
    columns = [column for column in columns if column in table]
    figures.draw(plan, table, columns, values, str(folder))
    return folder / f"figure_{one.figure.name}.png"
