"""Normalizations: a new one is one function (x, train, name, affine) -> normalized x, and one line.

Each is called inside an `nn.compact` call and makes a submodule of that name. Scale and offset are
learned if `affine`; epsilon is PyTorch's.
"""

import functools
import math
from collections.abc import Callable, Iterable

import flax.linen as nn
import jax.numpy as jnp

from plasticity_jax.types import Array

EPSILON = 1e-5


def _none(x: Array, train: bool, name: str, affine: bool = True) -> Array:
    del train, name, affine
    return x


def _layer(x: Array, train: bool, name: str, affine: bool = True) -> Array:
    del train
    return nn.LayerNorm(
        epsilon=1e-5, use_fast_variance=False, use_scale=affine, use_bias=affine, name=name
    )(x)


def _batch(x: Array, train: bool, name: str, affine: bool = True) -> Array:
    # momentum 0.9 is PyTorch's 0.1; the running variance is the biased one, PyTorch keeps the
    # unbiased one. The "fast" variance, E x^2 - (E x)^2, loses digits where few values of one
    # channel are alike.
    return nn.BatchNorm(
        not train,
        momentum=0.9,
        epsilon=1e-5,
        use_fast_variance=False,
        use_scale=affine,
        use_bias=affine,
        name=name,
    )(x)


def _groups(x: Array, number: int, name: str, affine: bool) -> Array:
    return nn.GroupNorm(
        num_groups=number,
        epsilon=1e-5,
        use_fast_variance=False,
        use_scale=affine,
        use_bias=affine,
        name=name,
    )(x)


def _group(x: Array, train: bool, name: str, affine: bool = True) -> Array:
    del train
    # 32 groups, as Wu & He 2018 have it, or the most that divide both 32 and the channels
    return _groups(x, math.gcd(32, x.shape[-1]), name, affine)


def check_cloned(model: str, norm: str, channels: Iterable[int], factor: int) -> None:
    """Raises ValueError where group norm of `factor` times the channels, clones side by side, would
    have groups that are no clones of those of `channels`.
    """
    for count in channels if norm == "group" else ():
        groups = math.gcd(32, count)
        if groups != math.gcd(32, factor * count) and groups != count:
            raise ValueError(
                f"norm of {model} is 'group' of {count} channels, whose groups clones of factor "
                f"{factor} would part: allowed are multiples of 32, powers of two below it, or an "
                "odd factor."
            )


def _image(x: Array, train: bool, name: str, affine: bool = True) -> Array:
    del train
    return _groups(x, 1, name, affine)


def _rms(x: Array, train: bool, name: str, affine: bool = True, images: bool = False) -> Array:
    del train
    axes = _own_axes(x, images)
    return nn.RMSNorm(
        epsilon=EPSILON,
        use_scale=affine,
        reduction_axes=axes,
        feature_axes=-1,
        use_fast_variance=False,
        name=name,
    )(x)


def _both(x: Array, train: bool, name: str, affine: bool = True, images: bool = False) -> Array:
    """Layer norm, then batch norm, which alone learns scale and offset."""
    layer = _image if images else _layer
    return _batch(layer(x, train, f"{name}_layer", affine=False), train, name, affine)


class Hybrid(nn.Module):
    """A norm whose mean and whose deviation are over different axes: (x - mean) / deviation.

    Of "batch" they are over examples (and positions), of "layer" over the units of an example; the
    deviation is about the mean over its own axes. Running means of what is over examples as in
    batch norm. Source: Lyle et al. 2024, "Disentangling the Causes of Plasticity Loss", appendix,
    who swap the axes of the two steps; about which mean the deviation is taken is ours.

    Attributes:
      mean: "batch" or "layer", over which axes the mean is; the deviation is over the others.
      affine: whether scale and offset are learned.
      images: whether the units of an example are those of all positions.
    """

    mean: str
    affine: bool = True
    images: bool = False

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Returns x [B, ..., H], normalized."""
        over_batch, own = tuple(range(x.ndim - 1)), _own_axes(x, self.images)
        if self.mean == "batch":
            middle = self._running("mean", x.mean(over_batch), 0.0, train)
            variance = x.var(own, keepdims=True)
        else:
            middle = x.mean(own, keepdims=True)
            variance = self._running("var", x.var(over_batch), 1.0, train)
        middle, variance = _beside(x, middle), _beside(x, variance)
        made = (x - middle) / jnp.sqrt(variance + EPSILON)
        if not self.affine:
            return made
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        offset = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        return _beside(x, scale) * made + _beside(x, offset)

    def _running(self, name: str, now: Array, start: float, train: bool) -> Array:
        """The statistic of this minibatch in training, the running mean else."""
        kept = self.variable("batch_stats", name, jnp.full, now.shape, start, jnp.float32)
        if not train:
            return kept.value
        if not self.is_initializing():
            kept.value = 0.9 * kept.value + 0.1 * now
        return now


def _beside(x: Array, values: Array) -> Array:
    """`values` [H], or of the same rank as x, as an array that x [B, ..., H] broadcasts with."""
    return values if values.ndim == x.ndim else values.reshape(*[1] * (x.ndim - 1), -1)


def _own_axes(x: Array, images: bool) -> tuple[int, ...]:
    """The axes of an example's units."""
    return tuple(range(1, x.ndim)) if images else (-1,)


def _hybrid(
    x: Array, train: bool, name: str, affine: bool = True, *, mean: str, images: bool = False
) -> Array:
    return Hybrid(mean, affine, images, name=name)(x, train)


NORMS: dict[str, Callable[..., Array]] = {
    "none": _none,
    "layer": _layer,
    "batch": _batch,
    "group": _group,
    "rms": _rms,
    "batch+layer": _both,
    "batch_mean+layer_deviation": functools.partial(_hybrid, mean="batch"),
    "layer_mean+batch_deviation": functools.partial(_hybrid, mean="layer"),
}
"""The last three, like "batch", take statistics over a minibatch: see `OF_BATCH`."""

OF_IMAGES: dict[str, Callable[..., Array]] = {
    **NORMS,
    "layer": _image,
    "rms": functools.partial(_rms, images=True),
    "batch+layer": functools.partial(_both, images=True),
    "batch_mean+layer_deviation": functools.partial(_hybrid, mean="batch", images=True),
    "layer_mean+batch_deviation": functools.partial(_hybrid, mean="layer", images=True),
}
"""As NORMS for images [B, H, W, C], but "layer" is over positions and channels together, as
GroupNorm with one group, and so is "rms".
"""

OF_BATCH = tuple(name for name in NORMS if "batch" in name)
"""Norms that take statistics over a minibatch, which one example does not have."""
