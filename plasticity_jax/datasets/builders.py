"""TensorFlow Datasets builders that need no TensorFlow: each reads original files and yields one
example an image.

The stock builders import TensorFlow to prepare. These write ArrayRecord files from numpy arrays
instead, keep the order of the originals, and check every file. They are registered nowhere, so that
the stock ones keep their names.

A new dataset is a `Layout` in `layouts.ORIGINALS`, its sums in `layouts.SHA256`, one builder class
with its `examples` (the format itself is read by a module without TFDS: `idx`, `cifar`,
`tiny_imagenet`), and one line in `BUILDERS`. This module imports tensorflow_datasets (0.4 s):
import it inside functions.
"""

import contextlib
import io
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from plasticity_jax.datasets import cifar, files, idx, layouts, tiny_imagenet
from plasticity_jax.datasets.contract import DataError

Example = dict[str, Any]


class OriginalsBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """What all builders share: verified originals in, records in the order of the originals out.

    A subclass says with `examples` what the originals hold. Where their images are encoded it keeps
    them so in the records, and decodes in `image`: TFDS holds a whole part in memory, and beyond 1
    GB it needs TensorFlow.

    Args:
      originals: the verified original files; None: download them.
      download_folder: where downloaded originals are put under their own names.
      options: as for any builder, e.g. `data_dir` and `config`.

    `download_and_prepare` raises DataError where an original is missing, corrupt or cannot be
    downloaded.
    """

    VERSION = tfds.core.Version(files.VERSION)

    def __init__(
        self,
        *,
        originals: files.Originals | None,
        download_folder: Path | None = None,
        **options: Any,
    ):
        self.originals = originals
        self.download_folder = download_folder
        super().__init__(file_format="array_record", **options)

    @property
    def dataset_name(self) -> str:
        """Name in `layouts.ORIGINALS`, e.g. "emnist/letters"."""
        return f"{self.name}/{self.builder_config.name}" if self.builder_config else self.name

    @property
    def classes(self) -> int:
        """Number of classes."""
        return layouts.ORIGINALS[self.dataset_name].classes

    def examples(self, originals: files.Originals) -> dict[str, Iterable[Example]]:
        """Returns the examples of both parts, "train" and "test", as `features` describes them.

        The originals are checked, as far as that needs no decoding, before this returns.
        """
        raise NotImplementedError

    def features(self) -> dict[str, Any]:
        """Returns the features of an example: "label", and what `image` makes an image of."""
        layout = layouts.ORIGINALS[self.dataset_name]
        return {
            "image": tfds.features.Tensor(shape=layout.shape, dtype=np.uint8),
            "label": tfds.features.ClassLabel(num_classes=self.classes),
        }

    def image(self, example: Example) -> np.ndarray:
        """Returns the image uint8 [H, W, C] of one example as it is read back."""
        return example["image"]

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=layouts.ORIGINALS[self.dataset_name].description,
            features=tfds.features.FeaturesDict(self.features()),
            disable_shuffling=True,  # keeps the order of the original files
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        if self.originals is None:
            self.originals = self._downloaded(dl_manager)
        # Both parts are checked before the first example is written.
        return {
            part: self._generate_examples(rows)
            for part, rows in self.examples(self.originals).items()
        }

    def _generate_examples(self, examples: Iterable[Example]) -> Iterator[tuple[int, Example]]:
        yield from enumerate(examples)

    def _downloaded(self, dl_manager: tfds.download.DownloadManager) -> files.Originals:
        name = self.dataset_name
        if self.download_folder is None:
            raise ValueError(f"{name}: a builder without originals needs a download_folder.")
        staged = []
        # One at a time: of several at once, the others would go on writing after the first fault.
        for file, url in layouts.ORIGINALS[name].urls.items():
            try:
                path = Path(str(dl_manager.download(url)))
                staged.append(path.rename(path.with_name(file)))
            # the library raises many kinds: of the network, HTTP, checksums and disk
            except Exception as fault:
                reason = str(fault).strip().partition("\n")[0].rstrip(".") or type(fault).__name__
                raise DataError(f"{name}: downloading {url} failed ({reason}).") from fault
        # verified before they are put where later runs would trust to find originals
        for path in staged:
            files.verified_sum(name, path)
        for path in staged:
            path.replace(self.download_folder / path.name)
        originals = files.locate(name, [self.download_folder])
        if originals is None:
            raise files.missing(name, [self.download_folder])
        return originals


