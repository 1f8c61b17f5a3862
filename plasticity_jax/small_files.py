"""Reading small files that may be anything: only regular files of a bounded size, and JSON that says one thing.

Faults are raised as `OSError` (the file cannot be read) or `ValueError` (it is not what was asked for), whose text is a
clause for the caller's own sentence: only the caller knows what the file is for.
"""

import errno
import json
import math
import os
import stat
from itertools import chain
from pathlib import Path
from typing import Any

LARGEST = 2**30
"""Bytes of a small file at most; those of the largest sweeps are a tenth of it."""
DEEPEST = 64
"""Levels of nested objects and lists in JSON at most: code that walks through them may recurse."""


def check_regular(path: str | os.PathLike) -> os.stat_result:
    """Returns the status of `path`, which must be a regular file: a pipe or device could be read for ever.

    Raises:
      OSError: there is none, it cannot be reached, or it is something else.
    """
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "Not a regular file", os.fspath(path))
    return status


def read_bytes(path: str | os.PathLike) -> bytes:
    """Returns the content of a small file.

    Raises:
      OSError: as `check_regular`; it cannot be read, or has more than 2^30 bytes.
    """
    if check_regular(path).st_size > LARGEST:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), os.fspath(path))
    return Path(path).read_bytes()


def read_json(path: str | os.PathLike, *, nan: bool = False) -> dict[str, Any]:
    """Returns the object in a JSON file; see `parse_json`.

    Raises:
      OSError: as `read_bytes`.
      ValueError: as `parse_json`.
    """
    return parse_json(read_bytes(path), nan=nan)


def parse_json(content: bytes, *, nan: bool = False) -> dict[str, Any]:
    """Returns the JSON object that `content` holds, as UTF-8.

    Stricter than `json.loads`, which takes the last of two values of one name and turns numbers that are too large for
    float64 into infinity.

    Args:
      content: the bytes of the whole text.
      nan: whether NaN and infinities are allowed, which Python writes though JSON has none.

    Raises:
      ValueError: no JSON object, a name twice, a number out of range, more than 64 levels; the text is a clause.
    """

    def constant(text: str) -> float:
        if not nan:
            raise ValueError(f"it holds {text}, where JSON has numbers")
        return float(text)

    kinds = {"parse_float": _number, "parse_int": _whole, "parse_constant": constant}
    try:
        found = json.loads(content.decode(), object_pairs_hook=_object, **kinds)
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: {error}") from error
    except RecursionError as error:
        raise ValueError(f"it is nested more than {DEEPEST} levels deep") from error
    if not isinstance(found, dict):
        raise ValueError("it is JSON but not an object")
    level: list[Any] = [found]
    for _ in range(DEEPEST):
        level = list(chain.from_iterable(map(_children, level)))
    if level:
        raise ValueError(f"it is nested more than {DEEPEST} levels deep")
    return found


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"it has {name[:80]!r} twice in one object")
        found[name] = value
    return found


def _number(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"its number {text[:20]} is too large")
    return value


def _whole(text: str) -> int:
    _number(text)  # beyond it, arithmetic with the number may overflow
    return int(text)


def _children(value: Any) -> Any:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
