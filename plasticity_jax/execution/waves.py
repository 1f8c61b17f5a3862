"""Waves: after every so many tasks, lanes that diverged or scored too little are left behind, and
those that go on are planned anew (see docs/slices.md).

What is decided follows from what was measured, so that a run that is resumed decides it again.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from plasticity_jax import registry
from plasticity_jax.execution import growth, slices
from plasticity_jax.execution.program import Program
from plasticity_jax.reporting import metrics as metrics_
from plasticity_jax.storage import workdir as workdir_
from plasticity_jax.storage.workdir import WorkdirError

if TYPE_CHECKING:
    import pandas

# in config.json: how a run is parted into waves, and which lanes were stopped
RECORD = "waves"
COLUMN = "stopped"  # in the table: true in the last row of a lane that was
# of a run, if nobody says how many
_WAVES = 10


class Waves(NamedTuple):
    """When lanes are not run on.

    Attributes:
      every: tasks between two looks.
      below: {column: value}; a lane whose mean over a wave is below it is stopped.
    """

    every: int
    below: Mapping[str, float]


def checked(
    every: int | None,
    below: Mapping[str, float] | None,
    programs: Sequence[Program],
    kept: bool = True,
) -> Waves | None:
    """Returns the waves that are asked for, None if none are; `kept` is whether there is a workdir.

    `every` is by default a tenth of the tasks if there are limits. Raises ValueError, one sentence.
    """
    if every is None and below is None:
        return None
    if not kept:
        raise ValueError("wave or stop_below is given without a workdir: allowed is a run in one.")
    if not isinstance(below, Mapping | None):
        raise ValueError(
            f"stop_below is {registry.shown(below)}: allowed are numbers by the name of a column, "
            'such as {"online_accuracy": 0.2}.'
        )
    specs = [program.spec for program in programs]
    most = max(spec.tasks for spec in specs)
    every = max(1, most // _WAVES) if every is None else registry.whole("wave", every, 1)
    for spec in specs:
        if not spec.open_ended:
            raise ValueError(
                "wave is given, but the learning rate changes over the run's tasks: allowed with "
                "waves is one that does not."
            )
    known = metrics_.of_specs(specs)
    there = [*known.scores, *known.probes]
    limits = {}
    for name, value in (below or {}).items():
        if str(name).partition("/")[0] not in there:
            raise ValueError(
                f"stop_below names {registry.shown(name)}: allowed are what this run measures, "
                f"{', '.join(there)}."
            )
        limits[name] = registry.number(f"stop_below of {name}", value)
    return Waves(every, limits)


Run = Callable[[Sequence[Program]], "pandas.DataFrame"]
"""Runs programs in a workdir and returns the table of their lanes."""


def run_in_waves(
    programs: Sequence[Program],
    waves: Waves,
    workdir: str | Path,
    run: Run,
    tell: Callable[[str], None] = lambda line: None,
) -> "pandas.DataFrame":
    """Runs programs wave after wave, each time those lanes that go on, and returns the table of all
    of them. Raises as `run`.
    """
    left = [list(range(len(program.lanes))) for program in programs]
    most = max(program.spec.tasks for program in programs)
    numbers: dict[Any, int] = {}
    for end in [*range(waves.every, most, waves.every), most]:
        asked = _asked(workdir, programs, left, end)
        if not asked:
            break
        table = run(asked)
        numbers, _ = _recorded(workdir)
        if end == most:
            break
        lost = stopping(table, waves, end)
        ended: set[int] = set()  # (lanes whose program has no more tasks)
        for program, own in zip(programs, left, strict=True):
            if program.spec.tasks <= end:
                ended |= {_number(numbers, program, place) for place in own}
        lost = {lane: why for lane, why in lost.items() if lane not in ended}
        for index, program in enumerate(programs):
            own = left[index]
            left[index] = [p for p in own if _number(numbers, program, p) not in lost]
        _note(workdir, waves, most, lost, set(table["lane"]), end)
        if lost:
            tell(f"after task {end}: {len(lost)} of {table['lane'].nunique()} lanes are stopped")
    lanes: set[int] = set()
    for program in programs:
        lanes |= {_number(numbers, program, place) for place in range(len(program.lanes))}
    return _whole(workdir, lanes)


def stopping(table: "pandas.DataFrame", waves: Waves, end: int) -> dict[int, str]:
    """Returns why lanes are not run on beyond `end` tasks, in words, by their numbers."""
    wave = table.loc[(table["task"] >= end - waves.every) & (table["task"] < end)]
    lanes = wave.groupby("lane")
    lost: dict[int, str] = {}
    for name, value in waves.below.items():
        # (NaN was not measured)
        means = lanes[name].mean() if name in wave else ()
        for lane, mean in dict(means).items():
            if mean < value:
                lost.setdefault(int(lane), f"{name} {mean:.4g}")
    finite = lanes["finite"].all()
    lost |= dict.fromkeys((int(lane) for lane in finite.index[~finite]), "diverged")
    return lost


def _asked(
    workdir: str | Path, programs: Sequence[Program], left: Sequence[Sequence[int]], end: int
) -> list[Program]:
    """The programs of a wave: lanes that go on up to `end` tasks. Those that went further before,
    as in a run without waves, are asked for as far as they were.
    """
    _, recorded = _recorded(workdir)
    made = []
    for program, places in zip(programs, left, strict=True):
        goals: dict[int, list[int]] = {}
        for place in places:
            known = recorded.get(growth.identity(program.spec, program.lanes[place]), 0)
            goals.setdefault(min(program.spec.tasks, max(end, known)), []).append(place)
        for goal, own in goals.items():
            spec = dataclasses.replace(program.spec, tasks=goal)
            made.append(growth.some(program, own)._replace(spec=spec))
    return made


def _recorded(workdir: str | Path) -> tuple[dict[Any, int], dict[Any, int]]:
    """The number of each lane in a workdir, and how many tasks it shall have, by what it is."""
    found = slices.read(workdir, devices=1)
    numbers, tasks = {}, {}
    for one in found.slices if found else ():
        for number, lane in zip(one.numbers, one.program.lanes, strict=True):
            key = growth.identity(one.program.spec, lane)
            numbers[key], tasks[key] = number, one.program.spec.tasks
    return numbers, tasks


def _number(numbers: Mapping[Any, int], program: Program, place: int) -> int:
    return numbers[growth.identity(program.spec, program.lanes[place])]


# What is told of it


def record(stops: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what config.json says of lanes that were stopped (see `stops`), {} if none were."""
    return {RECORD: {"stopped": dict(stops)}} if stops else {}


