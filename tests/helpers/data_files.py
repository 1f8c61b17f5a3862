"""Files of datasets, as their makers publish them, small."""

import gzip
import hashlib
import struct

import numpy as np

from plasticity_jax.datasets import layouts

TRAIN, TEST = 52, 26


def idx(array):
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def tiny_arrays(first_label=0, classes=10):
    """Images and labels of the train and test parts, as they stand in the files."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (TRAIN + TEST, 28, 28), np.uint8)
    labels = (np.arange(TRAIN + TEST) % classes + first_label).astype(np.uint8)
    return images[:TRAIN], labels[:TRAIN], images[TRAIN:], labels[TRAIN:]


def write_originals(name, folder, arrays, monkeypatch, sums=True):
    """Writes `arrays` as the originals of `name` and makes them the published ones; returns the
    folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    layout = layouts.ORIGINALS[name]._replace(train=TRAIN, test=TEST)
    for file, array in zip(layout.files, arrays, strict=True):
        (folder / file).write_bytes(gzip.compress(idx(array), mtime=0))
    known = {
        file: hashlib.sha256((folder / file).read_bytes()).hexdigest() for file in layout.files
    }
    monkeypatch.setitem(layouts.ORIGINALS, name, layout)
    monkeypatch.setitem(layouts.SHA256, layouts.family(name), known if sums else {})
    return folder


def unpacked(folder, suffix=""):
    """Unpacks every gzip file in a folder, and leaves `suffix` behind its name."""
    for file in list(folder.iterdir()):
        content = gzip.decompress(file.read_bytes())
        file.unlink()
        file.with_name(file.name.removesuffix(".gz") + suffix).write_bytes(content)
