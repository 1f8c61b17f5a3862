"""Normalisations: a new one is one function (x, train, name, affine) -> normalised x, and one line.

Each is called inside an `nn.compact` call and makes a submodule of that name. Scale and offset are
learned if `affine`; epsilon is PyTorch's.
"""

import math
from collections.abc import Callable, Iterable

import flax.linen as nn

from plasticity_jax.types import Array


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


NORMS: dict[str, Callable[..., Array]] = {
    "none": _none,
    "layer": _layer,
    "batch": _batch,
    "group": _group,
}

OF_IMAGES: dict[str, Callable[..., Array]] = {**NORMS, "layer": _image}
"""As NORMS for images [B, H, W, C], but "layer" is over positions and channels together, as
GroupNorm with one group.
"""
