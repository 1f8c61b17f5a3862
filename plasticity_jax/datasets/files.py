"""The original files of each dataset: what they are called, where they are looked for, and how they
are verified.
"""

import contextlib
import fnmatch
import functools
import gzip
import hashlib
import http.client
import os
import re
import threading
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from plasticity_jax.datasets.contract import DataError
from plasticity_jax.storage import small_files

CIFAR10 = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
"""The files inside the archive of CIFAR-10, in order."""
VERSION = "1.0.0"
"""Version of what the builders make of the originals; a part of every cache key, so raise it when
they change.
"""


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
        numbers = (
            f"{self.classes} classes, {self.train:,} train and {self.test:,} test images, "
            if self.classes
            else ""
        )
        height, width, channels = self.shape
        return f"{numbers}{height}x{width}, {'grey' if channels == 1 else 'colour'}"


class Originals(NamedTuple):
    """Original files found on this machine: file name in `Layout.files` -> path (of the file or
    what holds it).

    `sums` holds the SHA-256 of every file by the name it was published under: together with
    `VERSION` they decide what is prepared.
    """

    folder: Path
    paths: dict[str, Path]
    sums: dict[str, str]

    @property
    def source(self) -> str:
        """The folder, and the file with its sum where the folder does not tell which it was or no
        sum is published.
        """
        chosen = [
            f"{path.name} with SHA-256 {self.sums[path.name]}"
            for file, path in self.paths.items()
            if "*" in file
        ]
        unpacked = [path for path in self.paths.values() if path.is_dir()]
        if unpacked:
            (found,) = self.sums.values()
            return f"{unpacked[0]}: unpacked, with SHA-256 {found} over its files"
        return ": ".join([str(self.folder), *chosen])


def family(name: str) -> str:
    """The part of `name` before the slash: the builder, the checksums and the download folder go by
    it.
    """
    return name.partition("/")[0]


def search_folders(name: str, data_dir: Path) -> list[Path]:
    """Folders in which the originals of `name` may lie, the dataset's own first.

    The own folder goes first because mnist and fashion_mnist share their file names. Behind those
    that are always searched come such as other libraries make, where they exist: FashionMNIST/raw,
    MNIST.
    """
    folders = [data_dir / folder if folder else data_dir for folder in ORIGINALS[name].folders]
    others = {
        family(name).replace("_", ""),
        *(folder.lower() for folder in ORIGINALS[name].folders),
    }
    alike = [
        path
        for path in _entries(name, data_dir)
        if path.name.lower() in others and os.path.isdir(path)
    ]
    return list(
        dict.fromkeys(
            [*folders, *alike, *(p for f in [*folders, *alike] if os.path.isdir(p := f / "raw"))]
        )
    )


def locate(name: str, folders: list[Path]) -> Originals | None:
    """The originals of `name` in the first of `folders` that has all of them, verified; None where
    none has.

    A file without .gz stands for its .gz, unless it is a tar archive; upper case and
    "train-images.idx3-ubyte" are the same name. SHA-256 is compared with the published sum wherever
    one is known. Of an unpacked archive none is: the reader of the format then checks all that can
    be.

    Raises:
        DataError: a file is unreadable, has another sum than published, or is known to be another
            dataset's; several files match a pattern.
    """
    layout = ORIGINALS[name]
    for folder in folders:
        there = _files(name, folder)
        found = {
            file: match for file in layout.files if (match := _present(name, folder, there, file))
        }
        if len(found) == len(layout.files):
            sums = dict(verified_sum(name, path, file, key) for file, (key, path) in found.items())
            return Originals(folder, {file: path for file, (_, path) in found.items()}, sums)
        if archive := there.get(layout.archive):
            sums = dict([verified_sum(name, archive, layout.archive, layout.archive)])
            return Originals(folder, dict.fromkeys(layout.files, archive), sums)
        if unpacked := _unpacked(name, folder):
            sums = {layout.unpacked[0]: _sum_of_folder(name, unpacked)}
            return Originals(folder, dict.fromkeys(layout.files, unpacked), sums)
    return None


