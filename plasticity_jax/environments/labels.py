"""Environments that keep the images and redraw their labels."""

import jax

from plasticity_jax import registry
from plasticity_jax.environments import classification
from plasticity_jax.types import Environment


def random_labels(*, draw: str = "shuffle", change: bool = True) -> Environment:
    """Random image labelling: the same images in every task, random labels fixed within a task.

    `draw="shuffle"` permutes the dataset's own labels over the images, so every task has the same class counts (as the
    paper's public code does); `"iid"` draws each label uniformly (as its text says). There is nothing to generalise
    to, so there is no test split. `change=False` is a control: every task is the first one again, so that what a
    transition's schedule does by itself can be told from what change does.
    Source: Liu & Mou, section 3, Random Image Labeling; Lyle et al. 2023. Raises ValueError for another `draw`.
    """
    registry.one_of("random_labels.draw", draw, ("shuffle", "iid"))

    accuracy = classification.ACCURACY
    if draw == "iid":  # of all classes, whether the dataset's own labels have them or not
        accuracy = accuracy._replace(chance=lambda data: 1 / data.classes)

    def task(key, data):
        if draw == "shuffle":
            return jax.random.permutation(key, data.y)
        return jax.random.randint(key, data.y.shape, 0, data.classes, data.y.dtype)

    def examples(data, labels, index):
        x = classification.normalise(data.x[index], data.mean, data.std)
        return classification.batch(x, labels[index], data.classes)

    return Environment(
        task,
        examples,
        test=None,
        shared="inputs",
        loss=classification.cross_entropy,
        metric=classification.accuracy,
        metric_name="accuracy",
        changes=change,
        about=(accuracy, classification.NATS),
    )
