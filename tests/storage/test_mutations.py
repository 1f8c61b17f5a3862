"""Every small file that is read, damaged: a promised fault in one sentence or the right result (see
`mutations`).
"""

import gzip
import json
import shutil
import zipfile

import numpy as np
import pandas as pd
import pytest
from helpers import mutations, tiny
from helpers.archive_files import WNIDS, cifar_arrays, write_cifar, write_tiny
from helpers.data_files import tiny_arrays, unpacked, write_originals
from helpers.pieces import model_file, t5_like
from helpers.states import assert_same, like, small

from experiments import selection
from plasticity_jax import datasets, lanes
from plasticity_jax.datasets import cache, cifar, contract, files, idx, layouts, tiny_imagenet
from plasticity_jax.execution import program as program_
from plasticity_jax.execution import slices
from plasticity_jax.reporting import collect
from plasticity_jax.storage import table as table_
from plasticity_jax.storage import workdir
from plasticity_jax.storage.checkpoints import Checkpoints
from plasticity_jax.text import sentencepieces
from plasticity_jax.text.sentencepieces import NORMAL

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
        shown = (
            {"images": found.images, "labels": found.labels}[name[6:]] if "train" in name else None
        )
        shown = (
            {"images": found.test_images, "labels": found.test_labels}[name[5:]]
            if shown is None
            else shown
        )
        return np.array_equal(shown.reshape(-1), read_by_numpy(arrays, name).reshape(-1))

    refused, read = mutations.check(
        arrays / f"{name}.npy",
        number,
        lambda: datasets.load(f"arrays:{arrays}"),
        right,
        (datasets.DataError,),
        "_",
    )
    assert refused > number // 2
    assert read > 0


