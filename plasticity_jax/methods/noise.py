"""Methods that add noise to gradients."""

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from plasticity_jax import registry
from plasticity_jax.methods import lifting
from plasticity_jax.types import Method, Number, Share

_DRAW = 1  # apart from what other methods draw of the same key


@registry.checked
def gradient_noise(*, scale: Number = 0.01, decay: Share = 1.0, form: str = "tensor") -> Method:
    """Gradient noise: normal noise in proportion to the gradient is added to it at every step.

    g <- g + s_t r N(0, 1), s_t = scale decay^t, t steps taken since the start. With `form` "tensor"
    r is ||g||_2 of a whole tensor of n parameters, so that the noise is about sqrt(n) s_t times as
    long as the gradient; with "parameter" it is |g_i| of each number. The gradient is that of loss
    plus penalties. Source: Joudaki et al. 2025, whose form is "tensor" (0.01, decay 0.999); that a
    scale of 0 leaves every bit is ours. Raises ValueError for an unknown `form`.
    """
    registry.one_of("gradient_noise.form", form, ("tensor", "parameter"))

    def method(optimizer: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
        inner = lifting.extended(optimizer)

        def update(updates, state, params=None, *, ctx=None, **extra):
            if ctx is None:
                raise ValueError("gradient_noise needs update(..., params, ctx=Context(...)).")
            spread = jnp.float32(scale) * jnp.float32(decay) ** ctx.step
            flat, unravel = ravel_pytree(updates)
            key = jax.random.fold_in(ctx.key, _DRAW)
            drawn = unravel(jax.random.normal(key, flat.shape, flat.dtype))

            def noisy(g, normal):
                size = jnp.abs(g) if form == "parameter" else jnp.linalg.norm(g.ravel())
                return jnp.where(spread > 0, g + (spread * size * normal).astype(g.dtype), g)

            noised = jax.tree.map(noisy, updates, drawn)
            return inner.update(noised, state, params, ctx=ctx, **extra)

        return optax.GradientTransformationExtraArgs(inner.init, update)

    return method
