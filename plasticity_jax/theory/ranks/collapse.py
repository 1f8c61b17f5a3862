"""Ranks near collapse, where all units are almost equal, and what an activation function makes of
them: a formula, and simulations in float64 that it can be held against.
"""

import jax
import jax.numpy as jnp
import numpy as np

from plasticity_jax.theory.ranks.gaussian import Function


def rank_of_eigenvalues(eigenvalues: np.ndarray) -> float:
    """Returns exp(-sum p ln p), p = eigenvalues / their sum, those below 0 taken for 0.

    Source: Roy & Vetterli 2007, here of a covariance.
    """
    positive = np.maximum(np.asarray(eigenvalues, np.float64), 0)
    p = positive[positive > 0] / positive.sum()
    return float(np.exp(-(p * np.log(p)).sum()))


def _check(units: int, eps: float) -> None:
    if not (units >= 2 and 0 < eps <= 1):
        raise ValueError(
            f"units is {units!r} and eps {eps!r}: allowed are 2 units or more, and numbers above 0 "
            "up to 1."
        )


def equicorrelated_rank(units: int, eps: float) -> float:
    """Returns the effective rank of C with C_ii = 1 and C_ij = 1 - eps.

    Its eigenvalues are 1 + (units - 1)(1 - eps), once, and eps. Raises ValueError for fewer than 2
    units, or an `eps` that is not above 0 and at most 1.
    """
    _check(units, eps)
    largest = 1 + (units - 1) * (1 - eps)
    return rank_of_eigenvalues(np.array([largest, *[eps] * (units - 1)]))


def effective_rank_after(units: int, eps: float, alpha: float) -> float:
    """Returns r(C) (1 + alpha eps ln(units / eps)), the effective rank after a function of that
    alpha, to first order in eps.

    Source: Joudaki et al. 2025, proposition 3.1. Against `simulated_rank` alpha is the centered
    one; at an eps above 0.03 the first order is not enough. Raises ValueError as
    `equicorrelated_rank` does.
    """
    return equicorrelated_rank(units, eps) * (1 + alpha * eps * np.log(units / eps))


def _applied(function: Function, x: np.ndarray) -> np.ndarray:
    with jax.enable_x64(True):
        return np.asarray(function(jnp.asarray(x, jnp.float64)))


def simulated_rank(
    function: Function, units: int, eps: float, samples: int = 10_000, seed: int = 0
) -> float:
    """Returns the effective rank of the covariance of `function` of normal units whose correlations
    are 1 - eps.

    Source: Joudaki et al. 2025, figure A.2. Raises ValueError as `equicorrelated_rank` does.
    """
    _check(units, eps)
    random = np.random.default_rng(seed)
    shared = random.normal(size=(samples, 1))
    own = random.normal(size=(samples, units))
    x = np.sqrt(1 - eps) * shared + np.sqrt(eps) * own
    covariance = np.cov(_applied(function, x).T)
    return rank_of_eigenvalues(np.linalg.eigvalsh(covariance))


def hard_ranks(
    function: Function,
    samples: int = 10_000,
    units: int = 50,
    rank: int = 10,
    noise: float = 1e-6,
    seed: int = 0,
) -> tuple[int, int]:
    """Returns the number of singular values above 1e-6 of the largest, before and after `function`,
    of normal units of a low rank with a little noise.

    Units have variance 1. Source: Joudaki et al. 2025, figure A.1 (from 10 to 50).
    """
    random = np.random.default_rng(seed)
    mixing = random.normal(size=(rank, units))
    mixing = mixing / np.linalg.norm(mixing, axis=0, keepdims=True)
    x = random.normal(size=(samples, rank)) @ mixing
    x = x + noise * random.normal(size=x.shape)

    def above(matrix: np.ndarray) -> int:
        sigma = np.linalg.svd(matrix, compute_uv=False)
        return int((sigma > 1e-6 * sigma[0]).sum())

    return above(x), above(_applied(function, x))


def spectrum_after(
    function: Function, units: int = 20, rank: int = 5, samples: int = 10_000, seed: int = 0
) -> np.ndarray:
    """Returns [units] the eigenvalues over their sum, in falling order, of E f(x) f(x)' of normal
    units of variance 1 and a low rank.

    Source: Joudaki et al. 2025, figure 3.1, with f(x) = tanh(a x) for several a.
    """
    random = np.random.default_rng(seed)
    mixing = random.normal(size=(rank, units))
    mixing = mixing / np.linalg.norm(mixing, axis=0, keepdims=True)
    values = _applied(function, random.normal(size=(samples, rank)) @ mixing)
    eigenvalues = np.linalg.eigvalsh(values.T @ values / samples)[::-1]
    return eigenvalues / eigenvalues.sum()
