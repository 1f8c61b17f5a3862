"""Tables of README.md on where an agent acts, from the lanes in results/lanes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments import prose
from experiments.accounts import Where
from experiments.disentangling import acted
from experiments.prose import Told

LANES = prose.Lanes(acted.RESULTS / "lanes")
REWARD, RETURN, SCORE = "reward_rate", "episode_return", "episode_return_mean"
STRENGTHS, NORMS, GAMMAS = (0.0, 1e-6, 1e-5), ("none", "layer"), (0.0, 0.99)
GREEDILY = "tenth, greedily"
GAMES = {"breakout": "Breakout", "asterix": "Asterix"}


def aged(norm: str, **others: Any) -> Where:
    """Returns the settings of an arm that goes on from the first phase."""
    return {"norm": norm, "first_task": 0, **others}


def strength(value: float) -> str:
    """Returns a strength of L2 as it is written: 0, 1e-6."""
    return "0" if value == 0 else f"{value:.0e}".replace("e-0", "e-")


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns rows of cells in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    first, rule, *rest = (f"| {' | '.join(cells)} |" for cells in lines)
    return "\n".join([first, rule.replace(" ", ""), *rest])


def compared(name: str) -> Any:
    """Returns the rows of NAME.csv, as `acting.compared` has them."""
    return prose.statistics(acted.RESULTS / f"{name}.csv")


def told(row: Any, part: str) -> Told:
    """Returns a mean of `compared` with its interval."""
    return Told(float(row[part]), float(row[f"{part} low"]), float(row[f"{part} high"]))


def bandit() -> str:
    """Returns the table of the bandit on digits."""
    heads = ["norm", "L2", "gamma", "first phase", "tenth phase", "tenth less fresh there"]
    rows = []
    for _, row in compared("bandit").sort_values("dqn.gamma", kind="stable").iterrows():
        own = [row["norm"], strength(row["l2.strength"]), f"{row['dqn.gamma']:g}"]
        own += [f"{told(row, 'first'):.3}", f"{told(row, 'last'):.3}"]
        rows.append([*own, f"{told(row, 'last - fresh'):.3}", f"{told(row, 'greedy'):.3}"])
    return markdown([*heads, GREEDILY], rows)


def on_mnist(name: str) -> str:
    """Returns a table of the bandit on MNIST, with what was measured in the tenth phase."""
    heads = ["norm", "L2", "first phase", "tenth phase", "fresh in the tenth", "tenth less fresh"]
    rows = []
    for _, row in compared(name).iterrows():
        where = aged(row["norm"], **{"l2.strength": row["l2.strength"]})
        dead = LANES.end(name, where, "dormant_fraction", 1)
        rank = LANES.end(name, where, "effective_rank", 1)
        own = [row["norm"], strength(row["l2.strength"])]
        own += [f"{told(row, part):.3}" for part in ("first", "last", "fresh", "last - fresh")]
        rows.append([*own, f"{told(row, 'greedy'):.3}", f"{dead:.0%m}", f"{rank:.0m}"])
    return markdown([*heads, GREEDILY, "dormant units", "effective rank"], rows)


def phases(name: str, where: Where, which: Sequence[int], metric: str, digits: int) -> list[str]:
    """Returns what an arm has in some phases, from 1; "not run" of one that it lacks."""
    values = LANES.values(name, where, metric)
    return [
        f"{prose.of_seeds(values.loc[phase - 1].to_numpy()):.{digits}}"
        if phase - 1 in values.index
        else "not run"
        for phase in which
    ]


def on_cifar10() -> str:
    """Returns the table of the bandit on CIFAR-10."""
    parts = ["first phase", "third phase", "tenth phase", "third, greedily"]
    heads = ["norm", "L2"]
    for gamma in GAMMAS:
        heads += [f"gamma {gamma:g}: {parts[0]}", *parts[1:]]
    rows = []
    for norm in NORMS:
        for size in STRENGTHS:
            cells = [norm, strength(size)]
            for gamma in GAMMAS:
                where = aged(norm, **{"l2.strength": size, "dqn.gamma": gamma})
                cells += phases("bandit_cifar10", where, (1, 3, 10), REWARD, 3)
                cells += phases("bandit_cifar10", where, (3,), "greedy_reward_rate", 3)
            rows.append(cells)
    return markdown(heads, rows)


def minatar(name: str = "minatar") -> str:
    """Returns the table of MinAtar's games, of one of its runs, beside a player by chance."""
    heads = ["game", "norm", "first part", "last part", "chance", "last less chance"]
    heads += ["last less fresh there", "greedy"]
    found = compared(name).set_index(["minatar.game", "norm"])
    rows = []
    for game, title in GAMES.items():
        for norm in NORMS:
            row = found.loc[(game, norm)]
            cells = [f"{told(row, 'first'):.2}", f"{told(row, 'last'):.2}"]
            cells += [f"{told(row, 'chance'):.3}", f"{told(row, 'last - chance'):+.2}"]
            cells += [f"{told(row, 'last - fresh'):+.2}", f"{told(row, 'greedy'):.2}"]
            rows.append([title, norm, *cells])
    return markdown(heads, rows)


