"""Weights of Hugging Face checkpoints (config.json and safetensors files in a folder) in our
parameter trees.

Whatever a checkpoint says is read, or known to change nothing, or refused: keys of config.json by
the lists in `pretrained_keys`, tensors by name in `filled`. A leading ~ of a folder is the home
directory.
"""

import contextlib
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from plasticity_jax.datasets.contract import DataError, path_of
from plasticity_jax.models.pretrained import keys
from plasticity_jax.models.pretrained.keys import Layout
from plasticity_jax.storage.json_files import read_json
from plasticity_jax.storage.workdir import reason_of
from plasticity_jax.types import PyTree

Names = dict[tuple[str, ...], str]
ROWS_ALIGNED = 128  # checkpoints of T5 fill the vocabulary up to a multiple of this
T5_EMBEDDING, T5_HEAD = "shared.weight", "lm_head.weight"
T5_COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
"""Tensors that some versions of transformers write although they are the embedding."""
T5_UNUSED = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
"""Of the first T5s, which computed nothing with it; transformers leaves it out too."""
RESNET_HEAD = ("classifier.1.weight", "classifier.1.bias")
# what is taken, by its name in safetensors; whole numbers are quantized weights
FLOATS = ("F64", "F32", "F16", "BF16")
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_SHOWN, _NAMED = 100, 3  # characters of a value, and names, that a sentence quotes


class Stored(NamedTuple):
    """Where a tensor of a checkpoint is, and what the header of its file says of it.

    Attributes:
      file: a safetensors file.
      dtype: by its name there, such as "F32".
      shape: as PyTorch has it, [out, in, ..] for a kernel.
    """

    file: Path
    dtype: str
    shape: tuple[int, ...]


Tensors = Mapping[str, Stored]


def config(folder: str, layout: Layout) -> dict[str, Any]:
    """Returns the values of the keys that `layout` reads in the folder's config.json, transformers'
    own where absent.

    None is for a key that is absent and follows from others.
    Raises DataError, one sentence: no such file, or not of such a model; no weights beside it; a
    key of another type, one that nobody here knows, or one that changes the model in a way that is
    not supported.
    """
    try:
        found = read_json(path_of(folder) / "config.json")
    except (OSError, ValueError) as error:
        raise _no_checkpoint(folder, reason_of(error)) from error
    if "model_type" not in found:
        raise _no_checkpoint(folder, "it has no model_type")
    if (kind := found.pop("model_type")) != layout.kind:
        raise DataError(f"{folder} holds a model of type {shown(kind)}, expected {layout.kind!r}.")
    _weight_files(folder, layout)
    classes = found.pop("architectures", None)
    if classes and not (
        isinstance(classes, list) and all(name in layout.classes for name in classes)
    ):
        allowed = ", ".join(map(repr, layout.classes))
        raise DataError(
            f"{folder} has architectures {shown(classes)} in config.json, expected any of "
            f"{allowed}."
        )
    for key in keys.OFF:
        if value := found.pop(key, None):
            raise DataError(
                f"{folder} has {key} {shown(value)} in config.json, which changes the model: "
                "expected one without it."
            )
    if unknown := found.keys() - layout.read.keys() - layout.without_effect - keys.WITHOUT_EFFECT:
        raise DataError(
            f"{folder} has {_listed(unknown)} in config.json, and what that changes is not known: "
            "expected the keys of "
            f"{layout.classes[0]} in transformers; one that changes nothing that the model "
            "computes can be deleted."
        )
    for key, value in found.items():
        expected = layout.read[key][0] if key in layout.read else type(value)
        if type(value) is not expected and not (value is None and key in layout.nullable):
            raise DataError(
                f"{folder} has {key} {shown(value)} in config.json, expected one of type "
                f"{expected.__name__}."
            )
    return {key: found.get(key, usual) for key, (_, usual) in layout.read.items()}


