"""What --dry_run prints: the arms, what is compiled, how many lanes and steps, memory and time."""

from collections.abc import Mapping, Sequence
from typing import Any

from plasticity_jax import datasets, lanes, spec
from plasticity_jax.estimates import cost
from plasticity_jax.execution import ahead, growth, memory, sweep
from plasticity_jax.execution import program as program_
from plasticity_jax.spec import Spec
from plasticity_jax.types import Data

_MEBIBYTE = 2**20
MANY = 20  # arms and programs, of which more are counted


def describe(
    programs: Sequence[program_.Program], dataset: datasets.Dataset, long: bool = False
) -> str:
    """Returns the text of what would be run, without what must be tried: see `time`.

    Of more than `MANY` programs the first are described, of more than `MANY` arms in all none is
    listed, unless `long`.
    """
    data = program_.device_data(dataset)
    lines = [f"data: {dataset.name}, {len(dataset.images):,} examples, {dataset.source}"]
    arms = [_arms(program.lanes) for program in programs]
    listed = long or sum(map(len, arms)) <= MANY
    shown = len(programs) if long else MANY
    for number, (program, own) in enumerate(zip(programs[:shown], arms, strict=False), 1):
        lines.append(f"program {number}: {_settings(program.spec)}")
        lines += [f"    {arm}" for arm in (own if listed else _counted(program.lanes, own))]
        lines.append(f"    {_size(program, data)}")
    if len(programs) > shown:
        lines.append(f"and {amount(len(programs) - shown, 'program')} more (--long lists them)")
    lanes = sum(len(program.lanes) for program in programs)
    total = sum(len(program.lanes) * _steps(program.spec, data) for program in programs)
    compiled = amount(len(programs), "compiled program")
    lines.append(f"in all {compiled}, {amount(lanes, 'lane')}, {total:,} lane-steps")
    return "\n".join(lines)


def workdir(
    folder: str,
    programs: Sequence[program_.Program],
    dataset: datasets.Dataset,
    elsewhere: bool = False,
) -> list[str]:
    """Returns lines on what is new in a workdir that has lanes, `elsewhere` as in `growth.plan`;
    writes nothing. Raises WorkdirError for what cannot be added there.
    """
    if elsewhere:
        planned = growth.plan(folder, programs, dataset, elsewhere=True)
    else:
        planned = sweep.check_in_workdir(programs, dataset, folder)
    if not any(one.done(folder) for one in planned.slices):
        return []
    news = planned.news or ["no lane of these is new: they go on, or are done"]
    return [f"{folder}: {line}" for line in news]


def time(programs: Sequence[program_.Program], dataset: datasets.Dataset) -> str:
    """Returns a line on how long it takes, by a trial."""
    found = ahead.aside(lambda: cost.estimate(programs, dataset))
    says = "a trial says so"
    if found.tried < found.kinds:
        says = f"trials of {found.tried} of {found.kinds:,} kinds of program say so"
    return f"about {duration(found.seconds)} on this machine, besides compiling ({says})"


def _counted(lanes: Sequence[Mapping[str, Any]], arms: Sequence[str]) -> list[str]:
    """How many arms a program has, and the values of what differs between them."""
    axes = {}
    for name in lanes[0]:
        values = list(dict.fromkeys(lane[name] for lane in lanes))
        if name != "seed" and len(values) > 1:
            axes[name] = values
    words = [
        f"{len(values)} x {name} from {_word(name, min(values))} to {_word(name, max(values))}"
        for name, values in axes.items()
    ]
    seeds = len({lane["seed"] for lane in lanes})
    return [f"{amount(len(arms), 'arm')}: {', '.join([*words, amount(seeds, 'seed')])}"]


def _word(name: str, value: Any) -> str:
    return spec.word(name, value, f"{value:g}")


def _settings(one: Spec) -> str:
    """What is the same for all lanes of a program."""
    rate = "" if one.schedule == "constant" else f" with learning rate {one.schedule}"
    words = [
        one.environment,
        f"transition {one.transition}",
        _network(one),
        f"{one.optimizer}{rate}",
        one.precision,
        f"method {one.method}",
        *(f"{name} {spec.word(name, value, value)}" for name, value in one.options),
    ]
    return ", ".join(words)


def _network(one: Spec) -> str:
    """The model with what it is made from."""
    unread = spec.unread(one.model)
    words = [one.model]
    if "depth" not in unread and "width" not in unread:
        words = [f"{one.model} {one.depth} x {one.width}"]
    if "norm" not in unread:
        words.append(f"norm {one.norm}")
    words += [getattr(one, name) for name in ("activation", "initialization") if name not in unread]
    return ", ".join(words)


def _arms(lanes: Sequence[Mapping[str, Any]]) -> list[str]:
    """The numbers of each arm of a program, with its seeds."""
    seeds: dict[tuple[tuple[str, Any], ...], list[int]] = {}
    for lane in lanes:
        arm = tuple((name, value) for name, value in lane.items() if name != "seed")
        seeds.setdefault(arm, []).append(lane["seed"])
    lines = []
    for arm, own in seeds.items():
        numbers = ", ".join(f"{name} {_word(name, value)}" for name, value in arm)
        which = f"seed {own[0]}" if len(own) == 1 else f"seeds {own[0]} to {own[-1]}"
        lines.append(f"{numbers}; {which}")
    return lines


def _size(program: program_.Program, data: Data) -> str:
    """How much there is to do, how it is done and what it needs."""
    one, how = program.spec, program.execution
    needs = memory.of_lane(one, data)
    mebibytes = (needs.waiting + needs.running) / _MEBIBYTE
    remembered = f", {needs.remembered / _MEBIBYTE:,.1f} of them remembered" if one.acts else ""
    return (
        f"{amount(len(program.lanes), 'lane')} x {amount(one.tasks, 'task')}, "
        f"{_steps(one, data):,} steps a lane; {how.strategy}, width {how.width}, "
        f"{amount(how.devices, 'device')}; about {mebibytes:,.1f} MiB a lane{remembered}"
    )


def _steps(one: Spec, data: Data) -> int:
    """The steps of a lane in all tasks."""
    samples = one.make_environment().size(data)
    return one.tasks * lanes.check_steps(one, samples)


def duration(seconds: float) -> str:
    """Returns a time in words."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} seconds"


def amount(number: int, noun: str) -> str:
    """Returns a number of things in words: "1 lane", "1,200 lanes"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