@pytest.fixture(scope="module")
def protobuf():
    """Google's own reader of a SentencePiece model, which knows the fields that matter."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="pieces.proto", package="test", syntax="proto2")
    kind = descriptor_pb2.FieldDescriptorProto
    fields = {
        "Piece": [
            ("text", 1, kind.TYPE_STRING),
            ("score", 2, kind.TYPE_FLOAT),
            ("type", 3, kind.TYPE_INT32),
        ],
        "Trainer": [
            ("model_type", 3, kind.TYPE_INT32),
            ("end", 47, kind.TYPE_STRING),
            ("pad", 48, kind.TYPE_STRING),
        ],
        "Model": [("pieces", 1, kind.TYPE_MESSAGE), ("trainer", 2, kind.TYPE_MESSAGE)],
    }
    for name, members in fields.items():
        described = file.message_type.add(name=name)
        for member, number, of in members:
            field = described.field.add(
                name=member, number=number, type=of, label=kind.LABEL_OPTIONAL
            )
            if of == kind.TYPE_MESSAGE:
                field.type_name = {"pieces": ".test.Piece", "trainer": ".test.Trainer"}[member]
            if member == "pieces":
                field.label = kind.LABEL_REPEATED
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("test.Model"))


@pytest.mark.parametrize("number", mutations.NUMBERS)
def test_a_sentencepiece_model(tmp_path, number, protobuf):
    file = model_file(tmp_path / "spiece.model", t5_like(60), trainer=[(4, 55), (47, "</s>")])

    def right(found):
        theirs = protobuf.FromString(file.read_bytes())
        pieces = [
            (p.text, p.score, p.type if p.HasField("type") else NORMAL) for p in theirs.pieces
        ]
        assert theirs.trainer.model_type in (0, 1)
        ends = [theirs.trainer.pad or "<pad>", theirs.trainer.end or "</s>"]
        return [*found.pieces] == pieces and ends == [pieces[found.pad][0], pieces[found.end][0]]

    assert right(sentencepieces.read(file))
    refused, read = mutations.check(
        file, number, lambda: sentencepieces.read(file), right, (datasets.DataError, ValueError)
    )
    assert refused > number // 4
    assert read > 0


@pytest.fixture
def entry(tmp_path, monkeypatch, cache_root):
    """The cache entry of a small MNIST, a copy of it, and what it holds."""
    folder = write_originals("mnist", tmp_path / "data", tiny_arrays(), monkeypatch)
    data = datasets.load("mnist", str(folder))
    (place,) = (cache_root / "arrays").iterdir()
    shutil.copytree(place, tmp_path / "entry")
    return place, tmp_path / "entry", data


@pytest.mark.parametrize("number", mutations.NUMBERS)
@pytest.mark.parametrize("name", ["manifest.json", "images.npy", "labels.npy", "test_labels.npy"])
def test_an_entry_of_the_cache(entry, name, number):
    """It is the data that were put there, or none: then they are prepared anew."""
    place, copy, data = entry
    sums = files.published_sums("mnist")[0]
    fingerprint, refused = data.fingerprint, []

    def read():
        shutil.copytree(copy, place, dirs_exist_ok=True)
        found = cache._opened("mnist", sums)
        refused.append(found is None)
        return found

    def right(found):
        if found is None:
            return not place.exists()
        described = (
            found.name,
            found.classes,
            found.mean,
            found.std,
            found.source,
            found.fingerprint,
        )
        expected = (data.name, data.classes, data.mean, data.std, data.source, fingerprint)
        return (
            described
            == expected
            == (*expected[:-1], contract.fingerprint([getattr(found, a) for a in cache.ARRAYS]))
        )

    mutations.check(copy / name, number, read, right, ())
    assert sum(refused) > number // 2


def idx_of(content):
    return np.frombuffer(content, np.uint8, offset=4 + 4 * content[3])


@pytest.mark.parametrize("number", mutations.NUMBERS)
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("which", [0, 1])
def test_idx_files_of_which_no_sum_is_published(tmp_path, monkeypatch, number, packed, which):
    """The bytes of a plain file have no checksum: right is what they say; those of a packed one
    have.
    """
    name = "emnist/balanced"
    folder = write_originals(name, tmp_path, tiny_arrays(classes=47), monkeypatch, sums=False)
    if not packed:
        unpacked(folder)
    file = folder / (
        layouts.ORIGINALS[name].files[which]
        if packed
        else layouts.ORIGINALS[name].files[which][:-3]
    )
    original = gzip.decompress(file.read_bytes()) if packed else b""

    def read():
        originals = files.locate(name, [folder])
        return idx.images_and_labels(name, originals, "train", 0)

    def right(found):
        return np.array_equal(found[which].reshape(-1), idx_of(original or file.read_bytes()))

    refused, _ = mutations.check(
        file, number, read, right, (datasets.DataError,), file.name[:-3] if packed else ""
    )
    assert refused > number // 2


@pytest.mark.parametrize("number", mutations.NUMBERS)
@pytest.mark.parametrize("sums", [True, False])
def test_an_archive_of_cifar(tmp_path, monkeypatch, number, sums):
    file = write_cifar("cifar10", tmp_path, monkeypatch)
    if not sums:
        layouts.SHA256["cifar10"].clear()
    images, labels = cifar_arrays(10)

    def read():
        return cifar.images_and_labels("cifar10", files.locate("cifar10", [tmp_path]))

    def right(found):
        parts = [found[part][kind] for kind in (0, 1) for part in ("train", "test")]
        return np.array_equal(np.concatenate(parts[:2]), images) and np.array_equal(
            np.concatenate(parts[2:]), labels
        )

    refused, _ = mutations.check(file, number, read, right, (datasets.DataError,), file.name)
    assert refused > number // 2


@pytest.mark.parametrize("number", mutations.NUMBERS)
@pytest.mark.parametrize("damaged", ["the archive", "a picture", "annotations"])
def test_an_archive_of_tiny_imagenet(tmp_path, monkeypatch, number, damaged):
    """The archive has checksums of its own; its files, unpacked, have none, and then right is what
    they say.
    """
    name, path = "tiny_imagenet", write_tiny(tmp_path, monkeypatch)
    layouts.SHA256[name].clear()
    if damaged != "the archive":
        with zipfile.ZipFile(path) as archive:
            archive.extractall(tmp_path)
        path.unlink()
        path = tmp_path / "tiny-imagenet-200"
    annotations, picture = "val/val_annotations.txt", "train/n01/images/n01_3.JPEG"
    file = {"the archive": path, "a picture": path / picture, "annotations": path / annotations}[
        damaged
    ]

    def read():
        (folder,) = files.locate(name, [tmp_path]).paths.values()
        rows = [row for part in tiny_imagenet.rows(name, folder).values() for row in part]
        with files.reading(name, folder), files.Members(folder) as members:
            return rows, {m: tiny_imagenet.pixels(name, m, members.read(m)) for m, _ in rows}

    rows, pixels = read()
    train = sum(member.startswith("train/") for member, _ in rows)

    def right(found):
        others = {
            member
            for member, image in found[1].items()
            if not np.array_equal(image, pixels[member])
        }
        if damaged != "annotations":
            return (
                found[0] == rows and others <= {picture} and (damaged == "a picture" or not others)
            )
        lines = [line.split("\t")[:2] for line in file.read_text(errors="replace").splitlines()]
        said = [(f"val/images/{image}", WNIDS.index(wnid)) for image, wnid in lines]
        return found[0] == rows[:train] + said and not others

    named = picture if damaged == "a picture" else "tiny-imagenet-200"
    mutations.check(file, number, read, right, (datasets.DataError,), named)


CHECKPOINT = [
    "_CHECKPOINT_METADATA",
    "data/_METADATA",
    "data/data/.zarray",
    "data/data/0",
    "manifest/metadata",
    "manifest/commit_success.txt",
]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with checkpoints of steps 1 and 2."""
    folder = tmp_path_factory.mktemp("saved")
    checkpoints = Checkpoints(folder)
    for step in (1, 2):
        checkpoints.save(step, small(step))
    checkpoints.close()
    return folder


