"""BLEU-2 of a corpus as sums over its texts, so that chunks add up and every lane is scored inside
one program.

Source: Papineni et al. 2002, section 2, with n-grams of one and two tokens, uniform weights, one
reference per text and no smoothing.
"""

import jax
import jax.numpy as jnp
import numpy as np

from plasticity_jax import registry
from plasticity_jax.text.vocabulary import NOTHING, OTHER, SPACE
from plasticity_jax.types import Array

UNITS = ("words", "characters")
_BASE = OTHER + 1
_DIGITS = 6
"""Characters that one 32-bit number holds, with room for a flag: 2 * 29^6 < 2^32."""


def counts(hypothesis: Array, reference: Array, unit: str = "words") -> Array:
    """Returns [B, 6] float32: unigrams matched and made, bigrams matched and made, tokens of
    hypothesis and reference.

    `hypothesis` [B, M] and `reference` [B, N] are characters as `Vocabulary.spell` gives them.
    Tokens are the words between spaces, or the single characters other than spaces. A match is
    clipped: an n-gram counts no more often than the reference has it. Sums of the rows over a
      corpus are exact up to 2^24 tokens.

    Words are compared exactly if one of the two has at most 12 characters; two longer words that
    differ, but not in the first six characters, are taken for equal with a probability of about
    2^-32. Characters other than letters are all alike, so a reference should have none. Work grows
    with the product of the lengths for words, with their sum for characters, memory with their sum.
    Raises ValueError for an unknown unit.
    """
    row = {"words": _word_counts, "characters": _character_counts}[
        registry.one_of("unit", unit, UNITS)
    ]
    return jax.vmap(row)(hypothesis, reference).astype(jnp.float32)


def bleu(counts: Array) -> Array:
    """Returns the BLEU-2 [] in 0..1 of `counts` [6] summed over a corpus; 0 if no unigram or no
    bigram matches.

    BP * sqrt(p1 * p2), with p_n the share of n-grams matched and BP = exp(1 - reference /
    hypothesis) where the hypotheses have fewer tokens in all than the references, else 1.
    """
    matched, made = counts[:4:2], counts[1:4:2]
    precision = matched / jnp.maximum(made, 1)
    brevity = jnp.exp(jnp.minimum(0, 1 - counts[5] / jnp.maximum(counts[4], 1)))
    return brevity * jnp.sqrt(precision[0] * precision[1])


def _previous(holds: Array) -> Array:
    """Returns [M] the index of the last position before each one where `holds` [M], -1 where there
    is none.
    """
    index = jnp.where(holds, jnp.arange(len(holds)), -1)
    return jnp.pad(jax.lax.cummax(index), (1, 0), constant_values=-1)[:-1]


def _words(text: Array) -> tuple[Array, Array]:
    """Returns the words of `text` [M] as pairs of numbers [T, 2] uint32, and their number []; T = M
    / 2 is the most.
    """
    most = (len(text) + 1) // 2
    inside = (text != NOTHING) & (text != SPACE)
    before = _previous(text != NOTHING)
    begins = inside & ((before < 0) | (text[before] == SPACE))
    rank = jnp.cumsum(inside) - 1
    offset = rank - jax.lax.cummax(jnp.where(begins, rank, 0))  # place of a character in its word
    powers = np.array([pow(_BASE, n, 2**32) for n in range(len(text))], np.uint32)
    digit = text.astype(jnp.uint32) * jnp.asarray(powers)[offset % _DIGITS]
    rest = text.astype(jnp.uint32) * jnp.asarray(powers)[jnp.maximum(offset - _DIGITS, 0)]
    # The first number holds six characters and whether there are more than twelve, the second the
    # others.
    first = jnp.where(
        offset < _DIGITS, digit, jnp.where(offset == 2 * _DIGITS, np.uint32(_BASE**_DIGITS), 0)
    )
    second = jnp.where(offset < _DIGITS, 0, rest)
    word = jnp.where(inside, jnp.cumsum(begins) - 1, most)
    numbers = (
        jnp.zeros((most, 2), jnp.uint32).at[word].add(jnp.stack([first, second], -1), mode="drop")
    )
    return numbers, begins.sum()


def _word_counts(hypothesis: Array, reference: Array) -> Array:
    (hypothesis_words, made), (words, length) = _words(hypothesis), _words(reference)
    index = jnp.arange(len(words))
    found = _occurrences(words, hypothesis_words, jnp.full_like(index, made))
    earlier = _occurrences(words, words, index)
    # An n-gram of the reference is matched if fewer equal ones come before it than the hypothesis
    # has.
    single, pair = ((index < length) & (e < f) for e, f in zip(earlier, found, strict=True))
    return jnp.stack([single.sum(), made, pair.sum(), jnp.maximum(made - 1, 0), made, length])


def _occurrences(words: Array, others: Array, limit: Array) -> tuple[Array, Array]:
    """Returns how often each of `words` [T, 2] occurs among `others` [S, 2], and so each pair by
    its second word: [T], [T].

    For word i only the first `limit[i]` of `others` count.
    """

    # A loop over `others`, since all comparisons at once would hold S * T numbers for each text.
    def step(
        carry: tuple[Array, Array, Array], other: tuple[Array, Array]
    ) -> tuple[tuple[Array, Array, Array], None]:
        before, single, pair = carry
        word, j = other
        same = (words[:, 0] == word[0]) & (words[:, 1] == word[1]) & (j < limit)
        both = same & jnp.pad(before, (1, 0))[:-1]
        return (same, single + same, pair + both), None

    none = jnp.zeros_like(limit)
    (_, single, pair), _ = jax.lax.scan(
        step, (none > 0, none, none), (others, jnp.arange(len(others)))
    )
    return single, pair


def _character_counts(hypothesis: Array, reference: Array) -> Array:
    singles, pairs = zip(_histograms(hypothesis), _histograms(reference), strict=True)
    length, reference_length = (single.sum() for single in singles)
    return jnp.stack(
        [
            jnp.minimum(*singles).sum(),
            length,
            jnp.minimum(*pairs).sum(),
            jnp.maximum(length - 1, 0),
            length,
            reference_length,
        ]
    )


def _histograms(text: Array) -> tuple[Array, Array]:
    """Returns how often each character [29] and each pair of neighbors [29 * 29] is in `text` [M];
    spaces do not count.
    """
    inside = (text != NOTHING) & (text != SPACE)
    before = _previous(inside)
    single = jnp.where(inside, text, _BASE)
    pair = jnp.where(inside & (before >= 0), text[before] * _BASE + text, _BASE**2)
    singles = jnp.zeros(_BASE, jnp.int32).at[single].add(1, mode="drop")
    return singles, jnp.zeros(_BASE**2, jnp.int32).at[pair].add(1, mode="drop")
