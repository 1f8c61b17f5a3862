"""BLEU-2 against a plain count of n-grams, sacrebleu and NLTK."""

import math
import warnings
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plasticity_jax.text import bleu

LENGTH = 60
COUNTS = {unit: jax.jit(lambda h, r, unit=unit: bleu.counts(h, r, unit)) for unit in bleu.UNITS}
SCORE = jax.jit(bleu.bleu)


def rows(texts, length=LENGTH, gaps=0):
    """Texts of a-z, spaces and "?" as characters [B, length], with nothing strewn in by the
    generator seeded `gaps`.
    """
    generator = np.random.default_rng(gaps)
    out = np.zeros((len(texts), length), np.int32)
    for row, text in zip(out, texts, strict=True):
        places = (
            np.sort(generator.choice(length, len(text), replace=False))
            if gaps
            else np.arange(len(text))
        )
        row[places] = [{" ": 27, "?": 28}.get(c, ord(c) - 96) for c in text]
    return jnp.array(out)


def tokens(text, unit):
    return text.split() if unit == "words" else list(text.replace(" ", ""))


def plain_counts(hypothesis, reference, unit):
    hypothesis, reference = tokens(hypothesis, unit), tokens(reference, unit)
    result = []
    for n in (1, 2):
        ngrams, allowed = (
            Counter(zip(*(t[i:] for i in range(n)), strict=False)) for t in (hypothesis, reference)
        )
        result += [
            sum(min(count, allowed[ngram]) for ngram, count in ngrams.items()),
            sum(ngrams.values()),
        ]
    return [*result, len(hypothesis), len(reference)]


def plain_bleu(counts):
    matched1, made1, matched2, made2, hypothesis, reference = counts
    if not (matched1 and matched2):
        return 0.0
    brevity = math.exp(1 - reference / hypothesis) if hypothesis < reference else 1.0
    return brevity * math.exp(0.5 * math.log(matched1 / made1) + 0.5 * math.log(matched2 / made2))


def corpus(seed, texts=40, letters="ab", shortest=0):
    """Pairs that share many n-grams: few distinct short words, hypotheses cut, lengthened and
    changed.
    """
    generator = np.random.default_rng(seed)
    pairs = []
    for _ in range(texts):
        reference = [
            "".join(generator.choice(list(letters), generator.integers(1, 4))) for _ in range(10)
        ]
        size = generator.integers(shortest, 14)
        hypothesis = [
            reference[i % 10] if generator.random() < 0.7 else str(generator.choice(reference))
            for i in range(size)
        ]
        pairs.append(
            (" ".join(hypothesis), " ".join(reference[: generator.integers(max(1, shortest), 11)]))
        )
    return pairs


def score(pairs, unit):
    # empty texts add nothing, and one shape compiles once
    pairs = [*pairs, *[("", "")] * (40 - len(pairs))]
    return float(
        SCORE(COUNTS[unit](rows([h for h, _ in pairs]), rows([r for _, r in pairs])).sum(0))
    )


@pytest.mark.parametrize("unit", bleu.UNITS)
@pytest.mark.parametrize("gaps", [0, 1])
def test_counts_equal_a_plain_count_of_ngrams(unit, gaps):
    pairs = [
        *corpus(0),
        ("", "a b"),
        ("a", "a"),
        ("  a  b ", "a b"),
        ("a a a a", "a a"),
        ("a a", "a a a a"),
        ("", ""),
    ]
    pairs += [
        ("abcdefg abcdefh", "abcdefh abcdefg"),
        ("ab cd", "abcd"),
        ("a?b ?", "ab a"),
        ("ba ab", "ab ba"),
    ]
    got = COUNTS[unit](*(rows(side, gaps=gaps) for side in zip(*pairs, strict=True)))
    assert got.dtype == jnp.float32
    np.testing.assert_array_equal(got, [plain_counts(h, r, unit) for h, r in pairs])


@pytest.mark.parametrize("unit", bleu.UNITS)
@settings(max_examples=100, deadline=None)
@given(
    hypothesis=st.text(alphabet="ab ", max_size=LENGTH),
    reference=st.text(alphabet="ab ", max_size=LENGTH),
    gaps=st.integers(0, 9),
)
def test_counts_of_any_text_equal_a_plain_count(unit, hypothesis, reference, gaps):
    got = COUNTS[unit](rows([hypothesis], gaps=gaps), rows([reference]))[0]
    np.testing.assert_array_equal(got, plain_counts(hypothesis, reference, unit))


def test_long_words_are_told_apart():
    stem = "abcdef"
    others = [stem + "ghijkl" + c for c in "abc"] + [
        stem + "ghijkl",
        stem + "ghijk",
        stem[:-1],
        stem,
        "b" + stem[1:],
    ]
    # words of one letter repeated, and words that differ in one of the first 26 letters
    others += ["a" * n for n in range(1, 27)] + ["a" * n + "b" + "a" * (25 - n) for n in range(26)]
    pairs = [(a, b) for a in others for b in others]
    got = COUNTS["words"](*(rows(side) for side in zip(*pairs, strict=True)))
    np.testing.assert_array_equal(got[:, 0], [a == b for a, b in pairs])


