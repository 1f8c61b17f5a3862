"""TensorBoard: event files by tensorboardX, which needs no TensorFlow."""

import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from plasticity_jax.reporting import trackers
from plasticity_jax.reporting.trackers import Write

FOLDER = "tensorboard"


def check() -> None:
    """Returns if tensorboardX is installed. Raises ValueError if not."""
    if importlib.util.find_spec("tensorboardX") is None:
        raise trackers.missing("tensorboard", "tensorboardX")


def start(workdir: Path) -> Write:
    """Returns what writes an arm's means: a run for each arm, the task as the step."""
    import tensorboardX  # pyright: ignore[reportMissingImports]

    writers: dict[str, Any] = {}

    def write(arm: str, task: int, values: Mapping[str, float]) -> None:
        if arm not in writers:
            folder = workdir / FOLDER / re.sub(r"[^\w.,=+ -]", "_", arm)
            writers[arm] = tensorboardX.SummaryWriter(str(folder))
        for name, value in values.items():
            writers[arm].add_scalar(name, value, task)
        writers[arm].flush()

    return write