def compare(
    folder: str,
    layout: Layout,
    found: Mapping[str, Any],
    wanted: Mapping[str, Any],
    at_least: Mapping[str, int] | None = None,
) -> None:
    """Returns if what `config` found has the values of `wanted` {key: value} and the numbers
    `at_least` {key: number}.

    What follows from another key (None) is not compared. Raises ValueError, one sentence.
    """
    limits = at_least or {}
    for key, value in {**wanted, **limits}.items():
        given, limited = found[key], key in limits
        if given is None or (given >= value if limited else _same(given, value)):
            continue
        usual = " (as where config.json does not say)" if _same(given, layout.read[key][1]) else ""
        verb = "needs" if limited else "has"
        raise ValueError(
            f"{folder} has {key} {shown(given)}{usual}, but the model asked for {verb} {value!r}."
        )


def held(folder: str, layout: Layout) -> Tensors:
    """Returns the tensors of a checkpoint by name, from the headers of its files.

    They are in model.safetensors, or in the shards beside it that model.safetensors.index.json
    lists. Raises DataError, one sentence: no such files, a damaged one, or shards with other
    tensors than listed.
    """
    if _weight_files(folder, layout) == SINGLE:
        return _header(path_of(folder) / SINGLE)
    index = path_of(folder) / INDEX
    listed = _listing(index)
    tensors: dict[str, Stored] = {}
    for file in sorted(set(listed.values())):
        shard = _header(index.with_name(file))
        if others := {name for name in shard if listed.get(name) != file}:
            raise DataError(
                f"{index.with_name(file)} holds {_listed(others)}, but {INDEX} does not list that "
                "there: expected the "
                "shards of one checkpoint."
            )
        tensors |= shard
    if missing := listed.keys() - tensors.keys():
        raise DataError(
            f"{index} lists {_listed(missing)}, but the shard named there does not hold that: "
            "expected the shards of one "
            "checkpoint."
        )
    return tensors


def value(folder: str, tensors: Tensors, name: str) -> np.ndarray:
    """Returns a tensor rounded to float32. Raises DataError if it is none of floating point, or not
    finite.
    """
    file, dtype, _ = tensors[name]
    if dtype not in FLOATS:
        raise DataError(
            f"{folder} has {name!r} of type {dtype}, expected one of {', '.join(FLOATS)}: "
            "quantized weights are not read."
        )
    # (beyond float32 is infinite, which is refused)
    with _opened(file) as opened, np.errstate(over="ignore"):
        tensor = opened.get_tensor(name).astype(np.float32)
    if not np.isfinite(tensor).all():
        raise DataError(
            f"{file} has values in {name} that are not finite: expected the weights of a trained "
            "model."
        )
    return tensor


def without_copies(folder: str, tensors: Tensors, of: str, copies: Iterable[str]) -> Tensors:
    """Returns `tensors` without those of `copies` that are there and have the values of tensor
    `of`.

    Raises DataError if one has others: the model has one tensor for all of them.
    """
    there = [name for name in copies if name in tensors and of in tensors]
    for name in there:
        if not np.array_equal(value(folder, tensors, name), value(folder, tensors, of)):
            raise DataError(
                f"{folder} has a {name!r} of its own, expected the values of {of!r}, which the "
                "model asked for has instead."
            )
    return {name: stored for name, stored in tensors.items() if name not in there}


def filled(
    folder: str,
    tensors: Tensors,
    tree: PyTree,
    names: Names,
    *,
    rows: Mapping[str, int] | None = None,
    left_out: Collection[str] = (),
    ignored: Collection[str] = (),
) -> PyTree:
    """Returns `tree` with the leaves at the paths of `names` taken from the checkpoint's `tensors`
    of those names.

    Kernels are turned from [out, in, ..] to [.., in, out].

    Args:
      rows: {tensor: rows that it must have}, of which the first are taken, as many as the leaf has.
      left_out: tensors that must be there and are not taken.
      ignored: tensors that may be there and are not taken.
    Raises DataError if a tensor is missing, has another shape, or is neither taken nor expected.
    """
    taken: set[str] = set()

    def walk(node: Any, path: tuple[str, ...]) -> Any:
        if isinstance(node, Mapping):
            return {key: walk(child, (*path, key)) for key, child in node.items()}
        if path not in names:
            return node
        taken.add(names[path])
        return _taken(folder, tensors, names[path], path[-1] == "kernel", node.shape, rows or {})

    made = walk(tree, ())
    for name in left_out:
        if name not in tensors:
            raise DataError(
                f"{folder} has no tensor {name!r}, which a model of its config.json has."
            )
    if unread := tensors.keys() - taken - {*left_out, *ignored}:
        raise DataError(
            f"{folder} has the tensors {_listed(unread)}, which the model asked for does not have: "
            "expected a checkpoint "
            "of which every tensor is read."
        )
    return made


