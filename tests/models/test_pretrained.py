"""Checkpoints of Hugging Face models: what is read, and what is said of those that do not fit."""

import functools
import json
import shutil

import jax
import numpy as np
import pytest
from helpers import tiny
from helpers.checkpoint_files import (
    RESNET_CONFIG,
    TEXT,
    drawn,
    loaded,
    resnet_folder,
    resnet_network,
    resnet_tensors,
    same,
    shards,
    t5_folder,
    t5_network,
    t5_tensors,
    write,
)
from helpers.networks import quickly
from helpers.pieces import T5_SPECIAL, model_file, t5_like
from safetensors.numpy import save_file

import plasticity_jax as pj
from plasticity_jax.datasets import DataError, load, subsample
from plasticity_jax.execution.program import device_data
from plasticity_jax.models.pretrained import reading
from plasticity_jax.text import vocabulary
from plasticity_jax.text.sentencepieces import CONTROL, Piece
from plasticity_jax.training import supervised

T5_IDS = {"padding": 0, "end": 1, "unknown": 2}
CONVOLUTION = "resnet.embedder.embedder.convolution.weight"


def told(error, network, folder, *args, **changes):
    """The one sentence that is raised."""
    with pytest.raises(error) as raised:
        loaded(network, folder, *args, **changes)
    assert type(raised.value) is error
    sentence = str(raised.value)
    assert len(sentence) < 1000
    assert "\n" not in sentence
    return sentence


# What is taken


def test_the_first_blocks_of_a_t5_are_taken(tmp_path):
    whole = drawn(t5_network, 30, depth=3)["params"]
    found = loaded(t5_network, t5_folder(tmp_path))["params"]
    assert same(found, {name: whole[name] for name in found})
    found = loaded(t5_network, tmp_path, depth=2)["params"]
    assert same(found, {name: whole[name] for name in found})


def test_a_resnet_is_taken_with_its_statistics_and_a_head_of_as_many_classes(tmp_path):
    variables = drawn(resnet_network, 5)
    assert same(loaded(resnet_network, resnet_folder(tmp_path)), variables)
    found = loaded(resnet_network, tmp_path, 7)
    assert not found["params"]["head"]["kernel"].any()
    body = {name: part for name, part in variables["params"].items() if name != "head"}
    assert same({name: part for name, part in found["params"].items() if name != "head"}, body)
    assert same(found["batch_stats"], variables["batch_stats"])


def test_a_resnet_that_was_saved_without_a_head_is_taken(tmp_path):
    body = {
        name.removeprefix("resnet."): tensor
        for name, tensor in resnet_tensors().items()
        if name.startswith("resnet.")
    }
    found = loaded(
        resnet_network, write(tmp_path, {**RESNET_CONFIG, "architectures": ["ResNetModel"]}, body)
    )
    assert same(found["params"]["stem"], drawn(resnet_network, 5)["params"]["stem"])
    assert not found["params"]["head"]["kernel"].any()


def test_a_head_of_its_own_is_taken(tmp_path):
    head = np.random.default_rng(5).normal(size=(30, 16)).astype(np.float32)
    for says in ({"tie_word_embeddings": False}, {"scale_decoder_outputs": False}):
        found = loaded(t5_network, t5_folder(tmp_path, says, {"lm_head.weight": head}), head="own")
        np.testing.assert_array_equal(found["params"]["unembedding"]["kernel"], head.T)
        found["params"].pop("unembedding")
        assert same(found, loaded(t5_network, t5_folder(tmp_path / "tied")))


def test_tensors_that_change_nothing_may_be_there(tmp_path):
    """Copies of the embedding, which some versions write, and a table that the first T5s had and
    never used.
    """
    names = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")
    unused = {
        "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight": np.ones(
            (32, 2), np.float32
        )
    }
    shared = dict.fromkeys(names, t5_tensors()["shared.weight"])
    more = t5_folder(tmp_path / "more", tensors=shared | unused)
    assert same(loaded(t5_network, more), loaded(t5_network, t5_folder(tmp_path / "one")))


