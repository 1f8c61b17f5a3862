"""Reading JSON files that others may have written, cut short or changed: only what says one thing.

Faults are raised as `OSError` (the file cannot be read) or `ValueError` (it is no JSON object),
whose text is a clause for the caller's own sentence: only the caller knows what the file is for.
"""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from itertools import chain
from typing import Any

from plasticity_jax.storage.small_files import read_bytes

DEEPEST = 64
"""Levels of nested objects and lists at most: code that walks through them may recurse."""

_SUM = "sha256"


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Returns an object as JSON types with a checksum under `sha256`, since a single flipped bit
    may change a digit into another one.
    """
    plain = json.loads(json.dumps(content))
    return {**plain, _SUM: _digest(plain)}


def unsealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what `sealed` was given; an object from before there was a checksum as it is. Raises
    ValueError, whose text is a clause, where the checksum is that of another content.
    """
    plain = {name: value for name, value in content.items() if name != _SUM}
    # (the last is how manifests of cached data were sealed at first)
    if content.get(_SUM) not in (None, _digest(plain), _digest({**plain, _SUM: ""})):
        raise ValueError("it has not the content that it was written with")
    return plain


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_json(path: str | os.PathLike, *, nan: bool = False) -> dict[str, Any]:
    """Returns the object in a JSON file; see `parse_json`. Raises OSError as
    `small_files.read_bytes`, ValueError as `parse_json`.
    """
    return parse_json(read_bytes(path), nan=nan)


def parse_json(content: bytes, *, nan: bool = False) -> dict[str, Any]:
    """Returns the JSON object that `content` holds, as UTF-8.

    Stricter than `json.loads`, which takes the last of two values of one name and turns numbers
    that are too large for float64 into infinity.

    Args:
      content: the bytes of the whole text.
      nan: whether NaN and infinities are allowed, which Python writes though JSON has none.

    Raises ValueError, whose text is a clause, for what is no JSON object, a name twice, a number
    out of range, or more than 64 levels.
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
