"""Environments that keep the labels and rearrange the pixels."""

import math

import jax

from plasticity_jax import registry
from plasticity_jax.environments import classification
from plasticity_jax.types import Array, Data, Environment


@registry.checked
def permuted_pixels(*, change: bool = True) -> Environment:
    """Random pixel permuting: one random permutation of the pixel positions per task, the same for
    train and test.

    Positions move, channels stay together. Labels are the dataset's own, so test accuracy measures
    generalization. `change=False` is a control: every task is the first one again.
    Source: Liu & Mou 2026, section 3, Random Pixel Permuting; Dohare et al. 2024.
    """

    def task(key, data, t):
        key = jax.random.fold_in(key, t if change else 0)
        return jax.random.permutation(key, positions(data))

    def permuted(data, order, x):
        if x.ndim == 2:  # features have a mean and a deviation each, which move along
            return classification.normalise(x, data.mean, data.std)[:, order]
        return classification.normalise(rearranged(x, order), data.mean, data.std)

    def examples(data, order, index):
        return classification.batch(
            permuted(data, order, data.x[index]), data.y[index], data.classes
        )

    def test(data, order, index):
        return classification.batch(
            permuted(data, order, data.test_x[index]), data.test_y[index], data.classes
        )

    return Environment(
        task,
        examples,
        test,
        shared="targets",
        transition="input",
        loss=classification.cross_entropy,
        metrics=(classification.ACCURACY,),
        loss_metric=classification.NATS,
    )


def positions(data: Data) -> int:
    """Returns how many positions an input has: pixels of an image, features of a row."""
    if data.x.ndim == 2:
        return data.x.shape[1]
    return math.prod(data.x.shape[1:-1])


def rearranged(x: Array, order: Array) -> Array:
    """Returns inputs `x` [B, ..., C] or rows [B, F] with their positions in the `order`
    [positions].
    """
    if x.ndim == 2:
        return x[:, order]
    return x.reshape(len(x), len(order), x.shape[-1])[:, order].reshape(x.shape)
