"""SentencePiece's unigram model: its file, and the tokenization it implies, for words of the
letters a-z.

The file is a protocol buffer of which a dozen fields matter, so it is read here, without the
library. Source: Kudo 2018, section 3 (unigram model, best segmentation); sentencepiece_model.proto
and unigram_model.cc of SentencePiece 0.2.3.
"""

import functools
import math
import re
import string
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from plasticity_jax.datasets.contract import DataError, path_of
from plasticity_jax.storage.small_files import read_bytes
from plasticity_jax.types import Array

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
MARK = "\u2581"
"""What SentencePiece writes for a space, and puts before the first word."""

_SYMBOLS = string.ascii_lowercase + MARK
_ALGORITHMS = {1: "unigram", 2: "BPE", 3: "word", 4: "char"}
_EXPECTED = "expected a file that SentencePiece wrote, such as T5's spiece.model"
# Field numbers: ModelProto, then TrainerSpec and NormalizerSpec within it
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_MODEL_TYPE, _COUNT, _MARK_BEHIND, _END_PIECE, _PAD_PIECE = 3, 4, 24, 47, 48
_MARK_FIRST, _ESCAPE_SPACES = 3, 5
# How the fields that are read are written, by number: a field written otherwise is another one to a
# protocol buffer
_INTEGER, _BYTES, _FLOAT = 0, 2, 5
_MODEL = {_PIECES: _BYTES, _TRAINER: _BYTES, _NORMALIZER: _BYTES}
_PIECE = {1: _BYTES, 2: _FLOAT, 3: _INTEGER}
_SETTINGS = {
    _TRAINER: dict.fromkeys((_MODEL_TYPE, _COUNT, _MARK_BEHIND), _INTEGER)
    | {_END_PIECE: _BYTES, _PAD_PIECE: _BYTES},
    _NORMALIZER: {_MARK_FIRST: _INTEGER, _ESCAPE_SPACES: _INTEGER},
}


class Piece(NamedTuple):
    """An entry of the vocabulary: its text, its logarithmic probability, and its type, one of
    NORMAL to BYTE.
    """

    text: str
    score: float
    type: int = NORMAL


class Model(NamedTuple):
    """Pieces in the order of their ids, and the ids of padding and of the end of a text."""

    pieces: tuple[Piece, ...]
    pad: int
    end: int


def read(path: str | Path) -> Model:
    """Returns the model that a SentencePiece file holds. Raises DataError where the file is
    missing, is not a SentencePiece model, or is cut short or otherwise damaged, ValueError where
    the model is not unigram, does not put its mark before every word, or has no padding or no end.
    """
    try:
        content = read_bytes(path_of(path))
    except OSError as error:
        raise DataError(
            f"SentencePiece model {path} cannot be read ({error.strerror}): {_EXPECTED}."
        ) from error
    try:
        fields = list(_fields(content, _MODEL))
        pieces = tuple(_piece(value) for number, value in fields if number == _PIECES)
        trainer, normalizer = _settings(fields, _TRAINER), _settings(fields, _NORMALIZER)
        # there may be more pieces, as some are added to trained models, but not fewer
        cut = trainer.get(_COUNT, 0) > len(pieces)
        names = [
            trainer.get(_PAD_PIECE, b"<pad>").decode(),
            trainer.get(_END_PIECE, b"</s>").decode(),
        ]
    except (ValueError, IndexError) as error:
        raise DataError(
            f"{path} is not a SentencePiece model: its {len(content)} bytes do not parse as one, "
            f"{_EXPECTED}."
        ) from error
    if not pieces:
        raise DataError(
            f"{path} is not a SentencePiece model: there are no pieces in its {len(content)} "
            f"bytes, {_EXPECTED}."
        )
    # settings stand behind the pieces, so that a file cut between two pieces parses but has none
    messages = {"trainer": _TRAINER, "normalizer": _NORMALIZER}
    numbers = {number for number, _ in fields}
    lacking = [name for name, number in messages.items() if number not in numbers]
    if lacking:
        raise DataError(
            f"SentencePiece model {path} is cut short: behind {len(pieces)} pieces its "
            f"{len(content)} bytes lack settings of the {' and the '.join(lacking)}, expected both "
            "the trainer's and the normalizer's."
        )
    if cut:
        raise DataError(
            f"SentencePiece model {path} is cut short: it has {len(pieces)} pieces, expected at "
            f"least the {trainer[_COUNT]} that it was trained with."
        )
    _check_pieces(path, pieces)
    _check_settings(path, trainer, normalizer)
    controls = {piece.text: i for i, piece in enumerate(pieces) if piece.type == CONTROL}
    missing = [name for name in names if name not in controls]
    if missing:
        raise ValueError(
            f"SentencePiece model {path} lacks {' and '.join(missing)}: a vocabulary needs padding "
            "and end."
        )
    return Model(pieces, *(controls[name] for name in names))


