"""Checkpoints against transformers: ours gives the logits of what it writes, and what ours refuses
it computes otherwise.
"""

import warnings

import jax.numpy as jnp
import numpy as np
import pytest
from helpers.checkpoint_files import (
    KINDS,
    TEXT,
    X,
    loaded,
    mutated_values,
    resnet_network,
    same,
    t5_folder,
    t5_network,
)

from plasticity_jax.datasets import DataError
from plasticity_jax.models.pretrained import keys

pytestmark = pytest.mark.oracle
transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")
HEAD = np.random.default_rng(5).normal(size=(30, 16)).astype(np.float32)


def random_(model):
    """The model with all its weights and statistics drawn, in the mode of evaluation."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if tensor.dtype.is_floating_point:
                scale = "norm" in name or "running" in name
                tensor.uniform_(0.5, 1.5) if scale else tensor.normal_(0, 0.3)
    return model.eval()


def t5_of(**changes):
    """A random T5 of transformers, cut to the first block of each side by `their_logits` only."""
    sizes = {
        "vocab_size": 30,
        "d_model": 16,
        "num_heads": 2,
        "d_kv": 4,
        "d_ff": 24,
        "num_layers": 2,
    }
    usual = {**sizes, "num_decoder_layers": 3, "decoder_start_token_id": 0, "use_cache": False}
    config = transformers.T5Config(**(usual | changes))
    return random_(transformers.T5ForConditionalGeneration(config))


def resnet_of(kind=transformers.ResNetForImageClassification, **changes):
    sizes = {
        "embedding_size": 4,
        "hidden_sizes": [4, 8, 16, 32],
        "depths": [2] * 4,
        "layer_type": "basic",
    }
    return random_(kind(transformers.ResNetConfig(**(sizes | {"num_labels": 5} | changes))))


def their_logits(model):
    with torch.no_grad():
        if hasattr(model, "resnet"):
            return model(torch.tensor(X.transpose(0, 3, 1, 2))).logits.numpy()
        model.encoder.block, model.decoder.block = model.encoder.block[:1], model.decoder.block[:1]
        source, inputs = (torch.tensor(np.asarray(ids)) for ids in TEXT)
        return (
            model(input_ids=source, attention_mask=source != 0, decoder_input_ids=inputs)
            .logits.float()
            .numpy()
        )


def our_logits(network, folder, outputs=None, **changes):
    outputs = outputs or (30 if network is t5_network else 5)
    x = TEXT if network is t5_network else jnp.asarray(X)
    net = network(outputs=outputs, **changes)
    return np.asarray(net.apply(loaded(network, folder, outputs, **changes), x, False))


def agree(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-5 * np.abs(theirs).max())


def read_by_transformers(folder, kind=transformers.T5ForConditionalGeneration):
    return kind.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.mark.parametrize("activation", ["relu", "gelu", "tanh", "leaky_relu"])
def test_t5_of_every_activation(tmp_path, activation):
    model = t5_of(feed_forward_proj=activation)
    model.save_pretrained(tmp_path)
    agree(our_logits(t5_network, tmp_path, activation=activation), their_logits(model))
    for other in {"relu", "gelu", "tanh", "leaky_relu"} - {activation}:
        with pytest.raises(ValueError, match="feed_forward_proj"):
            t5_network(tmp_path, activation=other)


def test_t5_of_pieces_has_the_first_rows(tmp_path):
    model = t5_of(vocab_size=128)
    model.save_pretrained(tmp_path)
    agree(our_logits(t5_network, tmp_path, 28), their_logits(model)[..., :28])


def test_t5_with_a_head_of_its_own(tmp_path):
    """As versions 4 and 5 of transformers write it, read by version 5, and step by step as in
    decoding.
    """
    told = {"four": {"tie_word_embeddings": False}, "five": {"scale_decoder_outputs": False}}
    for version, says in told.items():
        folder = t5_folder(tmp_path / version, says, {"lm_head.weight": HEAD})
        model = read_by_transformers(folder)
        np.testing.assert_array_equal(model.lm_head.weight.detach(), HEAD)
        model.save_pretrained(tmp_path / "again")
        theirs = their_logits(model)
        assert (
            np.abs(theirs - their_logits(read_by_transformers(t5_folder(tmp_path / "tied")))).max()
            > 1
        )
        agree(our_logits(t5_network, folder, head="own"), theirs)
        agree(our_logits(t5_network, tmp_path / "again", head="own"), theirs)
        with pytest.raises(ValueError, match=r"allowed is 'own'\."):
            t5_network(tmp_path / "again")
    net, variables = t5_network(head="own"), loaded(t5_network, folder, head="own")
    cache = net.apply(variables, TEXT.source, 4, method="start")
    for position in range(4):
        logits, cache = net.apply(
            variables, cache, TEXT.inputs[:, position], position, method="step"
        )
        agree(np.asarray(logits), theirs[:, position])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_t5_of_other_precisions(tmp_path, dtype):
    t5_of().to(getattr(torch, dtype)).save_pretrained(tmp_path)
    agree(our_logits(t5_network, tmp_path), their_logits(read_by_transformers(tmp_path)))


def test_shards_of_both(tmp_path):
    for network, model in ((t5_network, t5_of()), (resnet_network, resnet_of())):
        folder = tmp_path / network.__name__
        model.save_pretrained(folder, max_shard_size="10KB")
        assert not (folder / "model.safetensors").exists()
        assert len(list(folder.glob("model-*.safetensors"))) > 2
        agree(our_logits(network, folder), their_logits(model))


def test_the_advice_for_files_of_pytorch(tmp_path):
    """They hold the embedding three or four times over, as the advice's result does not."""
    model, folder = t5_of(), t5_folder(tmp_path)
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(
        DataError,
        match=r"T5ForConditionalGeneration.from_pretrained\(FOLDER\).save_pretrained\(FOLDER\)",
    ):
        t5_network(folder)
    transformers.T5ForConditionalGeneration.from_pretrained(folder).save_pretrained(folder)
    agree(our_logits(t5_network, folder), their_logits(model))


