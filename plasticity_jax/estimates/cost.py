"""How long a run will take on this machine, from a few seconds of it, before it starts."""

import dataclasses
import statistics
import time
from collections.abc import Container, Sequence
from typing import Any, NamedTuple

import jax

from plasticity_jax import datasets, lanes
from plasticity_jax.execution import compiled as compiled_
from plasticity_jax.execution import memory
from plasticity_jax.execution import program as program_
from plasticity_jax.execution.placement import Execution
from plasticity_jax.methods import METHODS
from plasticity_jax.probes import PROBES
from plasticity_jax.spec import Spec
from plasticity_jax.types import Data, Environment, PyTree

BATCHES = 4  # at least, in an epoch of a trial
# epochs of a trial: as many as a lane's memory goes into this, since what needs more takes longer
ROOM, MOST = 256 << 20, 256
# where texts are decoded, epochs that a longer trial has more, until they take half as long as the
# shorter trial, or LONG seconds
EXTRA = (2, 16, 128)
# a trial is run so many times, but only once if that takes more than LONG seconds
REPEATS, LONG = 3, 2.0
PHASE = 100  # updates of the shorter phase of a trial, besides those left out at first
WITHIN = 6.0  # seconds of trials, after which no other is begun
# a lane that needs so many bytes while it runs has long steps, and its probes are tried on so many
# times fewer samples
LARGE, FEWER = 256 << 20, 8


class Trial(NamedTuple):
    """Seconds that one block of lanes takes.

    Attributes:
      step: of a training step.
      rest: of the end of a task without probes: test data, decoding.
      probing: of the probes.
    """

    step: float
    rest: float
    probing: float


class Times(NamedTuple):
    """Seconds of a task of one block of lanes, without probes and with them."""

    plain: float
    probed: float


class Estimate(NamedTuple):
    """What a run will take.

    Attributes:
      seconds: wall time without compiling.
      tried, kinds: how many kinds of program were tried, of how many there are.
    """

    seconds: float
    tried: int
    kinds: int


class _Kind(NamedTuple):
    """Programs that cost the same but for their number of lanes, steps and tasks."""

    spec: Spec
    how: Execution


def estimate(
    programs: Sequence[program_.Program], dataset: datasets.Dataset, within: float = WITHIN
) -> Estimate:
    """Returns the estimated time of a run: good to about a factor of 1.5 on a quiet machine.

    One block of lanes of each kind of program is tried for a few epochs on part of the data;
    programs are of one kind that differ in nothing but method, transition and number of epochs,
    whose cost differs less than that. Once trials took `within` seconds, the kinds that are left,
    those with the least to do, are taken to cost what the others do.
    """
    kinds: dict[_Kind, list[program_.Program]] = {}
    for program in programs:
        kinds.setdefault(_Kind(_plain(program.spec), program.execution), []).append(program)
    data = program_.device_data(dataset)
    most_work = sorted(kinds, key=lambda kind: -sum(_steps(p, data) for p in kinds[kind]))
    began, known = time.perf_counter(), {}
    for kind in most_work:
        if known and time.perf_counter() - began > within:
            break
        known[kind] = _trial(kinds[kind][0]._replace(spec=kind.spec), dataset)
    mean = Trial(*(statistics.fmean(column) for column in zip(*known.values(), strict=True)))
    total = 0.0
    for kind, members in kinds.items():
        trial = known.get(kind, mean)
        total += sum(_seconds(program, trial, data) for program in members)
    return Estimate(total, len(known), len(kinds))


def _steps(program: program_.Program, data: Data) -> int:
    """Training steps of all lanes of a program in all tasks."""
    spec = program.spec
    steps = lanes.check_steps(spec, spec.make_environment().size(data))
    return len(program.lanes) * spec.tasks * steps


