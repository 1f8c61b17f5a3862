"""Tasks of a Ray cluster. Each starts the process of its slice: one that is killed inside a Ray
worker would take the worker along, and a signal to stop would count as an error of the user's.
"""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from plasticity_jax.execution.engines import Failed, Options, supervising
from plasticity_jax.execution.engines.supervising import Jobs

LOST = -9  # in place of an exit code where a node was lost
# of a task, unless given: --ray.num_gpus=1
USUAL = {"num_cpus": 1.0}


def check(passed: Mapping[str, str]) -> None:
    """Returns if there is Ray, and options are numbers, as Ray's resources are. Raises ValueError
    if not.
    """
    _ray()
    _numbers(passed)


def run(slices: Sequence[Path], options: Options) -> Failed:
    """Runs slices as tasks of the cluster at RAY_ADDRESS, or of one that is started on this machine
    alone. They end with this process. Raises ValueError as `check`.
    """
    ray = _ray()
    needs: dict[str, Any] = {**USUAL, **_numbers(options.passed)}
    ray.init(
        address=os.environ.get("RAY_ADDRESS"), logging_level="warning", ignore_reinit_error=True
    )
    task = ray.remote(max_retries=0, **needs)(_code)

    def room(running: int) -> int:
        return options.workers - running if options.workers else len(slices)

    def start(folders: Sequence[Path]) -> list[Any]:
        made = []
        for folder in folders:
            words = supervising.command(folder.absolute(), options.imports)
            named = task.options(name=f"slice {folder.name}")
            made.append(named.remote(words, str(Path.cwd()), str(folder.absolute() / "log.txt")))
        return made

    def ended(jobs: Sequence[Any]) -> dict[Any, int]:
        ready, _ = ray.wait(list(jobs), num_returns=len(jobs), timeout=0) if jobs else ([], [])
        found = {}
        for job in ready:
            try:
                found[job] = ray.get(job)
            except ray.exceptions.RayError:
                found[job] = LOST
        return found

    def stop(jobs: Sequence[Any]) -> None:
        options.stop.tell(f"{len(jobs)} slices end, and each loses the task that it is in")
        for job in jobs:
            ray.cancel(job, force=True)

    try:
        return supervising.supervise(slices, options, Jobs(room, start, ended, stop))
    finally:
        ray.shutdown()


def _ray() -> Any:
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ValueError(
            "Ray is not installed: allowed with the extra ray, as in "
            'pip install "plasticity_jax[ray]".'
        ) from None
    return ray


def _numbers(passed: Mapping[str, str]) -> dict[str, float]:
    found = {}
    for name, value in passed.items():
        try:
            found[name] = float(value)
        except ValueError:
            raise ValueError(
                f"ray.{name} is {value!r}: allowed are numbers, such as --ray.num_gpus=1."
            ) from None
    return found


def _code(words: Sequence[str], folder: str, log: str) -> int:
    """Runs the process of a slice, in a Ray task, and returns its exit code."""
    own = [*words, f"--parent={os.getpid()}"]
    with open(log, "ab") as out:
        return subprocess.Popen(own, cwd=folder, stdout=out, stderr=out).wait()
