"""Where the time of a task goes: a trace of one, and what its time was spent on.

The parts of a program are marked where they are written, by `jax.named_scope`, which changes no
number. The compiler keeps the marks in each instruction's `op_name`, the trace has each
instruction's times, and this file joins the two. A gradient's instructions have the mark of the
forward pass inside `transpose(...)`. A fusion carries the mark of one of the instructions in it, so
what is fused across two parts counts as one of them.
"""

import dataclasses
import re
import statistics
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from plasticity_jax import datasets, lanes, registry
from plasticity_jax.estimates import cost
from plasticity_jax.execution import compiled as compiled_
from plasticity_jax.execution import program as program_
from plasticity_jax.spec import Spec

STEPS = 100  # at most, in the task that is traced: more fill the trace and tell no more
REPEATS = 3  # of the same task without a trace
SLOW = 1.2  # times that a trace may take more before it is said
EACH_STEP = ("data", "forward", "backward", "method", "optimizer")
PARTS = (*EACH_STEP, "evaluation", "probes", "other", "host")
MARK = re.compile(
    r"(?:^|/)((?:(?:jvp|transpose|vmap|checkpoint)\()*)"
    r"(data|forward|method|optimizer|evaluation|probes)\)*(?=/|$)"
)
COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
INSTRUCTION = re.compile(r"^ +(?:ROOT )?%?([\w.\-]+) = ")
USED = re.compile(r"%([\w.\-]+)")  # operands, and computations that are called
CONTROL = re.compile(r"(while|conditional|call)\b")
OP_NAME = re.compile(r'op_name="([^"]*)"')

Event = tuple[Hashable, float, float, str]
"""(line, start, end, label): something that ran on a line (a thread, a stream) from start to end.
"""


def profile(program: program_.Program, dataset: datasets.Dataset, folder: str | Path) -> str:
    """Traces one task of a program into `folder` and returns the text that says where its time
    went.

    The task is the second one, compiled and run before it is traced, and cut to one block of lanes
    and `STEPS` steps; what a method does less often than that may be missed, and is then named.
    Raises ValueError for the strategy "plain", which is no one program, and where jax compiles
    nothing.
    """
    if jax.config.jax_disable_jit:  # pyright: ignore[reportAttributeAccessIssue]
        raise ValueError(
            "jax_disable_jit is set: allowed with a profile is a jax that compiles programs."
        )
    registry.one_of(
        "lane_strategy of a profile", program.execution.strategy, ("vmap", "map", "sharded")
    )
    cut, part = shortened(program, dataset)
    # the compilation cache takes programs for equal that differ in marks only, as with one from
    # before it had them
    by_marks = jax.config.values["jax_compilation_cache_include_metadata_in_key"]
    jax.config.update("jax_compilation_cache_include_metadata_in_key", True)
    try:
        compiled = compiled_.compile_program(cut, program_.device_data(part))
        states = jax.block_until_ready(compiled.run_task(compiled.init(), 0))[0]
    finally:
        jax.config.update("jax_compilation_cache_include_metadata_in_key", by_marks)
    untraced = []
    for _ in range(REPEATS):
        states, taken = cost.timed_task(compiled, states, 1)
        untraced.append(taken)
    options = jax.profiler.ProfileOptions()
    # instructions on a CPU; no calls of Python functions
    options.host_tracer_level, options.python_tracer_level = 2, 0
    with jax.profiler.trace(folder, profiler_options=options):
        states, wall = cost.timed_task(compiled, states, 1)
    newest = max(
        Path(folder).glob("plugins/profile/*/*.xplane.pb"), key=lambda file: file.stat().st_mtime
    )
    trace = newest.with_name(newest.name.replace(".xplane.pb", ".trace.json.gz"))
    table = "(no breakdown: the trace of this backend names no instructions)"
    if found := events(newest):
        taken = breakdown(found, parts_of(str(compiled.executable(states).as_text())), wall)
        table = described(program, cut, dataset, part, taken)
    plain = statistics.median(untraced)
    slowed = ""
    if wall > SLOW * plain:
        slowed = (
            "\nthe trace slowed it down: shares of what has many short instructions are too large"
        )
    return (
        f"{table}\n"
        f"in all{1e3 * wall:16.1f}; without a trace {1e3 * plain:.1f}, the median of "
        f"{REPEATS}{slowed}\n\n"
        f"trace: {trace} (open it at ui.perfetto.dev, or with tensorboard --logdir={folder})"
    )


