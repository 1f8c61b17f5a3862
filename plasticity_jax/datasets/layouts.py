"""How each dataset is published: its files, where they lie, what is in them, and their
checksums.
"""

import itertools
from typing import NamedTuple

CIFAR10 = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
"""The files inside the archive of CIFAR-10, in order."""


class Layout(NamedTuple):
    """How the originals of one dataset are published, and what is in them.

    `files` are train images, train labels, test images, test labels for the MNIST family, else one
    archive; a name with a * is a pattern. `archive` is the published file that holds them, or ""
    where each is published alone. `folders` are tried below the data folder, in order. `url` is the
    folder that `files` are published in, or "" where they are not. `classes`, `train` and `test`
    are 0 where the originals themselves tell. `unpacked` is the folder that the archive unpacks to,
    and files in it by which it is known.
    """

    description: str
    files: tuple[str, ...]
    folders: tuple[str, ...]
    url: str
    archive: str
    shape: tuple[int, int, int]
    classes: int
    train: int
    test: int
    unpacked: tuple[str, ...] = ()

    @property
    def urls(self) -> dict[str, str]:
        """Published file name -> its address."""
        published = (self.archive,) if self.archive else self.files
        return {file: self.url + file for file in published} if self.url else {}

    @property
    def contents(self) -> str:
        """The numbers and the kind of the images, in words."""
        height, width, channels = self.shape
        kind = f"{height}x{width}, {'gray' if channels == 1 else 'color'}"
        if not self.classes:
            return kind
        numbers = f"{self.train:,} train and {self.test:,} test images"
        return f"{self.classes} classes, {numbers}, {kind}"


def family(name: str) -> str:
    """Returns the part of `name` before the slash: the builder, the checksums and the download
    folder go by it.
    """
    return name.partition("/")[0]


def _mnist_like(name: str, description: str, url: str) -> Layout:
    return Layout(
        description,
        files=_idx_files("train", "t10k"),
        folders=(name, ""),
        url=url,
        archive="",
        shape=(28, 28, 1),
        classes=10,
        train=60_000,
        test=10_000,
    )


def _idx_files(*parts: str) -> tuple[str, ...]:
    """The four files of MNIST's format, images before labels."""
    kinds = ("images-idx3", "labels-idx1")
    return tuple(f"{part}-{kind}-ubyte.gz" for part, kind in itertools.product(parts, kinds))


def _emnist(split: str, description: str, classes: int, train: int, test: int) -> Layout:
    return Layout(
        f"EMNIST {split}, {description}",
        files=_idx_files(f"emnist-{split}-train", f"emnist-{split}-test"),
        folders=("emnist", f"emnist_{split}", "gzip", ""),
        url="https://biometrics.nist.gov/cs_links/EMNIST/",
        archive="gzip.zip",
        shape=(28, 28, 1),
        classes=classes,
        train=train,
        test=test,
    )


def _cifar(name: str, file: str, description: str, classes: int) -> Layout:
    url = "https://www.cs.toronto.edu/~kriz/"
    names = {
        "cifar10": ("cifar-10-batches-bin", *CIFAR10),
        "cifar100": ("cifar-100-binary", "train.bin", "test.bin"),
    }
    folders, numbers = (name, ""), {"classes": classes, "train": 50_000, "test": 10_000}
    return Layout(
        description, (file,), folders, url, "", (32, 32, 3), **numbers, unpacked=names[name]
    )


def _tiny_imagenet(file: str, description: str, url: str, classes: int) -> Layout:
    folders = ("tiny_imagenet", "")
    unpacked = ("tiny-imagenet-200", "wnids.txt", "val/val_annotations.txt") if classes else ()
    numbers = {"classes": classes, "train": 500 * classes, "test": 50 * classes}
    return Layout(description, (file,), folders, url, "", (64, 64, 3), **numbers, unpacked=unpacked)


# Numbers of items: Cohen et al. 2017, table II, and for letters what the official files hold
# (124,800 and 20,800).
ORIGINALS: dict[str, Layout] = {
    "mnist": _mnist_like(
        "mnist", "MNIST, handwritten digits", "https://storage.googleapis.com/cvdf-datasets/mnist/"
    ),
    "fashion_mnist": _mnist_like(
        "fashion_mnist",
        "Fashion-MNIST, articles of clothing",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    ),
    "emnist/letters": _emnist(
        "letters", "handwritten letters, both cases as one", 26, 124_800, 20_800
    ),
    "emnist/balanced": _emnist(
        "balanced", "digits and letters in equal numbers", 47, 112_800, 18_800
    ),
    "emnist/byclass": _emnist("byclass", "digits, capital and small letters", 62, 697_932, 116_323),
    "emnist/bymerge": _emnist(
        "bymerge", "byclass with look-alike cases merged", 47, 697_932, 116_323
    ),
    "emnist/digits": _emnist("digits", "handwritten digits in equal numbers", 10, 240_000, 40_000),
    "emnist/mnist": _emnist("mnist", "digits in MNIST's numbers", 10, 60_000, 10_000),
    "cifar10": _cifar(
        "cifar10", "cifar-10-binary.tar.gz", "CIFAR-10, photographs of animals and vehicles", 10
    ),
    "cifar100": _cifar(
        "cifar100", "cifar-100-binary.tar.gz", "CIFAR-100 with its fine labels, photographs", 100
    ),
    "tiny_imagenet": _tiny_imagenet(
        "tiny-imagenet-200.zip",
        "Tiny ImageNet, photographs, for test its validation images",
        "https://cs231n.stanford.edu/",
        200,
    ),
    "tiny_imagenet/part": _tiny_imagenet(
        "tiny-imagenet-200-*.zip",
        "Tiny ImageNet cut to fewer than its 200 classes, in the same layout",
        "",
        0,
    ),
}

