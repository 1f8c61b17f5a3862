"""Checkpoints of Hugging Face models: what is read, and what is said of those that do not fit."""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from pieces import T5_SPECIAL, model_file, t5_like

from plasticity_jax import train
from plasticity_jax.datasets import DataError, load, subsample
from plasticity_jax.models import pretrained, resnet18, t5
from plasticity_jax.sweep import device_data
from plasticity_jax.text import vocabulary
from plasticity_jax.text.sentencepieces import CONTROL, Piece
from plasticity_jax.types import Text

X = np.random.default_rng(0).normal(size=(3, 16, 16, 3)).astype(np.float32)
TEXT = Text(jnp.asarray([[5, 9, 17, 1, 0, 0], [3, 3, 4, 8, 2, 1]]), jnp.asarray([[0, 7, 8, 9], [0, 4, 4, 1]]))


@pytest.fixture(scope="module")
def resnet_folder(tmp_path_factory):
    """A small random ResNet-18 as transformers saves it, with statistics that are not at their start."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.ResNetConfig(
        embedding_size=4, hidden_sizes=[4, 8, 16, 32], depths=[2, 2, 2, 2], layer_type="basic", num_labels=5
    )
    net = transformers.ResNetForImageClassification(config)
    net.train()
    for _ in range(3):
        net(torch.randn(8, 3, 16, 16))
    folder = tmp_path_factory.mktemp("resnet")
    net.save_pretrained(folder)
    net.eval()
    with torch.no_grad():
        logits = net(torch.tensor(X.transpose(0, 3, 1, 2))).logits.numpy()
    return str(folder), logits


def network(folder, outputs=5):
    model = resnet18(outputs, "batch", "relu", "torch", base=4, stem="7x7", pretrained=folder)
    drawn = jax.jit(lambda key: model.init(key, jnp.asarray(X), False))(jax.random.key(0))
    drawn = {k: v for k, v in drawn.items() if k != "hidden"}
    return model, drawn, model.load(drawn)


@pytest.mark.oracle
def test_a_resnet_from_a_checkpoint_gives_its_logits(resnet_folder):
    folder, want = resnet_folder
    model, drawn, loaded = network(folder)
    assert jax.tree.structure(drawn) == jax.tree.structure(loaded)
    got = np.asarray(model.apply(loaded, jnp.asarray(X), False))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * np.abs(want).max())


@pytest.mark.oracle
def test_a_head_for_other_classes_stays_as_drawn(resnet_folder):
    _, drawn, loaded = network(resnet_folder[0], outputs=7)
    np.testing.assert_array_equal(loaded["params"]["head"]["kernel"], drawn["params"]["head"]["kernel"])
    assert (np.asarray(loaded["params"]["stem"]["kernel"]) != drawn["params"]["stem"]["kernel"]).any()


@pytest.mark.oracle
def test_sizes_that_do_not_fit_are_told(resnet_folder):
    with pytest.raises(
        ValueError, match=r"hidden_sizes \[4, 8, 16, 32\], but the model asked for has \[8, 16, 32, 64\]"
    ):
        resnet18(5, "batch", "relu", "torch", base=8, stem="7x7", pretrained=resnet_folder[0])
    with pytest.raises(ValueError, match=r"stem of a pretrained network is '3x3': allowed are '7x7'"):
        resnet18(5, "batch", "relu", "torch", base=4, pretrained=resnet_folder[0])


@pytest.fixture(scope="module")
def t5_folder(tmp_path_factory):
    """A small random T5 of two blocks a side as transformers saves it, and its logits when cut to one block."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=128, d_model=16, num_heads=2, d_kv=4, d_ff=24, num_layers=2, num_decoder_layers=2, dropout_rate=0.0,
        decoder_start_token_id=0, use_cache=False,
    )  # fmt: skip
    net = transformers.T5ForConditionalGeneration(config).eval()
    folder = tmp_path_factory.mktemp("t5")
    net.save_pretrained(folder)
    net.encoder.block, net.decoder.block = net.encoder.block[:1], net.decoder.block[:1]
    with torch.no_grad():
        source, inputs = (torch.tensor(np.asarray(ids)) for ids in TEXT)
        logits = net(input_ids=source, attention_mask=source != 0, decoder_input_ids=inputs).logits.numpy()
    return str(folder), logits


