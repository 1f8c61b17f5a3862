"""Files that somebody made to do harm: no code of theirs is run, nothing is written outside the
folders, memory is bounded, and there is one sentence.
"""

import contextlib
import gzip
import io
import json
import os
import pickle
import resource
import shutil
import struct
import tarfile
import zipfile

import numpy as np
import pandas as pd
import pytest
from helpers import mutations, tiny
from helpers.archive_files import NUMBERS, cifar_arrays, cifar_members, publish, tiny_members
from helpers.checkpoint_files import loaded, t5_folder, t5_network
from helpers.data_files import tiny_arrays, write_originals

from plasticity_jax import datasets
from plasticity_jax.cli import commands
from plasticity_jax.datasets import files, layouts
from plasticity_jax.execution import sweep
from plasticity_jax.execution.engines import description, worker
from plasticity_jax.storage import checkpoints, small_files, workdir
from plasticity_jax.storage import table as table_
from plasticity_jax.storage.checkpoints import Checkpoints

MIB = 1 << 20


class Trap:
    """An object whose pickle makes a file where it is read."""

    def __init__(self, path):
        self._path = str(path)

    def __reduce__(self):
        return os.mkdir, (self._path,)


@pytest.fixture
def place(tmp_path):
    """A folder to work in; what is around it must stay as it was."""
    inside = tmp_path / "around" / "inside"
    inside.mkdir(parents=True)
    (tmp_path / "around" / "victim").mkdir()
    (tmp_path / "around" / "victim" / "file").write_text("mine")
    yield inside
    assert sorted(path.name for path in (tmp_path / "around").iterdir()) == ["inside", "victim"]
    assert [path.name for path in (tmp_path / "around" / "victim").iterdir()] == ["file"]
    assert (tmp_path / "around" / "victim" / "file").read_text() == "mine"
    assert not (tmp_path / "trap").exists()


def refused(error, function, *arguments):
    """The one sentence with which a call refuses, within bounds of time and memory."""
    with pytest.raises(error) as raised, mutations.bounded():
        function(*arguments)
    said = str(raised.value)
    assert "\n" not in said
    assert said.endswith(".")
    assert len(said) < 2500
    return said


def test_the_trap_works(tmp_path):
    pickle.loads(pickle.dumps(Trap(tmp_path / "trap")))
    assert (tmp_path / "trap").exists()


# Archives of data


def links(archive, kind):
    """Members beside those that are read, that would leave the folder if they were unpacked."""
    for name in ("../victim/file", "/tmp/plasticity_jax_victim", "cifar-binary/../../victim/file"):
        info = tarfile.TarInfo(name)
        info.size = 4
        archive.addfile(info, io.BytesIO(b"evil"))
    info = tarfile.TarInfo("cifar-binary/link")
    info.type, info.linkname = kind, "../victim"
    archive.addfile(info)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE])
def test_a_tar_with_ways_out(kind, place, monkeypatch, cache_root):
    members = cifar_members("cifar10", *cifar_arrays(10))
    path = place / layouts.ORIGINALS["cifar10"].files[0]
    for as_link in ("", "data_batch_1.bin"):
        with tarfile.open(path, "w:gz") as archive:
            links(archive, kind)
            for name, content in members.items():
                info = tarfile.TarInfo(f"cifar-binary/{name}")
                info.size = len(content)
                if name == as_link:
                    info.type, info.linkname, info.size = kind, "../victim/file", 0
                archive.addfile(info, io.BytesIO(content))
        publish("cifar10", path, monkeypatch, **NUMBERS)
        if as_link:
            said = refused(datasets.DataError, datasets.load, "cifar10", str(place))
            assert said.endswith("has no member data_batch_1.bin.")
        else:
            assert len(datasets.load("cifar10", str(place)).images) == NUMBERS["train"]
    assert not os.path.exists("/tmp/plasticity_jax_victim")


def test_a_zip_with_ways_out(place, monkeypatch, cache_root):
    path = place / "tiny-imagenet-200.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("../victim/file", "/tmp/plasticity_jax_victim", "..\\victim\\file"):
            archive.writestr(name, "evil")
        link = zipfile.ZipInfo("tiny-imagenet-200/link")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "../victim")
        for name, content in tiny_members().items():
            archive.writestr(f"tiny-imagenet-200/{name}", content)
    publish("tiny_imagenet", path, monkeypatch, classes=3, train=36, test=6)
    assert len(datasets.load("tiny_imagenet", str(place)).images) == 36
    assert not os.path.exists("/tmp/plasticity_jax_victim")


BOMB = 64 * MIB


def bomb_tar(path):
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        info = tarfile.TarInfo("cifar-binary/data_batch_1.bin")
        info.size = BOMB
        archive.addfile(info, Zeros(BOMB))


