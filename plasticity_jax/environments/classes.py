"""Environments whose tasks are of different classes of one dataset."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from plasticity_jax import registry
from plasticity_jax.environments import augmentation, classification
from plasticity_jax.types import FIXED, Array, Batch, Data, Environment, Key, Metric, Stage

AUGMENTATIONS = {"none": None, "crop_flip_jitter": augmentation.crop_flip_jitter}


@registry.checked
def class_split(
    *, per_task: int = 5, classes: str = "refuse", parts: int = 1, augment: str = "none"
) -> Environment:
    """Class split: each task is of other classes of the dataset; only its own outputs count.

    Two accuracies are measured: among the task's outputs, and among all outputs, as the public code
    has it, where an output that was never trained may win. The classes are put into a random order,
    fixed over the run, and dealt out `per_task` at a time. Loss and accuracy are of the task's
    classes alone (`Batch.active`). All classes have an equal number of examples, the first ones of
    each; what is more is left out.
    Options: `classes` says what happens when all classes have had their turn: "refuse" a run of
    more tasks than that, or "regroup" them in a new random order for the next round; `parts`
    measures a long task so many times, each part having the run's number of epochs; `augment` says
    how images are changed anew in every training step, "none" or "crop_flip_jitter".
    Source: Joudaki et al. 2025, experiment E1 (Tiny-ImageNet, 40 tasks of 5 classes). Raises
    ValueError for another `classes` or `augment`, `per_task` < 1 or `parts` < 1.
    """
    registry.one_of("class_split.classes", classes, ("refuse", "regroup"))
    registry.one_of("class_split.augment", augment, AUGMENTATIONS)
    registry.whole("class_split.per_task", per_task, 1)
    registry.whole("class_split.parts", parts, 1)

    def round_length(data: Data) -> int:
        return data.classes // per_task  # tasks in which no class comes twice

    def chosen(key: Key, data: Data, t: Array) -> Array:
        number, place = t // round_length(data), t % round_length(data)
        shuffled = jax.random.fold_in(jax.random.fold_in(key, FIXED), number)
        order = jax.random.permutation(shuffled, data.classes)
        return jax.lax.dynamic_slice_in_dim(order, place * per_task, per_task)

    def task(key, data, t):
        return Split(
            chosen(key, data, t), rows(data.y, data.classes), rows(data.test_y, data.classes)
        )

    def batch(data: Data, task: Split, x: Array, table: Array, index: Array) -> Batch:
        label = task.classes[index % per_task]
        images = classification.normalise(x[table[label, index // per_task]], data.mean, data.std)
        made = classification.batch(images, label, data.classes)
        active = jnp.zeros(data.classes, bool).at[task.classes].set(True)
        return made._replace(active=jnp.broadcast_to(active, made.y.shape))

    accuracy = classification.ACCURACY._replace(chance=lambda data: 1 / per_task)
    accuracy_of_all = Metric(
        "accuracy_of_all",
        "accuracy among all outputs",
        "higher",
        share=True,
        of=classification.accuracy_of_all,
    )

    def check(data: Data, tasks: int) -> None:
        if per_task > data.classes:
            raise ValueError(
                f"class_split.per_task is {per_task}: allowed are up to {data.classes}, the "
                "classes of the dataset."
            )
        most = round_length(data) * parts
        if classes == "refuse" and tasks > most:
            each = f", each of {parts} parts that count as tasks" if parts > 1 else ""
            raise ValueError(
                f"tasks is {tasks}, but {data.classes} classes make {round_length(data)} tasks of "
                f"{per_task}{each}: allowed are up to {most}, or class_split.classes=regroup."
            )

    return Environment(
        task,
        examples=lambda data, task, index: batch(data, task, data.x, task.train, index),
        test=lambda data, task, index: batch(data, task, data.test_x, task.test, index),
        shared="nothing",
        loss=classification.cross_entropy,
        metrics=(accuracy, accuracy_of_all),
        loss_metric=classification.NATS,
        schedule=lambda number: Stage(number // parts, number % parts, parts),
        size=lambda data: per_task * (len(data.x) // data.classes),
        test_size=lambda data: per_task * (len(data.test_x) // data.classes),
        check=check,
        augment=AUGMENTATIONS[augment],
    )


class Split(NamedTuple):
    """A task: its classes [per_task], and the rows of each class of the dataset [classes, n]."""

    classes: Array
    train: Array
    test: Array


def rows(y: Array, classes: int) -> Array:
    """Returns [classes, len(y) // classes] the rows of the first examples of each class, which must
    have so many.
    """
    by_class = jnp.argsort(y, stable=True)
    first = jnp.searchsorted(y[by_class], jnp.arange(classes, dtype=y.dtype)).astype(jnp.int32)
    return by_class[first[:, None] + jnp.arange(len(y) // classes, dtype=jnp.int32)[None]]
