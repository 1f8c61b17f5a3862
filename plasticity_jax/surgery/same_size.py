"""Surgery that leaves every tensor's shape as it is."""

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from plasticity_jax import registry
from plasticity_jax.types import Array, Key, Number, Recipient, Surgery, TrainState


def none() -> Surgery:
    """The network as it is."""
    return Surgery(lambda key, state, into: state)


@registry.checked
def perturb(*, scale: Number = 0.1) -> Surgery:
    """Gaussian noise on every parameter, as large as `scale` times its tensor's own deviation.

    p <- p + scale * std(p) * N(0, 1). A tensor whose entries are equal stays as it is, and with
    `scale=0` all do, to the bit. Initial parameters, what the model keeps besides and the
    optimizer's state are left alone. Source: ours, for aged networks that are moved a little;
    without shrinking it is the perturbation of Ash & Adams 2020, relative to each tensor.
    """

    def operate(key: Key, state: TrainState, into: Recipient) -> TrainState:
        del into
        flat, unravel = ravel_pytree(state.params)
        drawn = unravel(jax.random.normal(key, flat.shape, flat.dtype))

        def moved(values: Array, noise: Array) -> Array:
            size = jnp.asarray(scale, values.dtype) * values.std()
            # (equal entries have a deviation by rounding; adding zero would change a sign of zero)
            still = (size == 0) | (values.max() == values.min())
            return jax.lax.select(still, values, values + size * noise)

        return state._replace(params=jax.tree.map(moved, state.params, drawn))

    return Surgery(operate)
