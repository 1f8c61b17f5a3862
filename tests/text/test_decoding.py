"""Greedy decoding and beam search: plain loops, exhaustive search, vmap, and what a step may rely
on.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity_jax.text import decoding

pytestmark = pytest.mark.usefixtures("compiled_quickly")

START, END = 2, 1


def toy(count, outputs, seed=0, spread=1.5):
    """(step, cache, python's logits of an example and the ids before): the logits depend on all ids
    before, in order.
    """
    table = np.random.default_rng(seed).normal(0, spread, (count, 17, outputs)).astype(np.float32)

    def step(cache, ids, position):
        del position
        cache = cache | {"state": (3 * cache["state"] + ids + 1) % 17}
        return jnp.asarray(table)[cache["example"], cache["state"]], cache

    def logits(example, ids):
        state = 0
        for i in ids:
            state = (3 * state + i + 1) % 17
        return table[example, state]

    return step, {"example": jnp.arange(count), "state": jnp.zeros(count, jnp.int32)}, logits


def log_probabilities(logits):
    logits = logits.astype(np.float64)
    return logits - np.log(np.exp(logits).sum())


def filled(texts, length):
    return np.array([[*text, *[0] * (length - len(text))] for text in texts])


def run(function, step, cache, count, length, **settings):
    settings |= {"count": count, "start": START, "end": END, "length": length}
    ids = jax.jit(lambda cache: function(step, cache, **settings))(cache)
    assert ids.dtype == jnp.int32
    return np.asarray(ids)


def greedily(logits, example, length):
    text = []
    while len(text) < length and END not in text:
        text.append(int(logits(example, [START, *text]).argmax()))
    return text


def searched(logits, example, length, beams, penalty):
    """Beam search by the docstring's rule, in lists."""
    running, finished = [(0.0, [])], []
    for n in range(1, length + 1):
        further = []
        for score, text in running:
            gain = log_probabilities(logits(example, [START, *text]))
            further += [(score + g, [*text, i]) for i, g in enumerate(gain)]
        further = sorted(further, key=lambda pair: -pair[0])[: 2 * beams]
        over = [n == length or text[-1] == END for _, text in further]
        finished += [
            (s / n**penalty, text)
            for (s, text), o in list(zip(further, over, strict=True))[:beams]
            if o
        ]
        finished = sorted(finished, key=lambda pair: -pair[0])[:beams]
        running = [pair for pair, o in zip(further, over, strict=True) if not o][:beams]
        if not running or (
            len(finished) == beams and running[0][0] / n**penalty <= finished[-1][0]
        ):
            break
    return finished[0][1]


def test_greedy_is_a_plain_loop():
    step, cache, logits = toy(30, 5)
    expected = filled([greedily(logits, example, 8) for example in range(30)], 8)
    ends = (expected == END).any(axis=1)
    assert 0 < ends.sum() < 30
    np.testing.assert_array_equal(run(decoding.greedy, step, cache, 30, 8), expected)


@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0, -1.0])
def test_beam_that_is_wide_enough_finds_the_best_text(penalty):
    # 2 ids that do not end and 4 places: at most 8 texts run, so 24 beams finish them all and never
    # stop early
    step, cache, logits = toy(20, 3)
    texts = [
        t for n in range(1, 5) for t in itertools.product(range(3), repeat=n) if END not in t[:-1]
    ]
    texts = [t for t in texts if len(t) == 4 or t[-1] == END]

    def score(example, text):
        before = [[START, *text[:n]] for n in range(len(text))]
        gain = [log_probabilities(logits(example, b))[i] for b, i in zip(before, text, strict=True)]
        return sum(gain) / len(text) ** penalty

    expected = filled(
        [max(texts, key=lambda text: score(example, text)) for example in range(20)], 4
    )
    assert len(np.unique(expected, axis=0)) > 2
    found = run(decoding.beam, step, cache, 20, 4, beams=24, length_penalty=penalty)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("beams", "penalty"), [(2, 1.0), (3, 0.4), (4, 1.5)])
def test_beam_follows_its_rule(beams, penalty):
    step, cache, logits = toy(60, 7)
    expected = filled([searched(logits, example, 9, beams, penalty) for example in range(60)], 9)
    found = run(decoding.beam, step, cache, 60, 9, beams=beams, length_penalty=penalty)
    assert (found != run(decoding.greedy, step, cache, 60, 9)).any()
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_one_beam_is_greedy(penalty):
    step, cache, _ = toy(40, 6)
    found = run(decoding.beam, step, cache, 40, 7, beams=1, length_penalty=penalty)
    np.testing.assert_array_equal(found, run(decoding.greedy, step, cache, 40, 7))


def test_lanes_decode_as_they_do_alone():
    tables = np.random.default_rng(1).normal(0, 1.5, (3, 10, 17, 5)).astype(np.float32)
    _, cache, _ = toy(10, 5)

    def both(table):
        def step(cache, ids, position):
            del position
            cache = cache | {"state": (3 * cache["state"] + ids + 1) % 17}
            return table[cache["example"], cache["state"]], cache

        settings = {"count": 10, "start": START, "end": END, "length": 6}
        return decoding.greedy(step, cache, **settings), decoding.beam(
            step, cache, **settings, beams=3
        )

    together = jax.jit(jax.vmap(both))(tables)
    one = jax.jit(both)
    for lane, table in enumerate(tables):
        for found, expected in zip(together, one(table), strict=True):
            np.testing.assert_array_equal(found[lane], expected)


@pytest.mark.parametrize(
    ("function", "settings", "expected"), [("greedy", {}, 3), ("beam", {"beams": 2}, 4)]
)
def test_stops_once_all_have_ended(function, settings, expected):
    steps = []

    def step(cache, ids, position):
        jax.debug.callback(lambda p: steps.append(int(p)), position)
        ends = jnp.where(position < 2, -4.0, 4.0)  # the end is likely from the third place on
        return jnp.tile(jnp.stack([-6.0, ends, 0.0, -5.0])[None], (len(ids), 1)), cache

    # beam search also waits for its second text, [2, 2, 2, END]
    ids = run(getattr(decoding, function), step, jnp.zeros(4), 4, 50, **settings)
    jax.effects_barrier()
    assert ids[:, :4].tolist() == [[2, 2, END, 0]] * 4
    assert steps == list(range(expected))


def test_beams_below_one_are_refused():
    step, cache, _ = toy(1, 3)
    with pytest.raises(ValueError, match="beams is 0: allowed are whole numbers from 1"):
        run(decoding.beam, step, cache, 1, 3, beams=0)
