"""A regression that changes slowly: bits of the input flip one at a time under a fixed target
network.
"""

import jax
import jax.numpy as jnp

from plasticity_jax import registry
from plasticity_jax.types import FIXED, Array, Batch, Environment, Metric

LARGEST = 1_000_000  # bits, and units of the target: more is no experiment


@registry.checked
def bit_flip(
    *, bits: int = 20, flipping: int = 15, hidden: int = 100, threshold: float = 0.7
) -> Environment:
    """Bit flipping: of `bits` inputs the first `flipping` stand still within a task, and one of
    them flips between tasks.

    The other bits are drawn anew for every example; a last input is always 1. The target is a fixed
    network of `hidden` linear threshold units drawn once per run: weights, output weights and
    output bias are -1 or 1 with equal probability, unit i is 1 where w_i x > threshold (bits + 1) -
    s_i, s_i the number of its negative input weights less half its weight of the constant input, as
    in the public code; the text of Joudaki et al. has threshold bits - s_i, which is not offered.
    Source: Dohare et al. 2024; Joudaki et al. 2025, experiment E3. Raises ValueError for numbers
    out of range: `bits` and `hidden` from 1 to a million, `flipping` up to `bits`, `threshold` from
    0 to 1.
    """
    registry.whole("bit_flip.bits", bits, 1, LARGEST)
    registry.whole("bit_flip.flipping", flipping, 0)
    registry.whole("bit_flip.hidden", hidden, 1, LARGEST)
    if flipping > bits:
        raise ValueError(
            f"bit_flip.flipping is {flipping}: allowed are up to {bits}, the number of bits."
        )
    if not 0 <= registry.number("bit_flip.threshold", threshold) <= 1:
        raise ValueError(f"bit_flip.threshold is {threshold}: allowed are 0 to 1.")
    free = bits - flipping

    def target(key):
        ours, out, offset = jax.random.split(jax.random.fold_in(key, FIXED), 3)
        weights = jax.random.rademacher(ours, (bits + 1, hidden), jnp.float32)
        negative = (weights[:bits] < 0).sum(0).astype(jnp.float32) - 0.5 * weights[bits]
        edge = threshold * (bits + 1) - negative
        return (
            weights,
            edge,
            jax.random.rademacher(out, (hidden,), jnp.float32),
            jax.random.rademacher(offset, (), jnp.float32),
        )

    def slow(key, t):
        """The bits that stand still in task t: the parity of how often each was flipped."""

        def change(i, now):
            drawn = jax.random.fold_in(jax.random.fold_in(key, i), 0)
            flipped = jax.random.randint(drawn, (), 0, flipping, jnp.int32)
            return now ^ (jnp.arange(flipping, dtype=jnp.int32) == flipped)

        return jax.lax.fori_loop(1, t + 1, change, jnp.zeros(flipping, bool)).astype(jnp.float32)

    def task(key, data, t):
        count = len(data.x)
        fresh = jax.random.bernoulli(
            jax.random.fold_in(jax.random.fold_in(key, t), 1), shape=(count, free)
        )
        still = jnp.broadcast_to(slow(key, t), (count, flipping))
        x = jnp.concatenate(
            [still, fresh.astype(jnp.float32), jnp.ones((count, 1), jnp.float32)], axis=1
        )
        weights, edge, out, offset = target(key)
        y = (x @ weights > edge[None]).astype(jnp.float32) @ out + offset
        return x, y[:, None]

    def examples(data, task, index):
        x, y = task
        return Batch(x[index], y[index], jnp.ones(index.shape, jnp.float32))

    return Environment(
        task,
        examples,
        test=None,
        shared="nothing",
        loss=squared_error,
        metrics=(Metric("squared_error", better="lower", of=squared_error),),
        inputs="vectors",
        outputs=lambda data: 1,
        data="nothing",
        targets="numbers",
    )


def squared_error(outputs: Array, batch: Batch) -> Array:
    """Returns [B] the squared error, summed over outputs."""
    return ((outputs - batch.y) ** 2).sum(-1)
