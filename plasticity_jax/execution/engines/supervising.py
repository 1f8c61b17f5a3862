"""What engines have in common: slices are started where there is room, and again if they die."""

import sys
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from plasticity_jax.execution.engines import Failed, Options, worker

# times that a slice is sent again after its process died
AGAIN = 3
PAUSE = 0.1  # seconds between two looks
# exit codes of a slice: done; a fault, which another try would meet again
DONE, FAULT = 0, 1
CANCELLED = None
"""In place of an exit code: the user took the job back."""


class Jobs(NamedTuple):
    """Where slices run.

    Attributes:
      room: how many more may be started, by how many run.
      start: (folders) -> a job for each of the first of them, of as many as were taken.
      ended: (jobs) -> exit codes of those that ended, `CANCELLED` for one taken back.
      stop: (jobs) -> a sentence on what becomes of jobs when the run is asked to stop; those that
        it ends are waited for.
    """

    room: Callable[[int], int]
    start: Callable[[Sequence[Path]], Sequence[Hashable]]
    ended: Callable[[Sequence[Any]], Mapping[Any, int | None]]
    stop: Callable[[Sequence[Any]], None]


def command(folder: Path, imports: Sequence[str], *more: str) -> list[str]:
    """Returns the command that runs a slice."""
    found = [sys.executable, "-m", "plasticity_jax", "slice", str(folder), *more]
    if imports:
        found.append(f"--import={','.join(imports)}")
    return found


def supervise(
    slices: Sequence[Path],
    options: Options,
    jobs: Jobs,
    begun: Mapping[Path, Hashable] | None = None,
) -> Failed:
    """Runs slices until each is done or has failed, or a stop is asked for; returns why, by folder.

    `begun` are jobs that run already. A slice whose process died is sent again, three times at
    most; one that notes a fault of its own, or was taken back by the user, is not. Why one failed
    is noted in its folder, where `status` finds it.
    """
    running: dict[Hashable, Path] = {job: folder for folder, job in (begun or {}).items()}
    waiting = [folder for folder in slices if folder not in running.values()]
    again: dict[Path, int] = {}
    failed: Failed = {}
    stopped = False
    while waiting or running:
        if options.stop.requested and not stopped:
            stopped = True
            waiting.clear()
            jobs.stop(list(running))
        now = waiting[: max(0, jobs.room(len(running)))]
        if now:
            made = jobs.start(now)
            del waiting[: len(made)]
            running |= dict(zip(made, now, strict=False))
        for job, code in jobs.ended(list(running)).items():
            folder = running.pop(job)
            reason = _reason(folder, code)
            if code == DONE or stopped:
                continue
            if reason is None and again.get(folder, 0) < AGAIN:
                again[folder] = again.get(folder, 0) + 1
                options.tell(f"{folder.name} ended with code {code}: it is sent again")
                waiting.append(folder)
            else:
                failed[folder] = reason or f"it died {AGAIN + 1} times, the last with code {code}"
                if worker.fault(folder) is None:  # (what it could not note itself)
                    worker.note_fault(folder, failed[folder] + ".")
        options.moved()
        if running:
            time.sleep(PAUSE)
    return failed


def _reason(folder: Path, code: int | None) -> str | None:
    """Why a slice that ended is not to be sent again, None if it is."""
    if code is CANCELLED:
        return "its job was cancelled"
    noted = worker.fault(folder)
    if noted is None and code == FAULT:
        return f"it ended with code {FAULT}; {folder / 'log.txt'} says more"
    return noted
