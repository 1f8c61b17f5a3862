"""From original files to a `Dataset`, prepared once and then opened from a cache of .npy files.

The cache is `$PLASTICITY_CACHE_DIR`, else ~/.cache/plasticity_jax: `arrays/<name>-<version>-<key>/`
holds four .npy files and a manifest, where the key comes from the SHA-256 of the originals;
`originals/` holds downloads that have no other place. An entry is written beside its place and
renamed into it, so a killed run leaves no half entry, and of two processes at once the first to
finish wins.
"""

import dataclasses
import hashlib
import json
import logging
import os
import shutil
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from plasticity_jax.datasets import contract, files, layouts, npy
from plasticity_jax.datasets.contract import DataError, Dataset
from plasticity_jax.storage.json_files import read_json, sealed, unsealed
from plasticity_jax.storage.workdir import reason_of

if TYPE_CHECKING:
    from plasticity_jax.datasets import builders

ARRAYS = ("images", "labels", "test_images", "test_labels")
logger = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Returns `$PLASTICITY_CACHE_DIR`, else ~/.cache/plasticity_jax."""
    return contract.path_of(os.environ.get("PLASTICITY_CACHE_DIR") or "~/.cache/plasticity_jax")


def load_originals(name: str, data_dir: str | None, download: bool) -> Dataset:
    """Returns the dataset `name` of `layouts.ORIGINALS`, from the cache where its entry is whole,
    else from the original files.

    Args:
      name: a key of `layouts.ORIGINALS`.
      data_dir: folder of the original files, read only unless something is downloaded; None:
          `$PLASTICITY_DATA_DIR`, else the cache.
      download: whether missing originals may be downloaded, into `data_dir` where it can be
        written.

    Raises DataError where originals are missing, corrupt or unreachable, or the cache cannot be
    written.
    """
    given = data_dir or os.environ.get("PLASTICITY_DATA_DIR")
    downloads = cache_folder() / "originals"
    data_folder = contract.path_of(given) if given else downloads
    folders = files.search_folders(name, data_folder)
    originals = files.locate(name, [*folders, *files.search_folders(name, downloads)])
    # a folder that was named is where they must be
    if originals is None and data_dir is not None and not download:
        raise files.missing(name, folders)
    # With no originals at hand, an entry made from files of the published sums is the same data.
    for sums in [originals.sums] if originals else files.published_sums(name):
        if dataset := _opened(name, sums):
            return dataclasses.replace(dataset, source=originals.source) if originals else dataset
    download_folder = None
    if originals is None:
        if not (download and layouts.ORIGINALS[name].url):
            raise files.missing(name, folders)
        files.check_reachable(name)
        download_folder = _writable_folder(name, [data_folder, downloads])
    return _prepared(name, originals, download_folder)


def _prepared(
    name: str, originals: files.Originals | None, download_folder: Path | None
) -> Dataset:
    """The dataset made by its builder, after its cache entry is written."""
    from plasticity_jax.datasets import builders  # tensorflow_datasets takes 0.4 s to import

    logger.info(
        "Preparing %s from %s, once.", name, originals.folder if originals else "a download"
    )
    root = cache_folder()
    try:
        (root / "arrays").mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            dir=root, prefix="preparing-", ignore_cleanup_errors=True
        ) as work_folder:
            work = Path(work_folder)
            entry = work / "entry"
            entry.mkdir()
            originals, classes, train, test = builders.prepare(
                name, originals, download_folder, work
            )
            _save(entry, ARRAYS[:2], train)
            _save(entry, ARRAYS[2:], test)
            arrays = _arrays(entry)
            mean, std = contract.statistics(arrays[0])
            manifest = {
                "name": name,
                "source": originals.source,
                "originals": originals.sums,
                "version": files.VERSION,
                "fingerprint": contract.fingerprint(arrays),
                "classes": classes,
                "mean": mean,
                "std": std,
            }
            (entry / "manifest.json").write_text(json.dumps(sealed(manifest), indent=1))
            place = _entry_folder(name, originals.sums)
            try:
                entry.rename(place)
            except OSError:
                if not place.is_dir():  # else another process has just put the same entry there
                    raise
            arrays = _arrays(place)
    # (tensorflow_datasets writes from C++, whose faults are RuntimeErrors)
    except (OSError, RuntimeError) as fault:
        raise DataError(
            f"{name}: the prepared data cannot be written to {root} ({reason_of(fault)}); make "
            "room there or name another folder with $PLASTICITY_CACHE_DIR."
        ) from fault
    return _dataset(manifest, arrays)


def _save(entry: Path, names: tuple[str, ...], part: "builders.Part") -> None:
    """Writes the images and labels of one part chunk by chunk, so that never all images are in
    memory.

    Written and not mapped, as a full disk is no more than an `OSError` to a write.
    """
    images_name, labels_name = names
    header = {"descr": "|u1", "fortran_order": False, "shape": (part.number, *part.shape)}
    labels = []
    with (entry / f"{images_name}.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for images, chunk_labels in part.chunks:
            file.write(np.ascontiguousarray(images).data)
            labels.append(chunk_labels)
    np.save(entry / f"{labels_name}.npy", np.concatenate(labels))


def _arrays(folder: Path) -> tuple[np.ndarray, ...]:
    """The four arrays of the entry in `folder`, mapped."""
    return tuple(npy.mapped(folder / f"{array_name}.npy") for array_name in ARRAYS)


def _entry_folder(name: str, sums: dict[str, str]) -> Path:
    """The place of the cache entry made of `name` from originals with these SHA-256 sums by this
    version.
    """
    key = hashlib.sha256(
        json.dumps([name, files.VERSION, sorted(sums.items())]).encode()
    ).hexdigest()
    return cache_folder() / "arrays" / f"{name.replace('/', '-')}-{files.VERSION}-{key[:16]}"


def _opened(name: str, sums: dict[str, str]) -> Dataset | None:
    """The dataset in its cache entry, or None where there is none; a damaged entry is removed with
    a warning.
    """
    place = _entry_folder(name, sums)
    if not place.is_dir():
        return None
    try:
        manifest = read_json(place / "manifest.json")
        arrays = _arrays(place)
        if contract.fingerprint(arrays) != manifest["fingerprint"]:
            raise ValueError("the arrays do not have the recorded fingerprint")
        _check_manifest(name, manifest, arrays)
        return _dataset(manifest, arrays)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as fault:
        logger.warning(
            "The cache entry %s is damaged (%s) and will be prepared anew.", place, fault
        )
    try:
        aside = place.rename(
            place.with_name(f"damaged-{uuid.uuid4().hex}")
        )  # renamed first: readers see all or nothing
    except OSError as fault:
        if place.is_dir():
            raise DataError(
                f"{name}: the damaged cache entry {place} cannot be removed ({fault.strerror})."
            ) from fault
    else:
        shutil.rmtree(aside, ignore_errors=True)
    return None


def _check_manifest(name: str, manifest: dict, arrays: tuple[np.ndarray, ...]) -> None:
    """Raises ValueError where the manifest of an entry is not as it was written.

    An entry from before there was a sum is compared with what can be computed anew.
    """
    if manifest.get("sha256") is not None:
        unsealed(manifest)
        return
    mean, std = contract.statistics(arrays[0])
    said = [
        manifest["name"],
        manifest["classes"],
        [*manifest["mean"]],
        [*manifest["std"]],
        type(manifest["source"]),
    ]
    classes = layouts.ORIGINALS[name].classes or int(arrays[1].max()) + 1
    if said != [name, classes, [*mean], [*std], str]:
        raise ValueError("the manifest does not describe the arrays")


def _dataset(manifest: dict, arrays: tuple[np.ndarray, ...]) -> Dataset:
    fields = {key: manifest[key] for key in ("name", "source", "fingerprint", "classes")}
    arrays_by_name = dict(zip(ARRAYS, arrays, strict=True))
    return Dataset(
        **fields, **arrays_by_name, mean=tuple(manifest["mean"]), std=tuple(manifest["std"])
    )


def _writable_folder(name: str, parents: list[Path]) -> Path:
    """`parent`/family of the first parent where a file can be created."""
    for parent in parents:
        folder = parent / layouts.family(name)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except OSError:
            continue
    raise DataError(f"{name}: a download cannot be written to {' or '.join(map(str, parents))}.")
