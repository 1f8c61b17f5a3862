"""The original files of each dataset: what they are called, where they are looked for, and how they are verified."""

import contextlib
import gzip
import hashlib
import http.client
import tarfile
import threading
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from plasticity_jax.datasets.contract import DataError

VERSION = "1.0.0"
"""Version of what the builders make of the originals; a part of every cache key, so raise it when they change."""


class Layout(NamedTuple):
    """How the originals of one dataset are published, and what is in them.

    `files` are train images, train labels, test images, test labels for the MNIST family, else one archive; a name with
    a * is a pattern. `archive` is the published file that holds them, or "" where each is published alone. `folders`
    are tried below the data folder, in order. `url` is the folder that `files` are published in, or "" where they are
    not. `classes`, `train` and `test` are 0 where the originals themselves tell.
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

    @property
    def urls(self) -> dict[str, str]:
        """Published file name -> its address."""
        published = (self.archive,) if self.archive else self.files
        return {file: self.url + file for file in published} if self.url else {}

    @property
    def contents(self) -> str:
        """The numbers and the kind of the images, in words."""
        numbers = (
            f"{self.classes} classes, {self.train:,} train and {self.test:,} test images, " if self.classes else ""
        )
        height, width, channels = self.shape
        return f"{numbers}{height}x{width}, {'grey' if channels == 1 else 'colour'}"


class Originals(NamedTuple):
    """Original files found on this machine: file name in `Layout.files` -> path (of the file or its archive).

    `sums` holds the SHA-256 of every file on disk by its name: together with `VERSION` they decide what is prepared.
    """

    folder: Path
    paths: dict[str, Path]
    sums: dict[str, str]

    @property
    def source(self) -> str:
        """The folder, and the file with its sum where the folder does not tell which it was."""
        chosen = [
            f"{path.name} with SHA-256 {self.sums[path.name]}" for file, path in self.paths.items() if "*" in file
        ]
        return ": ".join([str(self.folder), *chosen])


def family(name: str) -> str:
    """The part of `name` before the slash: the builder, the checksums and the download folder go by it."""
    return name.partition("/")[0]


def search_folders(name: str, data_dir: Path) -> list[Path]:
    """Folders in which the originals of `name` may lie, the dataset's own first.

    The own folder goes first because mnist and fashion_mnist share their file names.
    """
    return [data_dir / folder if folder else data_dir for folder in ORIGINALS[name].folders]


def locate(name: str, folders: list[Path]) -> Originals | None:
    """The originals of `name` in the first of `folders` that has all of them, verified; None where none has.

    A file without .gz stands for its .gz, unless it is a tar archive. SHA-256 is compared with the published sum
    wherever one is known.

    Raises:
        DataError: a file is unreadable, has another sum than published, or is known to be another dataset's; several
            files match a pattern.
    """
    layout = ORIGINALS[name]
    for folder in folders:
        paths = {file: path for file in layout.files if (path := _present(name, folder, file))}
        if len(paths) == len(layout.files):
            return Originals(folder, paths, {path.name: verified_sum(name, path) for path in paths.values()})
        archive = folder / layout.archive
        if layout.archive and archive.is_file():
            return Originals(folder, dict.fromkeys(layout.files, archive), {archive.name: verified_sum(name, archive)})
    return None


def missing(name: str, folders: list[Path]) -> DataError:
    """The fault to raise where no folder has all originals: names the files missing from the fullest folder."""
    layout = ORIGINALS[name]
    lacking = min(([f for f in layout.files if not _present(name, folder, f)] for folder in folders), key=len)
    inside = f" (or {layout.archive}, which holds them)" if layout.archive else ""
    ways = (
        ", name the folder with --data_dir, or add --download" if layout.url else " or name the folder with --data_dir"
    )
    others = [other for other in ORIGINALS if family(other) == family(name) and _all_present(other, folders)]
    hint = f" There is what --dataset={others[0]} needs." if others else ""
    return DataError(
        f"{name}: {', '.join(lacking)}{inside} not found in {', '.join(map(str, folders))}; put the original "
        f"file{'s' if len(lacking) > 1 else ''} there{ways}.{hint}"
    )


def _all_present(name: str, folders: list[Path]) -> bool:
    return any(all(_present(name, folder, file) for file in ORIGINALS[name].files) for folder in folders)


def published_sums(name: str) -> list[dict[str, str]]:
    """The complete sets of published sums from which `name` can be made: loose files, plain files, archive."""
    layout = ORIGINALS[name]
    known = SHA256[family(name)]
    candidates = (layout.files, tuple(map(_plain, layout.files)), (layout.archive,))
    return [{file: known[file] for file in names} for names in candidates if all(file in known for file in names)]


def verified_sum(name: str, path: Path) -> str:
    """SHA-256 in hex of the original file `path` of `name`; DataError where it is not the published one."""
    with reading(name, path):
        size = path.stat().st_size
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    for other, sums in SHA256.items():
        if other != family(name) and found in sums.values():
            raise DataError(f"{name}: {path} is a file of {other} (SHA-256 {found}), expected one of {family(name)}.")
    expected = SHA256[family(name)].get(path.name)
    if expected not in (None, found):
        whole = BYTES.get(path.name, 0)
        lack = "corrupt or another file"
        if size < whole:
            lack = f"cut short at {size:,} of {whole:,} bytes"
        elif path.name.endswith("ubyte.gz") and _ends_early(path):
            lack = f"cut short at {size:,} bytes"
        raise DataError(f"{name}: {path} is {lack}: its SHA-256 is {found}, expected {expected} (the original's).")
    return found


def _ends_early(path: Path) -> bool:
    """Whether a gzip file stops before its end."""
    try:
        with gzip.open(path) as file:
            while file.read(2**20):
                pass
    except EOFError:
        return True
    except (OSError, zlib.error):
        return False
    return False


@contextlib.contextmanager
def reading(name: str, path: Path, file: str = "") -> Iterator[None]:
    """A context in which faults of reading `path`, or `file` inside it, become a `DataError` of dataset `name`."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile, tarfile.TarError, zipfile.BadZipFile, NotImplementedError) as fault:
        what = f"{file} in {path}" if file else str(path)
        raise DataError(
            f"{name}: {what} is no whole compressed file ({str(fault).rstrip('.')}): expected the original."
        ) from fault
    except OSError as fault:
        raise DataError(f"{name}: {path} cannot be read ({fault.strerror or fault}).") from fault


