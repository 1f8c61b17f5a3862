"""Tasks of a Ray cluster. Each starts the process of its slice: one that is killed inside a Ray
worker would take the worker along, and a signal to stop would count as an error of the user's.
"""

import contextlib
import fcntl
import itertools
import math
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from plasticity_jax.execution.engines import Failed, Options, local, supervising
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
    # (XLA's threads are as many as a slice asks for; what compiles for an accelerator takes all)
    count = 0 if needs.get("num_gpus") else math.ceil(needs["num_cpus"])

    def room(running: int) -> int:
        return options.workers - running if options.workers else len(slices)

    def start(folders: Sequence[Path]) -> list[Any]:
        made = []
        for folder in folders:
            words = supervising.command(folder.absolute(), options.imports)
            named = task.options(name=f"slice {folder.name}")
            log = str(folder.absolute() / "log.txt")
            made.append(named.remote(words, str(Path.cwd()), log, count))
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


def _code(words: Sequence[str], folder: str, log: str, count: int) -> int:
    """Runs the process of a slice on so many cores, in a Ray task, and returns its exit code."""
    with _cores(count) as cores, open(log, "ab") as out:
        own = [*words, f"--parent={os.getpid()}"]
        own += [f"--cores={','.join(map(str, cores))}"] if cores else []
        return subprocess.Popen(own, cwd=folder, stdout=out, stderr=out).wait()


@contextlib.contextmanager
def _cores(count: int) -> Iterator[list[int]]:
    """Cores of this node that no other slice has while the context lasts; none where not so many
    are left, as where Ray was told of more than there are: the slice then takes what it gets.

    They are held by locks of files, which end with this process however it ends.
    """
    folder = Path(tempfile.gettempdir(), f"plasticity_jax_cores_{os.getuid()}")
    with contextlib.ExitStack() as held:
        found: list[int] = []
        with contextlib.suppress(OSError), contextlib.ExitStack() as choosing:
            folder.mkdir(exist_ok=True)
            fcntl.flock(choosing.enter_context(open(folder / "choosing", "w")), fcntl.LOCK_EX)
            free = (core for core in local.cores() if _took(folder / str(core), held))
            found += itertools.islice(free, count)
        if len(found) < count:
            held.close()
        yield found if len(found) == count else []


def _took(file: Path, held: contextlib.ExitStack) -> bool:
    """Whether a file could be locked, which stays so while `held` lasts."""
    with contextlib.ExitStack() as own:
        try:
            fcntl.flock(own.enter_context(open(file, "w")), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        held.enter_context(own.pop_all())
    return True
