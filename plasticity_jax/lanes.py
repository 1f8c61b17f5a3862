"""Lanes: the traced numbers of runs, grids of them, and how a lane axis is executed.

A lane's floating-point bits depend on how many lanes are vmapped together, and on nothing else about its company: not
on order, padding, neighbours or number of lanes. So the width is a recorded constant of a run. At width 1 they do not
depend on the number of devices either; at larger widths XLA may fuse differently, so there it is recorded too.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from plasticity_jax import registry, stream, transitions
from plasticity_jax.spec import Spec
from plasticity_jax.types import PyTree

DEFAULTS = {"seed": 0, "granularity": 1, "learning_rate": 1e-3, "transition_fraction": 2 / 3}
WHOLE = ("seed", "granularity")
ONCE = {"xla_backend_optimization_level": 1}

# XLA's options by (backend, model). On a CPU it gives products, sums and convolutions to a library, YNNPACK, whose sums over
# short rows (norms, softmax) are slower than XLA's own loops and whose sums over images are faster. Without sums and what it
# fuses with products, time on one core over that with: MLP at batch 64 0.95, at 256 0.94; T5 0.96; CNN 1.25, ResNet-18 1.75.
_PRODUCTS = ",".join(f"LIBRARY_FUSION_TYPE_INDIVIDUAL_{what}" for what in ("DOT", "CONVOLUTION"))
OPTIONS_TABLE = {
    ("cpu", "mlp"): {"xla_cpu_experimental_ynn_fusion_type": _PRODUCTS},
    ("cpu", "t5"): {"xla_cpu_experimental_ynn_fusion_type": _PRODUCTS},
}
LARGEST = float(np.finfo(np.float32).max)


def grid(**axes: Any) -> list[dict[str, Any]]:
    """Returns the lanes of a grid: the product of the axes, each a number or an iterable of numbers; the last runs fastest.

    Names are `seed`, `granularity`, `learning_rate`, `transition_fraction` and `<part>.<number>`, the latter as
    `**{"l2.strength": [1e-3, 1e-4]}`. What is not named takes its default when the lanes are run.
    """
    values = [list(v) if isinstance(v, Iterable) else [v] for v in axes.values()]
    return [dict(zip(axes, point, strict=True)) for point in itertools.product(*values)]


def defaults(spec: Spec) -> dict[str, Any]:
    """Returns every number that a lane of `spec` has, with its default."""
    return {**DEFAULTS, **spec.known_numbers()}


def complete(spec: Spec, lane: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `lane` with the defaults filled in. Raises ValueError for a number that the Spec's parts do not have."""
    known = defaults(spec)
    for name in lane:
        if name not in known:
            raise ValueError(f"number {name!r} fits no part of this run: known are {', '.join(known)}.")
    return {name: int(v) if name in WHOLE else float(v) for name, v in {**known, **lane}.items()}