class Zeros(io.RawIOBase):
    """A file of so many zeros."""

    def __init__(self, size):
        self._left = size

    def readable(self):
        return True

    def read(self, size=-1):
        count = min(self._left, size if size >= 0 else self._left)
        self._left -= count
        return bytes(count)


@pytest.mark.long
def test_bombs_are_read_no_further_than_what_a_file_may_be(place, monkeypatch, cache_root):
    """Of 64 MiB of zeros, where 2 MiB are the most that is read."""
    monkeypatch.setattr(small_files, "LARGEST", 2 * MIB)
    path = place / layouts.ORIGINALS["cifar10"].files[0]
    bomb_tar(path)
    assert path.stat().st_size < 2 * MIB
    publish("cifar10", path, monkeypatch, **NUMBERS)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    said = refused(datasets.DataError, datasets.load, "cifar10", str(place))
    assert "it holds more than 2,097,152 bytes" in said
    packed = place / "bomb.gz"
    with gzip.open(packed, "wb", compresslevel=1) as file:
        for _ in range(BOMB // MIB):
            file.write(bytes(MIB))
    with gzip.open(packed) as file, pytest.raises(ValueError, match="it holds more than"):
        files.limited(file)
    bomb = place / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        member = archive.open("x", "w")
        for _ in range(BOMB // MIB):
            member.write(bytes(MIB))
        member.close()
    with files.Members(bomb) as archive, pytest.raises(ValueError, match="it holds more than"):
        archive.read("x")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < 30, f"{grown:.0f} MiB"


# Arrays


def test_arrays_with_objects(place, tmp_path):
    """A user's own, and those that a slice left."""
    name = tiny.arrays(place / "data")
    trap = np.array([Trap(tmp_path / "trap")] * 3, object)
    for part in ("train_images", "train_labels", "test_images", "test_labels"):
        file = place / "data" / f"{part}.npy"
        content = file.read_bytes()
        np.save(file, trap, allow_pickle=True)
        said = refused(datasets.DataError, datasets.load, name)
        assert "it holds pickled Python objects, which are never read" in said
        assert str(file) in said
        file.write_bytes(content)


def test_arrays_with_objects_in_a_cache(place, tmp_path, monkeypatch, cache_root):
    """They are made anew, with a warning."""
    folder = write_originals("mnist", place / "data", tiny_arrays(), monkeypatch)
    before = datasets.load("mnist", str(folder))
    (entry,) = (cache_root / "arrays").iterdir()
    np.save(entry / "images.npy", np.array([Trap(tmp_path / "trap")], object), allow_pickle=True)
    after = datasets.load("mnist", str(folder))
    assert after.fingerprint == before.fingerprint


# Weights


def safetensors(header, length=None):
    return struct.pack("<Q", len(header) if length is None else length) + header


@pytest.mark.parametrize(
    "content",
    [
        safetensors(b"{}", 2**63),
        safetensors(b"{}", 2**64 - 1),
        safetensors(b"{}", 10**8),
        safetensors(b"[" * 10**6),
        safetensors(b'{"a":' * 10**5 + b"1" + b"}" * 10**5),
        safetensors(
            json.dumps(
                {"a": {"dtype": "F32", "shape": [2**62], "data_offsets": [0, 2**64]}}
            ).encode()
        ),
        safetensors(
            json.dumps({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 4]}}).encode()
        ),
        safetensors(b" " * (40 * MIB) + b"{}"),
        pickle.dumps(Trap("/nowhere")),
    ],
    ids=["2^63", "2^64", "10^8", "lists", "objects", "offsets", "shape", "spaces", "pickle"],
)
def test_safetensors_with_a_header_that_asks_for_much(content, place):
    folder = t5_folder(place)
    (folder / "model.safetensors").write_bytes(content)
    said = refused(datasets.DataError, loaded, t5_network, folder)
    assert str(folder) in said


def test_a_sparse_file_of_weights(place):
    """Terabytes that no disk has."""
    folder = t5_folder(place)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", 1 << 40))
        file.truncate(1 << 42)
    assert str(folder) in refused(datasets.DataError, loaded, t5_network, folder)


# Folders of runs


@pytest.fixture(scope="module")
def finished(tmp_path_factory, compiled_quickly):
    """A workdir of two tasks, and its Spec."""
    root = tmp_path_factory.mktemp("finished")
    spec = tiny.spec(dataset=tiny.arrays(root / "data"))
    sweep.run(spec, [{"seed": 0}], root / "run")
    return root / "run", spec


@pytest.fixture
def run(finished, place):
    shutil.copytree(finished[0], place / "run")
    return place / "run"


def rewritten(folder, change):
    """Changes settings of a run as one who knows how its checksum is made."""
    settings, record = workdir.read_settings(folder), workdir.read_record(folder)
    change(settings, record)
    workdir.write_config(folder, settings, record)


OUT = ["../victim", "../../victim", "/tmp", "..", "aa/../../../victim", "aa\n", ""]


