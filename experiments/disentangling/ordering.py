"""Claims on the contextual bandit: that plasticity is lost, more with gamma 0.99, and in which
order remedies stand.

The order was seen in a first trial on digits with gamma 0, of two seeds that are not reported: no
norm, L2, layer norm, both. It is checked on runs that were made afterwards.
"""

import itertools
from typing import Any, NamedTuple

import numpy as np

from experiments.accounts import Claim, Contrast, Where, arm
from experiments.disentangling.rewards import REWARD, aged

LAST = 10  # phases, from 1
Remedy = tuple[str, float]  # norm and strength of L2


class Runs(NamedTuple):
    """Kept runs of the bandit.

    Attributes:
      lanes: their name.
      title: what they are called in the table.
      strength: of L2 where it is on.
      phase: of the comparison.
      gammas: that they have.
    """

    lanes: str
    title: str
    strength: float = 1e-5
    phase: int = LAST
    gammas: tuple[float, ...] = (0.0, 0.99)


RUNS = (
    Runs("bandit", "digits"),
    Runs("bandit_mnist", "MNIST", gammas=(0.0,)),
    Runs("bandit_mnist_far", "MNIST", 1e-6, gammas=(0.99,)),
    Runs("bandit_cifar10", "CIFAR-10, third phase", phase=3),
)


def _where(runs: Runs, remedy: Remedy, gamma: float, first_task: int = 0) -> Where:
    norm, strength = remedy
    own = {"l2.strength": strength} | ({"dqn.gamma": gamma} if len(runs.gammas) > 1 else {})
    return {**aged(norm, **own), "first_task": first_task}


def _reward(table: Any, where: Where, phase: int) -> np.ndarray:
    return arm(table, where, REWARD).loc[phase - 1].to_numpy()


def _above(runs: Runs, greater: Remedy, lesser: Remedy, gamma: float) -> Contrast:
    """By how much one remedy's reward is above another's."""
    more, less = (_where(runs, remedy, gamma) for remedy in (greater, lesser))
    return lambda table: _reward(table, more, runs.phase) - _reward(table, less, runs.phase)


def _lost(runs: Runs, gamma: float) -> Contrast:
    """What a network without remedies has in the first phase over what it has in the last."""
    where = _where(runs, ("none", 0.0), gamma)
    return lambda table: _reward(table, where, 1) - _reward(table, where, runs.phase)


def _behind(runs: Runs, gamma: float) -> Contrast:
    """What a fresh network has in the last phase over one without remedies that went on."""
    old, fresh = (_where(runs, ("none", 0.0), gamma, first) for first in (0, LAST - 1))
    # (the first task of a fresh one is its only one)
    return lambda table: _reward(table, fresh, 1) - _reward(table, old, LAST)


def of(runs: Runs) -> list[Claim]:
    """Returns the claims on some runs."""
    order: tuple[Remedy, ...] = (
        ("none", 0.0), ("none", runs.strength), ("layer", 0.0), ("layer", runs.strength)
    )  # fmt: skip
    names = ("no norm", "L2", "layer norm", "both")
    found = []
    if runs.phase == LAST:
        contrasts = {f"gamma {gamma:g}": _behind(runs, gamma) for gamma in runs.gammas}
        says = "without norm the network falls behind a fresh one"
        found.append(Claim(runs.title, says, runs.lanes, "points", contrasts))
    if len(runs.gammas) > 1:
        near, far = (_lost(runs, gamma) for gamma in runs.gammas)
        says = "without norm more is lost from the first phase on with gamma 0.99 than with 0"
        contrasts = {"lost": lambda table: far(table) - near(table)}
        found.append(Claim(runs.title, says, runs.lanes, "points", contrasts))
    for gamma in runs.gammas:
        contrasts = {
            f"{names[more]} over {names[less]}": _above(runs, order[more], order[less], gamma)
            for less, more in itertools.pairwise(range(len(order)))
        }
        size = f"{runs.strength:.0e}".replace("e-0", "e-")
        says = f"gamma {gamma:g}: no norm, L2 of {size}, layer norm, both, in this order"
        found.append(Claim(runs.title, says, runs.lanes, "points", contrasts))
    return found


CLAIMS = tuple(itertools.chain.from_iterable(map(of, RUNS)))
