"""Environments against computations by hand: labels redrawn in part, classes dealt out, bits that
flip, real targets.
"""

import dataclasses
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny

from plasticity_jax import grid, run
from plasticity_jax.environments import (
    ENVIRONMENTS,
    bit_flip,
    class_split,
    random_labels,
    regression,
)
from plasticity_jax.spec import Spec
from plasticity_jax.stream.transitions import TRANSITIONS, alpha_at
from plasticity_jax.types import Batch, Data

KEY = jax.random.key(5)


def labels(data, t, **settings):
    return np.asarray(random_labels(**settings).task(KEY, data, jnp.int32(t)))


@pytest.mark.long
def test_random_labels_of_share_one_are_a_draw_per_task():
    data = tiny.data()
    for t in range(4):
        wanted = jax.random.permutation(jax.random.fold_in(KEY, t), data.y)
        assert np.array_equal(labels(data, t), wanted)


@pytest.mark.parametrize(("share", "draw"), [(0.25, "iid"), (0.1, "shuffle"), (1 / 3, "classes")])
@pytest.mark.long
def test_random_labels_redraw_a_share_and_each_label_once_in_a_round(share, draw):
    """Without replacement: in 1 / share changes every label is drawn anew once, so none is older
    than that.
    """
    data, changes = tiny.data(60), round(1 / share)
    drawn = [labels(data, t, share=share, draw=draw) for t in range(2 * changes + 1)]
    numbers = [generations(data, t, share) for t in range(2 * changes + 1)]
    for before, after in itertools.pairwise(numbers):
        assert set(after - before) <= {0, 1}
        assert abs((after - before).sum() - share * 60) <= 1
    for t, number in enumerate(numbers):
        assert t or (number == 0).all()
        own = [np.asarray(labels(data, int(n), draw=draw))[i] for i, n in enumerate(number)]
        assert np.array_equal(drawn[t], own)
    assert (numbers[changes] == 1).all()


def generations(data, t, share):
    """How often each label was drawn anew until task t, from the definition, in integers."""
    order = np.asarray(jax.random.permutation(jax.random.fold_in(KEY, 2**31), len(data.y)))
    return np.floor(np.float32(t) * np.float32(share) + (order + 0.5) / len(data.y)).astype(int)


@pytest.mark.parametrize("draw", ["shuffle", "iid", "classes"])
@pytest.mark.long
def test_stages_of_a_share_are_the_plateaus_of_task_sampling(draw):
    """A share of 1 / K is sampling in K plateaus, label by label, where an example's rank is one
    less its rank there: the order of all examples the other way round.
    """
    data, plateaus, samples = tiny.data(60), 4, 60
    shared, whole = random_labels(draw=draw, share=1 / plateaus), random_labels(draw=draw)
    stages = jnp.arange(2 * plateaus + 1)
    each = jax.vmap(shared.task, (None, None, 0))(KEY, data, stages)
    tasks = jax.vmap(whole.task, (None, None, 0))(KEY, data, jnp.arange(3))
    order = jax.random.permutation(jax.random.fold_in(KEY, 2**31), samples)
    rank = 1 - (order.astype(jnp.float32) + 0.5) / samples
    changed = 0
    for task in (1, 2):
        batches = [Batch(data.x, tasks[t], jnp.ones(samples)) for t in (task - 1, task)]
        changed += int((tasks[task] != tasks[task - 1]).sum())
        for step in range(plateaus):
            alpha = alpha_at(jnp.int32(step), jnp.int32(plateaus), jnp.int32(plateaus))
            mixed = TRANSITIONS["sampling"].mix(*batches, alpha, rank)
            stage = (task - 1) * plateaus + step + 1
            np.testing.assert_array_equal(mixed.y, each[stage])
    assert changed > samples / 2


