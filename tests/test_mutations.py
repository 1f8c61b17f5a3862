"""Every small file that is read, damaged: a promised fault in one sentence or the right result (see `mutations`)."""

import mutations
import numpy as np
import pytest
from pieces import model_file, t5_like

from plasticity_jax import datasets
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
        shown = {"images": found.images, "labels": found.labels}[name[6:]] if "train" in name else None
        shown = {"images": found.test_images, "labels": found.test_labels}[name[5:]] if shown is None else shown
        return np.array_equal(shown.reshape(-1), read_by_numpy(arrays, name).reshape(-1))

    refused, read = mutations.check(
        arrays / f"{name}.npy", number, lambda: datasets.load(f"arrays:{arrays}"), right, (datasets.DataError,), "_"
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
        "Piece": [("text", 1, kind.TYPE_STRING), ("score", 2, kind.TYPE_FLOAT), ("type", 3, kind.TYPE_INT32)],
        "Trainer": [("model_type", 3, kind.TYPE_INT32), ("end", 47, kind.TYPE_STRING), ("pad", 48, kind.TYPE_STRING)],
        "Model": [("pieces", 1, kind.TYPE_MESSAGE), ("trainer", 2, kind.TYPE_MESSAGE)],
    }
    for name, members in fields.items():
        described = file.message_type.add(name=name)
        for member, number, of in members:
            field = described.field.add(name=member, number=number, type=of, label=kind.LABEL_OPTIONAL)
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
        pieces = [(p.text, p.score, p.type if p.HasField("type") else NORMAL) for p in theirs.pieces]
        assert theirs.trainer.model_type in (0, 1)
        ends = [theirs.trainer.pad or "<pad>", theirs.trainer.end or "</s>"]
        return [*found.pieces] == pieces and ends == [pieces[found.pad][0], pieces[found.end][0]]

    assert right(sentencepieces.read(file))
    refused, read = mutations.check(
        file, number, lambda: sentencepieces.read(file), right, (datasets.DataError, ValueError)
    )
    assert refused > number // 4
    assert read > 0
