"""Several workdirs in one: as a table, or as a workdir that goes on and grows like any other."""

import contextlib
import itertools
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from plasticity_jax.execution import growth, history, results, rows, slices, waves
from plasticity_jax.execution.program import Program
from plasticity_jax.execution.slices import Recorded, Slice
from plasticity_jax.reporting import statistics
from plasticity_jax.storage import checkpoints, paths
from plasticity_jax.storage import table as table_
from plasticity_jax.storage import workdir as workdir_
from plasticity_jax.storage.checkpoints import Checkpoints
from plasticity_jax.storage.workdir import WorkdirError, reason_of

if TYPE_CHECKING:
    import pandas


class Merged(NamedTuple):
    """What became of several workdirs.

    Attributes:
      lanes: how many there are in the new one.
      repeated: how many more there are in the others, which are the same runs again.
    """

    lanes: int
    repeated: int


class _Workdir(NamedTuple):
    """A workdir that is read.

    Attributes:
      table: the rows of all its lanes.
    """

    path: str
    recorded: Recorded
    table: "pandas.DataFrame"


class _Lane(NamedTuple):
    """A lane in one of the workdirs.

    Attributes:
      workdir: the place of its workdir among the others.
      number: of the lane in its table.
      rows: of the table, by task.
    """

    workdir: int
    number: int
    rows: "pandas.DataFrame"


def load(*workdirs: str | Path) -> "pandas.DataFrame":
    """Returns the results of several workdirs in one table, whose lanes are numbered anew, in the
    order of the workdirs and of the lanes in them.

    Its columns are those of a run (see `rows.table`): of a table from before some of them existed
    as well, and empty where a lane has no such number or measurement. A lane that several workdirs
    have is taken once, from the first of those with most of its tasks. Tasks that are safe in
    checkpoints and not in results.parquet yet are among them. Nothing is compiled.

    Raises WorkdirError for a folder without results, for two different data under one name, and
    for the same lane with other measurements in another workdir.

    >>> small = {"width": 4, "depth": 1, "norm": "none", "optimizer": "sgd", "probes": ()}
    >>> spec = pj.Spec(samples=64, transition="abrupt", tasks=2, epochs=1, **small)
    >>> table = pj.run(spec, pj.grid(seed=range(2)), "runs/tiny")
    >>> pj.load("runs/tiny")["accuracy"].equals(table["accuracy"])
    True
    """
    return load_with_programs(workdirs)[0]


def load_with_programs(
    workdirs: Sequence[str | Path],
) -> tuple["pandas.DataFrame", list[Program]]:
    """Returns what `load` does, and the programs whose lanes these are."""
    import pandas

    parts = [_with_results(name) for name in _names(workdirs)]
    _check_data(parts)
    taken = [lane for lane in _taken(parts) if len(lane.rows)]
    numbered = [lane.rows.assign(lane=number) for number, lane in enumerate(taken)]
    whole = pandas.concat(numbered or [part.table for part in parts], ignore_index=True)
    if waves.COLUMN in whole:  # (not every workdir may have such lanes)
        whole[waves.COLUMN] = whole[waves.COLUMN].eq(True)
    return rows.arranged(whole, _programs(parts)), _programs(parts)


def programs(workdirs: Sequence[str | Path]) -> list[Program]:
    """Returns the programs that several workdirs record, whether they have results or not.

    Raises WorkdirError for a folder that is none.
    """
    found = [_recorded(name).slices for name in _names(workdirs)]
    return [one.program for one in itertools.chain.from_iterable(found)]


