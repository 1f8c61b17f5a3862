"""Heads of an agent: targets from values and distributions, dueling outputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity_jax import heads
from plasticity_jax.environments import acting
from plasticity_jax.types import Batch

BATCH, ACTIONS, BINS = 6, 3, 11


def drawn(width):
    random = np.random.default_rng(width)
    outputs = random.normal(size=(BATCH, ACTIONS * width)).astype(np.float32)
    action = random.integers(0, ACTIONS, BATCH)
    reward = random.normal(size=BATCH).astype(np.float32)
    discount = np.float32([0.0, 0.9, 0.9, 0.5, 0.99, 0.9])
    return outputs, action, reward, discount


def softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def projected(atoms, probability, reward, discount):
    """Algorithm 1 of Bellemare, Dabney & Munos 2017, atom by atom."""
    low, high = atoms[0], atoms[-1]
    spacing = atoms[1] - atoms[0]
    target = np.zeros(len(atoms))
    for p, z in zip(probability, atoms, strict=True):
        place = (np.clip(reward + discount * z, low, high) - low) / spacing
        place = np.clip(place, 0, len(atoms) - 1)
        below, above = int(np.floor(place)), int(np.ceil(place))
        if below == above:
            target[below] += p
        else:
            target[below] += p * (above - place)
            target[above] += p * (place - below)
    return target


def batch(y, action):
    active = np.arange(ACTIONS)[None] == action[:, None]
    return Batch(None, jnp.asarray(y), jnp.ones(BATCH), jnp.asarray(active))


@pytest.mark.long
def test_c51_learns_the_projected_distribution_of_the_next_action():
    outputs, action, reward, discount = drawn(BINS)
    head = heads.c51(bins=BINS, low=-2.0, high=2.0)
    atoms = np.linspace(-2, 2, BINS)
    every = softmax(outputs.reshape(BATCH, ACTIONS, BINS))
    wanted = [projected(atoms, every[i, action[i]], reward[i], discount[i]) for i in range(BATCH)]
    found = heads.bootstrap(head)(outputs, jnp.asarray(action), reward, discount)
    assert found.shape == (BATCH, ACTIONS, BINS)
    for other in range(ACTIONS):
        np.testing.assert_allclose(found[:, other], wanted, atol=2e-6)
    np.testing.assert_allclose(head.read(outputs), (every * atoms).sum(-1), atol=1e-6)
    now = drawn(BINS)[0][::-1].copy()
    logs = np.log(softmax(now.reshape(BATCH, ACTIONS, BINS)))
    loss = [-(wanted[i] * logs[i, action[i]]).sum() for i in range(BATCH)]
    np.testing.assert_allclose(head.loss(None, now, batch(found, action)), loss, rtol=1e-5)


@pytest.mark.parametrize("name", ["linear", "two_hot", "hl_gauss"])
@pytest.mark.long
def test_other_heads_learn_the_scalar_target_of_the_action_taken(name):
    head = heads.HEADS[name]()
    outputs, action, reward, discount = drawn(head.outputs(1))
    values = np.asarray(head.read(outputs))
    wanted = reward + discount * values[np.arange(BATCH), action]
    found = heads.bootstrap(head)(outputs, jnp.asarray(action), reward, discount)
    np.testing.assert_allclose(found, np.repeat(wanted[:, None], ACTIONS, 1), rtol=1e-5)
    loss = head.loss or (lambda plain, *rest: plain(*rest))
    taken = loss(acting.huber, outputs, batch(found, action))
    changed = np.array(found)
    changed[np.arange(BATCH), (action + 1) % ACTIONS] += 1  # of an action that was not taken
    other = loss(acting.huber, outputs, batch(changed, action))
    np.testing.assert_array_equal(taken, other)
    if name == "linear":
        error = np.abs(outputs[np.arange(BATCH), action] - wanted)
        np.testing.assert_allclose(taken, np.where(error < 1, error**2 / 2, error - 0.5), rtol=1e-5)


def test_where_nothing_is_active_the_loss_is_zero():
    outputs, action, *_ = drawn(1)
    none = batch(np.ones((BATCH, ACTIONS), np.float32), action)
    none = none._replace(active=jnp.zeros((BATCH, ACTIONS), bool))
    assert (acting.huber(outputs, none) == 0).all()


@pytest.mark.parametrize("name", ["linear", "c51"])
@pytest.mark.long
def test_dueling_outputs_are_a_value_and_advantages(name):
    plain = heads.HEADS[name]()
    width = plain.outputs(1)
    made = heads.dueling(plain)
    assert made.outputs(ACTIONS) == (ACTIONS + 1) * width
    outputs = np.random.default_rng(0).normal(size=(BATCH, ACTIONS + 1, width))
    value, advantage = outputs[:, :1], outputs[:, 1:]
    joined = (value + advantage - advantage.mean(1, keepdims=True)).reshape(BATCH, -1)
    flat = jnp.asarray(outputs.reshape(BATCH, -1), jnp.float32)
    np.testing.assert_allclose(
        made.read(flat), plain.read(jnp.asarray(joined, jnp.float32)), atol=1e-5
    )
    _, action, reward, discount = drawn(width)
    both = [
        heads.bootstrap(head)(x, jnp.asarray(action), reward, discount)
        for head, x in ((made, flat), (plain, jnp.asarray(joined, jnp.float32)))
    ]
    np.testing.assert_allclose(*both, atol=1e-5)
    gradient = jax.grad(lambda x: made.loss(acting.huber, x, batch(both[0], action)).sum())(flat)
    assert np.isfinite(gradient).all()


def test_a_c51_that_is_none_says_so():
    with pytest.raises(ValueError, match=r"^c51\.bins is 1: allowed are whole numbers from 2"):
        heads.c51(bins=1)
    with pytest.raises(ValueError, match=r"^c51\.high is -11\.0: allowed are numbers above c51"):
        heads.c51(high=-11.0)
