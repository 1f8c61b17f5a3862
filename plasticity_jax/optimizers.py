"""Optimizers, all from optax, with their numbers named, and how a learning rate changes over time.

A new optimizer is one factory and one line in OPTIMIZERS, a new schedule one in SCHEDULES. In a
program of one's own a learning rate may be an optax schedule. A schedule that can change over the
whole run has an option `over` with the value "run" for it: such a run cannot become longer. Raises
ValueError for numbers out of range, as the command line refuses them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

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


class _PerWeight(NamedTuple):
    """Moments of each weight, and how many steps [] int32 are in them, like params."""

    count: Any
    mu: Any
    nu: Any


@registry.checked
def adam_per_weight(
    learning_rate: Number, *, b1: Share = 0.9, b2: Share = 0.999, eps: Number = 1e-8
) -> Transformation:
    """Adam that counts the steps of each weight: one that a method starts afresh steps as at first.

    Where no method does so it is `adam`; there a weight whose moments became zero makes a step of
    about 3.2 times the learning rate. Source: Dohare et al. 2024, the optimizer of continual
    backprop.
    """

    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        count = jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.int32), params)
        return _PerWeight(count, zeros, zeros)

    def step(g, mu, nu, count):
        mean = mu / (1 - jnp.asarray(b1, g.dtype) ** count)
        square = nu / (1 - jnp.asarray(b2, g.dtype) ** count)
        return (mean / (jnp.sqrt(square) + eps)).astype(g.dtype)

    def update(updates, state, params=None):
        del params
        count = jax.tree.map(lambda c: c + 1, state.count)
        mu = optax.tree.update_moment(updates, state.mu, b1, 1)
        nu = optax.tree.update_moment_per_elem_norm(updates, state.nu, b2, 2)
        return jax.tree.map(step, updates, mu, nu, count), _PerWeight(count, mu, nu)

    scale = optax.scale_by_learning_rate(learning_rate)
    return optax.chain(optax.GradientTransformation(init, update), scale)


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
    learning_rate m. Source: Polyak 1964.
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
    "adam_per_weight": adam_per_weight,
    "adamw": adamw,
    "sgd": sgd,
    "momentum": momentum,
}
