"""One run in one folder: lock, recorded settings, and an orderly stop.

Whatever makes a workdir unusable is raised as `WorkdirError`, whose message is one sentence for the
terminal.
"""

import contextlib
import datetime
import fcntl
import functools
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import IO, Any

from plasticity_jax.storage import writing
from plasticity_jax.storage.json_files import read_json, sealed, unsealed

# a lock is tried so many times more, seconds apart
_TRIES, _TRY = 3, 0.05
_TEXT_SHOWN = 240  # characters of a value or of a library's message that are quoted in a sentence


class WorkdirError(Exception):
    """A workdir that cannot be used (environment fault, exit code 1); the message is one
    sentence.
    """


class InUse(WorkdirError):
    """A workdir that another process holds; `said` says which, in words."""

    def __init__(self, said: str, advice: str):
        super().__init__(f"{said}; {advice}.")
        self.said = said


def reason_of(error: BaseException) -> str:
    """Returns the error as part of one sentence: its first line, shortened, without a full stop."""
    text = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
    if isinstance(error, shutil.Error) and error.args and isinstance(error.args[0], list):
        # (what went wrong with each file of a folder: its path, where it was to go, and why)
        text = str(error.args[0][0][-1])
    # a file that was copied has its number first; tensorstore's text begins with long paths, the
    # cause is last
    system = re.search(r"^\[Errno (\d+)\]|os_error_code='(\d+)'", text)
    text = os.strerror(int(system[1] or system[2])) if system else text
    return text.splitlines()[0][:_TEXT_SHOWN].rstrip(". ")


def check_writable(path: str | os.PathLike, what: str = "workdir") -> None:
    """Returns if `path` is a writable folder, or could be created as one; leaves nothing behind
    either way.

    `what` is what the folder is for, in the message. Raises WorkdirError where `path`, or its
    nearest existing parent, is no folder or takes no files.
    """
    nearest = pathlib.Path(path).absolute()
    while not _exists(nearest, f"The {what} {path}") and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        raise WorkdirError(f"The {what} {path} cannot be used: {nearest} is not a directory.")
    try:
        # os.access tells root that everything is writable, so a file is really opened: without a
        # name where the file system allows it (O_TMPFILE, which leaves even the folder's times
        # alone), else removed at once.
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        reason = f"{nearest} is not writable ({reason_of(error)})"
        raise WorkdirError(f"The {what} {path} cannot be used: {reason}.") from error


def _exists(path: pathlib.Path, what: str) -> bool:
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:  # a name that is too long, a folder that may not be looked into
        raise WorkdirError(f"{what} cannot be used ({reason_of(error)}).") from error
    return True


@contextlib.contextmanager
def lock(path: str | os.PathLike) -> Iterator[Callable[[], None]]:
    """Holds `path` (created if need be) for this process alone while the context lasts; gives a
    function that raises WorkdirError once the folder was deleted or another one took its place.

    An exclusive flock on `path/lock`, which the kernel frees when its process dies however it dies:
    the file that stays behind never blocks anyone. The file names its holder for the message to a
    second run. Raises WorkdirError where another process holds the folder (it is named), or the
    folder cannot be written.
    """
    check_writable(path)
    holder = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "started": datetime.datetime.now().strftime("%Y-%m-%d %H:%M:%S"),
        "command": shlex.join(sys.orig_argv),
    }
    with contextlib.ExitStack() as stack:
        try:
            os.makedirs(path, exist_ok=True)
            # Never unlinked: a run that has the file open already would then lock one that nobody
            # else sees.
            file = stack.enter_context(open(os.path.join(path, "lock"), "a+", encoding="utf-8"))
            _take(file)
            file.truncate(0)
            # (past the buffer, which would be written, and fail, once more at the end)
            os.write(file.fileno(), json.dumps(holder).encode())
        except BlockingIOError as error:
            advice = "wait for it or choose another --workdir"
            raise InUse(f"{path} is in use by {_holder(path)}", advice) from error
        except OSError as error:
            raise WorkdirError(
                f"The workdir {path} cannot be locked ({reason_of(error)})."
            ) from error
        yield functools.partial(_check_held, path, file)


def _check_held(path: str | os.PathLike, file: IO[str]) -> None:
    """Raises WorkdirError unless the locked file is the one in the folder."""
    try:
        there = os.stat(os.path.join(path, "lock"))
    except (FileNotFoundError, NotADirectoryError):
        there = None
    except OSError:  # (a folder of the network that is away for a moment)
        return
    if there is None or not os.path.samestat(there, os.fstat(file.fileno())):
        raise WorkdirError(
            f"{path} was deleted while it was in use, or another folder took its place: the same "
            "command begins anew with what is there."
        )