def check_reachable(name: str, seconds: float = 3.0) -> None:
    """Nothing, when the host of `name` answers within `seconds`; else DataError.

    A download that meets no network is retried for minutes before it fails, hence this quick question first. Any HTTP
    answer counts, also a refusal. Asked in a thread, as looking up the name of the host obeys no timeout.
    """
    url = next(iter(ORIGINALS[name].urls.values()))
    answered = threading.Event()

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=seconds).close()
        except urllib.error.HTTPError as refusal:
            refusal.close()
        except (OSError, http.client.HTTPException):
            return
        answered.set()

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    if not answered.is_set():
        raise DataError(
            f"{name}: {urllib.parse.urlsplit(url).netloc} cannot be reached to download {url}; "
            "fetch the file elsewhere and name its folder with --data_dir."
        )


def _plain(file: str) -> str:
    """The name under which `file` is also accepted, uncompressed: of a tar archive no sum is known but the .gz's."""
    return file if file.endswith(".tar.gz") else file.removesuffix(".gz")


def _present(name: str, folder: Path, file: str) -> Path | None:
    """The path of `file` in `folder`, with or without .gz, or None."""
    for pattern in (file, _plain(file)):
        found = sorted(path for path in folder.glob(pattern) if path.is_file())
        if len(found) > 1:
            raise DataError(f"{name}: {folder} holds {', '.join(p.name for p in found)}, expected one file {pattern}.")
        if found:
            return found[0]
    return None


