"""The residual network with 18 layers of the CIFAR-10 and Tiny-ImageNet experiments."""

from collections.abc import Mapping
from typing import ClassVar

import flax.linen as nn

from plasticity_jax import registry
from plasticity_jax.models import layers, norms
from plasticity_jax.models.cpu import convolution
from plasticity_jax.models.pretrained import keys, reading
from plasticity_jax.types import Array, PyTree, UnitGroup

STEMS = ("3x3", "7x7")
BLOCKS = 8  # two in each of four stages


class ResNet18(layers.Model):
    """A stem, four stages of two basic blocks with `base`, 2, 4 and 8 `base` channels, the mean
    over positions, a head.

    A block is act(norm(conv(act(norm(conv(x))))) + shortcut(x)), its convolutions 3x3. The first
    block of the second to fourth stage halves the image and has a shortcut norm(conv 1x1) of stride
    2; the others add x itself. The stem is norm(conv 3x3), or, as for ImageNet, norm(conv 7x7 of
    stride 2) -> act -> 3x3 max pooling of stride 2.

    Groups of activations, in order: `stream0` after the stem, then of each block i `inner{i}`
    between its convolutions and `stream{i+1}` after it; the last stream is the last hidden layer.
    Only the inner ones are unit groups, which a method may recycle: exactly one layer makes them
    and one reads them. A channel of a stream is a sum over all earlier blocks of its stage and is
    read by all later ones, so there is no one unit to start afresh.

    Convolutions have a bias only without a norm. Source: He et al. 2016; layout, padding and norms
    as microsoft/resnet-18 in transformers. Deviations: the stem is 3x3 by default, as is usual for
    small images; initial weights are the Spec's (there: He, fan-out); the running variance of batch
    norm is the biased one.
    """

    outputs: int
    norm: str = "batch"
    activation: str = "relu"
    initialization: str = "torch"
    base: int = 64
    stem: str = "3x3"
    pretrained: str = ""
    norm_affine: bool = True
    dropout: float = 0.0

    CHOICES: ClassVar[Mapping[str, tuple[str, ...]]] = {"stem": STEMS}
    CRELU: ClassVar[bool] = False

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Returns logits [B, outputs]."""

        def normalised(x: Array, features: int, size: int, stride: int, name: str) -> Array:
            bias = self.norm == "none"
            layer = convolution.Conv(features, size, stride, bias, self.initialization, name=name)
            return norms.OF_IMAGES[self.norm](layer(x), train, f"{name}_norm", self.norm_affine)

        large = self.stem == "7x7"
        x = normalised(x, self.base, 7 if large else 3, 2 if large else 1, "stem")
        x = layers.activated(self, "stream0", x, self.activation)
        if large:
            x = convolution.max_pool(x, size=3, stride=2, padding=1)
            layers.sow(self, "stream0", x)
        for i in range(BLOCKS):
            features, stride = self.base * 2 ** (i // 2), 2 if i in (2, 4, 6) else 1
            inner = normalised(x, features, 3, stride, f"block{i}_first")
            inner = layers.activated(self, f"inner{i}", inner, self.activation)
            shortcut = (
                x if stride == 1 else normalised(x, features, 1, stride, f"block{i}_shortcut")
            )
            x = normalised(inner, features, 3, 1, f"block{i}_second") + shortcut
            x = layers.activated(self, f"stream{i + 1}", x, self.activation)
        x = layers.dropped(x.mean(axis=(1, 2)), self.dropout, train)
        return layers.dense(x, self.outputs, self.initialization, name="head")

    def widened(self, factor: int) -> "ResNet18":
        """Returns the model that has each unit `factor` times, for clones of this one.

        It starts from no checkpoint. Raises ValueError for group norm whose groups clones would
        part.
        """
        norms.check_cloned("resnet18", self.norm, [self.base * k for k in (1, 2, 4, 8)], factor)
        return self.clone(base=factor * self.base, pretrained="")

    def output_layer(self) -> tuple[str, ...]:
        """Returns the path of the head in the parameter tree."""
        return ("head",)

    def groups(self) -> list[str]:
        """Returns the names of the groups of activations, in order."""
        names = ["stream0"]
        for i in range(BLOCKS):
            names += [f"inner{i}", f"stream{i + 1}"]
        return names

    def load(self, variables: PyTree) -> PyTree:
        """Returns `variables` with the pretrained checkpoint's values; a head for other classes
        stays as it was drawn.
        """
        folder, layout = self.pretrained, keys.RESNET
        found, tensors = reading.config(folder, layout), reading.held(folder, layout)
        channels = variables["params"]["stem"]["kernel"].shape[2]
        reading.compare(folder, layout, found, {"num_channels": channels})
        body = "" if "embedder.embedder.convolution.weight" in tensors else "resnet."
        head = [name for name in reading.RESNET_HEAD if name in tensors]
        classes = {tensors[name].shape[:1] for name in head}
        fits = (self.outputs,) in classes
        names = reading.resnet18_names(fits, body)
        left_out = reading.RESNET_HEAD if head and not fits else ()
        # how many batches the statistics are of, which counts where they are plain means only
        means = [name for name in names.values() if name.endswith("running_mean")]
        counters = [name.replace("running_mean", "num_batches_tracked") for name in means]
        return reading.filled(
            folder, tensors, variables, names, left_out=left_out, ignored=counters
        )

    def units(self) -> dict[str, UnitGroup]:
        """Returns where the incoming and outgoing weights of the `inner` groups are."""
        learned = self.norm != "none" and self.norm_affine
        norm = [(f"block{i}_first_norm",) if learned else None for i in range(BLOCKS)]
        copies = layers.copies(self.activation)
        return {
            f"inner{i}": UnitGroup((f"block{i}_first",), norm[i], (f"block{i}_second",), copies)
            for i in range(BLOCKS)
        }


def resnet18(
    outputs: int,
    norm: str,
    activation: str,
    initialization: str,
    *,
    base: int = 64,
    stem: str = "3x3",
    pretrained: str = "",
    norm_affine: bool = True,
    dropout: float = 0.0,
) -> ResNet18:
    """ResNet-18: a 3x3 or 7x7 stem, eight basic blocks of `base` to 8 `base` channels, a head; 11 M
    parameters at 64.

    The sources use norm "batch". `pretrained` is a folder with a Hugging Face checkpoint of a
    ResNet-18 (7x7 stem, batch norm, ReLU), whose values the run starts from; what methods draw
    afresh is random all the same. `norm_affine` says whether norms learn scale and offset,
    `dropout` is of what the head reads. Raises ValueError for another `stem`, `base` < 1, or
    activation "crelu", which doubles the channels and so does not fit a residual stream; DataError
    or ValueError for a checkpoint that is none or does not fit.
    """
    shape = (outputs, norm, activation, initialization, base, stem)
    model = ResNet18(*shape, pretrained, norm_affine, dropout)
    if pretrained:
        registry.one_of("resnet18.stem of a pretrained network", stem, ["7x7"])
        registry.one_of("norm of a pretrained resnet18", norm, ["batch"])
        registry.one_of("resnet18.norm_affine of a pretrained network", norm_affine, [True])
        # (in transformers hidden_act is that of the stem and of the sums alone: within a block
        # stays ReLU)
        registry.one_of("activation of a pretrained resnet18", activation, ["relu"])
        sizes = {
            "hidden_sizes": [base * k for k in (1, 2, 4, 8)],
            "depths": [2] * 4,
            "embedding_size": base,
        }
        kind = {
            "layer_type": "basic",
            "hidden_act": activation,
            "downsample_in_first_stage": False,
        }
        layout = keys.RESNET
        reading.compare(pretrained, layout, reading.config(pretrained, layout), {**sizes, **kind})
    return model
