"""What the process that trains in a workdir is at, for those who watch it: `progress.json`."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from plasticity_jax.storage import workdir as workdir_
from plasticity_jax.storage import writing
from plasticity_jax.storage.json_files import read_json, sealed, unsealed

FILE = "progress.json"


class Progress(NamedTuple):
    """What a process is at.

    Attributes:
      folder: of the slice that it trains: its workdir's in `slices`, or its checkpoints'.
      compiling: what it compiles for that, in words; "" once it is compiled.
      began: seconds since 1970 when the process began to train.
      before: tasks of lanes in the workdir that were done then.
    """

    folder: str
    compiling: str
    began: float
    before: int


@contextlib.contextmanager
def told(workdir: str | Path) -> Iterator[None]:
    """Forgets before and behind what a process of which nothing is left, or this one, was at."""
    forget(workdir)
    try:
        yield
    finally:
        forget(workdir)


def note(workdir: str | Path, at: Progress) -> None:
    """Writes down what this process is at, if the folder takes it: nothing but status reads it."""
    with contextlib.suppress(OSError), writing.whole(Path(workdir, FILE)) as file:
        file.write(json.dumps(sealed(at._asdict())).encode())


def forget(workdir: str | Path) -> None:
    """Removes what was noted, if the folder lets it."""
    with contextlib.suppress(OSError):
        Path(workdir, FILE).unlink(missing_ok=True)


def read(workdir: str | Path) -> Progress | None:
    """Returns what the process that holds a workdir is at; None if none does, or it is not known,
    as where the file is damaged.
    """
    if not workdir_.is_held(workdir):
        return None
    try:
        found = Progress(**unsealed(read_json(Path(workdir, FILE))))
    except (OSError, ValueError, TypeError):
        return None
    return found if [type(value) for value in found] == [str, str, float, int] else None


def compiling(workdir: str | Path) -> str:
    """Returns what the process that holds a workdir compiles, in words; "" if nothing."""
    # (most slices wait or train: their locks are left alone)
    if not Path(workdir, FILE).exists():
        return ""
    found = read(workdir)
    return found.compiling if found else ""
