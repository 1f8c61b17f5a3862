"""The convolutional networks of value-based agents for games."""

import itertools
from typing import ClassVar, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from plasticity_jax.models import layers, norms
from plasticity_jax.types import Array, UnitGroup


class Sizes(NamedTuple):
    """Of each convolution (filters, side, stride), and units of the dense layer."""

    convolutions: tuple[tuple[int, int, int], ...]
    dense: int


SIZES = {
    "minatar": Sizes(((16, 3, 1),), 128),
    "atari": Sizes(((32, 8, 4), (64, 4, 2), (64, 3, 1)), 512),
}


class GameCNN(layers.Model):
    """Convolutions without padding, each -> norm -> activation, a dense layer with both, a dense
    head.

    `of` is "minatar" (one convolution of 16 3x3 filters, 128 units; Young & Tian 2019) or "atari"
    (32 of 8x8 by 4, 64 of 4x4 by 2, 64 of 3x3, 512 units; that of Nature's DQN, Mnih et al. 2015).
    Norm and activation come after each layer but the head. Deviation: an image smaller than a
    filter is filled up with zeros to its size. Unit groups h0, h1, ... are the activations [B, H,
    W, filters] and [B, units].
    """

    CHOICES: ClassVar = {"of": tuple(SIZES)}
    KNOWN_AS: ClassVar = "game_cnn"

    outputs: int
    norm: str = "layer"
    activation: str = "relu"
    initialization: str = "torch"
    of: str = "minatar"
    norm_affine: bool = True
    noisy: bool = False

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Returns values [B, outputs]."""
        sizes = SIZES[self.of]
        for i, (filters, side, stride) in enumerate(sizes.convolutions):
            x = _Convolution(filters, side, stride, self.initialization, name=f"layer{i}")(x)
            x = norms.OF_IMAGES[self.norm](x, train, f"norm{i}", self.norm_affine)
            x = layers.activated(self, f"h{i}", x, self.activation)
        last = len(sizes.convolutions)
        x = x.reshape(len(x), -1)  # channels fastest, as unit groups want it
        x = layers.dense(x, sizes.dense, self.initialization, f"layer{last}", self.noisy)
        x = norms.NORMS[self.norm](x, train, f"norm{last}", self.norm_affine)
        x = layers.activated(self, f"h{last}", x, self.activation)
        return layers.dense(x, self.outputs, self.initialization, "head", self.noisy)

    def output_layer(self) -> tuple[str, ...]:
        """Returns the path of the head in the parameter tree."""
        return ("head",)

    def groups(self) -> list[str]:
        """Returns the names of the groups of activations, in order."""
        return list(self.units())

    def units(self) -> dict[str, UnitGroup]:
        """Returns where each group's incoming and outgoing weights are."""
        count = len(SIZES[self.of].convolutions) + 1
        layer = [f"layer{i}" for i in range(count)] + ["head"]
        learned = self.norm != "none" and self.norm_affine
        norm = [(f"norm{i}",) if learned else None for i in range(count)]
        copies = layers.copies(self.activation)
        return {
            f"h{i}": UnitGroup((layer[i],), norm[i], (layer[i + 1],), copies) for i in range(count)
        }


class _Convolution(nn.Module):
    """A convolution without padding as one product of patches with the filters, whose gradients are
    fast in loops on a CPU too.
    """

    features: int
    side: int
    stride: int
    initialization: str

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel, bias = layers.INITIALIZATIONS[self.initialization]
        shape = (self.side, self.side, x.shape[-1], self.features)
        filters = self.param("kernel", kernel, shape, jnp.float32).astype(x.dtype)
        offset = self.param("bias", bias(self.side**2 * x.shape[-1]), shape[-1:], jnp.float32)
        rows = patches(x, self.side, self.stride)
        y = layers.of_rows(rows, lambda rows: rows @ filters.reshape(-1, self.features))
        return y + offset.astype(x.dtype).reshape(1, 1, 1, -1)


def patches(x: Array, side: int, stride: int) -> Array:
    """Returns the square patches of images [B, H, W, C], [B, H', W', side * side * C], at least
    one: images are filled up with zeros to `side`.
    """
    missing = [max(0, side - size) for size in x.shape[1:3]]
    x = jnp.pad(x, ((0, 0), *((0, more) for more in missing), (0, 0)))
    height, width = ((size - side) // stride * stride + 1 for size in x.shape[1:3])
    parts = []
    for i, j in itertools.product(range(side), repeat=2):
        parts.append(x[:, i : i + height : stride, j : j + width : stride])
    return jnp.concatenate(parts, axis=-1)


def game_cnn(
    outputs: int,
    norm: str,
    activation: str,
    initialization: str,
    *,
    of: str = "minatar",
    norm_affine: bool = True,
    noisy: bool = False,
) -> GameCNN:
    """Network of agents for games: that of MinAtar's authors, or with `of="atari"` that of Nature's
    DQN (Mnih et al. 2015).

    `norm_affine` says whether norms learn scale and offset; `noisy` gives the weights of the two
    dense layers noise of a learned size (Fortunato et al. 2018). Raises ValueError for another
    `of`.
    """
    own = {"of": of, "norm_affine": norm_affine, "noisy": noisy}
    return GameCNN(outputs, norm, activation, initialization, **own)
