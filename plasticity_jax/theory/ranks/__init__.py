"""Statements of Joudaki et al. 2025, section 3, about ranks, as numbers.

What an activation function does to the rank of a layer near collapse is one number of it, alpha.
"""

from plasticity_jax.theory.ranks.collapse import (
    effective_rank_after,
    equicorrelated_rank,
    hard_ranks,
    rank_of_eigenvalues,
    simulated_rank,
    spectrum_after,
)
from plasticity_jax.theory.ranks.gaussian import alpha, frozen_probability, moments

__all__ = [
    "alpha",
    "effective_rank_after",
    "equicorrelated_rank",
    "frozen_probability",
    "hard_ranks",
    "moments",
    "rank_of_eigenvalues",
    "simulated_rank",
    "spectrum_after",
]
