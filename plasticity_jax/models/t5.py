"""T5, the encoder-decoder transformer of the machine translation experiments, and its cache for
decoding step by step.
"""

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import initializers

from plasticity_jax.models import layers
from plasticity_jax.models.pretrained import keys as keys_
from plasticity_jax.models.pretrained import reading
from plasticity_jax.types import Array, PyTree, Text, UnitGroup

Passed = Callable[[Array], Array]

PADDING = 0  # the id that `source` is filled up with
EPSILON = 1e-6  # of the norms
# ids that are no text in T5's SentencePiece file
SPECIAL = {"padding": PADDING, "end": 1, "unknown": 2}
HEADS = ("tied", "own")
# rows of a checkpoint behind those of the file's pieces, for <extra_id_0> to <extra_id_99>
EXTRA_IDS = 100


class Memory(NamedTuple):
    """What an attention layer attends to.

    Attributes:
      keys, values: [B, heads, K, head_width], the layout in which a single query is fast.
    """

    keys: Array
    values: Array


class Cache(NamedTuple):
    """State of a decoder between two steps; the leading axis of every leaf is the batch, so rows
    can be reordered.

    Attributes:
      seen: [B, 1, 1, S] bool, where the source is not padding.
      source: Memory of the encoder's states for the cross-attention of each block, never changed.
      past: Memory of the decoder's own states for the self-attention of each block, K = length,
        filled by steps.
    """

    seen: Array
    source: tuple[Memory, ...]
    past: tuple[Memory, ...]


def bucket(offset: np.ndarray, buckets: int, distance: int, bidirectional: bool) -> np.ndarray:
    """Returns the bucket in 0..buckets-1 of each relative position `offset` = key position - query
    position.

    Half of a direction's buckets hold one distance each, the others grow geometrically up to
    `distance`, beyond which all share the last. Bidirectional: half of the buckets for keys behind,
    half for keys ahead; else keys ahead count as distance 0. Source: Raffel et al. 2020, section
    2.1; boundaries rounded in float32 as transformers does.
    """
    if bidirectional:
        buckets //= 2
        first, apart = buckets * (offset > 0), np.abs(offset)
    else:
        first, apart = 0, np.maximum(-offset, 0)
    exact = buckets // 2
    ratio = np.log(np.maximum(apart, exact).astype(np.float32) / np.float32(exact))
    grown = exact + (
        ratio / np.float32(np.log(distance / exact)) * np.float32(buckets - exact)
    ).astype(int)
    return first + np.where(apart < exact, apart, np.minimum(grown, buckets - 1))


class Linear(nn.Module):
    """A matrix product with a learned `kernel` [inputs, outputs], drawn from a normal distribution;
    no bias.
    """

    inputs: int
    outputs: int
    deviation: float

    def setup(self):
        """Makes the kernel."""
        self.kernel = self.param(
            "kernel", initializers.normal(self.deviation), (self.inputs, self.outputs), jnp.float32
        )

    def __call__(self, x: Array) -> Array:
        """Returns [..., outputs] of `x` [..., inputs]."""
        if self.inputs <= self.outputs:
            return layers.of_rows(x, lambda rows: rows @ self.kernel)
        # On a CPU the gradient of a tall kernel takes twice the time of that of a flat one; the
        # barrier keeps it flat.
        flat = jax.lax.optimization_barrier(self.kernel.T)
        return layers.of_rows(x, lambda rows: rows @ flat.T)


def _together(x: Array, *linear: Linear) -> list[Array]:
    """Returns what each layer makes of the same `x`, by one matrix product, which is faster than
    several.
    """
    kernel = jnp.concatenate([layer.kernel for layer in linear], axis=1)
    parts = np.cumsum([layer.outputs for layer in linear])[:-1]
    return jnp.split(layers.of_rows(x, lambda rows: rows @ kernel), parts, axis=-1)


def _offset(length: int) -> np.ndarray:
    places = np.arange(length)
    return places[None] - places[:, None]


def _bias(table: nn.Embed, buckets: np.ndarray | Array) -> Array:
    """Returns [1, heads, Q, K] of a table [buckets, heads] and the `buckets` [Q, K]."""
    return table(jnp.asarray(buckets)).transpose(2, 0, 1)[None]


def _norm() -> nn.RMSNorm:
    return nn.RMSNorm(epsilon=EPSILON)


