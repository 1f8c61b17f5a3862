"""The stream as numpy arrays, for training loops of other frameworks."""

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from plasticity_jax import registry
from plasticity_jax.stream import order, transitions
from plasticity_jax.types import Array, Batch, Data, Environment, Key, Transition

AT_ONCE = 2**22  # bytes of batches that are made together
SPLITS = ("train", "test")


def batches(
    environment: Environment,
    transition: str | Transition,
    data: Data,
    *,
    batch_size: int,
    epochs: int,
    tasks: int | Iterable[int],
    seed: int = 0,
    granularity: int = 1,
    transition_fraction: float = 2 / 3,
) -> Iterator[tuple[int, int, Batch]]:
    """Returns an iterator over (task, step, Batch of numpy arrays): what a run with this seed sees.

    Args:
      environment: e.g. `environments.random_labels()`.
      transition: a name in TRANSITIONS or a Transition.
      data: what `load_data` gives.
      batch_size, epochs: of one task; a task has epochs * (N // batch_size) steps.
      tasks: how many, from 0, or which.
      seed, granularity, transition_fraction: as a lane has them.

    Arrays are copies that may be written to. Each equals what `make_stream` gives at its task and
    step; the epoch's order is made once and many batches are made together, so a batch costs little
    more than its copy. Raises ValueError (one sentence) for what is not allowed, before the first
    batch is made.

    >>> data, labels = pj.load_data(pj.Spec(samples=64)), pj.environments.random_labels()
    >>> stream = pj.batches(labels, "abrupt", data, batch_size=32, epochs=1, tasks=2)
    >>> [(task, step, batch.x.shape) for task, step, batch in stream][1:3]
    [(0, 1, (32, 8, 8, 1)), (1, 0, (32, 8, 8, 1))]
    """
    mixture = order.transition_for(environment, transition)
    order.check_data(data)
    samples = environment.size(data)
    batch_size = registry.whole("batch_size", batch_size, 1, samples)
    epochs = registry.whole("epochs", epochs, 1)
    per_epoch = order.steps_per_epoch(samples, batch_size)
    steps = per_epoch * epochs
    granularity = registry.whole("granularity", granularity, 1)
    fraction = registry.number("transition_fraction", transition_fraction, "0 to 1")
    if not 0 <= fraction <= 1:
        raise ValueError(f"transition_fraction is {fraction}: allowed is 0 to 1.")
    transitions.check_plateaus(granularity, fraction, steps)
    key = jax.random.key(registry.whole("seed", seed, 0))
    counted = not isinstance(tasks, Iterable)
    known = range(registry.whole("tasks", tasks, 0)) if counted else tasks
    numbers = [registry.whole("tasks", task, 0) for task in known]
    environment.check(data, max(numbers, default=0) + 1)
    of_epoch = _of_epoch(environment, mixture, batch_size, epochs)
    make = functools.partial(of_epoch, key, data, granularity, fraction)
    return _iterate(make, numbers, epochs, per_epoch)


def _of_epoch(
    environment: Environment, transition: Transition, batch_size: int, epochs: int
) -> Callable[..., Iterator[Batch]]:
    """Returns a function that makes the batches of one epoch, compiled at its first call."""

    @jax.jit
    def planned(key: Key, data: Data, task: Array, number: Array) -> tuple[order.Plan, Array]:
        samples, alone = environment.size(data), order.alone(environment, transition, epochs)
        plan = order.plan(environment, key, data, task, transition.gradual, alone)
        return plan, order.places(key, samples, batch_size, task, number, alone)

    @jax.jit
    def several(data: Data, plan: order.Plan, places: Array, alphas: Array) -> Batch:
        one = functools.partial(order.batch, environment, transition, plan, data)
        return jax.vmap(one)(places, alphas)

    def made(key, data, granularity, fraction, task: int, number: int) -> Iterator[Batch]:
        plan, places = planned(key, data, jnp.int32(task), jnp.int32(number))
        parts = plan.stage.parts
        steps = len(places) * epochs
        length = transitions.transition_steps(jnp.float32(fraction), steps * parts)
        begun = int(plan.stage.part) * steps + number * len(places)
        at = jnp.arange(begun, begun + len(places))
        alphas = jax.vmap(transitions.alpha_at, (0, None, None))(
            at, length, jnp.asarray(granularity)
        )
        together = _together(functools.partial(several, data, plan), places, alphas)
        for first in range(0, len(places), together):
            chosen = slice(first, first + together)
            whole = jax.tree.map(np.asarray, several(data, plan, places[chosen], alphas[chosen]))
            for row in range(min(together, len(places) - first)):
                yield jax.tree.map(lambda leaf, row=row: np.array(leaf[row]), whole)

    return made


def _together(several: Callable[..., Batch], places: Array, alphas: Array) -> int:
    """Returns how many batches are made at once: all of an epoch, or as many as AT_ONCE holds."""
    one = jax.eval_shape(several, places[:1], alphas[:1])
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(one))
    return max(1, min(len(places), AT_ONCE // max(size, 1)))


def _iterate(
    make: Callable[[int, int], Iterator[Batch]], tasks: list[int], epochs: int, per_epoch: int
) -> Iterator[tuple[int, int, Batch]]:
    for task in tasks:
        for number in range(epochs):
            for step, batch in enumerate(make(task, number)):
                yield task, number * per_epoch + step, batch


def task_set(
    environment: Environment, data: Data, task: int, *, seed: int = 0, split: str = "train"
) -> Batch:
    """Returns all examples of a pure task, of a run with this seed, as one Batch of numpy arrays.

    `split="test"` gives the held-out ones. Raises ValueError (one sentence) for what is not
    allowed, and for the held-out examples of an environment or of data without any.

    >>> data, labels = pj.load_data(pj.Spec(samples=64)), pj.environments.random_labels()
    >>> everything = pj.task_set(labels, data, task=1)
    >>> everything.x.shape, everything.y.shape
    ((64, 8, 8, 1), (64, 10))
    """
    order.check_environment(environment)
    order.check_data(data)
    registry.one_of("split", split, SPLITS)
    task, seed = registry.whole("task", task, 0), registry.whole("seed", seed, 0)
    environment.check(data, task + 1)
    examples, count = environment.examples, environment.size(data)
    if split == "test":
        examples = environment.test
        count = environment.test_size(data) if examples else 0
    if examples is None or not count:
        raise ValueError(
            "split is 'test': allowed is 'train', this environment has no held-out examples of "
            "these data."
        )

    @jax.jit
    def made(data: Data) -> Any:
        stage = environment.schedule(jnp.int32(task))
        own = order.keys.role(jax.random.key(seed), order.keys.TASK)
        drawn = environment.task(own, data, jnp.asarray(stage.task))
        return examples(data, drawn, jnp.arange(count))

    return jax.tree.map(np.array, made(data))