@pytest.mark.parametrize("dtype", [np.float16, np.float64, "bfloat16"])
def test_other_precisions_become_float32(tmp_path, dtype):
    dtype = jax.numpy.bfloat16 if dtype == "bfloat16" else dtype
    cut = {name: tensor.astype(dtype) for name, tensor in t5_tensors().items()}
    found = loaded(t5_network, t5_folder(tmp_path, tensors=cut))
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype(np.float32)}
    whole = loaded(t5_network, t5_folder(tmp_path / "whole"))
    assert same(found, jax.tree.map(lambda leaf: leaf.astype(dtype).astype(np.float32), whole))


def test_a_key_that_is_absent_has_transformers_own_value(tmp_path):
    usual = {
        "feed_forward_proj",
        "tie_word_embeddings",
        "layer_norm_epsilon",
        "pad_token_id",
        "eos_token_id",
    }
    usual |= {
        "relative_attention_num_buckets",
        "relative_attention_max_distance",
        "decoder_start_token_id",
    }
    want = loaded(t5_network, t5_folder(tmp_path / "whole"))
    assert same(loaded(t5_network, t5_folder(tmp_path, without=usual)), want)
    for activation in ("gelu", "tanh", "leaky_relu"):
        sentence = told(ValueError, t5_network, tmp_path, activation=activation)
        start = (
            "has feed_forward_proj 'relu' (as where config.json does not say), but the model asked "
            "for has"
        )
        assert sentence == f"{tmp_path} {start} '{activation}'."
    assert "has d_model 512 (as where" in told(
        ValueError, t5_network, t5_folder(tmp_path, without=["d_model"])
    )
    usual = {"hidden_act", "num_channels", "downsample_in_first_stage"}
    assert same(
        loaded(resnet_network, resnet_folder(tmp_path, without=usual)), drawn(resnet_network, 5)
    )
    sentence = told(ValueError, resnet_network, resnet_folder(tmp_path, without=["layer_type"]))
    assert "has layer_type 'bottleneck' (as where config.json does not say), but the" in sentence


@pytest.mark.parametrize("null", [True, False])
def test_a_decoder_has_as_many_blocks_as_the_encoder_where_nothing_is_said(tmp_path, null):
    fewer = {name for name in t5_tensors() if name.startswith("decoder.block.2")}
    want = loaded(t5_network, t5_folder(tmp_path / "three"))
    says, without = (
        ({"num_decoder_layers": None}, fewer) if null else ({}, fewer | {"num_decoder_layers"})
    )
    assert same(loaded(t5_network, t5_folder(tmp_path, says, without=without)), want)
    whole = t5_folder(tmp_path, says, without=without - fewer)
    assert "has the tensors 'decoder.block.2.layer.0.SelfAttention.k.weight'" in told(
        DataError, t5_network, whole
    )


def test_shards_are_read(tmp_path):
    kinds = (t5_network, t5_folder, t5_tensors()), (resnet_network, resnet_folder, resnet_tensors())
    for network, folder, tensors in kinds:
        want, parts = loaded(network, folder(tmp_path / "one")), folder(tmp_path / "shards")
        (parts / "model.safetensors").unlink()
        shards(parts, tensors)
        assert same(loaded(network, parts), want)
        shutil.rmtree(parts)


def test_a_tilde_is_the_home_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    want = loaded(t5_network, t5_folder(tmp_path / "t5"))
    assert same(loaded(t5_network, "~/t5"), want)
    assert told(DataError, t5_network, "~no one/t5").startswith(
        "The path '~no one/t5' cannot be used ("
    )
    assert told(DataError, t5_network, "~/t6").startswith(
        "~/t6 is not a Hugging Face checkpoint: config.json: No such"
    )


# What is refused


