"""An agent in Breakout of MinAtar, and what it takes to remember."""

import functools
import itertools
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
    from plasticity_jax.environments.minatar import packed, unpacked
    from plasticity_jax.models.cpu import draws

    worker.set_up_jax()
    how = replay.Window(1, 0.99)
    ring = replay.empty(jax.vmap(packed)(jnp.zeros((4, 10, 10, 4), bool)), rows // 4)

    def one(ring: Any, clock: Any) -> tuple[Any, Any]:
        key = draws.as_usual(jax.random.fold_in(jax.random.key(0), clock))
        bits = jax.vmap(packed)(jnp.broadcast_to(clock % 3 == 0, (4, 10, 10, 4)))
        numbers = jnp.arange(4) + clock
        none = jnp.zeros(4, bool)
        new = replay.Experience(bits, numbers % 3, numbers / 7, numbers % 50 == 0, none)
        ring = replay.push(ring, clock, new)
        drawn = replay.draw(ring, clock, key, 32, how)
        seen, after = (unpacked(each, 4) for each in (drawn.seen, drawn.after))
        drawn = drawn._replace(seen=seen, after=after)
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


def products(steps: int, depth: int = 2, width: int = 128) -> Go:
    """The matrix products of `training` alone, without double targets: an action in 4 games, then a
    minibatch of 32 through the network, backwards, and through the target network. Work: frames.
    """
    import jax
    import jax.numpy as jnp

    worker.set_up_jax()
    sizes = [400, *depth * [width], 3]
    weights = [jnp.ones(shape) / shape[0] for shape in itertools.pairwise(sizes)]
    seen = jnp.ones((16, 32, sizes[0]))

    def forward(x: Any) -> list[Any]:
        layers = [x]
        for one in weights:
            layers.append(layers[-1] @ one)
        return layers

    def backward(layers: list[Any]) -> list[Any]:
        back, found = layers[-1], []
        for number in reversed(range(len(weights))):
            found.append(layers[number].T @ back)
            if number:
                back = back @ weights[number].T
        return found

    def one(total: Any, number: Any) -> tuple[Any, None]:
        x = seen[number % len(seen)] + total
        made = [forward(x[:4])[-1], *backward(forward(x)), forward(x[::-1])[-1]]
        # (all of each product is needed, and one number of it is read)
        return 1e-20 * sum(a[0, 0] for a in jax.lax.optimization_barrier(made)), None

    rounds = jax.jit(lambda total: jax.lax.scan(one, total, jnp.arange(steps // 4))[0])
    return _again(rounds, np.float32(0), steps)


def numbers(steps: int) -> Go:
    """The random numbers with which `remembering` draws, alone. Work: frames."""
    import jax
    import jax.numpy as jnp

    from plasticity_jax.models.cpu import draws

    worker.set_up_jax()

    def one(total: Any, number: Any) -> tuple[Any, None]:
        key = draws.as_usual(jax.random.fold_in(jax.random.key(0), number))
        age, place = jax.random.split(key)
        of_age = jax.random.randint(age, (32,), 1, number + 2)
        return total + of_age.sum() + jax.random.randint(place, (32,), 0, 4).sum(), None

    rounds = jax.jit(lambda total: jax.lax.scan(one, total, jnp.arange(steps // 4))[0])
    return _again(rounds, np.int32(0), steps)


def _again(rounds: Any, total: Any, steps: int) -> Go:
    """Calls `rounds` on what it gave before."""

    def go():
        nonlocal total
        total = rounds(total)
        total.block_until_ready()
        return float(steps)

    return go
