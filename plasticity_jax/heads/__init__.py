"""Heads: how a network's outputs are read and scored. A new one is one factory and one line in
HEADS.

A head stands between an environment, which says what targets are, and a model, which gives numbers:
`attached` makes of the two an environment whose outputs are the model's.
"""

from collections.abc import Callable

import jax.numpy as jnp

from plasticity_jax import registry
from plasticity_jax.heads.bins import c51, hl_gauss, mean_of_active, two_hot
from plasticity_jax.heads.plain import linear, scale_invariant, smoothed
from plasticity_jax.types import Array, Batch, Environment, Head, Metric

__all__ = [
    "HEADS",
    "attached",
    "bootstrap",
    "c51",
    "check_fit",
    "dueling",
    "hl_gauss",
    "linear",
    "mean_of_active",
    "smoothed",
    "two_hot",
]

HEADS = {
    "linear": linear,
    "two_hot": two_hot,
    "hl_gauss": hl_gauss,
    "c51": c51,
    "smoothed": smoothed,
    "scale_invariant": scale_invariant,
}


def attached(environment: Environment, head: Head) -> Environment:
    """Returns the environment as a model with this head sees it: number of outputs, loss, metrics.

    The metrics are of what the head reads; what it measures itself comes after them. A head without
    a loss of its own gives the environment as it is.
    """
    own = head.loss
    if own is None:
        return environment

    def loss(outputs: Array, batch: Batch) -> Array:
        return own(environment.loss, outputs, batch)

    def of_reading(metric: Metric) -> Metric:
        return metric._replace(of=lambda outputs, batch: metric.of(head.read(outputs), batch))

    return environment._replace(
        outputs=lambda data: head.outputs(environment.outputs(data)),
        loss=loss,
        metrics=(*map(of_reading, environment.metrics), *head.metrics),
    )


def bootstrap(head: Head) -> Callable[[Array, Array, Array, Array], Array]:
    """Returns (outputs at what was seen next, action there [B], reward [B], discount [B]) ->
    targets, as the head's loss takes them: [B, actions], or [B, actions, bins] of distributions.
    """
    if head.bootstrap is not None:
        return head.bootstrap

    def targets(outputs: Array, action: Array, reward: Array, discount: Array) -> Array:
        values = head.read(outputs)
        best = jnp.take_along_axis(values, action[:, None], axis=1)[:, 0]
        return jnp.broadcast_to((reward + discount * best)[:, None], values.shape)

    return targets


def dueling(head: Head) -> Head:
    """Returns a head whose outputs are a value and an advantage of each action.

    An action's outputs are V + A_a - mean(A), of each bin where there are bins. Source: Wang et al.
    2016, equation 9. Deviation: value and advantages share all hidden layers.
    """
    width = head.outputs(1)
    loss = head.loss

    def joined(outputs: Array) -> Array:
        parts = outputs.reshape(len(outputs), -1, width)
        value, advantage = parts[:, :1], parts[:, 1:]
        every = value + advantage - advantage.mean(1, keepdims=True)
        return every.reshape(len(outputs), -1)

    def own_loss(plain: Callable, outputs: Array, batch: Batch) -> Array:
        made = joined(outputs)
        return plain(made, batch) if loss is None else loss(plain, made, batch)

    def of_joined(metric: Metric) -> Metric:
        return metric._replace(of=lambda outputs, batch: metric.of(joined(outputs), batch))

    return head._replace(
        outputs=lambda numbers: head.outputs(numbers + 1),
        loss=own_loss,
        read=lambda outputs: head.read(joined(outputs)),
        metrics=tuple(map(of_joined, head.metrics)),
        bootstrap=lambda outputs, *rest: bootstrap(head)(joined(outputs), *rest),
    )


def check_fit(head: str, environment: Environment, where: str) -> None:
    """Raises ValueError if a head, by its name, is not for the targets of an environment; `where`
    is what to call that.
    """
    targets = registry.lookup(HEADS, "head", head)().targets
    fits = ("anything", environment.targets)
    # (the others only for the sentence: those with bins compute their places, which compiles)
    if targets not in fits:
        made = {name: factory() for name, factory in HEADS.items()}
        fitting = [name for name, one in made.items() if one.targets in fits]
        raise ValueError(
            f"head {head!r} needs targets that are {targets}, but those of {where} are "
            f"{environment.targets}: allowed are {', '.join(fitting)}."
        )
