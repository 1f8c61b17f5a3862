"""Methods that add a term on the network's activations to the loss."""

import jax.numpy as jnp

from plasticity_jax import registry
from plasticity_jax.methods.lifting import Term
from plasticity_jax.types import Number


@registry.checked
def feature_norm(*, strength: Number = 1e-3) -> Term:
    """Feature norm: the mean over examples of the squared norm of the last hidden layer is added.

    loss + strength * mean_b ||h_b||_2^2, h the last group of activations, positions counted as
    parts of an example. Source: Lyle et al., "Disentangling the Causes of Plasticity Loss", who
    name the penalty and not its scale.
    """

    def value(view, memory):
        del memory
        last = view.hidden[list(view.hidden)[-1]]
        return jnp.square(last.reshape(len(last), -1)).sum(axis=1).mean()

    return Term(value, strength)
