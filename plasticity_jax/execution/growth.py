"""A workdir that grows: which lanes of a run are there already, which are new, and what cannot be
added (see docs/slices.md).
"""

import dataclasses
import functools
import itertools
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from plasticity_jax import datasets
from plasticity_jax import lanes as lanes_
from plasticity_jax.execution import history, placement
from plasticity_jax.execution import slices as slices_
from plasticity_jax.execution.program import Program
from plasticity_jax.execution.slices import Recorded, Slice
from plasticity_jax.reporting import metrics as metrics_
from plasticity_jax.spec import Spec
from plasticity_jax.storage import workdir as workdir_
from plasticity_jax.storage.checkpoints import Checkpoints
from plasticity_jax.storage.workdir import WorkdirError

# values that are named of something new before the rest is counted
_NAMED = 4
# settings of which a workdir has one: those of its data, and those that no column of a row tells
OF_ALL = ("dataset", "samples", "subsample_seed", "points", "revisit")


class Part(NamedTuple):
    """A slice made of lanes that others had.

    Attributes:
      sources: the slices that were there, each with the places of the lanes taken from it.
    """

    after: Slice
    sources: list[tuple[Slice, list[int]]]


class Plan(NamedTuple):
    """What a workdir will consist of.

    Attributes:
      slices: all of them.
      asked: the numbers of the lanes that this run asks for.
      parts: slices to be made from others before anything is run.
      is_recorded: whether config.json says all of this already.
      news: what is new in a workdir with lanes, in words.
    """

    slices: list[Slice]
    asked: frozenset[int]
    parts: list[Part]
    is_recorded: bool
    news: list[str]

    @property
    def running(self) -> list[Slice]:
        """The slices with lanes that this run asks for."""
        return [one for one in self.slices if self.asked.intersection(one.numbers)]


class _Goal(NamedTuple):
    """How far lanes that are there shall go, and what is measured from there on.

    Attributes:
      options: of the probes.
    """

    tasks: int
    probes: tuple[str, ...]
    probe_every: int
    options: tuple[tuple[str, Any], ...]


def plan(
    workdir: str | Path,
    programs: Sequence[Program],
    dataset: datasets.Dataset,
    *,
    elsewhere: bool = False,
    joined: bool = False,
) -> Plan:
    """Returns what a workdir consists of once these programs are run in it; writes nothing.

    `elsewhere` says that processes of their own run them, each of which sees for itself whether its
    device is of the kind that the lanes were begun on. If `joined`, lanes of several slices that go
    on alike become fewer and fuller ones.

    Lanes are known again by what they are, wherever in which program they stand: see
    `lanes.identity`, without what is measured and how many tasks follow. Raises WorkdirError for
    what cannot be added to the lanes there, and for a config.json that cannot be read.
    """
    recorded = slices_.read(workdir)
    if recorded is None:
        new = _new(programs, [], elsewhere)
        return Plan(new, _numbers(new), [], False, [])
    before = [one.record() for one in recorded.slices]
    if not elsewhere:
        recorded = recorded._replace(slices=[_begun_here(workdir, s) for s in recorded.slices])
    for program in programs:
        _check_columns(workdir, recorded, program.spec)
    _check_data(workdir, recorded, dataset)
    known = _places(recorded)
    goals: list[dict[int, _Goal]] = [{} for _ in recorded.slices]
    new = []
    for program in programs:
        unknown, sources = [], {}
        for own, lane in enumerate(program.lanes):
            found = known.get(identity(program.spec, lane))
            if found is None:
                unknown.append(own)
                continue
            index, place = found
            if index not in sources:  # (once for all lanes of a slice)
                _check_same(workdir, recorded.slices[index], program)
                if not elsewhere:
                    _check_device(workdir, recorded.slices[index], program)
            _check_start(workdir, recorded.slices[index].program, place, program, own)
            goals[index][place] = _goal(program.spec)
            sources.setdefault(index, {})[place] = own
        for index, places in sources.items():
            if len(places) == len(recorded.slices[index].numbers):
                order = [places[place] for place in sorted(places)]
                recorded.slices[index] = _with_states(recorded.slices[index], program, order)
        if unknown:
            _check_new_start(workdir, recorded, program)
            new.append(some(program, unknown))
    kept, asked, parts = _kept(workdir, recorded, goals, joined)
    added = _new(new, kept, elsewhere)
    every = [*kept, *added]
    metrics_.of_specs([one.program.spec for one in every])  # (checks their names)
    is_recorded = before == [one.record() for one in every]
    news = list(itertools.chain.from_iterable(_told(s.program, recorded.slices) for s in added))
    for one, own in zip(recorded.slices, goals, strict=True):
        news += [line for line in _unmeasured(workdir, one, own.values()) if line not in news]
    return Plan(every, frozenset(asked | _numbers(added)), parts, is_recorded, news)


