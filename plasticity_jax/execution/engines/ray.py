"""Tasks of a Ray cluster. Each starts the process of its slice: one that is killed inside a Ray
worker would take the worker along, and a signal to stop would count as an error of the user's.
"""

import contextlib
import fcntl
import itertools
import math
import os
import re
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from plasticity_jax.execution.engines import Failed, Options, local, supervising
from plasticity_jax.execution.engines.supervising import Jobs
from plasticity_jax.storage.workdir import WorkdirError, reason_of

LOST = -9  # in place of an exit code where a node was lost
# of a task, unless given: --ray.num_gpus=1
USUAL = {"num_cpus": 1.0}
# what Ray calls them on a node; others of a cluster's own are given as resources.NAME
_NAMES = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
_OWN = "resources."
_LEAST, _MOST = 1e-4, 1e14  # quantities that Ray tells from none, and can count
_ADDRESS = re.compile(r"(?:ray://)?(?:([\w.-]+)|\[([0-9a-fA-F:.]+)\]):(\d{1,5})")
_ANSWERS = 5.0  # seconds in which a cluster takes a connection; Ray itself may wait without end


def check(passed: Mapping[str, str]) -> None:
    """Returns if there is Ray, options are quantities of Ray's resources, and something takes
    connections at RAY_ADDRESS. Raises ValueError if not, WorkdirError for the last.
    """
    _ray()
    _needs(passed)
    address = os.environ.get("RAY_ADDRESS")
    if not address or address in ("auto", "local"):
        return
    parts = _ADDRESS.fullmatch(address)
    if parts is None or not 0 < int(parts[3]) < 1 << 16:
        raise ValueError(
            f"RAY_ADDRESS is {address!r}: allowed are HOST:PORT, ray://HOST:PORT, 'auto' and "
            "'local'."
        )
    try:
        socket.create_connection((parts[1] or parts[2], int(parts[3])), _ANSWERS).close()
    except (OSError, UnicodeError) as error:
        raise WorkdirError(
            f"there is no Ray cluster at RAY_ADDRESS {address} ({reason_of(error)})."
        ) from error


def run(slices: Sequence[Path], options: Options) -> Failed:
    """Runs slices as tasks of the cluster at RAY_ADDRESS, or of one that is started on this machine
    alone. They end with this process. Raises ValueError as `check`, and WorkdirError where Ray does
    not start or connect, or does not take such tasks.
    """
    ray = _ray()
    needs = {**USUAL, **_needs(options.passed)}
    address = os.environ.get("RAY_ADDRESS")
    with _told(ray, f"cannot be reached at {address}" if address else "does not start"):
        ray.init(address=address, logging_level="warning", ignore_reinit_error=True)
        lacking = _lacking(ray, needs)
    if lacking and (not address or address == "local"):  # (a cluster may get further nodes)
        ray.shutdown()
        raise WorkdirError(f"{lacking}: allowed is what this machine has.")
    if lacking:
        options.tell(f"note: {lacking}, so that slices wait until one has.")
    own = {name.removeprefix(_OWN): needs[name] for name in needs if name.startswith(_OWN)}
    known = {name: needs[name] for name in needs if name in _NAMES}
    with _told(ray, "does not take such tasks"):
        task = ray.remote(max_retries=0, resources=own, **known)(_code)
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
            with _told(ray, "does not take such tasks"):
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


def _needs(passed: Mapping[str, str]) -> dict[str, float]:
    """What a slice is to have, by the names of options. Raises ValueError."""
    found = {}
    for name, value in passed.items():
        is_own = name.startswith(_OWN) and name.removeprefix(_OWN) not in ("", "CPU", "GPU")
        if name not in _NAMES and not is_own:
            raise ValueError(
                f"ray.{name} is given: allowed are "
                f"{', '.join(f'ray.{known}' for known in _NAMES)}, and ray.{_OWN}NAME for a "
                "resource that the cluster itself names."
            )
        try:
            found[name] = float(value)
        except ValueError:
            found[name] = math.nan
        if not (found[name] == 0 or _LEAST <= found[name] <= _MOST):
            raise ValueError(
                f"ray.{name} is {value!r}: allowed are 0 and numbers from {_LEAST:g} to "
                f"{_MOST:g}, such as --ray.num_gpus=1."
            )
        if name == "num_gpus" and found[name] > 1 and found[name] % 1:
            raise ValueError(f"ray.{name} is {value!r}: allowed are parts of 1 and whole numbers.")
    return found


def _lacking(ray: Any, needs: Mapping[str, float]) -> str:
    """Says of what a slice needs more than any node has; "" if there is nothing such."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for name, asked in needs.items():
        kind = _NAMES.get(name, name.removeprefix(_OWN))
        most = max((node.get(kind, 0.0) for node in nodes), default=0.0)
        if asked > most:
            return (
                f"ray.{name} is {asked:.15g}, but no node of the cluster has more than {most:.15g}"
            )
    return ""


@contextlib.contextmanager
def _told(ray: Any, what: str) -> Iterator[None]:
    """What Ray raises becomes a WorkdirError: one sentence."""
    faults = (ray.exceptions.RayError, OSError, RuntimeError, ValueError, TypeError)
    try:
        yield
    except faults as error:
        raise WorkdirError(f"Ray {what} ({reason_of(error)}).") from error


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
