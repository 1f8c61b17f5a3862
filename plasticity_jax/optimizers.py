"""Optimizers, all from optax, with their numbers named. A new one is one factory and one line in
OPTIMIZERS.

A learning rate may be an optax schedule. Raises ValueError for numbers out of range, as the command
line refuses them.
"""

import optax

from plasticity_jax import registry
from plasticity_jax.types import Number, Share

Transformation = optax.GradientTransformation


@registry.checked
def adam(
    learning_rate: Number, *, b1: Share = 0.9, b2: Share = 0.999, eps: Number = 1e-8
) -> Transformation:
    """Adam with PyTorch's defaults. Source: Kingma & Ba 2015."""
    return optax.adam(learning_rate, b1, b2, eps)


@registry.checked
def adamw(
    learning_rate: Number,
    *,
    b1: Share = 0.9,
    b2: Share = 0.999,
    eps: Number = 1e-8,
    weight_decay: Number = 1e-2,
) -> Transformation:
    """AdamW: Adam with decoupled weight decay of all parameters, PyTorch's defaults. Source:
    Loshchilov & Hutter 2019.
    """
    return optax.adamw(learning_rate, b1, b2, eps, weight_decay=weight_decay)


@registry.checked
def sgd(learning_rate: Number) -> Transformation:
    """Stochastic gradient descent without momentum."""
    return optax.sgd(learning_rate)


@registry.checked
def momentum(learning_rate: Number, *, decay: Share = 0.9) -> Transformation:
    """Stochastic gradient descent with heavy-ball momentum: m <- decay m + g, p <- p -
    learning_rate m.
    """
    return optax.sgd(learning_rate, momentum=decay)


OPTIMIZERS = {
    "adam": adam,
    "adamw": adamw,
    "sgd": sgd,
    "momentum": momentum,
}