@pytest.mark.long
@pytest.mark.parametrize("name", OUT)
@pytest.mark.parametrize("key", ["folder", "slice"])
def test_a_config_that_names_other_folders(key, name, run, finished):
    rewritten(run, lambda settings, record: settings["programs"][0].update({key: name}))
    for words in (["show", run], ["merge", run, f"--to={run.parent / 'merged'}"]):
        assert given(*words) == 1
    spec = finished[1]
    said = refused(workdir.WorkdirError, sweep.run, spec, [{"seed": 0}, {"seed": 1}], run)
    assert str(run / "config.json") in said


def given(*words):
    with contextlib.redirect_stderr(io.StringIO()) as err:
        code = commands.main(list(map(str, words)))
    lines = [line for line in err.getvalue().splitlines() if not line.startswith("note: ")]
    assert len(lines) == (1 if code else 0), lines
    return code


@pytest.mark.long
def test_a_config_that_names_modules_runs_none_of_them(run, tmp_path):
    module = tmp_path / "module.py"
    module.write_text(f"import os; os.mkdir({str(tmp_path / 'trap')!r})")
    rewritten(run, lambda settings, record: record.update({"imports": {str(module): "0" * 64}}))
    for words in (["show", run], ["status", run], ["report", run], ["cite", run]):
        given(*words)


@pytest.mark.long
@pytest.mark.parametrize(
    "content",
    [b"[" * 10**6, b'{"a":' * 10**6, b'{"a": ' + b"9" * 10**6 + b"}", b"\0" * MIB],
    ids=["lists", "objects", "digits", "zeros"],
)
def test_json_that_asks_for_much(content, run, place):
    (run / "config.json").write_bytes(content)
    assert given("show", run) == 1
    assert given("status", run) == 1
    folder = place / "slice"
    folder.mkdir()
    (folder / description.FILE).write_bytes(content)
    assert str(folder) in refused(workdir.WorkdirError, description.read, folder)
    assert str(folder) in refused(workdir.WorkdirError, worker.run, folder)


@pytest.mark.long
def test_a_table_of_more_rows_than_memory_holds(run, monkeypatch):
    """A column of equal values takes a few bytes however long it is."""
    path = run / "results.parquet"
    pd.DataFrame({"lane": np.zeros(10**6, np.int64)}).to_parquet(path)
    assert path.stat().st_size < 10_000
    monkeypatch.setattr(small_files, "MEMORY", MIB)
    with pytest.raises(ValueError, match=r"it says that it holds 8,000,000 bytes, where this"):
        table_.read(path)
    assert given("show", run) == 1


@pytest.mark.long
@pytest.mark.parametrize("name", ["../../../victim/file", "/tmp/victim", "a/../../../../victim/x"])
def test_a_checkpoint_whose_measurement_leads_out(name, run, finished, place):
    """It would be written into a file of that name."""
    (folder,) = (run / "checkpoints").iterdir()
    kept = Checkpoints(folder)
    leaves = kept.leaves(2)
    leaves[f"['history'][{name!r}]"] = np.zeros((2, 1, 3), np.float32)
    kept.write(2, leaves)
    kept.close()
    (run / "results.parquet").unlink()
    said = refused(workdir.WorkdirError, sweep.run, finished[1], [{"seed": 0}], run)
    assert said.endswith("allowed are names of measurements.")
    assert given("merge", run, f"--to={place / 'merged'}") == 1


@pytest.mark.long
def test_a_checkpoint_that_says_that_it_is_larger_than_memory(run, finished, monkeypatch):
    """Its chunks may be missing, which stand for zeros."""
    (folder,) = (run / "checkpoints").iterdir()
    table = [["['state']['w']", "uint8", [2**50], "0" * 64]]
    for step in (1, 2):
        manifest = {"leaves": table, "sha256": checkpoints._digest([step, table])}
        (folder / str(step) / "manifest" / "metadata").write_text(json.dumps(manifest))
        array = folder / str(step) / "data" / "data" / ".zarray"
        described = json.loads(array.read_text()) | {"shape": [2**50], "chunks": [2**24]}
        array.write_text(json.dumps(described))
    said = refused(workdir.WorkdirError, sweep.run, finished[1], [{"seed": 0}], run)
    assert "it says that it holds 1,125,899,906,842,624 bytes" in said
    assert str(folder) in said


@pytest.mark.long
def test_a_checkpoint_with_objects(run, finished):
    (folder,) = (run / "checkpoints").iterdir()
    for step in (1, 2):
        table = [["['state']['w']", "object", [1], "0" * 64]]
        manifest = {"leaves": table, "sha256": checkpoints._digest([step, table])}
        (folder / str(step) / "manifest" / "metadata").write_text(json.dumps(manifest))
    said = refused(workdir.WorkdirError, sweep.run, finished[1], [{"seed": 0}], run)
    assert str(folder) in said
