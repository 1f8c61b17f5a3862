"""A line of JSON for each lane and task, for whatever reads lines."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plasticity_jax.reporting.trackers import Rows

if TYPE_CHECKING:
    import pandas

FILE = "metrics.jsonl"


def check() -> None:
    """Returns: nothing is needed."""


def start(workdir: Path) -> Rows:
    """Returns what appends rows to `metrics.jsonl`; null stands for what was not measured."""

    def write(rows: "pandas.DataFrame") -> None:
        lines = [json.dumps(_plain(row)) + "\n" for row in rows.to_dict("records")]
        with open(workdir / FILE, "a", encoding="utf-8") as file:
            file.writelines(lines)

    return write


def _plain(row: dict[Any, Any]) -> dict[str, Any]:
    """A row in JSON's types."""
    found = {}
    for name, value in row.items():
        plain = value.item() if hasattr(value, "item") else value
        is_number = isinstance(plain, float)
        found[str(name)] = None if is_number and not math.isfinite(plain) else plain
    return found
