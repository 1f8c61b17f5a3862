"""The task stream as pure functions of (key, task, step): which example, of which task, in which mixture, when.

Nothing here carries a running key. Every draw is made from fold_in(key, ROLE) and then the task (and epoch), so any
step of any task can be visited alone, a checkpoint needs no stream state, and lanes with the same seed see the same
tasks, the same initial weights and the same batches, whatever their method or granularity.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from plasticity_jax import transitions
from plasticity_jax.types import Array, Batch, Data, Environment, Key, PyTree, Transition

# Roles: one independent stream of randomness each. Never renumber: it would change every published run.
TASK, ORDER, RANK, NOISE, INIT, PROBE = range(6)


def role(key: Key, name: int, *index: Array | int) -> Key:
    """Returns the key of a role, folded with task, step, ... in turn."""
    key = jax.random.fold_in(key, name)
    for i in index:
        key = jax.random.fold_in(key, i)
    return key


class Plan(NamedTuple):
    """What is fixed within one task.

    Attributes:
      old, new: the task before and this one, as the environment draws them; `old` equals `new` in the first task.
      who: [N] int32, example indices in the order in which they change over.
      first: [] bool, whether this is the first task, which arrives whole.
    """

    old: PyTree
    new: PyTree
    who: Array
    first: Array


@jax.named_scope("data")
def plan(environment: Environment, key: Key, data: Data, task: Array) -> Plan:
    """Returns what is fixed within task number `task` ([] int32, from 0)."""
    numbers = jnp.stack([jnp.maximum(task - 1, 0), task])
    keys = jax.vmap(lambda t: role(key, TASK, t))(numbers if environment.changes else jnp.zeros_like(numbers))
    both = jax.vmap(environment.task, (0, None))(keys, data)  # drawn together, which is half as much to compile
    old, new = (jax.tree.map(lambda leaf, i=i: leaf[i], both) for i in (0, 1))
    who = jax.random.permutation(role(key, RANK, task), len(data.x))
    return Plan(old, new, who, task == 0)


def steps_per_epoch(samples: int, batch_size: int) -> int:
    """Returns the number of full minibatches in an epoch; a remainder is left out, other examples each epoch."""
    return samples // batch_size


@jax.named_scope("data")
def epoch(key: Key, samples: int, batch_size: int, task: Array, number: Array) -> Array:
    """Returns the batches of epoch `number` of `task`: [steps, batch_size] int32 places in the changeover order `who`.

    Every batch takes one example from each of `batch_size` slices of the changeover order, equal to within one example.
    That makes shares exact in every minibatch under task sampling; for one example it is a random shuffle, no example
    comes twice in an epoch. Where the batches do not come out even, each slice that is one too long leaves out another
    example each epoch. Deviation from plain shuffling: two examples of one slice never share a batch within a task (about
    one pair in batch_size). The order does not depend on the transition, which keeps all arms paired.
    """
    steps = steps_per_epoch(samples, batch_size)
    key = role(key, ORDER, task, number)
    # where the slices begin, rounded half down as `rank < alpha` rounds
    edges = (2 * np.arange(batch_size + 1) * samples + batch_size - 1) // (2 * batch_size)
    places = jnp.arange(steps)[None]
    if samples % batch_size:
        out = jax.random.randint(jax.random.fold_in(key, 1), (batch_size, 1), 0, steps + 1)
        places = places + (places >= jnp.where(np.diff(edges)[:, None] > steps, out, steps))
    slices = jnp.asarray(edges[:-1, None], jnp.int32) + places
    return jax.random.permutation(jax.random.fold_in(key, 0), slices, axis=1, independent=True).T


@jax.named_scope("data")
def batch(
    environment: Environment, transition: Transition, plan: Plan, data: Data, places: Array, alpha: Array
) -> Batch:
    """Returns the mixture of the two tasks of a plan for `places` [B] of the changeover order at coefficient `alpha`."""
    index, rank = plan.who[places], (places + 0.5) / len(plan.who)
    old = environment.examples(data, plan.old, index)
    new = environment.examples(data, plan.new, index)
    return transition.mix(old, new, jnp.where(plan.first, 1.0, alpha), rank)


def make_stream(environment: Environment, transition: str | Transition, batch_size: int, epochs: int):
    """Returns `at(key, data, task, step, granularity, transition_fraction) -> Batch`, pure, for any task and step.

    Args:
      environment: e.g. `environments.random_labels()`.
      transition: a name in TRANSITIONS or a Transition.
      batch_size, epochs: of one task; a task has epochs * (N // batch_size) steps.

    `at` is what the train step sees at that point (it recomputes the epoch's order, which the train loop shares among
    the steps of an epoch). `granularity` [] int, `transition_fraction` [] in [0, 1].
    """
    mixture = transitions.TRANSITIONS[transition] if isinstance(transition, str) else transition

    def at(key, data, task, step, granularity=1, transition_fraction=2 / 3):
        samples = len(data.x)
        per_epoch = steps_per_epoch(samples, batch_size)
        places = epoch(key, samples, batch_size, task, step // per_epoch)[step % per_epoch]
        length = transitions.transition_steps(jnp.float32(transition_fraction), per_epoch * epochs)
        alpha = transitions.alpha_at(step, length, jnp.asarray(granularity))
        return batch(environment, mixture, plan(environment, key, data, jnp.asarray(task)), data, places, alpha)

    return at
