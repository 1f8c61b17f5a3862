"""Datasets by name: labeled uint8 images on the host, with their source and fingerprint.

`load(name)` gives a `Dataset`, `subsample` a class-balanced part of it. Original files are
verified, prepared once by TensorFlow Datasets builders that need no TensorFlow, and then opened
from a cache. The data set asked for is never
replaced by another: what is missing or corrupt raises `DataError`. This module itself imports numpy
  alone.

A new dataset is one loader `(name, data_dir, download) -> Dataset` and one line in `DATASETS`, at
the end of this file; for one made from published files see `builders`.
"""

from collections.abc import Callable

from plasticity_jax.datasets import arrays, cache, digits, generated, layouts
from plasticity_jax.datasets.contract import DataError, Dataset, subsample

__all__ = ["DATASETS", "DataError", "Dataset", "check_name", "load", "subsample"]


def load(name: str, data_dir: str | None = None, download: bool = False) -> Dataset:
    """Returns the dataset `name`, on the host.

    Args:
      name: a key of `DATASETS`; "arrays:" is followed by a folder.
      data_dir: folder of the original files; None: `$PLASTICITY_DATA_DIR`, else the cache folder
        in the home.
      download: whether missing original files may be downloaded.

    Raises ValueError for an unknown name, DataError for missing, corrupt or unreachable data.
    """
    check_name(name)
    return DATASETS["arrays:PATH" if name.startswith("arrays:") else name](name, data_dir, download)


def check_name(name: str) -> None:
    """Nothing, when `name` is a known dataset; touches no file. Raises ValueError, which names the
    known ones, for another.
    """
    if not isinstance(name, str):
        from plasticity_jax import registry  # (it imports jax, which a dataset does not need)

        raise ValueError(
            f"The dataset {registry.shown(name)} is no name; known are {', '.join(DATASETS)}."
        )
    if name.startswith("arrays:"):
        if name == "arrays:":
            raise ValueError("The dataset 'arrays:' names no folder; write arrays:PATH.")
    elif name not in DATASETS:
        raise ValueError(f"Unknown dataset {name!r}; known are {', '.join(DATASETS)}.")


SOURCES = {
    "mnist": "LeCun et al. 1998",
    "fashion_mnist": "Xiao et al. 2017",
    "emnist": "Cohen et al. 2017",
    "cifar10": "Krizhevsky 2009",
    "cifar100": "Krizhevsky 2009",
    "tiny_imagenet": "Le & Yang 2015, of ImageNet (Deng et al. 2009)",
}
"""What is to be cited for data that others made."""


def originals(name: str) -> Callable[..., Dataset]:
    """Returns a loader of the dataset `name` of `layouts.ORIGINALS`, described by its docstring."""
    layout = layouts.ORIGINALS[name]

    def loader(name: str = name, data_dir: str | None = None, download: bool = False) -> Dataset:
        return cache.load_originals(name, data_dir, download)

    place = (
        "original files in --data_dir or --download"
        if layout.url
        else f"{layout.files[0]} in --data_dir"
    )
    source = SOURCES[name.partition("/")[0]]
    loader.__doc__ = f"{layout.description}: {layout.contents}; {place}.\n\nSource: {source}."
    return loader


DATASETS: dict[str, Callable[..., Dataset]] = {
    "digits": digits.load_digits,
    "mnist": originals("mnist"),
    "fashion_mnist": originals("fashion_mnist"),
    "emnist/letters": originals("emnist/letters"),
    "emnist/balanced": originals("emnist/balanced"),
    "emnist/byclass": originals("emnist/byclass"),
    "emnist/bymerge": originals("emnist/bymerge"),
    "emnist/digits": originals("emnist/digits"),
    "emnist/mnist": originals("emnist/mnist"),
    "cifar10": originals("cifar10"),
    "cifar100": originals("cifar100"),
    "tiny_imagenet": originals("tiny_imagenet"),
    "tiny_imagenet/part": originals("tiny_imagenet/part"),
    "generated": generated.load_generated,
    "arrays:PATH": arrays.load_arrays,
}
