"""How much memory a run takes, estimated before it starts."""

import bisect
import contextlib
import dataclasses
import functools
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from plasticity_jax import lanes as lanes_
from plasticity_jax.execution import placement
from plasticity_jax.methods import METHODS
from plasticity_jax.probes import CURVATURE
from plasticity_jax.spec import Spec
from plasticity_jax.training.evaluation import evaluation_chunk
from plasticity_jax.training.network import network
from plasticity_jax.training.step import mean_loss
from plasticity_jax.training.supervised import make_run
from plasticity_jax.types import Array, Data, Environment, PyTree

if TYPE_CHECKING:
    from plasticity_jax.execution.program import Program


PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
# bytes, of a run of any size: compiled programs, buffers (a first run loads its libraries as well)
BESIDES = 16 << 20
# bytes of memory of its own, of a process with jax that has compiled a small program
PROCESS = 512 << 20


class Needs(NamedTuple):
    """Bytes that a lane needs.

    Attributes:
      waiting: its state, also while other lanes run.
      running: what it needs besides while it runs.
      changed: the part of its state that a task changes, which is all but the initial parameters.
      remembered: the part of its state that is what an agent remembers.
    """

    waiting: int
    running: int
    changed: int
    remembered: int = 0


def of_lane(spec: Spec, data: Data) -> Needs:
    """Returns an estimate of what a lane needs, good to about a factor of two against what XLA
    reports.

    Counted from shapes: the state, six vectors as long as the parameters (gradient, update,
    Lanczos), and the largest of what the backward pass of a minibatch keeps, what that of the probe
    batch keeps (of its gradient, for curvature) and two thirds of a chunk's activations in
    evaluation.
    """
    leaves, structure = jax.tree.flatten(data)
    shapes = tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves)
    return _of_shapes(spec, shapes, structure)


@functools.lru_cache(maxsize=4096)
def _of_shapes(spec: Spec, shapes: tuple[jax.ShapeDtypeStruct, ...], structure: Any) -> Needs:
    """What a lane needs with data of these shapes."""
    state = _state(spec, shapes, structure)
    passes = _of_passes(_without_method(spec), shapes, structure)
    return Needs(
        waiting=_size(state),
        running=6 * _size(state.params) + passes,
        changed=_size(state) - _size(state.initial),
        remembered=_size(state.replay) if spec.acts else 0,
    )


def _without_method(spec: Spec) -> Spec:
    """What all Specs have in common whose passes through the network keep the same."""
    options = {n: value for n, value in spec.options if n.partition(".")[0] not in METHODS}
    return dataclasses.replace(spec, method="none", options=options)