@pytest.mark.parametrize(
    ("config", "tensors", "without", "sentence"),
    [
        ({"scale_decoder_outputs": False}, ["lm_head.weight"], (),
         "scale_decoder_outputs False, but the model asked for "
         "has t5.head 'tied': allowed is 'own'."),
        ({"tie_word_embeddings": False}, ["lm_head.weight"], (),
         "tie_word_embeddings False, but .* allowed is 'own'"),
        ({}, ["lm_head.weight"], (),
         "a 'lm_head.weight' of its own, expected the values of 'shared.weight', which"),
        ({}, ["encoder.embed_tokens.weight"], (),
         "a 'encoder.embed_tokens.weight' of its own, expected the values of"),
        ({}, ["decoder.embed_tokens.weight"], (),
         "a 'decoder.embed_tokens.weight' of its own, expected the values of"),
        ({}, ["decoder.block.0.layer.1.EncDecAttention.q.bias"], (),
         "the tensors 'decoder.block.0.layer.1.EncDecAttention"
         ".q.bias', which the model asked for does not have: expected a checkpoint of which every "
         "tensor is read"),
        ({}, ["encoder.block.0.layer.1.DenseReluDense.wi_0.weight"], (),
         "the tensors 'encoder.block.0.layer.1.DenseRelu"),
        ({}, ["encoder.block.2.layer.0.layer_norm.weight"], (),
         "the tensors 'encoder.block.2.layer.0.layer_norm.weight'"),
        ({}, (), ["decoder.block.2.layer.0.layer_norm.weight"],
         "no tensor 'decoder.block.2.layer.0.layer_norm.weight', "
         "which a model of its config.json has"),
        ({}, (), ["decoder.final_layer_norm.weight"],
         r"no tensor 'decoder.final_layer_norm.weight', expected .* \[16\]"),
        ({"num_layers": 3}, (), (),
         "no tensor 'encoder.block.2.layer.0.layer_norm.weight', which a model of"),
        ({"num_layers": 10**30}, (), (),
         "no tensor 'encoder.block.2.layer.0.layer_norm.weight', which a model of"),
        ({"num_layers": 0}, (), (), "num_layers 0, but the model asked for needs 1"),
        ({"num_decoder_layers": 0}, (), (),
         "num_decoder_layers 0, but the model asked for needs 1"),
        ({"num_decoder_layers": -3}, (), (),
         "num_decoder_layers -3, but the model asked for needs 1"),
        ({"vocab_size": 29}, (), (), "a vocabulary of 29 ids, but that of the run has 30"),
        ({"vocab_size": 31}, (), (), r"'shared.weight' of shape \[30, 16\], expected \[31, 16\]"),
        ({"dense_act_fn": "gelu"}, (), (),
         "dense_act_fn 'gelu', but the model asked for has 'relu'"),
        ({"is_gated_act": True}, (), (), "is_gated_act True, but the model asked for has False"),
        ({"feed_forward_proj": "gated-gelu"}, (), (),
         "feed_forward_proj 'gated-gelu', but the model asked for has 'relu'"),
        ({"relative_attention_max_distance": 20}, (), (),
         "relative_attention_max_distance 20, but the .* has 128"),
        ({"relative_attention_num_buckets": 64}, (), (),
         "relative_attention_num_buckets 64, but the .* has 32"),
        ({"layer_norm_epsilon": 0.1}, (), (),
         "layer_norm_epsilon 0.1, but the model asked for has 1e-06"),
        ({"pad_token_id": 3}, (), (), "pad_token_id 3, but the model asked for has 0"),
        ({"eos_token_id": 2}, (), (), "eos_token_id 2, but the model asked for has 1"),
        ({"quantization_config": {"load_in_8bit": True}}, (), (),
         "quantization_config {'load_in_8bit': True} in"),
        ({"pruned_heads": {"0": [1]}}, (), (),
         "pruned_heads {'0': .1.} in config.json, which changes the model: expected"),
        ({"auto_map": {"AutoModel": "a.B"}}, (), (),
         "auto_map {'AutoModel': 'a.B'} in config.json, which changes the"),
        ({"tie_encoder_decoder": True}, (), (),
         "tie_encoder_decoder True in config.json, which changes the model"),
        ({"rotary": True, "alibi": 1}, (), (),
         "'alibi', 'rotary' in config.json, and what that changes is not known"),
        ({"hidden_size": 32}, (), (),
         "'hidden_size' in config.json, and what that changes is not known: expected the keys "
         "of T5ForConditionalGeneration in transformers; one that changes nothing .* can be "
         "deleted"),
        ({"architectures": ["T5ForTokenClassification"]}, (), (),
         "architectures .'T5ForTokenClassification'. in config"),
        ({"architectures": "T5Model"}, (), (),
         "architectures 'T5Model' in config.json, expected any of 'T5ForCond"),
        ({"num_layers": "six"}, (), (),
         "num_layers 'six' in config.json, expected one of type int"),
        ({"num_layers": True}, (), (), "num_layers True in config.json, expected one of type int"),
        ({"scale_decoder_outputs": None}, (), (),
         "scale_decoder_outputs None in config.json, expected one of type bool"),
        ({"is_encoder_decoder": False}, (), (),
         "is_encoder_decoder False, but the model asked for has True"),
        ({"d_model": None}, (), (), "d_model None in config.json, expected one of type int"),
        ({"vocab_size": 30.0}, (), (), "vocab_size 30.0 in config.json, expected one of type int"),
        ({"feed_forward_proj": ["relu"]}, (), (),
         r"feed_forward_proj \['relu'\] in config.json, expected one of type str"),
    ],
)  # fmt: skip
def test_a_t5_that_computes_otherwise_is_refused(tmp_path, config, tensors, without, sentence):
    folder = t5_folder(
        tmp_path, config, {name: np.ones((30, 16), np.float32) for name in tensors}, without
    )
    with pytest.raises((ValueError, DataError), match=f"^{tmp_path} has {sentence}"):
        loaded(t5_network, folder)