def merge(workdirs: Sequence[str | Path], to: str | Path) -> Merged:
    """Writes one workdir with the lanes of several, numbered and taken as `load` does: config.json,
    checkpoints and results, so that it goes on and grows like any other. The others stay as they
    are.

    Raises WorkdirError as `load` does, and for what one workdir cannot have (other data, another
    start), one that is in use or lacks checkpoints, and a new one in which something was run.
    """
    names, where = _names(workdirs), Path(paths.expanded(to, "to"))
    for name in names:
        _recorded(name)
    workdir_.check_writable(where, "folder")
    if workdir_.read_settings(where) is not None:
        raise WorkdirError(
            f"{where} is a workdir already: allowed is a folder in which nothing was run yet."
        )
    with contextlib.ExitStack() as held:
        for name in dict.fromkeys(Path(name).resolve() for name in names):
            held.enter_context(workdir_.lock(name))
        for name in names:
            held.enter_context(slices.locked(name, _recorded(name).slices))
        parts = [_with_checkpoints(name) for name in names]
        _check_one(parts)
        taken = _taken(parts)
        held.enter_context(workdir_.lock(where))
        made = _copied(parts, taken, where)
        histories = [history.read(Checkpoints(one.checkpoints(where)))[1] for one in made]
        stops = _stops(names, taken)
        after = {int(lane): stop["after"] for lane, stop in stops.items()}
        results.write(made, histories, where, after)
        settings = Recorded(made, parts[0].recorded.data).settings()
        workdir_.write_config(where, settings, _record(names) | waves.record(stops))
    every = sum(len(one.numbers) for one in _slices(parts))
    return Merged(len(taken), every - len(taken))


def _names(workdirs: Sequence[str | Path]) -> list[str]:
    if not workdirs:
        raise ValueError("there are no workdirs: give at least one folder of a run.")
    return [paths.expanded(path, "workdir") for path in workdirs]


def _slices(parts: Sequence[_Workdir]) -> list[Slice]:
    return list(itertools.chain.from_iterable(part.recorded.slices for part in parts))


def _programs(parts: Sequence[_Workdir]) -> list[Program]:
    return [one.program for one in _slices(parts)]


# Reading


def _recorded(name: str) -> Recorded:
    # (nothing is run, so it does not matter how many devices there are)
    found = slices.read(name, devices=1)
    if found is None:
        raise WorkdirError(f"{name} {slices.lacks(name)}: allowed are folders of runs.")
    return found


def _with_results(name: str) -> _Workdir:
    """A workdir with the rows of results.parquet, of which record and Specs say what they are, and
    with those that only its checkpoints have: of a run that goes on, or was killed.
    """
    recorded = _recorded(name)
    programs = [one.program for one in recorded.slices]
    numbers = [one.numbers for one in recorded.slices]
    path = Path(name, "results.parquet")
    try:
        if path.exists() or not any(one.done(name) for one in recorded.slices):
            whole = rows.again(table_.read(path), programs, numbers)
        else:
            whole = rows.table([], [])
    except (OSError, ValueError, KeyError) as error:
        raise WorkdirError(
            f"{name} has no results that can be read ({reason_of(error)}): allowed are folders of "
            "runs, with their config.json and results.parquet."
        ) from error
    return _Workdir(name, recorded, _completed(name, recorded, whole))


def completed(workdir: str | Path, table: "pandas.DataFrame") -> "pandas.DataFrame":
    """Returns the table of a workdir with the rows of tasks that only its checkpoints have, as
    after a kill. Raises WorkdirError for a folder that is no workdir.
    """
    return _completed(str(workdir), _recorded(str(workdir)), table)


def _completed(name: str, recorded: Recorded, table: "pandas.DataFrame") -> "pandas.DataFrame":
    """A table with the rows of all tasks that are safe: it is written less often than they are."""
    import pandas

    made, late = [], set()
    for one in recorded.slices:
        known = table.loc[table["lane"].isin(one.numbers)]
        if one.done(name) * len(one.numbers) <= len(known):
            continue
        # (a run that goes on removes what is read here, and the table is right as it is)
        with contextlib.suppress(WorkdirError, OSError):
            _, found = history.read(Checkpoints(one.checkpoints(name)), mend=False)
            made.append(rows.table([one.program], [found], [one.numbers]))
            late.update(one.numbers)
    if not made:
        return table
    kept = table.loc[~table["lane"].isin(list(late))]
    whole = pandas.concat([kept, *made] if len(kept) else made, ignore_index=True)
    whole = whole.sort_values("lane", kind="stable", ignore_index=True)
    programs = [one.program for one in recorded.slices]
    return waves.marked(rows.arranged(whole, programs), waves.stopped(name))