def shortened(
    program: program_.Program, dataset: datasets.Dataset
) -> tuple[program_.Program, datasets.Dataset]:
    """Returns the program and data cut to one block of lanes and at most `STEPS` steps a task, with
    probes in each task.
    """
    spec, how = program.spec, program.execution
    if spec.acts:
        return _shortened_phase(program), dataset
    samples = spec.make_environment().size(program_.device_data(dataset))
    batches = min(samples // spec.batch_size, STEPS)
    epochs, count = min(spec.epochs, STEPS // batches), len(dataset.images)
    # (an environment that chooses among the examples needs them all)
    if batches == STEPS and samples == count:
        count = batches * spec.batch_size
    part = dataclasses.replace(
        dataset, images=dataset.images[:count], labels=dataset.labels[:count]
    )
    block = program.lanes[: how.width * how.devices]
    return program_.Program(
        dataclasses.replace(spec, epochs=epochs, points=0, probe_every=1), block, how
    ), part


def _shortened_phase(program: program_.Program) -> program_.Program:
    """The same of an agent, whose phase has at least an update."""
    spec, how = program.spec, program.execution
    agent = spec.make_agent()
    updates = min(agent.updates(spec.phase_steps), max(STEPS, agent.silent + 1))
    changed = dataclasses.replace(spec, phase_steps=updates * agent.frames, points=0, probe_every=1)
    return program_.Program(changed, program.lanes[: how.width * how.devices], how)


def parts_of(text: str) -> dict[str, str]:
    """Returns {instruction: part} of a compiled program given as text of HLO.

    An instruction without a mark belongs to the part of the loop or branch that it is in, else to
    "other"; one without an `op_name`, such as a copy that the compiler adds, first of all to the
    part of the first that reads it.
    """
    own: dict[str, str | None] = {}  # instruction -> part, "" without a mark, None without a name
    inside: dict[str, str] = {}  # instruction -> computation
    caller: dict[str, str] = {}  # computation -> instruction
    readers: dict[str, list[str]] = defaultdict(list)
    computation = ""
    for line in text.splitlines():
        if found := INSTRUCTION.match(line):
            name, named = found[1], OP_NAME.search(line)
            own[name], inside[name] = part_of(named[1]) if named else None, computation
            for used in USED.findall(line, found.end()):
                readers[used].append(name)
                caller.setdefault(used, name)
        elif found := COMPUTATION.match(line):
            computation = found[1]
    for name in reversed(own):  # readers come after what they read
        if own[name] is None:
            own[name] = next((own[reader] for reader in readers[name] if own[reader]), "")

    def part(name: str | None) -> str:
        while name is not None:
            if known := own[name]:
                return known
            name = caller.get(inside[name])
        return "other"

    return {name: part(name) for name in own}


def part_of(op_name: str) -> str:
    """Returns the part that an instruction's `op_name` names, the innermost one, or ""."""
    marks = MARK.findall(op_name)
    if not marks:
        return ""
    around, mark = marks[-1]
    return "backward" if mark == "forward" and "transpose(" in around else mark


def events(file: Path) -> dict[tuple[str, int], list[Event]]:
    """Returns {device: events} of the instructions in a trace (`*.xplane.pb`), times in seconds.

    On a CPU they run on threads of the host, which name the device; one that hands its work to
    other threads lasts until the mark of its end. An accelerator has a plane of its own, and what
    the host does to launch instructions does not count.
    """
    begun: list[tuple[tuple[str, int], str, Any, dict[str, Any]]] = []
    ends: dict[Any, float] = {}  # by what links an instruction to the mark of its end
    for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
        for line in plane.lines:
            for event in line.events:
                known = dict(event.stats)
                if "hlo_op" in known:
                    begun.append(
                        (
                            (str(plane.name), int(known.get("device_ordinal", 0))),
                            line.name,
                            event,
                            known,
                        )
                    )
                elif event.name.startswith("end: ") and "_c" in known:
                    ends[known["_c"]] = event.start_ns
    found: dict[tuple[str, int], list[Event]] = defaultdict(list)
    for device, line, event, known in begun:
        name, end = str(known["hlo_op"]), event.start_ns + event.duration_ns
        # those last as long as what is inside them, which has events of its own
        if not CONTROL.match(name):
            end = max(end, ends.get(known.get("_p"), 0.0))
        found[device].append((line, event.start_ns / 1e9, end / 1e9, name))
    own = {device: listed for device, listed in found.items() if device[0].startswith("/device:")}
    return own or dict(found)


def self_times(events: Iterable[Event]) -> dict[str, float]:
    """Returns {label: time} of one device's events, which adds up to the time in which any of them
    ran.

    The time of an event inside another is its own, not that of the one around it. Where several
    lines work at once, an instant is shared among them.
    """
    listed = [event for event in events if event[2] > event[1]]
    # at one instant what ends comes first, then what begins, the longest before what is inside it
    changes = sorted(
        [(end, 0, 0.0, n) for n, (_, _, end, _) in enumerate(listed)]
        + [(start, 1, -end, n) for n, (_, start, end, _) in enumerate(listed)]
    )
    running: dict[Hashable, list[int]] = {}
    times: dict[str, float] = defaultdict(float)
    before = 0.0
    for now, begins, _, n in changes:
        for stack in running.values():
            times[listed[stack[-1]][3]] += (now - before) / len(running)
        before, line = now, listed[n][0]
        if begins:
            running.setdefault(line, []).append(n)
        else:
            running[line].remove(n)
            if not running[line]:
                del running[line]
    return dict(times)


def breakdown(
    events: Mapping[Any, Sequence[Event]], parts: Mapping[str, str], wall: float
) -> dict[str, float]:
    """Returns {part: seconds}, means over devices, which add up to `wall`, the time of the task on
    the host.

    "other" is the time of instructions without a mark, "host" the time in which a device runs none:
    before, between and after its instructions.
    """
    total: dict[str, float] = dict.fromkeys(PARTS, 0.0)
    for listed in events.values():
        for name, seconds in self_times(listed).items():
            total[parts.get(name, "other")] += seconds / len(events)
    return total | {"host": wall - sum(total.values())}


def _evaluated(spec: Spec, dataset: datasets.Dataset) -> int:
    """Examples that the end of a task takes its time for; of texts those that are decoded, which
    takes longest.
    """
    environment, data = spec.make_environment(), program_.device_data(dataset)
    most = environment.decoding.samples if environment.decoding else None
    tested = environment.test_size(data) if environment.test else 0
    return sum(
        count if most is None else min(count, most) for count in (environment.size(data), tested)
    )


def _steps(spec: Spec, dataset: datasets.Dataset) -> int:
    """The steps of a task."""
    if spec.acts:
        return lanes.check_steps(spec, 0)
    return spec.epochs * (len(dataset.images) // spec.batch_size)


def described(
    program: program_.Program,
    cut: program_.Program,
    dataset: datasets.Dataset,
    part: datasets.Dataset,
    taken: Mapping[str, float],
) -> str:
    """Returns what was cut and the table of {part: seconds}, in milliseconds and shares.

    The shares of a whole task are estimated: more steps, more to evaluate, the probes only every so
    often, and the same share for the host.
    """
    spec, how = program.spec, program.execution
    steps, whole = _steps(cut.spec, part), _steps(spec, dataset)
    factor: dict[str, float] = dict.fromkeys((*EACH_STEP, "other"), whole / steps)
    factor |= {
        "evaluation": _evaluated(spec, dataset) / _evaluated(spec, part),
        "probes": 1 / spec.probe_every,
    }
    estimate = {name: seconds * factor[name] for name, seconds in taken.items() if name != "host"}
    estimate["host"] = (
        sum(estimate.values()) * taken["host"] / (sum(taken.values()) - taken["host"])
    )
    options = {**spec.known_options(), **dict(spec.options)}
    rare = [
        f"{name} {value:,}"
        for name, value in options.items()
        if name.endswith(".period") and steps < value < registry.LARGEST_WHOLE
    ]
    lines = [
        f"{spec.model}, {spec.optimizer}, {spec.precision}, method {spec.method}; {how.strategy}, "
        f"width {how.width}, "
        f"{how.devices} x {jax.devices()[0].device_kind} (means over devices)",
        f"one task, warm, cut to {len(cut.lanes):,} of {len(program.lanes):,} lanes and {steps:,} "
        f"of {whole:,} steps, "
        f"with one evaluation{' and the probes once' if spec.probes else ''}",
        *(
            f"{name} is longer than that: what happens so seldom may not be in the trace"
            for name in rare
        ),
        f"\n{'':12}{'ms':>10}{'share':>9}{'ms a step':>12}{'of a whole task (estimate)':>29}",
    ]
    for name, seconds in taken.items():
        step = f"{1e3 * seconds / steps:.3f}" if name in EACH_STEP else ""
        shares = seconds / sum(taken.values()), estimate[name] / sum(estimate.values())
        lines.append(f"{name:12}{1e3 * seconds:10.1f}{shares[0]:9.1%}{step:>12}{shares[1]:29.1%}")
    return "\n".join(lines)