def test_a_t5_with_a_head_of_its_own_is_not_taken_for_one_without(tmp_path):
    assert "has tie_word_embeddings True" in told(
        ValueError, t5_network, t5_folder(tmp_path), head="own"
    )
    folder = t5_folder(tmp_path, {"tie_word_embeddings": False})
    assert "has no tensor 'lm_head.weight', expected one of shape [30, 16]" in told(
        DataError, t5_network, folder, head="own"
    )
    with pytest.raises(ValueError, match=r"t5.head is 'untied': allowed are 'tied', 'own'\."):
        t5_network(folder, head="untied")


@pytest.mark.parametrize(
    ("config", "tensors", "without", "sentence"),
    [
        ({"downsample_in_first_stage": True}, {}, (),
         "downsample_in_first_stage True, but the model asked for has False"),
        ({"hidden_act": "gelu"}, {}, (), "hidden_act 'gelu', but the model asked for has 'relu'"),
        ({"layer_type": "bottleneck"}, {}, (),
         "layer_type 'bottleneck' .*but the model asked for has 'basic'"),
        ({"num_channels": 1}, {}, (), "num_channels 1, but the model asked for has 3"),
        ({"depths": [3, 4, 6, 3]}, {}, (),
         r"depths \[3, 4, 6, 3\] .*but the model asked for has \[2, 2, 2, 2\]"),
        ({"depths": [2, 2, 2, 2.0]}, {}, (),
         r"depths \[2, 2, 2, 2.0\], but the model asked for has \[2, 2, 2, 2\]"),
        ({"hidden_sizes": "abc"}, {}, (),
         "hidden_sizes 'abc' in config.json, expected one of type list"),
        ({"hidden_sizes": [4, 8, 16]}, {}, (),
         r"hidden_sizes \[4, 8, 16\], but the model asked for has \[4, 8, 16, 32\]"),
        ({"groups": 2}, {}, (), "'groups' in config.json, and what that changes is not known"),
        ({}, {}, ["classifier.1.bias"],
         r"no tensor 'classifier.1.bias', expected one of shape \[5\]"),
        ({}, {"classifier.1.bias": (6,)}, (),
         r"'classifier.1.bias' of shape \[6\], expected \[5\]"),
        ({}, {"classifier.2.bias": (5,)}, (),
         "the tensors 'classifier.2.bias', which the model asked for does not have"),
        ({}, {CONVOLUTION: (4, 3, 3, 3)}, (),
         rf"'{CONVOLUTION}' of shape \[4, 3, 3, 3\], expected \[4, 3, 7, 7\]"),
        ({}, {}, [CONVOLUTION], f"no tensor '{CONVOLUTION}'"),
    ],
)  # fmt: skip
def test_a_resnet_that_computes_otherwise_is_refused(tmp_path, config, tensors, without, sentence):
    tensors = {name: np.ones(shape, np.float32) for name, shape in tensors.items()}
    folder = resnet_folder(tmp_path, config, tensors, without)
    with pytest.raises((ValueError, DataError), match=f"^{tmp_path} has {sentence}"):
        loaded(resnet_network, folder)


