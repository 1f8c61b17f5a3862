"""Random numbers as `jax.random` draws them, on a CPU many times as fast.

jax writes Threefry's rounds as a loop on a CPU, of which each round is a pass over memory. Written
out they are one loop over the numbers, together with what uses them; the bits are the same.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.extend import random as extended

from plasticity_jax.types import Array

_USUAL = "threefry2x32"
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA


def as_usual(key: Array) -> Array:
    """Returns a key of which `jax.random` draws the numbers that it draws of `key`: on a CPU by the
    rounds written out, elsewhere, or of a key that is not Threefry's, `key` itself.

    For draws of many numbers or where a step has little else to do: what such a key is split into
    is written out as well, and takes longer to compile than the loop.
    """
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    options = jax.config.values
    kind = str(jax.random.key_impl(key)) if typed else options["jax_default_prng_impl"]
    counted = options["jax_threefry_partitionable"]
    if jax.default_backend() != "cpu" or kind != _USUAL or not counted:
        return key
    return jax.random.wrap_key_data(jax.random.key_data(key) if typed else key, impl=_WRITTEN_OUT)


def _bits(key: Array, width: int, shape: Sequence[int]) -> Array:
    """Unsigned integers of `width` bits in a `shape`, of key data uint32 [2].

    The counter is a number's place, as jax counts with `jax_threefry_partitionable`.
    """
    size = math.prod(shape)
    if size >= 2**32:  # (the counter's upper half is not 0 then)
        return jax.random.bits(_like_usual(key), shape, f"uint{width}")
    first, second = _threefry(key, jnp.zeros(size, jnp.uint32), jax.lax.iota(jnp.uint32, size))
    if width == 64:
        joined = (first.astype(jnp.uint64) << 32) | second.astype(jnp.uint64)
        return joined.reshape(shape)
    return (first ^ second).astype(f"uint{width}").reshape(shape)


def _threefry(key: Array, first: Array, second: Array) -> tuple[Array, Array]:
    """Two words uint32 [n] for each counter of two words. Source: Salmon et al. 2011, Threefry-2x32
    of 20 rounds.
    """
    keys = (key[0], key[1], key[0] ^ key[1] ^ jnp.uint32(_PARITY))
    first, second = first + keys[0], second + keys[1]
    for turn in range(5):
        for rotation in _ROTATIONS[turn % 2]:
            first = first + second
            turned = (second << jnp.uint32(rotation)) | (second >> jnp.uint32(32 - rotation))
            second = turned ^ first
        first = first + keys[(turn + 1) % 3]
        second = second + keys[(turn + 2) % 3] + jnp.uint32(turn + 1)
    return first, second


def _split(key: Array, shape: Sequence[int]) -> Array:
    """Key data [*shape, 2]: the counter is a key's place."""
    size = math.prod(shape)
    both = _threefry(key, jnp.zeros(size, jnp.uint32), jax.lax.iota(jnp.uint32, size))
    return jnp.stack(both, axis=-1).reshape(*shape, 2)


def _like_usual(key: Array) -> Array:
    return jax.random.wrap_key_data(key, impl=_USUAL)


_WRITTEN_OUT = extended.define_prng_impl(
    key_shape=(2,),
    seed=lambda seed: jax.random.key_data(jax.random.key(seed, impl=_USUAL)),
    split=_split,
    random_bits=_bits,
    fold_in=lambda key, data: jax.random.key_data(jax.random.fold_in(_like_usual(key), data)),
    name="threefry2x32_written_out",
    tag="written_out",
)