def _note(
    workdir: str | Path, waves: Waves, tasks: int, lost: Mapping[int, str], ran: set[int], end: int
) -> None:
    """Writes into config.json which lanes were stopped, and that others go on."""
    with workdir_.lock(workdir):
        settings, record = workdir_.read_settings(workdir), workdir_.read_record(workdir)
        if settings is None:
            raise WorkdirError(f"{workdir} was deleted while it was in use.")
        before = _entries(workdir, record)
        stopped = {lane: entry for lane, entry in before.items() if int(lane) not in ran}
        stopped |= {str(lane): {"after": end, "why": why} for lane, why in sorted(lost.items())}
        limits = dict(waves.below)
        made = {"every": waves.every, "stop_below": limits, "tasks": tasks, "stopped": stopped}
        if record.get(RECORD) != made:
            workdir_.write_config(workdir, settings, {**record, RECORD: made})


def _entries(workdir: str | Path, record: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What a record says of lanes that were stopped. Raises WorkdirError."""
    try:
        found = record[RECORD]["stopped"] if RECORD in record else {}
        for lane, entry in found.items():
            if int(lane) < 0 or type(entry["after"]) is not int or type(entry["why"]) is not str:
                raise ValueError(lane)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WorkdirError(
            f"{Path(workdir, 'config.json')} cannot be read as the record of a run ({RECORD}); use "
            "another --workdir."
        ) from error
    return found


def stops(workdir: str | Path) -> dict[str, dict[str, Any]]:
    """Returns {lane: {"after": tasks, "why": words}} of lanes that were stopped, from config.json.

    Raises WorkdirError.
    """
    return _entries(workdir, workdir_.read_record(workdir))


def stopped(workdir: str | Path) -> dict[int, int]:
    """Returns after how many tasks lanes were stopped, by their numbers. Raises WorkdirError."""
    return {int(lane): entry["after"] for lane, entry in stops(workdir).items()}


def goal(workdir: str | Path) -> int:
    """Returns how many tasks lanes have that are never stopped, 0 for a run without waves."""
    tasks = workdir_.read_record(workdir).get(RECORD, {}).get("tasks", 0)
    return tasks if type(tasks) is int else 0


def marked(table: "pandas.DataFrame", stopped: Mapping[int, int]) -> "pandas.DataFrame":
    """Returns a table with the column `stopped`: true in the last row of a lane that was not run
    on. As it is, if there is none.
    """
    if not stopped or table.empty:
        return table
    last = table.groupby("lane")["task"].transform("max")
    after = table["lane"].map(stopped.get)
    return table.assign(**{COLUMN: table["task"].eq(last) & table["task"].add(1).eq(after)})


def _whole(workdir: str | Path, lanes: set[int]) -> "pandas.DataFrame":
    """The rows of lanes in the table of a workdir, which is marked if it is not yet."""
    from plasticity_jax.storage import table as table_

    path = Path(workdir, "results.parquet")
    found = table_.read(path)
    table = marked(found, stopped(workdir))
    if not table.equals(found):
        table_.write(table, path)
    return table.loc[table["lane"].isin(list(lanes))].reset_index(drop=True)
