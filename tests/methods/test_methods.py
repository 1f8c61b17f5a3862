"""Shrink and perturb, the composition of methods, and how they behave over lanes; ReDo has its own
file.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.loops import (
    NET,
    SILENT_FIRST,
    STRUCTURE,
    X,
    assert_bitwise,
    context,
    drive,
    gradients,
    leaves,
    small_tree,
)

from plasticity_jax import methods
from plasticity_jax.types import Context, View

pytestmark = pytest.mark.usefixtures("compiled_quickly")

EVERYTHING = "redo+shrink_and_perturb+l2+l2_init+spectral"


# -------------------------------------------------------------------------------------------------
# shrink and perturb


def noise_of(key, params):
    """One normal draw for all parameters, dealt out leaf by leaf in the order of the tree."""
    flat, structure = jax.tree.flatten(params)
    draw = jax.random.normal(key, (sum(p.size for p in flat),))
    parts = jnp.split(draw, np.cumsum([p.size for p in flat])[:-1])
    return jax.tree.unflatten(
        structure, [part.reshape(p.shape) for part, p in zip(parts, flat, strict=True)]
    )


@pytest.mark.parametrize(
    ("period", "acts"), [(0, {3, 5}), (1, {0, 1, 2, 3, 4, 5}), (2, {1, 3, 5}), (4, {3})]
)
def test_shrink_and_perturb(period, acts):
    # task boundaries at 3 and 5; with a period they count for nothing
    told = lambda step: context(step, boundary=step in (3, 5))  # noqa: E731
    params = small_tree()
    tx = methods.shrink_and_perturb(shrink=0.8, noise=0.05, period=period)(optax.adam(0.01))
    bare = optax.with_extra_args_support(optax.adam(0.01))
    bare_state = bare.init(params)
    for step, (after, state) in enumerate(drive(tx, params, 6, told)):
        with jax.disable_jit():
            updates, bare_state = bare.update(gradients(params, step), bare_state, params)
            stepped = optax.apply_updates(params, updates)
        if step in acts:
            draw = leaves(noise_of(told(step).key, params))
            for k, p in leaves(after).items():
                np.testing.assert_allclose(
                    p, 0.8 * leaves(stepped)[k] + 0.05 * draw[k], rtol=1e-6, atol=2e-7
                )
        else:
            assert_bitwise(after, stepped)
        assert_bitwise(state.inner, bare_state)  # moments and counts are kept
        params = after


def test_optimizer_reset_starts_the_optimizer_afresh_at_boundaries_only():
    told = lambda step: context(step, boundary=step == 3)  # noqa: E731
    tx = methods.optimizer_reset()(optax.adam(0.01))
    params = small_tree()
    after = [p for p, _ in drive(tx, params, 6, told)]
    bare = optax.with_extra_args_support(optax.adam(0.01))
    state = bare.init(params)
    with jax.disable_jit():
        for step in range(6):
            state = bare.init(params) if step == 3 else state
            updates, state = bare.update(gradients(params, step), state, params)
            params = optax.apply_updates(params, updates)
            assert_bitwise(after[step], params)


def test_optimizer_reset_leaves_the_memory_of_other_methods():
    """It wraps the bare optimizer, however the composition is written: the anchor of L2-init
    stays.
    """
    assert methods.names("l2_init+redo+optimizer_reset") == ("optimizer_reset", "redo", "l2_init")
    params = STRUCTURE.init(jax.random.key(0))
    tx = methods.build("l2_init+redo+optimizer_reset", STRUCTURE, {"redo.score": "running"})(
        optax.adam(0.01)
    )
    anchor, redo = tx.init(params)
    moved = jax.tree.map(lambda p: p + 1.0, params)
    _, (kept, after) = tx.update(moved, (anchor, redo), moved, ctx=context(3, boundary=True))
    assert_bitwise(kept, anchor)
    assert float(after.memory.memory[1]) == 1.0  # one batch seen: not started afresh a second time


def test_shrink_and_perturb_draws_afresh_every_time_and_for_every_leaf():
    params = {"a": jnp.zeros(50), "b": jnp.zeros(50)}
    tx = methods.shrink_and_perturb(shrink=1.0, noise=1.0, period=1)(optax.sgd(0.0))
    draws = []
    for step in range(2):
        updates, _ = tx.update(params, tx.init(params), params, ctx=context(step))
        draws += [np.asarray(updates["a"]), np.asarray(updates["b"])]
    # 0.5 is 3.5 standard errors of a correlation of 50 pairs
    assert np.abs(np.corrcoef(draws) - np.eye(4)).max() < 0.5
    with pytest.raises(ValueError, match="period is -1"):
        methods.shrink_and_perturb(period=-1)


@pytest.mark.parametrize(
    ("period", "warmup", "acts"),
    [(1, 0, range(9)), (3, 0, [2, 5, 8]), (3, 4, [5, 8]), (3, 6, [5, 8])],
)
def test_every(period, warmup, acts):
    due = methods.every(period, warmup)
    assert [step for step in range(9) if due(context(step))] == list(acts)


# --------------------------------------------------------------------------------------------------
# composition


def params_after(method, settings=(), steps=4, optimizer=None, ctx=None):
    told = ctx or (lambda step: context(step, boundary=step == 2))
    method = methods.build(method, STRUCTURE, dict(settings))
    return drive(
        method(optimizer or optax.adam(0.01)), STRUCTURE.init(jax.random.key(1)), steps, told
    )[-1][0]


OFF = {
    "l2": {"l2.strength": 0.0},
    "l2_init": {"l2_init.strength": 0.0},
    "spectral": {"spectral.strength": 0.0},
    "shrink_and_perturb": {"shrink_and_perturb.shrink": 1.0, "shrink_and_perturb.noise": 0.0},
    "redo": {"redo.max_fraction": 0.0, "redo.period": 1},
    "clip": {"clip.norm": 1e30},
    "gradient_noise": {"gradient_noise.scale": 0.0},
    "continual_backprop": {
        "continual_backprop.replacement_rate": 0.0,
        "continual_backprop.maturity": 0.0,
    },
}


# what cannot be switched off, what adds to the loss, and what has a test of its own elsewhere
ALWAYS = {"none", "optimizer_reset", "head_reset", "full_reset"}
TERMS = {"feature_norm", "infer", "gradient_penalty"}
ELSEWHERE = {"weight_norm_constraint"}


def test_every_method_is_switched_off_somewhere():
    assert {*OFF} | ALWAYS | TERMS | ELSEWHERE == set(methods.METHODS)


@pytest.mark.parametrize("name", sorted(TERMS))
def test_a_term_of_strength_zero_is_none_bit_for_bit(name):
    initial = {"layer": jnp.ones((4, 3)), "head": jnp.ones((3, 2))}
    params = jax.tree.map(lambda leaf: leaf * jnp.linspace(0.2, 0.9, leaf.shape[1])[None], initial)

    def hidden(params):
        return {"layer": jnp.tanh(X @ params["layer"])}

    def plain(params):
        return jnp.square(hidden(params)["layer"] @ params["head"]).mean()

    def slopes(strength):
        term = methods.METHODS[name](strength=strength)
        state = term(optax.sgd(0.1)).init(params)

        def loss(params):
            view = View(
                None, None, hidden(params), {}, params, initial, loss=plain, features=hidden
            )
            return plain(params) + methods.objective((term,), state, view)

        return jax.grad(loss)(params)

    with jax.disable_jit():
        wanted = jax.grad(plain)(params)
        assert_bitwise(slopes(0.0), wanted)
        moved = jax.tree.map(lambda a, b: bool((a != b).any()), slopes(0.5), wanted)
    assert any(jax.tree.leaves(moved)), f"{name} does nothing here, so the test says nothing"


@pytest.mark.parametrize("name", [*OFF, EVERYTHING])
def test_strength_zero_is_none_bit_for_bit(name):
    settings = functools.reduce(lambda all_, part: {**all_, **OFF[part]}, name.split("+"), {})
    assert_bitwise(params_after(name, settings), params_after("none"))
    if "+" not in name:
        on = {**settings, **{k: 0.5 for k in settings if k != "redo.period"}}
        changed = jax.tree.map(
            lambda a, b: bool((a != b).any()), params_after(name, on), params_after("none")
        )
        assert any(jax.tree.leaves(changed)), (
            f"{name} does nothing here, so the test above says nothing"
        )


def test_penalties_compose_in_any_order():
    penalties = [
        methods.l2(strength=0.1),
        methods.spectral(strength=0.1),
        methods.l2_init(strength=0.1),
    ]
    params = STRUCTURE.init(jax.random.key(1))
    for order in ([2, 0, 1], [1, 2, 0]):
        composed = methods.compose(*(penalties[i] for i in order))
        got = drive(composed(optax.sgd(0.1)), params, 3, compiled=True)[-1][0]
        want = drive(methods.compose(*penalties)(optax.sgd(0.1)), params, 3, compiled=True)[-1][0]
        jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, rtol=1e-5, atol=1e-6), got, want)


def test_names():
    assert methods.names("spectral+redo+l2+shrink_and_perturb") == (
        "redo",
        "shrink_and_perturb",
        "l2",
        "spectral",
    )
    # the order of rewrites counts
    assert methods.names("shrink_and_perturb+redo") == ("shrink_and_perturb", "redo")
    # that of penalties does not
    assert methods.names("spectral+l2_init+l2") == ("l2", "l2_init", "spectral")
    assert methods.names("none+l2") == ("l2",)
    assert methods.names("none") == ("none",)
    with pytest.raises(ValueError, match="has 'l2' twice"):
        methods.names("l2+redo+l2")
    with pytest.raises(ValueError, match="unknown method 'l3': known are none, l2"):
        methods.names("l3")


@pytest.mark.parametrize("order", ["redo+l2_init", "l2_init+redo"])
def test_recycling_does_not_touch_the_anchor(order):
    params = STRUCTURE.init(jax.random.key(1))
    settings = {"redo.period": 1, "l2_init.strength": 0.1}
    tx = methods.build(order, STRUCTURE, settings)(optax.adam(0.01))
    history = drive(tx, params, 3)
    anchor, (inner, _) = history[-1][1]
    assert_bitwise(anchor, params)
    assert not np.any(optax.tree.get(inner, "mu")["layer0"]["kernel"][:, 0]), (
        "unit 0 was to be recycled"
    )


def test_nested_rewrites_act_in_the_order_given():
    """Both at step 1: recycle, then shrink and perturb; the optimizer's moments of the recycled
    unit are zero.
    """
    params, told = STRUCTURE.init(jax.random.key(1)), lambda step: context(step, boundary=step == 1)
    settings = {"redo.period": 2, "shrink_and_perturb.shrink": 0.5, "shrink_and_perturb.noise": 0.1}
    both, redo = (
        drive(methods.build(m, STRUCTURE, settings)(optax.adam(0.01)), params, 2, told)
        for m in ("redo+shrink_and_perturb", "redo")
    )
    assert_bitwise(both[0][0], redo[0][0])
    draw = noise_of(told(1).key, params)
    for k, p in leaves(both[1][0]).items():
        np.testing.assert_allclose(
            p, 0.5 * leaves(redo[1][0])[k] + 0.1 * leaves(draw)[k], rtol=1e-6, atol=2e-7
        )
    assert_bitwise(both[1][1].inner, redo[1][1])  # redo's own state is the inner one
    assert not np.any(optax.tree.get(both[1][1], "nu")["layer0"]["bias"][0])
    # the other way round the recycled slices are not shrunk: fresh weights, zero bias, zero
    # outgoing weights
    other = drive(
        methods.build("shrink_and_perturb+redo", STRUCTURE, settings)(optax.adam(0.01)),
        params,
        2,
        told,
    )[1]
    fresh = STRUCTURE.init(told(1).key)
    np.testing.assert_allclose(
        other[0]["layer0"]["kernel"][:, 0], fresh["layer0"]["kernel"][:, 0], rtol=1e-6
    )
    assert not np.any(other[0]["head"]["kernel"][0])
    assert not np.any(optax.tree.get(other[1], "mu")["layer0"]["kernel"][:, 0])


@pytest.mark.parametrize("name", [*methods.METHODS, EVERYTHING])
@pytest.mark.parametrize(  # the first as an optimizer that knows of no extra arguments
    "optimizer",
    [optax.GradientTransformation(*optax.sgd(0.05)), optax.adam(0.005)],
    ids=["sgd", "adam"],
)
def test_any_method_in_a_plain_optax_loop(name, optimizer):
    settings = {"redo.period": 7, "shrink_and_perturb.period": 9, "shrink_and_perturb.shrink": 0.99}
    tx = methods.build(name, STRUCTURE, settings)(optimizer)
    params = STRUCTURE.init(jax.random.key(2))
    y = jax.nn.one_hot(jnp.arange(6) % 4, 4)

    def loss(params):
        logits, sown = NET.apply({"params": params}, X, True, mutable=["hidden"])
        return optax.softmax_cross_entropy(logits, y).mean(), sown["hidden"]

    @jax.jit
    def step(params, state, i):
        (value, hidden), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        ctx = Context(jax.random.fold_in(jax.random.key(3), i), i, jnp.bool_(False), hidden)
        updates, state = tx.update(gradient, state, params, ctx=ctx)
        return optax.apply_updates(params, updates), state, value

    state, values = tx.init(params), []
    for i in range(40):
        params, state, value = step(params, state, jnp.int32(i))
        values.append(float(value))
    assert np.isfinite(values).all()
    assert values[-1] < 0.9 * values[0]


NEEDS_CONTEXT = (
    "redo",
    "shrink_and_perturb",
    "optimizer_reset",
    "gradient_noise",
    "continual_backprop",
    "weight_norm_constraint",
)


def test_only_what_acts_at_times_needs_the_context():
    params = STRUCTURE.init(jax.random.key(2))
    for name in methods.METHODS:
        tx = methods.build(name, STRUCTURE, {})(optax.sgd(0.1))
        if name in NEEDS_CONTEXT:
            with pytest.raises(
                ValueError, match=r"needs update\(\.\.\., params, ctx=Context\(\.\.\.\)\)"
            ):
                tx.update(params, tx.init(params), params)
        else:
            tx.update(params, tx.init(params), params)


# --------------------------------------------------------------------------------------------------
# lanes: vmap, jit


def primitives(jaxpr):
    """Names of the primitives with their largest operand, not looking into the branches of a
    cond.
    """
    for equation in jaxpr.eqns:
        yield equation.primitive.name, max((v.aval.size for v in equation.invars), default=0)
        if equation.primitive.name != "cond":
            for value in equation.params.values():
                inner = getattr(value, "jaxpr", value)
                if hasattr(inner, "eqns"):
                    yield from primitives(inner)


@pytest.mark.parametrize("clock", ["shared", "own"])
@pytest.mark.parametrize("name", ["redo", "shrink_and_perturb", EVERYTHING])
def test_a_rewrite_stays_one_branch_under_vmap(name, clock):
    """With the clock shared by all lanes nothing is computed that is not due; with a clock each,
    both sides are.
    """
    lanes, params = 3, STRUCTURE.init(jax.random.key(1))
    method = methods.build(name, STRUCTURE, {"redo.period": 5})
    state = method(optax.adam(0.1)).init(params)

    def update(rate, params, state, key, hidden, step):
        return method(optax.adam(rate)).update(
            params, state, params, ctx=Context(key, step, step == 2, hidden)
        )

    params, state, hidden = jax.tree.map(
        lambda a: jnp.stack([a] * lanes), (params, state, SILENT_FIRST)
    )
    keys = jax.random.split(jax.random.key(0), lanes)
    clock_axis, step = (None, jnp.int32(4)) if clock == "shared" else (0, jnp.arange(lanes))
    vmapped = jax.vmap(update, in_axes=(0, 0, 0, 0, 0, clock_axis))
    found = list(
        primitives(
            jax.make_jaxpr(vmapped)(jnp.ones(lanes), params, state, keys, hidden, step).jaxpr
        )
    )
    conds = [p for p, _ in found if p == "cond"]
    draws = [p for p, _ in found if p.startswith(("random_", "threefry"))]
    selected = [
        size for p, size in found if p == "select_n" and size >= params["layer0"]["kernel"].size
    ]
    if clock == "shared":
        assert len(conds) == sum(part in ("redo", "shrink_and_perturb") for part in name.split("+"))
        assert not draws
        assert not selected
    else:
        assert not conds
        assert draws
        assert selected
