"""The multi-layer perceptron of the MNIST and EMNIST experiments."""

from typing import ClassVar

import flax.linen as nn

from plasticity_jax.models import layers
from plasticity_jax.types import Array, UnitGroup


class MLP(layers.Model):
    """`depth` hidden layers of `width` units: dense -> norm -> activation; then a dense head.

    Inputs [B, ...] are flattened. Unit groups h0, h1, ... are the activations. Source: Liu & Mou,
    section 5.1 (4 x 256, layer norm, ReLU); initialization as in PyTorch.
    """

    inputs: ClassVar[tuple[str, ...]] = ("images", "vectors")

    outputs: int
    width: int = 256
    depth: int = 4
    norm: str = "layer"
    activation: str = "relu"
    initialization: str = "torch"

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Returns logits [B, outputs]."""
        x = x.reshape(len(x), -1)
        for i in range(self.depth):
            x = layers.dense(x, self.width, self.initialization, name=f"layer{i}")
            x = layers.NORMS[self.norm](x, train, name=f"norm{i}")
            x = layers.activated(self, f"h{i}", x, self.activation)
        return layers.dense(x, self.outputs, self.initialization, name="head")

    def output_layer(self) -> tuple[str, ...]:
        """Returns the path of the head in the parameter tree."""
        return ("head",)

    def groups(self) -> list[str]:
        """Returns the names of the groups of activations, in order."""
        return list(self.units())

    def units(self) -> dict[str, UnitGroup]:
        """Returns where each group's incoming and outgoing weights are."""
        layer = [f"layer{i}" for i in range(self.depth)] + ["head"]
        norm = [None if self.norm == "none" else (f"norm{i}",) for i in range(self.depth)]
        return {
            f"h{i}": UnitGroup((layer[i],), norm[i], (layer[i + 1],)) for i in range(self.depth)
        }


def mlp(
    outputs: int, width: int, depth: int, norm: str, activation: str, initialization: str
) -> MLP:
    """Multi-layer perceptron: `depth` layers of `width` units, each dense -> norm -> activation,
    and a dense head.
    """
    return MLP(outputs, width, depth, norm, activation, initialization)