def longer() -> str:
    """Returns the table of Breakout for longer."""
    parts = (*range(1, 7), 11)
    settings = {"dqn.epsilon": 0.05}
    rows = [
        [norm, *phases("minatar_breakout", aged(norm, **settings), parts, RETURN, 2)]
        for norm in NORMS
    ]
    return markdown(["norm", *map(str, parts)], rows)


def in_turn() -> Any:
    """Returns the lanes of two games in turn, as those of one game each."""
    return acted.in_turn(LANES.table("minatar_turns"))


def turns() -> str:
    """Returns the table of two games in turn."""
    parts = range(1, 6)
    own = in_turn()
    found = compared("minatar_turns").set_index(["minatar.game", "norm"])
    rows = []
    for game, name in GAMES.items():
        for norm in NORMS:
            values = arm_of(own, game, norm, RETURN)
            cells = [f"{prose.of_seeds(values.loc[part - 1].to_numpy()):.2}" for part in parts]
            fresh = told(found.loc[(game, norm)], "fresh")
            rows.append([name, norm, *cells, f"{fresh:.2}" if fresh.mean == fresh.mean else ""])
    return markdown(["its phase", "norm", *map(str, parts), "fresh"], rows)


def arm_of(own: Any, game: str, norm: str, metric: str) -> Any:
    """Returns what a network that goes on measured in the phases of one game, of `in_turn`."""
    from experiments import accounts

    where = aged(norm, **{"minatar.game": game, "dqn.epsilon": 0.05})
    return accounts.arm(own, where, metric)


def atari() -> str:
    """Returns the table of scores in Atari, a run a row."""
    import pandas as pd

    runs = {
        "seed 0, H100": ("atari", 0),
        "seed 1, two cores": ("atari", 1),
        "seed 0, one core, an update in 8 steps": ("atari_long", 0),
    }
    rows = []
    for name, (lanes, seed) in runs.items():
        table = LANES.table(lanes)
        values = table[table["seed"] == seed].set_index("task")[SCORE]
        scores = [values.get(part) for part in range(10)]
        rows.append([name, *("" if pd.isna(one) else f"{one:.2f}" for one in scores)])
    return markdown(["run", *map(str, range(1, 11))], rows)


def blocks() -> dict[str, str]:
    """Returns what stands in README.md after each mark, by the mark."""
    made = {
        "bandit": ("bandit", bandit),
        "bandit: mnist": ("bandit_mnist", lambda: on_mnist("bandit_mnist")),
        "bandit: mnist far": ("bandit_mnist_far", lambda: on_mnist("bandit_mnist_far")),
        "bandit: cifar10": ("bandit_cifar10", on_cifar10),
        "minatar": ("minatar", minatar),
        "minatar: longest": ("minatar_long", lambda: minatar("minatar_long")),
        "minatar: longer": ("minatar_breakout", longer),
        "minatar: turns": ("minatar_turns", turns),
        "atari": ("atari_long", atari),
    }
    return {mark: rows() for mark, (name, rows) in made.items() if _kept(name).is_file()}


def _kept(name: str) -> Path:
    return LANES.folder / f"{name}.parquet"
