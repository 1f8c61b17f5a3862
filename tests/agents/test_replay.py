"""What an agent remembers, against a loop over what happened."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity_jax.agents import replay

ROWS, ENVIRONMENTS, STEPS = 12, 2, 29


def history():
    random = np.random.default_rng(0)
    shape = (STEPS, ENVIRONMENTS)
    return replay.Experience(
        seen=np.arange(STEPS * ENVIRONMENTS, dtype=np.int32).reshape(shape),
        action=random.integers(0, 5, shape).astype(np.int32),
        reward=random.normal(size=shape).astype(np.float32),
        terminated=random.random(shape) < 0.2,
        truncated=random.random(shape) < 0.15,
    )


def filled(prioritised=False):
    """The ring after all steps."""
    steps = history()
    ring = replay.empty(jnp.zeros(ENVIRONMENTS, jnp.int32), ROWS, prioritised)
    if prioritised:
        steps = steps._replace(priority=np.zeros((STEPS, ENVIRONMENTS), np.float32))

    def one(ring, row):
        return replay.push(ring, row[0], row[1]), None

    return jax.jit(lambda: jax.lax.scan(one, ring, (jnp.arange(STEPS), steps))[0])()


def drawn_from(ring, clock, key, count, how):
    """What is drawn, as numpy's arrays."""
    draw = jax.jit(lambda ring, clock, key: replay.draw(ring, clock, key, count, how))
    return jax.tree.map(np.asarray, draw(ring, clock, key))


def window(steps, start, which, n, gamma):
    """Reward, discount and weight of one window, by the definition."""
    total = 0.0
    for i in range(n):
        total += gamma**i * steps.reward[start + i, which]
        if steps.terminated[start + i, which]:
            return total, 0.0, 1.0
        if steps.truncated[start + i, which]:
            return total, gamma**n, 0.0
    return total, gamma**n, 1.0


@pytest.mark.parametrize(("n", "gamma"), [(1, 0.0), (1, 0.9), (3, 0.9), (5, 1.0)])
@pytest.mark.long
def test_windows_are_those_of_a_loop(n, gamma):
    steps, count = history(), 500
    how = replay.Window(n, gamma)
    drawn = drawn_from(filled(), jnp.int32(STEPS - 1), jax.random.key(1), count, how)
    starts = set()
    for i in range(count):
        start, which = divmod(int(drawn.seen[i]), ENVIRONMENTS)
        reward, discount, weight = window(steps, start, which, n, gamma)
        starts.add(start)
        np.testing.assert_allclose(drawn.reward[i], reward, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(drawn.discount[i], discount, rtol=1e-6)
        assert drawn.weight[i] == weight
        assert drawn.action[i] == steps.action[start, which]
        assert drawn.after[i] == steps.seen[start + n, which]
    # every step whose window is there, and no other
    assert starts == set(range(STEPS - ROWS, STEPS - n))


@pytest.mark.long
def test_of_a_young_replay_only_what_was_written_is_drawn():
    ring = replay.empty(jnp.zeros(1, jnp.int32), ROWS)
    push = jax.jit(replay.push)
    for clock in range(4):
        new = history()
        row = jax.tree.map(lambda a, clock=clock: jnp.asarray(a[clock, :1]), new)
        ring = push(ring, jnp.int32(clock), row)
    drawn = drawn_from(ring, jnp.int32(3), jax.random.key(0), 200, replay.Window(1, 0.9))
    assert set(np.asarray(drawn.row)) == {0, 1, 2}


@pytest.mark.long
def test_the_end_of_a_phase_cuts_its_episodes():
    ring = replay.cut(filled(), jnp.int32(STEPS - 1))
    place = (STEPS - 1) % ROWS
    assert ring.truncated[place].all()
    others = np.arange(ROWS) != place
    np.testing.assert_array_equal(ring.truncated[others], filled().truncated[others])


@pytest.mark.long
def test_steps_are_drawn_by_priority_and_corrected_for_it():
    ring = filled(prioritised=True)
    assert (ring.priority == 1).all()  # (a new step has the largest)
    how = replay.Window(1, 0.9, correction=1.0)
    newest, row, which = jnp.int32(STEPS - 1), 3, 1
    place = jnp.array([row]), jnp.array([which])
    drawn = drawn_from(ring, newest, jax.random.key(0), 1, how)
    told = drawn._replace(row=place[0], environment=place[1])
    ring = replay.judged(ring, told, jnp.array([9.0]), power=0.5)
    np.testing.assert_allclose(ring.priority[row, which], 3.0, rtol=1e-5)
    drawn = drawn_from(ring, newest, jax.random.key(2), 2500, how)
    chosen = (drawn.row == row) & (drawn.environment == which)
    # 11 steps of two environments have windows: 21 of priority 1 and this one
    np.testing.assert_allclose(chosen.mean(), 3 / 24, atol=2e-3)
    known = drawn.weight > 0
    np.testing.assert_allclose(drawn.weight[chosen & known], 1 / 3, rtol=1e-4)
    np.testing.assert_allclose(drawn.weight[~chosen & known], 1.0, rtol=1e-4)
    assert (STEPS - 1) % ROWS not in set(np.asarray(drawn.row))
