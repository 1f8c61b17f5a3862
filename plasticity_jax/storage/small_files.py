"""Reading small files that may be anything: only regular ones, of a bounded size."""

import errno
import os
import stat
from pathlib import Path

LARGEST = 2**30
"""Bytes of a small file at most; those of the largest sweeps are a tenth of it."""

MEMORY = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
"""Bytes of memory of this machine."""


def check_regular(path: str | os.PathLike) -> os.stat_result:
    """Returns the status of `path`, which must be a regular file: a pipe or device could be read
    for ever. Raises OSError where there is none, it cannot be reached, or it is something else.
    """
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "Not a regular file", os.fspath(path))
    return status


def check_fits(count: int) -> None:
    """Returns if so many bytes, which a file says that it holds, could be in this machine's memory.

    Raises ValueError, a clause, if not: then they are not asked for.
    """
    if count > MEMORY:
        raise ValueError(
            f"it says that it holds {count:,} bytes, where this machine has {MEMORY:,} of memory"
        )


def read_bytes(path: str | os.PathLike) -> bytes:
    """Returns the content of a small file. Raises OSError as `check_regular`, and for a file that
    cannot be read or has more than 2^30 bytes.
    """
    if check_regular(path).st_size > LARGEST:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), os.fspath(path))
    return Path(path).read_bytes()
