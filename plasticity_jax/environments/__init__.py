"""Environments: distributions over tasks. A new one is one factory and one line in ENVIRONMENTS."""

from plasticity_jax.environments.labels import random_labels
from plasticity_jax.environments.pixels import permuted_pixels

__all__ = ["ENVIRONMENTS", "permuted_pixels", "random_labels"]

ENVIRONMENTS = {
    "random_labels": random_labels,
    "permuted_pixels": permuted_pixels,
}
