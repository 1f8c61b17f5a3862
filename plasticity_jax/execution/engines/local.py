"""Processes on this machine, one for each accelerator or group of cores."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from plasticity_jax.execution.engines import Failed, Options, supervising
from plasticity_jax.execution.engines.supervising import Jobs
from plasticity_jax.storage.workdir import WorkdirError, reason_of

# what a process of its own says of the devices here, so that this one leaves them alone
_ASKS = "import jax; print(jax.default_backend(), jax.local_device_count())"
_VISIBLE = {"gpu": "CUDA_VISIBLE_DEVICES", "tpu": "TPU_VISIBLE_CHIPS"}


class Devices(NamedTuple):
    """What there is to run slices on.

    Attributes:
      backend: jax's name of it.
      count: accelerators, or usable cores of a machine without.
    """

    backend: str
    count: int


def devices() -> Devices:
    """Returns what there is on this machine; no backend is started in this process.

    Raises WorkdirError if jax cannot start.
    """
    done = subprocess.run([sys.executable, "-c", _ASKS], capture_output=True, text=True)
    words = done.stdout.split()
    if done.returncode or len(words) != 2:
        said = done.stderr.strip().splitlines()[-1:] or ["it says nothing"]
        raise WorkdirError(f"jax does not start on this machine ({said[0].rstrip('.')[:200]}).")
    backend, count = words[0], int(words[1])
    return Devices(backend, len(cores()) if backend == "cpu" else count)


def cores() -> list[int]:
    """Returns the cores that this process may use."""
    return sorted(os.sched_getaffinity(0))


def check(passed: Mapping[str, str]) -> None:
    """Returns if there are no options of a scheduler, which this engine has none of. Raises
    ValueError if there are.
    """
    for name in passed:
        raise ValueError(f"{name} is given: allowed with engine local is none.")


def run(slices: Sequence[Path], options: Options) -> Failed:
    """Runs slices, `options.workers` at a time; each process has an accelerator, or its share of
    the cores, for itself. They end with this process, however it ends.
    """
    places = _places(options)
    free = list(places)
    processes: dict[int, tuple[subprocess.Popen, int]] = {}

    def room(running: int) -> int:
        return len(free)

    def start(folders: Sequence[Path]) -> list[int]:
        return [_begin(folder) for folder in folders]

    def _begin(folder: Path) -> int:
        place = free.pop(0)
        process = _started(folder, options, places[place])
        processes[process.pid] = process, place
        return process.pid

    def ended(jobs: Sequence[int]) -> dict[int, int]:
        found = {}
        for job in jobs:
            process, place = processes[job]
            code = process.poll()
            if code is not None:
                found[job] = code
                free.append(place)
                del processes[job]
        return found

    def stop(jobs: Sequence[int]) -> None:
        options.stop.tell(f"{len(jobs)} slices save what they have and end")
        for job in jobs:
            processes[job][0].send_signal(signal.SIGTERM)

    try:
        return supervising.supervise(slices, options, Jobs(room, start, ended, stop))
    finally:
        for process, _ in processes.values():
            process.kill()
            process.wait()


def _places(options: Options) -> dict[int, Mapping[str, str]]:
    """Cores (as "cores") and variables of the environment of each worker."""
    found: dict[int, Mapping[str, str]] = {}
    if options.backend != "cpu":
        visible = _VISIBLE.get(options.backend, "CUDA_VISIBLE_DEVICES")
        known = [name for name in os.environ.get(visible, "").split(",") if name]
        for number in range(options.workers):
            found[number] = {visible: known[number] if known else str(number)}
        return found
    own = cores()
    share = max(1, len(own) // options.workers)
    for number in range(options.workers):
        first = number * share % len(own)
        found[number] = {"cores": ",".join(map(str, own[first : first + share]))}
    return found


def _started(folder: Path, options: Options, place: Mapping[str, str]) -> subprocess.Popen[Any]:
    """The process of a slice, whose words are in the slice's log.txt. Raises WorkdirError."""
    flags = [f"--parent={os.getpid()}"]
    if options.backend != "cpu":
        flags.append(f"--backend={options.backend}")
    variables = dict(place)
    if "cores" in variables:
        flags.append(f"--cores={variables.pop('cores')}")
    words = supervising.command(folder, options.imports, *flags)
    try:
        with open(folder / "log.txt", "ab") as log:
            return subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **variables},
                start_new_session=True,  # (Ctrl-C is for this process, which passes it on)
            )
    except OSError as error:
        raise WorkdirError(f"{folder} cannot be started ({reason_of(error)}).") from error
