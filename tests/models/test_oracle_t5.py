"""T5 and decoding against transformers: logits, gradients, initial distribution, buckets, greedy
and beam search.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from plasticity_jax.models.t5 import bucket, t5
from plasticity_jax.text import decoding
from plasticity_jax.types import Text

pytestmark = pytest.mark.oracle
ATTENTION = {"q": "query", "k": "key", "v": "value", "o": "output"}


def theirs(torch, outputs, width, depth, heads, head_width, feed_forward):
    """A T5ForConditionalGeneration with initial weights, and scales and biases of positions drawn
    anew.
    """
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    model = transformers.T5ForConditionalGeneration(
        transformers.T5Config(
            vocab_size=outputs,
            d_model=width,
            num_layers=depth,
            num_heads=heads,
            d_kv=head_width,
            d_ff=feed_forward,
            dropout_rate=0.0,
            decoder_start_token_id=0,
        )
    ).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "relative_attention_bias" in name:
                weight.normal_()
            if "layer_norm" in name:
                weight.uniform_(0.5, 1.5)
    return model


def ours(weights, depth):
    """Our parameter tree of {their name: tensor}."""
    array = {name: weight.detach().numpy() for name, weight in weights.items()}

    def attention(at):
        return {
            name: {"kernel": array[f"{at}.{letter}.weight"].T} for letter, name in ATTENTION.items()
        }

    def block(side, i):
        at, last = f"{side}.block.{i}.layer", 1 if side == "encoder" else 2
        feed_forward = {
            name: {"kernel": array[f"{at}.{last}.DenseReluDense.{name}.weight"].T}
            for name in ("wi", "wo")
        }
        made = {
            "attention": attention(f"{at}.0.SelfAttention"),
            "attention_norm": {"scale": array[f"{at}.0.layer_norm.weight"]},
            "feed_forward": feed_forward,
            "feed_forward_norm": {"scale": array[f"{at}.{last}.layer_norm.weight"]},
        }
        if side == "decoder":
            made["cross_attention"] = attention(f"{at}.1.EncDecAttention")
            made["cross_attention_norm"] = {"scale": array[f"{at}.1.layer_norm.weight"]}
        return made

    tree = {"shared": {"embedding": array["shared.weight"]}}
    for side in ("encoder", "decoder"):
        bias = array[f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
        tree[f"{side}_bias"] = {"embedding": bias}
        tree[f"{side}_norm"] = {"scale": array[f"{side}.final_layer_norm.weight"]}
        tree |= {f"{side}{i}": block(side, i) for i in range(depth)}
    return tree


def texts(outputs, batch, source, targets):
    """(Text, targets [B, T]) of random ids; each row has its own number of ids before the
    padding.
    """
    random = np.random.default_rng(0)
    x, y = (
        random.integers(1, outputs, (batch, length)).astype(np.int32)
        for length in (source, targets)
    )
    x[np.arange(source) >= random.integers(source // 2, source, (batch, 1))] = 0
    return Text(jnp.asarray(x), jnp.asarray(np.pad(y, ((0, 0), (1, 0)))[:, :-1])), jnp.asarray(y)


SIZES = {  # outputs, width, depth, heads, head_width, feed_forward
    "paper": (32, 256, 1, 4, 64, 2048),
    "t5-small": (100, 512, 1, 8, 64, 2048),
    "two blocks": (20, 24, 2, 3, 8, 40),
}


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_logits_and_gradients(torch, sizes):
    outputs, width, depth, heads, head_width, feed_forward = sizes
    model = theirs(torch, *sizes)
    net = t5(
        outputs, width, depth, "relu", heads=heads, head_width=head_width, feed_forward=feed_forward
    )
    x, y = texts(outputs, 3, 40, 37)
    source, inputs, targets = (torch.tensor(np.array(a), dtype=torch.long) for a in (*x, y))
    expected = model(
        input_ids=source, attention_mask=source != 0, decoder_input_ids=inputs, use_cache=False
    ).logits
    torch.nn.functional.cross_entropy(expected.flatten(0, 1), targets.flatten()).backward()

    def objective(params):
        logits = jnp.asarray(net.apply({"params": params}, x))
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), logits

    params = ours(dict(model.named_parameters()), depth)
    shapes = jax.eval_shape(net.init, jax.random.key(0), x)["params"]
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, shapes)
    gradient, logits = jax.jit(jax.grad(objective, has_aux=True))(params)
    expected = expected.detach().numpy()
    assert np.abs(logits - expected).max() < 1e-5 * np.abs(expected).max()
    their_gradient = ours({name: weight.grad for name, weight in model.named_parameters()}, depth)
    for (path, a), b in zip(
        jax.tree.leaves_with_path(gradient), jax.tree.leaves(their_gradient), strict=True
    ):
        assert np.linalg.norm(a - b) < 1e-4 * np.linalg.norm(b), path


def test_initial_distribution(torch):
    sizes = (400, 96, 1, 6, 32, 512)
    transformers = pytest.importorskip("transformers")
    names = ("vocab_size", "d_model", "num_layers", "num_heads", "d_kv", "d_ff")
    torch.manual_seed(0)
    model = transformers.T5ForConditionalGeneration(
        transformers.T5Config(**dict(zip(names, sizes, strict=True)))
    )
    expected = ours(dict(model.named_parameters()), 1)
    net, (x, _) = (
        t5(400, 96, 1, "relu", heads=6, head_width=32, feed_forward=512),
        texts(400, 1, 4, 4),
    )
    found = jax.jit(net.init)(jax.random.key(0), x)["params"]
    for (path, a), b in zip(
        jax.tree.leaves_with_path(found), jax.tree.leaves(expected), strict=True
    ):
        # five standard errors of a mean and, about, of a ratio of deviations
        spread = 5 / np.sqrt(a.size) + 1e-6
        assert abs(a.mean() - b.mean()) < 2 * spread * max(b.std(), 1e-6), path
        assert abs(a.std() - b.std()) < spread * b.std() + 1e-6, path
        if b.std() > 0:
            assert np.abs(a).max() > 2.2 * a.std(), path  # normal, not uniform


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("buckets", "distance"), [(32, 128), (16, 20), (8, 1000), (64, 100)])
def test_buckets(torch, buckets, distance, bidirectional):
    attention = pytest.importorskip("transformers.models.t5.modeling_t5").T5Attention
    offset = np.arange(-1500, 1501)
    expected = attention._relative_position_bucket(
        torch.tensor(offset), bidirectional, buckets, distance
    )
    np.testing.assert_array_equal(
        bucket(offset, buckets, distance, bidirectional), expected.numpy()
    )


@pytest.fixture(scope="module")
def generation():
    """(their model, our step and start, source) of a small T5 whose texts vary and end now and
    then.
    """
    torch = pytest.importorskip("torch")
    model = theirs(torch, 11, 32, 2, 2, 16, 64)
    with torch.no_grad():
        for name, weight in model.named_parameters():  # else every text repeats one id
            weight.mul_(20 if name.endswith(".q.weight") else 1)
            weight.mul_(10 if name.startswith("decoder") and name.endswith("o.weight") else 1)
        model.shared.weight[1].mul_(1.5)
        model.decoder.final_layer_norm.weight.mul_(0.3)
    net = t5(11, 32, 2, "relu", heads=2, head_width=16, feed_forward=64)
    variables = {"params": ours(dict(model.named_parameters()), 2)}
    source = texts(11, 24, 9, 3)[0].source

    def start(length):
        return net.apply(variables, source, length, method="start")

    def step(cache, ids, position):
        return net.apply(variables, cache, ids, position, method="step")

    return model, start, step, source


def generated(torch, model, source, length, **settings):
    """Their texts [B, length], without the start id, filled up with 0."""
    source = torch.tensor(np.array(source), dtype=torch.long)
    ids = model.generate(
        input_ids=source,
        attention_mask=source != 0,
        max_new_tokens=length,
        do_sample=False,
        **settings,
    ).numpy()[:, 1:]
    ids = np.pad(ids, ((0, 0), (0, length - ids.shape[1])))
    ended = np.cumsum(ids == 1, axis=1) - (ids == 1) > 0  # beam search fills up with the end id
    return np.where(ended, 0, ids)


def varied(ids):
    """Whether some texts end and some do not, and many differ."""
    ends = (ids == 1).any(axis=1)
    return 0 < ends.sum() < len(ids) and len(np.unique(ids, axis=0)) >= 10


def test_greedy(torch, generation):
    model, start, step, source = generation
    expected = generated(torch, model, source, 12, num_beams=1)
    found = jax.jit(
        lambda: decoding.greedy(step, start(12), count=len(source), start=0, end=1, length=12)
    )()
    assert varied(expected)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("beams", "length_penalty"), [(5, 1.0), (3, 0.3), (5, -0.5)])
def test_beam(torch, generation, beams, length_penalty):
    model, start, step, source = generation
    settings = {"length_penalty": length_penalty}
    expected = generated(
        torch, model, source, 12, num_beams=beams, early_stopping=False, **settings
    )
    how = {"count": len(source), "start": 0, "end": 1, "length": 12, "beams": beams, **settings}
    found = jax.jit(lambda: decoding.beam(step, start(12), **how))()
    assert varied(expected)
    np.testing.assert_array_equal(found, expected)
