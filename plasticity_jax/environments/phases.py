"""Phases in which both inputs and frequencies of labels shift."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from plasticity_jax import registry
from plasticity_jax.environments import classification
from plasticity_jax.types import Array, Data, Environment, Key, Number


@registry.checked
def phased_shift(*, shift: Number = 0.5, skew: Number = 1.0) -> Environment:
    """Phased shift: every task is of the same classes with other frequencies, seen in another light
    before another background.

    Examples are drawn with replacement; class c is drawn in proportion to exp(`skew` * n_c), n_c
    standard normal. A normalized image x becomes exp(`shift` a) x + `shift` (b + g), a and b a
    number for each channel and g one for each pixel, all standard normal. Both 0 give a stationary
    stream. Held-out examples are of the same phase. Source: after the phases of camera locations
    (iWildCam) of Lyle et al. 2024, "Disentangling the Causes of Plasticity Loss"; the shifts are
    made by formula, ours, on any images.
    """

    def task(key: Key, data: Data, t: Array) -> Phase:
        own = jax.random.split(jax.random.fold_in(key, t), 6)
        weight = jax.nn.softmax(skew * jax.random.normal(own[0], (data.classes,)))
        shape = data.x.shape[1:]
        return Phase(
            _chosen(own[1], weight, data.y),
            _chosen(own[2], weight, data.test_y) if len(data.test_y) else jnp.arange(0),
            jnp.exp(shift * jax.random.normal(own[3], shape[-1:])),
            shift * jax.random.normal(own[4], shape[-1:]),
            shift * jax.random.normal(own[5], shape),
        )

    def batch(data: Data, phase: "Phase", x: Array, y: Array):
        x = classification.normalise(x, data.mean, data.std)
        gain, level, background = (
            jnp.broadcast_to(part, x.shape) for part in (phase.gain, phase.level, phase.background)
        )
        return classification.batch(gain * x + level + background, y, data.classes)

    def examples(data, phase, index):
        rows = phase.rows[index]
        return batch(data, phase, data.x[rows], data.y[rows])

    def test(data, phase, index):
        rows = phase.test_rows[index]
        return batch(data, phase, data.test_x[rows], data.test_y[rows])

    return Environment(
        task,
        examples,
        test,
        shared="nothing",
        loss=classification.cross_entropy,
        metrics=(classification.ACCURACY._replace(chance=None),),
        loss_metric=classification.NATS,
    )


class Phase(NamedTuple):
    """A task: rows of the dataset and of the held-out part, gain and level of each channel, and a
    background [H, W, C].
    """

    rows: Array
    test_rows: Array
    gain: Array
    level: Array
    background: Array


def _chosen(key: Key, weight: Array, y: Array) -> Array:
    """Rows [N] with classes in proportion to `weight`, all rows of a class equally likely."""
    y = jnp.asarray(y)
    count = jnp.zeros_like(weight).at[y].add(1.0)
    likely = jnp.where(count > 0, weight / jnp.maximum(count, 1), 0.0)[y]
    return jax.random.choice(key, len(y), (len(y),), p=likely / likely.sum()).astype(jnp.int32)
