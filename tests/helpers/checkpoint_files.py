"""Small checkpoints as transformers lays them out, written tensor by tensor, that several test
files share.
"""

import functools
import json
import math
import random

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from plasticity_jax.models import resnet18, t5
from plasticity_jax.models.pretrained import reading
from plasticity_jax.types import Text

X = np.random.default_rng(0).normal(size=(3, 16, 16, 3)).astype(np.float32)
TEXT = Text(
    jnp.asarray([[5, 9, 17, 1, 0, 0], [3, 3, 4, 8, 2, 1]]),
    jnp.asarray([[0, 7, 8, 9], [0, 4, 4, 1]]),
)
T5_CONFIG = {
    "model_type": "t5", "architectures": ["T5ForConditionalGeneration"],
    "transformers_version": "5.23.0", "d_model": 16, "num_heads": 2, "d_kv": 4, "d_ff": 24,
    "num_layers": 2, "num_decoder_layers": 3, "vocab_size": 30, "feed_forward_proj": "relu",
    "tie_word_embeddings": True, "layer_norm_epsilon": 1e-06, "dropout_rate": 0.1,
    "relative_attention_num_buckets": 32, "relative_attention_max_distance": 128, "pad_token_id": 0,
    "eos_token_id": 1, "decoder_start_token_id": 0, "is_encoder_decoder": True,
    "task_specific_params": {"summary": {"num_beams": 4}},
}  # fmt: skip
RESNET_CONFIG = {
    "model_type": "resnet", "architectures": ["ResNetForImageClassification"],
    "transformers_version": "5.23.0", "num_channels": 3, "embedding_size": 4,
    "hidden_sizes": [4, 8, 16, 32], "depths": [2, 2, 2, 2], "layer_type": "basic",
    "hidden_act": "relu", "downsample_in_first_stage": False, "torch_dtype": "float32",
    "id2label": {str(i): "a" for i in range(5)},
}  # fmt: skip


def t5_network(folder="", outputs=30, activation="relu", **changes):
    """A T5 of one block a side that fits `T5_CONFIG`."""
    sizes = {"width": 16, "depth": 1, "heads": 2, "head_width": 4, "feed_forward": 24} | changes
    width, depth = sizes.pop("width"), sizes.pop("depth")
    return t5(outputs, width, depth, activation, pretrained=str(folder), **sizes)


def resnet_network(folder="", outputs=5, norm="batch", activation="relu", base=4, stem="7x7"):
    """A ResNet-18 that fits `RESNET_CONFIG`."""
    return resnet18(
        outputs, norm, activation, "torch", base=base, stem=stem, pretrained=str(folder)
    )


@functools.cache
def drawn(network, outputs, **changes):
    """Variables of a network, read-only numpy arrays, drawn by numpy."""
    net, x = network(outputs=outputs, **changes), TEXT if network is t5_network else jnp.asarray(X)
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), x, False))
    random = np.random.default_rng(1)
    return {
        kind: jax.tree.map(
            lambda p: random.uniform(0.5, 1.5, p.shape).astype(np.float32), shapes[kind]
        )
        for kind in shapes
        if kind not in ("hidden", "preactivations")
    }


def tensors_of(variables, names):
    """{name: tensor} as PyTorch has them."""
    made = {}
    for path, name in names.items():
        leaf = functools.reduce(lambda node, key: node[key], path, variables)
        turned = {2: (1, 0), 4: (3, 2, 0, 1)} if path[-1] == "kernel" else {}
        made[name] = np.ascontiguousarray(leaf.transpose(turned.get(leaf.ndim, range(leaf.ndim))))
    return made


@functools.cache
def t5_tensors():
    """The tensors of the T5 of `T5_CONFIG`: two blocks in the encoder, three in the decoder."""
    return tensors_of(drawn(t5_network, 30, depth=3), reading.t5_names(2, 3))


@functools.cache
def resnet_tensors():
    """The tensors of the ResNet of `RESNET_CONFIG`, with five classes and the counters of
    batches.
    """
    names = reading.resnet18_names(True)
    made = tensors_of(drawn(resnet_network, 5), names)
    means = [name for name in made if name.endswith("running_mean")]
    return made | {
        name.replace("running_mean", "num_batches_tracked"): np.array(7) for name in means
    }


