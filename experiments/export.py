"""Makes a reported table of finished workdirs: every lane and task, and beside it what made it.

Command: python -m experiments.export --from=DIR,... --name=NAME [--code=COMMIT] [--folder=DIR]
    [--details=COLUMN,...] [--points=COLUMN,...] [--tasks=COUNT] [--add]
(--code only where the workdir does not say it, as those of code from before it was recorded.)
Writes NAME.parquet into the folder (experiments/gradual/results/lanes), without the columns of
  single layers, but for --details, and with the columns code_version and compiler_options; and
  NAME.json, the workdirs' config.json (without the folders and the name of the machine). With
  --tasks only the first tasks of every lane, as of a run that was stopped, without the programs
  that it had not begun; NAME.json says both. With --add they come to what NAME already has, as
  arms that were run later.
"""

import json
import pathlib
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pandas as pd

from experiments import accounts
from plasticity_jax.cli import flags, launcher, settings
from plasticity_jax.spec import Spec, comparable
from plasticity_jax.storage import table as table_
from plasticity_jax.storage import workdir, writing

FOLDER = pathlib.Path(__file__).parent / "gradual" / "results" / "lanes"
OWN: dict[str, Any] = {
    "from": None,
    "name": None,
    "code": None,
    "folder": str(FOLDER),
    "details": "",
    "points": "",
    "tasks": "",
    "add": False,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Exports from the command line and returns the exit code."""
    return told(_main, argv)


def told(work: Callable[[Sequence[str]], int], argv: Sequence[str] | None) -> int:
    """Returns what `work` returns of the arguments of a command; of a fault that a user can cause
    one sentence is printed, and its exit code returned.
    """
    try:
        return work(sys.argv[1:] if argv is None else argv)
    except ValueError as error:
        return launcher.fault(error, launcher.USAGE)
    except workdir.WorkdirError as error:
        return launcher.fault(error, launcher.ENVIRONMENT)
    except OSError as error:
        reason = workdir.reason_of(error)
        sentence = f"{error.filename} cannot be read or written ({reason}): allowed are workdirs."
        return launcher.fault(workdir.WorkdirError(sentence), launcher.ENVIRONMENT)


def _main(argv: Sequence[str]) -> int:
    own, rest = flags.own(OWN, argv)
    if "--help" in rest:
        print(__doc__)
        return 0
    if rest or not own["from"] or not own["name"]:
        raise ValueError(
            "from and name are needed: --from=DIR,... --name=NAME; nothing but --code, --folder, "
            "--details, --points, --tasks and --add is allowed beside."
        )
    details, points = (own[name].split(",") if own[name] else [] for name in ("details", "points"))
    tasks = settings.whole("tasks", own["tasks"], 1, 10**9) if own["tasks"] else None
    keep = Keep(details, tasks, own["add"])
    folders = own["from"].split(",")
    paths = export(folders, own["name"], own["code"], own["folder"], keep)
    if points:
        paths.append(export_points(folders, own["name"], own["folder"], points))
    print("\n".join(map(str, paths)))
    return 0


class Keep(NamedTuple):
    """What is taken of a workdir.

    Attributes:
      details: columns of single layers or parts of a probe.
      tasks: the first ones of every lane; None: all, of a finished run.
      add: to the table of that name that is there.
    """

    details: Sequence[str] = ()
    tasks: int | None = None
    add: bool = False


WHOLE = Keep()


def export(
    workdirs: Sequence[str],
    name: str,
    code: str | None,
    folder: str | pathlib.Path,
    keep: Keep = WHOLE,
) -> list[pathlib.Path]:
    """Writes NAME.parquet and NAME.json into `folder` and returns their paths; `code` replaces what
    the workdir says.

    Raises ValueError if a run is not finished, as far as it is kept, or lacks one of the details;
    OSError or WorkdirError if a workdir cannot be read.
    """
    where = pathlib.Path(folder)
    frames, records = _there(where, name) if keep.add else ([], [])
    first = max((int(frame["lane"].max()) + 1 for frame in frames), default=0)
    for path in workdirs:
        record = record_of(path, code)
        try:
            table = table_.read(pathlib.Path(path, "results.parquet"))
            planned = _numbered(record["settings"]["programs"])
        except (KeyError, TypeError, ValueError) as error:
            raise workdir.WorkdirError(
                f"{path} is not a workdir with results ({error})."
            ) from error
        table = _kept(path, table, keep)
        numbered = planned if keep.tasks is None else _begun(planned, table)
        rows = _rows(path, table, numbered, record["code_version"], keep.tasks)
        frames.append(rows.assign(lane=rows["lane"] + first))
        first += int(table["lane"].max()) + 1
        if keep.tasks is not None:
            record |= {"tasks_kept": keep.tasks}
            record |= {"programs_not_begun": len(planned) - len(numbered)}
            record["settings"]["programs"] = [program for program, _ in numbered]
        records.append(record)
    whole = pd.concat(frames, ignore_index=True)
    table_.write(whole, where / f"{name}.parquet")
    writing.text(where / f"{name}.json", json.dumps(records, indent=1) + "\n")
    return [where / f"{name}.parquet", where / f"{name}.json"]


def export_points(
    workdirs: Sequence[str], name: str, folder: str | pathlib.Path, columns: Sequence[str]
) -> pathlib.Path:
    """Writes NAME_points.parquet, a row for each lane, task and step at which a run measured, with
    these columns and the settings that lanes differ in; returns its path.

    Raises ValueError for more than one workdir, or a column that it lacks; OSError if it cannot be
    read.
    """
    if len(workdirs) > 1:
        raise ValueError(f"points are of {len(workdirs)} workdirs: allowed is one.")
    points = pd.read_parquet(pathlib.Path(workdirs[0], "points.parquet"))
    lacking = [column for column in columns if column not in points]
    if lacking:
        raise ValueError(
            f"points has {lacking[0]!r}, but {workdirs[0]} did not measure it within tasks: "
            "allowed are columns of its points.parquet."
        )
    table = table_.read(pathlib.Path(workdirs[0], "results.parquet")).drop_duplicates("lane")
    table.attrs = {}
    lanes = table[["lane", *accounts.differing(table)]]
    path = pathlib.Path(folder, f"{name}_points.parquet")
    kept = points[["lane", "task", "seed", "point", *columns]].merge(lanes, on="lane")
    table_.write(kept, path)
    return path


def _there(folder: pathlib.Path, name: str) -> tuple[list[Any], list[dict[str, Any]]]:
    """The table and the records of that name in the folder."""
    try:
        table = table_.read(folder / f"{name}.parquet")
        records = json.loads((folder / f"{name}.json").read_text())
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(
            f"add is given, but {folder} has no table {name!r} ({error}): allowed are names of "
            "tables that are there."
        ) from error
    return [table], records


def record_of(path: str, code: str | None = None) -> dict[str, Any]:
    """Returns what a workdir's config.json says, without folders and the name of the machine;
    `code` replaces the commit.

    Raises WorkdirError if it cannot be read.
    """
    try:
        record = {"settings": workdir.read_settings(path), **workdir.read_record(path)}
        own: dict[str, Any] = {"data_source": _data(record["data_source"])}
        if record.get("calls"):
            own["calls"] = [_elsewhere(call, code) for call in record["calls"]]
        if record.get("before"):  # (what was so when the run began, and is not any more)
            was = record["before"]
            own["before"] = {**was, "data_source": _data(was["data_source"])}
        for program in record["settings"]["programs"]:
            if program.get("start"):
                program["start"]["folder"] = pathlib.Path(program["start"]["folder"]).name
    except (KeyError, TypeError, ValueError) as error:
        raise workdir.WorkdirError(f"{path} is not a workdir of a run ({error}).") from error
    made_by = code or record.get("code_version", "not recorded")
    return {**record, **own, "code_version": made_by}


def _elsewhere(call: dict[str, Any], code: str | None) -> dict[str, Any]:
    """What is recorded of a command, without the machine's name and the folders that its paths lie
    in; its commit is replaced by `code`, if that is given.
    """
    words = call["command"].split(" ")
    words[0] = words[0].rpartition("/")[2]  # the interpreter
    command = " ".join(re.sub(r"(?<==)[~/].*/", "", word) for word in words)
    kept = {name: value for name, value in call.items() if name != "host"}
    return {**kept, "command": command} | ({"commit": code} if code else {})


def _data(source: str) -> str:
    """Where data came from, without the folder, which says nothing on another machine."""
    place, sign, rest = source.partition(";")
    return f"{pathlib.Path(place).name}{sign}{rest}"


def _kept(path: str, table: Any, keep: Keep) -> Any:
    """The columns and rows that are exported."""
    details = keep.details
    if keep.tasks is not None:
        table = table[table["task"] < keep.tasks]
    lacking = [name for name in details if name not in table]
    if lacking:
        raise ValueError(
            f"details has {lacking[0]!r}, but the table of {path} has no such column: allowed are "
            "columns that it has."
        )
    return table[[c for c in table.columns if "/" not in c or c in details]]


class Numbered(NamedTuple):
    """A program as config.json has it, and the numbers of its lanes in the table."""

    program: dict[str, Any]
    lanes: Sequence[int]


def _numbered(programs: Sequence[dict[str, Any]]) -> list[Numbered]:
    made, first = [], 0
    for program in programs:
        count = len(program["lanes"])
        made.append(Numbered(program, program.get("numbers", range(first, first + count))))
        first += count
    return made


def _begun(programs: Sequence[Numbered], table: Any) -> list[Numbered]:
    """Those that have a row; all, if none has."""
    return [one for one in programs if table["lane"].isin(one.lanes).any()] or list(programs)


def _rows(path: str, table: Any, programs: Sequence[Numbered], code: str, tasks: int | None) -> Any:
    made = []
    for program, numbers in programs:
        spec = program["spec"]
        rows = table[table["lane"].isin(numbers)]
        wanted = len(numbers) * min(spec["tasks"], tasks or spec["tasks"])
        if len(rows) != wanted:
            raise ValueError(
                f"{path} has {len(rows)} rows of {wanted}: allowed are finished runs, and with "
                "--tasks as many tasks as all lanes have."
            )
        options = program.get("compiler_options") or {}
        made.append(
            rows.assign(
                **Spec(**comparable(spec)).settings(),
                code_version=code,
                compiler_options=" ".join(f"{k}={v}" for k, v in options.items())
                or "XLA's defaults",
            )
        )
    return pd.concat(made, ignore_index=True)


if __name__ == "__main__":
    sys.exit(main())