def _with_checkpoints(name: str) -> _Workdir:
    """A workdir with the rows of the histories in its checkpoints."""
    recorded = _recorded(name)
    histories = []
    for one in recorded.slices:
        _, found = history.read(Checkpoints(one.checkpoints(name)), mend=False)
        histories.append(found)
    _check_there(name, recorded, [not found for found in histories])
    programs = [one.program for one in recorded.slices]
    numbers = [one.numbers for one in recorded.slices]
    return _Workdir(name, recorded, rows.table(programs, histories, numbers))


def _check_there(name: str, recorded: Recorded, empty: Sequence[bool]) -> None:
    """Raises WorkdirError for results of slices without checkpoints: they could not go on."""
    path = Path(name, "results.parquet")
    if not any(empty) or not path.exists():
        return
    try:
        known = set(table_.read(path)["lane"])
    except (OSError, ValueError, KeyError) as error:
        raise WorkdirError(f"{path} cannot be read ({reason_of(error)}).") from error
    for one, lacks in zip(recorded.slices, empty, strict=True):
        if lacks and known.intersection(one.numbers):
            raise WorkdirError(
                f"{one.checkpoints(name)} has no checkpoints, but {path} has results of its "
                "lanes: allowed are workdirs that can go on; load() takes results alone."
            )


# Which lanes are taken


def _taken(parts: Sequence[_Workdir]) -> list[_Lane]:
    """The lanes of all workdirs, each once, in the order in which they first come.

    Raises WorkdirError if a lane measured something else in another workdir.
    """
    found: dict[Any, _Lane] = {}
    for index, part in enumerate(parts):
        for number, key in _keys(part.recorded):
            lane = _Lane(index, number, part.table.loc[part.table["lane"].eq(number)])
            before = found.setdefault(key, lane)
            if before is lane:
                continue
            _check_same(parts, before, lane)
            if len(lane.rows) > len(before.rows):
                found[key] = lane
    return list(found.values())


def _keys(recorded: Recorded) -> list[tuple[int, Any]]:
    """Numbers of lanes, in order, and what is equal for the same run on the same data."""
    found = []
    for one in recorded.slices:
        spec, start = one.program.spec, one.program.start
        over = None if spec.open_ended else spec.tasks
        for place, lane in enumerate(one.program.lanes):
            digest = start.digests[place] if start else ""
            found.append((one.numbers[place], (growth.identity(spec, lane), over, digest)))
    return sorted(found, key=lambda pair: pair[0])


def _check_same(parts: Sequence[_Workdir], one: _Lane, other: _Lane) -> None:
    """Raises WorkdirError if two lanes that are the same run measured different things in tasks
    that both have.
    """
    measured = [statistics.metric_columns(lane.rows, ()) for lane in (one, other)]
    common = [column for column in measured[0] if column in measured[1]]
    done = min(len(one.rows), len(other.rows))
    for column in common:
        left, right = (lane.rows[column].to_numpy()[:done] for lane in (one, other))
        apart = np.flatnonzero(~((left == right) | (np.isnan(left) & np.isnan(right))))
        # (a probe that only one of them ran says nothing of the other)
        both = [task for task in apart if not np.isnan(left[task] + right[task])]
        if both:
            task = both[0]
            raise WorkdirError(
                f"lane {one.number} of {parts[one.workdir].path} and lane {other.number} of "
                f"{parts[other.workdir].path} are the same run, but {column} of task {task} is "
                f"{left[task]} and {right[task]}: allowed are runs with the same numbers, as the "
                "same code has on the same kind of machine."
            )


# What does not go together


def _check_data(parts: Sequence[_Workdir]) -> None:
    """Raises WorkdirError for two different data under one name."""
    known: dict[Any, tuple[str, str]] = {}
    for part in parts:
        print_ = part.recorded.data["fingerprint"]
        for one in part.recorded.slices:
            spec = one.program.spec
            data = spec.dataset, spec.samples, spec.subsample_seed
            before, path = known.setdefault(data, (print_, part.path))
            if before != print_:
                raise WorkdirError(
                    f"{path} and {part.path} were trained on different data of one name, "
                    f"{spec.dataset} (fingerprints {before} and {print_}): allowed is one for all."
                )