def _configs(family: str) -> list[tfds.core.BuilderConfig]:
    """A config for each dataset of `family` that has a slash in its name."""
    every = layouts.ORIGINALS
    known = {name: every[name] for name in every if name.startswith(f"{family}/")}
    return [
        tfds.core.BuilderConfig(name=name.partition("/")[2], description=layout.description)
        for name, layout in known.items()
    ]


class IdxBuilder(OriginalsBuilder, skip_registration=True):
    """What the builders of the MNIST family share: 28x28 gray images and labels in idx files.

    Attributes:
      first_label: dataset name -> its lowest label in the files, where that is not 0.
      transposed: whether the files store columns before rows.
    """

    first_label: ClassVar[dict[str, int]] = {}
    transposed: ClassVar[bool] = False

    def examples(self, originals: files.Originals) -> dict[str, Iterable[Example]]:
        """As for every builder."""
        name, first_label = self.dataset_name, self.first_label.get(self.dataset_name, 0)
        arrays = {
            p: idx.images_and_labels(name, originals, p, first_label) for p in ("train", "test")
        }
        axes = (0, 2, 1) if self.transposed else (0, 1, 2)
        return {
            p: _examples(images.transpose(axes)[..., None], labels)
            for p, (images, labels) in arrays.items()
        }


class Mnist(IdxBuilder, skip_registration=True):
    """MNIST: 60,000 and 10,000 handwritten digits.

    Source: LeCun et al. 1998.
    """


class FashionMnist(IdxBuilder, skip_registration=True):
    """Fashion-MNIST: 60,000 and 10,000 articles of clothing in 10 classes.

    Source: Xiao et al. 2017.
    """


class Emnist(IdxBuilder, skip_registration=True):
    """EMNIST in its six splits, as configs; the files store images transposed and count the letters
    from 1.

    Source: Cohen et al. 2017.
    """

    BUILDER_CONFIGS: ClassVar[list[tfds.core.BuilderConfig]] = _configs("emnist")
    first_label: ClassVar[dict[str, int]] = {"emnist/letters": 1}
    transposed: ClassVar[bool] = True


class Cifar10(OriginalsBuilder, skip_registration=True):
    """CIFAR-10: 50,000 and 10,000 photographs in 10 classes.

    Source: Krizhevsky 2009.
    """

    def examples(self, originals: files.Originals) -> dict[str, Iterable[Example]]:
        """As for every builder."""
        parts = cifar.images_and_labels(self.dataset_name, originals)
        return {part: _examples(*arrays) for part, arrays in parts.items()}


class Cifar100(Cifar10, skip_registration=True):
    """CIFAR-100: 50,000 and 10,000 photographs in 100 classes, its fine labels.

    Source: Krizhevsky 2009.
    """


class TinyImagenet(OriginalsBuilder, skip_registration=True):
    """Tiny ImageNet, 100,000 and 10,000 photographs in 200 classes, and as another config parts
    with fewer classes.

    Source: Le & Yang 2015, of ImageNet (Deng et al. 2009).
    """

    BUILDER_CONFIGS: ClassVar[list[tfds.core.BuilderConfig]] = [  # the first is the default
        tfds.core.BuilderConfig(
            name="whole", description=layouts.ORIGINALS["tiny_imagenet"].description
        ),
        *_configs("tiny_imagenet"),
    ]

    @property
    def dataset_name(self) -> str:
        """Name in `layouts.ORIGINALS`."""
        return super().dataset_name.removesuffix("/whole")

    @property
    def classes(self) -> int:
        """Number of classes, for a part as its originals say (it is not published, so they are at
        hand).
        """
        if self.originals is None or super().classes:
            return super().classes
        return len(tiny_imagenet.classes(self.dataset_name, _archive(self.originals)))

    def features(self) -> dict[str, Any]:
        """Returns the image as the bytes of its JPEG."""
        # of any bytes: features.Image decodes by OpenCV where installed, and never converts
        text = tfds.features.Text
        return {**super().features(), "image": text(), "file": text()}

    def examples(self, originals: files.Originals) -> dict[str, Iterable[Example]]:
        """As for every builder."""
        path = _archive(originals)
        parts = tiny_imagenet.rows(self.dataset_name, path)
        return {part: self._encoded(path, rows) for part, rows in parts.items()}

    def image(self, example: Example) -> np.ndarray:
        """Returns the decoded JPEG."""
        return tiny_imagenet.pixels(self.dataset_name, example["file"].decode(), example["image"])

    def _encoded(self, path: Path, rows: tiny_imagenet.Rows) -> Iterator[Example]:
        with files.reading(self.dataset_name, path), files.Members(path) as archive:
            for member, label in rows:
                name = os.fsencode(member).decode(errors="replace")  # for messages alone
                yield {"image": archive.read(member), "label": label, "file": name}