@pytest.mark.parametrize("number", mutations.NUMBERS)
@pytest.mark.parametrize("name", CHECKPOINT)
def test_a_checkpoint(saved, tmp_path, number, name):
    """The newest that verifies: of the step that was damaged either all or nothing is taken."""
    shutil.copytree(saved, tmp_path / "saved")
    place, steps = tmp_path / "copy", []
    checkpoints = Checkpoints(place)

    def read():
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(tmp_path / "saved", place)
        step, tree = checkpoints.restore(like())
        steps.append(step)
        return step, tree

    def right(found):
        step, tree = found
        assert_same(tree, small(step))
        return sorted(file.name for file in place.iterdir()) == [
            str(s) for s in (1, 2) if s <= step
        ]

    each = number // len(CHECKPOINT)
    mutations.check(tmp_path / "saved" / "2" / name, each, read, right, ())
    checkpoints.close()
    assert set(steps) <= {1, 2}


@pytest.mark.parametrize("number", mutations.NUMBERS)
def test_a_table_of_results(tmp_path, number):
    random, file = np.random.default_rng(0), tmp_path / "results.parquet"
    columns = {
        "lane": np.repeat(np.arange(4), 5),
        "task": np.tile(np.arange(5), 4),
        "seed": 0,
        "finite": True,
    }
    half = np.where(np.arange(20) % 3, -np.float32("nan"), 1.5).astype(np.float32)
    table = pd.DataFrame(
        {**columns, "method": ["none", None] * 10, "loss": random.normal(size=20), "a/b": half}
    )
    about = {"scores": {"loss": {"label": "loss", "better": "lower", "share": False}}}
    table.attrs["metrics"] = about
    table_.write(table, file)
    pd.testing.assert_frame_equal(table_.read(file), table)

    def right(found):
        return table.equals(found) and found.attrs == {"metrics": about}

    refused, read = mutations.check(file, number, lambda: table_.read(file), right, (ValueError,))
    assert refused > number // 2
    assert read > 0


def loaded(file):
    return json.loads(file.read_bytes())


@pytest.mark.parametrize("number", mutations.NUMBERS)
def test_the_record_of_a_workdir(tmp_path, number):
    """The lanes are those that are written there, or the folder is refused."""
    program = program_.plan([(tiny.spec(options={}), [{"seed": 0}, {"seed": 1}])], 64)
    settings = {
        "programs": [one.record() for one in slices.in_order(program)],
        "data": {"name": "x", "fingerprint": "0" * 64, "classes": 4},
    }
    workdir.write_config(tmp_path, settings, {"version": "1", "started": "now"})

    def right(found):
        there = loaded(tmp_path / "config.json")["settings"]
        programs = json.loads(json.dumps([one.record() for one in found.slices]))
        return (programs, found.data) == (there["programs"], there["data"])

    refused, read = mutations.check(
        tmp_path / "config.json",
        number,
        lambda: slices.read(tmp_path),
        right,
        (workdir.WorkdirError,),
        str(tmp_path),
    )
    # (but for spaces between values, the checksum notices whatever changes)
    assert refused + read == number
    assert refused > 0.9 * number


@pytest.mark.parametrize("number", mutations.NUMBERS)
def test_what_was_selected(tmp_path, number):
    """Settings have no checksum, as people may write their own: right is what Python reads."""
    file, arms = (
        tmp_path / "selected.json",
        {"none": {}, "l2": {"l2.strength": "1e-3", "learning_rate": "1e-4"}},
    )
    selection.write(file, "random_mnist", "paper", [1000, 1001], arms)

    def read():
        return selection.read(str(file), "random_mnist", "paper", {"seeds": 3}, ["none", "l2"])

    def right(found):
        there = loaded(file)["random_mnist"]
        assert not {0, 1, 2} & set(there["seeds"])
        numbers = {
            arm: {name: float(text) for name, text in settings.items()}
            for arm, settings in there["arms"].items()
        }
        return found == numbers and there["scale"] == "paper"

    refused, read_ = mutations.check(file, number, read, right, (ValueError,))
    assert refused > number // 4
    assert read_ > 0
    mutations.check(
        file,
        number,
        lambda: selection.others(file),
        lambda found: found == json.loads(file.read_bytes()),
        (ValueError,),
    )


@pytest.mark.parametrize("number", mutations.NUMBERS)
def test_the_record_of_a_workdir_whose_lanes_are_taken(tmp_path, number):
    """A lane is the one that was asked for, with all of its rows, or not there."""
    spec = tiny.spec()
    given = [lanes.complete(spec, {"seed": seed}) for seed in (0, 1)]
    settings = {
        "programs": [{"spec": spec.record(), "lanes": given}],
        "data": {"fingerprint": "0" * 64},
    }
    workdir.write_config(tmp_path, settings, {"versions": {"jax": "0"}})
    rows = {
        "lane": [0, 0, 1, 1],
        "task": [0, 1] * 2,
        "seed": [0, 0, 1, 1],
        "finite": True,
        "loss": [0.1, 0.2, 0.3, 0.4],
    }
    table_.write(pd.DataFrame(rows), tmp_path / "results.parquet")

    def read():
        return collect.collect([tmp_path], [(spec, given)])

    expected = read()
    refused, read_ = mutations.check(
        tmp_path / "config.json",
        number,
        read,
        expected.equals,
        (workdir.WorkdirError,),
        str(tmp_path),
    )
    assert refused > number // 2
    assert read_ > 0