def _places(recorded: Recorded) -> dict[Any, tuple[int, int]]:
    """The slice and the place in it of each lane, by what it is known by."""
    known = {}
    for index, one in enumerate(recorded.slices):
        for place, lane in enumerate(one.program.lanes):
            known[identity(one.program.spec, lane)] = index, place
    return known


def _begun_here(workdir: str | Path, one: Slice) -> Slice:
    """A slice as this process begins it, if none has: with its own options of XLA."""
    options = placement.options(one.program.spec.model)
    if (one.options or None) == (options or None) or one.done(workdir):
        return one
    return one._replace(folder=slices_.name(one.program, options), options=options)


def _kept(
    workdir: str | Path,
    recorded: Recorded,
    goals: Sequence[Mapping[int, _Goal]],
    joined: bool,
) -> tuple[list[Slice], set[int], list[Part]]:
    """What becomes of the slices of a workdir, some of whose lanes have goals: the slices, the
    numbers of these lanes, and the parts that slices are made from.
    """
    kept: list[Slice] = []
    parts: list[Part] = []
    asked = set()
    for one, own in zip(recorded.slices, goals, strict=True):
        asked |= {one.numbers[place] for place in own}
        made = _parted(workdir, one, own)
        parts += made
        kept += [part.after for part in made] or [_gone_on(one, own)]
    if joined:
        kept, parts = _joined(workdir, recorded, kept, parts, asked)
    return kept, asked, parts


def _numbers(slices: Iterable[Slice]) -> frozenset[int]:
    return frozenset(itertools.chain.from_iterable(one.numbers for one in slices))


def _gone_on(one: Slice, goals: Mapping[int, _Goal]) -> Slice:
    """A slice that stays whole, with the goal of its lanes."""
    if len(goals) < len(one.numbers):
        return one
    return _aimed(one, next(iter(goals.values())))


def _goal(spec: Spec) -> _Goal:
    trained = _of_training(spec)
    measured = tuple(option for option in dict(spec.options).items() if option not in trained)
    return _Goal(spec.tasks, spec.probes, spec.probe_every, measured)


def _aimed(one: Slice, goal: _Goal) -> Slice:
    spec = one.program.spec
    trained = _of_training(spec)
    spec = dataclasses.replace(
        spec,
        tasks=goal.tasks,
        probes=goal.probes,
        probe_every=goal.probe_every,
        options=(*trained, *goal.options),
    )
    return one._replace(program=one.program._replace(spec=spec))


def _of_training(spec: Spec) -> tuple[tuple[str, Any], ...]:
    """The options but those of probes."""
    probes, options = spec.probe_names(), dict(spec.options)
    return tuple(
        (name, value) for name, value in options.items() if name.partition(".")[0] not in probes
    )


def _parted(workdir: str | Path, one: Slice, goals: Mapping[int, _Goal]) -> list[Part]:
    """The slices that one becomes of which only some lanes go on, or not equally far; [] if it
    stays whole.
    """
    groups: dict[_Goal | None, list[int]] = {}
    for place in range(len(one.numbers)):
        groups.setdefault(goals.get(place), []).append(place)
    done = one.done(workdir)
    if len(groups) < 2 or all(goal.tasks <= done for goal in groups if goal):
        return []
    return [Part(_part(one, goal, places), [(one, places)]) for goal, places in groups.items()]