def _taken(
    folder: str,
    tensors: Tensors,
    name: str,
    kernel: bool,
    ours: tuple[int, ...],
    rows: Mapping[str, int],
) -> np.ndarray:
    """Returns the tensor `name` as a leaf of shape `ours`; the rest as in `filled`."""
    shape = [ours[-1], ours[-2], *ours[:-2]] if kernel else list(ours)
    count = shape[0]
    shape[0] = rows.get(name, count)
    if name not in tensors:
        raise DataError(f"{folder} has no tensor {name!r}, expected one of shape {shape}.")
    if list(tensors[name].shape) != shape:
        raise DataError(
            f"{folder} has {name!r} of shape {list(tensors[name].shape)}, expected {shape}."
        )
    tensor = value(folder, tensors, name)[:count]
    if kernel:
        tensor = tensor.transpose(*range(2, tensor.ndim), 1, 0)
    return np.ascontiguousarray(tensor)


def shown(value: Any) -> str:
    """Returns a value of a file as a sentence quotes it."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}.."


def _listed(names: Iterable[str]) -> str:
    ordered = sorted(names)
    text = ", ".join(shown(name) for name in ordered[:_NAMED])
    return text if len(ordered) <= _NAMED else f"{text} and {len(ordered) - _NAMED} more"


def _same(given: Any, value: Any) -> bool:
    """Whether a value of config.json, whose type is that of its key, is `value`; in lists 1 is
    neither 1.0 nor true.
    """
    return given == value and (
        not isinstance(given, list) or all(type(number) is int for number in given)
    )


def _no_checkpoint(folder: str, reason: str) -> DataError:
    return DataError(
        f"{folder} is not a Hugging Face checkpoint: config.json: {reason}; expected config.json "
        f"and {SINGLE}."
    )


def _weight_files(folder: str, layout: Layout) -> str:
    """Returns which of `SINGLE` and `INDEX` the folder has. Raises DataError if none, with what it
    has instead.
    """
    path = path_of(folder)
    for name in (SINGLE, INDEX):
        if (path / name).is_file():
            return name
    if pickled := sorted(file.name for file in path.glob("pytorch_model*.bin")):
        raise DataError(
            f"{folder} has its weights in {_listed(pickled)}, files of PyTorch, expected {SINGLE}: "
            "in transformers, "
            f"{layout.classes[0]}.from_pretrained(FOLDER).save_pretrained(FOLDER) writes it."
        )
    others = sorted(file.name for file in path.glob("*") if file.name != "config.json")
    has = _listed(others) if others else "config.json alone"
    raise DataError(
        f"{folder} has no {SINGLE}, expected the weights there, or in shards with {INDEX}; it has "
        f"{has}."
    )


def _listing(index: Path) -> dict[str, str]:
    """Returns {tensor: name of its file} of the list of shards. Raises DataError if it is none, or
    names other folders.
    """
    try:
        listed = read_json(index).get("weight_map")
        if not isinstance(listed, dict) or any(type(file) is not str for file in listed.values()):
            raise ValueError("it has no weight_map from tensors to names of files")
    except (OSError, ValueError) as error:
        raise DataError(
            f"{index} cannot be read as a list of shards ({reason_of(error)}), expected one as "
            "transformers writes it."
        ) from error
    for file in sorted(set(listed.values())):
        if os.path.basename(file) != file or not file.endswith(".safetensors"):
            raise DataError(
                f"{index} lists the file {shown(file)}, expected names of .safetensors files "
                "beside it."
            )
        if not index.with_name(file).is_file():
            raise DataError(
                f"{index} lists the file {shown(file)}, which is not there: expected all shards "
                "beside it."
            )
    return listed


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """A safetensors file, whose library's errors, which share no base class, become a DataError."""
    from safetensors import safe_open

    try:
        with safe_open(file, framework="np") as opened:
            yield opened
    except Exception as error:
        raise DataError(
            f"{file} cannot be read as safetensors ({reason_of(error)}): expected the whole file "
            "of a model."
        ) from error