def check(spec: Spec, lanes: Sequence[Mapping[str, Any]], samples: int) -> list[dict[str, Any]]:
    """Returns the lanes completed, after checking them against the Spec and the number of training examples.

    Raises ValueError: one sentence with the value given and what is allowed.
    """
    if not lanes:
        raise ValueError("there are no lanes: give at least one, e.g. grid(seed=range(5)).")
    if spec.batch_size > samples:
        raise ValueError(f"batch_size is {spec.batch_size}: allowed is at most the number of samples, {samples}.")
    steps = stream.steps_per_epoch(samples, spec.batch_size) * spec.epochs
    if steps >= 2**31:
        raise ValueError(f"a task has {steps} steps: allowed are fewer than {2**31}.")
    for lane in lanes:
        for name in WHOLE:
            if name in lane and not (math.isfinite(lane[name]) and lane[name] == int(lane[name])):
                raise ValueError(f"{name} is {lane[name]}: allowed are whole numbers.")
    completed, parts = [complete(spec, lane) for lane in lanes], spec.parts()
    if len({tuple(lane.items()) for lane in completed}) < len(completed):
        raise ValueError("a lane is given twice: allowed are lanes that differ in a number, e.g. in their seed.")
    for lane in completed:
        for name, value in lane.items():
            if not abs(value) <= LARGEST:
                raise ValueError(f"{name} is {value}: allowed are finite numbers.")
        _within("seed", lane["seed"], 0, 2**31 - 1)
        _within("granularity", lane["granularity"], 1, None)
        _within("learning_rate", lane["learning_rate"], 0, None)
        _within("transition_fraction", lane["transition_fraction"], 0, 1)
        for part, factory in parts.items():
            for number, high in registry.largest(factory).items():
                _within(f"{part}.{number}", lane[f"{part}.{number}"], 0, high)
        length = int(transitions.transition_steps(np.float32(lane["transition_fraction"]), steps))
        if lane["granularity"] > 1 and length < lane["granularity"]:
            raise ValueError(
                f"granularity is {lane['granularity']}, but the transition has {length} steps "
                f"({lane['transition_fraction']:g} of {steps}): allowed are as many plateaus as steps."
            )
        if lane["granularity"] * max(length, 1) >= 2**32:
            raise ValueError(
                f"granularity is {lane['granularity']}: allowed is at most {(2**32 - 1) // length} for {length} steps."
            )
    return completed


def _within(name: str, value: float, low: float, high: float | None) -> None:
    if value < low or (high is not None and value > high):
        raise ValueError(
            f"{name} is {value}: allowed is {f'{low} to {high}' if high is not None else f'{low} or more'}."
        )


