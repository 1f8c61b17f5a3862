"""Heads: how a network's outputs are read and scored. A new one is one factory and one line in
HEADS.

A head stands between an environment, which says what targets are, and a model, which gives numbers:
`attached` makes of the two an environment whose outputs are the model's.
"""

from plasticity_jax import registry
from plasticity_jax.heads.bins import hl_gauss, two_hot
from plasticity_jax.heads.plain import linear, smoothed
from plasticity_jax.types import Array, Batch, Environment, Head, Metric

__all__ = ["HEADS", "attached", "check_fit", "hl_gauss", "linear", "smoothed", "two_hot"]

HEADS = {
    "linear": linear,
    "two_hot": two_hot,
    "hl_gauss": hl_gauss,
    "smoothed": smoothed,
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


def check_fit(head: str, environment: Environment, where: str) -> None:
    """Raises ValueError if a head, by its name, is not for the targets of an environment; `where`
    is what to call that.
    """
    made = {name: factory() for name, factory in HEADS.items()}
    fitting = [
        name for name, one in made.items() if one.targets in ("anything", environment.targets)
    ]
    if registry.lookup(HEADS, "head", head) and head not in fitting:
        raise ValueError(
            f"head {head!r} needs targets that are {made[head].targets}, but those of {where} are "
            f"{environment.targets}: allowed are {', '.join(fitting)}."
        )