def test_a_head_of_other_classes_is_left_out_as_a_whole(tmp_path):
    folder = resnet_folder(tmp_path, without=["classifier.1.weight"])
    assert "no tensor 'classifier.1.weight'" in told(DataError, resnet_network, folder, 7)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"activation": "gelu"}, "'gelu': allowed are 'relu'"),
        ({"norm": "layer"}, "'layer': allowed are 'batch'"),
        ({"stem": "3x3"}, "'3x3': allowed are '7x7'"),
    ],
)
def test_a_resnet_that_no_checkpoint_has_is_refused(tmp_path, changes, sentence):
    """In transformers hidden_act is not the activation inside of a block, so that GELU is another
    network there.
    """
    folder = resnet_folder(tmp_path, {"hidden_act": changes.get("activation", "relu")})
    with pytest.raises(ValueError, match=rf"of a pretrained \w+ is {sentence}\."):
        resnet_network(folder, **changes)


def test_sizes_that_do_not_fit_are_told(tmp_path):
    folder = t5_folder(tmp_path / "t5")
    for changes, sentence in (
        ({"width": 32}, "d_model 16, but the model asked for has 32"),
        ({"heads": 4}, "num_heads 2, but the model asked for has 4"),
        ({"depth": 3}, "num_layers 2, but the model asked for needs 3"),
    ):
        assert f"has {sentence}." in told(ValueError, t5_network, folder, **changes)
    assert "30 ids, but that of the run has 300: allowed" in told(
        ValueError, t5_network, folder, 300
    )
    # fewer are the first of the checkpoint's, as of pieces; ids that are characters need all
    fewer = t5_network(folder, 29)
    with pytest.raises(ValueError, match="30 ids, but that of the run has 29: allowed"):
        fewer.check_ids({})
    sentence = told(ValueError, resnet_network, resnet_folder(tmp_path / "resnet"), base=8)
    assert "hidden_sizes [4, 8, 16, 32], but the model asked for has [8, 16, 32, 64]" in sentence


def test_tensors_of_more_rows_than_config_says_are_not_cut(tmp_path):
    table = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    taller = t5_folder(tmp_path, tensors={table: np.ones((64, 2), np.float32)})
    assert f"has {table!r} of shape [64, 2], expected [32, 2]" in told(
        DataError, t5_network, taller
    )
    taller = t5_folder(tmp_path, tensors={"shared.weight": np.ones((31, 16), np.float32)})
    assert "has 'shared.weight' of shape [31, 16], expected [30, 16]" in told(
        DataError, t5_network, taller
    )


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.uint8, bool, np.complex64])
def test_weights_that_are_no_floating_point_are_refused(tmp_path, dtype):
    name = "decoder.block.0.layer.2.DenseReluDense.wo.weight"
    folder = t5_folder(tmp_path, tensors={name: np.ones((16, 24), dtype)})
    sentence = told(DataError, t5_network, folder)
    assert f"has {name!r} of type " in sentence
    assert sentence.endswith("expected one of F64, F32, F16, BF16: quantized weights are not read.")