def missing(name: str, folders: list[Path]) -> DataError:
    """The fault to raise where no folder has all originals: names the files missing from the
    fullest folder.
    """
    layout = ORIGINALS[name]
    lacking = min(
        ([f for f in layout.files if not _has(name, folder, f)] for folder in folders), key=len
    )
    inside = f" (or {layout.archive}, which holds them)" if layout.archive else ""
    ways = (
        ", name the folder with --data_dir, or add --download"
        if layout.url
        else " or name the folder with --data_dir"
    )
    others = [
        other
        for other in ORIGINALS
        if family(other) == family(name) and _all_present(other, folders)
    ]
    hint = f" There is what --dataset={others[0]} needs." if others else ""
    return DataError(
        f"{name}: {', '.join(lacking)}{inside} not found in "
        f"{', '.join(map(str, folders))}{_what_is(name, folders)}; put "
        f"the original file{'s' if len(lacking) > 1 else ''} there{ways}.{hint}"
    )


def _what_is(name: str, folders: list[Path]) -> str:
    """What lies in the folders, in words."""
    entries = [path for folder in folders for path in _entries(name, folder) if path not in folders]
    # (a name that is no text must not spoil the sentence)
    names = [os.fsencode(path.name).decode(errors="replace") for path in entries]
    more = [f"{len(names) - 5} more"] if len(names) > 5 else []
    holds = f", where there is {', '.join([*names[:5], *more])}" if names else ""
    if any("batches-py" in other or re.match(r"cifar-\d+-python", other) for other in names):
        holds += (
            " (pickles of Python are not read, as they can run any code: get the binary version)"
        )
    files = [str(folder) for folder in folders if os.path.isfile(folder)]
    return holds + (f" ({files[0]} is a file, not a folder)" if files else "")


def _has(name: str, folder: Path, file: str) -> bool:
    return _present(name, folder, _files(name, folder), file) is not None


def _all_present(name: str, folders: list[Path]) -> bool:
    return any(
        all(_has(name, folder, file) for file in ORIGINALS[name].files) for folder in folders
    )


def published_sums(name: str) -> list[dict[str, str]]:
    """The complete sets of published sums from which `name` can be made: loose files, plain files,
    archive.
    """
    layout = ORIGINALS[name]
    known = SHA256[family(name)]
    candidates = (layout.files, tuple(map(_plain, layout.files)), (layout.archive,))
    return [
        {file: known[file] for file in names}
        for names in candidates
        if all(file in known for file in names)
    ]


def verified_sum(name: str, path: Path, file: str = "", key: str = "") -> tuple[str, str]:
    """The published name of what `path` of dataset `name` holds, and its SHA-256 in hex.

    Args:
        file: which of `Layout.files` it is to be, by default its own name.
        key: the name under which that was found: without .gz it stands for the uncompressed file.

    Raises:
        DataError: the sum of neither the file nor, where that is known, of its content is the
          published one.
    """
    file, key = file or path.name, key or path.name
    with reading(name, path):
        size = path.stat().st_size
        with path.open("rb") as content:
            found = hashlib.file_digest(content, "sha256").hexdigest()
    for other, sums in SHA256.items():
        if other != family(name) and found in sums.values():
            raise DataError(
                f"{name}: {path} is a file of {other} (SHA-256 {found}), expected one of {family(name)}."
            )
    known = SHA256[family(name)]
    expected = known.get(key)
    if expected in (None, found):
        return key, found
    # it was packed or unpacked, not renamed
    if found == known.get(other_way := _plain(file) if key == file else file):
        return other_way, found
    if _plain(file) in known and _sum_of_content(path) == known[_plain(file)]:  # packed anew
        return _plain(file), known[_plain(file)]
    whole = BYTES.get(key, 0)
    lack = "corrupt or another file"
    if size < whole:
        lack = f"cut short at {size:,} of {whole:,} bytes"
    elif key.endswith("ubyte.gz") and _ends_early(path):
        lack = f"cut short at {size:,} bytes"
    raise DataError(
        f"{name}: {path} is {lack}: its SHA-256 is {found}, expected {expected} (the original's)."
    )


