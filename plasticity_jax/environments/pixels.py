"""Environments that keep the labels and rearrange the pixels."""

import math

import jax

from plasticity_jax.environments import classification
from plasticity_jax.types import Environment


def permuted_pixels(*, change: bool = True) -> Environment:
    """Random pixel permuting: one random permutation of the pixel positions per task, the same for train and test.

    Positions move, channels stay together. Labels are the dataset's own, so test accuracy measures generalisation.
    `change=False` is a control: every task is the first one again.
    Source: Liu & Mou, section 3, Random Pixel Permuting; Dohare et al. 2024.
    """

    def task(key, data):
        return jax.random.permutation(key, math.prod(data.x.shape[1:-1]))

    def permuted(data, order, x):
        positions = x.reshape(len(x), len(order), x.shape[-1])[:, order]
        return classification.normalise(positions.reshape(x.shape), data.mean, data.std)

    def examples(data, order, index):
        return classification.batch(permuted(data, order, data.x[index]), data.y[index], data.classes)

    def test(data, order, index):
        return classification.batch(permuted(data, order, data.test_x[index]), data.test_y[index], data.classes)

    return Environment(
        task,
        examples,
        test,
        shared="targets",
        loss=classification.cross_entropy,
        metric=classification.accuracy,
        metric_name="accuracy",
        changes=change,
        about=(classification.ACCURACY, classification.NATS),
    )
