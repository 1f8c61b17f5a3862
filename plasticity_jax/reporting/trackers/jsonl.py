"""A line of JSON for each lane and task, for whatever reads lines."""

import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plasticity_jax.reporting.trackers import Rows
from plasticity_jax.storage import writing

if TYPE_CHECKING:
    import pandas

FILE = "metrics.jsonl"
_BLOCK = 1 << 16  # bytes that are looked through at a time


def check() -> None:
    """Returns: nothing is needed."""


def start(workdir: Path) -> Rows:
    """Returns what appends rows to `metrics.jsonl`; null stands for what was not measured.

    A line that was half written when the process was killed is removed. Raises OSError.
    """
    _whole_lines(workdir / FILE)

    def write(rows: "pandas.DataFrame") -> None:
        lines = [json.dumps(_plain(row)) + "\n" for row in rows.to_dict("records")]
        writing.append(workdir / FILE, "".join(lines).encode())

    return write


def _whole_lines(path: Path) -> None:
    """Cuts a file behind its last line break."""
    if not path.exists():
        return
    with open(path, "r+b") as file:
        size = end = file.seek(0, os.SEEK_END)
        kept = 0
        while end and not kept:
            start = max(0, end - _BLOCK)
            file.seek(start)
            kept = start + file.read(end - start).rfind(b"\n") + 1
            kept = kept if kept > start else 0
            end = start
        if kept < size:
            file.truncate(kept)


def _plain(row: dict[Any, Any]) -> dict[str, Any]:
    """A row in JSON's types."""
    found = {}
    for name, value in row.items():
        plain = value.item() if hasattr(value, "item") else value
        is_number = isinstance(plain, float)
        found[str(name)] = None if is_number and not math.isfinite(plain) else plain
    return found