def _sum_of_content(path: Path) -> str:
    """SHA-256 of what a gzip file holds, "" for any other."""
    digest = hashlib.sha256()
    try:
        with gzip.open(path) as file:
            while block := file.read(2**20):
                digest.update(block)
    except (EOFError, OSError, zlib.error):
        return ""
    return digest.hexdigest()


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
    """A context in which faults of reading `path`, or `file` inside it, become a `DataError` of
    dataset `name`.
    """
    what = f"{file} in {path}" if file else str(path)
    try:
        yield
    except DataError:
        raise
    except gzip.BadGzipFile as fault:  # (an OSError, but not of the system)
        raise _no_whole_file(name, what, fault) from fault
    except OSError as fault:
        raise DataError(f"{name}: {path} cannot be read ({fault.strerror or fault}).") from fault
    except MemoryError:
        raise  # (says nothing about the file)
    # damage surfaces as almost any type, depending on the byte that it hit
    except Exception as fault:
        raise _no_whole_file(name, what, fault) from fault


def _no_whole_file(name: str, what: str, fault: Exception) -> DataError:
    reason = (str(fault).strip() or type(fault).__name__).splitlines()[0].rstrip(".")
    return DataError(
        f"{name}: {what} is no whole compressed file ({reason}): expected the original."
    )


class Members:
    """The files inside a zip archive or a folder, by their names with slashes; use it within
    `reading`.
    """

    def __init__(self, path: Path):
        self._path = path
        self._archive = None if path.is_dir() else zipfile.ZipFile(path)
        names = [] if self._archive is None else self._archive.namelist()
        # some programs write backslashes
        self._inside = {name.replace("\\", "/"): name for name in names}

    @functools.cached_property
    def names(self) -> list[str]:
        """All of them; those of an archive in its order."""
        return sorted(_walk(self._path)) if self._archive is None else list(self._inside)

    def __enter__(self) -> "Members":
        return self

    def __exit__(self, *_) -> None:
        if self._archive is not None:
            self._archive.close()

    def read(self, member: str) -> bytes:
        """The content of one file."""
        if self._archive is None:
            return small_files.read_bytes(self._path / member)
        with self._archive.open(self._inside[member]) as file:
            return limited(file)


def limited(file: IO[bytes] | gzip.GzipFile) -> bytes:
    """What a file inside an archive holds; ValueError beyond the size of small files, whatever the
    archive says.
    """
    content = file.read(small_files.LARGEST + 1)
    if len(content) > small_files.LARGEST:
        raise ValueError(f"it holds more than {small_files.LARGEST:,} bytes")
    return content


def _walk(folder: Path) -> Iterator[str]:
    """Every regular file below `folder`, relative to it; links to folders are not followed."""

    def unreadable(fault: OSError) -> None:
        raise fault

    for parent, _, names in os.walk(folder, onerror=unreadable):
        yield from ((Path(parent, name).relative_to(folder)).as_posix() for name in names)


def check_reachable(name: str, seconds: float = 3.0) -> None:
    """Nothing, when the host of `name` answers within `seconds`; else DataError.

    A download that meets no network is retried for minutes before it fails, hence this quick
    question first. Any HTTP answer counts, also a refusal. Asked in a thread, as looking up the
    name of the host obeys no timeout.
    """
    url = next(iter(ORIGINALS[name].urls.values()))
    answered = threading.Event()

    def ask() -> None:
        try:
            urllib.request.urlopen(
                urllib.request.Request(url, method="HEAD"), timeout=seconds
            ).close()
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
    """The name under which `file` is also accepted, uncompressed: of a tar archive no sum is known
    but the .gz's.
    """
    return file if file.endswith(".tar.gz") else file.removesuffix(".gz")


