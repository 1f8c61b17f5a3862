"""The embedded default: real handwritten digits that come with scikit-learn."""

import importlib.metadata

import numpy as np

from plasticity_jax.datasets import contract
from plasticity_jax.datasets.contract import Dataset

FILE = "sklearn/datasets/data/digits.csv.gz"
"""64 pixels and a digit a row, where scikit-learn is installed."""
TRAIN = 1437
"""Training rows; the other 360 of 1,797 are the test set."""
# Of the training rows' pixels (0..16), as `contract.statistics` computes them.
MEAN = 4.886177800974252
STD = 6.008113741292129


def load_digits(
    name: str = "digits", data_dir: str | None = None, download: bool = False
) -> Dataset:
    """Real 8x8 handwritten digits inside scikit-learn: 10 classes, 1,437 train and 360 test images;
    needs no file.

    Pixels are 0..16. The first 1,437 rows in file order are for training, the last 360 for test:
    scikit-learn holds no official split (its rows are the test part of the source). `data_dir` and
    `download` mean nothing here.

    Source: Alpaydin & Kaynak 1998, Optical Recognition of Handwritten Digits, UCI Machine Learning
    Repository.
    """
    # (the file that `sklearn.datasets.load_digits` reads, without the second that its import takes)
    file = importlib.metadata.distribution("scikit-learn").locate_file(FILE)
    rows = np.loadtxt(str(file), np.uint8, delimiter=",")
    images = rows[:, :-1].reshape(-1, 8, 8, 1)
    labels = rows[:, -1].astype(np.int32)
    parts = (images[:TRAIN], labels[:TRAIN], images[TRAIN:], labels[TRAIN:])
    return Dataset(
        name,
        "scikit-learn load_digits",
        contract.fingerprint(parts),
        10,
        *parts,
        mean=(MEAN,),
        std=(STD,),
    )
