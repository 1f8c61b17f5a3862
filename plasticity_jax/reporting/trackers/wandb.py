"""Weights & Biases: one run for a workdir, offline with WANDB_MODE=offline."""

import hashlib
import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path

from plasticity_jax.reporting import trackers
from plasticity_jax.reporting.trackers import Write


def check() -> None:
    """Returns if wandb is installed. Raises ValueError if not."""
    if importlib.util.find_spec("wandb") is None:
        raise trackers.missing("wandb", "wandb")


def start(workdir: Path) -> Write:
    """Returns what logs an arm's means as ARM/MEASUREMENT, against the task.

    The same workdir goes on with the same run. Where it goes, and under which project, wandb's own
    variables say (WANDB_MODE, WANDB_PROJECT, WANDB_ENTITY).
    """
    wandb = importlib.import_module("wandb")

    place = str(workdir.resolve())
    run = wandb.init(
        dir=str(workdir),
        name=workdir.name,
        id=hashlib.sha256(place.encode()).hexdigest()[:16],
        resume="allow",
        config={"workdir": place},
    )
    run.define_metric("*", step_metric="task")

    def write(arm: str, task: int, values: Mapping[str, float]) -> None:
        run.log({"task": task, **{f"{arm}/{name}": value for name, value in values.items()}})

    return write