def _part(one: Slice, goal: _Goal | None, places: Sequence[int]) -> Slice:
    """The slice of some lanes of another one; a lane's numbers depend on the width alone."""
    program = some(one.program, places)
    program = program._replace(execution=_spread(program.execution, len(places)))
    numbers = [one.numbers[place] for place in places]
    part = Slice(program, numbers, slices_.name(program, one.options), one.options)
    return _aimed(part, goal) if goal else part


def _joined(
    workdir: str | Path,
    recorded: Recorded,
    kept: Sequence[Slice],
    parts: Sequence[Part],
    asked: set[int],
) -> tuple[list[Slice], list[Part]]:
    """Slices and parts with those that go on alike joined where fewer have room for their lanes: as
    many as the largest slice of their like had.

    Not joined are lanes that begin from others, whose starts a slice has in common, and those of
    whom older states are to be kept.
    """
    made = {part.after.numbers[0]: part for part in parts}
    alike: dict[Any, list[Slice]] = {}
    for one in kept:
        part = made.get(one.numbers[0]) or Part(one, [(one, list(range(len(one.numbers))))])
        (before, _), *_ = part.sources
        done, spec = before.done(workdir), one.program.spec
        is_kept = any(before.checkpoints(workdir).glob("*.kept"))
        is_alone = is_kept or one.program.start is not None
        if asked.issuperset(one.numbers) and 0 < done < spec.tasks and not is_alone:
            made[one.numbers[0]] = part
            alike.setdefault(_way(before, spec, done), []).append(one)
    for group in alike.values():
        most = _largest(recorded, group[0].program.spec)
        own = [_lanes(made[one.numbers[0]]) for one in group]
        lanes = list(itertools.chain.from_iterable(own))
        chunks = [lanes[first : first + most] for first in range(0, len(lanes), most)]
        if len(chunks) < len(group):
            gone = {one.numbers[0] for one in group}
            kept = [one for one in kept if one.numbers[0] not in gone]
            parts = [part for part in parts if part.after.numbers[0] not in gone]
            new = [_of_lanes(group[0], chunk) for chunk in chunks]
            kept, parts = [*kept, *(part.after for part in new)], [*parts, *new]
    return list(kept), list(parts)


class _Lane(NamedTuple):
    """A lane that goes on: its number, and its place in the slice that it is in."""

    number: int
    before: Slice
    place: int


def _lanes(part: Part) -> list[_Lane]:
    found = []
    for before, places in part.sources:
        found += [_Lane(before.numbers[place], before, place) for place in places]
    return found


def _way(before: Slice, spec: Spec, done: int) -> Any:
    """What slices have in common that may be joined."""
    how = before.program.execution
    options = tuple(sorted((before.options or {}).items()))
    devices = how.devices if how.width > 1 else 0
    return spec, done, how.strategy, how.width, devices, options, before.home is None


def _largest(recorded: Recorded, spec: Spec) -> int:
    own = _neutral(spec)
    like = [one for one in recorded.slices if _neutral(one.program.spec) == own]
    return max(len(one.numbers) for one in like)


def _of_lanes(like: Slice, lanes: Sequence[_Lane]) -> Part:
    """A slice of lanes of several others."""
    sources: dict[int, tuple[Slice, list[int]]] = {}
    for lane in lanes:
        sources.setdefault(lane.before.numbers[0], (lane.before, []))[1].append(lane.place)
    execution = _spread(like.program.execution, len(lanes))
    own = [lane.before.program.lanes[lane.place] for lane in lanes]
    program = like.program._replace(lanes=own, execution=execution)
    name = slices_.name(program, like.options)
    after = Slice(program, [lane.number for lane in lanes], name, like.options)
    return Part(after, list(sources.values()))


def some(program: Program, places: Sequence[int]) -> Program:
    """Returns the program of some of its lanes."""
    found = program._replace(lanes=[program.lanes[place] for place in places])
    start = program.start
    if start is None:
        return found
    own = np.asarray(places)
    return found._replace(
        start=start._replace(
            tasks=[start.tasks[place] for place in places],
            digests=[start.digests[place] for place in places],
            donors=[start.donors[place] for place in places] if start.donors else (),
            states=lambda: jax.tree.map(lambda leaf: leaf[own], start.states()),
        )
    )


