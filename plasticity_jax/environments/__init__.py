"""Environments: distributions over tasks. A new one is one factory and one line in ENVIRONMENTS."""

from plasticity_jax.environments.atari import atari
from plasticity_jax.environments.bandit import bandit
from plasticity_jax.environments.bits import bit_flip
from plasticity_jax.environments.classes import class_split
from plasticity_jax.environments.composite import composite
from plasticity_jax.environments.labels import random_labels
from plasticity_jax.environments.minatar import minatar
from plasticity_jax.environments.offsets import target_offset
from plasticity_jax.environments.phases import phased_shift
from plasticity_jax.environments.pixels import permuted_pixels
from plasticity_jax.environments.regression import regression
from plasticity_jax.environments.text import bigram_cipher, random_seq2seq

__all__ = [
    "ENVIRONMENTS",
    "atari",
    "bandit",
    "bigram_cipher",
    "bit_flip",
    "class_split",
    "composite",
    "minatar",
    "permuted_pixels",
    "phased_shift",
    "random_labels",
    "random_seq2seq",
    "regression",
    "target_offset",
]

ENVIRONMENTS = {
    "random_labels": random_labels,
    "permuted_pixels": permuted_pixels,
    "random_seq2seq": random_seq2seq,
    "bigram_cipher": bigram_cipher,
    "bit_flip": bit_flip,
    "class_split": class_split,
    "regression": regression,
    "target_offset": target_offset,
    "composite": composite,
    "phased_shift": phased_shift,
    "bandit": bandit,
    "minatar": minatar,
    "atari": atari,
}
