"""A stream in which inputs, labels and the mean of the targets change together or apart."""

import jax
import jax.numpy as jnp

from plasticity_jax import registry
from plasticity_jax.environments import classification, pixels
from plasticity_jax.environments.regression import squared_error
from plasticity_jax.types import Array, Batch, Environment, Metric, Number, Real

MODES = {  # name -> whether inputs, labels and the mean of the targets change
    "composite": (True, True, True),
    "continual": (True, True, False),
    "growing": (False, False, True),
}


@registry.checked
def composite(
    *,
    mode: str = "composite",
    inputs: bool = True,
    labels: bool = True,
    targets: bool = True,
    draw: str = "iid",
    growth: Real = 10.0,
    scale: Number = 1.0,
) -> Environment:
    """Composite: pixels are permuted, labels drawn anew and the mean of the targets grows, from
    task to task.

    Targets are numbers: y = `scale` * (label - (classes - 1) / 2) + `growth` * t in task t. Mode
    "composite" has all three changes, "continual" those of inputs and labels, "growing" that of the
    targets alone; the switches `inputs`, `labels` and `targets` take one away. Labels are drawn for
    each example (`draw="iid"`), or the classes change places (`"classes"`). An answer counts as
    right in the accuracy if it is nearer to its target than half the distance between two classes.
    Source: Lyle et al. 2024, "Disentangling the Causes of Plasticity Loss", who name the three
    changes and 20 tasks; what each is exactly is ours. Raises ValueError for another `mode` or
    `draw`.
    """
    registry.one_of("composite.mode", mode, MODES)
    registry.one_of("composite.draw", draw, ("iid", "classes"))
    given = (inputs, labels, targets)
    moves, redrawn, grows = (of and ours for of, ours in zip(MODES[mode], given, strict=True))

    def task(key, data, t):
        first, second = jax.random.split(jax.random.fold_in(key, t))
        order = jnp.arange(pixels.positions(data))
        if moves:
            order = jax.random.permutation(first, order)
        label = jnp.asarray(data.y)
        if redrawn and draw == "classes":
            label = jax.random.permutation(second, data.classes)[label]
        elif redrawn:
            label = jax.random.randint(second, label.shape, 0, data.classes)
        y = scale * (label.astype(jnp.float32) - (data.classes - 1) / 2)
        if grows:
            y = y + growth * jnp.asarray(t, jnp.float32)
        return order, y[:, None]

    def examples(data, task, index):
        order, y = task
        x = classification.normalise(data.x[index], data.mean, data.std)
        return Batch(pixels.rearranged(x, order), y[index], jnp.ones(len(index), jnp.float32))

    def accuracy(outputs: Array, batch: Batch) -> Array:
        return (jnp.abs(outputs - batch.y) < scale / 2).all(-1).astype(jnp.float32)

    shared = "targets" if not redrawn and not grows else "nothing"
    return Environment(
        task,
        examples,
        test=None,
        shared=shared if moves else "inputs",
        loss=squared_error,
        metrics=(
            classification.ACCURACY._replace(of=accuracy, chance=lambda data: 1 / data.classes),
            Metric("squared_error", better="lower", of=squared_error),
        ),
        outputs=lambda data: 1,
        targets="numbers",
    )
