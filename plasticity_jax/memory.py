"""How much memory a run takes, estimated before it starts."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from plasticity_jax import lanes as lanes_
from plasticity_jax import registry
from plasticity_jax.environments import ENVIRONMENTS
from plasticity_jax.probes import CURVATURE
from plasticity_jax.spec import Spec
from plasticity_jax.train import evaluation_chunk, make_run, mean_loss, network
from plasticity_jax.types import Data, PyTree

if TYPE_CHECKING:
    from plasticity_jax.sweep import Program


class Needs(NamedTuple):
    """Bytes that a lane needs.

    Attributes:
      waiting: its state, also while other lanes run.
      running: what it needs besides while it runs.
    """

    waiting: int
    running: int


def of_lane(spec: Spec, data: Data) -> Needs:
    """Returns an estimate of what a lane needs, good to about a factor of two against what XLA reports.

    Counted from shapes: the state, six vectors as long as the parameters (gradient, update, Lanczos), and the largest of
    what the backward pass of a minibatch keeps, what that of the probe batch keeps (of its gradient, for curvature) and two
    thirds of a chunk's activations in evaluation.
    """
    run = make_run(spec)
    environment = registry.make(ENVIRONMENTS, "environment", spec.environment, dict(spec.options))
    lane = {k: v[0] for k, v in lanes_.stack([lanes_.complete(spec, {})]).items()}
    state = jax.eval_shape(run.init, lane, data)

    def kept(count: int, training: bool, order: int) -> int:
        """Bytes that reverse mode keeps of the loss (order 1) or of its gradient (order 2) on `count` examples."""

        def backward(state, data):
            net = network(spec, environment, data)
            batch = environment.examples(data, environment.task(jax.random.key(0), data), jnp.arange(count))

            def loss(params):
                return mean_loss(environment, net.apply(params, state.variables, batch.x, training)[0], batch)

            return jax.vjp(loss if order == 1 else jax.grad(loss), state.params)[1]

        return _size(jax.eval_shape(backward, state, data))

    def activations(state, data):
        x = environment.examples(data, environment.task(jax.random.key(0), data), jnp.zeros(1, int)).x
        return x, network(spec, environment, data).apply(state.params, state.variables, x, False)[:2]

    samples = len(data.x)
    phases = [kept(spec.batch_size, True, 1)]
    if spec.probes:
        order = 2 if CURVATURE & set(spec.probes) else 1
        phases.append(kept(min(spec.probe_samples, samples), False, order))
    chunk = min(evaluation_chunk(spec, environment), samples)
    phases.append(2 * chunk * _size(jax.eval_shape(activations, state, data)) // 3)
    return Needs(_size(state), 6 * _size(state.params) + max(phases))


def _size(tree: PyTree) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def check(programs: Sequence["Program"], data: Data) -> None:
    """Returns if every program fits into memory by the estimate, with its data on every device.

    Raises MemoryError: one sentence with what is needed, what there is, and what would fit.
    """
    for program in programs:
        spec, how = program.spec, program.execution
        waiting, running = of_lane(spec, data)
        # the devices of a CPU share one memory, accelerators have one each; each of either holds a copy of the data
        free = free_bytes() * (1 if jax.default_backend() == "cpu" else how.devices) - how.devices * _size(data)
        together = how.width * how.devices
        lanes = lanes_.padded(len(program.lanes), how)
        if lanes * waiting + together * running <= free:
            continue
        fit = max(0, (free - together * running) // max(waiting, 1)) // together * together
        width = free // (how.devices * max(waiting + running, 1))
        if fit:
            allowed = f"at most {fit} lanes fit"
        elif 0 < width < how.width:
            allowed = f"lane_width is {how.width}, at most {width} fits"
        else:
            allowed = "a smaller model, batch or probe batch is allowed"
        raise MemoryError(
            f"{lanes} lanes of {spec.model}, {together} at a time, need about "
            f"{_words(lanes * waiting + together * running)}, but {_words(max(free, 0))} are free: {allowed}."
        )


def free_bytes() -> int:
    """Returns the bytes that a run may use: of the accelerator, or of this machine."""
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    if limit:
        return limit
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            return next(1024 * int(line.split()[1]) for line in file if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _words(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.1f} MiB"