def _take(file: IO[str]) -> None:
    """Locks an open file. Raises BlockingIOError if another process holds it for longer than one
    that only asks (`is_held`).
    """
    for _ in range(_TRIES):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(_TRY)
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_held(path: str | os.PathLike) -> bool:
    """Returns whether a process holds `path`, on this machine or another that shares the folder, as
    far as its file system tells.
    """
    try:
        with open(os.path.join(path, "lock"), "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _holder(path: str | os.PathLike) -> str:
    """The process that wrote the lock file, in words."""
    try:
        holder = read_json(pathlib.Path(path, "lock"))
        return "process {pid} on host {host}, started {started} ({command})".format(**holder)
    # it has the lock but has not written its name yet
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def read_settings(path: str | os.PathLike) -> dict[str, Any] | None:
    """Returns the settings that `path/config.json` records, None if there is no such file. Raises
    WorkdirError if it cannot be read.
    """
    content = _content(path)
    return None if content is None else content["settings"]


def read_record(path: str | os.PathLike) -> dict[str, Any]:
    """Returns what `path/config.json` records besides settings; empty if there is no such file.
    Raises WorkdirError if it cannot be read.
    """
    content = _content(path) or {}
    return {name: value for name, value in content.items() if name != "settings"}


def _content(path: str | os.PathLike) -> dict[str, Any] | None:
    """What is in `path/config.json`; None if there is no such file."""
    file = pathlib.Path(path, "config.json")
    try:
        content = unsealed(read_json(file, nan=True))
        if not isinstance(content["settings"], dict):
            raise TypeError("its settings are no object")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"cannot be read as the record of a run ({reason_of(error)})"
        raise WorkdirError(f"{file} {reason}; use another --workdir.") from error
    return content


def write_config(path: str | os.PathLike, settings: dict, record: dict) -> None:
    """Writes `path/config.json`, {"settings": settings, **record} with a checksum; whole or not at
    all. Raises WorkdirError if the file cannot be written.
    """
    content = {"settings": json.loads(json.dumps(settings, sort_keys=True)), **record}
    text = json.dumps(sealed(content), indent=2) + "\n"
    target = os.path.join(path, "config.json")
    try:
        with writing.whole(target) as file:
            file.write(text.encode())
    except OSError as error:
        raise WorkdirError(f"{target} cannot be written ({reason_of(error)}).") from error


def remark(path: str | os.PathLike, text: str) -> None:
    """Writes down in `path/config.json`, as "remarks", what is to be said of a run whenever it is
    shown; what was said before is replaced. Raises WorkdirError if the file cannot be read or
    written.
    """
    content = _content(path)
    if content is not None and content.get("remarks", "") != text:
        record = {name: value for name, value in content.items() if name != "settings"}
        write_config(path, content["settings"], {**record, "remarks": text})


STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
"""Signals that ask a run to stop: SIGHUP comes when a terminal goes away, SIGUSR1 is SLURM's usual
warning.
"""


class Stop:
    """Context in which the signals of `STOPPING` only set `requested`, so that the loop can save
    and leave.

    `signal` is the number of the first one, None before. A second SIGINT raises KeyboardInterrupt
    at once. The old handlers come back at the end. SIGHUP stays ignored where it is, as under
    nohup. Outside the main thread, where Python allows no handlers, it does nothing.
    """

    def __init__(self):
        self.requested = False
        self.signal: int | None = None
        self._interrupts = 0
        self._told = False
        self._old: dict[int, Any] = {}

    def __enter__(self) -> "Stop":
        self._old = handle(self._receive)
        return self

    def __exit__(self, *_) -> None:
        restore(self._old)

    def tell(self, what: str) -> None:
        """Says once, on standard error, what is done before this process ends."""
        if not self._told:
            self._told = True
            name = signal.Signals(self.signal).name if self.signal else "asked to stop"
            with contextlib.suppress(OSError):  # (the terminal may be gone)
                print(f"{name}: {what}", file=sys.stderr, flush=True)

    def _receive(self, number: int, _frame) -> None:
        self.requested = True
        self.signal = number if self.signal is None else self.signal
        self._interrupts += number == signal.SIGINT
        if self._interrupts > 1:
            raise KeyboardInterrupt


def handle(handler: Callable[[int, Any], None]) -> dict[int, Any]:
    """Installs a handler of the signals of `STOPPING` and returns the old ones; {} outside the main
    thread.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    ours = [
        number
        for number in STOPPING
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN
    ]
    return {number: signal.signal(number, handler) for number in ours}


def restore(handlers: dict[int, Any]) -> None:
    """Puts back what `handle` returned, and empties it."""
    while handlers:
        number, handler = handlers.popitem()
        # None stands for a handler that was not installed from Python; it cannot be put back.
        signal.signal(number, signal.SIG_DFL if handler is None else handler)