def _check_settings(
    path: str | Path, trainer: Mapping[int, Any], normalizer: Mapping[int, Any]
) -> None:
    """Raises ValueError for a model of another kind than is read here."""
    algorithm = trainer.get(_MODEL_TYPE, 1)
    if algorithm != 1:
        found = _ALGORITHMS.get(algorithm, f"of type {algorithm}")
        raise ValueError(f"SentencePiece model {path} is {found}: allowed is unigram.")
    first = normalizer.get(_MARK_FIRST, 1) and normalizer.get(_ESCAPE_SPACES, 1)
    if trainer.get(_MARK_BEHIND, 0) or not first:
        raise ValueError(
            f"SentencePiece model {path} does not put {MARK} before every word: allowed is one "
            "that does."
        )


def _settings(fields: Sequence[tuple[int, Any]], number: int) -> dict[int, Any]:
    """Returns {field: value} of the message `number`, {} if there is none; its parts, if it has
    several, are one.
    """
    return dict(
        _fields(b"".join(value for given, value in fields if given == number), _SETTINGS[number])
    )


def _piece(message: bytes) -> Piece:
    values = dict(_fields(message, _PIECE))
    (score,) = struct.unpack("<f", values.get(2, bytes(4)))
    return Piece(values.get(1, b"").decode(), score, values.get(3, NORMAL))


def _fields(message: bytes, written: Mapping[int, int]) -> Iterator[tuple[int, Any]]:
    """Yields (field number, value) of a protocol buffer: integers as such, everything else as its
    bytes.

    `written` says how the fields that matter are written. Raises ValueError or IndexError for what
    is no such message.
    """
    at = 0
    while at < len(message):
        tag, at = _integer(message, at)
        number, wire = tag >> 3, tag & 7
        if not 0 < number < 2**29 or written.get(number, wire) != wire:
            raise ValueError(f"field {number} written as {wire}")
        if wire == _INTEGER:
            value, at = _integer(message, at)
            if number in written and value >= 2**31:
                raise ValueError(f"a value of {value}")
            yield number, value
            continue
        if wire == _BYTES:
            size, at = _integer(message, at)
        elif wire in (1, _FLOAT):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if at + size > len(message):
            raise ValueError("a field is cut off")
        yield number, message[at : at + size]
        at += size