class Attention(nn.Module):
    """Multi-head attention without biases and without a scale of the scores (the initial weights
    make up for it).
    """

    width: int
    heads: int
    head_width: int

    def setup(self):
        """Makes the four projections."""
        inner = self.heads * self.head_width
        self.query = Linear(self.width, inner, (self.width * self.head_width) ** -0.5)
        self.key = Linear(self.width, inner, self.width**-0.5)
        self.value = Linear(self.width, inner, self.width**-0.5)
        self.output = Linear(inner, self.width, inner**-0.5)

    def memory(self, x: Array) -> Memory:
        """Returns keys and values of `x` [B, K, D]."""
        return Memory(*map(self._split, _together(x, self.key, self.value)))

    def __call__(self, x: Array, memory: Memory, seen: Array, bias: Array | None = None) -> Array:
        """Returns [B, Q, D]: each row of `x` [B, Q, D] attends to `memory` where `seen`, scores
        raised by `bias`.

        `seen` (bool) and `bias` are broadcast against the scores [B, heads, Q, K]. A row that sees
        nothing attends to all alike, as in transformers.
        """
        return self._mixed(self._split(self.query(x)), memory, seen, bias)

    def within(self, x: Array, seen: Array, bias: Array) -> Array:
        """Returns [B, L, D]: each row of `x` [B, L, D] attends to all its rows, as `self(x,
        self.memory(x), seen, bias)`.
        """
        query, key, value = map(self._split, _together(x, self.query, self.key, self.value))
        return self._mixed(query, Memory(key, value), seen, bias)

    def _mixed(self, query: Array, memory: Memory, seen: Array, bias: Array | None) -> Array:
        scores = jnp.einsum("bhqd,bhkd->bhqk", query, memory.keys)
        if bias is not None:
            scores = scores + bias
        scores = jnp.where(seen, scores, jnp.finfo(scores.dtype).min)
        mixed = jnp.einsum("bhqk,bhkd->bhqd", jax.nn.softmax(scores), memory.values)
        mixed = mixed.transpose(0, 2, 1, 3)
        return self.output(mixed.reshape(*mixed.shape[:2], -1))

    def _split(self, x: Array) -> Array:
        return layers.by_head(x, self.heads)


def _as_is(units: Array) -> Array:
    return units


class FeedForward(nn.Module):
    """Dense -> activation -> dense, without biases."""

    width: int
    units: int
    activation: str

    def setup(self):
        """Makes the two layers."""
        self.wi = Linear(self.width, self.units, self.width**-0.5)
        self.wo = Linear(self.units, self.width, self.units**-0.5)

    def __call__(self, x: Array, passed: Passed = _as_is) -> tuple[Array, Array, Array]:
        """Returns the output [B, L, D], and the units [B, L, units] before and after the
        activation; `passed` is what becomes of these.
        """
        before = self.wi(x)
        units = passed(layers.ACTIVATIONS[self.activation](before))
        return self.wo(units), before, units


class Block(nn.Module):
    """Self-attention, in a decoder cross-attention, and a feed-forward layer, each x +
    layer(norm(x)).
    """

    width: int
    activation: str
    heads: int
    head_width: int
    units: int
    decoder: bool

    def setup(self):
        """Makes the layers and their norms."""
        self.attention_norm, self.attention = (
            _norm(),
            Attention(self.width, self.heads, self.head_width),
        )
        if self.decoder:
            self.cross_attention_norm = _norm()
            self.cross_attention = Attention(self.width, self.heads, self.head_width)
        self.feed_forward_norm = _norm()
        self.feed_forward = FeedForward(self.width, self.units, self.activation)

    def attend(self, x: Array, seen: Array, bias: Array) -> Array:
        """Returns `x` [B, L, D] after self-attention."""
        return x + self.attention.within(self.attention_norm(x), seen, bias)

    def attend_past(
        self, x: Array, past: Memory, position: Array, seen: Array, bias: Array
    ) -> tuple[Array, Memory]:
        """Returns `x` [B, 1, D], the state at `position`, after self-attention, and `past` with it
        filled in.
        """
        y = self.attention_norm(x)
        new, update = self.attention.memory(y), jax.lax.dynamic_update_slice_in_dim
        past = Memory(*(update(old, row, position, 2) for old, row in zip(past, new, strict=True)))
        return x + self.attention(y, past, seen, bias), past

    def attend_source(self, x: Array, source: Memory, seen: Array) -> Array:
        """Returns `x` [B, T, D] after cross-attention to `source`."""
        return x + self.cross_attention(self.cross_attention_norm(x), source, seen)

    def feed(self, x: Array, passed: Passed = _as_is) -> tuple[Array, Array, Array]:
        """Returns `x` [B, L, D] after the feed-forward layer, and that layer's units [B, L, units]
        before and after the activation; `passed` is what becomes of these.
        """
        y, before, units = self.feed_forward(self.feed_forward_norm(x), passed)
        return x + y, before, units


