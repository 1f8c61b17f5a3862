"""Random Seq2Seq and the Bigram Cipher: what their tasks are, and a task of each from end to
end.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny

from plasticity_jax import lanes, registry
from plasticity_jax.datasets import load, subsample
from plasticity_jax.environments import bigram_cipher, random_seq2seq
from plasticity_jax.environments.text import encipher
from plasticity_jax.execution.program import device_data
from plasticity_jax.spec import Spec
from plasticity_jax.stream import keys
from plasticity_jax.stream import order as order_
from plasticity_jax.training import network, supervised

pytestmark = pytest.mark.usefixtures("compiled_quickly")

KEY = jax.random.key(3)
SPACE, LETTER, START, END = 3, 4, 2, 1  # ids of the vocabulary of characters
T5 = {
    "model": "t5",
    "dataset": "generated",
    "t5.feed_forward": 16,
    "t5.heads": 2,
    "t5.head_width": 4,
}


def data(samples=64, test=32):
    return device_data(subsample(load("generated"), samples, test))


def text(ids) -> str:
    """What ids of the vocabulary of characters say, up to the end."""
    letters = {SPACE: " ", **{LETTER + i: chr(ord("a") + i) for i in range(26)}}
    row = list(map(int, ids))
    return "".join(letters[i] for i in row[: row.index(END)])


def enciphered(plain: str, order) -> str:
    """The cipher, letter by letter."""
    before, out = 0, []
    for character in plain:
        if character == " ":
            out.append(" ")
            continue
        code = ord(character) - ord("a")
        out.append(chr(ord("a") + (int(order[code]) + int(order[before])) % 26))
        before = code
    return "".join(out)


def test_a_cipher_worked_by_hand():
    # with p(c) = c the cipher adds each letter to the one before it, and "a" (0) stands before the
    # first
    letters = jnp.asarray([[[1, 2], [25, 3]]])  # "bc zd"
    np.testing.assert_array_equal(
        encipher(jnp.arange(26), letters), [[[1, 3], [1, 2]]]
    )  # "bd bc": 0+1, 1+2, 2+25, 25+3
    swapped = jnp.arange(26).at[jnp.array([0, 1])].set(jnp.array([1, 0]))
    # p(a) = 1, p(b) = 0
    np.testing.assert_array_equal(encipher(swapped, letters), [[[1, 2], [1, 2]]])


@pytest.mark.parametrize("part", ["examples", "test"])
def test_the_cipher_maps_texts_letter_by_letter(part):
    env, made = bigram_cipher(words=3, word_length=4), data()
    task = env.task(KEY, made, 0)
    batch = getattr(env, part)(made, task, jnp.arange(8))
    assert sorted(np.asarray(task[0]).tolist()) == list(range(26))
    for source, target in zip(batch.x.source, batch.y, strict=True):
        assert [len(word) for word in text(source).split(" ")] == [4, 4, 4]
        assert text(target) == enciphered(text(source), task[0])


def test_test_items_are_drawn_apart_and_leaked_ones_are_training_items():
    made = data(samples=64, test=96)

    def sources(test):
        env = bigram_cipher(words=4, test=test)
        task = env.task(KEY, made, 0)
        held_out, train_part = (
            env.test(made, task, jnp.arange(96)),
            env.examples(made, task, jnp.arange(64)),
        )
        return (
            [text(s) for s in held_out.x.source],
            [text(s) for s in train_part.x.source],
            held_out,
        )

    held_out, training, _ = sources("clean")
    assert not set(held_out) & set(training)
    leaked, training, batch = sources("leaked")
    assert leaked == [*training, *training[:32]]
    assert text(batch.y[0]) == enciphered(training[0], bigram_cipher(words=4).task(KEY, made, 0)[0])


def test_seq2seq_draws_sources_and_targets_apart_for_every_task():
    env, made = random_seq2seq(words=3, target_words=2, word_length=4), data()
    first, second = (
        env.examples(made, env.task(jax.random.key(i), made, 0), jnp.arange(64)) for i in (0, 1)
    )
    sources, targets = [text(row) for row in first.x.source], [text(row) for row in first.y]
    assert {len(t.split(" ")) for t in sources} == {3}
    assert {len(t.split(" ")) for t in targets} == {2}
    assert len(set(sources)) == len(set(targets)) == 64
    assert not {*sources} & {text(row) for row in second.x.source}
    counts = np.unique(
        [c for t in [*sources, *targets] for c in t.replace(" ", "")], return_counts=True
    )
    assert len(counts[0]) == 26
    expected = sum(counts[1]) / 26
    # chi-squared with 25 degrees, one in 10,000
    assert ((counts[1] - expected) ** 2 / expected).sum() < 60
    assert env.test is None


def test_decoder_inputs_are_targets_shifted_and_padding_has_no_weight():
    env, made = random_seq2seq(words=2, target_words=2, word_length=3), data()
    batch = env.examples(made, env.task(KEY, made, 0), jnp.arange(4))
    np.testing.assert_array_equal(batch.x.inputs[:, 1:], batch.y[:, :-1])
    assert (np.asarray(batch.x.inputs[:, 0]) == START).all()
    np.testing.assert_array_equal(batch.weight, np.asarray(batch.y) != 0)
    loss = env.loss(jnp.zeros((4, batch.y.shape[1], 30)), batch)
    np.testing.assert_allclose(loss, np.log(30), rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: random_seq2seq(words=0),
            r"random_seq2seq\.words is 0: allowed are whole numbers from 1",
        ),
        (
            lambda: bigram_cipher(beams=0),
            r"bigram_cipher\.beams is 0: allowed are whole numbers from 1",
        ),
        (lambda: bigram_cipher(test="dirty"), r"test is 'dirty': allowed are 'clean', 'leaked'"),
        (
            lambda: bigram_cipher(bleu="pieces"),
            r"bleu is 'pieces': allowed are 'words', 'characters'",
        ),
        (
            lambda: Spec(environment="bigram_cipher"),
            r"model 'mlp' reads .*vectors, but .* are text: allowed are t5",
        ),
        (
            lambda: Spec(model="t5"),
            r"model 't5' reads text, but .* are images: allowed are mlp, cnn, resnet18",
        ),
        (
            lambda: Spec(environment="bigram_cipher", model="t5", dataset="digits"),
            r"dataset is 'digits': .* it must be 'generated'",
        ),
        (
            lambda: Spec(dataset="generated"),
            r"dataset is 'generated': .* it must be a set of images",
        ),
        (
            lambda: Spec(environment="random_seq2seq", model="t5", transition="output"),
            r"transition 'output' needs tasks that share inputs, .* share nothing: allowed are "
            r"sampling, abrupt",
        ),
    ],
)
def test_what_does_not_fit_is_told(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_task_sampling_mixes_texts_in_exact_shares():
    env, made = bigram_cipher(words=2, word_length=3), data()
    at = order_.make_stream(env, "sampling", 16, 4)
    tasks = [env.task(keys.role(KEY, keys.TASK), made, t) for t in (1, 2)]
    known = [
        {text(row) for row in env.examples(made, task, jnp.arange(64)).x.source} for task in tasks
    ]
    batch = at(KEY, made, 2, 0, granularity=4, transition_fraction=1.0)
    rows = [text(row) for row in batch.x.source]
    assert [sum(row in side for row in rows) for side in known] == [12, 4]


@pytest.fixture(scope="module")
def learnt():
    """One lane on one easy task of the cipher: words of one letter, two of them, 26 * 26 texts."""
    options = {k: v for k, v in T5.items() if "." in k} | {
        "bigram_cipher.words": 2,
        "bigram_cipher.word_length": 1,
        "bigram_cipher.decoded": 64,
        "bigram_cipher.bleu": "characters",
    }
    spec = tiny.spec(
        model="t5", dataset="generated", environment="bigram_cipher", transition="sampling",
        width=32, samples=512, batch_size=32, epochs=120, optimizer="adam", options=options,
        probes=("dormant_fraction", "effective_rank"),
    )  # fmt: skip
    run = supervised.make_run(spec)
    lane = lanes.complete(spec, {"learning_rate": 3e-3})
    made = data(512, 64)
    state = jax.jit(run.init)(lane, made)
    state, metrics = jax.jit(run.run_task)(lane, state, made, jnp.int32(0))
    return spec, run, made, state, {name: float(value) for name, value in metrics.items()}


def test_a_cipher_is_learnt_and_generalises(learnt):
    metrics = learnt[-1]
    assert metrics["finite"] == 1
    assert metrics["bleu2"] > 0.6  # (random letters score 0.04)
    assert metrics["test_bleu2"] > 0.5
    assert {"dormant_fraction/encoder0_units", "effective_rank/decoder_out"} <= metrics.keys()
    assert "dormant_fraction/decoder_out" not in metrics  # no activation function made it


def test_the_score_is_that_of_decoding_one_text_after_another(learnt):
    """Greedy decoding without a cache and BLEU-2 with a Counter, from the same parameters."""
    from collections import Counter

    spec, _, made, state, metrics = learnt
    env = registry.make(
        {"bigram_cipher": bigram_cipher}, "environment", "bigram_cipher", dict(spec.options)
    )
    net = network.network(spec, env, made)
    plan = order_.plan(env, jax.random.key(0), made, jnp.int32(0))
    batch = env.test(made, plan.new, jnp.arange(64))
    forward = jax.jit(lambda x: net.apply(state.params, state.variables, x, False)[0].argmax(-1))
    ids = np.zeros(batch.y.shape, np.int32)
    for position in range(ids.shape[1]):
        inputs = np.concatenate([np.full((64, 1), START), ids[:, :-1]], axis=1)
        ids[:, position] = np.asarray(
            forward(batch.x._replace(inputs=jnp.asarray(inputs, jnp.int32)))
        )[:, position]
    match, total, lengths = [0, 0], [0, 0], [0, 0]
    for got, want in zip(ids, np.asarray(batch.y), strict=True):
        sides = [[c for c in text([*row, END]) if c != " "] for row in (got, want)]
        lengths = [length + len(side) for length, side in zip(lengths, sides, strict=True)]
        for n in (0, 1):
            grams = [
                Counter(zip(*[side[k:] for k in range(n + 1)], strict=False)) for side in sides
            ]
            match[n] += sum((grams[0] & grams[1]).values())
            total[n] += sum(grams[0].values())
    penalty = min(1.0, np.exp(1 - lengths[1] / lengths[0]))
    assert metrics["test_bleu2"] == pytest.approx(
        penalty * np.sqrt(match[0] / total[0] * match[1] / total[1]), abs=1e-6
    )
