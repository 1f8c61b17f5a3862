"""Reading the binary archives of CIFAR-10 and CIFAR-100: records of label bytes and three planes of
one image.
"""

import gzip
import tarfile
from pathlib import Path

import numpy as np

from plasticity_jax.datasets import files, layouts
from plasticity_jax.datasets.contract import DataError

MEMBERS: dict[str, dict[str, tuple[str, ...]]] = {
    "cifar10": {"train": layouts.CIFAR10[:-1], "test": layouts.CIFAR10[-1:]},
    "cifar100": {"train": ("train.bin",), "test": ("test.bin",)},
}
"""Dataset -> part -> the files inside its archive, in order, whose records are equally many."""
LABEL_BYTES = {"cifar10": 1, "cifar100": 2}
"""Bytes before the pixels; the last of them is the label (for cifar100: coarse, fine)."""


def images_and_labels(
    name: str, originals: files.Originals
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Returns images uint8 [N, 32, 32, 3] and labels uint8 [N] of both parts, "train" and "test".
    Raises DataError for a broken archive or one without a member, and for other counts or labels
    than `name` has.
    """
    layout = layouts.ORIGINALS[name]
    (path,) = originals.paths.values()
    members = MEMBERS[name]
    contents = _contents(name, path, set().union(*members.values()))
    parts = {}
    for part, number in (("train", layout.train), ("test", layout.test)):
        each = number // len(members[part])
        arrays = [_records(name, path, member, contents[member], each) for member in members[part]]
        images = np.concatenate([images for images, _ in arrays])
        labels = np.concatenate([labels for _, labels in arrays])
        parts[part] = (images, labels)
        counts = np.bincount(labels, minlength=layout.classes)
        wanted = number // layout.classes
        # no sum is published of what is unpacked
        if path.is_dir() and (counts != wanted).any():
            raise DataError(
                f"{name}: {path} holds {counts.min()} to {counts.max()} {part} images of a class, "
                f"expected {wanted} of each."
            )
    return parts


def _contents(name: str, path: Path, members: set[str]) -> dict[str, bytes]:
    """The bytes of `members`, by their names without folders, from one pass through the archive or
    from a folder.
    """
    if path.is_dir():
        with files.reading(name, path), files.Members(path) as folder:
            return {member: folder.read(member) for member in members}
    contents = {}
    with (
        files.reading(name, path),
        gzip.open(path) as unpacked,
        tarfile.open(fileobj=unpacked, mode="r:") as archive,
    ):
        for entry in archive:
            member = entry.name.rpartition("/")[2]
            if member in members and entry.isreg() and (file := archive.extractfile(entry)):
                contents[member] = files.limited(file)
        while unpacked.read(2**20):  # the sum of all is behind the end of the archive
            pass
    if missing := sorted(members - contents.keys()):
        raise DataError(f"{name}: {path} has no member {', '.join(missing)}.")
    return contents


def _records(
    name: str, path: Path, member: str, content: bytes, number: int
) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of one member, which must hold `number` records."""
    layout, label_bytes = layouts.ORIGINALS[name], LABEL_BYTES[name]
    height, width, channels = layout.shape
    record = label_bytes + height * width * channels
    if len(content) != number * record:
        raise DataError(
            f"{name}: {member} in {path} holds {len(content)} bytes, expected {number * record} "
            f"for {number} images."
        )
    records = np.frombuffer(content, np.uint8).reshape(number, record)
    labels = records[:, label_bytes - 1]
    if labels.max() >= layout.classes:
        raise DataError(
            f"{name}: {member} in {path} holds labels {labels.min()}..{labels.max()}, expected "
            f"0..{layout.classes - 1}."
        )
    return records[:, label_bytes:].reshape(number, channels, height, width).transpose(
        0, 2, 3, 1
    ), labels
