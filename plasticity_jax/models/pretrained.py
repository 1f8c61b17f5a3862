"""Weights of Hugging Face checkpoints (config.json and model.safetensors in a folder) in our parameter trees."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from plasticity_jax.datasets.contract import DataError
from plasticity_jax.types import PyTree

Tensors = Mapping[str, np.ndarray]
Names = dict[tuple[str, ...], str]
ROWS_ALIGNED = 128  # checkpoints of T5 fill the vocabulary up to a multiple of this


def check(
    folder: str,
    kind: str,
    wanted: Mapping[str, Any],
    at_least: Mapping[str, int] | None = None,
    sizes: Sequence[str] = (),
) -> dict[str, Any]:
    """Returns the folder's config.json after comparing it with `wanted` {key: value} and `at_least` {key: number}.

    Args:
      kind: its model_type, "t5" or "resnet".
      sizes: keys of further whole numbers.
    Raises DataError (no such checkpoint, or of another kind) or ValueError (another size), one sentence each.
    """
    file = Path(folder) / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        found = config["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = getattr(error, "strerror", None) or "not the configuration of a model"
        raise DataError(
            f"{folder} is not a Hugging Face checkpoint: {file.name}: {reason}; expected config.json and model.safetensors."
        ) from error
    if found != kind:
        raise DataError(f"{folder} holds a model of type {found!r}, expected {kind!r}.")
    if not (Path(folder) / "model.safetensors").is_file():
        raise DataError(f"{folder} has no model.safetensors, expected the weights there.")
    types = {key: type(value) for key, value in wanted.items()} | dict.fromkeys((*(at_least or {}), *sizes), int)
    for key in sizes:
        if key not in config:
            raise DataError(f"{folder} has no {key} in {file.name}, expected a whole number.")
    for key, expected in types.items():
        if key in config and type(config[key]) is not expected:
            raise DataError(
                f"{folder} has {key} {config[key]!r} in {file.name}, expected one of type {expected.__name__}."
            )
    for key, value in wanted.items():
        if key in config and config[key] != value:
            raise ValueError(f"{folder} has {key} {config[key]!r}, but the model asked for has {value!r}.")
    for key, least in (at_least or {}).items():
        if config.get(key, least) < least:
            raise ValueError(f"{folder} has {key} {config[key]}, but the model asked for needs {least}.")
    return config


def read(folder: str) -> Tensors:
    """Returns the tensors of a checkpoint by name, float32. Raises DataError if they cannot be read or are not finite."""
    from safetensors.numpy import load_file

    file = Path(folder) / "model.safetensors"
    try:
        tensors = {name: tensor.astype(np.float32) for name, tensor in load_file(file).items()}
    except Exception as error:  # the library's own errors share no base class
        reason = str(error).partition("\n")[0]
        raise DataError(
            f"{file} cannot be read as safetensors ({reason}): expected the whole file of a model."
        ) from error
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise DataError(
                f"{file} has values in {name} that are not finite: expected the weights of a trained model."
            )
    return tensors


def filled(folder: str, tensors: Tensors, tree: PyTree, names: Names) -> PyTree:
    """Returns `tree` with the leaves at the paths of `names` taken from the checkpoint's `tensors` of those names.

    Kernels are turned from [out, in, ..] to [.., in, out]; of a matrix with more rows than asked for the first are taken.
    Raises DataError if a tensor is missing or has another shape.
    """

    def taken(path: tuple[str, ...], leaf: Any) -> Any:
        if path not in names:
            return leaf
        if names[path] not in tensors:
            raise DataError(f"{folder} has no tensor {names[path]!r}, expected one of shape {list(leaf.shape)}.")
        tensor = tensors[names[path]]
        if path[-1] == "kernel":
            tensor = tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor.T
        elif path[-1] == "embedding":
            tensor = tensor[: leaf.shape[0]]
        if tensor.shape != leaf.shape:
            raise DataError(
                f"{folder} has {names[path]!r} of shape {list(tensor.shape)}, expected {list(leaf.shape)} (axes as here)."
            )
        return np.ascontiguousarray(tensor)

    def walk(node: Any, path: tuple[str, ...]) -> Any:
        if isinstance(node, Mapping):
            return {key: walk(child, (*path, key)) for key, child in node.items()}
        return taken(path, node)

    return walk(tree, ())


def t5_names(depth: int) -> Names:
    """Returns {path under "params": tensor} of a T5 with the first `depth` blocks of each side."""
    names: Names = {("shared", "embedding"): "shared.weight"}
    for side in ("encoder", "decoder"):
        first = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        names[(f"{side}_bias", "embedding")] = first
        names[(f"{side}_norm", "scale")] = f"{side}.final_layer_norm.weight"
        for i in range(depth):
            layers = (
                ["attention", "feed_forward"] if side == "encoder" else ["attention", "cross_attention", "feed_forward"]
            )
            for number, layer in enumerate(layers):
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
    return {("params", *path): name for path, name in names.items()}


def resnet18_names(head: bool) -> Names:
    """Returns {path: tensor} of a ResNet-18 with batch norm, its statistics, and with or without the head."""
    layers = {"stem": "resnet.embedder.embedder"}
    for i in range(8):
        theirs = f"resnet.encoder.stages.{i // 2}.layers.{i % 2}"
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
        names |= {("params", "head", "kernel"): "classifier.1.weight", ("params", "head", "bias"): "classifier.1.bias"}
    return names
