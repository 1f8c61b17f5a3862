"""Environments of random text: what a sequence-to-sequence model reads and writes is drawn anew for
every task.
"""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from plasticity_jax import registry
from plasticity_jax.environments import classification
from plasticity_jax.text import bleu as bleu_
from plasticity_jax.text import vocabulary as vocabularies
from plasticity_jax.text.vocabulary import Vocabulary
from plasticity_jax.types import Array, Batch, Data, Decoding, Environment, Key, Metric, Text

LETTERS = 26
LONGEST = 10_000  # characters of a text: attention compares each with each
MOST_BEAMS = 1_000
BLEU = Metric("bleu2", "BLEU-2", better="higher", share=True)


@registry.checked
def random_seq2seq(
    *,
    words: int = 50,
    target_words: int = 5,
    word_length: int = 5,
    vocabulary: str = "characters",
    mask_padding: bool = True,
    beams: int = 1,
    decoded: int = 1344,
    bleu: str = "words",
    change: bool = True,
) -> Environment:
    """Random Seq2Seq: random words in, random words out, all drawn anew in every task; to be learnt
    by heart.

    Letters are uniform and independent. There is nothing to generalize to, so there is no test
    split. At the end of a task at most `decoded` examples are generated and scored.
    Options: `vocabulary` "characters" or the path of a SentencePiece model; `mask_padding=False`
    trains on padding after the end as well; `beams` of beam search, 1 is greedy; tokens of BLEU-2
    are "words" or "characters"; `change=False` is a
    control: every task is the first one again.
    Source: Liu & Mou 2026, section 3, Random Seq2Seq; sizes, 5 beams and 21 batches of 64 decoded
    from their public code, which uses T5's SentencePiece vocabulary and trains on padding. Raises
    ValueError for sizes or beams < 1, more than 1,000 beams or 10,000 characters.
    """
    sizes = {"words": words, "target_words": target_words, "word_length": word_length}
    how = _How(vocabulary, mask_padding, beams, decoded, bleu)
    texts = _texts("random_seq2seq", sizes, target_words, how)

    def task(key, data, t):
        keys = jax.random.split(jax.random.fold_in(key, t if change else 0))
        return tuple(
            _draw(k, len(data.x), w, word_length)
            for k, w in zip(keys, (words, target_words), strict=True)
        )

    def examples(data, task, index):
        source, target = task
        return texts.batch(source[index], target[index])

    return _environment(task, examples, None, texts)


@registry.checked
def bigram_cipher(
    *,
    words: int = 10,
    word_length: int = 5,
    vocabulary: str = "characters",
    mask_padding: bool = True,
    beams: int = 1,
    decoded: int = 512,
    bleu: str = "words",
    test: str = "clean",
    change: bool = True,
) -> Environment:
    """Bigram cipher: o_t = (p(c_t) + p(c_{t-1})) mod 26 with a hidden permutation p of the alphabet
    per task.

    c_t are the letters of random words in a row (spaces are skipped, and put back into the output),
    before the first stands "a". Training inputs are drawn anew in every task. `test="clean"` draws
    test inputs apart from them, under the same p; `"leaked"` takes the first training inputs, as
    the public code does. Other options as in `random_seq2seq`. Source: Liu & Mou 2026, section 3,
    Bigram Cipher; rule and sizes from their public code. Raises ValueError for another `test`,
    sizes or beams < 1.
    """
    sizes = {"words": words, "word_length": word_length}
    how = _How(vocabulary, mask_padding, beams, decoded, bleu)
    texts = _texts("bigram_cipher", sizes, words, how)
    registry.one_of("bigram_cipher.test", test, ("clean", "leaked"))

    def task(key, data, t):
        cipher, train, held_out = jax.random.split(jax.random.fold_in(key, t if change else 0), 3)
        order = jax.random.permutation(cipher, LETTERS)
        source = _draw(train, len(data.x), words, word_length)
        if test == "leaked":
            return order, source, source[jnp.arange(len(data.test_x)) % len(source)]
        return order, source, _draw(held_out, len(data.test_x), words, word_length)

    def examples(data, task, index):
        order, source, _ = task
        return texts.batch(source[index], encipher(order, source[index]))

    def held_out(data, task, index):
        order, _, source = task
        return texts.batch(source[index], encipher(order, source[index]))

    return _environment(task, examples, held_out, texts)


