"""The rival of an agent in plain JAX: DQN on Breakout of MinAtar in one scan, as one writes it by
hand for one figure, without lanes, tables, methods, probes or checkpoints.
"""

import functools
from typing import Any, NamedTuple

from benchmarks import worker
from benchmarks.worker import Go

GAMES, BATCH, TARGET, GAMMA, EPSILON, STICKY = 4, 32, 250, 0.99, 0.05, 0.1
EXPLORED = 10_000  # frames over which chance falls


class _Memory(NamedTuple):
    """The last rows, [rows, games, ...]: row clock % rows; what came after is the next row."""

    seen: Any
    action: Any
    reward: Any
    ended: Any


class _State(NamedTuple):
    params: Any
    target: Any
    adam: Any
    memory: _Memory
    seen: Any
    game: Any
    action: Any


def training(steps: int, rows: int, depth: int = 2, width: int = 128) -> Go:
    """Plays for `steps` frames a call, 4 games side by side, learns from 32 remembered frames after
    each round of these, and plays 400 frames greedily at the end. Work: frames.

    That is what `jax_acting.training` does; what is only measured there is left out here.
    """
    worker.set_up_jax()  # (before gymnax, which makes arrays when it is imported)
    import gymnax
    import jax
    import jax.numpy as jnp
    import optax

    from plasticity_jax.execution import placement

    game, settings = gymnax.make("Breakout-MinAtar")
    sizes = [400, *depth * [width], game.num_actions]
    adam = optax.adam(3e-4)

    def beginning() -> _State:
        keys = jax.random.split(jax.random.key(0), len(sizes))
        params = []
        for key, before, after in zip(keys, sizes[:-1], sizes[1:], strict=False):
            most = before**-0.5
            of_weights, of_bias = jax.random.split(key)
            weights = jax.random.uniform(of_weights, (before, after), minval=-most, maxval=most)
            params.append(
                (weights, jax.random.uniform(of_bias, (after,), minval=-most, maxval=most))
            )
        seen, games = jax.vmap(game.reset, (0, None))(jax.random.split(keys[-1], GAMES), settings)
        count = (rows // GAMES, GAMES)
        kinds = (jnp.int32, jnp.float32, bool)
        images = jnp.zeros((*count, *seen.shape[1:]), bool)
        memory = _Memory(images, *(jnp.zeros(count, kind) for kind in kinds))
        none = jnp.zeros(GAMES, jnp.int32)
        target = jax.tree.map(jnp.copy, params)
        return _State(params, target, adam.init(params), memory, seen.astype(bool), games, none)

    def values(params: Any, seen: Any) -> Any:
        x = seen.reshape(len(seen), -1).astype(jnp.float32)
        for weights, bias in params[:-1]:
            x = jax.nn.relu(x @ weights + bias)
        return x @ params[-1][0] + params[-1][1]

    def played(params: Any, key: Any, seen: Any, games: Any, before: Any, epsilon: Any) -> Any:
        by_chance, which, again, own = jax.random.split(key, 4)
        drawn = jax.random.randint(which, (GAMES,), 0, game.num_actions)
        chance = jax.random.uniform(by_chance, (GAMES,)) < epsilon
        action = jnp.where(chance, drawn, values(params, seen).argmax(-1).astype(jnp.int32))
        sticks = jax.random.uniform(again, (GAMES,)) < STICKY
        taken = jnp.where(sticks, before, action)
        step = jax.vmap(game.step, (0, 0, 0, None))
        after, games, reward, ended, *_ = step(jax.random.split(own, GAMES), games, taken, settings)
        row = _Memory(seen, action, reward, ended)
        return after.astype(bool), games, jnp.where(ended, 0, taken), row

    def learned(state: _State, memory: _Memory, key: Any, clock: Any) -> tuple[Any, Any, Any]:
        of_age, which = jax.random.split(key)
        age = jax.random.randint(of_age, (BATCH,), 1, jnp.clip(clock + 1, 2, rows // GAMES))
        which = jax.random.randint(which, (BATCH,), 0, GAMES)
        row = (clock - age) % (rows // GAMES)
        after = memory.seen[(row + 1) % (rows // GAMES), which]
        seen, action, reward, ended = (each[row, which] for each in memory)
        best = values(state.target, after).max(-1)
        wanted = reward + GAMMA * (1 - ended.astype(jnp.float32)) * best

        taken = jnp.arange(game.num_actions) == action[:, None]

        def loss(params: Any) -> Any:
            now = jnp.where(taken, values(params, seen), 0.0).sum(1)
            return ((now - wanted) ** 2).mean()

        value, slope = jax.value_and_grad(loss)(state.params)
        change, moments = adam.update(slope, state.adam)
        return optax.apply_updates(state.params, change), moments, value

    def one(state: _State, clock: Any) -> tuple[_State, Any]:
        key = jax.random.fold_in(jax.random.key(1), clock)
        of_play, of_draw = jax.random.split(key)
        passed = jnp.minimum(clock * (GAMES / EXPLORED), 1.0)
        epsilon = 1.0 - (1.0 - EPSILON) * passed
        seen, games, action, row = played(
            state.params, of_play, state.seen, state.game, state.action, epsilon
        )
        put = functools.partial(jax.lax.dynamic_update_index_in_dim, axis=0)
        place = clock % (rows // GAMES)
        memory = jax.tree.map(lambda ring, new: put(ring, new, place), state.memory, row)
        params, moments, loss = jax.lax.cond(
            clock >= 25,
            lambda: learned(state, memory, of_draw, clock),
            lambda: (state.params, state.adam, jnp.float32(0)),
        )
        renew = clock % TARGET == 0
        target = jax.tree.map(lambda new, old: jnp.where(renew, new, old), params, state.target)
        told = (row.reward.mean(), row.ended.sum(), loss)
        return _State(params, target, moments, memory, seen, games, action), told

    def phase(state: _State, first: Any) -> tuple[_State, Any]:
        state, told = jax.lax.scan(one, state, first + jnp.arange(steps // GAMES))

        def greedy(carry: tuple[Any, Any, Any], number: Any) -> tuple[Any, Any]:
            key = jax.random.fold_in(jax.random.key(2), number)
            seen, games, action, row = played(state.params, key, *carry, jnp.float32(0))
            return (seen, games, action), row.reward.mean()

        carry = (state.seen, state.game, state.action)
        _, scored = jax.lax.scan(greedy, carry, jnp.arange(400 // GAMES))
        return state, [each.mean() for each in (*told, scored)]

    go = jax.jit(phase, donate_argnums=0, compiler_options=placement.options("mlp"))
    step = lambda state, number: go(state, jnp.int32(number * (steps // GAMES)))  # noqa: E731
    return worker.tasks(jax.jit(beginning)(), step, float(steps), jax.block_until_ready)
