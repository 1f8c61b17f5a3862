"""The stream as numpy arrays equals the stream that a run trains on."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny

import plasticity_jax as pj
from plasticity_jax import environments
from plasticity_jax.stream import batches as batches_
from plasticity_jax.stream import keys

pytestmark = pytest.mark.usefixtures("compiled_quickly")

DATA = jax.tree.map(jnp.asarray, tiny.data())
SIZES = {"batch_size": 24, "epochs": 3}  # 64 examples in batches of 24: some stay out

CASES = {
    "output": (environments.random_labels(), "output", SIZES),
    "sampling": (environments.permuted_pixels(), "sampling", SIZES),
    "one at a time": (
        environments.bit_flip(bits=6, flipping=3, hidden=4),
        "abrupt",
        {"batch_size": 1, "epochs": 1},
    ),
    "parts": (
        environments.class_split(per_task=1, classes="regroup", parts=2),
        "sampling",
        {"batch_size": 6, "epochs": 3},
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("bytes_at_once", [batches_.AT_ONCE, 1], ids=["together", "one by one"])
@pytest.mark.long
def test_batches_are_those_of_the_stream(case, bytes_at_once, monkeypatch):
    monkeypatch.setattr(batches_, "AT_ONCE", bytes_at_once)
    environment, transition, sizes = CASES[case]
    at = jax.jit(pj.make_stream(environment, transition, **sizes))
    seen = list(
        pj.batches(environment, transition, DATA, **sizes, tasks=[0, 3], seed=7, granularity=2)
    )
    per_task = sizes["epochs"] * (environment.size(DATA) // sizes["batch_size"])
    assert [(task, step) for task, step, _ in seen] == list(
        itertools.product([0, 3], range(per_task))
    )
    for task, step, batch in seen[:: max(1, len(seen) // 9)]:
        expected = at(jax.random.key(7), DATA, task, step, 2)
        assert jax.tree.structure(batch) == jax.tree.structure(expected)
        for mine, theirs in zip(jax.tree.leaves(batch), jax.tree.leaves(expected), strict=True):
            assert mine.dtype == theirs.dtype
            # how a quotient's last bit is rounded may differ from program to program
            np.testing.assert_allclose(mine, theirs, rtol=2e-7, atol=0)


@pytest.mark.long
def test_what_is_seen_once_comes_in_order_as_in_training():
    environment, transition, sizes = CASES["one at a time"]
    drawn = environment.task(keys.role(jax.random.key(7), keys.TASK), DATA, jnp.int32(0))
    seen = [
        b.x[0] for _, _, b in pj.batches(environment, transition, DATA, **sizes, tasks=1, seed=7)
    ]
    np.testing.assert_array_equal(np.stack(seen), drawn[0][: len(seen)])


@pytest.mark.long
def test_arrays_may_be_written_to_and_are_no_others():
    environment, transition, sizes = CASES["output"]
    (_, _, first), (_, _, second) = itertools.islice(
        pj.batches(environment, transition, DATA, **sizes, tasks=1), 2
    )
    before = second.x.copy()
    first.x[:] = -1
    np.testing.assert_array_equal(second.x, before)
    assert isinstance(first.x, np.ndarray)


@pytest.mark.long
def test_a_task_set_is_the_whole_pure_task():
    environment = environments.permuted_pixels()
    whole = pj.task_set(environment, DATA, 2, seed=3)
    drawn = environment.task(keys.role(jax.random.key(3), keys.TASK), DATA, jnp.int32(2))
    index = jnp.arange(len(DATA.x))
    expected = environment.examples(DATA, drawn, index)
    np.testing.assert_allclose(whole.x, expected.x, rtol=2e-7, atol=0)
    np.testing.assert_array_equal(whole.y, expected.y)
    held_out = pj.task_set(environment, DATA, 2, seed=3, split="test")
    assert environment.test is not None
    index = jnp.arange(len(DATA.test_x))
    expected = environment.test(DATA, drawn, index)
    np.testing.assert_allclose(held_out.x, expected.x, rtol=2e-7, atol=0)
    assert whole.x.flags.writeable


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"batch_size": 65}, "batch_size is 65: allowed are whole numbers from 1 to 64."),
        ({"epochs": 0}, "epochs is 0: allowed are whole numbers from 1."),
        ({"tasks": -1}, "tasks is -1: allowed are whole numbers from 0."),
        ({"tasks": [0.5]}, "tasks is 0.5: allowed are whole numbers from 0."),
        ({"seed": "a"}, "seed is 'a': allowed are whole numbers from 0."),
        ({"transition_fraction": 2}, "transition_fraction is 2.0: allowed is 0 to 1."),
        ({"granularity": 99}, "granularity"),
        ({"transition": "input"}, "input"),
        ({"data": 3}, "data is a int: allowed is a Data, as load_data gives it."),
    ],
)
def test_what_is_not_allowed_is_said_before_the_first_batch(changed, said):
    environment, transition, sizes = CASES["output"]
    given = {"transition": transition, "data": DATA, "tasks": 1, **sizes, **changed}
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        pj.batches(environment, given.pop("transition"), given.pop("data"), **given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"task": -1}, "task is -1: allowed are whole numbers from 0."),
        ({"task": 0, "data": 3}, "data is a int: allowed is a Data, as load_data gives it."),
        ({"task": 0, "environment": "random_labels"}, "allowed is an Environment, such as"),
        ({"task": 0, "split": "dev"}, "split is 'dev': allowed are 'train', 'test'."),
        ({"task": 0, "split": "test"}, "split is 'test': allowed is 'train'"),
    ],
)
def test_task_sets_that_there_are_not(given, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        pj.task_set(**{"environment": environments.random_labels(), "data": DATA, **given})