def _header(file: Path) -> Tensors:
    with _opened(file) as opened:
        written = (opened.metadata() or {}).get("format", "pt")
        names = list(opened.keys())  # (it is no mapping)
        slices = {name: opened.get_slice(name) for name in names}
        tensors = {
            name: Stored(file, s.get_dtype(), tuple(s.get_shape())) for name, s in slices.items()
        }
    if written != "pt":
        raise DataError(
            f"{file} is of format {shown(written)}, whose tensors may be turned, expected 'pt'."
        )
    return tensors


def t5_names(encoder: int, decoder: int | None = None, *, head: bool = False) -> Names:
    """Returns {path: tensor} of a T5 with the first `encoder` and `decoder` (as many) blocks, and a
    `head` of its own.
    """
    names: Names = {("shared", "embedding"): T5_EMBEDDING}
    if head:
        names["unembedding", "kernel"] = T5_HEAD
    blocks = {"encoder": encoder, "decoder": encoder if decoder is None else decoder}
    for side, depth in blocks.items():
        first = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        names[(f"{side}_bias", "embedding")] = first
        names[(f"{side}_norm", "scale")] = f"{side}.final_layer_norm.weight"
        for i in range(depth):
            names |= _block_names(side, i)
    return {("params", *path): name for path, name in names.items()}


def _block_names(side: str, i: int) -> Names:
    names: Names = {}
    cross = ["cross_attention"] if side == "decoder" else []
    for number, layer in enumerate(["attention", *cross, "feed_forward"]):
        theirs = f"{side}.block.{i}.layer.{number}"
        names[(f"{side}{i}", f"{layer}_norm", "scale")] = f"{theirs}.layer_norm.weight"
        if layer == "feed_forward":
            kernels = {ours: f"DenseReluDense.{ours}" for ours in ("wi", "wo")}
        else:
            kind = "SelfAttention" if layer == "attention" else "EncDecAttention"
            letters = {"query": "q", "key": "k", "value": "v", "output": "o"}
            kernels = {ours: f"{kind}.{letter}" for ours, letter in letters.items()}
        for ours, name in kernels.items():
            names[(f"{side}{i}", layer, ours, "kernel")] = f"{theirs}.{name}.weight"
    return names


def resnet18_names(head: bool, body: str = "resnet.") -> Names:
    """Returns {path: tensor} of a ResNet-18 with batch norm, its statistics, and with or without
    the head.

    `body` is before the names of all but the head's: nothing where a ResNetModel was saved, which
    has no head.
    """
    layers = {"stem": f"{body}embedder.embedder"}
    for i in range(8):
        theirs = f"{body}encoder.stages.{i // 2}.layers.{i % 2}"
        layers |= {f"block{i}_first": f"{theirs}.layer.0", f"block{i}_second": f"{theirs}.layer.1"}
        if i in (2, 4, 6):
            layers[f"block{i}_shortcut"] = f"{theirs}.shortcut"
    names: Names = {}
    for ours, theirs in layers.items():
        names["params", ours, "kernel"] = f"{theirs}.convolution.weight"
        for leaf, name in {"scale": "weight", "bias": "bias"}.items():
            names["params", f"{ours}_norm", leaf] = f"{theirs}.normalization.{name}"
        for leaf, name in {"mean": "running_mean", "var": "running_var"}.items():
            names["batch_stats", f"{ours}_norm", leaf] = f"{theirs}.normalization.{name}"
    if head:
        names |= {
            ("params", "head", leaf): name
            for leaf, name in zip(("kernel", "bias"), RESNET_HEAD, strict=True)
        }
    return names
