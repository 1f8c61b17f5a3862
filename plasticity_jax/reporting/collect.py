"""Results of several workdirs in one table: the lanes that a figure asks for, each from the run
that has it.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from plasticity_jax import lanes as lanes_
from plasticity_jax.reporting import metrics
from plasticity_jax.spec import Spec, comparable
from plasticity_jax.storage import paths
from plasticity_jax.storage import table as table_
from plasticity_jax.storage.workdir import WorkdirError, read_settings, reason_of

if TYPE_CHECKING:
    import pandas

Runs = Sequence[tuple[Spec, Sequence[Mapping[str, Any]]]]
TOLD = 4  # differing settings that a message names


Complete = Callable[[Path, "pandas.DataFrame"], "pandas.DataFrame"]


def collect(
    workdirs: Sequence[str | Path],
    runs: Runs,
    complete: Complete = lambda workdir, table: table,
) -> "pandas.DataFrame":
    """Returns the tidy table of the lanes of `runs`, numbered in their order, each from the workdir
    with most of its tasks.

    A lane is found by everything that decides its numbers: the whole Spec, but for what else it
    measured and how many tasks came after those asked for, and all of the lane's numbers.
    `complete` adds to the table of a workdir what is safe but not in it yet. Raises
    WorkdirError if a folder is no workdir with results, if none has a lane (in what the lane that
    comes nearest to the first one missing differs is told), if one has not all of its tasks, or if
    lanes were trained on different data.
    """
    import pandas

    found = _most_done(
        [_lanes(Path(paths.expanded(name, "workdir")), complete) for name in workdirs]
    )
    wanted: list[_Wanted] = []
    for spec, given in runs:
        for lane in given:
            whole = lanes_.complete(spec, lane)
            wanted.append(_Wanted(_key(spec.record(), whole), spec, whole))
    _check_found(workdirs, wanted, found)
    parts = []
    for number, one in enumerate(wanted):
        rows = found[one.key].rows
        rows = rows[rows["task"] < one.spec.tasks]
        # (a table from before an axis, a number or a setting was a column lacks it)
        own = {**one.spec.axes(), **one.lane, **one.spec.settings()}
        parts.append(rows.assign(lane=number, **own))
    table = pandas.concat(parts, ignore_index=True)
    table.attrs[metrics.KEY] = metrics.record([spec for spec, _ in runs])
    return table


class _Lane(NamedTuple):
    rows: "pandas.DataFrame"
    workdir: Path
    data: str  # fingerprint


class _Wanted(NamedTuple):
    key: str
    spec: Spec
    lane: Mapping[str, Any]  # completed


def _most_done(workdirs: Sequence[Mapping[str, _Lane]]) -> dict[str, _Lane]:
    """The lanes of all workdirs, each from the one with most of its tasks."""
    found: dict[str, _Lane] = {}
    for lanes in workdirs:
        for key, lane in lanes.items():
            if key not in found or len(found[key].rows) < len(lane.rows):
                found[key] = lane
    return found


def _check_found(
    workdirs: Sequence[str | Path], wanted: Sequence[_Wanted], found: Mapping[str, _Lane]
) -> None:
    """Raises WorkdirError for lanes that are missing, not finished or of other data."""
    missing = [one.key for one in wanted if one.key not in found]
    if missing:
        lack = "lacks" if len(workdirs) == 1 else "together lack"
        raise WorkdirError(
            f"{' and '.join(map(str, workdirs))} {lack} {len(missing)} of the {len(wanted)} lanes "
            f"asked for: {_nearest(missing[0], found)}; allowed are runs made with the same "
            "settings: give those settings as flags, or run them."
        )
    for one in wanted:
        lane, first = found[one.key], found[wanted[0].key]
        if len(lane.rows) < one.spec.tasks:
            raise WorkdirError(
                f"{lane.workdir} has {len(lane.rows)} of {one.spec.tasks} tasks of a lane asked "
                "for: allowed are finished runs; the command that began it goes on from there."
            )
        if lane.data != first.data:
            raise WorkdirError(
                f"{first.workdir} and {lane.workdir} were trained on different data of one name "
                f"(fingerprints {first.data} and {lane.data}): allowed is one for all."
            )


def _lanes(workdir: Path, complete: Complete) -> dict[str, _Lane]:
    """The lanes in a workdir by their keys."""
    try:
        settings = read_settings(workdir)
        if settings is None:
            raise ValueError("there is no config.json")
        data = settings["data"]["fingerprint"]
        table = complete(workdir, table_.read(workdir / "results.parquet"))
        metrics.of_table(table)  # (what it carries along can be read)
        keys = _numbered(settings["programs"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WorkdirError(
            f"{workdir} is not a workdir with results ({reason_of(error)}): expected the folder "
            "that a run was given as --workdir, with its config.json and results.parquet."
        ) from error
    rows = dict(list(table.groupby("lane")))
    return {
        key: _Lane(rows[number], workdir, data) for number, key in keys.items() if number in rows
    }


def _numbered(programs: Sequence[Mapping[str, Any]]) -> dict[int, str]:
    """The keys of recorded programs' lanes by their numbers in the table."""
    found: dict[int, str] = {}
    for program in programs:
        own = _keys(program["spec"], program["lanes"])
        if "start" in program:  # (which no run that is asked for has)
            digests = program["start"]["digests"]
            own = [
                json.dumps({**json.loads(key), "start": digest}, sort_keys=True)
                for key, digest in zip(own, digests, strict=True)
            ]
        numbers = program.get("numbers", range(len(found), len(found) + len(own)))
        found |= dict(zip(numbers, own, strict=True))
    return found


def _keys(spec: Mapping[str, Any], lanes: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys of a recorded program's lanes."""
    return [_key(comparable(spec), lanes_.comparable(spec, lane)) for lane in lanes]


def _key(spec: Mapping[str, Any], lane: Mapping[str, Any]) -> str:
    apart = ("options", "probes", "tasks")
    plain = {name: value for name, value in spec.items() if name not in apart}
    return json.dumps({**plain, **spec["options"], **lane}, sort_keys=True)


def _nearest(key: str, found: Mapping[str, Any]) -> str:
    """In words, how the lane of `found` that has most in common with that of `key` differs."""
    wanted = json.loads(key)

    def apart(other: Mapping[str, Any]) -> list[str]:
        return [name for name in {**wanted, **other} if wanted.get(name) != other.get(name)]

    others = [json.loads(other) for other in found]
    nearest = min(others, key=lambda other: len(apart(other)), default={})

    def shown(values: Mapping[str, Any]) -> str:
        there = [f"{name} {values[name]}" for name in apart(nearest) if name in values]
        more = [f"{len(there) - TOLD} more"] if len(there) > TOLD else []
        return ", ".join([*there[:TOLD], *more]) or "nothing of it"

    return f"the first has {shown(wanted)}, where the nearest there has {shown(nearest)}"
