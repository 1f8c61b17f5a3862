"""Every small file that is read, damaged: a promised fault in one sentence or the right result (see `mutations`)."""

import mutations
import numpy as np
import pytest

from plasticity_jax import datasets

LARGE = {"train_images": (40, 5, 6), "test_images": (12, 5, 6)}


def read_by_numpy(folder, name):
    return np.load(folder / f"{name}.npy", allow_pickle=False)


@pytest.fixture
def arrays(tmp_path):
    """A folder of arrays, of three classes."""
    random = np.random.default_rng(0)
    for name, shape in LARGE.items():
        np.save(tmp_path / f"{name}.npy", random.integers(0, 256, shape, np.uint8))
        np.save(tmp_path / f"{name.replace('images', 'labels')}.npy", np.arange(shape[0]) % 3)
    return tmp_path


@pytest.mark.parametrize("number", mutations.NUMBERS)
@pytest.mark.parametrize("name", ["train_images", "train_labels", "test_images", "test_labels"])
def test_arrays(arrays, name, number):
    """Pixels have no checksum: right is what numpy reads."""

    def right(found):
        shown = {"images": found.images, "labels": found.labels}[name[6:]] if "train" in name else None
        shown = {"images": found.test_images, "labels": found.test_labels}[name[5:]] if shown is None else shown
        return np.array_equal(shown.reshape(-1), read_by_numpy(arrays, name).reshape(-1))

    refused, read = mutations.check(
        arrays / f"{name}.npy", number, lambda: datasets.load(f"arrays:{arrays}"), right, (datasets.DataError,), "_"
    )
    assert refused > number // 2
    assert read > 0
