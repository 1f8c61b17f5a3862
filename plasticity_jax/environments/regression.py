"""Regression on a dataset's own real targets, with inputs or targets that change."""

import jax
import jax.numpy as jnp

from plasticity_jax import registry
from plasticity_jax.environments import classification, pixels
from plasticity_jax.types import Array, Batch, Environment, Metric


@registry.checked
def regression(*, of: str = "inputs", change: bool = True) -> Environment:
    """Regression with squared error on real targets, such as those of float arrays.

    `of` says what differs between tasks: "inputs", whose positions (pixels of images, features of
    rows) are put in a random order, the same for train and test; "targets", which are shuffled over
    the examples, so that they can only be learnt by heart and there is no test split.
    `change=False` is a control: every task is the first one again. Source: none; the counterpart of
    random pixel permuting and random image labeling (Liu & Mou 2026, section 3) for real targets.
    """
    registry.one_of("regression.of", of, ("inputs", "targets"))

    def task(key, data, t):
        key = jax.random.fold_in(key, t if change else 0)
        order, rows = jnp.arange(pixels.positions(data)), jnp.arange(len(data.y))
        if of == "inputs":
            order = jax.random.permutation(key, order)
        else:
            rows = jax.random.permutation(key, rows)
        return order, rows

    def batch(data, order, x, y):
        x = pixels.rearranged(classification.normalise(x, data.mean, data.std), order)
        return Batch(x, y, jnp.ones(len(y), jnp.float32))

    def examples(data, task, index):
        order, rows = task
        return batch(data, order, data.x[index], data.y[rows[index]])

    def test(data, task, index):
        order, _ = task
        return batch(data, order, data.test_x[index], data.test_y[index])

    return Environment(
        task,
        examples,
        test=None if of == "targets" else test,
        shared="inputs" if of == "targets" else "targets",
        transition="sampling" if of == "targets" else "input",
        loss=squared_error,
        metrics=(Metric("squared_error", better="lower", of=squared_error),),
        outputs=lambda data: data.y.shape[-1],
        targets="numbers",
        data="numbers",
    )


def squared_error(outputs: Array, batch: Batch) -> Array:
    """Returns [B] the squared error, averaged over outputs."""
    return ((outputs - batch.y) ** 2).mean(-1)
