"""Reading Tiny ImageNet, or a part with fewer classes, as zip or unpacked: which JPEG has which
label, and its pixels.

Inside lie wnids.txt (the classes, one a line), train/<wnid>/images/*.JPEG, val/images/*.JPEG and
val/val_annotations.txt (file and wnid of every validation image). The labels of its test images are
not published, so the validation images are the test part. A label is a line number in wnids.txt,
from 0. Pixels are what pillow makes of the JPEGs: one built on another libjpeg may round otherwise,
which the fingerprint of the dataset then shows.
"""

import io
import re
import warnings
from pathlib import Path

import numpy as np

from plasticity_jax.datasets import files, layouts
from plasticity_jax.datasets.contract import DataError

WHOLE = "tiny_imagenet"
"""The dataset whose numbers a part is measured by: as many images a class, in fewer classes."""
Rows = list[tuple[str, int]]
"""Member of the archive and its label, an image each, in order."""


def classes(name: str, path: Path) -> list[str]:
    """Returns the lines of wnids.txt, by label. Raises DataError for an unreadable archive or one
    without wnids.txt, a repeated line, or another number of classes.
    """
    with files.reading(name, path), files.Members(path) as archive:
        wnids = _text(name, path, archive, _root(name, path, archive) + "wnids.txt").split()
    whole, expected = layouts.ORIGINALS[WHOLE].classes, layouts.ORIGINALS[name].classes
    if expected and len(wnids) != expected:
        raise DataError(
            f"{name}: wnids.txt in {path} names {len(wnids)} classes, expected {expected}."
        )
    if not expected and not 0 < len(wnids) < whole:
        raise DataError(
            f"{name}: wnids.txt in {path} names {len(wnids)} classes, expected 1..{whole - 1} for "
            "a part."
        )
    if len(set(wnids)) != len(wnids):
        raise DataError(
            f"{name}: wnids.txt in {path} names {len(set(wnids))} different classes in "
            f"{len(wnids)} lines."
        )
    return wnids


def rows(name: str, path: Path) -> dict[str, Rows]:
    """Returns the images of both parts, "train" and "test": those by class and then number, these
    as val_annotations.txt. Raises DataError as `classes`, where an image is missing or of no known
    class, and where a class has too few or too many images.
    """
    labels = {wnid: label for label, wnid in enumerate(classes(name, path))}
    with files.reading(name, path), files.Members(path) as archive:
        root = _root(name, path, archive)
        members = [member for member in archive.names if member.endswith(".JPEG")]
        annotations = _text(name, path, archive, f"{root}val/val_annotations.txt").splitlines()
    in_train = re.compile(re.escape(root) + r"train/([^/]+)/images/[^/]+")
    found = [(member, match[1]) for member in members if (match := in_train.fullmatch(member))]
    train = [(member, _label(name, path, member, wnid, labels)) for member, wnid in found]
    train.sort(key=lambda row: (row[1], len(row[0]), row[0]))  # shorter names first: _2 before _10
    test, present = [], set(members)
    for line in annotations:
        file, wnid, *_ = (*line.split("\t"), "")
        if (member := f"{root}val/images/{file}") not in present:
            raise DataError(
                f"{name}: {path} has no member {member}, expected as val_annotations.txt names it."
            )
        test.append((member, _label(name, path, member, wnid, labels)))
    whole = layouts.ORIGINALS[WHOLE]
    for part, part_rows, number in (
        ("train", train, whole.train),
        ("validation", test, whole.test),
    ):
        counts = np.bincount([label for _, label in part_rows], minlength=len(labels))
        for wnid, count in zip(labels, counts, strict=True):
            if count != number // whole.classes:
                raise DataError(
                    f"{name}: {path} holds {count} {part} images of class {wnid}, expected "
                    f"{number // whole.classes}."
                )
    return {"train": train, "test": test}


def pixels(name: str, member: str, jpeg: bytes) -> np.ndarray:
    """Returns the image uint8 [64, 64, 3] in the bytes of `member`, by pillow; gray and CMYK ones
    are converted to RGB. Raises DataError for bytes that are no whole image, or one of another
    size.
    """
    import PIL.Image  # only where images are decoded

    height, width, channels = layouts.ORIGINALS[name].shape
    try:
        # pillow warns of a size that would take much memory
        with (
            warnings.catch_warnings(action="error"),
            PIL.Image.open(io.BytesIO(jpeg), formats=["JPEG"]) as image,
        ):
            decoded = np.asarray(image.convert("RGB")) if image.size == (width, height) else None
            shape = [image.height, image.width, channels]
    except Exception as fault:  # pillow raises many kinds for bytes that are no image
        reason = (
            "no JPEG"
            if isinstance(fault, PIL.UnidentifiedImageError)
            else str(fault) or type(fault).__name__
        )
        raise DataError(
            f"{name}: {member} is no whole image ({reason.splitlines()[0]})."
        ) from fault
    if decoded is None:
        raise DataError(
            f"{name}: {member} is an image of shape {shape}, expected {[height, width, channels]}."
        )
    return decoded


def _root(name: str, path: Path, archive: files.Members) -> str:
    """The folder inside the archive that holds wnids.txt, with its slash."""
    member = next((m for m in archive.names if m.rpartition("/")[2] == "wnids.txt"), None)
    if member is None:
        raise DataError(f"{name}: {path} has no member wnids.txt.")
    return member.removesuffix("wnids.txt")


def _text(name: str, path: Path, archive: files.Members, member: str) -> str:
    if member not in archive.names:
        raise DataError(f"{name}: {path} has no member {member}.")
    return archive.read(member).decode(errors="replace")


def _label(name: str, path: Path, member: str, wnid: str, labels: dict[str, int]) -> int:
    if wnid not in labels:
        raise DataError(
            f"{name}: {member} in {path} is of class {wnid or 'nothing'}, expected one of "
            "wnids.txt."
        )
    return labels[wnid]
