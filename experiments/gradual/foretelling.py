"""Does early curvature foretell who will keep plasticity? Doses of one change, kinds of change, ten
new seeds.

Question: does the largest Hessian eigenvalue at task 5 tell accuracy at task 50, within and between
  kinds of change, and does it tell more than dormant units, representation change, rank and norm?
Rules: experiments/gradual/rules.md, 3.
Command: python -m experiments.gradual.foretelling --data_dir=DIR --workdir=runs/foretelling
Cost: reduced, 2,400 steps a task, 100 lanes of 50 tasks, 12 million steps, an hour on two cores.
Shows: rank correlations of each probe with late accuracy, over granularities, kinds and seeds.
"""

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.gradual import beyond, settings
from plasticity_jax.cli.settings import Setting
from plasticity_jax.stream import transitions

KINDS = ("sampling", "smoothing", "annealing")
PROBES = {
    "probes": (*settings.PROBES, "effective_rank", "tau_dormant_fraction"),
    "tau_dormant_fraction.tau": 0.0,  # units that never fire
}


def arms(values: Mapping[str, Any]) -> list[dict[str, Setting]]:
    """Returns every granularity of output interpolation up to a plateau for every step, and other
    kinds of change.
    """
    steps = values["epochs"] * (values["samples"] // values["batch_size"])
    finest = int(transitions.transition_steps(np.float32(2 / 3), steps))
    doses = [k for k in beyond.BENCHMARK.recipe.granularities if k < finest]
    output = {"transition": "output", "granularity": (*doses, finest)}
    return [output, *({"transition": kind} for kind in KINDS)]


QUESTION = beyond.Question(
    "Does early curvature foretell?",
    {**PROBES, "seeds": 10, "first_seed": 5, "tasks": 50},
    {**PROBES, "seeds": 3, "tasks": 6},
    arms,
)

if __name__ == "__main__":
    sys.exit(beyond.main(__doc__, QUESTION))
