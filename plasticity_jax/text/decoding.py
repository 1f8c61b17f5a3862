"""Decoding: from a model that gives the next id's logits to whole texts, compiled, for all examples
at once.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from plasticity_jax.types import Array, PyTree

Step = Callable[[Any, Array, Array], tuple[Array, Any]]
"""(cache, ids [N], position []) -> (logits [N, V] of the ids that follow, cache). Batch leads every
leaf of a cache.
"""

PADDING = 0


def greedy(step: Step, cache: PyTree, *, count: int, start: int, end: int, length: int) -> Array:
    """Returns ids [B, length]: the likeliest next id each time, behind `start`, up to and with
    `end`, then 0.

    `count` is B. Stops as soon as all texts have ended. Of equal logits the lowest id is taken.
    """

    def unfinished(carry):
        position, _, over, _, _ = carry
        return (position < length) & ~over.all()

    def extend(carry):
        position, last, over, cache, ids = carry
        logits, cache = step(cache, last, position)
        new = jnp.where(over, PADDING, logits.argmax(-1).astype(jnp.int32))
        ids = jax.lax.dynamic_update_slice_in_dim(ids, new[:, None], position, axis=1)
        return position + 1, new, over | (new == end), cache, ids

    empty = jnp.full((count, length), PADDING, jnp.int32)
    first = jnp.int32(0), jnp.full(count, start, jnp.int32), jnp.zeros(count, bool), cache, empty
    return jax.lax.while_loop(unfinished, extend, first)[-1]


class _Search(NamedTuple):
    """State of a beam search; the texts of an example are in order of their scores, the best first.

    Attributes:
      position: [] ids that every running text has.
      cache: the model's, [B * beams, ...].
      last: [B, beams] the last id of each running text.
      running, score: [B, beams, length] running texts and [B, beams] their scores, -inf where there
        is no text.
      finished, finished_score: the same of finished texts.
      open: [B] whether a running text may still surpass a finished one.
    """

    position: Array
    cache: PyTree
    last: Array
    running: Array
    score: Array
    finished: Array
    finished_score: Array
    open: Array


def beam(
    step: Step,
    cache: PyTree,
    *,
    count: int,
    start: int,
    end: int,
    length: int,
    beams: int = 5,
    length_penalty: float = 1.0,
) -> Array:
    """Returns ids [B, length]: the best finished text that beam search finds behind `start`, up to
    and with `end`, then 0.

    `count` is B. A running text scores the sum of its ids' log-probabilities, a finished one this
    sum divided by n**length_penalty, n being its number of ids. A step looks at the 2 `beams` best
    continuations of an example's running texts. Those that end, with `end` or because they have
    `length` ids, are finished, if they are among the `beams` best continuations; of the others the
    `beams` best run on. The `beams` best finished texts are kept. An example is over once there are
    so many and the best running text, scored as if it were finished as it is, is no better than the
    worst of them. With one beam this is `greedy`.

    Equals `generate(num_beams=beams, do_sample=False, max_new_tokens=length, early_stopping=False)`
    of transformers. Raises ValueError for `beams` < 1.
    """
    if beams < 1:
        raise ValueError(f"beams is {beams}: allowed are whole numbers from 1.")
    penalty = jnp.asarray(np.arange(1, length + 1) ** float(length_penalty), jnp.float32)

    def extend(search: _Search) -> _Search:
        position = search.position
        logits, cache = step(search.cache, search.last.reshape(-1), position)
        gain = jax.nn.log_softmax(logits).astype(jnp.float32).reshape(count, beams, -1)
        total, chosen = jax.lax.top_k(
            (search.score[:, :, None] + gain).reshape(count, -1), 2 * beams
        )
        parent, ids = jnp.divmod(chosen, gain.shape[-1])
        texts = _pick(search.running, parent)
        texts = jax.lax.dynamic_update_slice_in_dim(texts, ids[:, :, None], position, axis=2)
        ends = (ids == end) | (position == length - 1)

        score, kept = jax.lax.top_k(jnp.where(ends, -jnp.inf, total), beams)
        admitted = ends & (jnp.arange(2 * beams) < beams)[None] & search.open[:, None]
        ended = jnp.where(admitted, total / penalty[position], -jnp.inf)
        finished_score, best = jax.lax.top_k(
            jnp.concatenate([search.finished_score, ended], axis=1), beams
        )
        return _Search(
            position + 1,
            _reordered(search.cache, cache, _pick(parent, kept)),
            _pick(ids, kept),
            _pick(texts, kept),
            score,
            _pick(jnp.concatenate([search.finished, texts], axis=1), best),
            finished_score,
            search.open & (score[:, 0] / penalty[position] > finished_score[:, -1]),
        )

    nothing = jnp.full((count, beams), -jnp.inf, jnp.float32)
    empty = jnp.full((count, beams, length), PADDING, jnp.int32)
    first = _Search(
        jnp.int32(0),
        jax.tree.map(lambda leaf: jnp.repeat(leaf, beams, axis=0), cache),
        jnp.full((count, beams), start, jnp.int32),
        empty,
        nothing.at[:, 0].set(0),  # all beams are alike at first: only one of them counts
        empty,
        nothing,
        jnp.ones(count, bool),
    )
    last = jax.lax.while_loop(
        lambda search: (search.position < length) & search.open.any(), extend, first
    )
    return last.finished[:, 0]


def _pick(x: Array, index: Array) -> Array:
    """Returns x [B, k, ...] at `index` [B, n] of its second axis, [B, n, ...]."""
    return jnp.take_along_axis(x, index.reshape(*index.shape, *[1] * (x.ndim - 2)), axis=1)


def _reordered(old: PyTree, new: PyTree, parent: Array) -> PyTree:
    """Returns the cache `new` [B * beams, ...] with the rows that `parent` [B, beams] names within
    each example.

    What a step hands through unchanged is the same for all beams of an example, and need not be
    moved.
    """
    count, beams = parent.shape
    rows = (jnp.arange(count)[:, None] * beams + parent).reshape(-1)
    return jax.tree.map(lambda before, after: after if after is before else after[rows], old, new)
