"""Expectations of an activation function of a normal variable, by quadrature in float64.

`function` acts number by number and may have a kink at 0. Deviation: the paper's own helper scales
the nodes of Gauss and Hermite the wrong way, and has 3.0 where alpha of a ReLU is 0.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from plasticity_jax.types import Array

Function = Callable[[Array], Array]

_EDGE = 12.0  # beyond it lies 4e-33 of a normal distribution
_NODES = 12  # of a panel
_PANELS = 400  # of equal width, to which those towards the kink are added


class Moments(NamedTuple):
    """Expectations over a standard normal z, of f at scale * z + shift as a function of z.

    Attributes:
      mean, square, slope_square: E f, E f^2 and E (df/dz)^2.
    """

    mean: float
    square: float
    slope_square: float


def _points(scale: float, shift: float) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of a composite Gauss-Legendre rule times the normal density.

    Panels end at the kink and shrink towards it, so that steep functions are resolved there.
    """
    kink = -shift / scale
    towards = 2.0 * _EDGE * 0.5 ** np.arange(40)
    uniform = np.linspace(-_EDGE, _EDGE, _PANELS + 1)
    edges = np.unique(np.concatenate([uniform, [kink], kink + towards, kink - towards]))
    edges = edges[np.abs(edges) <= _EDGE]
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    half = np.diff(edges)[:, None] / 2
    z = (edges[:-1, None] + half * (nodes[None] + 1)).ravel()
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    return z, (half * weights[None]).ravel() * density


def _values(function: Function, scale: float, shift: float) -> tuple[np.ndarray, ...]:
    """Values and slopes with respect to z at the nodes, and weights."""
    _check(scale, shift)
    z, weights = _points(scale, shift)
    with jax.enable_x64(True):
        x = jnp.asarray(scale * z + shift, jnp.float64)
        value, slope = jax.jvp(function, (x,), (jnp.full_like(x, scale),))
        return np.asarray(value), np.asarray(slope), weights


def _check(scale: float, shift: float) -> None:
    if not (np.isfinite(scale) and scale != 0 and np.isfinite(shift)):
        raise ValueError(
            f"scale is {scale!r} and shift {shift!r}: allowed are finite numbers, and a scale that "
            "is not 0."
        )


def moments(function: Function, scale: float = 1.0, shift: float = 0.0) -> Moments:
    """Returns the Moments of `function` at scale * z + shift, to about 1e-10 of their size.

    Raises ValueError for a scale of 0, or what is not finite.
    """
    value, slope, weights = _values(function, scale, shift)
    return Moments(float(weights @ value), float(weights @ value**2), float(weights @ slope**2))


def alpha(
    function: Function, scale: float = 1.0, shift: float = 0.0, centred: bool = False
) -> float:
    """Returns E f'(z)^2 / E f(z)^2 - 1, z ~ N(0, 1), of f = function(scale * z + shift).

    Two inputs with a correlation of 1 - eps have one of 1 - (1 + alpha) eps after the function, to
    first order. If `centred`, Var f stands for E f^2, as a covariance has it. Source: Joudaki et
    al. 2025, proposition 3.1; `centred` is ours: their simulation centers, their alpha does not,
    and the two agree for odd functions only. Raises ValueError as `moments` does.
    """
    found = moments(function, scale, shift)
    variance = found.square - found.mean**2 if centred else found.square
    return found.slope_square / variance - 1


def frozen_probability(
    function: Function, scale: float = 1.0, shift: float = 0.0, slope: float = 1e-4
) -> float:
    """Returns the probability that |f'(z)| < `slope`, z ~ N(0, 1), of f = function(scale * z +
    shift), derivatives with respect to z; to about 1e-3.

    Source: Joudaki et al. 2025, corollary 3.1 and figure A.3. Raises ValueError as `moments` does.
    """
    _, slopes, weights = _values(function, scale, shift)
    return float(weights[np.abs(slopes) < slope].sum())