@functools.lru_cache(maxsize=256)
def _of_passes(spec: Spec, shapes: tuple[jax.ShapeDtypeStruct, ...], structure: Any) -> int:
    """Bytes that the pass through the network which keeps most keeps, of data of these shapes."""
    data = jax.tree.unflatten(structure, shapes)
    state = _state(spec, shapes, structure)
    environment = spec.make_environment()
    samples = environment.size(data)
    phases = [_of_backward(spec, state, data, spec.batch_size, training=True)]
    if spec.probes:
        count = spec.probe_samples if spec.acts else min(spec.probe_samples, samples)
        twice = bool(CURVATURE & set(spec.probe_names()))
        phases.append(_of_backward(spec, state, data, count, training=False, twice=twice))
    if not spec.acts:
        chunk = min(evaluation_chunk(spec, environment), samples)
        phases.append(2 * chunk * _of_forward(spec, state, data) // 3)
    return max(phases)


@functools.lru_cache(maxsize=4096)
def _state(spec: Spec, shapes: tuple[jax.ShapeDtypeStruct, ...], structure: Any) -> PyTree:
    """The state of a lane, as shapes, with data of these shapes."""
    data = jax.tree.unflatten(structure, shapes)
    lanes = lanes_.stack([lanes_.complete(spec, {})])
    lane = {name: values[0] for name, values in lanes.items()}
    return jax.eval_shape(make_run(spec).init, lane, data)


def _of_backward(
    spec: Spec, state: PyTree, data: Data, count: int, training: bool, twice: bool = False
) -> int:
    """Bytes that reverse mode keeps of the loss on `count` examples, or of its gradient (twice)."""

    def backward(state: PyTree, data: Data) -> PyTree:
        environment = spec.make_environment()
        net = network(spec, environment, data)
        batch = environment.examples(data, _drawn(environment, data), jnp.arange(count))

        def loss(params: PyTree) -> Array:
            key = jax.random.key(0)
            logits, *_ = net.apply(params, state.variables, batch.x, training, key)
            return mean_loss(environment, logits, batch)

        return jax.vjp(jax.grad(loss) if twice else loss, state.params)[1]

    return _size(jax.eval_shape(backward, state, data))


def _of_forward(spec: Spec, state: PyTree, data: Data) -> int:
    """Bytes of one example with its logits and activations."""

    def forward(state: PyTree, data: Data) -> PyTree:
        environment = spec.make_environment()
        net = network(spec, environment, data)
        x = environment.examples(data, _drawn(environment, data), jnp.zeros(1, int)).x
        logits, hidden, _ = net.apply(state.params, state.variables, x, False)
        return x, logits, hidden

    return _size(jax.eval_shape(forward, state, data))


def _drawn(environment: Environment, data: Data) -> PyTree:
    """Some task."""
    return environment.task(jax.random.key(0), data, jnp.int32(0))


def _size(tree: PyTree) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def of_program(needs: Needs, count: int, how: placement.Execution, saves: bool) -> int:
    """Returns an estimate of the bytes that `count` lanes take on all devices together, without
    their data.

    `saves` is whether the run writes checkpoints. A CPU's devices share the host's memory, and all
    of it is counted; with a GPU or TPU only theirs is, of which a checkpoint takes one copy of the
    states.
    """
    lanes, together = placement.padded(count, how), how.width * how.devices
    total = BESIDES + lanes * needs.waiting + together * needs.running
    if how.strategy == "plain":
        # nothing is donated: the results one by one, then stacked
        total += lanes * 2 * needs.waiting
    elif lanes > together:
        # a loop writes its results beside what it reads, donated or not
        total += lanes * needs.changed
    if saves:
        # a copy of the states; on the host also its bytes joined, and up to half of them
        # compressed, on their way to disk
        halves = 5 if jax.default_backend() == "cpu" else 2
        total += lanes * needs.waiting * halves // 2
    return total


def check(programs: Sequence["Program"], data: Data, saves: bool = False) -> None:
    """Returns if every program fits into memory by the estimate, with its data on every device.

    `saves` is whether the run writes checkpoints. Raises MemoryError: one sentence with what is
    needed, what there is, and what would fit.
    """
    free = free_bytes()
    for program in programs:
        needs = of_lane(program.spec, data)
        count, how = len(program.lanes), program.execution
        taken = of_program(needs, count, how, saves)
        room = _room(free, how, data)
        if taken > room:
            raise MemoryError(
                f"{count} lanes of {program.spec.model}, {how.width * how.devices} at a time, need "
                f"about {_words(taken)}, but {_words(max(room, 0))} are free: "
                f"{_allowed(program, needs, free, data, saves)}."
            )


def check_together(programs: Sequence["Program"], data: Data, workers: int) -> None:
    """Returns if programs, each in a process of its own on this machine's cores, fit into memory
    while as many as there are `workers` run at a time: the largest by the estimate.

    Raises MemoryError, one sentence, also as `check` for one that would not fit alone.
    """
    check(programs, data, saves=True)
    taken = []
    for program in programs:
        needs = of_lane(program.spec, data)
        own = of_program(needs, len(program.lanes), program.execution, saves=True)
        taken.append(PROCESS + own + _size(data))
    taken = sorted(taken, reverse=True)[:workers]
    free = free_bytes()
    if sum(taken) > free:
        fit = max(1, bisect.bisect(list(itertools.accumulate(taken)), free))
        raise MemoryError(
            f"{len(taken)} slices at a time need about {_words(sum(taken))}, but {_words(free)} "
            f"are free: allowed is --workers={fit}."
        )


def _room(free: int, how: placement.Execution, data: Data) -> int:
    """The bytes that there are for lanes, beside the data's copy for each device, if a run may use
    `free`.
    """
    # the devices of a CPU share one memory, accelerators have one each
    memories = 1 if jax.default_backend() == "cpu" else how.devices
    return memories * free - how.devices * _size(data)


def _allowed(program: "Program", needs: Needs, free: int, data: Data, saves: bool) -> str:
    """What would fit instead of a program that does not, in words."""
    kind = placement.kind(program.spec)
    count, how = len(program.lanes), program.execution

    def fits(lanes: int, strategy: str, width: int | None) -> bool:
        # planned anew, as fewer lanes may use fewer devices
        other = placement.execution(kind, lanes, strategy, width)
        return of_program(needs, lanes, other, saves) <= _room(free, other, data)

    # (a width that nobody gave follows the lanes)
    width = None if how == placement.execution(kind, count, how.strategy) else how.width
    fewer = _most(count - 1, lambda lanes: fits(lanes, how.strategy, width))
    narrower = _most(how.width - 1, lambda narrow: fits(count, how.strategy, narrow))
    allowed = []
    if fewer:
        allowed.append(f"at most {fewer} {'lanes fit' if fewer > 1 else 'lane fits'}")
    if narrower:
        allowed.append(f"lane_width is {how.width}, at most {narrower} fits")
    elif fits(count, "map", None):
        allowed.append("all fit with lane_strategy=map")
    if needs.remembered:
        agent = program.spec.make_agent()

        def holds(replay: int) -> bool:
            less = needs.remembered - needs.remembered * replay // agent.replay
            smaller = needs._replace(waiting=needs.waiting - less, changed=needs.changed - less)
            return of_program(smaller, count, how, saves) <= _room(free, how, data)

        if (most := _most(agent.replay - 1, holds)) > agent.warmup:
            allowed.append(f"{agent.name}.replay is {agent.replay}, at most about {most} fits")
    return ", or ".join(allowed) or "a smaller model, batch or probe batch is allowed"


def _most(limit: int, fits: Callable[[int], bool]) -> int:
    """The largest number from 1 to `limit` that fits, 0 if none; what is smaller fits as well."""
    return bisect.bisect(range(1, limit + 1), False, key=lambda number: not fits(number))


def free_bytes() -> int:
    """Returns the bytes that a run may use: of an accelerator, or of this machine as far as control
    groups let it.
    """
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    if limit:
        return limit
    try:
        lines = (PROC / "meminfo").read_text(encoding="ascii").splitlines()
        available = next(line for line in lines if line.startswith("MemAvailable:"))
        free = 1024 * int(available.split()[1])
    except (OSError, StopIteration):
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(0, min([free, *_left_by_cgroups()]))


def _left_by_cgroups() -> Iterator[int]:
    """Bytes that each control group around this process still allows, of version 2 or 1; none
    without a limit.
    """
    try:
        memberships = (PROC / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for membership in memberships:
        _, controllers, path = membership.split(":", 2)
        if not controllers:
            files = _VERSION_2
        elif "memory" in controllers.split(","):
            files = _VERSION_1
        else:
            continue
        # a limit holds for all groups below it; seen from a container, the path may not exist, but
        # its top does
        top = CGROUPS / files.folder
        group = top / path.strip("/")
        above = group.parents[: len(group.parts) - len(top.parts)]
        for folder in (group, *above):
            with contextlib.suppress(OSError, ValueError):  # (no limit is the word "max")
                yield _left(folder, files)


class _Files(NamedTuple):
    """What the files of a control group are called, and the cached files in its statistics."""

    folder: str
    limit: str
    used: str
    cache: str


_VERSION_2 = _Files("", "memory.max", "memory.current", "inactive_file")
_VERSION_1 = _Files(
    "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
)


def _left(folder: Path, files: _Files) -> int:
    """Bytes that a control group allows. Raises OSError or ValueError if it says nothing of it."""
    left = int((folder / files.limit).read_text()) - int((folder / files.used).read_text())
    # what is used counts files that the kernel keeps while there is room, such as checkpoints just
    # written
    statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    return left + int(statistics.get(files.cache, 0))


def _words(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.1f} MiB"