def stack(lanes: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Returns lanes with the same names as arrays with a leading lane axis, int32 for seed and granularity, else float32."""
    return {k: np.asarray([lane[k] for lane in lanes], np.int32 if k in WHOLE else np.float32) for k in lanes[0]}


class Execution(NamedTuple):
    """How the lane axis of a program is run.

    Attributes:
      strategy: "plain" (one call a lane), "vmap" (chunks of `width` lanes vmapped, one chunk after another), "map" (one
        lane after another inside one program), "sharded" (lanes spread over the devices, chunks of `width` on each).
      width: lanes vmapped together; 1 means no vmap at all. Decides a lane's bits.
      devices: number of devices; does not touch a lane's bits at width 1.
    """

    strategy: str
    width: int
    devices: int


STRATEGIES = ("plain", "vmap", "map", "sharded")

# (backend, model) -> (strategy, width). On CPUs as measured on two cores by `python -m benchmarks strategies`; behind a row
# the time with two lanes vmapped on each device, and with all lanes on one device one at a time, over that of the row.
# Kernels of several lanes make a grouped convolution: all four lanes in one vmap took 2.3 to 2.8 x. Elsewhere guesses.
STRATEGY_TABLE = {
    ("cpu", "mlp"): ("sharded", 1),  # 1.28, 1.86
    ("cpu", "cnn"): ("sharded", 1),  # 1.27, 1.43
    ("cpu", "resnet18"): ("sharded", 1),  # 1.78, 1.38
    ("cpu", "t5"): ("sharded", 1),  # 1.04, 1.03
    ("gpu", "mlp"): ("sharded", 64),
    ("gpu", "cnn"): ("sharded", 1),
    ("gpu", "resnet18"): ("sharded", 1),
    ("gpu", "t5"): ("sharded", 8),
    ("tpu", "mlp"): ("sharded", 64),
    ("tpu", "cnn"): ("sharded", 1),
    ("tpu", "resnet18"): ("sharded", 1),
    ("tpu", "t5"): ("sharded", 8),
}


def execution(
    model: str, lanes: int, strategy: str | None = None, width: int | None = None, backend: str | None = None
) -> Execution:
    """Returns how `lanes` lanes of `model` are run: the table's default for the backend, or what is asked for.

    A width that is not given is no larger than a device's share of the lanes. Raises ValueError for an unknown strategy,
    a width < 1, or a width > 1 with a strategy that has width 1.
    """
    chosen, usual = STRATEGY_TABLE.get((backend or jax.default_backend(), model), ("map", 1))
    if strategy is not None and strategy != chosen:
        chosen, usual = registry.one_of("lane_strategy", strategy, STRATEGIES), 8 if strategy == "vmap" else 1
    devices = jax.local_device_count() if chosen == "sharded" else 1
    width = min(usual, -(-lanes // devices)) if width is None else width
    if width < 1 or (width > 1 and chosen in ("plain", "map")):
        allowed = "1" if chosen in ("plain", "map") else "1 or more"
        raise ValueError(f"lane_width is {width}: allowed with {chosen} is {allowed}.")
    devices = min(devices, -(-lanes // width))  # more devices than chunks would only compute padding
    return Execution(chosen, width, devices)


def padded(lanes: int, how: Execution) -> int:
    """Returns the number of lanes that run: the next multiple of width times devices."""
    block = how.width * how.devices
    return -(-lanes // block) * block


class Placement(NamedTuple):
    """Where lane arrays and shared arrays live on the devices of an Execution."""

    lanes: Any
    shared: Any


def placement(how: Execution) -> Placement:
    """Returns the shardings of lane arrays (split along the lane axis) and of shared ones (a copy on each device)."""
    mesh = Mesh(np.asarray(jax.local_devices()[: how.devices]), ("lane",))
    return Placement(NamedSharding(mesh, PartitionSpec("lane")), NamedSharding(mesh, PartitionSpec()))


def over_lanes(
    function: Callable[..., PyTree], how: Execution, split: int, options: dict[str, Any] | None = None
) -> Callable[..., PyTree]:
    """Returns `function` for all lanes at once.

    Its first `split` arguments and its result get a leading lane axis, the other arguments are shared. The number of
    lanes must be as `padded` says. For "plain" the result is a Python loop over the function, jitted with `options`; for
    the others it is a function to jit.
    """
    if how.strategy == "plain":
        one = jax.jit(function, compiler_options=options)

        def loop(*arguments):
            own, shared = arguments[:split], arguments[split:]
            count = len(jax.tree.leaves(own)[0])
            with jax.transfer_guard("allow"):  # the lane's index comes from the host
                results = [one(*jax.tree.map(lambda a, i=i: a[i], own), *shared) for i in range(count)]
                return jax.tree.map(lambda *parts: jnp.stack(parts), *results)

        return loop

    def chunks(own, shared):
        if how.width == 1:  # a vmap of one lane would be slower than none
            return jax.lax.map(lambda lane: function(*lane, *shared), own)
        together = jax.tree.map(lambda a: a.reshape(-1, how.width, *a.shape[1:]), own)
        vmapped = jax.vmap(lambda lane: function(*lane, *shared))
        return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), jax.lax.map(vmapped, together))

    if how.strategy == "sharded":
        spread, copied = PartitionSpec("lane"), PartitionSpec()
        mesh = placement(how).lanes.mesh
        chunks = jax.shard_map(chunks, mesh=mesh, in_specs=(spread, copied), out_specs=spread, check_vma=False)
    return lambda *arguments: chunks(arguments[:split], arguments[split:])


def jit_once(function: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """Returns `jax.jit(function)` for a program that runs once, such as the one that draws initial parameters.

    On a CPU it is optimised less and so compiled in about half the time. Draws keep their bits; sums, such as those of a
    method's power iterations, would not.
    """
    return jax.jit(function, compiler_options=ONCE if jax.default_backend() == "cpu" else None)


def options(model: str) -> dict[str, Any] | None:
    """Returns the options with which programs that train `model` are compiled on this backend; None: XLA's own."""
    found = OPTIONS_TABLE.get((jax.default_backend(), model), {})
    return found if found and _known(*found.items()) else None


@functools.cache
def _known(*options: tuple[str, Any]) -> bool:
    """Whether this version of XLA knows these options."""
    try:
        jax.jit(lambda: 0, compiler_options=dict(options)).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
