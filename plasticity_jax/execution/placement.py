"""How a lane axis is executed: strategies, widths, devices and XLA's options by model."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from plasticity_jax import registry
from plasticity_jax.spec import Spec
from plasticity_jax.types import PyTree

ONCE = {"xla_backend_optimization_level": 1}

ANY = ""  # a model that stands in no table

# XLA's options by (backend, model), or of every model of a backend. On a CPU it gives products,
# sums and convolutions to a library, YNNPACK, whose sums over short rows (norms, softmax) are
# slower than XLA's own loops and whose sums over images are faster. Without sums and what it fuses
# with products, time on one core over that with: MLP at batch 64 0.95, at 256 0.94; T5 0.96; CNN
# 1.25, ResNet-18 1.75.
_PRODUCTS = ",".join(f"LIBRARY_FUSION_TYPE_INDIVIDUAL_{what}" for what in ("DOT", "CONVOLUTION"))
OPTIONS_TABLE = {
    ("cpu", "mlp"): {"xla_cpu_experimental_ynn_fusion_type": _PRODUCTS},
    ("cpu", "t5"): {"xla_cpu_experimental_ynn_fusion_type": _PRODUCTS},
    # On a GPU, products by cuBLAS: of its own (Triton's) XLA could not compile those of ResNet-18,
    # a failed check that ends the process, and tried some of T5's for two minutes (jaxlib 0.11.2,
    # H100). Those of the other two it makes well: the MLP takes 0.70 of the time alone, 0.95 with
    # 64 lanes.
    ("gpu", "mlp"): {},
    ("gpu", "cnn"): {},
    ("gpu", ANY): {"xla_gpu_enable_triton_gemm": False},
}


class Execution(NamedTuple):
    """How the lane axis of a program is run.

    Attributes:
      strategy: "plain" (one call a lane), "vmap" (chunks of `width` lanes vmapped, one chunk after
        another), "map" (one lane after another inside one program), "sharded" (lanes spread over
        the devices, chunks of `width` on each).
      width: lanes vmapped together; 1 means no vmap at all. Decides a lane's bits.
      devices: number of devices; does not touch a lane's bits at width 1.
    """

    strategy: str
    width: int
    devices: int


STRATEGIES = ("plain", "vmap", "map", "sharded")

# (backend, model) -> (strategy, width). On CPUs as measured on two cores by `python -m benchmarks
# strategies`; behind a row the time with two lanes vmapped on each device, and with all lanes on
# one device one at a time, over that of the row. Kernels of several lanes make a grouped
# convolution: all four lanes in one vmap took 2.3 to 2.8 x. On GPUs as measured on an H100: behind
# a row its lane-steps per second over those of lanes one at a time. On TPUs, and for ViT and
# game_cnn, guesses.
STRATEGY_TABLE = {
    ("cpu", "mlp"): ("sharded", 1),  # 1.28, 1.86
    # one example a step: a step is mostly what it costs to begin one
    ("cpu", "mlp online"): ("sharded", 32),
    ("cpu", "cnn"): ("sharded", 1),  # 1.27, 1.43
    ("cpu", "resnet18"): ("sharded", 1),  # 1.78, 1.38
    ("cpu", "t5"): ("sharded", 1),  # 1.04, 1.03
    ("cpu", "vit"): ("sharded", 1),
    ("cpu", "game_cnn"): ("sharded", 1),
    ("gpu", "mlp"): ("sharded", 256),  # 10.6; 64 lanes 8.8, 1,024 lanes 10.9
    ("gpu", "cnn"): ("sharded", 16),  # 1.79; 4 lanes 1.44, 64 lanes 1.94
    ("gpu", "resnet18"): ("sharded", 1),  # 4 lanes 0.79, 16 lanes 0.85
    ("gpu", "t5"): ("sharded", 16),  # 1.22; 4 lanes 1.12
    ("gpu", "vit"): ("sharded", 8),
    ("gpu", "game_cnn"): ("sharded", 16),
    ("tpu", "mlp"): ("sharded", 64),
    ("tpu", "cnn"): ("sharded", 1),
    ("tpu", "resnet18"): ("sharded", 1),
    ("tpu", "t5"): ("sharded", 8),
    ("tpu", "vit"): ("sharded", 8),
    ("tpu", "game_cnn"): ("sharded", 1),
}
# a model without a row, such as one of one's own, uses all devices, and no vmap that may be slower
# than none; a line in the table says otherwise
WITHOUT_ROW = ("sharded", 1)


def kind(spec: Spec) -> str:
    """Returns the row of the table of strategies: the model, and whether it sees one example a
    step.
    """
    return "mlp online" if spec.model == "mlp" and spec.batch_size == 1 else spec.model


def execution(
    model: str,
    lanes: int,
    strategy: str | None = None,
    width: int | None = None,
    backend: str | None = None,
    devices: int | None = None,
) -> Execution:
    """Returns how `lanes` lanes of `model` are run: the table's default for the backend, or what is
    asked for.

    `backend` and `devices`, how many there are, are those of this process if not given. A width
    that is not given is no larger than a device's share of the lanes. Raises ValueError for an
    unknown strategy, a width < 1, or a width > 1 with a strategy that has width 1.
    """
    backend = jax.default_backend() if backend is None else backend
    chosen, usual = STRATEGY_TABLE.get((backend, model), WITHOUT_ROW)
    if strategy is not None and registry.one_of("lane_strategy", strategy, STRATEGIES) != chosen:
        chosen, usual = strategy, 8 if strategy == "vmap" else 1
    if chosen != "sharded":
        devices = 1
    elif devices is None:
        devices = jax.local_device_count()
    width = (
        min(usual, -(-lanes // devices))
        if width is None
        else registry.whole("lane_width", width, 0)
    )
    if width < 1 or (width > 1 and chosen in ("plain", "map")):
        allowed = "1" if chosen in ("plain", "map") else "1 or more"
        raise ValueError(f"lane_width is {width}: allowed with {chosen} is {allowed}.")
    # more devices than chunks would only compute padding
    devices = min(devices, -(-lanes // width))
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
    """Returns the shardings of lane arrays (split along the lane axis) and of shared ones (a copy
    on each device).
    """
    mesh = Mesh(np.asarray(jax.local_devices()[: how.devices]), ("lane",))
    return Placement(
        NamedSharding(mesh, PartitionSpec("lane")), NamedSharding(mesh, PartitionSpec())
    )


def over_lanes(
    function: Callable[..., PyTree],
    how: Execution,
    split: int,
    options: dict[str, Any] | None = None,
) -> Callable[..., PyTree]:
    """Returns `function` for all lanes at once.

    Its first `split` arguments and its result get a leading lane axis, the other arguments are
    shared. The number of lanes must be as `padded` says. For "plain" the result is a Python loop
    over the function, jitted with `options`; for the others it is a function to jit.
    """
    if how.strategy == "plain":
        return _one_by_one(jax.jit(function, compiler_options=options), split)
    chunks = functools.partial(_chunks, function, how.width)
    if how.strategy == "sharded":
        spread, copied = PartitionSpec("lane"), PartitionSpec()
        mesh = placement(how).lanes.mesh
        chunks = jax.shard_map(
            chunks, mesh=mesh, in_specs=(spread, copied), out_specs=spread, check_vma=False
        )
    return lambda *arguments: chunks(arguments[:split], arguments[split:])


def _one_by_one(function: Callable[..., PyTree], split: int) -> Callable[..., PyTree]:
    """A call for each lane."""

    def loop(*arguments: PyTree) -> PyTree:
        own, shared = arguments[:split], arguments[split:]
        results = []
        with jax.transfer_guard("allow"):  # the lane's index comes from the host
            for number in range(len(jax.tree.leaves(own)[0])):
                lane = jax.tree.map(lambda a, number=number: a[number], own)
                results.append(function(*lane, *shared))
            return jax.tree.map(lambda *parts: jnp.stack(parts), *results)

    return loop


def _chunks(
    function: Callable[..., PyTree],
    width: int,
    own: tuple[PyTree, ...],
    shared: tuple[PyTree, ...],
) -> PyTree:
    """`width` lanes at a time."""

    def one(lane: tuple[PyTree, ...]) -> PyTree:
        return function(*lane, *shared)

    if width == 1:  # a vmap of one lane would be slower than none
        return jax.lax.map(one, own)
    together = jax.tree.map(lambda a: a.reshape(-1, width, *a.shape[1:]), own)
    results = jax.lax.map(jax.vmap(one), together)
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), results)


def jit_once(function: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """Returns `jax.jit(function)` for a program that runs once, such as the one that draws initial
    parameters.

    On a CPU it is optimized less and so compiled in about half the time. Draws keep their bits;
    sums, such as those of a method's power iterations, would not.
    """
    return jax.jit(function, compiler_options=ONCE if jax.default_backend() == "cpu" else None)


def options(model: str) -> dict[str, Any] | None:
    """Returns the options with which programs that train `model` are compiled on this backend;
    None: XLA's own.
    """
    backend = jax.default_backend()
    found = OPTIONS_TABLE.get((backend, model), OPTIONS_TABLE.get((backend, ANY), {}))
    return found if found and _known(*found.items()) else None


@functools.cache
def _known(*options: tuple[str, Any]) -> bool:
    """Whether this version of XLA knows these options."""
    try:
        jax.jit(lambda: 0, compiler_options=dict(options)).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