T5_IDS = {"padding": 0, "end": 1, "unknown": 2}


def t5_network(folder, outputs=30, **changes):
    sizes = {"heads": 2, "head_width": 4, "feed_forward": 24} | changes
    return t5(outputs, sizes.pop("width", 16), sizes.pop("depth", 1), "relu", pretrained=folder, **sizes)


@pytest.mark.oracle
def test_the_first_blocks_of_a_t5_give_its_logits(t5_folder):
    folder, want = t5_folder
    # as many ids as there are rows, and fewer: the first ones
    for outputs in (128, vocabulary.Size(127, T5_IDS), vocabulary.Size(28, T5_IDS)):
        model = t5_network(folder, outputs)
        drawn = jax.jit(lambda key, model=model: model.init(key, TEXT))(jax.random.key(0))
        loaded = model.load({"params": drawn["params"]})
        assert jax.tree.structure(loaded["params"]) == jax.tree.structure(drawn["params"])
        got = np.asarray(model.apply(loaded, TEXT))
        np.testing.assert_allclose(got, want[..., :outputs], rtol=1e-5, atol=1e-5 * np.abs(want).max())


@pytest.mark.oracle
def test_a_t5_that_does_not_fit_is_told(t5_folder, tmp_path):
    folder, _ = t5_folder
    for changes, told in (
        ({"width": 32}, "d_model 16, but the model asked for has 32"),
        ({"heads": 4}, "num_heads 2, but the model asked for has 4"),
        ({"depth": 3}, "num_layers 2, but the model asked for needs 3"),
    ):
        with pytest.raises(ValueError, match=told):
            t5_network(folder, 128, **changes)
    for outputs in (300, 127, 30):  # of characters fewer ids would be those of another vocabulary
        with pytest.raises(
            ValueError, match=f"128 ids, but that of the run has {outputs}: .* of {outputs} ids, or a run"
        ):
            t5_network(folder, outputs)
    from safetensors.numpy import load_file, save_file

    tensors = load_file(pathlib.Path(folder) / "model.safetensors")
    theirs = tensors["shared.weight"] = tensors["shared.weight"][:30].copy()  # one trained on characters
    save_file(tensors, tmp_path / "model.safetensors")
    config = json.loads((pathlib.Path(folder) / "config.json").read_text()) | {"vocab_size": 30}
    (tmp_path / "config.json").write_text(json.dumps(config))
    options = {"t5.heads": 2, "t5.head_width": 4, "t5.feed_forward": 24, "t5.pretrained": str(tmp_path)}
    spec = {"dataset": "generated", "environment": "bigram_cipher", "transition": "sampling", "model": "t5"}
    run = train.make_run(tiny.spec(**spec, width=16, options=options))
    state = run.init({}, device_data(subsample(load("generated"), 32, 8)))
    np.testing.assert_array_equal(state.params["shared"]["embedding"], theirs)


