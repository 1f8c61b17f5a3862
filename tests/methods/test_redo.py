"""ReDo (Sokar et al. 2023) against a numpy re-implementation that takes the dormant units from
hand-made activations.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import tiny

from plasticity_jax import methods
from plasticity_jax.methods import lifting
from plasticity_jax.models import MLP
from plasticity_jax.training import supervised
from plasticity_jax.types import Context, UnitGroup

pytestmark = pytest.mark.usefixtures("compiled_quickly")

WIDTH = 4
NET = MLP(WIDTH, width=WIDTH, depth=2)  # all kernels of one shape, which spares compilations
UNITS = NET.units()
RATE = 0.01


COMPILED_INIT = jax.jit(lambda key: NET.init(key, jnp.zeros((1, WIDTH)))["params"])


def init(key):
    with jax.disable_jit(False):
        return COMPILED_INIT(key)


def key_at(step):
    return jax.random.fold_in(jax.random.key(5), step)


def context(step, **hidden):
    """Activations are given for some groups; all units of the others are alike, so none of them is
    dormant.
    """
    alive = {group: jnp.ones((2, WIDTH)) for group in UNITS}
    return Context(key_at(step), jnp.int32(step), jnp.bool_(False), {**alive, **hidden})


def gradient_like(params, seed):
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda p: jnp.asarray(random.normal(size=p.shape), jnp.float32), params)


def batch_of(*magnitudes):
    """Activations [4, H] with the given means of |h|: halves of both signs, some rows silent."""
    m = np.asarray(magnitudes, np.float32)
    return jnp.asarray(np.stack([2 * m, -2 * m, 0 * m, 0 * m]))


def drive(tx, steps, params=None, state=None, first=0):
    """The optax loop over the contexts in `steps`, operation by operation so that bits can be
    compared.
    """
    params = init(jax.random.key(0)) if params is None else params
    state = tx.init(params) if state is None else state
    with jax.disable_jit():
        for i, ctx in enumerate(steps, first):
            updates, state = tx.update(gradient_like(params, i), state, params, ctx=ctx)
            params = optax.apply_updates(params, updates)
    return params, state


def one_step(tx, params, ctx, gradient=None, state=None):
    """The params after one compiled step of `tx`, by default from its initial state and without a
    gradient.
    """

    @jax.jit
    def step(params, ctx):
        given = jax.tree.map(jnp.zeros_like, params) if gradient is None else gradient
        return optax.apply_updates(
            params, tx.update(given, state or tx.init(params), params, ctx=ctx)[0]
        )

    return step(params, ctx)


def bare_drive(steps, optimizer=None):
    return drive(optax.with_extra_args_support(optimizer or optax.adam(RATE)), steps)


def recycled(stepped, fresh, units, dormant, outgoing="zero", norms=False):
    """(params, touched) after recycling, written from the rule: numpy, unit by unit."""
    params, touched = (
        jax.tree.map(np.array, stepped),
        jax.tree.map(lambda p: np.zeros(p.shape, bool), stepped),
    )

    def put(layer, leaf, where, value):
        params[layer][leaf][where], touched[layer][leaf][where] = value, True

    for group, indices in dormant.items():
        (made_by,), (feeds,) = units[group].made_by, units[group].feeds
        for i in indices:
            put(made_by, "kernel", np.s_[..., i], np.asarray(fresh[made_by]["kernel"])[..., i])
            put(made_by, "bias", i, 0.0)
            if norms:
                (norm,) = units[group].norm
                put(norm, "scale", i, 1.0)
                put(norm, "bias", i, 0.0)
    for group, indices in dormant.items() if outgoing != "keep" else ():
        (made_by,), (feeds,) = units[group].made_by, units[group].feeds
        for i in indices:
            rows = np.s_[i :: fresh[made_by]["kernel"].shape[-1], :]
            put(
                feeds,
                "kernel",
                rows,
                np.asarray(fresh[feeds]["kernel"])[rows] if outgoing == "redraw" else 0.0,
            )
    return params, touched


def assert_recycled(tx, steps, dormant, optimizer=None, **rule):
    """After `steps`, of which only the last may recycle, exactly `dormant` is recycled and all else
    is as without.
    """
    got, state = drive(tx, steps)
    stepped, bare_state = bare_drive(steps, optimizer)
    want, touched = recycled(stepped, init(steps[-1].key), UNITS, dormant, **rule)

    def compare(g, w, t, s):
        g, w = np.asarray(g), np.asarray(w)
        np.testing.assert_array_equal(g[~t], np.asarray(s)[~t])  # bit for bit
        np.testing.assert_allclose(g[t], w[t], rtol=1e-6, atol=1e-7)  # p + (fresh - p) rounds
        assert not g[t & (w == 0)].any()  # but zeros are zeros

    jax.tree.map(compare, got, want, touched, stepped)
    for name in ("mu", "nu") if optimizer is None else ("trace",):
        moments, bare_moments = (optax.tree.get(s, name) for s in (state, bare_state))
        kept = jax.tree.map(lambda m, t: np.where(t, 0, m), bare_moments, touched)
        jax.tree.map(np.testing.assert_array_equal, moments, kept)
    assert lifting.recycled(state) == {"units_reset": sum(map(len, dormant.values()))}
    if optimizer is None:
        assert optax.tree.get(state, "count") == optax.tree.get(bare_state, "count") == len(steps)
    return got, state


def redo(optimizer=None, **settings):
    return methods.redo(UNITS, init, **{"period": 2, **settings})(optimizer or optax.adam(RATE))


# magnitudes of a layer's units -> settings -> which of them are dormant
CASES = {
    "a dead unit": ([0.0, 1, 2, 1], {}, [0]),
    "at the threshold": ([0.5, 1, 1, 1.5], {"threshold": 0.5}, [0]),
    "just above it": ([0.5, 1, 1, 1.5], {"threshold": 0.499}, []),
    # 0.2 of the mean, but 0.05 of the sum
    "mean, not sum": ([0.2, 1, 1.8, 1], {"threshold": 0.1}, []),
    "scale is of no account": ([0.0005, 0.01, 0.02, 0.0095], {"threshold": 0.1}, [0]),
    "relative to its own layer": ([0.3, 10, 10, 19.7], {"threshold": 0.1}, [0]),
    "absolute": ([0.05, 0.01, 10, 0.2], {"threshold": 0.05, "relative": False}, [0, 1]),
    "all silent": ([0.0, 0, 0, 0], {}, [0, 1, 2, 3]),
    "at most a half, lowest first": ([0.02, 0.01, 0.03, 8], {"max_fraction": 0.5}, [0, 1]),
    "at most 0.7 of 4 is 2": ([0.02, 0.01, 0.03, 8], {"max_fraction": 0.7}, [0, 1]),
    "at most a tenth of 4 is none": ([0.02, 0.01, 0.03, 8], {"max_fraction": 0.1}, []),
    "ties go by index": ([0.0, 0, 0, 8], {"max_fraction": 0.5}, [0, 1]),
}


@pytest.mark.parametrize("group", ["h0", "h1"])
@pytest.mark.parametrize("case", CASES)
def test_which_units_are_dormant_and_what_becomes_of_them(case, group):
    magnitudes, settings, dormant = CASES[case]
    steps = [context(0), context(1, **{group: batch_of(*magnitudes)})]
    assert_recycled(redo(**settings), steps, {group: dormant})


def test_fraction_of_a_layer_is_not_lost_to_rounding():
    # in float32, 13 / 22 * 22 and 0.53 * 100 fall below 13 and 53
    for width, fraction, limit in ((22, 13 / 22, 13), (100, 0.53, 53), (3, 0.99, 2)):
        units = {"h": UnitGroup(("a",), None, ("b",))}
        params = {
            "a": {"kernel": jnp.ones((2, width)), "bias": jnp.ones(width)},
            "b": {"kernel": jnp.ones((width, 2)), "bias": jnp.ones(2)},
        }
        tx = methods.redo(
            units, lambda key, p=params: p, period=1, max_fraction=jnp.float32(fraction)
        )(optax.sgd(0.0))
        hidden = {"h": jnp.zeros((2, width))}
        ctx = Context(jax.random.key(0), jnp.int32(0), jnp.bool_(False), hidden)
        assert int((one_step(tx, params, ctx)["a"]["bias"] == 0).sum()) == limit


def test_updates_of_what_is_left_alone_are_kept_to_the_bit():
    """Not rebuilt as a difference of parameters, which would round."""
    params, ctx = init(jax.random.key(0)), context(1, h0=batch_of(0, 1, 1, 1))
    gradient, optimizer = gradient_like(params, 0), optax.sgd(RATE)
    tx = redo(optimizer)
    with jax.disable_jit():
        updates, _ = tx.update(gradient, tx.init(params), params, ctx=ctx)
        want, _ = optimizer.update(gradient, optimizer.init(params), params)
    _, touched = recycled(params, params, UNITS, {"h0": [0]})
    jax.tree.map(
        lambda u, w, t: np.testing.assert_array_equal(u[~t], w[~t]), updates, want, touched
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"outgoing": "keep"},
        {"outgoing": "redraw"},
        {"reset_norm": True},
        {"outgoing": "keep", "reset_norm": True},
    ],
)
def test_options(settings):
    steps = [context(0), context(1, h0=batch_of(1, 0, 1, 0))]
    rule = {
        "outgoing": settings.get("outgoing", "zero"),
        "norms": settings.get("reset_norm", False),
    }
    assert_recycled(redo(**settings), steps, {"h0": [1, 3]}, **rule)


def test_momentum_of_sgd_is_cleared_in_the_same_slices():
    optimizer = optax.sgd(RATE, momentum=0.9)
    steps = [context(0), context(1, h1=batch_of(1, 0, 1, 1))]
    assert_recycled(redo(optimizer), steps, {"h1": [1]}, optimizer=optimizer)


def test_two_layers_at_once():
    steps = [context(0), context(1, h0=batch_of(0, 1, 1, 1), h1=batch_of(1, 1, 0, 1))]
    got, state = drive(redo(), steps)
    stepped, _ = bare_drive(steps)
    want, touched = recycled(stepped, init(steps[-1].key), UNITS, {"h0": [0], "h1": [2]})
    # the one weight from a recycled unit to a recycled unit is both incoming and outgoing: outgoing
    # comes last
    assert got["layer1"]["kernel"][0, 2] == 0
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, rtol=1e-6, atol=1e-7), got, want)
    jax.tree.map(
        lambda m, t: np.testing.assert_array_equal(m == 0, t), optax.tree.get(state, "mu"), touched
    )


@pytest.mark.parametrize("score", ["batch", "running"])
def test_bit_for_bit_the_bare_optimizer_until_it_is_due(score):
    dead = {"h0": batch_of(0, 1, 1, 1), "h1": batch_of(0, 0, 0, 0)}
    steps = [context(i, **dead) for i in range(5)]
    # due at 3, but warming up; due again at 6
    got, state = drive(redo(period=3, warmup=6, score=score), steps)
    want, bare_state = bare_drive(steps)
    jax.tree.map(np.testing.assert_array_equal, got, want)
    jax.tree.map(np.testing.assert_array_equal, state.inner, bare_state)


def test_warmup_ends():
    steps = [context(i, h0=batch_of(0, 1, 1, 1)) for i in range(4)]
    assert_recycled(redo(warmup=4), steps, {"h0": [0]})  # due after 2 and 4 steps


def test_running_score_averages_since_the_last_check():
    # unit 0 is silent in the last batch only, unit 1 active there only: on average unit 1 scores
    # 0.15 / 0.7875 = 0.19
    first, last = context(0, h0=batch_of(2, 0.0, 1, 1)), context(1, h0=batch_of(0, 0.3, 1, 1))
    assert_recycled(redo(), [first, last], {"h0": [0]})
    assert_recycled(redo(score="running"), [first, last], {"h0": []})
    assert_recycled(redo(score="running", threshold=0.2), [first, last], {"h0": [1]})
    # after the check the average starts anew: now unit 0 is silent in both batches, though not in
    # the first of all
    params, state = drive(redo(score="running"), [first, last])
    again = [context(2, h0=batch_of(0, 1, 1, 1)), context(3, h0=batch_of(0, 1, 1, 1))]
    after, _ = drive(redo(score="running"), again, params, state, first=2)
    np.testing.assert_allclose(
        after["layer0"]["kernel"][:, 0], init(key_at(3))["layer0"]["kernel"][:, 0], rtol=1e-6
    )
    assert float(after["layer0"]["bias"][0]) == 0
    assert float(after["layer0"]["bias"][1]) != 0


def test_running_score_restarts_only_at_checks():
    tx = redo(score="running", period=2, warmup=4)
    _, state = drive(tx, [context(i, h0=batch_of(1, 2, 3, 4)) for i in range(3)])
    np.testing.assert_allclose(state.memory.memory[0]["h0"], [3, 6, 9, 12])
    assert float(state.memory.memory[1]) == 3
    _, state = drive(tx, [context(i) for i in range(4)])
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(state.memory.memory))


def test_next_step_of_a_recycled_weight_under_adam():
    """Moments are zero but the count goes on, so Adam's first step is sqrt(1000) / 10 = 3.16 times
    the learning rate.
    """
    tx = redo()
    params, state = drive(tx, [context(0), context(1, h0=batch_of(0, 1, 1, 1))])
    state = optax.tree.set(state, count=jnp.int32(20_000))
    gradient = jax.tree.map(lambda p: jnp.full(p.shape, 0.3), params)
    after = one_step(tx, params, context(2), gradient, state)
    updates = jax.tree.map(jnp.subtract, after, params)
    np.testing.assert_allclose(updates["layer0"]["kernel"][:, 0], -RATE * 10**0.5, rtol=1e-4)
    np.testing.assert_allclose(updates["layer0"]["bias"][0], -RATE * 10**0.5, rtol=1e-4)
    np.testing.assert_allclose(updates["layer1"]["kernel"][0], -RATE * 10**0.5, rtol=1e-4)


def test_units_that_have_copies():
    """CReLU: unit i of H feeds inputs i and H + i; it is dormant only if both of its copies are
    silent.
    """
    net = MLP(WIDTH, width=WIDTH, depth=2, activation="crelu")
    first = jax.jit(lambda key: net.init(key, jnp.zeros((1, WIDTH)))["params"])
    params = first(jax.random.key(0))
    assert params["layer1"]["kernel"].shape == (2 * WIDTH, WIDTH)
    # score 0, 1, 1, 0.1 over a mean of 0.525: 0 and 0.19
    positive, negative = [0, 0, 1, 0.1], [0, 1, 0, 0.0]
    hidden = {"h0": batch_of(*positive, *negative), "h1": jnp.ones((2, 2 * WIDTH))}
    ctx = Context(key_at(0), jnp.int32(0), jnp.bool_(False), hidden)
    for threshold, dormant in ((0.1, [0]), (0.2, [0, 3])):
        tx = methods.redo(net.units(), first, period=1, threshold=threshold)(optax.sgd(RATE))
        want, _ = recycled(params, first(ctx.key), net.units(), {"h0": dormant})
        got = one_step(tx, params, ctx)
        jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, rtol=1e-6, atol=1e-7), got, want)


def test_channels_of_a_convolution():
    """A channel is a unit: scored over all positions; flattened positions feed a dense layer,
    channel fastest.
    """
    shapes = {
        "conv": {"kernel": (3, 3, 2, 4), "bias": (4,)},
        "dense": {"kernel": (2 * 2 * 4, 3), "bias": (3,)},
    }
    units = {"c": UnitGroup(("conv",), None, ("dense",))}

    def first(key):
        return jax.tree.map(
            lambda s: jax.random.normal(jax.random.fold_in(key, len(s)), s),
            shapes,
            is_leaf=lambda s: isinstance(s, tuple),
        )

    params = first(jax.random.key(0))
    # [B, H, W, C]; channel 1 silent, 2 active at a single position
    maps = np.zeros((2, 2, 2, 4), np.float32)
    maps[..., 0], maps[..., 3], maps[1, 0, 1, 2] = 1, -1, 4
    ctx = Context(key_at(0), jnp.int32(0), jnp.bool_(False), {"c": jnp.asarray(maps)})
    tx = methods.redo(units, first, period=1)(optax.sgd(RATE))
    want, _ = recycled(params, first(ctx.key), units, {"c": [1]})
    got = one_step(tx, params, ctx)
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, rtol=1e-6, atol=1e-6), got, want)
    assert np.flatnonzero(~np.any(np.asarray(got["dense"]["kernel"]), axis=1)).tolist() == [
        1,
        5,
        9,
        13,
    ]


def test_recycling_a_dead_relu_unit_keeps_the_function():
    """On a real network: a ReLU unit that never fires contributes nothing, so recycling it leaves
    all logits alone.
    """
    net = MLP(3, width=WIDTH, depth=2, norm="none")
    x = jnp.asarray(np.random.default_rng(0).normal(size=(8, 5)), jnp.float32)
    first = jax.jit(lambda key: net.init(key, x)["params"])
    params = first(jax.random.key(1))
    params["layer0"]["bias"] = params["layer0"]["bias"].at[2].set(-50.0)
    before, sown = net.apply({"params": params}, x, mutable=["hidden"])
    assert not np.any(sown["hidden"]["h0"][:, 2])
    tx = methods.redo(net.units(), first, period=1, threshold=0.0)(optax.sgd(0.0))
    ctx = Context(key_at(0), jnp.int32(0), jnp.bool_(False), sown["hidden"])
    after = one_step(tx, params, ctx)
    np.testing.assert_allclose(net.apply({"params": after}, x), before, rtol=1e-6, atol=1e-6)
    revived = net.apply({"params": after}, x, mutable=["hidden"])[1]["hidden"]["h0"][:, 2]
    assert np.any(revived), "the recycled unit should fire again"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"score": "gradient"}, r"redo\.score is 'gradient': allowed are 'batch', 'running'"),
        (
            {"outgoing": "random"},
            r"redo\.outgoing is 'random': allowed are 'zero', 'keep', 'redraw'",
        ),
        ({"period": 0}, r"redo\.period is 0: allowed are whole numbers from 1, or 'never'"),
    ],
)
def test_refuses(settings, message):
    with pytest.raises(ValueError, match=message):
        redo(**settings)


@pytest.mark.long
def test_a_run_tells_how_many_units_were_reset_in_each_task():
    # 8 steps a task, a check every 4; absolute and huge, so that all 8 units are dormant at each
    # but the first, a warm-up
    options = {"redo.period": 4, "redo.warmup": 8, "redo.relative": False}
    run = supervised.make_run(tiny.spec(method="redo", options=options))
    lane, data = {"seed": 0, "redo.threshold": 1e6}, jax.tree.map(jnp.asarray, tiny.data())
    state = run.init(lane, data)
    for task, wanted in enumerate((8, 16)):
        state, metrics = jax.jit(run.run_task)(lane, state, data, task)
        assert metrics["units_reset"] == wanted
    assert lifting.recycled(state.opt) == {"units_reset": 24}
    assert lifting.recycled(optax.adam(0.1).init(jnp.zeros(2))) == {}
