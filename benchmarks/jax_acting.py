"""An agent in Breakout of MinAtar, and what it takes to remember."""

import functools
from typing import Any

import numpy as np

from benchmarks import worker
from benchmarks.worker import Go


def training(count: int, steps: int, rows: int, depth: int = 2, width: int = 128) -> Go:
    """Phases of `steps` frames of `count` agents in one vmap, each with 4 games side by side, and
    an update on 32 remembered frames after each round of these. Work: frames of all agents.

    What a phase ends with counts: an evaluation of 400 frames.
    """
    import jax
    import jax.numpy as jnp

    from plasticity_jax import Spec, lanes, make_run
    from plasticity_jax.execution import placement

    worker.set_up_jax()
    options = {
        "dqn.replay": rows,
        "dqn.evaluate": 400,
        "dqn.double": False,
        "dqn.target_every": 250,
    }
    one = Spec(
        environment="minatar",
        depth=depth,
        width=width,
        norm="none",
        batch_size=32,
        phase_steps=steps,
        tasks=1000,
        probes=(),
        precision=worker.precision(),
        options=options,
    )
    given = [lanes.complete(one, {"seed": seed, "learning_rate": 3e-4}) for seed in range(count)]
    numbers, data = lanes.stack(given), jax.device_put(worker.data(64))
    run = make_run(one)
    init: Any = jax.vmap(run.init, (0, None))
    phase: Any = jax.vmap(run.run_task, (0, 0, None, None))
    if count == 1:  # (without a lane axis, as a sweep has it at width 1)
        numbers = {name: values[0] for name, values in numbers.items()}
        init, phase = run.init, run.run_task
    go = jax.jit(phase, donate_argnums=1, compiler_options=placement.options(one.model))
    step = lambda state, task: go(numbers, state, data, jnp.int32(task))  # noqa: E731
    return worker.tasks(
        jax.jit(init)(numbers, data), step, float(count * steps), jax.block_until_ready
    )


def remembering(steps: int, rows: int) -> Go:
    """What `training` does with its memory, alone: rounds of 4 frames are put into it, and 32 drawn
    from it after each. Work: frames.
    """
    import jax
    import jax.numpy as jnp

    from plasticity_jax.agents import replay

    worker.set_up_jax()
    shape, how = (4, 10, 10, 4), replay.Window(1, 0.99)
    ring = replay.empty(jnp.zeros(shape, bool), rows // 4)

    def one(ring: Any, clock: Any) -> tuple[Any, Any]:
        key = jax.random.fold_in(jax.random.key(0), clock)
        bits = jnp.broadcast_to(clock % 3 == 0, shape)
        numbers = jnp.arange(4) + clock
        none = jnp.zeros(4, bool)
        new = replay.Experience(bits, numbers % 3, numbers / 7, numbers % 50 == 0, none)
        ring = replay.push(ring, clock, new)
        drawn = replay.draw(ring, clock, key, 32, how)
        # (so that all of it is needed, at little cost)
        needed = [a.astype(jnp.int8) if a.dtype == bool else a for a in jax.tree.leaves(drawn)]
        return ring, [a.sum() for a in needed]

    @functools.partial(jax.jit, donate_argnums=0)
    def rounds(ring: Any, first: Any) -> Any:
        return jax.lax.scan(one, ring, first + jnp.arange(steps // 4))

    done = np.int32(0)

    def go():
        nonlocal ring, done
        ring, sums = rounds(ring, done)
        jax.block_until_ready(sums)
        done += np.int32(steps // 4)
        return float(steps)

    return go