class T5(layers.Model):
    """An encoder and a decoder of `depth` blocks each, on sequences of ids below `outputs`.

    Blocks are pre-norm: x + layer(norm(x)), with self-attention, in the decoder cross-attention,
    and a feed-forward layer, which is wi -> activation -> wo. Norms are x / sqrt(mean(x^2) + 1e-6)
    times a scale. Positions enter through learned biases of the self-attention's scores per head
    and bucket of relative positions, one table for all blocks of a side. Encoder, decoder and
    logits share one embedding; logits are (h / sqrt(width)) E^T. With `head` "own" they are h W,
    with a matrix of their own (`unembedding`), as T5 version 1.1 has it. There are no other biases,
    and no dropout. Nothing attends to padding (0) in `source`; the decoder's self-attention is
    causal and sees padding.

    Groups of activations, in order: `encoder{i}_units` [B, S, feed_forward] and `decoder{i}_units`
    [B, T, feed_forward] after the activation, which are unit groups, and `decoder_out` [B, T,
    width], the decoder's normalized final state, which no activation function made.

    Source: Raffel et al. 2020; layout, rounding and initial distribution as
    T5ForConditionalGeneration in transformers. Liu & Mou have one block a side. Deviation: no
    dropout, which t5-small has at 0.1.
    """

    outputs: int
    width: int
    depth: int
    activation: str = "relu"
    heads: int = 4
    head_width: int = 64
    feed_forward: int = 2048
    buckets: int = 32
    distance: int = 128
    head: str = "tied"
    pretrained: str = ""

    inputs: ClassVar[tuple[str, ...]] = ("text",)
    LINEAR_GROUPS: ClassVar[tuple[str, ...]] = ("decoder_out",)
    CHOICES: ClassVar[Mapping[str, tuple[str, ...]]] = {"head": HEADS}
    CRELU: ClassVar[bool] = False

    def setup(self):
        """Makes the embedding, the position biases, the blocks and the final norms."""
        self.shared = nn.Embed(self.outputs, self.width, embedding_init=initializers.normal(1.0))
        bias = initializers.normal(self.width**-0.5)
        self.encoder_bias = nn.Embed(self.buckets, self.heads, embedding_init=bias)
        self.decoder_bias = nn.Embed(self.buckets, self.heads, embedding_init=bias)
        sizes = self.width, self.activation, self.heads, self.head_width, self.feed_forward
        for i in range(self.depth):
            setattr(self, f"encoder{i}", Block(*sizes, decoder=False))
            setattr(self, f"decoder{i}", Block(*sizes, decoder=True))
        self.encoder_norm, self.decoder_norm = _norm(), _norm()
        if self.head == "own":
            self.unembedding = Linear(self.width, self.outputs, 1.0)

    def __call__(self, x: Text, train: bool = False) -> Array:
        """Returns logits [B, T, outputs]."""
        del train
        state, seen = self._encode(x.source)
        offset = _offset(x.inputs.shape[1])
        causal = jnp.asarray(offset <= 0)[None, None]
        bias = _bias(
            self.decoder_bias, bucket(offset, self.buckets, self.distance, bidirectional=False)
        )
        h = self.shared(x.inputs)
        for i, block in enumerate(self._blocks("decoder")):
            h = block.attend(h, causal, bias)
            h = block.attend_source(h, block.cross_attention.memory(state), seen)
            passed = functools.partial(layers.shifted, self, f"decoder{i}_units")
            h, before, units = block.feed(h, passed)
            layers.sow(self, f"decoder{i}_units", units, before)
        return self._logits(h)

    def start(self, source: Array, length: int) -> Cache:
        """Returns the cache to decode at most `length` ids for `source` [B, S] with `step`."""
        state, seen = self._encode(source)
        empty = jnp.zeros((len(source), self.heads, length, self.head_width), state.dtype)
        blocks = self._blocks("decoder")
        return Cache(
            seen,
            tuple(b.cross_attention.memory(state) for b in blocks),
            (Memory(empty, empty),) * len(blocks),
        )

    def step(self, cache: Cache, ids: Array, position: Array) -> tuple[Array, Cache]:
        """Returns the logits [B, outputs] that follow `ids` [B], which stand at `position` [], and
        the cache with them.

        Positions 0, 1, .. must be taken in order; logits equal those of a call on the whole
        sequence.
        """
        places = np.arange(cache.past[0].keys.shape[2])
        apart = position - jnp.asarray(places)
        buckets = jnp.asarray(bucket(-places, self.buckets, self.distance, bidirectional=False))
        bias = _bias(self.decoder_bias, buckets[jnp.maximum(apart, 0)][None])
        h, past = self.shared(ids)[:, None], []
        for block, source, old in zip(
            self._blocks("decoder"), cache.source, cache.past, strict=True
        ):
            h, new = block.attend_past(h, old, position, (apart >= 0)[None, None, None], bias)
            h, _, _ = block.feed(block.attend_source(h, source, cache.seen))
            past.append(new)
        return self._logits(h)[:, 0], cache._replace(past=tuple(past))

    def output_layer(self) -> tuple[str, ...] | None:
        """Returns the path of the logits' own matrix in the parameter tree; None where they share
        the embedding.
        """
        return ("unembedding",) if self.head == "own" else None

    def groups(self) -> list[str]:
        """Returns the names of the groups of activations, in order."""
        return [*self.units(), *self.LINEAR_GROUPS]

    def units(self) -> dict[str, UnitGroup]:
        """Returns where the incoming and outgoing weights of the feed-forward units are."""
        sides = itertools.product(("encoder", "decoder"), range(self.depth))
        blocks = [f"{side}{i}" for side, i in sides]
        layer = {block: (block, "feed_forward") for block in blocks}
        return {
            f"{block}_units": UnitGroup((*layer[block], "wi"), None, (*layer[block], "wo"))
            for block in blocks
        }

    def _blocks(self, side: str) -> list[Block]:
        return [getattr(self, f"{side}{i}") for i in range(self.depth)]

    def _encode(self, source: Array) -> tuple[Array, Array]:
        """Returns the encoder's final state [B, S, D], and where the source is seen, [B, 1, 1,
        S].
        """
        seen = (source != PADDING)[:, None, None]
        offset = _offset(source.shape[1])
        bias = _bias(
            self.encoder_bias, bucket(offset, self.buckets, self.distance, bidirectional=True)
        )
        h = self.shared(source)
        for i, block in enumerate(self._blocks("encoder")):
            passed = functools.partial(layers.shifted, self, f"encoder{i}_units")
            h, before, units = block.feed(block.attend(h, seen, bias), passed)
            layers.sow(self, f"encoder{i}_units", units, before)
        return self.encoder_norm(h), seen

    def check_ids(self, special: Mapping[str, int]) -> None:
        """Raises ValueError if the model begins from a checkpoint whose ids are not those of texts
        with the ids `special` that are no text, none where ids are characters.

        T5's must then be those of the texts, since one piece more in front would shift all others.
        The checkpoint's rows are the ids; of pieces, with or without the extra ids, and they may be
        filled up to a multiple of `ROWS_ALIGNED`: T5's 32,000 pieces have 32,128 rows.
        """
        if not self.pretrained:
            return
        folder, outputs, layout = self.pretrained, self.outputs, keys_.T5
        found, allowed = reading.config(folder, layout), [self.outputs]
        if special:
            # (a text of characters begins with an id of its own)
            reading.compare(folder, layout, found, {"decoder_start_token_id": PADDING})
            _check_special(folder, special)
            counts, step = (outputs, outputs + EXTRA_IDS), reading.ROWS_ALIGNED
            allowed = sorted({*counts, *(-(-count // step) * step for count in counts)})
        _check_rows(folder, found["vocab_size"], outputs, allowed)

    def load(self, variables: PyTree) -> PyTree:
        """Returns `variables` with the pretrained checkpoint's values."""
        folder, own, layout = self.pretrained, self.head == "own", keys_.T5
        found, tensors = reading.config(folder, layout), reading.held(folder, layout)
        copies = reading.T5_COPIES if own else (*reading.T5_COPIES, reading.T5_HEAD)
        tensors = reading.without_copies(folder, tensors, reading.T5_EMBEDDING, copies)
        deeper = found["num_layers"], found["num_decoder_layers"] or found["num_layers"]
        # (a number that is too large for these tensors would be one name after the other: one
        # missing says it)
        all_names = reading.t5_names(*(min(count, len(tensors)) for count in deeper)).values()
        return reading.filled(
            folder,
            tensors,
            variables,
            reading.t5_names(self.depth, head=own),
            rows=dict.fromkeys((reading.T5_EMBEDDING, reading.T5_HEAD), found["vocab_size"]),
            left_out=list(all_names),
            ignored=[reading.T5_UNUSED],
        )

    def _logits(self, h: Array) -> Array:
        h = self.decoder_norm(h)
        layers.sow(self, "decoder_out", h)
        if self.head == "own":
            return self.unembedding(h)
        return layers.of_rows(h * self.width**-0.5, self.shared.attend)


def t5(
    outputs: int,
    width: int,
    depth: int,
    activation: str,
    *,
    heads: int = 4,
    head_width: int = 64,
    feed_forward: int = 2048,
    head: str = "tied",
    pretrained: str = "",
) -> T5:
    """T5: an encoder and a decoder of `depth` blocks each, with root mean square norms and T5's own
    initial weights.

    `pretrained` is a folder with a Hugging Face checkpoint of a T5 of this width, heads and
    feed-forward units: a run starts from its first `depth` blocks of each side; what methods draw
    afresh is random all the same. `head` "own" gives the logits a matrix of their own and no scale,
    as checkpoints have it that say tie_word_embeddings or, since version 5 of transformers,
    scale_decoder_outputs false; gated feed-forward layers, as many of those have, are not
    supported. Whether its ids are those of a run's texts is for `check_ids` to say. Raises
    ValueError for activation "crelu", which doubles the units, another `head`, or `heads`,
    `head_width`, `feed_forward` < 1; DataError or ValueError for a checkpoint that is none, does
    not fit the network, or has fewer than `outputs` ids.
    """
    model = T5(
        outputs,
        width,
        depth,
        activation,
        heads,
        head_width,
        feed_forward,
        head=head,
        pretrained=pretrained,
    )
    if pretrained:
        _check_pretrained(model)
    return model


def _check_pretrained(model: T5) -> None:
    """Raises ValueError or DataError if the model's checkpoint does not compute as the model, by
    what its files say.
    """
    folder, layout = model.pretrained, keys_.T5
    sizes = {
        "d_model": model.width,
        "num_heads": model.heads,
        "d_kv": model.head_width,
        "d_ff": model.feed_forward,
    }
    units = {
        "feed_forward_proj": model.activation,
        "dense_act_fn": model.activation,
        "is_gated_act": False,
    }
    bias = {
        "relative_attention_num_buckets": model.buckets,
        "relative_attention_max_distance": model.distance,
    }
    ids = {"pad_token_id": SPECIAL["padding"], "eos_token_id": SPECIAL["end"]}
    wanted = {
        **sizes,
        **units,
        **bias,
        **ids,
        "layer_norm_epsilon": EPSILON,
        "is_encoder_decoder": True,
    }
    found = reading.config(folder, layout)
    blocks = {"num_layers": model.depth, "num_decoder_layers": model.depth}
    reading.compare(folder, layout, found, wanted, blocks)
    _check_head(folder, found, model.head)
    if found["vocab_size"] < model.outputs:
        _check_rows(folder, found["vocab_size"], model.outputs, [model.outputs])


def _check_head(folder: str, found: Mapping[str, Any], head: str) -> None:
    """Raises ValueError if a checkpoint's logits are scaled where those of `head` are not, or the
    other way round.

    Versions 4 and 5 of transformers say it by different keys, `scale_decoder_outputs` has the last
    word.
    """
    key = (
        "tie_word_embeddings" if found["scale_decoder_outputs"] is None else "scale_decoder_outputs"
    )
    fitting = "tied" if found[key] else "own"
    if head != fitting:
        raise ValueError(
            f"{folder} has {key} {found[key]}, but the model asked for has t5.head {head!r}: "
            f"allowed is {fitting!r}."
        )


def _check_special(folder: str, special: Mapping[str, int]) -> None:
    """Raises ValueError if ids that are no text are others than T5's."""
    if special != SPECIAL:
        expected = ", ".join(f"{name} {i}" for name, i in SPECIAL.items())
        found = ", ".join(f"{name} {i}" for name, i in special.items())
        raise ValueError(
            f"{folder} is a T5, whose ids that are no text are {expected}, but those of the "
            f"run's SentencePiece model are {found}: allowed is the SentencePiece model that "
            "the checkpoint was trained with."
        )


def _check_rows(folder: str, rows: int, outputs: int, allowed: Sequence[int]) -> None:
    """Raises ValueError if a checkpoint has not as many ids as are allowed."""
    if rows not in allowed:
        raise ValueError(
            f"{folder} has a vocabulary of {reading.shown(rows)} ids, but that of the run has "
            f"{outputs}: allowed are checkpoints of {' or '.join(map(str, allowed))} ids, or a run "
            "with the vocabulary that the checkpoint was trained with."
        )
