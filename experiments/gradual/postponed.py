"""Prevented or postponed? How long accuracy lasts under abrupt and gradual change, by learning
rate.

Question: is what gradual change gains a factor in time or an end of the loss, and is a low rate
  enough?
Rules: experiments/gradual/rules.md, 2.
Command: python -m experiments.gradual.postponed --data_dir=DIR --workdir=runs/postponed
(with --learning_rate=1e-4 one rate alone; workdirs of several rates are read together)
Cost: reduced, 2,400 steps a task, 60 lanes of 100 tasks, 14 million steps, 1.3 hours on two cores.
Shows: the first task below 90 % as a survival curve for each arm and rate.
"""

import sys

from experiments.gradual import beyond

ARMS = [
    {"transition": "output", "granularity": 1},  # abrupt
    {"transition": "output"},
    {"transition": "sampling"},
]
RATES = {"learning_rate": (3e-5, 1e-4, 3e-4, 1e-3)}
QUESTION = beyond.Question(
    "Prevented or postponed?",
    {**RATES, "seeds": 5, "first_seed": 15, "tasks": 100},
    {**RATES, "seeds": 2, "tasks": 3},
    lambda _: ARMS,
)

if __name__ == "__main__":
    sys.exit(beyond.main(__doc__, QUESTION))