def test_folders_that_are_no_checkpoint_are_told(tmp_path):
    from safetensors.numpy import save_file

    folder = str(tmp_path)
    with pytest.raises(DataError, match=r"is not a Hugging Face checkpoint: config.json: No such file or directory"):
        pretrained.check(folder, "t5", {})
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(DataError, match=r"config.json: not the configuration of a model"):
        pretrained.check(folder, "t5", {})
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "num_layers": 1, "d_model": 4}))
    with pytest.raises(DataError, match=r"holds a model of type 'bert', expected 't5'"):
        pretrained.check(folder, "t5", {})
    with pytest.raises(DataError, match=r"has no model.safetensors"):
        pretrained.check(folder, "bert", {})
    (tmp_path / "model.safetensors").write_bytes(b"\x00" * 7)
    assert pretrained.check(folder, "bert", {"d_model": 4}, {"num_layers": 1})["d_model"] == 4
    with pytest.raises(ValueError, match=r"d_model 4, but the model asked for has 8"):
        pretrained.check(folder, "bert", {"d_model": 8})
    with pytest.raises(ValueError, match=r"num_layers 1, but the model asked for needs 2"):
        pretrained.check(folder, "bert", {}, {"num_layers": 2})
    with pytest.raises(DataError, match=r"cannot be read as safetensors .*: expected the whole file of a model\."):
        pretrained.read(folder)
    save_file({"w": np.float16([1, np.nan])}, tmp_path / "model.safetensors")
    with pytest.raises(DataError, match=r"has values in w that are not finite"):
        pretrained.read(folder)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "num_layers": "six", "vocab_size": "30"}))
    with pytest.raises(DataError, match=r"has num_layers 'six' in config.json, expected one of type int\."):
        pretrained.check(folder, "bert", {}, {"num_layers": 2})
    with pytest.raises(DataError, match=r"has no d_ff in config.json, expected a whole number\."):
        pretrained.check(folder, "bert", {}, sizes=["d_ff"])
    with pytest.raises(DataError, match=r"has vocab_size '30' in config.json, expected one of type int\."):
        pretrained.check(folder, "bert", {}, sizes=["vocab_size"])


@pytest.mark.parametrize(("key", "value"), [("relative_attention_max_distance", 20), ("layer_norm_epsilon", 0.1)])
def test_a_t5_that_computes_otherwise_is_told(tmp_path, key, value):
    sizes = {"d_model": 16, "num_heads": 2, "d_kv": 4, "d_ff": 24, "num_layers": 1, "vocab_size": 128}
    fine = {"relative_attention_max_distance": 128, "layer_norm_epsilon": 1e-6, "relative_attention_num_buckets": 32}
    make = functools.partial(t5, 128, 16, 1, "relu", heads=2, head_width=4, feed_forward=24, pretrained=str(tmp_path))
    (tmp_path / "model.safetensors").touch()
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5", **sizes, **fine}))
    make()
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5", **sizes, **fine, key: value}))
    with pytest.raises(ValueError, match=f"has {key} {value}, but the model asked for has {fine[key]}"):
        make()


def config_of(folder, rows):
    """Writes the configuration of a T5 with `rows` embeddings, and an empty file for the weights."""
    sizes = {"d_model": 16, "num_heads": 2, "d_kv": 4, "d_ff": 24, "num_layers": 1, "vocab_size": rows}
    (folder / "config.json").write_text(json.dumps({"model_type": "t5", **sizes}))
    (folder / "model.safetensors").touch()


def run_of(vocabulary_file, folder):
    """The Spec of a run with a SentencePiece file, or characters, that starts from a checkpoint."""
    options = {"t5.heads": 2, "t5.head_width": 4, "t5.feed_forward": 24, "t5.pretrained": str(folder)}
    options["bigram_cipher.vocabulary"] = str(vocabulary_file)
    named = {"dataset": "generated", "environment": "bigram_cipher", "transition": "sampling", "model": "t5"}
    return tiny.spec(**named, width=16, options=options)


@pytest.mark.parametrize(
    ("pieces", "rows"),
    [
        (32_000, 32_128),  # T5: its extra ids are not in the file
        (32_000, 32_100),
        (32_000, 32_000),
        (32_100, 32_128),  # T5's file with the extra ids in it
        (250_100, 250_112),  # mT5
        (60, 128),
        (60, 160),
        (60, 256),
    ],
)
def test_rows_of_a_t5_are_its_pieces_and_extra_ids_filled_up(tmp_path, pieces, rows):
    config_of(tmp_path, rows)
    assert t5_network(str(tmp_path), vocabulary.Size(pieces, T5_IDS)).outputs == pieces
    for other in (rows - 1, rows + 1, rows + 256):
        config_of(tmp_path, other)
        with pytest.raises(ValueError, match=rf"of {other} ids, but that of the run has {pieces}: allowed .* {rows} "):
            t5_network(str(tmp_path), vocabulary.Size(pieces, T5_IDS))


