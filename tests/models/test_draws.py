"""Numbers drawn by the rounds written out are those of `jax.random`, to the bit."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity_jax.models import layers
from plasticity_jax.models.cpu import draws


@pytest.mark.parametrize("shape", [(), (0,), (1,), (7,), (3, 5), (2, 3, 4, 5)])
@pytest.mark.parametrize("width", [8, 16, 32])
def test_bits(shape, width):
    key = jax.random.key(7)
    drawn = jax.random.bits(draws.as_usual(key), shape, f"uint{width}")
    np.testing.assert_array_equal(drawn, jax.random.bits(key, shape, f"uint{width}"))


def test_known_answers():
    """Threefry-2x32 of 20 rounds: of a key and a counter of zeros the words 6b200159 and 99ba4efe
    (Random123's known answers); a draw of 32 bits is one xor the other.
    """
    key = jax.random.wrap_key_data(jnp.zeros(2, jnp.uint32), impl="threefry2x32")
    drawn = jax.random.bits(draws.as_usual(key), (1,), "uint32")
    assert int(drawn[0]) == 0x6B200159 ^ 0x99BA4EFE


DISTRIBUTIONS = {
    "bernoulli": lambda key: jax.random.bernoulli(key, 0.9, (50, 3)),
    "normal": lambda key: jax.random.normal(key, (50, 3)),
    "uniform": lambda key: jax.random.uniform(key, (50, 3), minval=-1.0, maxval=2.0),
    "split": lambda key: jax.random.uniform(jax.random.split(key, 3)[1]),
    "keys": lambda key: jax.random.key_data(jax.random.split(key, (3, 2))),
    "fold_in": lambda key: jax.random.uniform(jax.random.fold_in(key, 5)),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_distributions(name):
    draw, key = DISTRIBUTIONS[name], jax.random.key(3)
    np.testing.assert_array_equal(jax.jit(draw)(draws.as_usual(key)), jax.jit(draw)(key))


def test_lanes_and_old_keys():
    """Under a vmap, and of a key that is an array of its own."""
    keys = jax.random.split(jax.random.key(0), 4)
    drawn = jax.vmap(lambda key: jax.random.normal(draws.as_usual(key), (6,)))(keys)
    usual = jax.vmap(lambda key: jax.random.normal(key, (6,)))(keys)
    np.testing.assert_array_equal(drawn, usual)
    old = jax.random.PRNGKey(1)
    usual = jax.random.uniform(old, (4,))
    np.testing.assert_array_equal(jax.random.uniform(draws.as_usual(old), (4,)), usual)


@pytest.mark.parametrize("impl", ["rbg", "unsafe_rbg"])
def test_other_keys_stay(impl):
    key = jax.random.key(0, impl=impl)
    assert draws.as_usual(key) is key


def test_dropout_is_flaxs():
    """The layers of the models drop what Flax's own layer would have dropped, under its name."""

    class Net(nn.Module):
        own: bool

        @nn.compact
        def __call__(self, x):
            for _ in range(2):
                if self.own:
                    x = layers.dropped(x, 0.3, True)
                else:
                    x = nn.Dropout(0.3, deterministic=False)(x)
            return x

    x, key = jnp.ones((8, 40)), {"dropout": jax.random.key(5)}
    ours, theirs = (Net(own).apply({}, x, rngs=key) for own in (True, False))
    assert 0.3 < float(jnp.mean(ours == 0)) < 0.8
    np.testing.assert_array_equal(ours, theirs)


def test_other_machines_and_counters_stay(monkeypatch):
    key = jax.random.key(0)
    assert draws.as_usual(key) is not key
    with jax.threefry_partitionable(False):
        assert draws.as_usual(key) is key
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert draws.as_usual(key) is key
