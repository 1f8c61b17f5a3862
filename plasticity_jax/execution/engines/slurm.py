"""Jobs of a SLURM cluster, by its own commands: sbatch, squeue and, where there is one, sacct."""

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from plasticity_jax.execution.engines import Failed, Options, supervising, worker
from plasticity_jax.execution.engines.supervising import CANCELLED, DONE, FAULT, Jobs
from plasticity_jax.storage import writing
from plasticity_jax.storage.json_files import read_json, sealed, unsealed
from plasticity_jax.storage.workdir import WorkdirError, reason_of

# in the folder of all slices: {slice: job} of what was sent
JOBS = "jobs.json"
ARRAY = 1000  # slices of one job array; clusters take 1,001 by default
SECONDS = 5.0  # between two questions to the scheduler
MINUTE = 60.0  # until a job that was refused is sent again, if none ends before
LATE = 60.0  # that accounting may be behind the queue
# in a slice's folder: the job that was asked to end, and neither warned of its time nor begun again
ENDED = "ended.txt"
# what a job gets unless it is given: a warning two minutes before its time is over
USUAL = {"job-name": "plasticity", "signal": "B:USR1@120"}
_OURS = ("array", "output", "error", "requeue", "no-requeue", "open-mode", "parsable", "wrap")
# squeue and scontrol would not find jobs elsewhere; sbatch would not return before they end
_NOT_HERE = {
    "clusters": "jobs are sent to the cluster of this machine",
    "wait": "this command waits for jobs itself",
}
_SUFFIX = ".sbatch"  # of scripts, beside the slices
LOST = -9  # in place of an exit code that is not known
# states of a job that has not ended
_UNDER_WAY = ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "REQUEUE", "SUSPENDED", "RESIZING")

# The shell of a batch job gets the warning that its time is over, and passes it on. Then it asks
# for the job once more, so that it goes on also where nobody waits for it. A job that is preempted
# SLURM asks for by itself, and one that the user takes back must not be.
_SCRIPT = """#!/bin/bash
{options}
slices=({names})
folder={folder}/${{slices[$SLURM_ARRAY_TASK_ID]}}
job="${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID"
rm -f "$folder/{ended}"
warned=0
trap 'warned=1; kill -USR1 $!' USR1
trap '[ $warned -eq 1 ] || echo "$job" > "$folder/{ended}"; kill -TERM $!' TERM
{command} >> "$folder/log.txt" 2>&1 &
child=$!
wait $child
code=$?
while kill -0 $child 2> /dev/null; do
  wait $child
  code=$?
done
if [ $warned -eq 1 ] && [ $code -eq {stopped} ]; then
  scontrol requeue "$job"
fi
exit $code
"""


def check(passed: Mapping[str, str]) -> None:
    """Returns if jobs with these options can be sent from here. Raises ValueError for an option
    that is none of sbatch's or would undo what this engine does, also as a variable of sbatch's,
    and WorkdirError if there is no sbatch.
    """
    if shutil.which("sbatch") is None:
        raise WorkdirError(
            "there is no sbatch on this machine: allowed is --engine=slurm where jobs can be sent, "
            "such as a login node."
        )
    for name in passed:
        # (sbatch takes the beginning of a name for the name)
        is_ours = any(our.startswith(name) for our in (*_OURS, *_NOT_HERE))
        why = next((f", as {_NOT_HERE[our]}" for our in _NOT_HERE if our.startswith(name)), "")
        if is_ours or not re.fullmatch(r"[a-z][a-z0-9-]*", name):
            raise ValueError(
                f"slurm.{name} is given{why}: allowed are sbatch's long options but for "
                f"{', '.join((*_OURS, *_NOT_HERE))}."
            )
    for name, why in _NOT_HERE.items():
        variable = f"SBATCH_{name.upper()}"
        if variable in os.environ:
            raise ValueError(f"{variable} is set: allowed is none, as {why}.")


def run(slices: Sequence[Path], options: Options) -> Failed:
    """Runs slices as job arrays and waits for them. They do not end with this process: the same
    command finds those that are queued or running.

    Raises WorkdirError if sbatch refuses a job while none of them is queued or running.
    """
    known = _known(options.folder)
    queue = _Queue()
    active = queue.active()
    known |= _not_noted(options.folder, active, known)
    begun = {folder: known[folder.name] for folder in slices if known.get(folder.name)}
    begun = {folder: job for folder, job in begun.items() if job in active}
    if begun:
        options.tell(f"{len(begun)} slices are queued or running already: they are waited for")

    since: dict[str, float] = {}

    def ended(jobs: Sequence[str]) -> dict[str, int | None]:
        gone = queue.gone(jobs)
        places = {job: options.folder / name for name, job in known.items()}
        states = {} if queue.left else _states(gone)
        found = {}
        for job in gone:
            late = time.monotonic() - since.setdefault(job, time.monotonic()) > LATE
            if queue.left or late or not _is_behind(states.get(job, ""), places[job]):
                found[job] = _code(job, places[job], states.get(job, ""))
        return found

    def stop(jobs: Sequence[str]) -> None:
        options.tell(
            f"{len(jobs)} slices stay queued or running, and the same command finds them: "
            f"scancel {' '.join(sorted({job.partition('_')[0] for job in jobs}))} takes them back"
        )
        queue.left = True

    sender = _Sender(options, queue, known)
    jobs = Jobs(sender.room, sender.start, ended, stop)
    return supervising.supervise(slices, options, jobs, begun)


