"""Datasets from a folder of the user's own .npy arrays."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from plasticity_jax.datasets import contract, npy
from plasticity_jax.datasets.contract import DataError, Dataset

_RECODING = "np.unique(labels, return_inverse=True)[1], of both parts at once,"
_AXES = "[N, H, W] or [N, H, W, C]"
_NUMBERS = "real numbers [N, F], [N, H, W] or [N, H, W, C]"


def load_arrays(name: str, data_dir: str | None = None, download: bool = False) -> Dataset:
    """A folder of your own arrays: train_images.npy, train_labels.npy, optional test_images.npy and
    test_labels.npy.

    `name` is "arrays:" and the folder. Images are uint8 [N, H, W] or [N, H, W, C]; [N, 1, H, W] and
    [N, 3, H, W] with H and W above 4 are turned. Inputs may be finite real numbers instead, such
    images or rows of features [N, F], which are kept as float32. Labels are integers [N]: in the
    training part at least two different ones and, of those from 0 to the largest, every one; the
    test part has no others. Targets that are real numbers, [N] or [N, T], make a dataset without
    classes, for regression. `data_dir` and `download` mean nothing here. Raises DataError where a
    file is missing or unreadable, or has another dtype, shape, length or other labels.
    """
    folder = contract.path_of(name.removeprefix("arrays:"))
    training = _part(name, folder, "train")
    images, labels = training
    if len(images) == 0:
        raise DataError(
            f"{name}: {folder / 'train_images.npy'} holds no images, expected at least one."
        )
    real = labels.dtype == np.float32
    classes = 0 if real else _classes(name, folder / "train_labels.npy", labels)
    if any(os.path.lexists(folder / f"test_{what}.npy") for what in ("images", "labels")):
        test = _part(name, folder, "test")
        _check_test(name, folder, training, test, classes)
    else:
        test = _Part(images[:0], labels[:0])
    mean, std = contract.statistics(images)
    if min(std) == 0.0:
        axis = "feature" if images.ndim == 2 else "channel"
        raise DataError(
            f"{name}: {axis} {std.index(0.0)} of {folder / 'train_images.npy'} has one value "
            "throughout, expected at least two, as inputs are divided by their standard deviation."
        )
    kind = np.float32 if real else np.int32
    parts = images, np.array(labels, kind), test.images, np.array(test.labels, kind)
    return Dataset(name, str(folder), contract.fingerprint(parts), classes, *parts, mean, std)


class _Part(NamedTuple):
    images: np.ndarray
    labels: np.ndarray


def _part(name: str, folder: Path, part: str) -> _Part:
    """Inputs, uint8 [N, H, W, C] or float32 [N, ..., C], and labels [N] or float32 targets [N, T],
    of one part.
    """
    image_file, label_file = folder / f"{part}_images.npy", folder / f"{part}_labels.npy"
    images, labels = _array(name, image_file), _array(name, label_file)
    if images.dtype.kind == "f" and images.ndim in (2, 3, 4) and 0 not in images.shape[1:]:
        images = _finite(name, image_file, images)
    elif images.dtype != np.uint8 or images.ndim not in (3, 4) or 0 in images.shape[1:]:
        raise DataError(
            f"{name}: {image_file} holds {_kind(images)}, expected uint8 {_AXES}, or {_NUMBERS}."
        )
    if images.ndim > 2:
        images = _channels_last(name, image_file, images)
    if labels.dtype.kind == "f" and labels.ndim in (1, 2) and 0 not in labels.shape[1:]:
        labels = _finite(name, label_file, labels).reshape(len(labels), -1)
    elif labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise DataError(
            f"{name}: {label_file} holds {_kind(labels)}, expected integers [N], or real numbers "
            "[N] or [N, T]."
        )
    if len(labels) != len(images):
        raise DataError(
            f"{name}: {label_file} holds {len(labels)} labels, expected {len(images)} as "
            f"{image_file.name}."
        )
    return _Part(images, labels)


def _finite(name: str, file: Path, array: np.ndarray) -> np.ndarray:
    """The real numbers as float32, which must hold them: none is infinite or not a number."""
    with np.errstate(over="ignore"):
        numbers = np.asarray(array, np.float32)
    if not np.isfinite(numbers).all():
        place = np.argwhere(~np.isfinite(numbers))[0].tolist()
        raise DataError(
            f"{name}: {file} holds {array[tuple(place)]} at {place}, expected finite numbers "
            "within float32."
        )
    return numbers


def _channels_last(name: str, file: Path, images: np.ndarray) -> np.ndarray:
    """The images as [N, H, W, C], where it is certain which axis holds the channels.

    Up to four on the last axis are channels. More may be, where the two axes before are equal or
    both at least as many.
    """
    if images.ndim == 3:
        return images[..., None]
    first, second, last = images.shape[1:]
    if last <= 4:
        return images
    if first in (1, 3) and second > 4:
        return images.transpose(0, 2, 3, 1)
    if first == second or last <= min(first, second):
        return images
    raise DataError(
        f"{name}: {file} holds uint8 {list(images.shape)}, of which {last} would be the channels, "
        f"expected {_AXES}: images with their channels first are turned by "
        "images.transpose(0, 2, 3, 1)."
    )


def _classes(name: str, file: Path, labels: np.ndarray) -> int:
    """The number of classes, where the training labels are 0..classes-1 without a gap."""
    present = np.unique(labels)
    if len(present) < 2:
        raise DataError(
            f"{name}: {file} holds the label {present[0]} alone, expected at least two classes."
        )
    if present[0] != 0 or present[-1] != len(present) - 1:
        raise DataError(
            f"{name}: {file} holds {len(present)} different labels in {present[0]}..{present[-1]}, "
            f"expected every one of 0..{len(present) - 1}: {_RECODING} numbers them so."
        )
    return len(present)


def _check_test(name: str, folder: Path, training: _Part, test: _Part, classes: int) -> None:
    """Raises DataError where the test part does not go with the training part; without classes
    targets are real.
    """
    images, labels = training
    test_images, test_labels = test
    image_file, label_file = folder / "test_images.npy", folder / "test_labels.npy"
    if test_images.shape[1:] != images.shape[1:]:
        raise DataError(
            f"{name}: {image_file} holds images of shape {list(test_images.shape[1:])}, expected "
            f"{list(images.shape[1:])} as in train_images.npy."
        )
    if (test_images.dtype == np.float32) != (images.dtype == np.float32):
        raise DataError(
            f"{name}: {image_file} holds {test_images.dtype}, expected {images.dtype} as in "
            "train_images.npy."
        )
    real = classes == 0
    if (test_labels.dtype == np.float32) != real or test_labels.shape[1:] != labels.shape[1:]:
        raise DataError(
            f"{name}: {label_file} holds {_kind(test_labels)}, expected {_kind(labels)} but for "
            "the length, as in train_labels.npy."
        )
    if real:
        return
    lowest, highest = test_labels.min(initial=0), test_labels.max(initial=0)
    if lowest < 0 or highest >= classes:
        raise DataError(
            f"{name}: {label_file} holds labels {lowest}..{highest}, expected those of "
            f"train_labels.npy, 0..{classes - 1}."
        )


def _kind(array: np.ndarray) -> str:
    return f"{str(array.dtype)[:80]} {list(array.shape)}"


def _array(name: str, file: Path) -> np.ndarray:
    try:
        return npy.mapped(file)
    except FileNotFoundError as fault:
        raise DataError(
            f"{name}: {file} not found; expected train_images.npy and train_labels.npy in that "
            "folder, and test_images.npy and test_labels.npy both or neither."
        ) from fault
    except (OSError, ValueError) as fault:
        reason = getattr(fault, "strerror", None) or fault
        raise DataError(
            f"{name}: {file} cannot be read as an .npy array ({reason}): expected one of plain "
            "numbers, as np.save writes it."
        ) from fault
