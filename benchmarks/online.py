"""Bit flipping at one example a step: runs through the whole library, and a scan of plain JAX."""

import tempfile
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from benchmarks import worker
from benchmarks.worker import BITS, RATE, Go
from plasticity_jax.types import Array, Key

FLIPPING, HIDDEN = 15, 100  # inputs that stand still in a task, units of the target


def settings(width: int, method: str, samples: int, tasks: int) -> dict[str, Any]:
    """Returns what a Spec of these runs has."""
    return {
        "environment": "bit_flip",
        "model": "mlp",
        "depth": 1,
        "width": width,
        "norm": "none",
        "optimizer": "sgd",
        "method": method,
        "samples": samples,
        "tasks": tasks,
        "batch_size": 1,
        "epochs": 1,
        "probes": (),
    }


def run(
    cache_dir: str, width: int, lanes: int, samples: int, tasks: int, method: str = "none"
) -> Go:
    """A whole run with metrics, a table and a checkpoint every ten tasks, as a user starts it.
    Work: 1 each.

    It is traced anew and finds its program in the persistent cache, which the first call fills.
    """
    import plasticity_jax

    worker.set_up_jax(cache_dir)
    grid = plasticity_jax.grid(seed=range(lanes), learning_rate=RATE)
    spec = plasticity_jax.Spec(**settings(width, method, samples, tasks))

    def go():
        with tempfile.TemporaryDirectory(dir=cache_dir) as folder:
            plasticity_jax.run(spec, grid, folder, checkpoint_every=10)
        return 1.0

    return go


def compilation(width: int, lanes: int, samples: int) -> Go:
    """Compiles the program of a task, without any cache. Work: 1 each."""
    import plasticity_jax
    from plasticity_jax.execution import compiled as compiled_
    from plasticity_jax.execution import program as program_

    worker.set_up_jax()
    spec = plasticity_jax.Spec(**settings(width, "none", samples, 1))
    grid = plasticity_jax.grid(seed=range(lanes), learning_rate=RATE)
    program = program_.plan([(spec, grid)], samples)[0]
    data = program_.device_data(program_.load_dataset(spec, None, False))

    def go():
        jax.clear_caches()
        compiled = compiled_.compile_program(program, data)
        compiled.executable(compiled.init())
        return 1.0

    return go


class Learner(NamedTuple):
    """Weights of one hidden layer: incoming [bits + 1, width], [width]; outgoing [width], []."""

    into: Array
    into_bias: Array
    out: Array
    out_bias: Array


def scan(width: int, lanes: int, samples: int) -> Go:
    """Lanes in one vmap of a scan over steps, in plain JAX: a task is drawn, learned, and its mean
    loss told. Work: lane-steps.
    """
    worker.set_up_jax()
    keys = jax.random.split(jax.random.key(0), lanes)
    task = jax.jit(jax.vmap(_task, (0, 0, None, None)), static_argnums=3, donate_argnums=1)
    states, number = jax.jit(jax.vmap(lambda key: _begun(key, width)))(keys), 0

    def go():
        nonlocal states, number
        states, loss = task(keys, states, number, samples)
        loss.block_until_ready()
        number += 1
        return float(lanes * samples)

    return go


def _begun(key: Key, width: int) -> tuple[Learner, Array]:
    first, second = jax.random.split(key)
    bound = (6 / (BITS + 1)) ** 0.5
    into = jax.random.uniform(first, (BITS + 1, width), minval=-bound, maxval=bound)
    out = jax.random.normal(second, (width,)) * width**-0.5
    still = jnp.zeros(FLIPPING)
    return Learner(into, jnp.zeros(width), out, jnp.zeros(())), still


def _task(
    key: Key, state: tuple[Learner, Array], number: Array, samples: int
) -> tuple[tuple[Learner, Array], Array]:
    learner, still = state
    ours = jax.random.fold_in(key, number)
    place = jax.random.randint(ours, (), 0, FLIPPING)
    still = still.at[place].set(1 - still[place])
    drawn = jax.random.bernoulli(jax.random.fold_in(ours, 1), shape=(samples, BITS - FLIPPING))
    parts = [jnp.broadcast_to(still, (samples, FLIPPING)), drawn, jnp.ones((samples, 1))]
    x = jnp.concatenate(parts, axis=1)
    y = _target(key, x)

    def loss_of(learner: Learner, x: Array, y: Array) -> Array:
        hidden = jax.nn.relu(x @ learner.into + learner.into_bias)
        return (hidden @ learner.out + learner.out_bias - y) ** 2

    def step(learner: Learner, example: tuple[Array, Array]) -> tuple[Learner, Array]:
        loss, gradient = jax.value_and_grad(loss_of)(learner, *example)
        return jax.tree.map(lambda p, g: p - RATE * g, learner, gradient), loss

    learner, losses = jax.lax.scan(step, learner, (x, y))
    return (learner, still), losses.mean()


def _target(key: Key, x: Array) -> Array:
    """What the fixed network of threshold units makes of inputs [samples, bits + 1]."""
    first, second, third = jax.random.split(jax.random.fold_in(key, 2**31), 3)
    weights = jax.random.rademacher(first, (BITS + 1, HIDDEN), jnp.float32)
    negative = (weights[:BITS] < 0).sum(0) - 0.5 * weights[BITS]
    edge = 0.7 * (BITS + 1) - negative
    active = (x @ weights > edge[None]).astype(jnp.float32)
    out = jax.random.rademacher(second, (HIDDEN,), jnp.float32)
    return active @ out + jax.random.rademacher(third, (), jnp.float32)
