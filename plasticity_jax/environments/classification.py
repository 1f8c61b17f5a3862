"""What all image-classification environments share: normalized images, one-hot targets,
cross-entropy, accuracy.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from plasticity_jax.types import Array, Batch, Data, Metric

NATS = Metric("loss", "loss in nats", better="lower")


def normalise(x: Array, mean: Array, std: Array) -> Array:
    """Returns [B, H, W, C] float32 images of zero mean and unit deviation per channel, from uint8
    `x`.
    """
    mean, std = (jnp.broadcast_to(a, x.shape) for a in (mean, std))
    return (x.astype(jnp.float32) - mean) / std


def batch(x: Array, labels: Array, classes: int) -> Batch:
    """Returns the batch of float images `x` [B, ...] with one-hot targets of `labels` [B]."""
    return Batch(
        x, jax.nn.one_hot(labels, classes, dtype=jnp.float32), jnp.ones(labels.shape, jnp.float32)
    )


def cross_entropy(logits: Array, batch: Batch) -> Array:
    """Returns [B] cross-entropy in nats of soft targets [B, C] under softmax(`logits`)."""
    return optax.softmax_cross_entropy(logits, batch.y, where=batch.active)


def accuracy(logits: Array, batch: Batch) -> Array:
    """Returns [B] 1 where the largest active logit is the largest target, else 0. Meaningless for
    uniform targets.
    """
    if batch.active is not None:
        logits = jnp.where(batch.active, logits, -jnp.inf)
    return accuracy_of_all(logits, batch)


def accuracy_of_all(logits: Array, batch: Batch) -> Array:
    """Returns [B] 1 where the largest logit of all is the largest target, else 0."""
    return (logits.argmax(-1) == batch.y.argmax(-1)).astype(jnp.float32)


def most_frequent(data: Data) -> float:
    """Returns the share of the most frequent label: the accuracy of the best answer that looks at
    no image.

    It is 1 over the number of classes that occur if they occur equally often, and more if not;
    guessing among the classes at random would score less, and a network that has lost what it knew
    ends with one answer, not with a draw.
    """
    return float(np.bincount(np.asarray(data.y)).max() / len(data.y))


ACCURACY = Metric("accuracy", better="higher", share=True, chance=most_frequent, of=accuracy)
