"""Damaged checkpoints: each is told in one sentence, or gives exactly what the whole one gives."""

import functools
import json
import math
import random
import struct

import pytest
from helpers.checkpoint_files import (
    KINDS,
    ODD,
    loaded,
    mutated_values,
    same,
    shards,
    t5_folder,
    t5_network,
    t5_tensors,
)
from helpers.mutations import NUMBERS, check, mutated

from plasticity_jax.datasets import DataError

FAULTS = (ValueError, DataError)
kinds = pytest.mark.parametrize("kind", KINDS)
numbers = pytest.mark.parametrize("number", NUMBERS)
how = pytest.mark.parametrize("how", ["bytes", "values"])


def mutated_header(content, number):
    """A safetensors file of which one thing that the header says is another, the tensors as they
    were.
    """
    generator = random.Random(number)
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    name = generator.choice(sorted(header.keys() - {"__metadata__"}))
    kind = generator.choice(["dtype", "shape", "offsets", "name", "drop", "add", "odd", "metadata"])
    entry = header[name]
    if kind == "dtype":
        entry["dtype"] = generator.choice(
            ["F16", "BF16", "F64", "I32", "U32", "I64", "U8", "BOOL", "F8_E4M3", "abc", 3]
        )
    elif kind == "shape":
        shape = entry["shape"]
        flat = [math.prod(shape)]
        entry["shape"] = generator.choice(
            [shape[::-1], flat, [*shape, 1], [1, *shape], shape[:-1], [-1], [10**30], 3]
        )
    elif kind == "offsets":
        i, step = generator.randrange(2), generator.choice([-4, -1, 1, 4, 10**20, -(10**6)])
        entry["data_offsets"][i] += step
    elif kind == "name":
        header[generator.choice([name[:-1], name + "x", name.upper(), "", "a" * 5000])] = (
            header.pop(name)
        )
    elif kind == "drop":
        header.pop(name)
    elif kind == "add":
        header["another"] = {
            "dtype": "F32",
            "shape": [0],
            "data_offsets": [entry["data_offsets"][1]] * 2,
        }
    elif kind == "odd":
        entry[generator.choice(sorted(entry))] = generator.choice(
            [odd for odd in ODD if odd == odd]
        )
    else:
        header["__metadata__"] = generator.choice(
            [{}, None, 3, {"format": "flax"}, {"format": 3}, {"a": "b"}]
        )
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def says(config, matters):
    """What a config.json says of the function, as text, so that 1 is neither 1.0 nor true."""
    found = {
        key: usual if config.get(key) is None and usual is not None else config.get(key)
        for key, usual in matters.items()
    }
    if "num_layers" in found and found["num_decoder_layers"] is None:
        found["num_decoder_layers"] = found["num_layers"]
    empty = {"quantization_config", "pruned_heads", "per_layer_config", "auto_map"}
    return json.dumps(
        {key: value or None if key in empty else value for key, value in found.items()}
    )


def hit_the_header(content, number):
    """A safetensors file damaged in its header, most of the time, and at the length of it."""
    end = 8 + struct.unpack("<Q", content[:8])[0]
    return mutated(content[:end], number) + content[end:]


def mutated_shards(content, number):
    """A list of shards with odd values, and tensors that are said to be in another shard."""
    generator, index = random.Random(number), json.loads(content)
    listed = index["weight_map"]
    if generator.random() < 0.3:
        listed[generator.choice(sorted(listed))] = generator.choice(sorted(set(listed.values())))
    else:
        listed = json.loads(mutated_values(json.dumps(listed), number, ["another"]))
    return json.dumps(
        {**index, generator.choice(["weight_map"] * 3 + ["metadata"]): listed}
    ).encode()


@numbers
@kinds
@how
def test_a_damaged_config_is_told_or_says_the_same(tmp_path, kind, number, how):
    network, write, config, matters = KINDS[kind]
    file, want = write(tmp_path) / "config.json", loaded(network, tmp_path)

    def right(found):
        return same(found, want) and says(json.loads(file.read_bytes()), matters) == says(
            config, matters
        )

    more = [*matters, "dtype", "id2label", "new", "n_positions", "out_features", "architectures"]
    mutate = mutated if how == "bytes" else functools.partial(mutated_values, more=more)
    refused, read = check(
        file, number, lambda: loaded(network, tmp_path), right, FAULTS, str(tmp_path), mutate
    )
    assert refused > read  # more is damage than not


@numbers
@kinds
@how
def test_a_damaged_header_of_tensors_is_told_or_gives_the_same(tmp_path, kind, number, how):
    network, write, *_ = KINDS[kind]
    file, want = write(tmp_path) / "model.safetensors", loaded(network, tmp_path)
    mutate = hit_the_header if how == "bytes" else mutated_header
    read = functools.partial(loaded, network, tmp_path)
    refused, taken = check(
        file, number, read, lambda found: same(found, want), FAULTS, str(tmp_path), mutate
    )
    assert refused > taken


@numbers
@how
def test_a_damaged_list_of_shards_is_told_or_gives_the_same(tmp_path, number, how):
    folder = t5_folder(tmp_path)
    (folder / "model.safetensors").unlink()
    shards(folder, t5_tensors())
    file, want = folder / "model.safetensors.index.json", loaded(t5_network, folder)
    mutate = mutated if how == "bytes" else mutated_shards
    read = functools.partial(loaded, t5_network, folder)
    refused, taken = check(
        file, number, read, lambda found: same(found, want), FAULTS, str(tmp_path), mutate
    )
    assert refused > taken