def _integer(message: bytes, at: int) -> tuple[int, int]:
    """Returns the variable-length integer at byte `at` and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("an integer of more than ten bytes")


def _check_pieces(path: str | Path, pieces: Sequence[Piece]) -> None:
    """Raises DataError for pieces that SentencePiece never writes."""
    seen = set()
    for number, piece in enumerate(pieces):
        fault = ""
        if not piece.text:
            fault = "has no text"
        elif piece.text in seen:
            fault = f"is {piece.text[:40]!r} again"
        elif not NORMAL <= piece.type <= BYTE:
            fault = f"is of type {piece.type}"
        elif not math.isfinite(piece.score):
            fault = f"has the score {piece.score}"
        if fault:
            raise DataError(
                f"SentencePiece model {path} is damaged: piece {number} of {len(pieces)} {fault}, "
                f"{_EXPECTED}."
            )
        seen.add(piece.text)


def check(pieces: Sequence[Piece]) -> None:
    """Nothing, when every word of a-z can be tokenized with `pieces`, and each word by itself.
    Raises ValueError where a letter or the mark is no piece, or a piece of letters has the mark
    inside or is user-defined (such a piece would be cut out before all others).
    """
    normal = {piece.text for piece in pieces if piece.type == NORMAL}
    missing = [symbol for symbol in _SYMBOLS if symbol not in normal]
    if missing:
        raise ValueError(
            f"vocabulary does not fit: it lacks {' '.join(missing)}, expected {MARK} and the "
            "letters a to z."
        )
    lettered = [piece for piece in pieces if re.fullmatch(f"[{_SYMBOLS}]+", piece.text)]
    across = [
        piece.text
        for piece in lettered
        if piece.type == NORMAL and re.search(f"[a-z]{MARK}", piece.text)
    ]
    if across:
        raise ValueError(
            f"vocabulary does not fit: piece {across[0]!r} ends a word, expected {MARK} in front "
            "only."
        )
    forced = [piece.text for piece in lettered if piece.type == USER_DEFINED]
    if forced:
        raise ValueError(
            f"vocabulary does not fit: piece {forced[0]!r} is user-defined, expected no such word "
            "of a to z."
        )


def tokenizer(pieces: Sequence[Piece]) -> Callable[[Array], tuple[Array, Array]]:
    """Returns letters [B, W, K] in 0..25 -> (ids, kept), both [B, W * (K + 1)]: the row's ids are
    those that are kept.

    The segmentation with the greatest sum of scores, and among near ties the one that SentencePiece
    takes: it adds up in float32 from the beginning of the text, not of the word, and of pieces with
      one end and equal sums takes the longest.
    Before 0.2.2 it did not round before it compared, and so split one in about 2,700 random words
    of five letters, at the end of long texts, into other pieces.
    """

    trie = functools.cache(functools.partial(_trie, pieces))

    def tokenize(letters: Array) -> tuple[Array, Array]:
        batch, words, length = letters.shape
        mark = jnp.full((batch, words, 1), len(_SYMBOLS) - 1, jnp.int32)
        symbols = jnp.concatenate([mark, letters.astype(jnp.int32)], axis=-1)
        ids, scores = _matches(trie(length + 1), symbols)
        taken = _best(scores)
        # taken[..., e] is the length of the best piece that ends behind symbol e; walk back over
        # the cuts.
        cut, kept = jnp.full((batch, words), length), []
        for e in reversed(range(length + 1)):
            kept.append(cut == e)
            cut = jnp.where(cut == e, e - taken[..., e], cut)
        kept = jnp.stack(kept[::-1], axis=-1)
        chosen = []
        for end in range(length + 1):
            ending = jnp.stack([ids[n][..., end - n] for n in range(end + 1)], axis=-1)
            longest = taken[..., end : end + 1] - 1
            chosen.append(jnp.take_along_axis(ending, longest, axis=-1))
        return jnp.concatenate(chosen, axis=-1).reshape(batch, -1), kept.reshape(batch, -1)

    return tokenize


class _Trie(NamedTuple):
    """Node 0 is "no piece begins so", node 1 the empty prefix; the nodes that have children come
    first.

    `children` [inner nodes * 27] by node * 27 + symbol; `ids` and `scores` [nodes] of the piece
    that ends there: where none does, the score is the lowest there is.
    """

    children: np.ndarray
    ids: np.ndarray
    scores: np.ndarray


def _trie(pieces: Sequence[Piece], longest: int) -> _Trie:
    """Returns the trie of the normal pieces of at most `longest` symbols, all letters but the
    first.
    """
    fits = re.compile(f"{MARK}?[a-z]*")
    words = {
        piece.text: (i, piece.score)
        for i, piece in enumerate(pieces)
        if piece.type == NORMAL and 0 < len(piece.text) <= longest and fits.fullmatch(piece.text)
    }
    inner: set[str] = set()
    for text in words:
        inner |= {text[:n] for n in range(len(text))}
    prefixes = ["", *sorted(inner - {""}), *sorted(words.keys() - inner)]
    number = {prefix: i + 1 for i, prefix in enumerate(prefixes)}
    children = np.zeros((len(inner) + 1, len(_SYMBOLS)), np.int32)
    for prefix in prefixes[1:]:
        children[number[prefix[:-1]], _SYMBOLS.index(prefix[-1])] = number[prefix]
    ids = np.zeros(len(prefixes) + 1, np.int32)
    scores = np.full(len(prefixes) + 1, np.finfo(np.float32).min)
    for text, (i, score) in words.items():
        ids[number[text]], scores[number[text]] = i, score
    return _Trie(children.reshape(-1), ids, scores)


def _matches(trie: _Trie, symbols: Array) -> tuple[list[Array], list[Array]]:
    """Returns ids and scores of the pieces of n + 1 symbols that begin at each of `symbols` [...,
    P]: [..., P - n].
    """
    children, ids, scores = (jnp.asarray(table) for table in trie)
    node, found = jnp.ones_like(symbols), []
    for n in range(symbols.shape[-1]):
        node = node[..., : symbols.shape[-1] - n] * len(_SYMBOLS) + symbols[..., n:]
        # nodes without children have no row
        node = children.at[node].get(mode="fill", fill_value=0)
        found.append(node)
    return [ids[node] for node in found], [scores[node] for node in found]


def _best(scores: list[Array]) -> Array:
    """Returns the lengths [B, W, P] of the best pieces that end behind each symbol, from the scores
    of `_matches`.
    """

    def word(total: Array, scores: list[Array]) -> tuple[Array, Array]:
        best, taken = [total], []
        for end in range(len(scores)):
            most, length = jnp.full_like(total, -jnp.inf), jnp.zeros_like(total, jnp.int32)
            for start in range(end + 1):
                sum_of_scores = best[start] + scores[end - start][..., start]
                better = sum_of_scores > most
                most, length = (
                    jnp.where(better, sum_of_scores, most),
                    jnp.where(better, end + 1 - start, length),
                )
            best.append(most)
            taken.append(length)
        return best[-1], jnp.stack(taken, axis=-1)

    by_word = [jnp.moveaxis(score, 1, 0) for score in scores]
    _, taken = jax.lax.scan(word, jnp.zeros_like(scores[0][:, 0, 0]), by_word)
    return jnp.moveaxis(taken, 0, 1)
