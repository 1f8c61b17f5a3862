"""Results of several workdirs in one table: the lanes that a figure asks for, each from the run
that has it.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from plasticity_jax import lanes as lanes_
from plasticity_jax.reporting import metrics
from plasticity_jax.spec import Spec, comparable
from plasticity_jax.storage import paths
from plasticity_jax.storage import table as table_
from plasticity_jax.storage.json_files import read_json
from plasticity_jax.storage.workdir import WorkdirError, reason_of

if TYPE_CHECKING:
    import pandas

Runs = Sequence[tuple[Spec, Sequence[Mapping[str, Any]]]]
TOLD = 4  # differing settings that a message names


def collect(workdirs: Sequence[str | Path], runs: Runs) -> "pandas.DataFrame":
    """Returns the tidy table of the lanes of `runs`, numbered in their order, each from the workdir
    with most of its tasks.

    A lane is found by everything that decides its numbers: the whole Spec, but for what else it
    measured and how many tasks came after those asked for, and all of the lane's numbers. Raises
    WorkdirError if a folder is no workdir with results, if none has a lane (in what the lane that
    comes nearest to the first one missing differs is told), if one has not all of its tasks, or if
    lanes were trained on different data.
    """
    import pandas

    found: dict[str, _Lane] = {}
    for workdir in workdirs:
        for key, lane in _lanes(Path(paths.expanded(workdir, "workdir"))).items():
            if key not in found or len(found[key].rows) < len(lane.rows):
                found[key] = lane
    wanted = [(spec, lanes_.complete(spec, lane)) for spec, given in runs for lane in given]
    keys = [_key(spec.record(), lane) for spec, lane in wanted]
    missing = [number for number, key in enumerate(keys) if key not in found]
    if missing:
        raise WorkdirError(
            f"{' nor '.join(map(str, workdirs))} lacks {len(missing)} of the {len(wanted)} lanes "
            "asked for: "
            f"{_nearest(keys[missing[0]], found)}; allowed are runs made with the same settings: "
            "give those settings as flags, or run them."
        )
    for key, (spec, _) in zip(keys, wanted, strict=True):
        lane = found[key]
        if len(lane.rows) < spec.tasks:
            raise WorkdirError(
                f"{lane.workdir} has {len(lane.rows)} of {spec.tasks} tasks of a lane asked for: "
                "allowed are finished runs; "
                "the command that began it goes on from there."
            )
        first = found[keys[0]]
        if lane.data != first.data:
            raise WorkdirError(
                f"{first.workdir} and {lane.workdir} were trained on different data of one name "
                f"(fingerprints {first.data} "
                f"and {lane.data}): allowed is one for all."
            )
    # (a table from before an axis or a number existed lacks its column)
    parts = [
        found[key].rows.query("task < @spec.tasks").assign(lane=number, **spec.axes(), **lane)
        for number, (key, (spec, lane)) in enumerate(zip(keys, wanted, strict=True))
    ]
    table = pandas.concat(parts, ignore_index=True)
    table.attrs[metrics.KEY] = metrics.record([spec for spec, _ in runs])
    return table


class _Lane(NamedTuple):
    rows: "pandas.DataFrame"
    workdir: Path
    data: str  # fingerprint


def _lanes(workdir: Path) -> dict[str, _Lane]:
    """The lanes in a workdir by their keys."""
    try:
        settings = read_json(workdir / "config.json", nan=True)["settings"]
        programs, data = settings["programs"], settings["data"]["fingerprint"]
        table = table_.read(workdir / "results.parquet")
        metrics.of_table(table)  # (what it carries along can be read)
        keys = [key for program in programs for key in _keys(program["spec"], program["lanes"])]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WorkdirError(
            f"{workdir} is not a workdir with results ({reason_of(error)}): expected the folder "
            "that a run was given as "
            "--workdir, with its config.json and results.parquet."
        ) from error
    rows = dict(list(table.groupby("lane")))
    return {
        key: _Lane(rows[number], workdir, data) for number, key in enumerate(keys) if number in rows
    }


def _keys(spec: Mapping[str, Any], lanes: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys of a recorded program's lanes."""
    return [_key(comparable(spec), lanes_.comparable(spec, lane)) for lane in lanes]


def _key(spec: Mapping[str, Any], lane: Mapping[str, Any]) -> str:
    plain = {
        name: value for name, value in spec.items() if name not in ("options", "probes", "tasks")
    }
    return json.dumps({**plain, **spec["options"], **lane}, sort_keys=True)


def _nearest(key: str, found: Mapping[str, Any]) -> str:
    """In words, how the lane of `found` that has most in common with that of `key` differs from it."""
    wanted = json.loads(key)

    def apart(other: Mapping[str, Any]) -> list[str]:
        return [name for name in {**wanted, **other} if wanted.get(name) != other.get(name)]

    nearest = min(
        (json.loads(other) for other in found), key=lambda other: len(apart(other)), default={}
    )

    def shown(values: Mapping[str, Any]) -> str:
        there = [f"{name} {values[name]}" for name in apart(nearest) if name in values]
        more = [f"{len(there) - TOLD} more"] if len(there) > TOLD else []
        return ", ".join([*there[:TOLD], *more]) or "nothing of it"

    return f"the first has {shown(wanted)}, where the nearest there has {shown(nearest)}"
