"""What every dataset is (`Dataset`), how it fails (`DataError`), and what is computed from its
arrays alone.
"""

import dataclasses
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

PIXELS_AT_ONCE = 8_000_000
"""Pixels of a channel that `statistics` counts in one step: counting widens them to 8 bytes each.
"""


class DataError(Exception):
    """Missing, corrupt or unreachable data: a fault of the environment, told in one sentence."""


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A labeled set of images on the host; two are the same data when their fingerprints are
    equal. Arrays may be read-only (mapped from the cache): copy before writing.

    Attributes:
      name: as asked for, e.g. "emnist/letters".
      source: where the bytes came from, e.g. the folder of the original files, and any subsampling
        with its seed.
      fingerprint: SHA-256 in hex over the shapes, dtypes and bytes of the four arrays, in the order
        of the fields.
      classes: number of classes; 0 with real targets.
      images: uint8 [N, H, W, C], or float32, [N, H, W, C] or rows of features [N, F].
      labels: int32 [N] in 0..classes-1, or real targets, float32 [N, T].
      test_images, test_labels: alike, with M >= 0 rows.
      mean, std: per channel or feature, in raw units over all training images, before any
        subsampling, so that (images - mean) / std is normalized.
    """

    name: str
    source: str
    fingerprint: str
    classes: int
    images: np.ndarray
    labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    mean: tuple[float, ...]
    std: tuple[float, ...]


def path_of(given: str | os.PathLike) -> Path:
    """Returns the file or folder that a user named, absolute, with `~` and `~user` expanded. Raises
    DataError for a name that no file can have.
    """
    text = os.fspath(given)
    try:
        if "\0" in text:
            raise ValueError("it has a byte 0 in it")
        return Path(text).expanduser().absolute()
    # of an unknown user; of a working directory that is gone
    except (ValueError, RuntimeError, OSError) as fault:
        reason = getattr(fault, "strerror", None) or str(fault).rstrip(".")
        raise DataError(
            f"The path {text!r} cannot be used ({reason}): expected one on this machine."
        ) from fault


def fingerprint(arrays: Iterable[np.ndarray]) -> str:
    """Returns SHA-256 in hex over the shape, dtype and bytes of each array in turn."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.shape}{array.dtype.str}".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def statistics(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and standard deviation of each channel of uint8 `images` [N, H, W, C], in raw
    pixel units.

    Taken from a histogram of the 256 values, so the sums are exact and independent of the order of
    the images. Of float32 `images` [N, ..., C] they are summed in float64.
    """
    if images.dtype == np.float32:
        rows = images.reshape(-1, images.shape[-1]).astype(np.float64)
        return tuple(rows.mean(axis=0).tolist()), tuple(rows.std(axis=0).tolist())
    values = np.arange(256)
    means, deviations = [], []
    step = max(1, PIXELS_AT_ONCE // (images.shape[1] * images.shape[2]))
    for channel in range(images.shape[-1]):
        counts = np.zeros(256, np.int64)
        for start in range(0, len(images), step):
            some = images[start : start + step, ..., channel].reshape(-1)
            counts += np.bincount(some, minlength=256)
        mean = float(counts @ values) / float(counts.sum())
        means.append(mean)
        deviations.append(float(np.sqrt(counts @ (values - mean) ** 2 / counts.sum())))
    return tuple(means), tuple(deviations)


def subsample(
    dataset: Dataset, samples: int | None, test_samples: int | None = None, seed: int = 0
) -> Dataset:
    """Returns a class-balanced part of `dataset`: `samples` training and `test_samples` test images
    (None: all, unchanged).

    Without classes any rows are taken. Every class gives samples // classes images; where samples
    is not divisible by the classes, the first samples % classes classes give one more. Images are
    drawn without replacement by numpy's Generator(PCG64(seed)), a fresh one for each of the two
    parts, which also shuffles their order. The smaller of two subsamples with one seed is contained
    in the larger. `mean` and `std` stay those of the whole. Raises ValueError where more images are
    asked for than there are, in all or in one class, for `samples` below 1 and for a seed below 0.
    """
    if seed < 0:
        raise ValueError(f"The subsampling seed must be 0 or more, not {seed}.")
    if samples is not None and samples < 1:
        raise ValueError(f"The number of training samples must be 1 or more, not {samples}.")
    if test_samples is not None and test_samples < 0:
        raise ValueError(f"The number of test samples must be 0 or more, not {test_samples}.")
    if samples is None and test_samples is None:
        return dataset
    part = dataset
    if samples is not None:
        rows = _balanced_rows(dataset, "training", dataset.labels, samples, seed)
        part = dataclasses.replace(
            part, images=np.asarray(part.images[rows]), labels=np.asarray(part.labels[rows])
        )
    if test_samples is not None:
        rows = _balanced_rows(dataset, "test", dataset.test_labels, test_samples, seed)
        part = dataclasses.replace(
            part,
            test_images=np.asarray(part.test_images[rows]),
            test_labels=np.asarray(part.test_labels[rows]),
        )
    training = f"{len(part.labels)} of {len(dataset.labels)} training"
    test = f"{len(part.test_labels)} of {len(dataset.test_labels)} test"
    arrays = (part.images, part.labels, part.test_images, part.test_labels)
    return dataclasses.replace(
        part,
        source=f"{dataset.source}; class-balanced subsample with seed {seed}: {training}, {test} "
        "images",
        fingerprint=fingerprint(arrays),
    )


def _balanced_rows(
    dataset: Dataset, part: str, labels: np.ndarray, samples: int, seed: int
) -> np.ndarray:
    """Row numbers [samples] with equal class counts, in random order."""
    if samples > len(labels):
        raise ValueError(
            f"{dataset.name} has {len(labels)} {part} images, fewer than the {samples} samples "
            "asked for."
        )
    generator = np.random.Generator(np.random.PCG64(seed))
    if dataset.classes == 0:
        return generator.permutation(len(labels))[:samples]
    chosen = []
    for label in range(dataset.classes):
        wanted = samples // dataset.classes + (label < samples % dataset.classes)
        rows = np.flatnonzero(labels == label)
        if wanted > len(rows):
            raise ValueError(
                f"{dataset.name} has {len(rows)} {part} images of class {label}, fewer than the "
                f"{wanted} that {samples} class-balanced samples over {dataset.classes} classes "
                "need."
            )
        # The whole class is permuted whatever is taken of it, so that subsamples of one seed are
        # nested.
        chosen.append(generator.permutation(rows)[:wanted])
    return generator.permutation(np.concatenate(chosen))
