"""T5: a plain numpy forward pass, what is seen of what, the cache, groups and unit groups, one step
under vmap.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from plasticity_jax import methods
from plasticity_jax.models.t5 import bucket, t5
from plasticity_jax.types import Context, Structure, Text

pytestmark = pytest.mark.usefixtures("compiled_quickly")

NET = t5(13, 12, 2, "gelu", heads=2, head_width=5, feed_forward=17)
SOURCE, INPUTS = 9, 8


def texts(batch=3):
    random = np.random.default_rng(0)
    source = random.integers(1, 13, (batch, SOURCE)).astype(np.int32)
    source[np.arange(SOURCE) >= np.arange(batch)[:, None] * 2 + 4] = 0
    inputs = random.integers(0, 13, (batch, INPUTS)).astype(np.int32)
    return Text(jnp.asarray(source), jnp.asarray(inputs))


@pytest.fixture(scope="module")
def params():
    """Every parameter drawn, so that a scale or a bias that is not read shows."""
    random = np.random.default_rng(1)

    def draw(path, leaf):
        if path[-1].key == "scale":
            return random.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        return random.normal(0, 1 if path[-1].key == "embedding" else 0.5, leaf.shape).astype(
            np.float32
        )

    return jax.tree.map_with_path(
        draw, jax.eval_shape(NET.init, jax.random.key(0), texts())["params"]
    )


apply = jax.jit(lambda params, x: NET.apply({"params": params}, x))
hidden = jax.jit(lambda params, x: NET.apply({"params": params}, x, mutable="hidden")[1]["hidden"])


def norm(x, p):
    return x / np.sqrt((x**2).mean() + 1e-6) * p["scale"]


def attention(p, x, memory, seen, bias):
    """[Q, D]: for each query and head, the mean of the values seen, weighted by exp(score +
    bias).
    """
    query, keys, values = (
        x @ p["query"]["kernel"],
        memory @ p["key"]["kernel"],
        memory @ p["value"]["kernel"],
    )
    rows = []
    for q in range(len(x)):
        row = []
        for head in (slice(0, 5), slice(5, 10)):
            weight = np.zeros(len(memory))
            for k in range(len(memory)):
                if seen(q, k):
                    weight[k] = np.exp(query[q, head] @ keys[k, head] + bias(q, k, head.start // 5))
            row.append(weight / weight.sum() @ values[:, head])
        rows.append(np.concatenate(row))
    return np.array(rows) @ p["output"]["kernel"]


def plain(params, source, inputs):
    """Logits [T, outputs] of one example, in float64 and loops."""
    params = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    activation = np.vectorize(lambda x: float(jax.nn.gelu(x, approximate=False)))

    def real(_, k):
        return source[k] != 0

    def normed(h, p):
        return np.array([norm(row, p) for row in h])

    def side(name, h, seen, memory):
        both = name == "encoder"

        def bias(q, k, head):
            return params[f"{name}_bias"]["embedding"][bucket(np.array(k - q), 32, 128, both), head]

        for i in range(2):
            p = params[f"{name}{i}"]
            y = normed(h, p["attention_norm"])
            h = h + attention(p["attention"], y, y, seen, bias)
            if memory is not None:
                y = normed(h, p["cross_attention_norm"])
                h = h + attention(p["cross_attention"], y, memory, real, lambda q, k, head: 0)
            units = activation(
                normed(h, p["feed_forward_norm"]) @ p["feed_forward"]["wi"]["kernel"]
            )
            h = h + units @ p["feed_forward"]["wo"]["kernel"]
        return normed(h, params[f"{name}_norm"])

    table = params["shared"]["embedding"]
    memory = side("encoder", table[source], real, None)
    out = side("decoder", table[inputs], lambda q, k: k <= q, memory)
    return out / np.sqrt(12) @ table.T


def test_logits_are_those_of_plain_loops(params):
    x = texts(2)
    expected = np.array([plain(params, *(np.asarray(a[i]) for a in x)) for i in range(2)])
    np.testing.assert_allclose(
        apply(params, x), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max()
    )


def test_buckets_by_hand():
    offset = np.array([-200, -128, -16, -8, -7, -1, 0, 1, 7, 8, 16, 128, 200])
    assert bucket(offset, 32, 128, True).tolist() == [
        15,
        15,
        10,
        8,
        7,
        1,
        0,
        17,
        23,
        24,
        26,
        31,
        31,
    ]
    assert bucket(offset, 32, 128, False).tolist() == [31, 31, 16, 8, 7, 1, 0, 0, 0, 0, 0, 0, 0]


def test_padding_of_the_source_changes_nothing(params):
    x = texts()
    padded = x._replace(source=jnp.pad(x.source, ((0, 0), (0, 4))))
    logits = apply(params, x)
    np.testing.assert_allclose(apply(params, padded), logits, atol=1e-4 * np.abs(logits).max())


def test_decoder_is_causal(params):
    x = texts()
    change = x._replace(inputs=x.inputs.at[:, 3].add(1) % 13)
    before, after = apply(params, x), apply(params, change)
    np.testing.assert_array_equal(before[:, :3], after[:, :3])
    assert (np.abs(before[:, 3:] - after[:, 3:]).max(axis=(0, 2)) > 1e-3).all()


def test_steps_equal_a_call(params):
    x, variables = texts(), {"params": params}
    expected = apply(params, x)
    cache = jax.jit(lambda source: NET.apply(variables, source, INPUTS + 2, method="start"))(
        x.source
    )
    assert {len(leaf) for leaf in jax.tree.leaves(cache)} == {3}
    step = jax.jit(
        lambda cache, ids, position: NET.apply(variables, cache, ids, position, method="step")
    )
    for position in range(INPUTS):
        logits, cache = step(cache, x.inputs[:, position], position)
        np.testing.assert_allclose(
            logits, expected[:, position], atol=1e-5 * np.abs(expected).max()
        )
        if position == 3:  # rows of a cache may be put in another order, as beam search does
            cache, x, expected = jax.tree.map(
                lambda leaf: leaf[jnp.array([2, 0, 0])], (cache, x, expected)
            )


def test_groups_and_units(params):
    found, units = hidden(params, texts()), NET.units()
    assert set(found) == set(NET.groups())
    assert NET.groups() == [*units, "decoder_out"]
    assert list(units) == ["encoder0_units", "encoder1_units", "decoder0_units", "decoder1_units"]
    assert NET.LINEAR_GROUPS == ("decoder_out",)
    for name, group in units.items():
        made_by, feeds = params, params
        for key in group.made_by:
            made_by = made_by[key]
        for key in group.feeds:
            feeds = feeds[key]
        assert group.norm is None
        assert found[name].shape == (3, SOURCE if name.startswith("encoder") else INPUTS, 17)
        assert made_by["kernel"].shape == (12, 17)
        assert feeds["kernel"].shape == (17, 12)
    logits = np.asarray(found["decoder_out"]) @ params["shared"]["embedding"].T / np.sqrt(12)
    np.testing.assert_allclose(apply(params, texts()), logits, atol=1e-4)


@pytest.mark.parametrize("name", NET.units())
def test_a_unit_is_made_and_read_where_units_say(params, name):
    def without(path):
        changed = jax.tree.map(jnp.asarray, params)
        layer = changed
        for key in path:
            layer = layer[key]
        kernel = layer["kernel"]
        layer["kernel"] = kernel.at[:, 4].set(0) if path[-1] == "wi" else kernel.at[4].set(0)
        return changed

    made = hidden(without(NET.units()[name].made_by), texts())[name]
    assert (made[..., 4] == 0).all()
    assert (np.abs(made[..., :4]).max(axis=(0, 1)) > 0).all()
    # gelu(0) = 0, so a unit that is never made and one that is never read come to the same
    unread, unmade = (
        apply(without(path), texts())
        for path in (NET.units()[name].feeds, NET.units()[name].made_by)
    )
    np.testing.assert_allclose(unread, unmade, atol=1e-4)
    assert np.abs(unread - apply(params, texts())).max() > 1e-3


@pytest.mark.parametrize("outgoing", ["zero", "keep", "redraw"])
def test_redo_starts_silent_feed_forward_units_afresh(params, outgoing):
    """Unit 3 of the first encoder block is silent; nothing else of the network changes."""
    units, key = NET.units(), jax.random.key(5)
    active = {group: jnp.ones((2, 4, 17)) for group in NET.groups()}
    active["encoder0_units"] = active["encoder0_units"].at[..., 3].set(0.0)
    fresh = jax.jit(lambda key: NET.init(key, texts())["params"])
    settings = {
        "redo.period": 1,
        "redo.relative": False,
        "redo.threshold": 1e-4,
        "redo.outgoing": outgoing,
    }
    tx = methods.build("redo", Structure(units, fresh), settings)(optax.sgd(0.0))
    updates, _ = tx.update(
        params, tx.init(params), params, ctx=Context(key, jnp.int32(0), jnp.bool_(False), active)
    )
    after, drawn = optax.apply_updates(params, updates), fresh(key)
    want = jax.tree.map(np.array, params)
    layer, new = want["encoder0"]["feed_forward"], drawn["encoder0"]["feed_forward"]
    layer["wi"]["kernel"][:, 3] = new["wi"]["kernel"][:, 3]
    if outgoing != "keep":
        layer["wo"]["kernel"][3] = new["wo"]["kernel"][3] if outgoing == "redraw" else 0.0
    jax.tree.map(
        lambda got, wanted: np.testing.assert_allclose(got, wanted, atol=1e-6), after, want
    )


@pytest.mark.parametrize("method", ["l2", "l2_init", "spectral", "shrink_and_perturb"])
def test_other_methods_act_on_every_matrix_of_a_transformer(params, method):
    ctx = Context(jax.random.key(1), jnp.int32(0), jnp.bool_(True), {})
    tx = methods.build(
        method, Structure(NET.units(), lambda key: params), {f"{method}.strength": 1.0}
    )(optax.sgd(1.0))
    moved = jax.tree.map(lambda p: 2 * p, params)  # (away from the anchor of L2-init)
    none = jax.tree.map(jnp.zeros_like, params)
    updates, _ = tx.update(none, tx.init(params), moved, ctx=ctx)
    for path, update in jax.tree_util.tree_leaves_with_path(updates):
        vector = update.ndim < 2  # the scale of a norm, which spectral regularization leaves alone
        assert bool(jnp.abs(update).max() > 0) == (method != "spectral" or not vector), (
            jax.tree_util.keystr(path)
        )


def test_gradient_under_vmap_and_scan(params):
    def descend(params):
        def one(p, _):
            return jax.tree.map(
                lambda a, g: a - 1e-3 * g, p, jax.grad(lambda q: (apply(q, texts()) ** 2).mean())(p)
            ), None

        return jax.lax.scan(one, params, length=2)[0]

    other = jax.tree.map(lambda a: 1.1 * a, params)
    together = jax.jit(jax.vmap(descend))(
        jax.tree.map(lambda a, b: jnp.stack([a, b]), params, other)
    )
    alone = jax.jit(descend)
    for lane, start in enumerate((params, other)):
        end = alone(start)
        for a, b, c in zip(*map(jax.tree.leaves, (together, end, start)), strict=True):
            np.testing.assert_allclose(a[lane], b, atol=1e-5)
            assert (np.asarray(b) != c).any()


def test_refusals():
    with pytest.raises(ValueError, match="activation of t5 is 'crelu': allowed are 'relu'"):
        t5(5, 8, 1, "crelu")
    for name in ("heads", "head_width", "feed_forward"):
        with pytest.raises(ValueError, match=f"t5.{name} is 0: allowed are whole numbers from 1"):
            t5(5, 8, 1, "relu", **{name: 0})
