"""Reading idx files, the format of the MNIST family: a header with the shape, then unsigned
bytes.
"""

import gzip
import io
import math
from pathlib import Path

import numpy as np

from plasticity_jax.datasets import files, layouts
from plasticity_jax.datasets.contract import DataError


def images_and_labels(
    name: str, originals: files.Originals, part: str, first_label: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns images uint8 [N, 28, 28] and labels uint8 [N] from 0 of `part` ("train" or "test").
    Raises DataError for a broken gzip or idx file, and for other counts, image sizes or labels than
    `name` has.
    """
    layout = layouts.ORIGINALS[name]
    image_file, label_file = layout.files[:2] if part == "train" else layout.files[2:]
    images = _array(name, originals, image_file, 3)
    labels = _array(name, originals, label_file, 1)
    expected = layout.train if part == "train" else layout.test
    if images.shape != (expected, *layout.shape[:2]):
        raise DataError(
            f"{name}: {image_file} holds images {list(images.shape)}, expected "
            f"{[expected, *layout.shape[:2]]}."
        )
    if labels.shape != (expected,):
        raise DataError(f"{name}: {label_file} holds {len(labels)} labels, expected {expected}.")
    last_label = first_label + layout.classes - 1
    if labels.min() < first_label or labels.max() > last_label:
        raise DataError(
            f"{name}: {label_file} holds labels {labels.min()}..{labels.max()}, expected "
            f"{first_label}..{last_label}."
        )
    return images, labels - np.uint8(first_label)


def _array(name: str, originals: files.Originals, file: str, dimensions: int) -> np.ndarray:
    """The uint8 array with `dimensions` axes in the idx file `file`."""
    path = originals.paths[file]
    data = _content(name, path, file)
    header = 4 + 4 * dimensions
    if len(data) < header or data[:4] != bytes((0, 0, 8, dimensions)):
        raise DataError(
            f"{name}: {file} in {path.parent} begins with {data[:4].hex() or 'nothing'}, expected "
            "an idx file of "
            f"unsigned bytes with {dimensions} dimension{'s' * (dimensions > 1)} "
            f"(0000080{dimensions})."
        )
    shape = [int(size) for size in np.frombuffer(data, ">u4", dimensions, 4)]
    if len(data) - header != math.prod(shape):
        raise DataError(
            f"{name}: {file} in {path.parent} holds {len(data) - header} bytes after its header, "
            "expected "
            f"{math.prod(shape)} for shape {shape}."
        )
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def _content(name: str, path: Path, file: str) -> bytes:
    """The uncompressed bytes of `file`, which is `path` itself or a member of the zip archive
    `path`.
    """
    with files.reading(name, path, file):
        data = _inside(name, path, file) if path.suffix.lower() == ".zip" else path.read_bytes()
        if data[:2] != b"\x1f\x8b":  # a name does not tell: some programs unpack without renaming
            return data
        with gzip.open(io.BytesIO(data)) as unpacked:
            return files.limited(unpacked)


def _inside(name: str, path: Path, file: str) -> bytes:
    """The bytes of `file` in the zip archive `path`."""
    with files.Members(path) as archive:
        member = next((m for m in archive.names if m.rpartition("/")[2] == file), None)
        if member is None:
            raise DataError(f"{name}: {path} has no member {file}.")
        return archive.read(member)
