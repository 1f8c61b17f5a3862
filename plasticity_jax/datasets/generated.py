"""The dataset of environments that draw their examples themselves: nothing but how many there
are.
"""

import numpy as np

from plasticity_jax.datasets import contract
from plasticity_jax.datasets.contract import Dataset

TRAIN = 100_000
"""Examples at most; --samples says how many a run has."""
TEST = 512


def load_generated(
    name: str = "generated", data_dir: str | None = None, download: bool = False
) -> Dataset:
    """No data: places for examples that the environment draws, as many as --samples says, and 512
    for testing.

    Images are empty zeros and all of one class. `data_dir` and `download` mean nothing here.
    """
    sizes = (TRAIN, TEST)
    images, test_images = (np.zeros((size, 1, 1, 1), np.uint8) for size in sizes)
    labels, test_labels = (np.zeros(size, np.int32) for size in sizes)
    parts = (images, labels, test_images, test_labels)
    source = "drawn by the environment"
    return Dataset(name, source, contract.fingerprint(parts), 1, *parts, mean=(0.0,), std=(1.0,))
