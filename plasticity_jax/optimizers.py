"""Optimizers, all from optax, with their numbers named, and how a learning rate changes over time.

A new optimizer is one factory and one line in OPTIMIZERS, a new schedule one in SCHEDULES. In a
program of one's own a learning rate may be an optax schedule. A schedule that can change over the
whole run has an option `over` with the value "run" for it: such a run cannot become longer. Raises
ValueError for numbers out of range, as the command line refuses them.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from plasticity_jax import registry
from plasticity_jax.types import Array, Number, Share

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


Schedule = Callable[[Array, int, int], Array]
"""(step since the start, steps of a task, steps of the run) -> [] factor of the learning rate."""


def constant() -> None:
    """The learning rate as it is."""


@registry.checked
def cosine(*, over: str = "task", warmup: Share = 0.1, final: Share = 0.0) -> Schedule:
    """Linear warmup from 0, then half a cosine down to `final` times the learning rate.

    `over` is "task", so that every task has its own warmup and decay, or "run"; `warmup` is the
    share of it in which the rate rises. At step t of T, with w = warmup T: t / w for t < w, else
    final + (1 - final) (1 + cos(pi (t - w) / (T - w))) / 2. The first step of a warmup has rate 0.
    Source: Loshchilov & Hutter 2017; the form of optax.warmup_cosine_decay_schedule.
    """
    registry.one_of("cosine.over", over, ("task", "run"))

    def factor(step: Array, task: int, run: int) -> Array:
        total = task if over == "task" else run
        at = (step % task if over == "task" else step).astype(jnp.float32)
        rising = warmup * total
        decayed = jnp.clip((at - rising) / jnp.maximum(total - rising, 1.0), 0.0, 1.0)
        falling = final + (1 - final) * 0.5 * (1 + jnp.cos(jnp.pi * decayed))
        return jnp.where(at < rising, at / jnp.maximum(rising, 1.0), falling)

    return factor


def scheduled(
    optimizer: optax.GradientTransformation, factor: Callable[[Array], Array]
) -> optax.GradientTransformationExtraArgs:
    """Returns `optimizer` with its updates times `factor(ctx.step)`; it remembers nothing more.

    The learning rate is the last factor of every optimizer here, decoupled weight decay included,
    so this is the optimizer with that learning rate. `update` needs `ctx=Context(...)`.
    """
    inner = optax.with_extra_args_support(optimizer)

    def update(updates, state, params=None, *, ctx=None, **extra):
        if ctx is None:
            raise ValueError("a scheduled optimizer needs update(..., ctx=Context(...)).")
        updates, state = inner.update(updates, state, params, ctx=ctx, **extra)
        scale = factor(ctx.step)
        return jax.tree.map(lambda u: (scale * u).astype(u.dtype), updates), state

    return optax.GradientTransformationExtraArgs(inner.init, update)


SCHEDULES = {
    "constant": constant,
    "cosine": cosine,
}

OPTIMIZERS = {
    "adam": adam,
    "adamw": adamw,
    "sgd": sgd,
    "momentum": momentum,
}
