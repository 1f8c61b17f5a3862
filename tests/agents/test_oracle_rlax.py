"""What agents learn from, against rlax."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity_jax import heads
from plasticity_jax.agents import replay

pytestmark = pytest.mark.oracle
B, ACTIONS, ATOMS = 40, 3, 21


@pytest.fixture(scope="module")
def rlax():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # (it warns at its import of what it imports)
        return pytest.importorskip("rlax")


@pytest.fixture(scope="module")
def drawn():
    random = np.random.default_rng(0)
    return {
        "reward": random.normal(size=B).astype(np.float32) * 3,
        "discount": random.choice([0.0, 0.9, 1.0], B).astype(np.float32),
        "action": random.integers(0, ACTIONS, B).astype(np.int32),
    }


def normal(*shape):
    return np.random.default_rng(1).normal(size=shape).astype(np.float32) * 2


def test_a_distribution_is_projected_as_in_c51(rlax, drawn):
    head = heads.c51(bins=ATOMS, low=-4.0, high=6.0)
    outputs, atoms = normal(B, ACTIONS * ATOMS), np.linspace(-4, 6, ATOMS, dtype=np.float32)
    found = heads.bootstrap(head)(outputs, drawn["action"], drawn["reward"], drawn["discount"])
    logits = outputs.reshape(B, ACTIONS, ATOMS)[np.arange(B), drawn["action"]]
    moved = drawn["reward"][:, None] + drawn["discount"][:, None] * atoms
    project = jax.vmap(rlax.categorical_l2_project, (0, 0, None))
    wanted = project(moved, jax.nn.softmax(logits), atoms)
    np.testing.assert_allclose(found[:, 0], wanted, atol=2e-5)
    np.testing.assert_array_equal(found[:, 0], found[:, -1])


def test_a_double_target_is_rlaxs(rlax, drawn):
    values, judged = normal(B, ACTIONS), normal(B, ACTIONS)[::-1].copy()
    now = normal(B, ACTIONS)[:, ::-1].copy()
    double = jax.vmap(rlax.double_q_learning)
    error = double(now, drawn["action"], drawn["reward"], drawn["discount"], values, judged)
    head = heads.linear()
    best = jnp.asarray(judged).argmax(-1)
    target = heads.bootstrap(head)(values, best, drawn["reward"], drawn["discount"])[:, 0]
    taken = now[np.arange(B), drawn["action"]]
    np.testing.assert_allclose(target - taken, error, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("n", [1, 3])
def test_returns_of_n_steps_are_rlaxs(rlax, n):
    random, steps, gamma = np.random.default_rng(2), 30, 0.9
    ended = random.random(steps) < 0.2
    rewards, values = normal(steps), normal(steps + 1)
    ring = replay.empty(jnp.zeros(1, jnp.int32), steps)
    push = jax.jit(replay.push)
    for clock in range(steps):
        new = replay.Experience(
            seen=jnp.full(1, clock, jnp.int32),
            action=jnp.zeros(1, jnp.int32),
            reward=jnp.full(1, rewards[clock]),
            terminated=jnp.full(1, ended[clock]),
            truncated=jnp.zeros(1, bool),
        )
        ring = push(ring, jnp.int32(clock), new)
    found = replay.draw(ring, jnp.int32(steps - 1), jax.random.key(0), 200, replay.Window(n, gamma))
    discounts = gamma * (1.0 - ended)
    # (values of what is seen after each step)
    returns = rlax.n_step_bootstrapped_returns(rewards, discounts, values[1:], n)
    mine = found.reward + found.discount * values[found.after]
    np.testing.assert_allclose(mine, np.asarray(returns)[found.seen], rtol=1e-4, atol=1e-5)
