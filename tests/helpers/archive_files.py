"""Archives of CIFAR and Tiny-ImageNet, small."""

import hashlib
import io
import tarfile
import zipfile

import numpy as np
import PIL.Image

from plasticity_jax.datasets import cifar, layouts

WNIDS = ["n03", "n01", "n02"]  # not sorted: labels go by line


def publish(name, path, monkeypatch, **numbers):
    """Makes the file `path` the original of `name`, with these numbers of classes and images."""
    monkeypatch.setitem(layouts.ORIGINALS, name, layouts.ORIGINALS[name]._replace(**numbers))
    monkeypatch.setitem(
        layouts.SHA256, name, {path.name: hashlib.sha256(path.read_bytes()).hexdigest()}
    )
    monkeypatch.setitem(layouts.BYTES, path.name, path.stat().st_size)


TRAIN, TEST = 50, 10


NUMBERS = {"train": TRAIN, "test": TEST}


def cifar_arrays(classes):
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (TRAIN + TEST, 32, 32, 3), np.uint8)
    parts = [generator.permutation(np.arange(number) % classes) for number in (TRAIN, TEST)]
    return images, np.concatenate(parts).astype(np.uint8)


def cifar_members(name, images, labels):
    """The content of each file of the archive, row by row as the format is published."""
    parts = {"train": slice(0, TRAIN), "test": slice(TRAIN, None)}
    members = {}
    for part, rows in parts.items():
        records = []
        for image, label in zip(images[rows], labels[rows], strict=True):
            planes = b"".join(image[:, :, channel].tobytes() for channel in range(3))
            coarse = b"" if name == "cifar10" else bytes([19 - label % 20])
            records.append(coarse + bytes([label]) + planes)
        names = cifar.MEMBERS[name][part]
        each = len(records) // len(names)
        members |= {m: b"".join(records[i * each : (i + 1) * each]) for i, m in enumerate(names)}
    return members


def write_tar(path, members):
    """The archive, with the members last to first and a file that nobody asked for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for member, content in {"readme.html": b"-", **dict(reversed(members.items()))}.items():
            info = tarfile.TarInfo(f"cifar-binary/{member}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def write_cifar(name, folder, monkeypatch, change=None):
    """A tiny archive as the published one of `name`; `change` edits its members first."""
    members = cifar_members(name, *cifar_arrays(layouts.ORIGINALS[name].classes))
    if change:
        change(members)
    path = write_tar(folder / layouts.ORIGINALS[name].files[0], members)
    publish(name, path, monkeypatch, **NUMBERS)
    return path


PER_CLASS = {"train": 12, "val": 2}


ROOT = "tiny-imagenet-200/"


def encoded(color, mode="RGB", size=(64, 64)):
    """A JPEG of one color."""
    buffer = io.BytesIO()
    PIL.Image.new("RGB", size, color).convert(mode).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def colors(part):
    """A color for every image, by class and number."""
    shift = 0 if part == "train" else 7
    return [
        [(60 * label + 10, 15 * i + 20, 90 + shift) for i in range(PER_CLASS[part])]
        for label in range(len(WNIDS))
    ]


def tiny_members():
    """The members of an archive with 3 classes; image 1 of each is grey and image 2 is CMYK."""
    members = {
        "wnids.txt": "".join(f"{wnid}\n" for wnid in WNIDS).encode(),
        "words.txt": b"n03\tthing\n",
    }
    for label, wnid in enumerate(WNIDS):
        folder = f"train/{wnid}/"
        members[f"{folder}{wnid}_boxes.txt"] = b"-"
        for i, color in reversed(list(enumerate(colors("train")[label]))):
            members[f"{folder}images/{wnid}_{i}.JPEG"] = encoded(
                color, {1: "L", 2: "CMYK"}.get(i, "RGB")
            )
    lines = []
    for i in range(PER_CLASS["val"]):
        for label, wnid in enumerate(WNIDS):
            file = f"val_{10 * i + label}.JPEG"
            members[f"val/images/{file}"] = encoded(colors("val")[label][i])
            lines.append(f"{file}\t{wnid}\t0\t0\t63\t63\n")
    members["val/val_annotations.txt"] = "".join(lines).encode()
    members["test/images/test_0.JPEG"] = encoded((1, 2, 3))
    return members


def write_zip(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in members.items():
            archive.writestr(ROOT + member, content)
    return path


def write_tiny(folder, monkeypatch, change=None):
    members = tiny_members()
    if change:
        change(members)
    path = write_zip(folder / "tiny-imagenet-200.zip", members)
    numbers = {"train": len(WNIDS) * PER_CLASS["train"], "test": len(WNIDS) * PER_CLASS["val"]}
    publish("tiny_imagenet", path, monkeypatch, classes=len(WNIDS), **numbers)
    return path