class _Refused(WorkdirError):
    """sbatch did not take a job."""


class _Sender:
    """Sends slices, in smaller arrays and later where the scheduler does not take them: it may
    limit an array, or the jobs of a user.
    """

    def __init__(self, options: Options, queue: "_Queue", known: dict[str, str]):
        self._options, self._queue, self._known = options, queue, known
        self._size = ARRAY
        self._running = 0
        self._full = 0  # jobs that ran when no more were taken; 0: they are
        self._tried = 0.0
        self._told = False

    def room(self, running: int) -> int:
        """How many more may be sent; none where no more were taken, until one of them ends, or a
        minute later, as other jobs of the user count as well.
        """
        self._running = running
        if running and running >= self._full > 0 and time.monotonic() < self._tried + MINUTE:
            return 0
        return self._options.workers - running if self._options.workers else sys.maxsize

    def start(self, folders: Sequence[Path]) -> list[str]:
        """Sends the first of the slices, as many as are taken, and returns their jobs.

        Raises WorkdirError if none is, and none runs.
        """
        made: list[str] = []
        self._full = 0
        while len(made) < len(folders) and not self._full:
            own = folders[len(made) : len(made) + self._size]
            try:
                sent = self._sent(own)
            except _Refused as refused:
                self._smaller(len(own), self._running + len(made), refused)
                continue
            made += sent
            self._known.update(zip([f.name for f in own], sent, strict=True))
            _note(self._options.folder, self._known)
            self._size = min(ARRAY, 2 * self._size)
        if made:
            number = made[0].partition("_")[0]
            self._options.tell(f"{len(made)} slices are sent as job {number}")
            self._queue.asked = 0.0
        return made

    def _sent(self, own: Sequence[Path]) -> list[str]:
        """Sends slices as one array. Raises WorkdirError; `_Refused` if they are not in the queue,
        since a busy scheduler may take what it does not answer to.
        """
        try:
            return _sent(own, self._options)
        except _Refused:
            found = _not_noted(self._options.folder, self._queue.active(), self._known)
            if not all(folder.name in found for folder in own):
                raise
            return [found[folder.name] for folder in own]

    def _smaller(self, count: int, running: int, refused: _Refused) -> None:
        """Lets the next array be half of one of `count` that was refused, or wait for one of the
        jobs that run.
        """
        self._size = max(1, count // 2)
        if count > 1:
            return
        if not running:
            raise refused
        self._full, self._tried = running, time.monotonic()
        if not self._told:
            self._told = True
            said = str(refused).rstrip(".")
            self._options.tell(f"{said}: the other slices wait until jobs of this run end")


class _Queue:
    """What squeue says, asked seldom.

    Attributes:
      asked: when it was asked last.
      left: whether nobody waits for jobs any more: then all count as ended.
    """

    def __init__(self):
        self.asked = 0.0
        self.left = False
        self._active: dict[str, str] = {}

    def active(self) -> dict[str, str]:
        """Returns the user's jobs that wait or run, as ARRAY_INDEX, and the script of each.

        Raises WorkdirError if squeue fails.
        """
        done = _called(["squeue", "--me", "--noheader", "--array", "--format=%i|%o"])
        if done.returncode:
            raise WorkdirError(f"squeue fails ({_said(done)}).")
        parts = [line.strip().partition("|") for line in done.stdout.splitlines()]
        return {job: script for job, _, script in parts if job}

    def gone(self, jobs: Sequence[str]) -> list[str]:
        """Returns those of the jobs that neither wait nor run, as far as squeue was asked lately;
        none if it does not answer, as a busy scheduler may for minutes.
        """
        if self.left:
            return list(jobs)
        if time.monotonic() < self.asked + SECONDS:
            return []
        try:
            self._active = self.active()
        except WorkdirError:
            return []
        finally:
            self.asked = time.monotonic()
        return [job for job in jobs if job not in self._active]


def _code(job: str, folder: Path, state: str) -> int | None:
    """What became of a job that is gone, as an exit code."""
    if worker.is_done(folder):
        return DONE
    if state.startswith("CANCELLED") or (not state and _is_ended(job, folder)):
        return CANCELLED
    return FAULT if worker.fault(folder) is not None else LOST


def _is_ended(job: str, folder: Path) -> bool:
    """Whether a job noted that it was asked to end, as scancel does, and was not begun again."""
    try:
        return (folder / ENDED).read_text(encoding="utf-8").strip() == job
    except OSError:
        return False


def _is_behind(state: str, folder: Path) -> bool:
    """Whether accounting is to say yet what became of a job that is gone from the queue."""
    is_told = bool(state) and not state.startswith(_UNDER_WAY)
    return not is_told and shutil.which("sacct") is not None and not worker.is_done(folder)


def _states(jobs: Sequence[str]) -> dict[str, str]:
    """What became of jobs, as far as the scheduler remembers it (for `MinJobAge`, five minutes
    unless a cluster sets it), or accounting, which may be behind, knows it.
    """
    if not jobs:
        return {}
    words = ["--me", "--states=all", "--noheader", "--array", "--format=%i|%T"]
    found = _told(["squeue", *words])
    found = {job: state for job, state in found.items() if not state.startswith(_UNDER_WAY)}
    unknown = [job for job in jobs if job not in found]
    if unknown and shutil.which("sacct") is not None:
        words = ["--noheader", "--allocations", "--parsable2", "--format=JobID,State"]
        found |= _told(["sacct", *words, f"--jobs={','.join(unknown)}"])
    return found


def _told(words: Sequence[str]) -> dict[str, str]:
    """The state of each job that a command lists; {} if it fails."""
    rows = [line.strip().split("|") for line in _called(words).stdout.splitlines()]
    return {row[0]: row[1] for row in rows if len(row) == 2}


def _not_noted(folder: Path, active: Mapping[str, str], known: Mapping[str, str]) -> dict[str, str]:
    """{slice: job} of jobs of this run that wait or run and are not `known`: the command that sent
    them was killed before it had written that down. They are known by their script, which is
    written before.
    """
    noted, found = set(known.values()), {}
    for job, script in active.items():
        path, (_, _, index) = Path(script), job.partition("_")
        if job in noted or path.suffix != _SUFFIX or path.parent.resolve() != folder.resolve():
            continue
        with contextlib.suppress(OSError):
            names = re.search(r"^slices=\((.*)\)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            named = names[1].split() if names else []
            if index.isdecimal() and int(index) < len(named):
                found[named[int(index)]] = job
    return found


def _sent(slices: Sequence[Path], options: Options) -> list[str]:
    """Sends slices as one job array and returns their jobs. Raises WorkdirError, `_Refused` if
    sbatch does not take it.
    """
    # (absolute, as `_not_noted` finds it again from any folder)
    script = options.folder.absolute() / f"{slices[0].name}{_SUFFIX}"
    try:
        writing.text(script, text(slices, options))
    except OSError as error:
        raise WorkdirError(f"{script} cannot be written ({reason_of(error)}).") from error
    done = _called(["sbatch", "--parsable", str(script)])
    number = done.stdout.strip().partition(";")[0]
    if done.returncode or not number.isdecimal():
        raise _Refused(f"sbatch refuses {script} ({_said(done)}).")
    return [f"{number}_{index}" for index in range(len(slices))]


def text(slices: Sequence[Path], options: Options) -> str:
    """Returns the batch script of an array of slices."""
    lines = {**USUAL, **options.passed}
    lines |= {"array": f"0-{len(slices) - 1}", "output": "/dev/null", "requeue": ""}
    words = supervising.command(Path("FOLDER"), options.imports)
    command = shlex.join(words).replace("FOLDER", '"$folder"')
    return _SCRIPT.format(
        options="\n".join(
            f"#SBATCH --{name}" + (f"={shlex.quote(value)}" if value else "")
            for name, value in lines.items()
        ),
        names=" ".join(folder.name for folder in slices),
        folder=shlex.quote(str(options.folder.absolute())),
        command=command,
        stopped=worker.STOPPED,
        ended=ENDED,
    )


def _known(folder: Path) -> dict[str, str]:
    """{slice: job} of what was sent before."""
    try:
        found = unsealed(read_json(folder / JOBS))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise WorkdirError(
            f"{folder / JOBS} cannot be read ({reason_of(error)}): it names the jobs of this run, "
            "so that none is sent twice; delete it once none of them is queued or running."
        ) from error
    return {name: str(job) for name, job in found.items()}


def _note(folder: Path, known: Mapping[str, str]) -> None:
    """Writes down what was sent. Raises WorkdirError."""
    try:
        with writing.whole(folder / JOBS) as file:
            file.write(json.dumps(sealed(known), indent=2).encode())
    except OSError as error:
        raise WorkdirError(f"{folder / JOBS} cannot be written ({reason_of(error)}).") from error


def _called(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL)


def _said(done: subprocess.CompletedProcess[str]) -> str:
    lines = (done.stderr or done.stdout).strip().splitlines()
    return lines[-1].rstrip(".")[:240] if lines else f"exit code {done.returncode}"
