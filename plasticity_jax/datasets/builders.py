"""TensorFlow Datasets builders that need no TensorFlow: each reads original files and yields one example an image.

The stock builders import TensorFlow to prepare. These write ArrayRecord files from numpy arrays instead, keep the order
of the originals, and check every file. They are registered nowhere, so that the stock ones keep their names.

A new dataset is a `Layout` in `files.ORIGINALS`, its sums in `files.SHA256`, one builder class here or in a file of its
own, and one line in `BUILDERS`. This module imports tensorflow_datasets (0.4 s): import it inside functions.
"""

import contextlib
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from plasticity_jax.datasets import files
from plasticity_jax.datasets.contract import DataError


class IdxBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """What the builders of the MNIST family share: 28x28 grey images and labels in idx files.

    Args:
        originals: the verified original files; None: download them.
        download_folder: where downloaded originals are put under their own names.
        options: as for any builder, e.g. `data_dir` and `config`.

    Raises:
        DataError: from `download_and_prepare`, where an original is missing, corrupt or cannot be downloaded.
    """

    VERSION = tfds.core.Version(files.VERSION)
    first_label: ClassVar[dict[str, int]] = {}
    """Dataset name -> its lowest label in the files, where that is not 0."""
    transposed: ClassVar[bool] = False
    """Whether the files store columns before rows."""

    def __init__(self, *, originals: files.Originals | None, download_folder: Path | None = None, **options: Any):
        self.originals = originals
        self.download_folder = download_folder
        super().__init__(file_format="array_record", **options)

    @property
    def dataset_name(self) -> str:
        """Name in `files.ORIGINALS`, e.g. "emnist/letters"."""
        return f"{self.name}/{self.builder_config.name}" if self.builder_config else self.name

    def _info(self) -> tfds.core.DatasetInfo:
        layout = files.ORIGINALS[self.dataset_name]
        features = {
            "image": tfds.features.Tensor(shape=(28, 28, 1), dtype=np.uint8),
            "label": tfds.features.ClassLabel(num_classes=layout.classes),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=layout.description,
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,  # keeps the order of the original files
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        if self.originals is None:
            self.originals = self._downloaded(dl_manager)
        # Both parts are read and checked before the first example is written.
        name, first_label = self.dataset_name, self.first_label.get(self.dataset_name, 0)
        parts = {p: files.images_and_labels(name, self.originals, p, first_label) for p in ("train", "test")}
        return {part: self._generate_examples(*arrays) for part, arrays in parts.items()}

    def _generate_examples(self, images: np.ndarray, labels: np.ndarray) -> Iterator[tuple[int, dict[str, Any]]]:
        for row, (image, label) in enumerate(zip(images, labels, strict=True)):
            yield row, {"image": (image.T if self.transposed else image)[..., None], "label": int(label)}

    def _downloaded(self, dl_manager: tfds.download.DownloadManager) -> files.Originals:
        name = self.dataset_name
        if self.download_folder is None:
            raise ValueError(f"{name}: a builder without originals needs a download_folder.")
        staged = []
        # One at a time: of several at once, the others would go on writing after the first fault.
        for file, url in files.ORIGINALS[name].urls.items():
            try:
                path = Path(str(dl_manager.download(url)))
                staged.append(path.rename(path.with_name(file)))
            except Exception as fault:  # the library raises many kinds: of the network, HTTP, checksums and disk
                reason = str(fault).strip().partition("\n")[0].rstrip(".") or type(fault).__name__
                raise DataError(f"{name}: downloading {url} failed ({reason}).") from fault
        for path in staged:  # verified before they are put where later runs would trust to find originals
            files.verified_sum(name, path)
        for path in staged:
            path.replace(self.download_folder / path.name)
        originals = files.locate(name, [self.download_folder])
        if originals is None:
            raise files.missing(name, [self.download_folder])
        return originals


class Mnist(IdxBuilder, skip_registration=True):
    """MNIST: 60,000 and 10,000 handwritten digits.

    Source: LeCun, Bottou, Bengio, Haffner 1998.
    """


class FashionMnist(IdxBuilder, skip_registration=True):
    """Fashion-MNIST: 60,000 and 10,000 articles of clothing in 10 classes.

    Source: Xiao, Rasul, Vollgraf 2017.
    """


class Emnist(IdxBuilder, skip_registration=True):
    """EMNIST in its six splits, as configs; the files store images transposed and count the letters from 1.

    Source: Cohen, Afshar, Tapson, van Schaik 2017.
    """

    BUILDER_CONFIGS: ClassVar[list[tfds.core.BuilderConfig]] = [
        tfds.core.BuilderConfig(name=name.partition("/")[2], description=layout.description)
        for name, layout in files.ORIGINALS.items()
        if name.startswith("emnist/")
    ]
    first_label: ClassVar[dict[str, int]] = {"emnist/letters": 1}
    transposed: ClassVar[bool] = True


def prepared_arrays(
    name: str, originals: files.Originals | None, download_folder: Path | None, work_folder: Path
) -> tuple[files.Originals, tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """The originals read and the four arrays of dataset `name` (as in `Dataset`), through its builder.

    Args:
        name: a key of `files.ORIGINALS`.
        originals: the verified original files; None: download them.
        download_folder: where downloaded originals are put; needed only where `originals` is None.
        work_folder: an existing folder for the ArrayRecord files, which the caller removes.
    """
    downloads = contextlib.nullcontext()
    if originals is None:
        downloads = tempfile.TemporaryDirectory(dir=download_folder, prefix="download-", ignore_cleanup_errors=True)
    # Progress is shown for downloads alone, on stderr; the notes that TFDS prints would spoil the caller's stdout.
    (tfds.enable_progress_bar if originals is None else tfds.disable_progress_bar)()
    with downloads as download_dir, contextlib.redirect_stdout(io.StringIO()):
        builder = BUILDERS[files.family(name)](
            originals=originals,
            download_folder=download_folder,
            data_dir=work_folder,
            config=name.partition("/")[2] or None,
        )
        builder.download_and_prepare(
            download_dir=download_dir, download_config=tfds.download.DownloadConfig(try_download_gcs=False)
        )
    assert builder.originals is not None  # either given or set by the download
    return builder.originals, (*_read(builder, "train"), *_read(builder, "test"))


def _read(builder: IdxBuilder, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of one part, read back from the prepared ArrayRecord files, in their order."""
    reader: Any = builder  # a decorator in TFDS hides this signature from type checkers
    source = reader.as_data_source(part)
    images = np.empty((len(source), *source[0]["image"].shape), np.uint8)
    labels = np.empty(len(source), np.int32)
    for start in range(0, len(source), 10_000):  # many records in one call take a tenth of the time of one by one
        rows = range(start, min(start + 10_000, len(source)))
        for row, example in zip(rows, source.__getitems__(list(rows)), strict=True):
            images[row], labels[row] = example["image"], example["label"]
    return images, labels


BUILDERS: dict[str, type[IdxBuilder]] = {
    "mnist": Mnist,
    "fashion_mnist": FashionMnist,
    "emnist": Emnist,
}