def write(folder, config, tensors, name="model.safetensors"):
    """Writes config.json and the tensors' file, and returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(dict(tensors), folder / name, {"format": "pt"})
    return folder


def t5_folder(folder, config=(), tensors=(), without=()):
    """Writes the T5 with changes: keys and tensors of other values, and `without` some of
    either.
    """
    config, tensors = {**T5_CONFIG, **dict(config)}, {**t5_tensors(), **dict(tensors)}
    return write(
        folder, *({k: v for k, v in part.items() if k not in without} for part in (config, tensors))
    )


def resnet_folder(folder, config=(), tensors=(), without=()):
    """Writes the ResNet with changes, as `t5_folder`."""
    config, tensors = {**RESNET_CONFIG, **dict(config)}, {**resnet_tensors(), **dict(tensors)}
    return write(
        folder, *({k: v for k, v in part.items() if k not in without} for part in (config, tensors))
    )


def shards(folder, tensors, count=3):
    """Writes the tensors in `count` shards with their list, and returns the list's content."""
    listed = {}
    for i in range(count):
        file = f"model-{i + 1:05}-of-{count:05}.safetensors"
        part = {name: tensors[name] for name in sorted(tensors)[i::count]}
        save_file(part, folder / file, {"format": "pt"})
        listed |= dict.fromkeys(part, file)
    index = {
        "metadata": {"total_size": sum(t.nbytes for t in tensors.values())},
        "weight_map": listed,
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return index


def loaded(network, folder, outputs=None, **changes):
    """What the network loads from the folder into variables of zeros."""
    outputs = outputs or (30 if network is t5_network else 5)
    zeros = jax.tree.map(np.zeros_like, drawn(network, outputs, **changes))
    return network(folder, outputs, **changes).load(zeros)


def same(one, other):
    """Whether two trees have the same paths and the same values to the bit."""
    if jax.tree.structure(one) != jax.tree.structure(other):
        return False
    return all(map(np.array_equal, jax.tree.leaves(one), jax.tree.leaves(other)))


# Keys that change what is computed, and what transformers takes where they are absent (None: it
# follows from others)
T5_MATTERS = {
    "model_type": None, "d_model": 512, "num_heads": 8, "d_kv": 64, "d_ff": 2048, "num_layers": 6,
    "vocab_size": 32128, "num_decoder_layers": None, "feed_forward_proj": "relu",
    "dense_act_fn": "relu", "is_gated_act": False, "layer_norm_epsilon": 1e-6,
    "relative_attention_num_buckets": 32, "relative_attention_max_distance": 128,
    "scale_decoder_outputs": True, "is_encoder_decoder": True, "tie_word_embeddings": True,
    "pad_token_id": 0, "eos_token_id": 1, "hidden_size": None, "num_attention_heads": None,
    "num_hidden_layers": None, "head_dim": None, "quantization_config": None, "pruned_heads": None,
    "per_layer_config": None, "auto_map": None,
}  # fmt: skip
RESNET_MATTERS = {
    "model_type": None, "num_channels": 3, "embedding_size": 64,
    "hidden_sizes": [256, 512, 1024, 2048], "depths": [3, 4, 6, 3], "layer_type": "bottleneck",
    "hidden_act": "relu", "downsample_in_first_stage": False, "quantization_config": None,
    "pruned_heads": None, "per_layer_config": None, "auto_map": None,
}  # fmt: skip
KINDS = {
    "t5": (t5_network, t5_folder, T5_CONFIG, T5_MATTERS),
    "resnet": (resnet_network, resnet_folder, RESNET_CONFIG, RESNET_MATTERS),
}
ODD = (
    None, True, False, 0, 1, -1, 2, 3, 16, 10**30, 0.5, -1e-6, math.nan, math.inf, "", "abc", "6",
    "relu", "gelu", "t5", "gated-gelu", "gelu_new", [], [1], [2, 2, 2, 2], [4, 8, 16, 32], ["a"],
    {}, {"0": [1]}, {"a": {"b": [None]}}, [[]] * 3,
)  # fmt: skip


def mutated_values(content, number, more=()):
    """JSON text of a dict with one or two values replaced, dropped, or put in under the names of
    `more`.
    """
    generator, found = random.Random(number), json.loads(content)
    for _ in range(generator.choice([1, 1, 2])):
        key = generator.choice([*found, *more])
        if generator.random() < 0.2:
            found.pop(key, None)
        else:
            found[key] = generator.choice(ODD)
    return json.dumps(found).encode()
