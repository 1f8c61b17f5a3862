"""Heads whose outputs are read as they are."""

import jax.numpy as jnp

from plasticity_jax import registry
from plasticity_jax.types import Head, Share


def linear() -> Head:
    """The outputs as they are, with the environment's own loss: squared error of numbers,
    cross-entropy of classes and texts.

    Source: what is usual; the loss is the environment's.
    """
    return Head()


@registry.checked
def smoothed(*, smoothing: Share = 0.1) -> Head:
    """Label smoothing: the target's probability is mixed with a uniform one of weight `smoothing`.

    y <- (1 - s) y + s / C over the C outputs that count, in the loss alone, of evaluation too.
    With s = 0 it is `linear`. Source: Szegedy et al. 2016, section 7, whose value is the default.
    """

    def loss(plain, outputs, batch):
        if batch.active is None:
            uniform = 1 / batch.y.shape[-1]
        else:
            count = batch.active.sum(-1, keepdims=True).astype(jnp.float32)
            uniform = batch.active / count
        return plain(outputs, batch._replace(y=(1 - smoothing) * batch.y + smoothing * uniform))

    return Head(targets="distributions", loss=loss)
