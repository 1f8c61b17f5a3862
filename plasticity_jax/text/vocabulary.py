"""What a vocabulary is, and the two there are: an id per character, and T5's pieces of words.

A text is drawn as `letters` [B, W, K], values 0..25: W words of K letters, with a space between two
words. What ids stand for is told in characters: 1..26 are the letters a..z, `SPACE`, `OTHER` for
any other character, and `NOTHING`, which may lie anywhere and is to be skipped.
"""

import string
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from plasticity_jax.text import sentencepieces as unigram
from plasticity_jax.types import Array

NOTHING = 0
SPACE = 27
OTHER = 28


class Vocabulary(NamedTuple):
    """How texts become ids of a sequence-to-sequence model and back; built outside jit, its
    functions run inside.

    Attributes:
      size: number of ids, 0..size-1. A model may have more outputs; `spell` takes every id beyond
        for unknown.
      pad: id that fills a row behind `end`.
      end: id that closes a text.
      start: id that a decoder begins with.
      encode: letters [B, W, K] in 0..25 -> ids [B, length(W, K)] int32: the text, `end`, then
        `pad`.
      length: (words, letters) -> the most ids that such a text can have, with `end`.
      spell: ids [B, L] -> characters [B, M] int32, M a multiple of L. From the first `end` on there
        is nothing, and `pad` is nothing wherever it is.
      special: of pieces, the ids that are no text, ("padding", id), ("end", id), ("unknown", id) if
        there is one, and other control pieces by their text; empty where ids are characters.
    """

    size: int
    pad: int
    end: int
    start: int
    encode: Callable[[Array], Array]
    length: Callable[[int, int], int]
    spell: Callable[[Array], Array]
    special: tuple[tuple[str, int], ...] = ()


def speller(table: np.ndarray, unknown: np.ndarray, end: int) -> Callable[[Array], Array]:
    """Returns `spell` of a vocabulary whose id i stands for the characters `table[i]`.

    `table` is [size, longest] and `unknown` [longest], both filled up with `NOTHING`; ids outside
    0..size-1 are unknown.
    """
    rows = np.concatenate([table, unknown[None]]).astype(np.int8)

    def spell(ids: Array) -> Array:
        known = (ids >= 0) & (ids < len(table))
        text = jnp.asarray(rows)[jnp.where(known, ids, len(table))].astype(jnp.int32)
        before_end = jnp.cumsum(ids == end, axis=1) == 0
        return jnp.where(before_end[..., None], text, NOTHING).reshape(len(ids), -1)

    return spell


def characters() -> Vocabulary:
    """Vocabulary of 30 ids: 0 padding, 1 end, 2 start, 3 space, 4..29 the letters. Every text fills
    its row exactly.
    """
    end, space, first_letter = 1, 3, 4

    def encode(letters: Array) -> Array:
        batch, words, _ = letters.shape
        after = jnp.full((batch, words, 1), space, jnp.int32).at[:, -1].set(end)
        return jnp.concatenate([letters.astype(jnp.int32) + first_letter, after], axis=-1).reshape(
            batch, -1
        )

    table = np.concatenate([np.full(space, NOTHING), [SPACE], np.arange(1, 27)])[:, None]
    spell = speller(table, np.array([OTHER]), end)
    return Vocabulary(
        len(table), 0, end, 2, encode, lambda words, letters: words * (letters + 1), spell
    )


def sentencepieces(path: str | Path) -> Vocabulary:
    """Vocabulary of a SentencePiece unigram model file such as T5's: `encode` gives the library's
    ids, `spell` its text.

    A decoder begins with padding. `size` counts the pieces in the file: T5's has 32,000, its
    checkpoints more rows (see models/t5.py). Source: Raffel et al. 2020, section 2.1. Raises
    DataError where the file is missing, is not a SentencePiece model, or is cut short, ValueError
    where the model is not unigram, or lacks padding, end or a letter (see `from_pieces`).
    """
    return from_pieces(*unigram.read(path))


def from_pieces(pieces: Sequence[unigram.Piece], pad: int, end: int) -> Vocabulary:
    """Vocabulary of a unigram model given by its pieces in the order of their ids, and its ids of
    padding and end.

    Raises ValueError unless all words of a to z can be tokenized with the pieces, each by itself.
    """
    unigram.check(pieces)
    tokenize = unigram.tokenizer(pieces)

    def length(words: int, letters: int) -> int:
        return words * (letters + 1) + 1

    def encode(letters: Array) -> Array:
        ids, kept = tokenize(letters)
        last = jnp.ones((len(ids), 1), jnp.int32)
        return _packed(
            jnp.concatenate([ids, end * last], 1), jnp.concatenate([kept, last > 0], 1), pad
        )

    texts = [_characters(piece) for piece in pieces]
    unknown = [SPACE, OTHER, SPACE]  # SentencePiece writes " \u2047 "
    table = np.full((len(texts), max(map(len, [*texts, unknown]))), NOTHING)
    for row, text in zip(table, texts, strict=True):
        row[: len(text)] = text
    spell = speller(table, np.pad(unknown, (0, table.shape[1] - len(unknown))), end)
    special = _special(pieces, pad, end)
    return Vocabulary(len(table), pad, end, pad, encode, length, spell, special)


def _special(pieces: Sequence[unigram.Piece], pad: int, end: int) -> tuple[tuple[str, int], ...]:
    """Returns the ids that are no text, by what they mean or, of other control pieces, by their
    text.
    """
    special = {"padding": pad, "end": end}
    for i, piece in enumerate(pieces):
        if piece.type in (unigram.UNKNOWN, unigram.CONTROL) and i not in (pad, end):
            special["unknown" if piece.type == unigram.UNKNOWN else piece.text] = i
    return tuple(special.items())


def _characters(piece: unigram.Piece) -> list[int]:
    """Returns what a piece stands for; a byte of a character that is no piece counts as one
    character.
    """
    if piece.type == unigram.CONTROL:
        return []
    if piece.type == unigram.UNKNOWN:
        return [SPACE, OTHER, SPACE]
    if piece.type == unigram.BYTE:
        return [OTHER]
    known = {
        unigram.MARK: SPACE,
        **{letter: i + 1 for i, letter in enumerate(string.ascii_lowercase)},
    }
    return [known.get(character, OTHER) for character in piece.text]


def _packed(ids: Array, kept: Array, pad: int) -> Array:
    """Returns `ids` [B, L] with those that are kept in front, in their order, and `pad` behind."""
    place = jnp.where(kept, jnp.cumsum(kept, axis=1) - 1, ids.shape[1])
    row = jnp.full(ids.shape[1], pad, ids.dtype)
    return jax.vmap(lambda ids, place: row.at[place].set(ids, mode="drop"))(ids, place)
