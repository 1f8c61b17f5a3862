"""Makes tables and pictures of where an agent acts again from the lanes kept in results/lanes.

Command: python -m experiments.disentangling.acted
Writes NAME.csv, one picture, NAME_VALUE.png, and of some games a performance profile,
NAME_profiles.png and .csv, into experiments/disentangling/results and prints the tables.
"""

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from experiments.benchmark import Benchmark
from experiments.disentangling import acting
from plasticity_jax.cli import flags
from plasticity_jax.storage import table as table_
from plasticity_jax.storage import writing

RESULTS = Path(__file__).parent / "results"
AXES = ("norm", "l2.strength", "dqn.gamma", "dqn.epsilon", "minatar.game", "atari.game")


class Kept(NamedTuple):
    """Runs of which the lanes are kept.

    Attributes:
      of: the figure that made them.
      title: of the pictures.
      picture: which one is kept, by the value that it is of.
      until: phases that are compared, where not all arms have more; 0: all.
      profiled: whether the profile over games is kept.
    """

    of: Benchmark[acting.Recipe]
    title: str
    picture: str
    until: int = 0
    profiled: bool = False


KEPT = {
    "bandit": Kept(acting.BANDIT, acting.BANDIT.title, "0.99"),
    "bandit_mnist": Kept(acting.BANDIT, "Contextual bandit on MNIST", "0.0"),
    "bandit_mnist_far": Kept(acting.BANDIT, "Contextual bandit on MNIST", "0.99"),
    "bandit_cifar10": Kept(acting.BANDIT, "Contextual bandit on CIFAR-10", "0.99", until=3),
    "minatar": Kept(acting.MINATAR, acting.MINATAR.title, "breakout"),
    "minatar_long": Kept(
        acting.MINATAR, "MinAtar, 100,000 frames a part", "asterix", profiled=True
    ),
    "minatar_turns": Kept(acting.MINATAR, "MinAtar, two games in turn", "breakout"),
    "minatar_breakout": Kept(acting.MINATAR, "MinAtar, 50,000 frames a part", "breakout", until=6),
    "atari": Kept(acting.ATARI, "Atari, C51 with layer norm", "breakout", until=4),
    "atari_long": Kept(acting.ATARI, "Atari, C51, an update in 8 steps", "breakout"),
}


def there() -> list[str]:
    """Returns the names of those whose lanes are there."""
    return [name for name in KEPT if lanes(name).is_file()]


def lanes(name: str) -> Path:
    """Returns where the lanes of some runs are kept."""
    return RESULTS / "lanes" / f"{name}.parquet"


def in_turn(table: Any) -> Any:
    """Returns a table of sequences of games as one of games: each has its own phases, and a network
    that begins late is one in its own game.
    """
    number = table["task"] + table["first_task"]
    names = table["minatar.game"].str.split("+")
    turns = names.str.len()
    game = [each[phase % len(each)] for each, phase in zip(names, number, strict=True)]
    own = (number // turns).where(table["first_task"] == 0, table["task"])
    return table.assign(**{"minatar.game": game, "task": own})


def drawn(name: str, folder: Path) -> str:
    """Writes the tables and pictures of some runs and returns what is told of them."""
    kept, table = KEPT[name], table_.read(lanes(name))
    if "minatar.game" in table:
        table = in_turn(table)
    benchmark = kept.of._replace(name=name, title=kept.title)
    values, _ = flags.parse([f"--workdir={folder}"], benchmark.at("reduced"))
    columns = [column for column in (*AXES, "first_task") if column in table]
    said = acting.drawn(benchmark, table, columns, values)
    if kept.until:
        found = acting.compared(table[table["task"] < kept.until], columns, benchmark)
        writing.text(folder / f"{name}.csv", found.to_csv(index=False))
        said = acting.text(found, columns)
    return said


def main() -> int:
    """Writes everything; returns the exit code."""
    for name in there():
        with tempfile.TemporaryDirectory() as folder:
            print(f"{name}: {drawn(name, Path(folder))}\n")
            files = [f"{name}.csv", f"{name}_{KEPT[name].picture}.png"]
            if KEPT[name].profiled:
                files += [f"{name}_profiles.png", f"{name}_profiles.csv"]
            for file in files:
                shutil.copy(Path(folder, file), RESULTS / file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
