"""Losses with a basin whose constants are known, as pure functions of arrays: traceable, so whole
families can be vmapped.

A basin is a minimizer θ* with a ball of radius R around it on which the Hessian's eigenvalues lie
in [μ, β]. The two definitions of Liu & Mou 2026, section 4, then hold on that ball: β-smoothness
(4.1, which they ask of the whole space; their proofs use it on the ball alone) and local strong
convexity (4.2). Sources: the formulas of each landscape are ours.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from plasticity_jax.types import Array, Key, Number


class Basin(NamedTuple):
    """A loss and what is known of it around one minimizer.

    Attributes:
      loss: θ [d] -> [].
      minimizer: θ* [d], where the gradient vanishes.
      mu: [] strong convexity on the ball, > 0.
      beta: [] smoothness on the ball, >= mu.
      radius: [] R of the ball around θ*; inf where mu and beta hold everywhere.
    """

    loss: Callable[[Array], Array]
    minimizer: Array
    mu: Array
    beta: Array
    radius: Array


def direction(key: Key, dimension: int) -> Array:
    """Returns a uniformly random unit vector [d]."""
    vector = jax.random.normal(key, (dimension,))
    return vector / jnp.linalg.norm(vector)


def quadratic(
    key: Key, dimension: int, mu: Number = 1.0, beta: Number = 4.0, norm: Number = 1.0
) -> Basin:
    """Returns a random quadratic, half (θ - θ*)ᵀ H (θ - θ*), strongly convex everywhere.

    H has eigenvalues drawn from [mu, beta], both ends included, in random directions; θ* is random
    of norm `norm`. `dimension` >= 2, so that both ends fit.
    """
    shape, axes, where = jax.random.split(key, 3)
    share = jax.random.uniform(shape, (dimension,)).at[0].set(0.0).at[1].set(1.0)
    basis = jax.random.orthogonal(axes, dimension)
    hessian = (basis * (mu + (beta - mu) * share)[None]) @ basis.T
    minimizer = norm * direction(where, dimension)

    def loss(x):
        return (x - minimizer) @ hessian @ (x - minimizer) / 2

    return Basin(
        loss, minimizer, jnp.asarray(mu, float), jnp.asarray(beta, float), jnp.asarray(jnp.inf)
    )


def gaussian_well(
    minimizer: Array, precision: Array, depth: Number = 1.0, share: Number = 0.5
) -> Basin:
    """Returns depth (1 - exp(-q)), q = half (θ - θ*)ᵀ P (θ - θ*): a well in a plain that goes flat
    far away.

    With u = √P (θ - θ*) the Hessian is depth e^{-q} √P (I - u uᵀ) √P. On |u| <= share < 1 its
    smallest eigenvalue is at least depth e^{-share²/2} (1 - share²) p_min, as (1 - v) e^{-v/2}
    falls in v = |u|²; the ball of radius R = share / √p_max lies inside. Everywhere its eigenvalues
    are at most depth p_max in size (the negative ones reach only -2 e^{-3/2} of that), so beta =
    depth p_max is global. Beyond |u| = 1 it is not convex, and GD starves on the plain.

    Args:
      minimizer: θ* [d].
      precision: P [d, d], symmetric positive definite.
      share: in (0, 1), how far towards the end of convexity the ball reaches.
    """
    eigenvalues = jnp.linalg.eigvalsh(precision)
    mu = depth * jnp.exp(-(share**2) / 2) * (1 - share**2) * eigenvalues[0]

    def loss(x):
        return depth * -jnp.expm1(-(x - minimizer) @ precision @ (x - minimizer) / 2)

    return Basin(loss, minimizer, mu, depth * eigenvalues[-1], share / jnp.sqrt(eigenvalues[-1]))


def bumped_quadratic(
    minimizer: Array,
    axes: Array | None = None,
    bump: Number = 5.0,
    spacing: Number = 1.0,
    share: Number = 0.9,
) -> Basin:
    """Returns half |u|² + (bump / w²) Σ_i (1 - cos(w u_i)), u = axesᵀ (θ - θ*), w = 2π / spacing: a
    bowl full of dents.

    The Hessian's eigenvalues are 1 + bump cos(w u_i), so with bump > 1 it is not convex; along an
    axis the minimum near the n-th multiple of `spacing` exists from a bump of about (2n - 1/2) π.
    It is convex up to |u_i| < r, where w r = arccos(-1 / bump); on the ball of radius R = share r,
    as |u_i| <= |u| and w R < π, mu = 1 + bump cos(w R), and beta = 1 + bump globally.

    Args:
      minimizer: θ* [d], the bottom of the bowl.
      axes: [d, d] orthogonal; the identity if not given.
      bump: > 1.
      spacing: between neighboring dents.
      share: in (0, 1), how far towards the end of convexity the ball reaches.
    """
    frequency = 2 * jnp.pi / jnp.asarray(spacing, float)
    bump = jnp.asarray(bump, float)
    radius = share * jnp.arccos(-1 / bump) / frequency
    turned = jnp.eye(len(minimizer)) if axes is None else axes

    def loss(x):
        u = turned.T @ (x - minimizer)
        return u @ u / 2 + bump / frequency**2 * (1 - jnp.cos(frequency * u)).sum()

    return Basin(loss, minimizer, 1 + bump * jnp.cos(frequency * radius), 1 + bump, radius)


def two_wells(
    tilt: Number = 0.1, stiffness: Number = 1.0, share: Number = 0.9, dimension: int = 2
) -> Basin:
    """Returns (x² - 1)² / 4 - tilt x + half stiffness |y|², θ = (x, y): a well near x = 1 and
    another near x = -1.

    The minimizer is the largest root of x³ - x = tilt, by the cosine formula, with y = 0; it is the
    deeper well for tilt > 0, the shallower for tilt < 0. The Hessian is diagonal, 3x² - 1 and
    stiffness, convex for x > 1/√3. On the ball of radius R = share (x* - 1/√3): mu = min(stiffness,
    3 (x* - R)² - 1), beta = max(stiffness, 3 (x* + R)² - 1), which holds on the ball alone. |tilt|
    < 2 / (3√3) = 0.385, else there is one well.
    """
    x = _root(tilt, 0)
    radius = share * (x - 3**-0.5)
    mu = jnp.minimum(stiffness, 3 * (x - radius) ** 2 - 1)
    beta = jnp.maximum(stiffness, 3 * (x + radius) ** 2 - 1)

    def loss(theta):
        return (
            (theta[0] ** 2 - 1) ** 2 / 4 - tilt * theta[0] + stiffness * (theta[1:] ** 2).sum() / 2
        )

    return Basin(loss, jnp.zeros(dimension).at[0].set(x), mu, beta, radius)


def other_well(tilt: Number = 0.1, dimension: int = 2) -> Array:
    """Returns the minimizer [d] of `two_wells` that is not the basin's."""
    return jnp.zeros(dimension).at[0].set(_root(tilt, 2))


def _root(tilt: Number, which: int) -> Array:
    """A root of x³ - x = tilt: number 0 is the largest, 2 the smallest."""
    angle = jnp.arccos(1.5 * 3**0.5 * jnp.asarray(tilt, float))
    return 2 / 3**0.5 * jnp.cos((angle - 2 * jnp.pi * which) / 3)