@pytest.mark.parametrize("changes", [{}, {"downsample_in_bottleneck": True}, {"num_labels": 1000}])
def test_resnet(tmp_path, changes):
    model = resnet_of(**changes)
    model.save_pretrained(tmp_path)
    agree(our_logits(resnet_network, tmp_path, changes.get("num_labels")), their_logits(model))


@pytest.mark.parametrize("kind", ["ResNetModel", "ResNetBackbone"])
def test_resnet_without_a_head(tmp_path, kind):
    model = resnet_of(getattr(transformers, kind))
    model.save_pretrained(tmp_path)
    whole = transformers.ResNetForImageClassification.from_pretrained(tmp_path, num_labels=5).eval()
    variables = loaded(resnet_network, tmp_path)
    with torch.no_grad():
        head = {
            "kernel": whole.classifier[1].weight.numpy().T,
            "bias": whole.classifier[1].bias.numpy(),
        }
    variables["params"]["head"] = head
    agree(np.asarray(resnet_network().apply(variables, jnp.asarray(X), False)), their_logits(whole))


def test_resnet_of_another_activation_is_another_network(tmp_path):
    """Why it is refused: the activation between the two convolutions of a block is ReLU in
    transformers all the same.
    """
    model = resnet_of(hidden_act="gelu")
    assert isinstance(model.resnet.encoder.stages[0].layers[0].layer[0].activation, torch.nn.ReLU)
    model.save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match="activation of a pretrained resnet18 is 'gelu': allowed are 'relu'"
    ):
        resnet_network(tmp_path, activation="gelu")


@pytest.mark.parametrize(
    "name", ["lm_head.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"]
)
def test_an_embedding_of_its_own_is_another_network(tmp_path, name):
    """Why it is refused: transformers takes the tensor where it is not the shared one."""
    folder = t5_folder(tmp_path / "own", tensors={name: HEAD})
    one, other = (
        their_logits(read_by_transformers(f)) for f in (folder, t5_folder(tmp_path / "shared"))
    )
    assert np.abs(one - other).max() > 1e-3 * np.abs(other).max()
    with pytest.raises(DataError, match=f"has a '{name}' of its own"):
        loaded(t5_network, folder)


