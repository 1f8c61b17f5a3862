"""One slice, in a process of its own: `python -m plasticity_jax slice FOLDER`."""

import contextlib
import ctypes
import json
import os
import signal
from pathlib import Path

import jax

from plasticity_jax.execution import program as program_
from plasticity_jax.execution import slices, starts, sweep
from plasticity_jax.execution.engines import description
from plasticity_jax.storage import writing
from plasticity_jax.storage.checkpoints import keeping
from plasticity_jax.storage.json_files import read_json, sealed, unsealed
from plasticity_jax.storage.workdir import WorkdirError, reason_of

# in a slice's folder: why it failed, in one sentence, and how its last tries went
FAULT, TRIES = "fault.txt", "tries.json"
STOPPED = 128 + signal.SIGTERM
"""Exit code of a slice that was asked to stop, by whichever signal, and saved all it had."""
# tries that may end one after another without a further task
WITHOUT_PROGRESS = 2


def run(folder: str | Path) -> None:
    """Runs the slice of a folder from where it was, on one device.

    Raises WorkdirError for what its description cannot say, and for a slice that ended twice
    without a further task; else as `sweep.run_in_workdir`.
    """
    where = Path(folder)
    program, how = description.read(where)
    _count_try(where, program.spec.tasks)
    dataset = program_.load_common_dataset([program.spec], how.data_dir, False)
    data = program_.device_data(dataset)
    (program,) = starts.attached([program], how.start, how.start_task, data, how.start_arm)
    always = keeping(how.keep_checkpoints)
    sweep.run_in_workdir([program], dataset, where, how.checkpoint_every, always=always)


def tasks_done(folder: str | Path) -> int:
    """Returns after how many tasks the newest states of a slice are saved, 0 if it has none.

    Nothing is read but names of folders.
    """
    with contextlib.suppress(OSError):
        return max(map(newest, Path(folder, "checkpoints").iterdir()), default=0)
    return 0


def newest(checkpoints: Path) -> int:
    """Returns the newest step in a folder of checkpoints, 0 if there is none."""
    with contextlib.suppress(OSError):
        names = [step.name for step in checkpoints.iterdir()]
        return max((int(name) for name in names if name.isdecimal()), default=0)
    return 0


def is_done(folder: Path) -> bool:
    """Returns whether all tasks of a slice are saved. Raises WorkdirError as `description.read`."""
    return tasks_done(folder) >= description.tasks(folder)


def fault(folder: str | Path) -> str | None:
    """Returns why a slice failed, in one sentence; None if it did not."""
    try:
        return Path(folder, FAULT).read_text(encoding="utf-8").strip()
    except OSError:
        return None


def note_fault(folder: str | Path, sentence: str) -> None:
    """Writes down why a slice failed, if its folder takes it."""
    with contextlib.suppress(OSError), writing.whole(Path(folder, FAULT)) as file:
        file.write(f"{sentence}\n".encode())


def forget(folder: str | Path) -> None:
    """Removes what is noted of former tries, for a run that is given anew."""
    for name in (FAULT, TRIES):
        Path(folder, name).unlink(missing_ok=True)


def tries(folder: str | Path) -> dict[str, int]:
    """Returns what is noted of the last try: `tasks` done when it began, `count` of the tries that
    began there; {} if nothing is, or it is damaged, so that tries are counted anew.
    """
    try:
        found = unsealed(read_json(Path(folder, TRIES)))
    except (OSError, ValueError):
        return {}
    kinds = {"tasks": int, "count": int}
    return found if {n: type(v) for n, v in found.items()} == kinds else {}


def _count_try(folder: Path, tasks: int) -> None:
    """Notes that a try begins. Raises WorkdirError if so many before it finished no task."""
    done, before = tasks_done(folder), tries(folder)
    count = before["count"] + 1 if before.get("tasks") == done else 1
    if count > WITHOUT_PROGRESS and done < tasks:
        raise WorkdirError(
            f"{folder} ended {WITHOUT_PROGRESS} times without finishing task {done + 1} of {tasks}"
            ": allowed are limits of time and memory in which a task can be finished; the same "
            "command tries again."
        )
    content = sealed({"tasks": done, "count": count})
    try:
        with writing.whole(folder / TRIES) as file:
            file.write(json.dumps(content).encode())
    except OSError as error:
        raise WorkdirError(f"{folder / TRIES} cannot be written ({reason_of(error)}).") from error


def check_ready(folder: str | Path) -> None:
    """Raises WorkdirError unless a folder is that of a slice."""
    if not Path(folder, description.FILE).exists():
        raise WorkdirError(
            f"{folder} {slices.lacks(folder) if not Path(folder).is_dir() else 'has no slice.json'}"
            ": allowed are the folders that a run with --engine makes."
        )


def check_backend(wanted: str) -> None:
    """Raises WorkdirError unless jax starts on the kind of device that a slice is for.

    Where an accelerator cannot be reached, jax starts on a CPU instead.
    """
    found = jax.default_backend()
    if found != wanted:
        raise WorkdirError(
            f"jax starts on {found} in the process of a slice: allowed is {wanted}, for which the "
            "run was planned."
        )


def die_with(parent: int) -> None:
    """Lets the kernel kill this process when `parent` dies, however it dies, so that no orphan
    holds the lock of a slice; does nothing where there is no such call.

    Ends the process if the parent is dead already.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(128 + signal.SIGKILL)
