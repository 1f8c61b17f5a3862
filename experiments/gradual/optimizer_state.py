"""Is it Adam? An unchanging task and abrupt change under optimizers that differ in what they
remember.

Question: how much of the lost accuracy comes from the optimizer's state, with and without a change.
Rules: experiments/gradual/rules.md, 1; momentum's learning rate is what --tune chose.
Command: python -m experiments.gradual.optimizer_state --data_dir=DIR --workdir=runs/optimizer_state
Cost: reduced, 2,400 steps a task, 50 lanes of 50 tasks, 6 million steps, half an hour on two cores.
Shows: bursts without any change, and what of abrupt change's loss goes with the state of Adam.
"""

import itertools
import sys

from experiments.gradual import beyond
from plasticity_jax.cli.settings import Setting

VARIANTS = {
    "Adam": {},
    "eps": {"adam.eps": 1e-6},
    "b2": {"adam.b2": 0.99},
    "reset": {"method": "optimizer_reset"},
    "momentum": {"optimizer": "momentum", "learning_rate": 1e-3},
}
RATES = (1e-1, 1e-2, 1e-3)
ABRUPT = {"transition": "sampling", "granularity": 1}


def arms(_) -> list[dict[str, Setting]]:
    """Returns every variant on the unchanging task and under abrupt change."""
    pairs = itertools.product((False, True), VARIANTS.values())
    return [{**ABRUPT, "random_labels.change": change, **variant} for change, variant in pairs]


def rates(_) -> list[dict[str, Setting]]:
    """Returns momentum at each learning rate, under abrupt change."""
    return [{**ABRUPT, "optimizer": "momentum", "learning_rate": RATES}]


QUESTION = beyond.Question(
    "Is it Adam?", {"seeds": 5, "first_seed": 20, "tasks": 50}, {"seeds": 2}, arms
)
TUNING = beyond.Question(
    "Learning rate of momentum",
    {"seeds": 2, "first_seed": 1000, "tasks": 5},
    {"seeds": 1, "first_seed": 1000},
    rates,
)

if __name__ == "__main__":
    sys.exit(beyond.main(__doc__, QUESTION, {"tune": TUNING}))