@pytest.mark.parametrize("bad", [np.float16([np.nan]), np.float32([np.inf]), np.float64([1e300])])
def test_values_that_are_not_finite_are_refused(tmp_path, bad):
    folder = t5_folder(tmp_path, tensors={"decoder.final_layer_norm.weight": np.tile(bad, 16)})
    sentence = told(DataError, t5_network, folder)
    assert (
        "has values in decoder.final_layer_norm.weight that are not finite: expected the weights"
        in sentence
    )


# Files


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "No such file or directory"),
        (b"", "it is not JSON: Expecting value: line 1 column 1 .char 0."),
        (b"[]", "it is JSON but not an object"),
        (b'{"d_model": 16}', "it has no model_type"),
        (b"\xff\xfe{", "it is not UTF-8 at byte 0"),
        (b"[" * 100_000, "it is nested more than 64 levels deep"),
        (b'{"model_type": ' * 50_000, "it is nested more than 64 levels deep"),
        (b'{"model_type": "t5", "model_type": "t5"}', "it has 'model_type' twice in one object"),
        (b'{"model_type": "t5", "d_model": ' + b"9" * 5000 + b"}", "its number 9+ is too large"),
        (b'{"model_type": "t5", "layer_norm_epsilon": NaN}',
         "it holds NaN, where JSON has numbers"),
    ],
)  # fmt: skip
def test_a_damaged_config_is_told(tmp_path, content, sentence):
    folder = t5_folder(tmp_path)
    (folder / "config.json").unlink()
    if content is not None:
        (folder / "config.json").write_bytes(content)
    with pytest.raises(
        DataError, match=f"^{folder} is not a Hugging Face checkpoint: config.json: {sentence}"
    ):
        loaded(t5_network, folder)


def test_another_kind_of_model_is_told(tmp_path):
    folder = t5_folder(tmp_path, {"model_type": "bert"})
    assert (
        told(DataError, t5_network, folder)
        == f"{folder} holds a model of type 'bert', expected 't5'."
    )
    assert "holds a model of type 'bert', expected 'resnet'" in told(
        DataError, resnet_network, folder
    )
    assert "model of type ['t5'], expected" in told(
        DataError, t5_network, t5_folder(tmp_path, {"model_type": ["t5"]})
    )


def test_other_files_of_weights_are_told(tmp_path):
    folder = t5_folder(tmp_path)
    (folder / "model.safetensors").rename(folder / "model.fp16.safetensors")
    assert told(DataError, t5_network, folder) == (
        f"{folder} has no model.safetensors, expected the weights there, or in shards with "
        "model.safetensors.index.json; it "
        "has 'model.fp16.safetensors'."
    )
    (folder / "model.fp16.safetensors").rename(folder / "pytorch_model.bin")
    assert told(DataError, t5_network, folder) == (
        f"{folder} has its weights in 'pytorch_model.bin', files of PyTorch, expected "
        "model.safetensors: in transformers, "
        "T5ForConditionalGeneration.from_pretrained(FOLDER).save_pretrained(FOLDER) writes it."
    )
    (folder / "pytorch_model.bin").rename(folder / "pytorch_model-00001-of-00002.bin")
    assert "has its weights in 'pytorch_model-00001-of-00002.bin'" in told(
        DataError, t5_network, folder
    )
    (folder / "pytorch_model-00001-of-00002.bin").unlink()
    assert told(DataError, t5_network, folder).endswith("; it has config.json alone.")


