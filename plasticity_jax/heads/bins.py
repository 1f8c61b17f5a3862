"""Heads that make classification of regression: a distribution over bins for every number.

A target is encoded as probabilities of the bins, the loss is their cross-entropy, and the number
read from the outputs is the expected position, sum_k p_k z_k. A model gives a network's outputs
[B, outputs * bins], the bins of an output side by side.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from plasticity_jax import registry
from plasticity_jax.types import Array, Batch, Head, Metric, Number, Real, Share

MOST_BINS = 100_000


@registry.checked
def two_hot(
    *, bins: int = 101, low: Real = -10.0, high: Real = 10.0, smoothing: Share = 0.0
) -> Head:
    """Two-hot: a target is shared by the two bins beside it, so that its expected position is
    exact.

    Bins are at z_1 = `low` to z_B = `high`, equally far apart; y between z_k and z_k+1 has p_k =
    (z_k+1 - y) / (z_k+1 - z_k) and p_k+1 = 1 - p_k, then p <- (1 - s) p + s / B with s =
    `smoothing`. A target outside the range has the nearest end's bin and counts in the column
    `outside_range`. Source: Lyle et al. 2024, "Disentangling the Causes of Plasticity Loss";
    Schrittwieser et al. 2020. Number of bins and range are ours. Raises ValueError for fewer than 2
    bins or an empty range.
    """
    return _two_hot("two_hot", bins, low, high, smoothing)


def _two_hot(name: str, bins: int, low: Real, high: Real, smoothing: Share) -> Head:
    _check(name, bins, low, high)

    def encode(y: Array) -> Array:
        place = (jnp.clip(y, low, high) - low) / (high - low) * (bins - 1)
        distance = jnp.abs(place[..., None] - _last(jnp.arange(bins, dtype=jnp.float32), place))
        return jnp.maximum(1 - distance, 0)

    positions = low + (high - low) * jnp.arange(bins, dtype=jnp.float32) / (bins - 1)
    return _categorical(encode, positions, low, high, smoothing)


@registry.checked
def c51(*, bins: int = 51, low: Real = -10.0, high: Real = 10.0) -> Head:
    """C51: an agent's return is a distribution over atoms, whose expectation values an action.

    Atoms are at z_1 = `low` to z_B = `high`, equally far apart. The target is the distribution of
    the next action, its atoms moved to clip(reward + discount z, low, high) and shared by the two
    atoms beside each. Of numbers that are given, not bootstrapped, it is `two_hot`, and those
    outside the range count in the column `outside_range`. Source: Bellemare, Dabney & Munos 2017,
    algorithm 1. Raises ValueError as `two_hot` does.
    """
    plain = _two_hot("c51", bins, low, high, 0.0)
    atoms = low + (high - low) * jnp.arange(bins, dtype=jnp.float32) / (bins - 1)

    def bootstrap(outputs: Array, action: Array, reward: Array, discount: Array) -> Array:
        every = jax.nn.softmax(outputs.reshape(len(outputs), -1, bins))
        actions = every.shape[1]
        chosen = jnp.take_along_axis(every, action[:, None, None], axis=1)[:, 0]
        moved = jnp.clip(reward[:, None] + discount[:, None] * atoms[None], low, high)
        place = (moved - low) / (high - low) * (bins - 1)
        near = jnp.arange(bins, dtype=jnp.float32)[None, None]
        share = jnp.maximum(1 - jnp.abs(place[..., None] - near), 0)  # [B, from, to]
        target = (chosen[..., None] * share).sum(1)
        return jnp.broadcast_to(target[:, None], (len(outputs), actions, bins))

    return plain._replace(bootstrap=bootstrap)


@registry.checked
def hl_gauss(
    *,
    bins: int = 101,
    low: Real = -10.0,
    high: Real = 10.0,
    deviation: Number = 0.75,
    smoothing: Share = 0.0,
) -> Head:
    """HL-Gauss: a target is a normal distribution around it, integrated over each bin.

    The range from `low` to `high` is cut into B equal bins, read at their middles; p_k is the share
    of N(y, (`deviation` * width of a bin)^2) in bin k, over its share in the whole range, then
    smoothed as in `two_hot`. A target outside the range is taken at the nearest end and counts in
    the column `outside_range`; near the ends the expected position is drawn towards the middle.
    Source: Imani & White 2018; Farebrother et al. 2024, whose ratio 0.75 is the default. Raises
    ValueError for fewer than 2 bins or an empty range.
    """
    _check("hl_gauss", bins, low, high)
    if not registry.is_traced(deviation) and not deviation > 0:
        raise ValueError(f"hl_gauss.deviation is {deviation}: allowed are numbers above 0.")
    edges = jnp.arange(bins + 1, dtype=jnp.float32)  # in widths of a bin, from `low`

    def encode(y: Array) -> Array:
        place = (jnp.clip(y, low, high) - low) / (high - low) * bins
        z = (_last(edges, place) - place[..., None]) / deviation
        # (a difference of two values near 1 has no digits left: take the tail on the same side)
        right = z[..., :-1] > 0
        below = jnp.where(right, -z[..., 1:], z[..., :-1])
        above = jnp.where(right, -z[..., :-1], z[..., 1:])
        share = jax.scipy.special.ndtr(above) - jax.scipy.special.ndtr(below)
        return share / share.sum(-1, keepdims=True)

    positions = low + (high - low) * (jnp.arange(bins, dtype=jnp.float32) + 0.5) / bins
    return _categorical(encode, positions, low, high, smoothing)


def _categorical(
    encode: Callable[[Array], Array], positions: Array, low: Any, high: Any, smoothing: Any
) -> Head:
    """A head of the probabilities that `encode` ([B, T] -> [B, T, bins]) gives."""
    bins = len(positions)

    def logits(outputs: Array) -> Array:
        return outputs.reshape(*outputs.shape[:-1], -1, bins)

    def loss(plain: Any, outputs: Array, batch: Batch) -> Array:
        del plain
        # (distributions over bins are taken as they are)
        wanted = batch.y if batch.y.ndim == 3 else encode(batch.y)
        wanted = (1 - smoothing) * wanted + smoothing / bins
        each = -(wanted * jax.nn.log_softmax(logits(outputs))).sum(-1)
        return each.mean(-1) if batch.active is None else mean_of_active(each, batch.active)

    def read(outputs: Array) -> Array:
        # (around the middle, so that a narrow range far from 0 keeps its digits)
        middle = (low + high) / 2
        weights = jax.nn.softmax(logits(outputs))
        return middle + (weights * _last(positions - middle, weights[..., 0])).sum(-1)

    def outside(outputs: Array, batch: Batch) -> Array:
        del outputs
        return ((batch.y < low) | (batch.y > high)).mean(-1, dtype=jnp.float32)

    return Head(
        targets="numbers",
        outputs=lambda numbers: numbers * bins,
        loss=loss,
        read=read,
        metrics=(
            Metric("outside_range", "targets outside the range", "lower", share=True, of=outside),
        ),
    )


def mean_of_active(each: Array, active: Array) -> Array:
    """Returns [B] the mean of `each` [B, C] over what counts, 0 where nothing does."""
    return (each * active).sum(-1) / jnp.maximum(active.sum(-1), 1)


def _last(vector: Array, like: Array) -> Array:
    """`vector` [n] as an array [1, .., 1, n] with one axis more than `like`."""
    return vector.reshape(*[1] * like.ndim, -1)


def _check(name: str, bins: int, low: Any, high: Any) -> None:
    registry.whole(f"{name}.bins", bins, 2, MOST_BINS)
    if not (registry.is_traced(low) or registry.is_traced(high)) and not low < high:
        raise ValueError(
            f"{name}.high is {high}: allowed are numbers above {name}.low, which is {low}."
        )
