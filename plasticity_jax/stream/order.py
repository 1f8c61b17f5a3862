"""The task stream as pure functions of (key, task, step): which example, of which task, in which
mixture, when.

Nothing here carries a running key. Every draw is made from fold_in(key, ROLE) and then the task
(and epoch), so any step of any task can be visited alone, a checkpoint needs no stream state, and
lanes with the same seed see the same tasks, the same initial weights and the same batches, whatever
their method or granularity.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from plasticity_jax import registry
from plasticity_jax.stream import keys, transitions
from plasticity_jax.types import Array, Batch, Data, Environment, Key, PyTree, Stage, Transition


class Plan(NamedTuple):
    """What is fixed within one task.

    Attributes:
      old, new: the task before and this one, as the environment draws them; `old` equals `new` in
        the first task.
      who: [N] int32, example indices in the order in which they change over.
      first: [] bool, whether this is the first task, which arrives whole.
    """

    old: PyTree
    new: PyTree
    who: Array
    first: Array
    stage: Stage


@jax.named_scope("data")
def plan(
    environment: Environment,
    key: Key,
    data: Data,
    task: Array,
    gradual: bool = True,
    in_order: bool = False,
) -> Plan:
    """Returns what is fixed within task number `task` ([] int32, from 0)."""
    stage, samples = environment.schedule(task), environment.size(data)
    first = task - stage.part  # the stage in which this task began
    before = environment.schedule(jnp.maximum(first - 1, 0)).task
    own = keys.role(key, keys.TASK)
    who = (
        jnp.arange(samples, dtype=jnp.int32)
        if in_order
        else jax.random.permutation(keys.role(key, keys.RANK, first), samples)
    )
    if not gradual:
        new = environment.task(own, data, stage.task)
        return Plan(new, new, who, first == 0, stage)
    numbers = jnp.stack([before, stage.task])
    # drawn together: half as much to compile
    both = jax.vmap(environment.task, (None, None, 0))(own, data, numbers)
    old, new = (jax.tree.map(lambda leaf, i=i: leaf[i], both) for i in (0, 1))
    return Plan(old, new, who, first == 0, stage)


def steps_per_epoch(samples: int, batch_size: int) -> int:
    """Returns the number of full minibatches in an epoch; a remainder is left out, other examples
    each epoch.
    """
    return samples // batch_size


@jax.named_scope("data")
def epoch(key: Key, samples: int, batch_size: int, task: Array, number: Array) -> Array:
    """Returns the batches of epoch `number` of `task`: [steps, batch_size] int32 places in the
    changeover order `who`.

    Every batch takes one example from each of `batch_size` slices of the changeover order, equal to
    within one example. That makes shares exact in every minibatch under task sampling; for one
    example it is a random shuffle, no example comes twice in an epoch. Where the batches do not
    come out even, each slice that is one too long leaves out another example each epoch, drawn
    anew: with s steps in an epoch, an example of a slice of s is in every epoch, one of a slice of
    s + 1 in s / (s + 1) of them on average. So 127 examples in batches of 64 have one in every
    epoch and 126 in half of them; for s of 10 or more the difference is below a tenth. Which
    example is in which slice is drawn for each task. Deviation from plain shuffling: two examples
    of one slice never share a batch within a task (about one pair in batch_size). The order does
    not depend on the transition, which keeps all arms paired.
    """
    steps = steps_per_epoch(samples, batch_size)
    key = keys.role(key, keys.ORDER, task, number)
    # where the slices begin, rounded half down as `rank < alpha` rounds
    edges = (2 * np.arange(batch_size + 1) * samples + batch_size - 1) // (2 * batch_size)
    places = jnp.arange(steps, dtype=jnp.int32)[None]
    if samples % batch_size:
        out = jax.random.randint(
            jax.random.fold_in(key, 1), (batch_size, 1), 0, steps + 1, jnp.int32
        )
        places = places + (places >= jnp.where(np.diff(edges)[:, None] > steps, out, steps))
    slices = jnp.asarray(edges[:-1, None], jnp.int32) + places
    return _shuffled(jax.random.fold_in(key, 0), slices).T


def _shuffled(key: Key, rows: Array) -> Array:
    """Returns `rows` [n, m], each shuffled on its own, by sorting random numbers.

    Bit for bit `jax.random.permutation(key, rows, axis=1, independent=True)`, but the random
    numbers are drawn in one row, as drawing them in short ones takes a fifth of the time that it
    takes to compile a small program.
    """
    # rounds enough that equal random numbers, 32 bits, do not matter
    for _ in range(math.ceil(3 * math.log(max(1, rows.size)) / math.log(2**32 - 1))):
        key, own = jax.random.split(key)
        numbers = jax.random.bits(own, (rows.size,), jnp.uint32).reshape(rows.shape)
        _, rows = jax.lax.sort_key_val(numbers, rows, 1)
    return rows


def alone(environment: Environment, transition: Transition, epochs: int) -> bool:
    """Returns whether an example is drawn for one step only, so that shuffling would change
    nothing.
    """
    return epochs == 1 and environment.data == "nothing" and not transition.gradual


def places(
    key: Key, samples: int, batch_size: int, task: Array, number: Array, in_order: bool
) -> Array:
    """Returns the batches of an epoch as `epoch` does, or one after another if `in_order`."""
    if not in_order:
        return epoch(key, samples, batch_size, task, number)
    steps = steps_per_epoch(samples, batch_size)
    return jnp.arange(steps * batch_size, dtype=jnp.int32).reshape(steps, batch_size)


@jax.named_scope("data")
def batch(
    environment: Environment,
    transition: Transition,
    plan: Plan,
    data: Data,
    places: Array,
    alpha: Array,
) -> Batch:
    """Returns the mixture of the two tasks of a plan for `places` [B] of the changeover order at
    coefficient `alpha`.
    """
    index, rank = plan.who[places], (places.astype(jnp.float32) + 0.5) / len(plan.who)
    new = environment.examples(data, plan.new, index)
    if not transition.gradual:
        return new
    old = environment.examples(data, plan.old, index)
    return transition.mix(old, new, jnp.where(plan.first, 1.0, alpha), rank)


def make_stream(
    environment: Environment, transition: str | Transition, batch_size: int, epochs: int
):
    """Returns `at(key, data, task, step, granularity, transition_fraction) -> Batch`, pure, for any
    task and step.

    Args:
      environment: e.g. `environments.random_labels()`.
      transition: a name in TRANSITIONS or a Transition.
      batch_size, epochs: of one task; a task has epochs * (N // batch_size) steps.

    `at` is what the train step sees at that point (it recomputes the epoch's order, which the train
    loop shares among the steps of an epoch). `granularity` [] int, at most the steps of the
    transition; `transition_fraction` [] in [0, 1]; `task` from 0, `step` from 0 to the last of a
    task. Raises ValueError (one sentence) for what is no environment or transition, a transition
    that the environment does not allow, or a size that is no count; `at` raises it for arguments
    that are not allowed, as far as they are not traced.

    >>> data = pj.load_data(pj.Spec(samples=64))
    >>> stream = pj.make_stream(pj.environments.random_labels(), "abrupt", batch_size=16, epochs=2)
    >>> batch = jax.jit(stream)(jax.random.key(0), data, task=1, step=5)
    >>> batch.x.shape, batch.y.shape
    ((16, 8, 8, 1), (16, 10))
    """
    mixture = transition_for(environment, transition)
    batch_size, epochs = (
        registry.whole(n, v, 1) for n, v in (("batch_size", batch_size), ("epochs", epochs))
    )

    def at(key, data, task, step, granularity=1, transition_fraction=2 / 3):
        check_data(data)
        samples = environment.size(data)
        if batch_size > samples:
            raise ValueError(
                f"batch_size is {batch_size}: allowed is at most the number of samples, {samples}."
            )
        per_epoch = steps_per_epoch(samples, batch_size)
        _check_point(key, task, step, granularity, transition_fraction, per_epoch * epochs)
        in_order = alone(environment, mixture, epochs)
        number = step // per_epoch
        chosen = places(key, samples, batch_size, task, number, in_order)[step % per_epoch]
        made = plan(environment, key, data, jnp.asarray(task), in_order=in_order)
        steps, stage = per_epoch * epochs, made.stage
        length = transitions.transition_steps(jnp.float32(transition_fraction), steps * stage.parts)
        alpha = transitions.alpha_at(stage.part * steps + step, length, jnp.asarray(granularity))
        return batch(environment, mixture, made, data, chosen, alpha)

    return at


def check_environment(environment: Any) -> None:
    """Raises ValueError for what is no Environment."""
    if not isinstance(environment, Environment):
        shown = registry.shown(environment)
        raise ValueError(
            f"environment is {shown}: allowed is an Environment, such as "
            "environments.random_labels()."
        )


def transition_for(environment: Any, transition: Any) -> Transition:
    """Returns a transition by name or as it is. Raises ValueError if it does not fit."""
    check_environment(environment)
    if isinstance(transition, Transition):
        found, name = transition, registry.shown(getattr(transition.mix, "__name__", "given"))
    else:
        found, name = (
            registry.lookup(transitions.TRANSITIONS, "transition", transition),
            repr(transition),
        )
    transitions.check_fit(found, environment, name, "this environment")
    return found


def _check_point(
    key: Any, task: Any, step: Any, granularity: Any, fraction: Any, steps: int
) -> None:
    """Raises ValueError for a point of a stream that there is not, as far as its numbers are not
    traced.
    """
    if not isinstance(key, jax.Array | np.ndarray) or key.ndim != (
        not jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    ):
        raise ValueError(
            f"key is {registry.shown(key)}: allowed is a key, such as jax.random.key(0)."
        )
    most = registry.LARGEST_WHOLE
    limits = {
        "task": (task, 0, most),
        "step": (step, 0, min(steps - 1, most)),
        "granularity": (granularity, 1, most),
    }
    for name, (value, *allowed) in limits.items():
        if not registry.is_traced(value):
            registry.whole(name, value, *allowed)
    if (
        not registry.is_traced(fraction)
        and not 0 <= registry.number("transition_fraction", fraction) <= 1
    ):
        raise ValueError(f"transition_fraction is {fraction}: allowed is 0 to 1.")
    if not registry.is_traced(granularity) and not registry.is_traced(fraction):
        transitions.check_plateaus(int(granularity), float(fraction), steps)


def check_data(data: Any) -> None:
    """Raises ValueError for what is not the `data` of pure functions, such as a Dataset on the
    host.
    """
    if not all(hasattr(data, field.name) for field in dataclasses.fields(Data)):
        raise ValueError(
            f"data is a {type(data).__name__}: allowed is a Data, as load_data gives it."
        )
