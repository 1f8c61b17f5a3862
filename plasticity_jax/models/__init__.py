"""Models: a new one is one factory that returns a Flax module with `units()`, and one line in MODELS.

A model is called as `model.apply(variables, x, train)`, returns logits [B, outputs], sows the activations of each unit
group into the collection "hidden", and says in `units()` where each group lives in the parameter tree.
"""

from plasticity_jax.models.layers import ACTIVATIONS, INITIALIZATIONS, NORMS
from plasticity_jax.models.mlp import MLP, mlp

__all__ = ["ACTIVATIONS", "INITIALIZATIONS", "MLP", "MODELS", "NORMS", "mlp"]

MODELS = {
    "mlp": mlp,
}
