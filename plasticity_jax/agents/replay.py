"""What an agent remembers: the last steps of its world, in a ring.

Row clock % rows is of the step `clock`; what was seen next stands in the next row. The clock is no
part of it, so that it stays the same for all lanes.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from plasticity_jax.types import Array, Key, Number, PyTree


class Experience(NamedTuple):
    """A step of every copy of the world, leaves [environments, ...]; as a replay [rows,
    environments, ...].

    Attributes:
      seen: what was acted on, as the world keeps it.
      action: int32.
      reward: float32.
      terminated, truncated: bool, how the episode ended with this step, if it did.
      priority: float32, in proportion to which a step is drawn; None: all alike.
    """

    seen: PyTree
    action: Array
    reward: Array
    terminated: Array
    truncated: Array
    priority: Array | None = None


class Drawn(NamedTuple):
    """A minibatch of windows of n steps.

    Attributes:
      seen, after: what was acted on at the window's start, and what was seen after its end.
      action: [B] int32, at its start.
      reward: [B] discounted sum of its rewards.
      discount: [B] of the value of what was seen after, 0 where the episode ended by itself.
      weight: [B] 0 where it was cut, so that what follows is not known; else 1, or a correction.
      row, environment: [B] int32, where the window starts.
    """

    seen: PyTree
    after: PyTree
    action: Array
    reward: Array
    discount: Array
    weight: Array
    row: Array
    environment: Array


class Window(NamedTuple):
    """How windows are drawn: their length, how rewards are discounted, and by what power of
    priorities they are corrected for.
    """

    n: int
    gamma: Number
    correction: Number = 0.0


def empty(seen: PyTree, rows: int, prioritised: bool = False) -> Experience:
    """Returns a ring of `rows` rows for what `seen` (leaves [environments, ...]) is like."""
    count = len(jax.tree.leaves(seen)[0])

    def zeros(kind: type) -> Array:
        return jnp.zeros((rows, count), kind)

    return Experience(
        seen=jax.tree.map(lambda a: jnp.zeros((rows, *a.shape), a.dtype), seen),
        action=zeros(jnp.int32),
        reward=zeros(jnp.float32),
        terminated=zeros(bool),
        truncated=zeros(bool),
        priority=zeros(jnp.float32) if prioritised else None,
    )


def push(replay: Experience, clock: Array, new: Experience) -> Experience:
    """Returns the replay with the step `clock` in the place of its oldest; a new step has the
    largest priority of all.
    """
    place = clock % len(replay.action)
    if replay.priority is not None:
        largest = jnp.maximum(replay.priority.max(), 1e-6)
        first = jnp.where(clock == 0, 1.0, largest)
        new = new._replace(priority=jnp.full(new.action.shape, first))

    def put(ring: Array, row: Array) -> Array:
        return jax.lax.dynamic_update_index_in_dim(ring, row.astype(ring.dtype), place, 0)

    return jax.tree.map(put, replay, new)


def cut(replay: Experience, clock: Array) -> Experience:
    """Returns the replay with the episodes of step `clock` cut there, as by the end of a phase."""
    row = jnp.arange(len(replay.action)) == clock % len(replay.action)
    return replay._replace(truncated=replay.truncated | row[:, None])


def draw(replay: Experience, clock: Array, key: Key, count: int, how: Window) -> Drawn:
    """Returns `count` windows of the steps up to `clock`, with replacement.

    A window of n steps from step t has the reward sum_i gamma^i r_t+i, up to the end of the
    episode, and the discount gamma^n. At least n + 1 steps must be there.
    """
    rows, environments = replay.action.shape
    written = jnp.clip(clock + 1, how.n + 1, rows)
    if replay.priority is None:
        of_age, of_environment = jax.random.split(key)
        age = jax.random.randint(of_age, (count,), how.n, written)
        environment = jax.random.randint(of_environment, (count,), 0, environments)
        correction = jnp.ones(count, jnp.float32)
    else:
        age, environment, correction = _by_priority(replay.priority, clock, key, count, how)
    row = (clock - age) % rows
    steps = (row[:, None] + jnp.arange(how.n)[None]) % rows
    which = environment[:, None]
    terminated = replay.terminated[steps, which]
    truncated = replay.truncated[steps, which] & ~terminated
    over = terminated | truncated
    live = jnp.cumsum(over, axis=1) - over == 0  # no episode ended before this step of the window
    powers = (how.gamma ** jnp.arange(how.n))[None]
    ended = (terminated & live).any(1)
    unknown = (truncated & live).any(1)
    after = (row + how.n) % rows
    return Drawn(
        seen=jax.tree.map(lambda a: a[row, environment], replay.seen),
        after=jax.tree.map(lambda a: a[after, environment], replay.seen),
        action=replay.action[row, environment],
        reward=(replay.reward[steps, which] * live * powers).sum(1),
        discount=how.gamma**how.n * (1.0 - ended),
        weight=correction * (1.0 - unknown),
        row=row,
        environment=environment,
    )


def _by_priority(
    priority: Array, clock: Array, key: Key, count: int, how: Window
) -> tuple[Array, Array, Array]:
    """Ages, environments and corrections of windows drawn in proportion to priorities, one from
    each of `count` equal parts of their sum.
    """
    rows, environments = priority.shape
    written = jnp.clip(clock + 1, how.n + 1, rows)
    age = (clock - jnp.arange(rows)) % rows
    allowed = (age >= how.n) & (age < written)
    weight = jnp.where(allowed[:, None], priority, 0.0).reshape(-1)
    total = jnp.cumsum(weight)
    parts = jnp.arange(count) + jax.random.uniform(key, (count,))
    place = jnp.searchsorted(total, parts / count * total[-1], side="right")
    # (rounding may lead to the end: the last that has a weight)
    last = rows * environments - 1 - jnp.argmax(weight[::-1] > 0)
    place = jnp.minimum(place, last)
    share = weight[place] / total[-1]
    steps = allowed.sum() * environments
    correction = (steps * share) ** -how.correction
    return age[place // environments], place % environments, correction / correction.max()


def judged(replay: Experience, drawn: Drawn, error: Array, power: Number) -> Experience:
    """Returns the replay with new priorities of what was drawn: (|error| + 1e-6)^power."""
    if replay.priority is None:
        return replay
    priority = (jnp.abs(error) + 1e-6) ** power
    return replay._replace(priority=replay.priority.at[drawn.row, drawn.environment].set(priority))