def _with_states(one: Slice, program: Program, order: Sequence[int]) -> Slice:
    """A recorded slice with the states that its lanes begin from, which are those of a program's
    lanes in this order; it may have no checkpoint of its own yet.
    """
    start = one.program.start
    if start is None or program.start is None:
        return one
    states = some(program, order).start
    assert states is not None  # (as the program has one)
    start = start._replace(states=states.states)
    return one._replace(program=one.program._replace(start=start))


def _spread(how: placement.Execution, lanes: int) -> placement.Execution:
    """The same strategy and width for another number of lanes. Where several lanes are vmapped,
    the number of devices decides last bits, and stays.
    """
    if how.width > 1:
        return how
    return placement.execution(placement.ANY, lanes, how.strategy, how.width)


def _new(programs: Sequence[Program], there: Sequence[Slice], elsewhere: bool) -> list[Slice]:
    """Slices of new lanes, numbered behind those there, at the width of their like."""
    made: list[Slice] = []
    for program in programs:
        like = [one for one in there if _neutral(one.program.spec) == _neutral(program.spec)]
        if there:
            how = like[0].program.execution if like else program.execution
            program = program._replace(execution=_spread(how, len(program.lanes)))
        first = len(_numbers(there)) + len(_numbers(made))
        made.append(slices_.made(program, first, elsewhere=elsewhere))
    return made


def apply(workdir: str | Path, planned: Plan) -> None:
    """Makes the parts of slices. What they were made from stays, until `tidy`. Raises WorkdirError
    for a slice whose own record is damaged or of something else.
    """
    for part in planned.parts:
        for before, _ in part.sources:
            _check_found(workdir, before)
    for part in planned.parts:
        folder = part.after.checkpoints(workdir)
        # (of an attempt that was killed)
        shutil.rmtree(folder, ignore_errors=True)
        if len(part.sources) > 1:
            sources = [(Checkpoints(one.checkpoints(workdir)), own) for one, own in part.sources]
            done = part.sources[0][0].done(workdir)
            history.join(sources, Checkpoints(folder), done)
            continue
        ((before, places),) = part.sources
        copy_lanes(before.checkpoints(workdir), folder, places)


def _check_found(workdir: str | Path, one: Slice) -> None:
    """Raises WorkdirError if the workdir of a slice has a record that is damaged or of other lanes,
    so that it is not known where its states are.
    """
    ran = workdir_.read_settings(one.place(workdir)) if one.home else None
    if ran and one.folder not in {program["folder"] for program in ran["programs"]}:
        raise WorkdirError(
            f"{one.place(workdir)} has something else than the slice that it was made for: its "
            "lanes can go on all together, not in part; allowed besides is a workdir of its own for"
            " what is new."
        )


def copy_lanes(before: Path, after: Path, places: Sequence[int]) -> None:
    """Writes the checkpoints in the folder `before` into that of `after`, of the lanes at these
    places alone.
    """
    own = np.asarray(places)

    def cut(leaf: str, values: np.ndarray) -> np.ndarray:
        return values.take(own, axis=1 if leaf.startswith("['history']") else 0)

    source = Checkpoints(before)
    target = Checkpoints(after, always=source.is_kept)
    history.segments_of(source).copy(history.segments_of(target), cut)
    source.copy(target, cut)


def tidy(workdir: str | Path, planned: Plan) -> None:
    """Removes checkpoints that no slice has any more, once config.json says so."""
    sources = itertools.chain.from_iterable(part.sources for part in planned.parts)
    for before, _ in sources:
        gone = before.place(workdir) if before.home else before.checkpoints(workdir)
        shutil.rmtree(gone, ignore_errors=True)


# What lanes are known by


@functools.lru_cache(maxsize=1024)
def _neutral(spec: Spec) -> Spec:
    """A Spec without how many tasks there are and what is measured."""
    trained = _of_training(spec)
    return dataclasses.replace(spec, tasks=1, probes=(), probe_every=1, options=trained)


