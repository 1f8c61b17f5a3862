"""The multi-layer perceptron of the MNIST and EMNIST experiments."""

from typing import ClassVar

import flax.linen as nn

from plasticity_jax.models import layers, norms
from plasticity_jax.types import Array, UnitGroup


class MLP(layers.Model):
    """`depth` hidden layers of `width` units: dense -> norm -> activation -> dropout; then a dense
    head.

    Inputs [B, ...] are flattened. `norm_affine` says whether norms learn scale and offset,
    `dropout` is the share of activations dropped in training. Unit groups h0, h1, ... are the
    activations, before what is dropped. Source: Liu & Mou 2026, section 5.1 (4 x 256, layer norm,
    ReLU); Joudaki et al. 2025 have 5 x 128; initialization as in PyTorch.
    """

    inputs: ClassVar[tuple[str, ...]] = ("images", "vectors")

    outputs: int
    width: int = 256
    depth: int = 4
    norm: str = "layer"
    activation: str = "relu"
    initialization: str = "torch"
    norm_affine: bool = True
    dropout: float = 0.0
    noisy: bool = False

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Returns logits [B, outputs]."""
        x = x.reshape(len(x), -1)
        for i in range(self.depth):
            x = layers.dense(x, self.width, self.initialization, f"layer{i}", self.noisy)
            x = norms.NORMS[self.norm](x, train, f"norm{i}", self.norm_affine)
            x = layers.activated(self, f"h{i}", x, self.activation)
            x = layers.dropped(x, self.dropout, train)
        return layers.dense(x, self.outputs, self.initialization, "head", self.noisy)

    def widened(self, factor: int) -> "MLP":
        """Returns the model that has each unit `factor` times, for clones of this one.

        Raises ValueError for group norm whose groups clones would part, and for noisy layers.
        """
        layers.check_not_noisy(self)
        norms.check_cloned("mlp", self.norm, [self.width], factor)
        return self.clone(width=factor * self.width)

    def output_layer(self) -> tuple[str, ...]:
        """Returns the path of the head in the parameter tree."""
        return ("head",)

    def groups(self) -> list[str]:
        """Returns the names of the groups of activations, in order."""
        return list(self.units())

    def units(self) -> dict[str, UnitGroup]:
        """Returns where each group's incoming and outgoing weights are."""
        layer = [f"layer{i}" for i in range(self.depth)] + ["head"]
        learned = self.norm != "none" and self.norm_affine
        norm = [(f"norm{i}",) if learned else None for i in range(self.depth)]
        copies = layers.copies(self.activation)
        return {
            f"h{i}": UnitGroup((layer[i],), norm[i], (layer[i + 1],), copies)
            for i in range(self.depth)
        }


def mlp(
    outputs: int,
    width: int,
    depth: int,
    norm: str,
    activation: str,
    initialization: str,
    *,
    norm_affine: bool = True,
    dropout: float = 0.0,
    noisy: bool = False,
) -> MLP:
    """Multi-layer perceptron: `depth` layers of `width` units, each dense -> norm -> activation,
    and a dense head.

    `norm_affine` says whether norms learn scale and offset; `dropout` is the share of activations
    dropped in training; `noisy` gives weights noise of a learned size in training and while an
    agent acts (Fortunato et al. 2018), in place of epsilon. Raises ValueError for a `dropout` that
    is not from 0 to below 1.
    """
    own = {"norm_affine": norm_affine, "dropout": dropout, "noisy": noisy}
    return MLP(outputs, width, depth, norm, activation, initialization, **own)