def test_a_key_that_is_absent_has_the_value_of_transformers():
    for layout, config in (
        (keys.T5, transformers.T5Config),
        (keys.RESNET, transformers.ResNetConfig),
    ):
        theirs = config().to_dict()
        for key, (kind, usual) in layout.read.items():
            if usual is not None:
                assert (theirs[key], type(theirs[key])) == (usual, kind), key
    theirs = transformers.T5Config(
        num_layers=4, feed_forward_proj="gated-gelu", tie_word_embeddings=False
    ).to_dict()
    found = {
        "num_decoder_layers": 4,
        "dense_act_fn": "gelu_new",
        "is_gated_act": True,
        "scale_decoder_outputs": False,
    }
    assert {key: theirs[key] for key in found} == found


def test_every_key_that_transformers_writes_is_known():
    generation = set(transformers.GenerationConfig._get_default_generation_params())
    for layout, config in (
        (keys.T5, transformers.T5Config),
        (keys.RESNET, transformers.ResNetConfig),
    ):
        known = (
            layout.read.keys()
            | layout.without_effect
            | keys.WITHOUT_EFFECT
            | {"model_type", "architectures"}
        )
        assert not (config().to_dict().keys() | generation) - known
        # and none of those without effect is read by the models' own code
        assert not layout.read.keys() & (layout.without_effect | keys.WITHOUT_EFFECT)


def test_keys_without_effect_have_none(tmp_path):
    """Each with another value, as far as transformers takes it."""
    odd = {
        "classifier_dropout": 0.7, "dropout_rate": 0.9, "gradient_checkpointing": True,
        "initializer_factor": 3.0, "is_decoder": True, "n_positions": 4, "output_past": False,
        "dtype": "float32", "chunk_size_feed_forward": 2, "torchscript": True, "use_bfloat16": True,
        "output_hidden_states": True, "use_cache": False, "tf_legacy_loss": True,
        "add_cross_attention": True, "cross_attention_hidden_size": 9, "num_labels": 7,
        "problem_type": "regression", "finetuning_task": "sst2", "bos_token_id": 5,
        "sep_token_id": 6, "prefix": "translate: ", "tokenizer_class": "ByT5Tokenizer",
        "temperature": 0.1, "num_beams": 7, "max_length": 2, "repetition_penalty": 3.0,
        "name_or_path": "x", "_name_or_path": "y", "_commit_hash": "z",
        "attn_implementation": "eager",
    }  # fmt: skip
    want = their_logits(read_by_transformers(t5_folder(tmp_path / "whole")))
    for key, value in odd.items():
        folder = t5_folder(tmp_path / "odd", {key: value})
        np.testing.assert_allclose(
            their_logits(read_by_transformers(folder)), want, rtol=1e-5, atol=1e-5, err_msg=key
        )
        assert same(loaded(t5_network, folder), loaded(t5_network, tmp_path / "whole")), key


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_accepted_of_mutated_configs_is_what_transformers_computes(tmp_path, kind):
    """2,000 of them: where both take it, logits agree."""
    network, write, _, matters = KINDS[kind]
    model = {
        "t5": transformers.T5ForConditionalGeneration,
        "resnet": transformers.ResNetForImageClassification,
    }[kind]
    folder, accepted, compared = write(tmp_path), {}, 0
    ours, whole = our_logits(network, folder), (folder / "config.json").read_bytes()
    more = [
        *matters,
        "dtype",
        "id2label",
        "n_positions",
        "out_features",
        "is_decoder",
        "scale_decoder_outputs",
    ]
    for number in range(2000):
        text = mutated_values(whole, number, more)
        (folder / "config.json").write_bytes(text)
        try:
            loaded(network, folder)
        except (ValueError, DataError):
            continue
        accepted[text] = None
    for text in accepted:
        (folder / "config.json").write_bytes(text)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                theirs = their_logits(read_by_transformers(folder, model))
        except Exception:  # stricter than ours with what changes nothing, by errors of many kinds
            continue
        if theirs.shape == ours.shape:  # (id2label changes the head of a ResNet there)
            agree(ours, theirs)
            compared += 1
    assert compared > 50, (compared, len(accepted))
