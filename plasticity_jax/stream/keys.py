"""Keys: one independent stream of randomness for each role."""

import jax

from plasticity_jax.types import Array, Key

# Roles: one independent stream of randomness each. Never renumber: it would change every published
# run.
TASK, ORDER, RANK, NOISE, INIT, PROBE, START, SURGERY = range(8)
# of an agent: its actions, its world, what it draws from memory, how a phase begins, evaluation
ACT, WORLD, REPLAY, RESET, GREEDY = range(8, 13)
AUGMENT = 13  # how inputs are changed in a training step


def role(key: Key, name: int, *index: Array | int) -> Key:
    """Returns the key of a role, folded with task, step, ... in turn."""
    key = jax.random.fold_in(key, name)
    for i in index:
        key = jax.random.fold_in(key, i)
    return key
