"""Writing files whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from typing import IO


@contextlib.contextmanager
def whole(path: str | os.PathLike) -> Iterator[IO[bytes]]:
    """Gives a file to write to, which takes the place of `path` once all of it is on the disk.

    A reader sees the old file or the new one. Raises OSError if the folder is missing or the disk
    does not take it; an older file stays as it was then, and after any other error.
    """
    part = f"{os.fspath(path)}.part"
    try:
        with open(part, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(part)