def _seconds(program: program_.Program, trial: Trial, data: Data) -> float:
    """Seconds of a program, given what a block of its lanes takes."""
    spec, how = program.spec, program.execution
    count = spec.make_environment().size(data)
    steps = lanes.check_steps(spec, count)
    if not spec.acts:
        # the whole task is evaluated once at its end, which takes about a third of a step for each
        # batch
        steps += count // spec.batch_size / 3
    times = 1 + len(spec.steps_of_points)
    task = steps * trial.step + trial.rest + times * trial.probing / spec.probe_every
    blocks = -(-len(program.lanes) // (how.width * how.devices))
    return blocks * spec.tasks * task


def _plain(spec: Spec) -> Spec:
    """The Spec without method, with the transition and the run's length that all others share."""
    options = _without(spec, METHODS)
    if spec.acts:  # (phases of other lengths have other programs)
        return dataclasses.replace(
            spec, method="none", tasks=2, first_task=0, probe_every=1, options=options
        )
    return dataclasses.replace(
        spec,
        method="none",
        transition="sampling",
        tasks=2,
        epochs=1,
        first_task=0,
        points=0,
        probe_every=1,
        options=options,
    )


def _without(spec: Spec, parts: Container[str]) -> dict[str, Any]:
    """The Spec's options but for those of `parts`."""
    return {name: value for name, value in spec.options if name.partition(".")[0] not in parts}


def _trial(program: program_.Program, dataset: datasets.Dataset) -> Trial:
    """What a block of lanes takes, from a trial in which every second task has probes.

    To compile takes far longer than to try: so there is one program, whose number of epochs is
    chosen by its memory, and evaluation is taken to cost what it does elsewhere. Only where texts
    are decoded, which takes its time at the end of a task, a longer trial tells that from steps.
    """
    spec = program.spec
    if spec.acts:
        return _trial_of_phases(program, dataset)
    environment = spec.make_environment()
    decoded = environment.decoding.samples if environment.decoding else 0
    data = program_.device_data(dataset)
    part, count = dataset, environment.size(data)
    running = memory.of_lane(spec, data).running
    # (an environment that chooses among the examples needs them all)
    if count == len(dataset.images):
        count = min(count, max(BATCHES * spec.batch_size, decoded))
        part = _first(dataset, count)
    per_epoch = count // spec.batch_size
    wanted = min(spec.probe_samples, environment.size(data))
    tried = min(-(-wanted // FEWER) if running > LARGE else wanted, count)
    tries = min(ROOM // running, MOST) * BATCHES // per_epoch
    epochs = 1 if decoded else max(1, tries)

    def timed(spec: Spec, epochs: int) -> Times:
        changed = dataclasses.replace(spec, epochs=epochs, probe_every=2, probe_samples=tried)
        return _timed(program._replace(spec=changed), part)

    short = timed(spec, epochs)
    # time of probes grows with the samples
    probing = max(short.probed - short.plain, 0.0) * wanted / tried
    if not decoded:
        tested = _evaluations(spec, environment, program_.device_data(part))
        step = short.plain / (per_epoch * epochs + tested)
        # (of the whole task, its own examples are counted with its steps)
        more = _evaluations(spec, environment, data) - environment.size(data) // spec.batch_size / 3
        return Trial(step, step * more, probing)
    bare, step = dataclasses.replace(spec, probes=(), options=_without(spec, PROBES)), 0.0
    for extra in (1, *EXTRA) if short.plain > LONG else EXTRA:
        more = timed(bare, 1 + extra).plain - short.plain
        step = max(more, 0.0) / (extra * per_epoch)
        if more >= min(short.plain / 2, LONG):
            break
    rest = max(short.plain - step * per_epoch * (1 + 1 / 3), 0.0)
    return Trial(step, rest, probing)


def _first(dataset: datasets.Dataset, count: int) -> datasets.Dataset:
    """The first examples of a dataset, and as many of those held out."""
    return dataclasses.replace(
        dataset,
        images=dataset.images[:count],
        labels=dataset.labels[:count],
        test_images=dataset.test_images[:count],
        test_labels=dataset.test_labels[:count],
    )


def _evaluations(spec: Spec, environment: Environment, data: Data) -> float:
    """How many steps take as long as what a task with these data evaluates at its end: a forward
    pass is about a third of a step.
    """
    count = environment.size(data)
    if environment.test is not None:
        count += environment.test_size(data)
    return count * (1 + spec.revisit) / spec.batch_size / 3


def _trial_of_phases(program: program_.Program, dataset: datasets.Dataset) -> Trial:
    """What a block of lanes takes where an agent acts, from phases of two lengths."""
    spec = program.spec
    agent = spec.make_agent()
    bare = dataclasses.replace(spec, probes=(), options=_without(spec, PROBES))
    few = agent.silent + PHASE

    def timed(spec: Spec, updates: int) -> Times:
        length = updates * agent.frames
        changed = dataclasses.replace(spec, points=0, phase_steps=length, probe_every=2)
        return _timed(program._replace(spec=changed), dataset)

    short = timed(spec, few)
    step = max(timed(bare, 3 * few).plain - short.plain, 0.0) / (2 * few)
    probing = max(short.probed - short.plain, 0.0)
    return Trial(step, max(short.plain - step * few, 0.0), probing)


def _timed(program: program_.Program, dataset: datasets.Dataset) -> Times:
    """What a task of one block of lanes takes, if every second one has probes, from the first on:
    without compiling.
    """
    spec, how = program.spec, program.execution
    lane = {
        name: value
        for name, value in program.lanes[0].items()
        if name.partition(".")[0] not in METHODS
    }
    block = [lane | {"granularity": 1}] * (how.width * how.devices)
    compiled = compiled_.compile_program(
        program_.Program(spec, block, how), program_.device_data(dataset)
    )
    states = compiled.init()
    if how.strategy == "plain":
        states, _ = timed_task(compiled, states, 0)  # compiles each of its parts
    else:
        compiled.executable(states)
    taken: tuple[list[float], list[float]] = [], []
    for number in range(1, 1 + 2 * REPEATS):
        states, seconds = timed_task(compiled, states, number)
        taken[number % 2].append(seconds)
        if number % 2 == 0 and seconds > LONG:
            break
    plain, probed = map(min, taken)  # what else the machine does only adds
    return Times(plain, probed)


def timed_task(compiled: compiled_.Compiled, states: PyTree, number: int) -> tuple[PyTree, float]:
    """Returns the states after task `number` and the seconds that it took, until the device was
    done.
    """
    start = time.perf_counter()
    states, _ = jax.block_until_ready(compiled.run_task(states, number))
    return states, time.perf_counter() - start