def _mnist_like(name: str, description: str, url: str) -> Layout:
    files = tuple(f"{part}-{kind}-ubyte.gz" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1"))
    return Layout(description, files, (name, ""), url, "", (28, 28, 1), classes=10, train=60_000, test=10_000)


def _emnist(split: str, description: str, classes: int, train: int, test: int) -> Layout:
    kinds = ("images-idx3", "labels-idx1")
    files = tuple(f"emnist-{split}-{part}-{kind}-ubyte.gz" for part in ("train", "test") for kind in kinds)
    folders = ("emnist", f"emnist_{split}", "gzip", "")
    url = "https://biometrics.nist.gov/cs_links/EMNIST/"
    return Layout(f"EMNIST {split}, {description}", files, folders, url, "gzip.zip", (28, 28, 1), classes, train, test)


def _cifar(name: str, file: str, description: str, classes: int) -> Layout:
    url = "https://www.cs.toronto.edu/~kriz/"
    return Layout(description, (file,), (name, ""), url, "", (32, 32, 3), classes, train=50_000, test=10_000)


def _tiny_imagenet(file: str, description: str, url: str, classes: int) -> Layout:
    folders = ("tiny_imagenet", "")
    return Layout(description, (file,), folders, url, "", (64, 64, 3), classes, train=500 * classes, test=50 * classes)


# Numbers of items: Cohen et al. 2017, table II, and for letters what the official files hold (124,800 and 20,800).
ORIGINALS: dict[str, Layout] = {
    "mnist": _mnist_like("mnist", "MNIST, handwritten digits", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
    "fashion_mnist": _mnist_like(
        "fashion_mnist",
        "Fashion-MNIST, articles of clothing",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    ),
    "emnist/letters": _emnist("letters", "handwritten letters, both cases as one", 26, 124_800, 20_800),
    "emnist/balanced": _emnist("balanced", "digits and letters in equal numbers", 47, 112_800, 18_800),
    "emnist/byclass": _emnist("byclass", "digits, capital and small letters", 62, 697_932, 116_323),
    "emnist/bymerge": _emnist("bymerge", "byclass with look-alike cases merged", 47, 697_932, 116_323),
    "emnist/digits": _emnist("digits", "handwritten digits in equal numbers", 10, 240_000, 40_000),
    "emnist/mnist": _emnist("mnist", "digits in MNIST's numbers", 10, 60_000, 10_000),
    "cifar10": _cifar("cifar10", "cifar-10-binary.tar.gz", "CIFAR-10, photographs of animals and vehicles", 10),
    "cifar100": _cifar("cifar100", "cifar-100-binary.tar.gz", "CIFAR-100 with its fine labels, photographs", 100),
    "tiny_imagenet": _tiny_imagenet(
        "tiny-imagenet-200.zip",
        "Tiny ImageNet, photographs, for test its validation images",
        "https://cs231n.stanford.edu/",
        200,
    ),
    "tiny_imagenet/part": _tiny_imagenet(
        "tiny-imagenet-200-*.zip", "Tiny ImageNet cut to fewer than its 200 classes, in the same layout", "", 0
    ),
}

# Sums of the originals: mnist, fashion_mnist, gzip.zip and CIFAR as in the checksum lists of TensorFlow Datasets 4.9.10;
# the letters' as in two independent public copies of NIST's archive. Names without .gz: the same files, uncompressed.
# The other members of gzip.zip have no published sum: lying loose, only their structure is checked (`idx`). Stanford
# publishes no sum of tiny-imagenet-200.zip: this one is what several unrelated public projects recorded after
# downloading it there. Of a part of it none can be known: its structure is checked, and its own sum is recorded.
SHA256: dict[str, dict[str, str]] = {
    "mnist": {
        "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
    "fashion_mnist": {
        "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    },
    "emnist": {
        "gzip.zip": "fb9bb67e33772a9cc0b895e4ecf36d2cf35be8b709693c3564cea2a019fcda8e",
        "emnist-letters-train-images-idx3-ubyte.gz": "6288f418a917e007bf5fddb823a2dc7a5c6a35031401b93292a539cb12bd881f",
        "emnist-letters-train-labels-idx1-ubyte.gz": "9759af91ea6bccdf07a6040fd085861f2ec88e37f7c3f5760f6feb57106fbe5c",
        "emnist-letters-test-images-idx3-ubyte.gz": "50f0e93d75b99b463e9760b8345866f22587fa2c2fba472730a5ba09c693412d",
        "emnist-letters-test-labels-idx1-ubyte.gz": "924955c31fe7fd809b7303b5c0141282955f4b8390c74cdfd5d80435e0f4b4cb",
        "emnist-letters-train-images-idx3-ubyte": "7a786db773b2096a7b9a3f3275388a27711f4451548c3ca8be96f09ae94371ae",
        "emnist-letters-train-labels-idx1-ubyte": "e8e94c3f4353d5532fd9604b939cb4c76e7847945b9b0d9ff7884d881dead6bc",
        "emnist-letters-test-images-idx3-ubyte": "d5895e82d14765b22a84342337bc5c25f1affd61cc97d3821d4e65504bbf8dbc",
        "emnist-letters-test-labels-idx1-ubyte": "22dbcde0a929a7f166bdac863b9195b2994d840a1e082f8f6daaeac5606376a6",
    },
    "cifar10": {"cifar-10-binary.tar.gz": "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"},
    "cifar100": {"cifar-100-binary.tar.gz": "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec"},
    "tiny_imagenet": {"tiny-imagenet-200.zip": "6198c8ae015e2b3e007c7841da39ec069199b9aa3bfa943a462022fe5e43c821"},
}

# Sizes of the archives, by which one cut short is told from another file; from the same places as the sums.
BYTES: dict[str, int] = {
    "gzip.zip": 561_753_746,
    "cifar-10-binary.tar.gz": 170_052_171,
    "cifar-100-binary.tar.gz": 168_513_733,
    "tiny-imagenet-200.zip": 248_100_043,
}
