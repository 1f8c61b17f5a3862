"""Methods that add a term on what the network does on a minibatch to the loss."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from plasticity_jax import registry, trees
from plasticity_jax.methods.lifting import Term
from plasticity_jax.types import Array, Number, Real, View


@registry.checked
def feature_norm(*, strength: Number = 1e-3) -> Term:
    """Feature norm: the mean over examples of the squared norm of the last hidden layer is added.

    loss + strength * mean_b ||h_b||_2^2, h the last group of activations, positions counted as
    parts of an example. Source: Lyle et al. 2024, "Disentangling the Causes of Plasticity Loss",
    who name the penalty and not its scale.
    """

    def value(view, memory):
        del memory
        return jnp.square(_last(view.hidden)).sum(axis=1).mean()

    return Term(value, strength)


def _last(hidden: Any) -> Array:
    """The last group of activations, [B, H], positions beside each other."""
    name = list(hidden)[-1]
    last = trees.activations(f"hidden[{name!r}]", hidden[name])
    return last.reshape(len(last), -1)


@registry.checked
def infer(*, strength: Number = 0.1, scale: Real = 1.0, heads: int = 10) -> Term:
    """InFeR: projections of the last hidden layer stay near `scale` times what they were in the
    initial network, on the same inputs.

    loss + strength * mean_b sum_i (w_i . h_b - scale * w_i . h0_b)^2, h the last group of
    activations, h0 those of the initial parameters, w_i `heads` random directions of mean squared
    length 1. Source: Lyle, Rowland & Dabney 2022, "Understanding and Preventing Capacity Loss in
    Reinforcement Learning", with 10 heads, a scale of 100 and a strength of 0.1. Deviation: their
    heads are trained with the network, ours stay as they were drawn (for all seeds alike), since a
    term has no parameters; so features, not heads, would have to grow, and the usual scale is 1.
    Raises ValueError for fewer than 1 head.
    """
    count = registry.whole("infer.heads", heads, 1)

    def value(view: View, memory: Any) -> Array:
        del memory
        if view.features is None:
            raise ValueError("infer needs a View with features: allowed is any function.")
        now, before = _last(view.hidden), _last(view.features(view.initial))
        width = now.shape[1]
        drawn = jax.random.normal(jax.random.key(0), (width, count)) / width**0.5
        wanted = jax.lax.stop_gradient(scale * (before @ drawn))
        return jnp.square(now @ drawn - wanted).sum(axis=1).mean()

    return Term(value, strength)


@registry.checked
def gradient_penalty(*, strength: Number = 1e-3) -> Term:
    """Gradient penalty: the squared norm of the loss's gradient by the parameters is added.

    loss + strength * ||d loss / d params||_2^2, on the same minibatch, without what other methods
    add. A step takes about three times as long. Source: Barrett & Dherin 2021; named, without a
    scale, by Lyle et al. 2024, "Disentangling the Causes of Plasticity Loss".
    """

    def value(view: View, memory: Any) -> Array:
        del memory
        if view.loss is None:
            raise ValueError("gradient_penalty needs a View with a loss: allowed is any function.")
        return optax.tree.norm(jax.grad(view.loss)(view.params), squared=True)

    return Term(value, strength)