def test_a_damaged_file_of_tensors_is_told(tmp_path):
    folder = t5_folder(tmp_path)
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    for content in (b"", b"\x00" * 7, whole[:-1], whole + b"\x00", whole[:100]):
        file.write_bytes(content)
        sentence = told(DataError, t5_network, folder)
        assert sentence.startswith(f"{file} cannot be read as safetensors (")
        assert sentence.endswith("): expected the whole file of a model.")
    save_file(t5_tensors(), file, {"format": "mlx"})
    sentence = f"{file} is of format 'mlx', whose tensors may be turned, expected 'pt'."
    assert told(DataError, t5_network, folder) == sentence
    save_file(t5_tensors(), file)  # without a format, as other programs write it
    loaded(t5_network, folder)


def sharded(folder):
    """Writes the T5 in three shards, and returns their list's file and content."""
    (t5_folder(folder) / "model.safetensors").unlink()
    index = shards(folder, t5_tensors())
    return folder / "model.safetensors.index.json", index


def test_shards_that_are_not_there_or_elsewhere_are_told(tmp_path):
    file, index = sharded(tmp_path)
    first = sorted(set(index["weight_map"].values()))[0]
    name = next(iter(index["weight_map"]))
    for elsewhere in (
        "../a.safetensors",
        "/etc/passwd",
        "a/b.safetensors",
        "",
        "..",
        "a.bin",
        "a\x00.safetensors",
    ):
        file.write_text(json.dumps({"weight_map": index["weight_map"] | {name: elsewhere}}))
        sentence = told(DataError, t5_network, tmp_path)
        assert sentence.startswith(f"{file} lists the file {elsewhere!r}, ")
    file.write_text(json.dumps(index))
    (tmp_path / first).unlink()
    sentence = (
        f"{file} lists the file '{first}', which is not there: expected all shards beside it."
    )
    assert told(DataError, t5_network, tmp_path) == sentence


def test_shards_with_other_tensors_than_listed_are_told(tmp_path):
    file, index = sharded(tmp_path)
    listed, first = index["weight_map"], sorted(set(index["weight_map"].values()))[0]
    name = next(n for n, f in listed.items() if f == first)
    file.write_text(json.dumps({"weight_map": {n: f for n, f in listed.items() if n != name}}))
    assert f"{first} holds {name!r}, but model.safetensors.index.json does not" in told(
        DataError, t5_network, tmp_path
    )
    file.write_text(json.dumps({"weight_map": listed | {"another": first}}))
    assert f"{file} lists 'another', but the shard named there does not" in told(
        DataError, t5_network, tmp_path
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("[" * 100_000, "it is nested more than 64 levels deep"),
        ("[]", "it is JSON but not an object"),
        ("{}", "it has no weight_map from tensors to names of files"),
        ('{"weight_map": 3}', "it has no weight_map from tensors to names of files"),
        ('{"weight_map": {"a": 3}}', "it has no weight_map from tensors to names of files"),
        ('{"weight_map": {"a": null}}', "it has no weight_map from tensors to names of files"),
    ],
)
def test_a_damaged_list_of_shards_is_told(tmp_path, content, reason):
    file, _ = sharded(tmp_path)
    file.write_text(content)
    sentence = (
        f"{file} cannot be read as a list of shards ({reason}), expected one as transformers "
        f"writes it."
    )
    assert told(DataError, t5_network, tmp_path) == sentence


def test_an_empty_list_of_shards_has_no_tensors(tmp_path):
    file, _ = sharded(tmp_path)
    file.write_text('{"weight_map": {}}')
    assert "has no tensor" in told(DataError, t5_network, tmp_path)