def _check_one(parts: Sequence[_Workdir]) -> None:
    """Raises WorkdirError unless all may be one workdir."""
    first = parts[0]
    _check_data(parts)
    for part in parts:
        was, now = first.recorded.data, part.recorded.data
        if was != now:
            raise WorkdirError(
                f"{first.path} was trained on {was['name']} and {part.path} on {now['name']}, "
                f"which are different data (fingerprints {was['fingerprint']} and "
                f"{now['fingerprint']}): allowed is one in a workdir; load() takes several."
            )
        for name in growth.OF_ALL:
            known, new = _values(first, name), _values(part, name) - _values(first, name)
            if new:
                raise WorkdirError(
                    f"{name} is {new.pop()} in {part.path} and {known.pop()} in {first.path}: "
                    "allowed is one in a workdir."
                )
    _check_starts(parts)


def _values(part: _Workdir, name: str) -> set[Any]:
    return {getattr(one.program.spec, name) for one in part.recorded.slices}


def _check_starts(parts: Sequence[_Workdir]) -> None:
    """Raises WorkdirError for lanes that a workdir would not tell apart."""
    known: dict[Any, tuple[Any, str]] = {}
    begun: dict[bool, str] = {}
    for part in parts:
        for _, key in _keys(part.recorded):
            begun.setdefault(bool(key[-1]), part.path)
            before, path = known.setdefault(key[0], (key, part.path))
            if before != key:
                raise WorkdirError(
                    f"{path} and {part.path} have lanes that differ only in what they begin from, "
                    "or in the tasks over which their learning rate changes: allowed is one of "
                    "them in a workdir."
                )
    if len(begun) > 1:
        raise WorkdirError(
            f"the lanes in {begun[True]} begin from those of another run, and those in "
            f"{begun[False]} are drawn: allowed is one start in a workdir."
        )


# Writing


def _copied(parts: Sequence[_Workdir], taken: Sequence[_Lane], where: Path) -> list[Slice]:
    """The slices of the lanes that are taken, with their checkpoints in the new workdir."""
    made = []
    for index, part in enumerate(parts):
        new = {lane.number: number for number, lane in enumerate(taken) if lane.workdir == index}
        for one in part.recorded.slices:
            places = [place for place, number in enumerate(one.numbers) if number in new]
            if places:
                made.append(_copy(part.path, one, places, new, where))
    return made


def _copy(path: str, one: Slice, places: Sequence[int], new: dict[int, int], where: Path) -> Slice:
    """A slice of some lanes of another one, with its checkpoints; `new` are its lanes' numbers."""
    program = growth.some(one.program, places)
    numbers = [new[one.numbers[place]] for place in places]
    made = Slice(program, numbers, slices.name(program, one.options), one.options)
    before, after = one.checkpoints(path), made.checkpoints(where)
    if len(places) < len(one.numbers):
        shutil.rmtree(after, ignore_errors=True)  # (of an attempt that was killed)
        growth.copy_lanes(before, after, places)
    else:
        checkpoints.copy(before, after)
    return made


def _stops(names: Sequence[str], taken: Sequence[_Lane]) -> dict[str, dict[str, Any]]:
    """What workdirs record of lanes that were stopped, by the numbers that these have now."""
    every = [waves.stops(name) for name in names]
    return {
        str(number): every[lane.workdir][str(lane.number)]
        for number, lane in enumerate(taken)
        if str(lane.number) in every[lane.workdir]
    }


def _record(names: Sequence[str]) -> dict[str, Any]:
    """What the new workdir records besides settings: what all have alike or, of texts, all that
    there are, and everything of each.
    """
    records = [workdir_.read_record(name) for name in names]
    made: dict[str, Any] = {}
    for key in {**records[0], **records[-1]}:
        values = [record.get(key) for record in records]
        apart = {json.dumps(value): value for value in values}
        texts = [value for value in apart.values() if isinstance(value, str)]
        made[key] = values[0] if len(apart) == 1 else " and ".join(texts) or None
    imports: dict[str, Any] = {}
    for record in records:
        imports |= record.get("imports") or {}
    calls = [record.get("calls") or [] for record in records]
    made |= {"imports": imports, "calls": list(itertools.chain.from_iterable(calls))}
    made["merged"] = [
        {"workdir": name, **record} for name, record in zip(names, records, strict=True)
    ]
    return made