class Part(NamedTuple):
    """The train or test part as it is read back: N images of one shape, in `chunks` of images and
    labels.
    """

    number: int
    shape: tuple[int, int, int]
    chunks: Iterator[tuple[np.ndarray, np.ndarray]]


class Prepared(NamedTuple):
    """The originals read and what was made of them; the chunks can be read while the work folder is
    there.
    """

    originals: files.Originals
    classes: int
    train: Part
    test: Part


def prepare(
    name: str, originals: files.Originals | None, download_folder: Path | None, work_folder: Path
) -> Prepared:
    """Returns dataset `name` made by its builder.

    Args:
      name: a key of `layouts.ORIGINALS`.
      originals: the verified original files; None: download them.
      download_folder: where downloaded originals are put; needed only where `originals` is None.
      work_folder: an existing folder for the ArrayRecord files, which the caller removes.
    """
    downloads = contextlib.nullcontext()
    if originals is None:
        downloads = tempfile.TemporaryDirectory(
            dir=download_folder, prefix="download-", ignore_cleanup_errors=True
        )
    # Progress is shown for downloads alone, on stderr; the notes that TFDS prints would spoil the
    # caller's stdout.
    (tfds.enable_progress_bar if originals is None else tfds.disable_progress_bar)()
    with downloads as download_dir, contextlib.redirect_stdout(io.StringIO()):
        builder = BUILDERS[layouts.family(name)](
            originals=originals,
            download_folder=download_folder,
            data_dir=work_folder,
            config=name.partition("/")[2] or None,
        )
        builder.download_and_prepare(
            download_dir=download_dir,
            download_config=tfds.download.DownloadConfig(try_download_gcs=False),
        )
    assert builder.originals is not None  # either given or set by the download
    return Prepared(
        builder.originals, builder.classes, _read(builder, "train"), _read(builder, "test")
    )


def _read(builder: OriginalsBuilder, part: str) -> Part:
    """One part, read back from the prepared ArrayRecord files in their order."""
    reader: Any = builder  # a decorator in TFDS hides this signature from type checkers
    source = reader.as_data_source(part)

    def chunks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        # many records in one call take a tenth of the time of one by one
        for start in range(0, len(source), 2_000):
            examples = source.__getitems__(list(range(start, min(start + 2_000, len(source)))))
            labels = np.array([example["label"] for example in examples], np.int32)
            yield np.stack([builder.image(example) for example in examples]), labels

    return Part(len(source), layouts.ORIGINALS[builder.dataset_name].shape, chunks())


def _examples(images: np.ndarray, labels: np.ndarray) -> Iterator[Example]:
    for image, label in zip(images, labels, strict=True):
        yield {"image": image, "label": int(label)}


def _archive(originals: files.Originals) -> Path:
    (path,) = originals.paths.values()
    return path


BUILDERS: dict[str, type[OriginalsBuilder]] = {
    "mnist": Mnist,
    "fashion_mnist": FashionMnist,
    "emnist": Emnist,
    "cifar10": Cifar10,
    "cifar100": Cifar100,
    "tiny_imagenet": TinyImagenet,
}