# Sums of the originals: mnist, fashion_mnist, gzip.zip and CIFAR as in the checksum lists of
# TensorFlow Datasets 4.9.10; the letters' as in two independent public copies of NIST's archive.
# Names without .gz: the same files, uncompressed. The other members of gzip.zip have no published
# sum: lying loose, only their structure is checked (`idx`). Stanford publishes no sum of
# tiny-imagenet-200.zip: this one is what several unrelated public projects recorded after
# downloading it there. Of a part of it none can be known: its structure is checked, and its own sum
# is recorded.
SHA256: dict[str, dict[str, str]] = {
    "mnist": {
        "train-images-idx3-ubyte.gz": (
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"
        ),
        "train-labels-idx1-ubyte.gz": (
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"
        ),
        "t10k-images-idx3-ubyte.gz": (
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"
        ),
        "t10k-labels-idx1-ubyte.gz": (
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"
        ),
        "train-images-idx3-ubyte": (
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"
        ),
        "train-labels-idx1-ubyte": (
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"
        ),
        "t10k-images-idx3-ubyte": (
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"
        ),
        "t10k-labels-idx1-ubyte": (
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"
        ),
    },
    "fashion_mnist": {
        "train-images-idx3-ubyte.gz": (
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"
        ),
        "train-labels-idx1-ubyte.gz": (
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"
        ),
        "t10k-images-idx3-ubyte.gz": (
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"
        ),
        "t10k-labels-idx1-ubyte.gz": (
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"
        ),
    },
    "emnist": {
        "gzip.zip": ("fb9bb67e33772a9cc0b895e4ecf36d2cf35be8b709693c3564cea2a019fcda8e"),
        "emnist-letters-train-images-idx3-ubyte.gz": (
            "6288f418a917e007bf5fddb823a2dc7a5c6a35031401b93292a539cb12bd881f"
        ),
        "emnist-letters-train-labels-idx1-ubyte.gz": (
            "9759af91ea6bccdf07a6040fd085861f2ec88e37f7c3f5760f6feb57106fbe5c"
        ),
        "emnist-letters-test-images-idx3-ubyte.gz": (
            "50f0e93d75b99b463e9760b8345866f22587fa2c2fba472730a5ba09c693412d"
        ),
        "emnist-letters-test-labels-idx1-ubyte.gz": (
            "924955c31fe7fd809b7303b5c0141282955f4b8390c74cdfd5d80435e0f4b4cb"
        ),
        "emnist-letters-train-images-idx3-ubyte": (
            "7a786db773b2096a7b9a3f3275388a27711f4451548c3ca8be96f09ae94371ae"
        ),
        "emnist-letters-train-labels-idx1-ubyte": (
            "e8e94c3f4353d5532fd9604b939cb4c76e7847945b9b0d9ff7884d881dead6bc"
        ),
        "emnist-letters-test-images-idx3-ubyte": (
            "d5895e82d14765b22a84342337bc5c25f1affd61cc97d3821d4e65504bbf8dbc"
        ),
        "emnist-letters-test-labels-idx1-ubyte": (
            "22dbcde0a929a7f166bdac863b9195b2994d840a1e082f8f6daaeac5606376a6"
        ),
    },
    "cifar10": {
        "cifar-10-binary.tar.gz": (
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
        ),
    },
    "cifar100": {
        "cifar-100-binary.tar.gz": (
            "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec"
        ),
    },
    "tiny_imagenet": {
        "tiny-imagenet-200.zip": (
            "6198c8ae015e2b3e007c7841da39ec069199b9aa3bfa943a462022fe5e43c821"
        ),
    },
}

# Sizes of the archives, by which one cut short is told from another file; from the same places as
# the sums.
BYTES: dict[str, int] = {
    "gzip.zip": 561_753_746,
    "cifar-10-binary.tar.gz": 170_052_171,
    "cifar-100-binary.tar.gz": 168_513_733,
    "tiny-imagenet-200.zip": 248_100_043,
}
