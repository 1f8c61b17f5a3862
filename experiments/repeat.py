"""Compares a reported table with its command run again, for its first tasks or with fewer seeds.

Command: python -m experiments.repeat --name=NAME --from=DIR,... [--begun=DIR,... --code=COMMIT]
    [--folder=DIR]
DIR are finished runs of the table's command with fewer --tasks or --seeds. Their rows are looked up
in NAME.parquet (in experiments/gradual/results/lanes, or --folder) by their settings, seed and
task. Prints how many values are the same to the bit, and how far the others are.

With --begun also writes NAME.json, for a table that was kept before runs recorded themselves: the
config.json of the whole command, begun by the code that made the table (--code) and stopped, and
what the comparison gave.
"""

import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from experiments import export
from plasticity_jax.cli import flags, launcher
from plasticity_jax.storage import table as table_
from plasticity_jax.storage import workdir, writing

OWN: dict[str, Any] = {
    "name": None,
    "from": None,
    "begun": None,
    "code": None,
    "folder": str(export.FOLDER),
}
NO_KEY = ("dataset",)  # its path, on another machine


class Comparison(NamedTuple):
    """What a repeated run gave beside the table.

    Attributes:
      rows: lanes and tasks that were run again and are in the table.
      rows_beside: those run that are not, as of an arm that is not reported.
      tasks: of every lane.
      values: numbers in columns that both have and that are no settings.
      same: how many of them are equal to the bit, or missing in both.
      largest_difference: of the others, relative to the table's.
    """

    rows: int
    rows_beside: int
    tasks: int
    values: int
    same: int
    largest_difference: float


def main(argv: Sequence[str] | None = None) -> int:
    """Compares from the command line and returns the exit code: 0 if all values are the same."""
    return export.told(_main, argv)


def _main(argv: Sequence[str]) -> int:
    own, rest = flags.own(OWN, argv)
    if "--help" in rest:
        print(__doc__)
        return 0
    if rest or not own["from"] or not own["name"] or bool(own["begun"]) != bool(own["code"]):
        raise ValueError(
            "name and from are needed: --name=NAME --from=DIR,...; allowed beside are --folder "
            "and, together, --begun and --code."
        )
    file = pathlib.Path(own["folder"], f"{own['name']}.parquet")
    found = compare(table_.read(file), own["from"].split(","))
    print(_sentence(own["name"], found))
    if own["begun"]:
        print(_write(file, own["begun"].split(","), own["code"], found))
    return 0 if found.same == found.values else launcher.ENVIRONMENT


def compare(table: pd.DataFrame, workdirs: Sequence[str]) -> Comparison:
    """Compares the rows of finished runs with those of a table of the same settings and task.

    Raises ValueError if no row is in the table, or one more than once; WorkdirError if a workdir
    cannot be read.
    """
    rows = beside = values = same = 0
    largest, tasks = 0.0, []
    for path in workdirs:
        again = table_.read(pathlib.Path(path, "results.parquet"))
        keys = _keys(path, again, table)
        new, reported = _named(again, keys), _named(table, keys)
        both = new.merge(reported, on="key", how="inner", suffixes=(" again", ""))
        if both["key"].duplicated().any() or both.empty:
            raise ValueError(
                f"{path} has rows that the table has more than once, or none that it has: allowed "
                "are runs of the table's command with fewer tasks or seeds."
            )
        rows, beside = rows + len(both), beside + len(again) - len(both)
        tasks.append(again["task"].nunique())
        for name in _measured(again, table, keys):
            now, old = (both[name + end].to_numpy(np.float64) for end in (" again", ""))
            equal = (now == old) | (np.isnan(now) & np.isnan(old))
            values, same = values + len(equal), same + int(equal.sum())
            if not equal.all():
                apart = np.abs(now - old)[~equal] / np.maximum(np.abs(old[~equal]), 1e-12)
                largest = max(largest, float(np.nan_to_num(apart, nan=np.inf).max()))
    return Comparison(rows, beside, min(tasks), values, same, largest)


def _keys(path: str, again: pd.DataFrame, table: pd.DataFrame) -> list[str]:
    """The columns by which a row is found: settings that both tables have, and the task."""
    settings = workdir.read_settings(path)
    if settings is None:
        raise workdir.WorkdirError(f"{path} is not a workdir: allowed are workdirs of runs.")
    names = {"task"}
    for program in settings["programs"]:
        names.update(_settings(program)[0])
    return sorted(names & set(again) & set(table) - set(NO_KEY))


def _settings(program: dict[str, Any]) -> list[dict[str, Any]]:
    """Each lane's settings, as columns of a table have them."""
    spec = program["spec"]
    return [{**spec, **(spec.get("options") or {}), **lane} for lane in program["lanes"]]


def _reported(programs: Sequence[dict[str, Any]], table: pd.DataFrame) -> list[dict[str, Any]]:
    """The programs whose lanes are all in the table; one that was stopped may lack some."""
    kept = []
    for program in programs:
        lanes = pd.DataFrame(_settings(program))
        keys = sorted(set(lanes) & set(table) - set(NO_KEY))
        if set(_named(lanes, keys)["key"]) <= set(_named(table, keys)["key"]):
            kept.append(program)
    return kept


def _named(rows: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """The rows, each with its keys in one text."""

    def text(value: Any) -> str:
        if pd.isna(value):
            return ""
        return f"{value:.6g}" if isinstance(value, int | float | np.number) else str(value)

    named = rows[list(keys)].map(text).agg("; ".join, axis=1)
    return rows.assign(key=named)


def _measured(again: pd.DataFrame, table: pd.DataFrame, keys: Sequence[str]) -> list[str]:
    """The columns of numbers in both that are no settings."""
    return [
        name
        for name in again.select_dtypes("number")
        if name in table and name not in (*keys, "lane", *NO_KEY)
    ]


def _sentence(name: str, found: Comparison) -> str:
    beside = f", {found.rows_beside} more are not in the table" if found.rows_beside else ""
    apart = f", the others by up to {found.largest_difference:.2g} of the table's"
    return (
        f"{name}: {found.rows} rows run again, of the first {found.tasks} tasks{beside}: "
        f"{found.same} of {found.values} values are the same to the bit"
        f"{apart if found.same < found.values else ''}."
    )


def _write(file: pathlib.Path, begun: Sequence[str], code: str, found: Comparison) -> pathlib.Path:
    """Writes what the whole command recorded when it was begun again, and the comparison."""
    table, records = table_.read(file), []
    for folder in begun:
        record = export.record_of(folder, code)
        settings = record["settings"]
        kept = _reported(settings["programs"], table)
        left = {"programs_not_reported": len(settings["programs"]) - len(kept)}
        settings["programs"] = kept
        # (the version of the installed package, which is another one than the code that ran)
        record["versions"].pop("plasticity_jax", None)
        records.append({**record, **left, "run_again": found._asdict()})
    path = file.with_suffix(".json")
    writing.text(path, json.dumps(records, indent=1) + "\n")
    return path


if __name__ == "__main__":
    sys.exit(main())