def encipher(order: Array, letters: Array) -> Array:
    """Returns the cipher text [B, W, K] of `letters` [B, W, K] in 0..25 under the permutation
    `order` [26].
    """
    row = letters.reshape(len(letters), -1)
    before = jnp.pad(row, ((0, 0), (1, 0)))[:, :-1]  # before the first letter stands "a", 0
    return ((order[row] + order[before]) % LETTERS).reshape(letters.shape)


def cross_entropy(logits: Array, batch: Batch) -> Array:
    """Returns [B, T] cross-entropy in nats of the target ids [B, T] under softmax(`logits` [B, T,
    V]).
    """
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch.y)


def token_accuracy(logits: Array, batch: Batch) -> Array:
    """Returns [B, T] 1 where the largest logit is the target id, given the true ids before it."""
    return (logits.argmax(-1) == batch.y).astype(jnp.float32)


class _Texts(NamedTuple):
    """How letters become examples, and how what is generated is scored."""

    symbols: Vocabulary
    mask_padding: bool
    decoding: Decoding

    def batch(self, source: Array, target: Array) -> Batch:
        """Returns the batch of letters `source` [B, W, K] and `target` [B, V, K]."""
        ids, y = self.symbols.encode(source), self.symbols.encode(target)
        inputs = jnp.pad(y, ((0, 0), (1, 0)), constant_values=self.symbols.start)[:, :-1]
        weight = (y != self.symbols.pad) if self.mask_padding else jnp.ones(y.shape, bool)
        return Batch(Text(ids, inputs), y, weight.astype(jnp.float32))


class _How(NamedTuple):
    """The options that both environments have."""

    vocabulary: str
    mask_padding: bool
    beams: int
    decoded: int
    bleu: str


def _texts(name: str, sizes: Mapping[str, int], target_words: int, how: _How) -> _Texts:
    for setting, value in {**sizes, "decoded": how.decoded}.items():
        registry.whole(f"{name}.{setting}", value, 1)
    registry.whole(f"{name}.beams", how.beams, 1, MOST_BEAMS)
    most = max(sizes["words"], target_words)
    characters = most * (sizes["word_length"] + 1)
    if characters > LONGEST:
        raise ValueError(
            f"{name} has texts of {most} words of {sizes['word_length']} letters, {characters} "
            f"characters with spaces: allowed are up to {LONGEST}."
        )
    registry.one_of(f"{name}.bleu", how.bleu, bleu_.UNITS)
    symbols = _vocabulary(how.vocabulary)

    def counts(ids, y):
        return bleu_.counts(symbols.spell(ids), symbols.spell(y), how.bleu)

    decoding = Decoding(
        start=symbols.start,
        end=symbols.end,
        length=symbols.length(target_words, sizes["word_length"]),
        beams=how.beams,
        samples=how.decoded,
        counts=counts,
        score=bleu_.bleu,
        metric=BLEU,
        special=symbols.special,
    )
    return _Texts(symbols, how.mask_padding, decoding)


@functools.cache
def _vocabulary(name: str) -> Vocabulary:
    return vocabularies.characters() if name == "characters" else vocabularies.sentencepieces(name)


def _draw(key: Key, count: int, words: int, word_length: int) -> Array:
    return jax.random.randint(key, (count, words, word_length), 0, LETTERS, jnp.int32)


def _environment(
    task: Callable, examples: Callable, test: Callable | None, texts: _Texts
) -> Environment:
    def outputs(data: Data) -> int:
        return texts.symbols.size

    return Environment(
        task,
        examples,
        test,
        shared="nothing",
        transition="sampling",
        loss=cross_entropy,
        metrics=(Metric("token_accuracy", better="higher", share=True, of=token_accuracy),),
        loss_metric=classification.NATS,
        inputs="text",
        outputs=outputs,
        decoding=texts.decoding,
        data="nothing",
        targets="ids",
    )