def test_twelve_letters_are_never_taken_for_more():
    """Words of 14 letters whose last eight, as a number in base 29 cut to 32 bits, are those of six
    other letters.
    """
    pairs = []
    for digits in np.random.default_rng(0).integers(1, 27, (2000, 8)):
        number = sum(int(digit) * 29**n for n, digit in enumerate(digits)) % 2**32
        six = [number // 29**n % 29 for n in range(6)]
        if number < 29**6 and all(1 <= digit <= 26 for digit in six):
            pairs.append(
                tuple(
                    "abcdef" + "".join(chr(96 + digit) for digit in ending)
                    for ending in (digits, six)
                )
            )
    assert len(pairs) > 40
    assert COUNTS["words"](*(rows(side) for side in zip(*pairs, strict=True)))[:, 0].sum() == 0


@pytest.mark.parametrize("unit", bleu.UNITS)
def test_bleu_equals_its_formula(unit):
    for seed in range(5):
        pairs = corpus(seed, texts=3 + seed)
        expected = plain_bleu(np.sum([plain_counts(h, r, unit) for h, r in pairs], axis=0))
        assert 0 < expected < 1
        assert score(pairs, unit) == pytest.approx(expected, abs=1e-6)


def test_bleu_at_its_edges():
    """Nothing made, nothing matched, no bigram matched: 0. All matched: 1, and the brevity penalty
    alone.
    """
    cases = {
        (0, 0, 0, 0, 0, 10): 0,
        (0, 0, 0, 0, 0, 0): 0,
        (0, 5, 0, 4, 5, 5): 0,
        (3, 5, 0, 4, 5, 5): 0,
        (1, 1, 0, 0, 1, 1): 0,
        (5, 5, 4, 4, 5, 5): 1,
        (5, 5, 4, 4, 5, 10): math.exp(-1),
        (5, 10, 4, 9, 10, 5): math.sqrt(5 / 10 * 4 / 9),
    }
    for counts, expected in cases.items():
        assert float(SCORE(jnp.array(counts, jnp.float32))) == pytest.approx(expected, abs=1e-6), (
            counts
        )


@pytest.mark.parametrize("unit", bleu.UNITS)
def test_a_text_is_its_own_best_translation(unit):
    pairs = [(reference, reference) for _, reference in corpus(3)]
    assert score(pairs, unit) == 1.0


def test_lanes_and_chunks_add_up_to_the_same():
    pairs = corpus(4)
    hypothesis, reference = (rows(side).reshape(4, 10, LENGTH) for side in zip(*pairs, strict=True))
    lanes = jax.jit(jax.vmap(lambda h, r: bleu.counts(h, r).sum(0)))(hypothesis, reference)
    whole = COUNTS["words"](hypothesis.reshape(40, -1), reference.reshape(40, -1)).sum(0)
    np.testing.assert_array_equal(lanes.sum(0), whole)


@pytest.mark.parametrize("unit", bleu.UNITS)
def test_texts_of_one_character(unit):
    np.testing.assert_array_equal(
        bleu.counts(rows(["a", "a"], 1), rows(["a", "b"], 1), unit)[:, 0], [1, 0]
    )


def test_unknown_unit_is_refused():
    with pytest.raises(ValueError, match=r"unit is 'letters': allowed are 'words', 'characters'\."):
        bleu.counts(rows(["a"]), rows(["a"]), "letters")


@pytest.mark.oracle
@pytest.mark.parametrize(("unit", "tokenize"), [("words", "none"), ("characters", "char")])
def test_bleu_equals_sacrebleu(unit, tokenize):
    sacrebleu = pytest.importorskip("sacrebleu")
    metric = sacrebleu.BLEU(max_ngram_order=2, smooth_method="none", tokenize=tokenize, force=True)
    for seed in range(10):
        pairs = corpus(seed, texts=4 + 3 * seed)
        expected = metric.corpus_score([h for h, _ in pairs], [[r for _, r in pairs]]).score / 100
        assert 0 < expected < 1
        assert score(pairs, unit) == pytest.approx(expected, abs=1e-6)


@pytest.mark.oracle
@pytest.mark.parametrize("unit", bleu.UNITS)
def test_bleu_equals_nltk(unit):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nltk = pytest.importorskip("nltk.translate.bleu_score")
    for seed in range(10):
        # NLTK counts a text without bigrams as if it had one, so every text has two words
        pairs = corpus(seed, texts=4 + 3 * seed, shortest=2)
        hypotheses, references = (
            [tokens(text, unit) for text in side] for side in zip(*pairs, strict=True)
        )
        expected = nltk.corpus_bleu(
            [[reference] for reference in references], hypotheses, weights=(0.5, 0.5)
        )
        assert score(pairs, unit) == pytest.approx(expected, abs=1e-6)
