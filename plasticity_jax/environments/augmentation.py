"""Images changed a little, anew in every training step: crops, flips, brightness and color."""

import jax
import jax.numpy as jnp

from plasticity_jax.environments import classification
from plasticity_jax.types import Array, Data, Key

JITTER = 0.1  # of brightness, contrast and saturation
_GREY = (0.299, 0.587, 0.114)  # of red, green and blue


def crop_flip_jitter(key: Key, data: Data, x: Array) -> Array:
    """Returns normalized images [B, H, W, C], each cropped, perhaps flipped, and jittered.

    An image is padded with black by an eighth of its height on every side and cut to its size at a
    random place, mirrored with probability 1/2, then brightness, contrast and (of three channels)
    saturation are each multiplied by a factor from 0.9 to 1.1, in this order. Source: Joudaki et
    al. 2025, experiment E1 (pad 8 for 64 pixels, flip, jitter 0.1); the order of the jitter is
    drawn anew in their code, and hue is left alone here.
    """
    mean, std = (jnp.broadcast_to(a, x.shape) for a in (data.mean, data.std))
    pixels = jnp.clip(x * std + mean, 0, 255)
    keys = jax.random.split(key, 3)
    moved = jax.vmap(_cropped)(jax.random.split(keys[0], len(x)), pixels)
    mirrored = jax.random.bernoulli(keys[1], 0.5, (len(x), 1, 1, 1))
    moved = jnp.where(jnp.broadcast_to(mirrored, x.shape), moved[:, :, ::-1], moved)
    factors = jax.random.uniform(keys[2], (3, len(x)), minval=1 - JITTER, maxval=1 + JITTER)
    return classification.normalise(_jittered(moved, factors), data.mean, data.std)


def _cropped(key: Key, image: Array) -> Array:
    """A part of an image [H, W, C] with black around it, of the image's size."""
    margin = image.shape[0] // 8
    padded = jnp.pad(image, ((margin, margin), (margin, margin), (0, 0)))
    row, column = jax.random.randint(key, (2,), 0, 2 * margin + 1)
    return jax.lax.dynamic_slice(padded, (row, column, jnp.int32(0)), image.shape)


def _jittered(pixels: Array, factors: Array) -> Array:
    """Images [B, H, W, C] of 0 to 255 with brightness, contrast and saturation times `factors`
    [3, B].
    """
    brightness, contrast, saturation = (f[:, None, None, None] for f in factors)
    pixels = jnp.clip(pixels * brightness, 0, 255)
    level = _grey(pixels).mean(axis=(1, 2, 3), keepdims=True)
    pixels = jnp.clip(level + contrast * (pixels - level), 0, 255)
    if pixels.shape[-1] != len(_GREY):
        return pixels
    grey = _grey(pixels)
    return jnp.clip(grey + saturation * (pixels - grey), 0, 255)


def _grey(pixels: Array) -> Array:
    """[B, H, W, 1] how light pixels are."""
    if pixels.shape[-1] != len(_GREY):
        return pixels.mean(axis=-1, keepdims=True)
    return (pixels * jnp.asarray(_GREY)[None, None, None]).sum(axis=-1, keepdims=True)
