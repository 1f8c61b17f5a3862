"""The original files of each dataset: what they are called, where they are looked for, and how they
are verified.
"""

import contextlib
import fnmatch
import functools
import gzip
import hashlib
import http.client
import itertools
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

from plasticity_jax.datasets import layouts
from plasticity_jax.datasets.contract import DataError
from plasticity_jax.storage import small_files

VERSION = "1.0.0"
"""Version of what the builders make of the originals; a part of every cache key, so raise it when
they change.
"""


class Originals(NamedTuple):
    """Original files found on this machine: file name in `layouts.Layout.files` -> path (of the
    file or what holds it).

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


def search_folders(name: str, data_dir: Path) -> list[Path]:
    """Returns folders in which the originals of `name` may lie, the dataset's own first.

    The own folder goes first because mnist and fashion_mnist share their file names. Behind those
    that are always searched come such as other libraries make, where they exist: FashionMNIST/raw,
    MNIST.
    """
    own = layouts.ORIGINALS[name].folders
    searched = [data_dir / folder for folder in own]  # ("" is the data folder itself)
    others = {layouts.family(name).replace("_", ""), *(folder.lower() for folder in own)}
    for path in _entries(name, data_dir):
        if path.name.lower() in others and os.path.isdir(path):
            searched.append(path)
    raw = [folder / "raw" for folder in searched]
    return list(dict.fromkeys([*searched, *filter(os.path.isdir, raw)]))


def locate(name: str, folders: list[Path]) -> Originals | None:
    """Returns the originals of `name` in the first of `folders` that has all of them, verified;
    None where none has.

    A file without .gz stands for its .gz, unless it is a tar archive; upper case and
    "train-images.idx3-ubyte" are the same name. SHA-256 is compared with the published sum wherever
    one is known. Of an unpacked archive none is: the reader of the format then checks all that can
    be. Raises DataError where a file is unreadable, has another sum than published, or is known to
    be another dataset's, and where several files match a pattern.
    """
    layout = layouts.ORIGINALS[name]
    for folder in folders:
        there = _files(name, folder)
        matches = {file: _present(name, folder, there, file) for file in layout.files}
        found = {file: match for file, match in matches.items() if match}
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
    """Returns the fault to raise where no folder has all originals: names the files missing from
    the fullest folder.
    """
    layout = layouts.ORIGINALS[name]
    lacking = min((_lacking(name, folder) for folder in folders), key=len)
    inside = f" (or {layout.archive}, which holds them)" if layout.archive else ""
    ways = " or name the folder with --data_dir"
    if layout.url:
        ways = ", name the folder with --data_dir, or add --download"
    alike = [other for other in layouts.ORIGINALS if layouts.family(other) == layouts.family(name)]
    others = [other for other in alike if _all_present(other, folders)]
    hint = f" There is what --dataset={others[0]} needs." if others else ""
    return DataError(
        f"{name}: {', '.join(lacking)}{inside} not found in "
        f"{', '.join(map(str, folders))}{_what_is(name, folders)}; put "
        f"the original file{'s' if len(lacking) > 1 else ''} there{ways}.{hint}"
    )


def _what_is(name: str, folders: list[Path]) -> str:
    """What lies in the folders, in words."""
    inside = itertools.chain.from_iterable(_entries(name, folder) for folder in folders)
    entries = [path for path in inside if path not in folders]
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


def _lacking(name: str, folder: Path) -> list[str]:
    """The originals that are not in the folder."""
    return [file for file in layouts.ORIGINALS[name].files if not _has(name, folder, file)]


def _all_present(name: str, folders: list[Path]) -> bool:
    return not all(_lacking(name, folder) for folder in folders)


def published_sums(name: str) -> list[dict[str, str]]:
    """Returns the complete sets of published sums from which `name` can be made: loose files, plain
    files, archive.
    """
    layout = layouts.ORIGINALS[name]
    known = layouts.SHA256[layouts.family(name)]
    sums = []
    for names in (layout.files, tuple(map(_plain, layout.files)), (layout.archive,)):
        if known.keys() >= set(names):
            sums.append({file: known[file] for file in names})
    return sums


def verified_sum(name: str, path: Path, file: str = "", key: str = "") -> tuple[str, str]:
    """Returns the published name of what `path` of dataset `name` holds, and its SHA-256 in hex.

    Args:
      file: which of `layouts.Layout.files` it is to be, by default its own name.
      key: the name under which that was found: without .gz it stands for the uncompressed file.

    Raises DataError where the sum of neither the file nor, where that is known, of its content is
    the published one.
    """
    file, key = file or path.name, key or path.name
    with reading(name, path):
        size = path.stat().st_size
        with path.open("rb") as content:
            found = hashlib.file_digest(content, "sha256").hexdigest()
    for other, sums in layouts.SHA256.items():
        if other != layouts.family(name) and found in sums.values():
            raise DataError(
                f"{name}: {path} is a file of {other} (SHA-256 {found}), expected one of "
                f"{layouts.family(name)}."
            )
    known = layouts.SHA256[layouts.family(name)]
    expected = known.get(key)
    if expected in (None, found):
        return key, found
    # it was packed or unpacked, not renamed
    if found == known.get(other_way := _plain(file) if key == file else file):
        return other_way, found
    if _plain(file) in known and _sum_of_content(path) == known[_plain(file)]:  # packed anew
        return _plain(file), known[_plain(file)]
    whole = layouts.BYTES.get(key, 0)
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
    """Returns a context in which faults of reading `path`, or `file` inside it, become a
    `DataError` of dataset `name`.
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
        """Returns all of them; those of an archive in its order."""
        return sorted(_walk(self._path)) if self._archive is None else list(self._inside)

    def __enter__(self) -> "Members":
        return self

    def __exit__(self, *_) -> None:
        if self._archive is not None:
            self._archive.close()

    def read(self, member: str) -> bytes:
        """Returns the content of one file."""
        if self._archive is None:
            return small_files.read_bytes(self._path / member)
        with self._archive.open(self._inside[member]) as file:
            return limited(file)


def limited(file: IO[bytes] | gzip.GzipFile) -> bytes:
    """Returns what a file inside an archive holds; ValueError beyond the size of small files,
    whatever the archive says.
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
    url = next(iter(layouts.ORIGINALS[name].urls.values()))
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
    unpacked, *known = layouts.ORIGINALS[name].unpacked or ("",)
    for path in (folder / unpacked, folder):
        if known and all(os.path.isfile(path / file) for file in known):
            return path
    return None


def _sum_of_folder(name: str, folder: Path) -> str:
    """SHA-256 over the names and the bytes of the files in the folder of an unpacked archive that
    are read.
    """
    digest, known = hashlib.sha256(), set(layouts.ORIGINALS[name].unpacked)
    with reading(name, folder), Members(folder) as members:
        for member in members.names:
            if member in known or member.startswith(("train/", "val/")):
                content = members.read(member)
                digest.update(os.fsencode(member) + b"\0" + len(content).to_bytes(8, "little"))
                digest.update(content)
    return digest.hexdigest()
