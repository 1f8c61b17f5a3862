"""Probes of hidden units. `activations` is one array [N, ..., H] or a dict {group: array}; positions count as inputs."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from plasticity_jax.types import Array

Activations = Array | Mapping[str, Array]


def _columns(activations: Array) -> Array:
    return activations.reshape(-1, activations.shape[-1])


def _share(activations: Activations, mark: Callable[[Array], Array]) -> Array:
    """Returns the share of units of all groups together that `mark` ([N, H] -> [H] bool) marks."""
    return jnp.concatenate([mark(_columns(a)) for a in jax.tree.leaves(activations)]).mean()


def dormant_fraction(activations: Activations, share: float = 0.01) -> Array:
    """Returns the fraction of units that are positive on less than `share` of the inputs, [] in [0, 1].

    Source: Liu & Mou, appendix C, threshold following Dohare et al. 2024. For activations after a ReLU; other
    activations are judged by their sign all the same.
    """
    return _share(activations, lambda a: (a > 0).mean(axis=0) < share)


def tau_dormant_fraction(activations: Activations, tau: float = 0.1) -> Array:
    """Returns the fraction of units with s_i <= tau, s_i = E|h_i| / mean_k E|h_k| within their group, [] in [0, 1].

    A group that is silent altogether counts as dormant. Source: Sokar et al. 2023, definition 3.1.
    """

    def mark(a):
        magnitude = jnp.abs(a).mean(axis=0)
        return magnitude <= tau * magnitude.mean()

    return _share(activations, mark)
