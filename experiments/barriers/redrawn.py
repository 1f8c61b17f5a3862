"""Figures made again from the lanes kept in results/lanes: those that no file of a figure drew, and
those whose arms come from several runs.

Command: python -m experiments.barriers.redrawn
Writes figure_NAME.png, figure_NAME.csv (the course of its metric) and figure_NAME_final.csv (all
its measurements over the last five tasks, beside what the paper's figure shows) into
experiments/barriers/results.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments import accounts, redrawing
from experiments.accounts import Where
from experiments.barriers import claims, cloning, printed
from experiments.barriers.claims import ACCURACY, DEAD, R2, RANK, STUCK, TWINS
from experiments.benchmark import NOTHING

RESULTS = claims.LANES.parent
UNITS = (ACCURACY, DEAD, TWINS, STUCK, RANK)
LOSS = ("loss", R2, RANK)
WORDS = "network"  # a column that says in words what an arm is


class Redrawn(NamedTuple):
    """A figure and the lanes that it is of.

    Attributes:
      name: of its files, after "figure_".
      title: of its picture.
      parts: names of kept lanes, and settings of those of them that are drawn.
      metrics: what is drawn and averaged, the main one first.
      arms: columns that tell its arms apart.
      called: what the lanes of each part are called, where `arms` is `WORDS`.
      same_length: whether all arms are told up to the last task of the shortest of them.
    """

    name: str
    title: str
    parts: Mapping[str, Where]
    metrics: tuple[str, ...]
    arms: Sequence[str] = ("norm", "mlp.dropout")
    called: Sequence[str] = ()
    same_length: bool = False


def _bare(model: str) -> Where:
    return {"norm": "none", f"{model}.dropout": 0.0}


def _by_norm(model: str, where: str, what: str, lanes: str) -> Redrawn:
    """Figure B.1 of a network other than the MLP."""
    return Redrawn(
        f"B.1_{model}{where}",
        f"Figure B.1: Class split of {what} by norm and dropout, {claims.NAMES[model]}",
        {lanes: NOTHING},
        UNITS,
        ("norm", f"{model}.dropout", f"{model}.norm_affine"),
    )


OTHERS = ("cnn", "resnet18", "vit")
MLP = {"split_mlp": _bare("mlp")}
FAST = {claims.FAST: _bare("mlp")}
NETWORKS = {
    **MLP,
    **FAST,
    **{f"split_{model}": _bare(model) for model in OTHERS},
}
CALLED = ("MLP", "MLP, rate 0.01", "CNN", "ResNet-18", "ViT")
AFFINE = ("norm", "mlp.norm_affine")
PLAIN = "Class split on a part of CIFAR-10, no norm, no dropout"
REDRAWN = (
    Redrawn("3.2", f"Figure 3.2: {PLAIN}", NETWORKS, UNITS[:4], (WORDS,), CALLED),
    Redrawn("3.3", f"Figure 3.3: {PLAIN}", NETWORKS, UNITS[4:], (WORDS,), CALLED),
    Redrawn(
        "5.1_mlp",
        "Figure 5.1: Class split with norms, MLP at the paper's rate of 0.001",
        {**MLP, claims.AFFINE: NOTHING},
        (RANK, *UNITS[:4]),
        AFFINE,
        same_length=True,
    ),
    Redrawn(
        "5.1_mlp_01",
        "Figure 5.1: Class split with norms, MLP at a rate of 0.01",
        {**FAST, claims.AFFINE_FAST: NOTHING},
        (RANK, *UNITS[:4]),
        AFFINE,
        same_length=True,
    ),
    Redrawn(
        "B.1_mlp",
        "Figure B.1: Class split by norm and dropout, MLP at the paper's rate of 0.001",
        {"split_mlp": NOTHING},
        UNITS,
    ),
    Redrawn(
        "B.1_mlp_01",
        "Figure B.1: Class split by norm and dropout, MLP at a rate of 0.01",
        {claims.FAST: NOTHING},
        UNITS,
    ),
    *(_by_norm(model, "", "a part of CIFAR-10", f"split_{model}") for model in OTHERS),
    *(
        _by_norm(model, "_digits", "digits", lanes)
        for model, lanes in claims.DIGITS.items()
        if model in OTHERS
    ),
    Redrawn(
        "B.1_digits",
        "Figure B.1: Class split of digits by norm, MLP",
        {claims.DIGITS["mlp"]: NOTHING},
        UNITS,
        ("norm", "mlp.norm_affine"),
    ),
    Redrawn(
        "B.7",
        "Figure B.7: Loss of clones of an MLP under noise",
        {"noise_mlp": NOTHING},
        LOSS,
        (WORDS,),
    ),
    Redrawn(
        "B.9",
        "Figure B.9: Loss of clones of a ViT under noise",
        {"noise_vit": NOTHING},
        LOSS,
        (WORDS,),
    ),
    Redrawn(
        "B.12",
        "Figure B.12: Loss of clones of an MLP under four optimizers",
        {"optimizers_mlp": NOTHING},
        LOSS,
        (WORDS,),
    ),
)


def table_of(one: Redrawn) -> Any:
    """Returns the lanes of a figure, an arm's words as a column where they tell the arms apart."""
    parts = []
    for number, (name, where) in enumerate(one.parts.items()):
        table = accounts.rows_with(claims.lanes(name), where)
        if one.called:
            table = table.assign(**{WORDS: one.called[number]})
        elif WORDS in one.arms:
            table = cloning.named(table, claims.columns_of_clones(table))
        parts.append(table)
    if one.same_length:
        tasks = min(table["task"].max() for table in parts)
        parts = [table[table["task"] <= tasks] for table in parts]
    joined = redrawing.joined(parts)
    # (of several runs pandas keeps what metrics are called only if all say the same)
    joined.attrs = parts[0].attrs
    return joined


def draw(one: Redrawn, folder: Path = RESULTS, *, picture: bool = True) -> Path:
    """Writes the tables of a figure, and its picture unless told not to; returns the path of the
    picture, else that of the final table.
    """
    title = one.title if picture else ""
    path = folder / f"figure_{one.name}"
    paper = printed.ENDS.get(one.name)
    return redrawing.store(table_of(one), one.arms, one.metrics, path, title, paper)


def main() -> int:
    """Draws every figure, puts the paper's numbers into the tables of the others, and prints where;
    returns the exit code.
    """
    for one in REDRAWN:
        print(draw(one))
    for name in sorted(set(printed.ENDS) - {one.name for one in REDRAWN}):
        print(redrawing.mark(RESULTS / f"figure_{name}_final.csv", printed.ENDS[name]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
