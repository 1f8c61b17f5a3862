"""Regression on images whose targets have any mean and scale."""

import jax
import jax.numpy as jnp

from plasticity_jax import registry
from plasticity_jax.environments import classification
from plasticity_jax.environments.regression import squared_error
from plasticity_jax.types import Array, Batch, Data, Environment, Key, Metric, Number, Real, Stage

TARGETS = ("network", "labels", "frequency")
_CHUNK = 1024  # images that are targets' inputs at a time


@registry.checked
def target_offset(
    *,
    targets: str = "network",
    offset: Real = 0.0,
    scale: Number = 1.0,
    frequency: Number = 1000.0,
    hidden: int = 100,
    stationary: int = 1,
    later: str = "same",
) -> Environment:
    """Target offset: regression on images to `offset` + `scale` * eps(x), with other eps in every
    task.

    eps has mean 0 and variance 1 over the training examples. By `targets` it is the output of a
    random network (one layer of `hidden` ReLU units, standard normal weights), a random label of
    each example (0 to classes - 1), or sin(`frequency` * network), which varies quickly. The first
    `stationary` stages are of one task, on which a network is trained; each stage after that
    fine-tunes on fresh targets, with the same offset or, with `later="zero"`, with none. Random
    labels can only be learnt by heart, so there is no test split. Source: Lyle et al. 2024,
    "Disentangling the Causes of Plasticity Loss", section 3.1; sizes of the network and the
    frequency are ours. Raises ValueError for other `targets` or `later`, or counts < 1.
    """
    registry.one_of("target_offset.targets", targets, TARGETS)
    registry.one_of("target_offset.later", later, ("same", "zero"))
    registry.whole("target_offset.hidden", hidden, 1)
    registry.whole("target_offset.stationary", stationary, 1)

    def of_network(key: Key, data: Data) -> tuple[Array, Array]:
        """The targets of all examples and of the held-out ones, before they are standardized."""
        size = data.x[0].size
        first, last = jax.random.split(key)
        weights = jax.random.normal(first, (size, hidden)) / size**0.5
        out = jax.random.normal(last, (hidden,)) / hidden**0.5

        def one(image: Array) -> Array:
            normal = classification.normalise(image[None], data.mean, data.std)
            return jax.nn.relu(normal.reshape(-1) @ weights) @ out

        def of(images: Array) -> Array:
            if len(images) == 0:
                return jnp.zeros(0)
            return jax.lax.map(one, jnp.asarray(images), batch_size=min(_CHUNK, len(images)))

        return of(data.x), of(data.test_x)

    def task(key: Key, data: Data, t: Array) -> tuple[Array, Array]:
        own = jax.random.fold_in(key, t)
        if targets == "labels":
            drawn = jax.random.randint(own, (len(data.x),), 0, data.classes)
            both = drawn.astype(jnp.float32), jnp.zeros(len(data.test_x))
        else:
            both = of_network(own, data)
        if targets == "frequency":
            train, test = _standard(*both)
            both = jnp.sin(frequency * train), jnp.sin(frequency * test)
        mean = jnp.where(t > 0, 0.0, offset) if later == "zero" else offset
        train, test = (mean + scale * part[:, None] for part in _standard(*both))
        return train, test

    def batch(data: Data, x: Array, y: Array) -> Batch:
        x = classification.normalise(x, data.mean, data.std)
        return Batch(x, y, jnp.ones(len(y), jnp.float32))

    def schedule(number: Array | int) -> Stage:
        part = jnp.where(jnp.less(number, stationary), number, 0)
        return Stage(jnp.maximum(jnp.asarray(number) - stationary + 1, 0), part)

    return Environment(
        task,
        examples=lambda data, task, index: batch(data, data.x[index], task[0][index]),
        test=None
        if targets == "labels"
        else lambda data, task, index: batch(data, data.test_x[index], task[1][index]),
        shared="inputs",
        loss=squared_error,
        metrics=(Metric("squared_error", better="lower", of=squared_error),),
        outputs=lambda data: 1,
        schedule=schedule,
        targets="numbers",
    )


def _standard(train: Array, test: Array) -> tuple[Array, Array]:
    """Both less the mean and over the deviation of the first, which is 0 where nothing varies."""
    middle, deviation = train.mean(), train.std()
    deviation = jnp.where(deviation > 0, deviation, 1.0)
    return (train - middle) / deviation, (test - middle) / deviation
