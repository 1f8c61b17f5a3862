"""Environments that keep the images and redraw their labels."""

import jax
import jax.numpy as jnp

from plasticity_jax import registry
from plasticity_jax.environments import classification
from plasticity_jax.types import FIXED, Environment, Share, Whole


@registry.checked
def random_labels(
    *, draw: str = "shuffle", change: bool = True, share: Share = 1.0, every: Whole = 1
) -> Environment:
    """Random image labeling: the same images in every task, random labels fixed within a task.

    `draw="shuffle"` permutes the dataset's own labels over the images, so every task has the same
    class counts (as the paper's public code does); `"iid"` draws each label uniformly (as its text
    says); `"classes"` gives the dataset's classes to each other in random order, so that images of
    a class keep a label in common. There is no test split. `change=False` is a control: every task
    is the first one again, so that what a transition's schedule does by itself can be told from
    what change does.
    At every `every`-th task change a share `share` of the labels is drawn anew, without
    replacement: example i has the draw number floor(floor(t / every) share + rank_i) of its label,
    where ranks (0 to 1) are fixed over the run. So a label is kept for 1 / share changes, only two
    draws are in use at any time, and a share of 1 draws all. Source: Liu & Mou 2026, section 3,
    Random Image Labeling; Lyle et al. 2023. Raises ValueError for another `draw`, or numbers out of
    range.
    """
    registry.one_of("random_labels.draw", draw, ("shuffle", "iid", "classes"))

    accuracy = classification.ACCURACY
    if draw == "iid":  # of all classes, whether the dataset's own labels have them or not
        accuracy = accuracy._replace(chance=lambda data: 1 / data.classes)

    def drawn(key, data):
        if draw == "classes":
            return jax.random.permutation(key, data.classes)[data.y]
        return jax.random.randint(key, data.y.shape, 0, data.classes, data.y.dtype)

    def task(key, data, t):
        number = jnp.asarray(t if change else 0, jnp.int32) // every
        passed = number.astype(jnp.float32) * jnp.float32(share)
        whole = jnp.floor(passed)
        # two draws of the labels and the fixed ranks, shuffled in a loop, as that compiles once
        # (together they would be unrolled, a quarter of the code of a small program)
        first = whole.astype(jnp.uint32)
        wanted = jnp.stack([first, first + 1, jnp.uint32(FIXED)])
        each = jax.vmap(jax.random.fold_in, (None, 0))(key, wanted)
        places = jnp.arange(len(data.y), dtype=data.y.dtype)
        if draw == "shuffle":
            three = jnp.stack([data.y, data.y, places])
            shuffled = jax.lax.map(lambda one: jax.random.permutation(*one), (each, three))
            *both, order = shuffled
        else:
            both = jax.vmap(drawn, (0, None))(each[:2], data)
            order = jax.random.permutation(each[2], places)
        rank = (order.astype(jnp.float32) + 0.5) / len(data.y)
        return jnp.where(rank + (passed - whole) < 1, both[0], both[1])

    def examples(data, labels, index):
        x = classification.normalise(data.x[index], data.mean, data.std)
        return classification.batch(x, labels[index], data.classes)

    return Environment(
        task,
        examples,
        test=None,
        shared="inputs",
        transition="output",
        loss=classification.cross_entropy,
        metrics=(accuracy,),
        loss_metric=classification.NATS,
    )
