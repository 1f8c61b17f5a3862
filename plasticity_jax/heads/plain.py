"""Heads whose outputs are read as they are."""

import jax
import jax.numpy as jnp

from plasticity_jax import registry
from plasticity_jax.types import Head, Number, Share

SMALLEST = 1e-6  # added to a norm in quadrature, so that outputs of 0 have a gradient


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


@registry.checked
def scale_invariant(*, temperature: Number = 0.04) -> Head:
    """Cross-entropy of outputs divided by their own norm: the scale of the last layer, and of what
    it reads where it has no bias, changes nothing.

    z <- z / (t ||z||) over the C outputs that count, in the loss alone, of evaluation too; which
    class is largest stays. The gradient is orthogonal to z, and the loss of a certain target never
    below log(1 + (C - 1) exp(-sqrt(C / (C - 1)) / t)). Source: Wei et al. 2022, equation 5, whose
    value for CIFAR-10 is the default. Lyle et al. 2024 name an output that is invariant to scale
    and give no formula: that this is one is ours. Deviation: 1e-6 is added to the norm in
    quadrature, where the source's code adds 1e-7 to it, since the norm has no gradient where all
    outputs are 0. Raises ValueError for a `temperature` that is not above 0.
    """
    if not registry.is_traced(temperature) and not temperature > 0:
        raise ValueError(
            f"scale_invariant.temperature is {temperature}: allowed are numbers above 0."
        )

    def loss(plain, outputs, batch):
        counted = outputs if batch.active is None else jnp.where(batch.active, outputs, 0)
        square = jnp.square(counted).sum(-1, keepdims=True) + SMALLEST**2
        return plain(outputs * jax.lax.rsqrt(square) / temperature, batch)

    return Head(targets="distributions", loss=loss)