def test_what_is_wrong_inside_is_told_before_a_workdir_is_made(tmp_path):
    folder = t5_folder(tmp_path / "t5", without=["decoder.final_layer_norm.weight"])
    spec = run_of("characters", folder)
    with pytest.raises(DataError, match=r"has no tensor 'decoder.final_layer_norm.weight'"):
        pj.run(spec, workdir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


# Vocabularies


def config_of(folder, rows):
    """Writes the configuration of a T5 with `rows` embeddings, and an empty file for the
    weights.
    """
    sizes = {
        "d_model": 16,
        "num_heads": 2,
        "d_kv": 4,
        "d_ff": 24,
        "num_layers": 1,
        "vocab_size": rows,
    }
    (folder / "config.json").write_text(json.dumps({"model_type": "t5", **sizes}))
    (folder / "model.safetensors").touch()


def run_of(vocabulary_file, folder):
    """The Spec of a run with a SentencePiece file, or characters, that starts from a checkpoint."""
    options = {
        "t5.heads": 2,
        "t5.head_width": 4,
        "t5.feed_forward": 24,
        "t5.pretrained": str(folder),
    }
    options["bigram_cipher.vocabulary"] = str(vocabulary_file)
    named = {
        "dataset": "generated",
        "environment": "bigram_cipher",
        "transition": "sampling",
        "model": "t5",
    }
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
    t5_network(str(tmp_path), pieces).check_ids(T5_IDS)
    for other in (rows - 1, rows + 1, rows + 256):
        config_of(tmp_path, other)
        with pytest.raises(
            ValueError,
            match=rf"of {other} ids, but that of the run has {pieces}: allowed .* {rows} ",
        ):
            t5_network(str(tmp_path), pieces).check_ids(T5_IDS)


def test_a_t5_runs_with_its_sentencepiece_file(tmp_path):
    """From the file to the first state: 60 pieces, of which a checkpoint of 256 rows knows the
    first.
    """
    file = model_file(tmp_path / "spiece.model", t5_like(60))
    config_of(tmp_path, 256)
    model = t5_network(str(tmp_path), vocabulary.sentencepieces(file).size)
    shapes = jax.eval_shape(model.init, jax.random.key(0), TEXT)
    tensors = {}
    for path, name in reading.t5_names(1).items():
        shape = functools.reduce(lambda tree, key: tree[key], path, shapes).shape
        tensors[name] = np.random.default_rng(len(tensors)).normal(
            size=shape[::-1] if path[-1] == "kernel" else shape
        )
    tensors["shared.weight"] = np.random.default_rng(1).normal(size=(256, 16)).astype(np.float32)
    save_file(tensors, tmp_path / "model.safetensors")
    run, data = (
        supervised.make_run(run_of(file, tmp_path)),
        device_data(subsample(load("generated"), 32, 8)),
    )
    state = quickly(lambda: run.init({}, data))
    np.testing.assert_array_equal(
        state.params["shared"]["embedding"], tensors["shared.weight"][:60]
    )


@pytest.mark.parametrize(
    ("special", "found"),
    [
        (
            (*T5_SPECIAL[:2], Piece("<s>", 0, CONTROL), T5_SPECIAL[2]),
            "padding 0, end 1, <s> 2, unknown 3",
        ),
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
        f"{tmp_path} is a T5, whose ids that are no text are padding 0, end 1, unknown 2, but "
        "those of the run's "
        f"SentencePiece model are {found}: allowed is the SentencePiece model that the checkpoint "
        "was trained with."
    )
    with pytest.raises(ValueError) as raised:
        run_of(file, tmp_path)
    assert str(raised.value) == sentence


def test_characters_take_a_checkpoint_of_as_many_ids_only(tmp_path):
    config_of(tmp_path, 30)
    run_of("characters", tmp_path)
    told = {29: "29", 31: "31", 128: "128", 130: "130", 32_128: "32128", 10**200: r"10{99}\.\."}
    for rows, shown in told.items():
        config_of(tmp_path, rows)
        with pytest.raises(
            ValueError,
            match=f"of {shown} ids, but that of the run has 30: allowed are .* of 30 ids, or",
        ):
            run_of("characters", tmp_path)
