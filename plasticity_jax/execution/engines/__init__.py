"""Engines: what runs the slices of a sweep, each in a process of its own (see docs/engines.md).

An engine is a module with one function, `run(slices, options) -> failed`: it runs the folders of
slices until each is done or has failed, and returns why, by folder. It needs to know nothing of
what is trained. A slice resumes by itself and is done once its own folder says so; an engine starts
`python -m plasticity_jax slice FOLDER` somewhere, and again if it died.
"""

import importlib
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from plasticity_jax.storage.workdir import Stop

Failed = dict[Path, str]
"""Why a slice is not done, in words, by its folder."""

ENGINES = {
    "local": "processes on this machine, one for each accelerator or group of cores",
    "slurm": "jobs of a SLURM cluster that sees the workdir",
    "ray": "tasks of a Ray cluster that sees the workdir",
}


class Options(NamedTuple):
    """What an engine is told besides the slices.

    Attributes:
      folder: in which all slices are.
      workers: slices that run at a time, where the engine decides it.
      backend: jax's name of the devices that they run on, where it is known.
      imports: modules with parts of one's own, which each slice loads.
      passed: further options, as the engine's own scheduler calls them.
      moved: called several times a second while slices run.
      tell: called with lines for the terminal.
      stop: whether, and by which signal, the run was asked to stop.
    """

    folder: Path
    workers: int
    backend: str
    imports: Sequence[str]
    passed: Mapping[str, str]
    moved: Callable[[], None]
    tell: Callable[[str], None]
    stop: Stop


def engine(name: str) -> types.ModuleType:
    """Returns the module of an engine, with its `run(slices, options)` and `check(passed)`, which
    raises ValueError or WorkdirError if slices cannot be run so from here.
    """
    return importlib.import_module(f"{__name__}.{name}")
