"""A small convolutional network for images such as MNIST, EMNIST and CIFAR-10."""

import flax.linen as nn

from plasticity_jax.models import layers
from plasticity_jax.models.cpu import convolution
from plasticity_jax.types import Array, UnitGroup


class CNN(layers.Model):
    """Three 3x3 convolutions of `base`, 2 `base` and 4 `base` filters, a dense layer of `dense`
    units, a dense head.

    Each convolution is followed by norm -> activation -> 2x2 max pooling, the dense layer by norm
    -> activation. Pooling keeps odd rows and columns at the end, so that nothing is cut off and any
    image is large enough. Unit groups h0, h1, h2 are the activations before pooling [B, H, W,
    filters], h3 those of the dense layer. Source: ours; about what is common for these datasets,
    not the network of one paper.
    """

    outputs: int
    norm: str = "layer"
    activation: str = "relu"
    initialization: str = "torch"
    base: int = 32
    dense: int = 256

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Returns logits [B, outputs]."""
        for i in range(3):
            layer = convolution.Conv(
                self.base * 2**i, initialization=self.initialization, name=f"layer{i}"
            )
            x = convolution.NORMS[self.norm](layer(x), train, f"norm{i}")
            x = layers.activated(self, f"h{i}", x, self.activation)
            x = convolution.max_pool(x, whole=False)
        x = x.reshape(len(x), -1)  # channels fastest, as unit groups want it
        x = layers.dense(x, self.dense, self.initialization, name="layer3")
        x = layers.NORMS[self.norm](x, train, "norm3")
        x = layers.activated(self, "h3", x, self.activation)
        return layers.dense(x, self.outputs, self.initialization, name="head")

    def output_layer(self) -> tuple[str, ...]:
        """Returns the path of the head in the parameter tree."""
        return ("head",)

    def groups(self) -> list[str]:
        """Returns the names of the groups of activations, in order."""
        return list(self.units())

    def units(self) -> dict[str, UnitGroup]:
        """Returns where each group's incoming and outgoing weights are."""
        layer = ["layer0", "layer1", "layer2", "layer3", "head"]
        norm = [None if self.norm == "none" else (f"norm{i}",) for i in range(4)]
        return {f"h{i}": UnitGroup((layer[i],), norm[i], (layer[i + 1],)) for i in range(4)}


def cnn(
    outputs: int,
    norm: str,
    activation: str,
    initialization: str,
    *,
    base: int = 32,
    dense: int = 256,
) -> CNN:
    """Small convolutional network: 3x3 convolutions of base, 2 base, 4 base filters with pooling, a
    dense layer, a head.

    Raises ValueError for `base` or `dense` < 1.
    """
    return CNN(outputs, norm, activation, initialization, base, dense)
