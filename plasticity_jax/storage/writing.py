"""Writing files whole or not at all."""

import contextlib
import errno
import os
from collections.abc import Iterator
from typing import IO


@contextlib.contextmanager
def whole(path: str | os.PathLike) -> Iterator[IO[bytes]]:
    """Gives a file to write to, which takes the place of `path` once all of it is on the disk.

    A reader sees the old file or the new one. Raises OSError, which names `path`, if the folder is
    missing or the disk does not take it; an older file stays as it was then, and after any other
    error.
    """
    part = f"{os.fspath(path)}.part"
    try:
        with open(part, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        _name(error, path)
        raise
    finally:
        with contextlib.suppress(OSError):
            os.unlink(part)


def text(path: str | os.PathLike, content: str) -> None:
    """Writes text as UTF-8 in place of what `path` has. Raises OSError as `whole`."""
    with whole(path) as file:
        file.write(content.encode())


def append(path: str | os.PathLike, content: bytes) -> None:
    """Writes behind what `path` has, all of it or nothing, unless this process is killed. Raises
    OSError, which names `path`.
    """
    try:
        with open(path, "ab", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            try:
                while content:
                    content = content[file.write(content) :]
            except OSError:
                file.truncate(end)
                raise
    except OSError as error:
        _name(error, path)
        raise


def _name(error: OSError, path: str | os.PathLike) -> None:
    """Says which file an error is about: that of a write says nothing, and what is written beside
    the file has a name that nobody knows. A library's error may have words alone, which are kept.
    """
    if error.errno is None:
        error.errno, error.strerror = errno.EIO, str(error)
    error.filename, error.filename2 = os.fspath(path), None