def identity(spec: Spec, lane: Mapping[str, Any]) -> Any:
    """Returns what a completed lane is known by in a workdir: equal for the same run, whatever is
    measured and however many tasks follow.
    """
    return lanes_.identity(_neutral(spec), lane)


# What cannot be added


def _check_data(workdir: str | Path, recorded: Recorded, dataset: datasets.Dataset) -> None:
    """Raises WorkdirError if the lanes there were trained on other data."""
    was = recorded.data
    if (was["fingerprint"], was["classes"]) != (dataset.fingerprint, dataset.classes):
        raise WorkdirError(
            f"dataset {dataset.name} is not what the lanes in {workdir} were trained on: its "
            f"fingerprint is {dataset.fingerprint} and was {was['fingerprint']}; use the old data "
            "or another --workdir."
        )


def _check_columns(workdir: str | Path, recorded: Recorded, spec: Spec) -> None:
    """Raises WorkdirError for a setting that no lane there has and of which a workdir has one."""
    there = [one.program.spec for one in recorded.slices]
    for name in OF_ALL:
        now, known = getattr(spec, name), [getattr(one, name) for one in there]
        if now not in known:
            was = " and ".join(str(_shown(value)) for value in dict.fromkeys(known))
            raise WorkdirError(
                f"{name} is {_shown(now)}, but the lanes in {workdir} have {was}: "
                "allowed is one in a workdir; use another --workdir."
            )


def _shown(value: Any) -> Any:
    return "not given" if value is None else value


def _check_same(workdir: str | Path, one: Slice, program: Program) -> None:
    """Raises WorkdirError if lanes that are there cannot go on as is asked."""
    was, now = one.program.spec, program.spec
    if now.tasks < was.tasks:
        raise WorkdirError(
            f"tasks is {now.tasks}, but lanes in {workdir} have {was.tasks}: allowed are as many "
            "or more; use another --workdir."
        )
    if now.tasks > was.tasks and not was.open_ended:
        raise WorkdirError(
            f"tasks is {now.tasks}, but the learning rate of lanes in {workdir} changes over their "
            f"{was.tasks} tasks: allowed are {was.tasks}; use another --workdir."
        )
    _check_probe_options(workdir, was, now)
    _check_execution(workdir, one.program, program)


def _check_device(workdir: str | Path, one: Slice, program: Program) -> None:
    """Raises WorkdirError if lanes that are there would be compiled in another way here."""
    now = program.spec
    if (one.options or None) != (placement.options(now.model) or None):
        raise WorkdirError(
            f"the lanes in {workdir} were compiled with other options of XLA, as on another kind "
            "of device or with another version, and would end with other last digits: use another "
            "--workdir."
        )
    was = one.program
    devices = jax.local_device_count()
    if was.execution.width > 1 and was.execution.devices > devices:
        raise WorkdirError(
            f"the lanes in {workdir} were run {was.execution.width} at a time on each of "
            f"{was.execution.devices} devices, but there are {devices} here, and last digits "
            "follow: use a machine with as many, or another --workdir."
        )


def _check_start(workdir: str | Path, was: Program, place: int, now: Program, own: int) -> None:
    """Raises WorkdirError if a lane that is there began from something else."""
    before = was.start.digests[place] if was.start else ""
    after = now.start.digests[own] if now.start else ""
    if before == after:
        return
    if was.start and now.start:
        raise WorkdirError(
            f"start is {now.start.folder} after task {now.start.tasks[own]}, whose states are "
            f"other ones than the lanes in {workdir} began from: allowed is the start as it was, "
            "or another --workdir."
        )
    raise _other_start(workdir, was, now)


def _other_start(workdir: str | Path, was: Program, now: Program) -> WorkdirError:
    said = f"start is {now.start.folder}" if now.start else "start is not given"
    before = f"began from {was.start.folder}" if was.start else "were drawn afresh"
    return WorkdirError(
        f"{said}, but the lanes in {workdir} {before}: allowed is one start in a workdir, whose "
        "table does not tell them apart; use another --workdir."
    )


