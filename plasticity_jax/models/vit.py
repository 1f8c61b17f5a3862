"""A vision transformer for small images."""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn import initializers

from plasticity_jax.models import layers, norms
from plasticity_jax.types import Array, UnitGroup

_INITIAL = initializers.truncated_normal(0.02)  # cut off at two deviations


class ViT(layers.Model):
    """Patches and a class token through `blocks` blocks of attention and a layer of `ratio`
    `embedding` units, each after a norm and around a residual; the norm of the class token, a head.

    A block is x + attention(norm(x)), then x + dense(act(dense(norm(x)))). Images are cut into
    squares of `patch` pixels; where they do not go into them, zeros are added below and at the
    right. Positions are learned. `dropout` is of embeddings, attention weights, the inner units and
    both branches.

    Unit groups inner0, inner1, ... are the units inside the blocks [B, tokens, ratio * embedding];
    the group `features` is the class token that the head reads [B, embedding], made by no
    activation function. Channels of the residual stream are read and written by all blocks, so
    there is no one unit to start afresh. Source: Dosovitskiy et al. 2021; sizes of Joudaki et al.
    2025; weights are drawn from N(0, 0.02^2) cut off at two deviations, biases are 0.
    """

    outputs: int
    norm: str = "layer"
    activation: str = "gelu"
    patch: int = 8
    embedding: int = 384
    blocks: int = 6
    heads: int = 6
    ratio: int = 4
    norm_affine: bool = True
    dropout: float = 0.1

    CRELU: ClassVar[bool] = False
    LINEAR_GROUPS: ClassVar[tuple[str, ...]] = ("features",)

    def __post_init__(self):
        """Checks that the heads share out the embedding."""
        super().__post_init__()
        if self.embedding % self.heads:
            raise ValueError(
                f"vit.heads is {self.heads}: allowed are whole numbers that divide the embedding "
                f"of {self.embedding}."
            )

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Returns logits [B, outputs]."""
        x = self._dense(self._patches(x), self.embedding, "patches")
        token = self.param("token", _INITIAL, (1, 1, self.embedding), jnp.float32)
        x = jnp.concatenate([jnp.broadcast_to(token, (len(x), *token.shape[1:])), x], axis=1)
        place = self.param("places", _INITIAL, (1, *x.shape[1:]), jnp.float32)
        x = self._dropped(x + jnp.broadcast_to(place, x.shape), train)
        for i in range(self.blocks):
            x = x + self._dropped(self._attention(x, train, i), train)
            x = x + self._dropped(self._mixed(x, train, i), train)
        x = self._normalised(x, train, "last_norm")[:, 0]
        layers.sow(self, "features", x)
        return self._dense(x, self.outputs, "head")

    def _patches(self, x: Array) -> Array:
        """[B, H, W, C] -> [B, patches, patch * patch * C], channels fastest."""
        count, height, width, channels = x.shape
        below, beside = -height % self.patch, -width % self.patch
        x = jnp.pad(x, ((0, 0), (0, below), (0, beside), (0, 0)))
        rows, columns = x.shape[1] // self.patch, x.shape[2] // self.patch
        x = x.reshape(count, rows, self.patch, columns, self.patch, channels)
        return x.transpose(0, 1, 3, 2, 4, 5).reshape(count, rows * columns, -1)

    def _attention(self, x: Array, train: bool, i: int) -> Array:
        x = self._normalised(x, train, f"block{i}_norm0")
        size = self.embedding // self.heads
        query, key, value = (
            layers.heads(self._dense(x, self.embedding, f"block{i}_{name}"), self.heads)
            for name in ("query", "key", "value")
        )
        scores = jnp.einsum("nqd,nkd->nqk", query * size**-0.5, key)
        weights = self._dropped(jax.nn.softmax(scores, axis=-1), train)
        read = layers.joined(jnp.einsum("nqk,nkd->nqd", weights, value), self.heads)
        return self._dense(read, self.embedding, f"block{i}_out")

    def _mixed(self, x: Array, train: bool, i: int) -> Array:
        x = self._normalised(x, train, f"block{i}_norm1")
        x = self._dense(x, self.ratio * self.embedding, f"block{i}_first")
        x = layers.activated(self, f"inner{i}", x, self.activation)
        return self._dense(self._dropped(x, train), self.embedding, f"block{i}_second")

    def _dense(self, x: Array, features: int, name: str) -> Array:
        return layers.of_rows(x, nn.Dense(features, kernel_init=_INITIAL, name=name))

    def _normalised(self, x: Array, train: bool, name: str) -> Array:
        return norms.NORMS[self.norm](x, train, name, self.norm_affine)

    def _dropped(self, x: Array, train: bool) -> Array:
        return layers.dropped(x, self.dropout, train)

    def widened(self, factor: int) -> "ViT":
        """Returns the model that has each unit `factor` times, for clones of this one.

        Each head has its units `factor` times. Raises ValueError for group norm whose groups clones
        would part.
        """
        norms.check_cloned("vit", self.norm, [self.embedding], factor)
        return self.clone(embedding=factor * self.embedding)

    def rescaled(self, factor: int) -> dict[tuple[str, ...], float]:
        """Returns {path of a layer: what its parameters are multiplied by} in clones: a head's
        scores, of `factor` times as many products, are divided by the root of its size.
        """
        return {(f"block{i}_query",): factor**-0.5 for i in range(self.blocks)}

    def output_layer(self) -> tuple[str, ...]:
        """Returns the path of the head in the parameter tree."""
        return ("head",)

    def groups(self) -> list[str]:
        """Returns the names of the groups of activations, in order."""
        return [*self.units(), *self.LINEAR_GROUPS]

    def units(self) -> dict[str, UnitGroup]:
        """Returns where the incoming and outgoing weights of the `inner` groups are."""
        return {
            f"inner{i}": UnitGroup((f"block{i}_first",), None, (f"block{i}_second",))
            for i in range(self.blocks)
        }


def vit(
    outputs: int,
    norm: str,
    *,
    activation: str = "gelu",
    patch: int = 8,
    embedding: int = 384,
    blocks: int = 6,
    heads: int = 6,
    ratio: int = 4,
    norm_affine: bool = True,
    dropout: float = 0.1,
) -> ViT:
    """Vision transformer: patches of 8 x 8 pixels, 6 blocks of attention with 6 heads, 384 wide, a
    head; 11 M parameters.

    Images are padded with zeros to whole patches. Raises ValueError for a size < 1, `heads` that do
    not divide `embedding`, activation "crelu", or a `dropout` that is not from 0 to below 1.
    """
    sizes = (patch, embedding, blocks, heads, ratio)
    return ViT(outputs, norm, activation, *sizes, norm_affine, dropout)