def test_a_t5_runs_with_its_sentencepiece_file(tmp_path):
    """From the file to the first state: 60 pieces, of which a checkpoint of 256 rows knows the first."""
    from safetensors.numpy import save_file

    file = model_file(tmp_path / "spiece.model", t5_like(60))
    config_of(tmp_path, 256)
    model = t5_network(str(tmp_path), vocabulary.sentencepieces(file).size)
    drawn = jax.eval_shape(model.init, jax.random.key(0), TEXT)
    tensors = {}
    for path, name in pretrained.t5_names(1).items():
        shape = functools.reduce(lambda tree, key: tree[key], path, drawn).shape
        tensors[name] = np.random.default_rng(len(tensors)).normal(size=shape[::-1] if path[-1] == "kernel" else shape)
    tensors["shared.weight"] = np.random.default_rng(1).normal(size=(256, 16)).astype(np.float32)
    save_file(tensors, tmp_path / "model.safetensors")
    state = train.make_run(run_of(file, tmp_path)).init({}, device_data(subsample(load("generated"), 32, 8)))
    np.testing.assert_array_equal(state.params["shared"]["embedding"], tensors["shared.weight"][:60])


@pytest.mark.parametrize(
    ("special", "found"),
    [
        ((*T5_SPECIAL[:2], Piece("<s>", 0, CONTROL), T5_SPECIAL[2]), "padding 0, end 1, <s> 2, unknown 3"),
        ((*T5_SPECIAL, Piece("<s>", 0, CONTROL)), "padding 0, end 1, unknown 2, <s> 3"),
        ((T5_SPECIAL[1], T5_SPECIAL[0], T5_SPECIAL[2]), "padding 1, end 0, unknown 2"),
        (T5_SPECIAL[:2], "padding 0, end 1"),
    ],
    ids=["start before unknown", "start behind", "end first", "no unknown"],
)
def test_a_sentencepiece_file_with_other_special_ids_is_refused(tmp_path, special, found):
    file = model_file(tmp_path / "spiece.model", t5_like(61, special))
    config_of(tmp_path, 256)
    sentence = (
        f"{tmp_path} is a T5, whose ids that are no text are padding 0, end 1, unknown 2, but those of the run's "
        f"SentencePiece model are {found}: allowed is the SentencePiece model that the checkpoint was trained with."
    )
    with pytest.raises(ValueError) as told:
        run_of(file, tmp_path)
    assert str(told.value) == sentence


def test_characters_take_a_checkpoint_of_as_many_ids_only(tmp_path):
    config_of(tmp_path, 30)
    run_of("characters", tmp_path)
    for rows in (31, 128, 130, 32_128):
        config_of(tmp_path, rows)
        with pytest.raises(
            ValueError, match=f"of {rows} ids, but that of the run has 30: allowed are .* of 30 ids, or"
        ):
            run_of("characters", tmp_path)


def test_tensors_that_are_missing_or_of_another_shape_are_told():
    tree = {"params": {"layer": {"kernel": np.zeros((2, 3), np.float32)}}}
    names = {("params", "layer", "kernel"): "layer.weight"}
    with pytest.raises(DataError, match=r"no tensor 'layer.weight', expected one of shape \[2, 3\]"):
        pretrained.filled("here", {}, tree, names)
    with pytest.raises(DataError, match=r"of shape \[3, 3\], expected \[2, 3\]"):
        pretrained.filled("here", {"layer.weight": np.zeros((3, 3))}, tree, names)
    tensor = np.arange(6, dtype=np.float32).reshape(3, 2)
    got = pretrained.filled("here", {"layer.weight": tensor}, tree, names)
    np.testing.assert_array_equal(got["params"]["layer"]["kernel"], tensor.T)
