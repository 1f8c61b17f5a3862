"""A small convolutional network for images such as MNIST, EMNIST and CIFAR-10."""

import flax.linen as nn

from plasticity_jax.models import layers, norms
from plasticity_jax.models.cpu import convolution
from plasticity_jax.types import Array, UnitGroup


class CNN(layers.Model):
    """Three 3x3 convolutions of `base`, 2 `base` and 4 `base` filters, a dense layer of `dense`
    units, a dense head.

    Each convolution is followed by norm -> activation -> 2x2 max pooling, the dense layer by norm
    -> activation -> dropout. Pooling keeps odd rows and columns at the end, so that nothing is cut
    off and any image is large enough. Unit groups h0, h1, h2 are the activations before pooling [B,
    H, W, filters], h3 those of the dense layer. Source: ours; about what is common for these
    datasets, not the network of one paper.
    """

    outputs: int
    norm: str = "layer"
    activation: str = "relu"
    initialization: str = "torch"
    base: int = 32
    dense: int = 256
    norm_affine: bool = True
    dropout: float = 0.0
    noisy: bool = False

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Returns logits [B, outputs]."""
        for i in range(3):
            layer = convolution.Conv(
                self.base * 2**i, initialization=self.initialization, name=f"layer{i}"
            )
            x = norms.OF_IMAGES[self.norm](layer(x), train, f"norm{i}", self.norm_affine)
            x = layers.activated(self, f"h{i}", x, self.activation)
            x = convolution.max_pool(x, whole=False)
        x = x.reshape(len(x), -1)  # channels fastest, as unit groups want it
        x = layers.dense(x, self.dense, self.initialization, "layer3", self.noisy)
        x = norms.NORMS[self.norm](x, train, "norm3", self.norm_affine)
        x = layers.activated(self, "h3", x, self.activation)
        x = layers.dropped(x, self.dropout, train)
        return layers.dense(x, self.outputs, self.initialization, "head", self.noisy)

    def widened(self, factor: int) -> "CNN":
        """Returns the model that has each unit `factor` times, for clones of this one.

        Raises ValueError for group norm whose groups clones would part, and for noisy layers.
        """
        layers.check_not_noisy(self)
        channels = [self.base, 2 * self.base, 4 * self.base, self.dense]
        norms.check_cloned("cnn", self.norm, channels, factor)
        return self.clone(base=factor * self.base, dense=factor * self.dense)

    def output_layer(self) -> tuple[str, ...]:
        """Returns the path of the head in the parameter tree."""
        return ("head",)

    def groups(self) -> list[str]:
        """Returns the names of the groups of activations, in order."""
        return list(self.units())

    def units(self) -> dict[str, UnitGroup]:
        """Returns where each group's incoming and outgoing weights are."""
        layer = ["layer0", "layer1", "layer2", "layer3", "head"]
        learned = self.norm != "none" and self.norm_affine
        norm = [(f"norm{i}",) if learned else None for i in range(4)]
        copies = layers.copies(self.activation)
        return {f"h{i}": UnitGroup((layer[i],), norm[i], (layer[i + 1],), copies) for i in range(4)}


def cnn(
    outputs: int,
    norm: str,
    activation: str,
    initialization: str,
    *,
    base: int = 32,
    dense: int = 256,
    norm_affine: bool = True,
    dropout: float = 0.0,
    noisy: bool = False,
) -> CNN:
    """Small convolutional network: 3x3 convolutions of base, 2 base, 4 base filters with pooling, a
    dense layer, a head.

    That of Joudaki et al. 2025 has base 64, dense 512 and dropout 0.1, which is of the dense layer
    alone. `norm_affine` says whether norms learn scale and offset; `noisy` gives the weights of the
    two dense layers noise of a learned size in training and while an agent acts (Fortunato et al.
    2018), in place of epsilon. Raises ValueError for `base` or `dense` < 1, or a `dropout` that is
    not from 0 to below 1.
    """
    own = {"norm_affine": norm_affine, "dropout": dropout, "noisy": noisy}
    return CNN(outputs, norm, activation, initialization, base, dense, **own)