def _entries(name: str, folder: Path) -> list[Path]:
    """What is in a folder, in order; nothing where there is no such folder."""
    try:
        return sorted(Path(entry) for entry in os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as fault:
        raise DataError(f"{name}: {folder} cannot be read ({fault.strerror or fault}).") from fault


def _files(name: str, folder: Path) -> dict[str, Path]:
    """The files in a folder by their names as published: lower case, and -idx where people have
    .idx.
    """
    published = {
        path: path.name.lower().replace(".idx", "-idx")
        for path in _entries(name, folder)
        if os.path.isfile(path)
    }
    exact_first = sorted(published, key=lambda path: path.name != published[path])
    return {published[path]: path for path in reversed(exact_first)}


def _present(name: str, folder: Path, there: dict[str, Path], file: str) -> tuple[str, Path] | None:
    """The name of `file` among those `there` in `folder`, with or without .gz, and its path, or
    None.
    """
    for pattern in (file, _plain(file)):
        found = {key: path for key, path in there.items() if fnmatch.fnmatchcase(key, pattern)}
        if len(found) > 1:
            names = ", ".join(sorted(path.name for path in found.values()))
            raise DataError(f"{name}: {folder} holds {names}, expected one file {pattern}.")
        for key, path in found.items():
            return (path.name if "*" in pattern else key), path
    return None


def _unpacked(name: str, folder: Path) -> Path | None:
    """The folder of an unpacked archive: `folder` itself or one in it, known by its files."""
    unpacked, *known = ORIGINALS[name].unpacked or ("",)
    for path in (folder / unpacked, folder):
        if known and all(os.path.isfile(path / file) for file in known):
            return path
    return None


def _sum_of_folder(name: str, folder: Path) -> str:
    """SHA-256 over the names and the bytes of the files in the folder of an unpacked archive that
    are read.
    """
    digest, known = hashlib.sha256(), set(ORIGINALS[name].unpacked)
    with reading(name, folder), Members(folder) as members:
        for member in members.names:
            if member in known or member.startswith(("train/", "val/")):
                content = members.read(member)
                digest.update(os.fsencode(member) + b"\0" + len(content).to_bytes(8, "little"))
                digest.update(content)
    return digest.hexdigest()


def _mnist_like(name: str, description: str, url: str) -> Layout:
    files = tuple(
        f"{part}-{kind}-ubyte.gz"
        for part in ("train", "t10k")
        for kind in ("images-idx3", "labels-idx1")
    )
    return Layout(
        description, files, (name, ""), url, "", (28, 28, 1), classes=10, train=60_000, test=10_000
    )


def _emnist(split: str, description: str, classes: int, train: int, test: int) -> Layout:
    kinds = ("images-idx3", "labels-idx1")
    files = tuple(
        f"emnist-{split}-{part}-{kind}-ubyte.gz" for part in ("train", "test") for kind in kinds
    )
    folders = ("emnist", f"emnist_{split}", "gzip", "")
    url = "https://biometrics.nist.gov/cs_links/EMNIST/"
    return Layout(
        f"EMNIST {split}, {description}",
        files,
        folders,
        url,
        "gzip.zip",
        (28, 28, 1),
        classes,
        train,
        test,
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
    "cifar10": {
        "cifar-10-binary.tar.gz": "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
    },
    "cifar100": {
        "cifar-100-binary.tar.gz": "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec"
    },
    "tiny_imagenet": {
        "tiny-imagenet-200.zip": "6198c8ae015e2b3e007c7841da39ec069199b9aa3bfa943a462022fe5e43c821"
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
