"""Datasets from a folder of the user's own .npy arrays."""

from pathlib import Path

import numpy as np

from plasticity_jax.datasets import contract
from plasticity_jax.datasets.contract import DataError, Dataset


def load_arrays(name: str, data_dir: str | None = None, download: bool = False) -> Dataset:
    """A folder of your own arrays: train_images.npy, train_labels.npy, optional test_images.npy and test_labels.npy.

    `name` is "arrays:" and the folder. Images are uint8 [N, H, W] or [N, H, W, C], labels integers [N] from 0;
    classes = largest label + 1. `data_dir` and `download` mean nothing here.

    Raises:
        DataError: a file is missing or unreadable, or has another dtype, shape or length.
    """
    folder = Path(name.removeprefix("arrays:")).expanduser().absolute()
    images, labels = _part(name, folder, "train")
    if len(images) == 0:
        raise DataError(f"{name}: {folder / 'train_images.npy'} holds no images, expected at least one.")
    if (folder / "test_images.npy").is_file() or (folder / "test_labels.npy").is_file():
        test_images, test_labels = _part(name, folder, "test")
        if test_images.shape[1:] != images.shape[1:]:
            raise DataError(
                f"{name}: {folder / 'test_images.npy'} holds images of shape {list(test_images.shape[1:])}, expected "
                f"{list(images.shape[1:])} as in train_images.npy."
            )
    else:
        test_images, test_labels = images[:0], labels[:0]
    mean, std = contract.statistics(images)
    if min(std) == 0.0:
        raise DataError(
            f"{name}: channel {std.index(0.0)} of {folder / 'train_images.npy'} has one value throughout, expected at "
            "least two, as images are divided by their standard deviation."
        )
    return Dataset(
        name=name,
        source=str(folder),
        fingerprint=contract.fingerprint((images, labels, test_images, test_labels)),
        classes=int(max(labels.max(), test_labels.max(initial=0))) + 1,
        images=images,
        labels=labels,
        test_images=test_images,
        test_labels=test_labels,
        mean=mean,
        std=std,
    )


def _part(name: str, folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [N, H, W, C] and labels int32 [N] of one part."""
    image_file, label_file = folder / f"{part}_images.npy", folder / f"{part}_labels.npy"
    images, labels = _array(name, image_file), _array(name, label_file)
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or 0 in images.shape[1:]:
        raise DataError(
            f"{name}: {image_file} holds {images.dtype} {list(images.shape)}, expected uint8 [N, H, W] or [N, H, W, C]."
        )
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise DataError(f"{name}: {label_file} holds {labels.dtype} {list(labels.shape)}, expected integers [N].")
    if len(labels) != len(images):
        raise DataError(
            f"{name}: {label_file} holds {len(labels)} labels, expected {len(images)} as {image_file.name}."
        )
    # Beyond 2**31 - 2 the number of classes would overflow int32.
    if len(labels) and (labels.min() < 0 or labels.max() > np.iinfo(np.int32).max - 1):
        raise DataError(f"{name}: {label_file} holds labels {labels.min()}..{labels.max()}, expected 0..2147483646.")
    return images if images.ndim == 4 else images[..., None], np.array(labels, np.int32)


def _array(name: str, file: Path) -> np.ndarray:
    if not file.is_file():
        raise DataError(
            f"{name}: {file} not found; expected train_images.npy and train_labels.npy in that folder, and "
            "test_images.npy and test_labels.npy both or neither."
        )
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as fault:
        raise DataError(f"{name}: {file} cannot be read as an .npy array ({fault}).") from fault
    if not isinstance(array, np.ndarray):
        raise DataError(f"{name}: {file} is an archive of arrays, expected one array as np.save writes it.")
    return array