def test_random_labels_change_at_every_nth_task():
    data = tiny.data()
    for t in range(7):
        assert np.array_equal(labels(data, t, every=3), labels(data, t // 3))


@pytest.mark.long
def test_bit_flip_is_as_in_its_definition():
    """One of the first bits flips between tasks, the others are drawn anew; targets by loops over
    units.
    """
    bits, flipping, hidden, edge = 6, 4, 7, 0.7
    environment = bit_flip(bits=bits, flipping=flipping, hidden=hidden, threshold=edge)
    data, before = tiny.data(40), np.zeros(flipping)
    key = jax.random.split(jax.random.fold_in(KEY, 2**31), 3)
    weights = np.asarray(jax.random.rademacher(key[0], (bits + 1, hidden)))
    out, offset = (
        np.asarray(jax.random.rademacher(key[1], (hidden,))),
        int(jax.random.rademacher(key[2], ())),
    )
    for t in range(6):
        task = environment.task(KEY, data, jnp.int32(t))
        batch = environment.examples(data, task, jnp.arange(40))
        x = np.asarray(batch.x)
        assert x.shape == (40, bits + 1)
        assert (x[:, :flipping] == x[0, :flipping]).all()
        assert (x[:, -1] == 1).all()
        assert set(np.unique(x)) <= {0, 1}
        assert np.abs(x[0, :flipping] - before).sum() == (0 if t == 0 else 1)
        before = x[0, :flipping]
        for row, y in zip(x, np.asarray(batch.y), strict=True):
            total = float(offset)
            for unit in range(hidden):
                own = weights[:, unit]
                negative = (own[:bits] < 0).sum() - 0.5 * own[bits]
                total += out[unit] * (row @ own > edge * (bits + 1) - negative)
            assert y == [total]
    assert not np.array_equal(
        x[:, flipping:-1], np.asarray(environment.task(KEY, data, jnp.int32(4))[0])[:, flipping:-1]
    )


@pytest.mark.long
def test_class_split_deals_out_the_classes():
    """A round has every class once; only the task's outputs count; examples have the labels of
    their classes.
    """
    data = tiny.data(62, classes=6)
    environment = class_split(per_task=2, classes="regroup")
    seen = []
    for t in range(6):
        task = environment.task(KEY, data, jnp.int32(t))
        count = environment.size(data)
        assert count == 2 * (62 // 6)
        batch = environment.examples(data, task, jnp.arange(count))
        label = np.asarray(batch.y.argmax(-1))
        own = np.flatnonzero(np.asarray(batch.active)[0])
        assert (np.asarray(batch.active) == np.asarray(batch.active)[0]).all()
        assert sorted(set(label)) == sorted(own)
        assert (np.bincount(label, minlength=6)[own] == 10).all()
        raw = np.asarray(batch.x) * data.std + data.mean
        for image, its in zip(raw, label, strict=True):
            same = np.isclose(image, data.x[data.y == its].astype(np.float32), atol=0.01).all(
                (1, 2, 3)
            )
            assert same.sum() == 1
        seen.append(own)
    assert sorted(np.concatenate(seen[:3])) == list(range(6))
    assert sorted(np.concatenate(seen[3:])) == list(range(6))
    assert [list(s) for s in seen[:3]] != [list(s) for s in seen[3:]]


def test_class_split_refuses_more_classes_and_tasks_than_there_are():
    data = tiny.data(60, classes=6)
    class_split(per_task=3).check(data, 2)
    class_split(per_task=3, classes="regroup").check(data, 9)
    with pytest.raises(
        ValueError, match=r"^tasks is 3, but 6 classes make 2 tasks of 3: allowed are"
    ):
        class_split(per_task=3).check(data, 3)
    with pytest.raises(
        ValueError, match=r"^class_split.per_task is 7: allowed are up to 6, the cl"
    ):
        class_split(per_task=7).check(data, 1)


@pytest.mark.long
def test_augmented_images_are_cropped_flipped_and_jittered():
    """Against numpy, with what was drawn; evaluation sees images as they are."""
    key, random = jax.random.key(7), np.random.default_rng(0)
    pixels = random.integers(0, 256, (6, 16, 16, 3)).astype(np.float32)
    mean, std = np.float32([100, 110, 120]), np.float32([50, 60, 70])
    data = dataclasses.replace(tiny.data(), mean=jnp.asarray(mean), std=jnp.asarray(std))
    augment = class_split(per_task=2, augment="crop_flip_jitter").augment
    got = np.asarray(augment(key, data, jnp.asarray((pixels - mean) / std))) * std + mean
    keys = jax.random.split(key, 3)
    flipped = np.asarray(jax.random.bernoulli(keys[1], 0.5, (6, 1, 1, 1))).ravel()
    factors = np.asarray(jax.random.uniform(keys[2], (3, 6), minval=0.9, maxval=1.1))
    assert 0 < flipped.sum() < 6
    light = np.float32([0.299, 0.587, 0.114])
    for i, own in enumerate(jax.random.split(keys[0], 6)):
        row, column = np.asarray(jax.random.randint(own, (2,), 0, 5))
        wanted = np.pad(pixels[i], ((2, 2), (2, 2), (0, 0)))[row : row + 16, column : column + 16]
        wanted = wanted[:, ::-1] if flipped[i] else wanted
        wanted = np.clip(wanted * factors[0, i], 0, 255)
        level = (wanted @ light).mean()
        wanted = np.clip(level + factors[1, i] * (wanted - level), 0, 255)
        grey = (wanted @ light)[..., None]
        wanted = np.clip(grey + factors[2, i] * (wanted - grey), 0, 255)
        np.testing.assert_allclose(got[i], wanted, atol=2e-2)
    assert class_split(per_task=2).augment is None


@pytest.mark.usefixtures("compiled_quickly")
@pytest.mark.long
def test_training_sees_augmented_images_and_evaluation_does_not():
    settings = dict(environment="class_split", samples=40, batch_size=8, tasks=1, epochs=1)
    settings |= {"width": 2, "depth": 1, "norm": "none", "probes": ("none",)}
    found = []
    for augment in ("none", "crop_flip_jitter"):
        options = {"class_split.per_task": 2, "class_split.augment": augment}
        table = run(Spec(**settings, options=options), grid(learning_rate=[0.0, 1e-3], seed=0))
        found += [row for _, row in table.sort_values("learning_rate").iterrows()]
    plain, moved, still, changed = found
    assert plain["loss"] == still["loss"]  # (nothing is learnt at a rate of 0)
    assert plain["online_loss"] != still["online_loss"]
    assert moved["loss"] != changed["loss"]


def test_class_split_with_parts_goes_through_a_task_in_several_stages():
    stages = [class_split(parts=3).schedule(jnp.int32(number)) for number in range(5)]
    assert [(int(s.task), int(s.part), s.parts) for s in stages] == [
        (0, 0, 3),
        (0, 1, 3),
        (0, 2, 3),
        (1, 0, 3),
        (1, 1, 3),
    ]


@pytest.mark.long
def test_inactive_outputs_do_not_count():
    """Cross-entropy is that of a softmax over the active outputs; whatever the others say."""
    data = tiny.data(60, classes=6)
    environment = class_split(per_task=2)
    task = environment.task(KEY, data, jnp.int32(1))
    batch = environment.examples(data, task, jnp.arange(8))
    logits = (
        jax.random.normal(jax.random.key(0), (8, 6)).at[:, 0].add(100 * (1 - batch.active[0, 0]))
    )
    own = np.flatnonzero(np.asarray(batch.active)[0])
    kept = np.asarray(logits, np.float64)[:, own]
    wanted = np.log(np.exp(kept).sum(-1)) - kept[np.asarray(batch.y)[:, own] == 1]
    assert np.allclose(environment.loss(logits, batch), wanted, rtol=1e-5)
    gradient = jax.grad(lambda z: environment.loss(z, batch).sum())(logits)
    assert (np.delete(np.asarray(gradient), own, axis=1) == 0).all()
    right = own[kept.argmax(-1)] == np.asarray(batch.y).argmax(-1)
    assert np.array_equal(environment.metrics[0].of(logits, batch), right)


def real(rows=12):
    random = np.random.default_rng(0)
    x, y = (
        random.normal(2, 3, (rows, 5)).astype(np.float32),
        random.normal(size=(rows, 2)).astype(np.float32),
    )
    return Data(x, y, x[:4], y[:4], x.mean(0), x.std(0), 0)


@pytest.mark.parametrize("change", ["inputs", "targets"])
def test_regression_permutes_what_it_says(change):
    data, environment = real(), regression(of=change)
    task = environment.task(KEY, data, jnp.int32(2))
    batch = environment.examples(data, task, jnp.arange(12))
    plain = (data.x - data.mean) / data.std
    order = np.asarray(
        jax.random.permutation(jax.random.fold_in(KEY, 2), 5 if change == "inputs" else 12)
    )
    assert np.allclose(batch.x, plain[:, order] if change == "inputs" else plain, atol=1e-6)
    assert np.array_equal(batch.y, data.y[order] if change == "targets" else data.y)
    assert (environment.test is None) == (change == "targets")
    outputs = jnp.ones((12, 2))
    assert np.allclose(environment.loss(outputs, batch), ((1 - np.asarray(batch.y)) ** 2).mean(-1))


def test_rows_of_features_are_permuted_with_their_own_mean_and_deviation():
    from plasticity_jax.environments import permuted_pixels

    rows = real()
    data = Data(rows.x, np.arange(12) % 2, rows.x[:0], np.arange(0), rows.mean, rows.std, 2)
    environment = permuted_pixels()
    task = environment.task(KEY, data, jnp.int32(1))
    order = np.asarray(jax.random.permutation(jax.random.fold_in(KEY, 1), 5))
    batch = environment.examples(data, task, jnp.arange(12))
    assert np.allclose(batch.x, ((data.x - data.mean) / data.std)[:, order], atol=1e-6)


# --- settings ---


@pytest.mark.parametrize(
    ("factory", "settings", "message"),
    [
        ("random_labels", {"share": 1.5}, "random_labels.share is 1.5: allowed are 0 to 1."),
        ("random_labels", {"every": 0},
         "random_labels.every is 0: allowed are whole numbers from 1, or 'never'."),
        ("random_labels", {"change": "no"},
         "random_labels.change is 'no': allowed are True and False."),
        ("permuted_pixels", {"change": 1},
         "permuted_pixels.change is 1: allowed are True and False."),
        ("regression", {"of": "x"}, "regression.of is 'x': allowed are 'inputs', 'targets'."),
        ("class_split", {"per_task": 0},
         "class_split.per_task is 0: allowed are whole numbers from 1."),
        ("class_split", {"augment": "crop"},
         "class_split.augment is 'crop': allowed are 'none', 'crop_flip_jitter'."),
        ("class_split", {"parts": 0}, "class_split.parts is 0: allowed are whole numbers from 1."),
        ("bit_flip", {"flipping": 21},
         "bit_flip.flipping is 21: allowed are up to 20, the number of bits."),
        ("bit_flip", {"flipping": -1},
         "bit_flip.flipping is -1: allowed are whole numbers from 0."),
        ("bit_flip", {"bits": 0}, "bit_flip.bits is 0: allowed are whole numbers from 1."),
        ("bit_flip", {"hidden": 10**7},
         "bit_flip.hidden is 10000000: allowed are whole numbers from 1 to 1000000."),
        ("bit_flip", {"threshold": 1e38}, "bit_flip.threshold is 1e+38: allowed are 0 to 1."),
        ("random_seq2seq", {"words": 0},
         "random_seq2seq.words is 0: allowed are whole numbers from 1."),
        ("random_seq2seq", {"beams": 1001},
         "random_seq2seq.beams is 1001: allowed are whole numbers from 1 to 1000."),
        (
            "bigram_cipher",
            {"word_length": 10**6},
            "bigram_cipher has texts of 10 words of 1000000 letters, 10000010 characters with "
            "spaces: "
            "allowed are up to 10000.",
        ),
    ],
)  # fmt: skip
def test_settings_that_are_refused(factory, settings, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        ENVIRONMENTS[factory](**settings)
