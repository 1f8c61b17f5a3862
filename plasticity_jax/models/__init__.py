"""Models: a new one is one factory that returns a Flax module with `groups()` and `units()`, and
one line in MODELS.

A model is called as `model.apply(variables, x, train)`, returns logits [B, outputs] and sows groups
of activations into the collection "hidden", and what an activation function was applied to into
"preactivations" (`layers.activated` does both). What it drops it draws from "dropout"; its field
`dropout`, if it has one, says whether it does. `groups()` names the groups in the order of the
layers, for probes; `units()` says of those that a method may recycle where they live in the
parameter tree; `output_layer()`, which may be left out, is the path of the head there. A factory's
positional parameters are fields of Spec, its keyword-only ones the model's own options.

A model that can be cloned (`surgery.clone`) has `widened(factor)`, the model with each unit
`factor` times, and may have `rescaled(factor)`, {path of a layer: a factor of its parameters}.

Class attributes, where they differ from the usual: `inputs`, what it reads ("images"; "text": a
Text, and `start` and `step` for decoding, see `text.decoding`), and `LINEAR_GROUPS`, groups that no
activation function made (none). How its lanes are spread and vmapped is a line in
`execution.placement.STRATEGY_TABLE`; without one they are spread over all devices, one at a time.
"""

from collections.abc import Callable
from typing import Any

from plasticity_jax import registry
from plasticity_jax.models.cnn import CNN, cnn
from plasticity_jax.models.game_cnn import GameCNN, game_cnn
from plasticity_jax.models.layers import ACTIVATIONS, INITIALIZATIONS
from plasticity_jax.models.mlp import MLP, mlp
from plasticity_jax.models.norms import NORMS
from plasticity_jax.models.resnet import ResNet18, resnet18
from plasticity_jax.models.t5 import T5, t5
from plasticity_jax.models.vit import ViT, vit
from plasticity_jax.types import Decoding

__all__ = [
    "ACTIVATIONS",
    "CNN",
    "INITIALIZATIONS",
    "MLP",
    "MODELS",
    "NORMS",
    "T5",
    "GameCNN",
    "ResNet18",
    "ViT",
    "check_ids",
    "cnn",
    "game_cnn",
    "head",
    "inputs",
    "mlp",
    "resnet18",
    "t5",
    "vit",
]

MODELS = {
    "mlp": mlp,
    "cnn": cnn,
    "resnet18": resnet18,
    "t5": t5,
    "vit": vit,
    "game_cnn": game_cnn,
}


def head(model: Any) -> tuple[str, ...] | None:
    """Returns the path of a model's output layer in the parameter tree, None where it has none."""
    return model.output_layer() if hasattr(model, "output_layer") else None


def check_ids(model: Any, decoding: Decoding | None) -> None:
    """Raises ValueError if a model begins from a checkpoint in which ids mean something else than
    in the texts of `decoding`.
    """
    if decoding is not None and hasattr(model, "check_ids"):
        model.check_ids(dict(decoding.special))


def inputs(factory: Callable) -> tuple[str, ...]:
    """Returns what the models of a factory read, of "images", "vectors" and "text"."""
    return getattr(registry.returned(factory), "inputs", ("images",))