def _check_new_start(workdir: str | Path, recorded: Recorded, now: Program) -> None:
    """Raises WorkdirError if new lanes began elsewhere than those there."""
    was = recorded.slices[0].program
    before, after = was.start, now.start
    if (before is None) != (after is None):
        raise _other_start(workdir, was, now)
    if before and after and (before.folder, before.tasks[0]) != (after.folder, after.tasks[0]):
        raise _other_start(workdir, was, now)


def _check_probe_options(workdir: str | Path, was: Spec, now: Spec) -> None:
    probes = set(was.probe_names()) & set(now.probe_names())
    before = {**was.known_options(), **dict(was.options)}
    after = {**now.known_options(), **dict(now.options)}
    for name in before:
        if name.partition(".")[0] in probes and before[name] != after[name]:
            raise WorkdirError(
                f"{name} is {after[name]}, but lanes in {workdir} were measured with "
                f"{before[name]}: allowed is the same; use another --workdir."
            )


def _check_execution(workdir: str | Path, was: Program, now: Program) -> None:
    """Raises WorkdirError if a way to execute lanes is asked for that is not theirs. What a run of
    so many lanes does by itself counts as not asked for: they keep their way.
    """
    usual = placement.execution(placement.kind(now.spec), len(now.lanes))
    if now.execution != usual:
        for name, place in (("lane_strategy", 0), ("lane_width", 1)):
            before, after = was.execution[place], now.execution[place]
            if before != after:
                raise WorkdirError(
                    f"{name} is {after}, but the lanes in {workdir} were run with {before}: "
                    f"allowed is --{name}={before}; or use another --workdir."
                )


# What is new


def _told(program: Program, there: Sequence[Slice]) -> list[str]:
    """What is new about lanes, such as "method l2 is new: 6 lanes"; those that are new in the same
    settings in one sentence.
    """
    known: dict[str, set[Any]] = {}
    for one in there:
        for values in (_settings(one.program.spec), *one.program.lanes):
            for name, value in values.items():
                known.setdefault(name, set()).add(value)

    def new(values: Mapping[str, Any]) -> dict[str, Any]:
        # (a number of a part that is new says nothing more)
        return {n: value for n, value in values.items() if n in known and value not in known[n]}

    of_all = new(_settings(program.spec))
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for lane in program.lanes:
        found = of_all | new(lane)
        groups.setdefault(tuple(found), []).append(found)
    return [_sentence(names, lanes) for names, lanes in groups.items()]


def _sentence(names: Sequence[str], lanes: Sequence[Mapping[str, Any]]) -> str:
    """What is new about lanes that are new in the settings of these names."""
    count = f"{len(lanes):,} lane{'' if len(lanes) == 1 else 's'}"
    if not names:
        return f"a combination of settings is new: {count}"
    new = {}
    for name in names:
        new[name] = list(dict.fromkeys(lane[name] for lane in lanes))
    words = [_words(name, values) for name, values in new.items()]
    several = len(words) > 1 or len(new[names[0]]) > 1
    return f"{', '.join(words)} {'are' if several else 'is'} new: {count}"


def _unmeasured(workdir: str | Path, one: Slice, goals: Iterable[_Goal]) -> list[str]:
    """What is said of probes that are new where no task is left to measure them at."""
    done = one.done(workdir)
    names: dict[str, None] = {}
    for goal in goals:
        if goal.tasks <= done:
            names |= dict.fromkeys(set(goal.probes) - set(one.program.spec.probes))
    if not names:
        return []
    return [
        f"probe {', '.join(sorted(names))} is measured from the next task on, and all {done} are "
        "done: --tasks says how many more"
    ]


def _words(name: str, values: Sequence[Any]) -> str:
    more = len(values) - _NAMED
    texts = [f"{value:g}" if isinstance(value, float) else str(value) for value in values]
    return f"{name} {', '.join(texts[:_NAMED])}" + (f" and {more} more" if more > 0 else "")


def _settings(spec: Spec) -> dict[str, Any]:
    """What all lanes of a Spec are, as the table tells it."""
    # (there all examples are NaN, which equals nothing)
    return {**spec.axes(), **spec.settings(), "samples": spec.samples}
