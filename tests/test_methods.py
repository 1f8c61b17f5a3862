"""Methods against numpy re-implementations of their formulas and numbers worked out by hand; ReDo has its own file."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from plasticity_jax import methods
from plasticity_jax.models import MLP
from plasticity_jax.types import Context, Structure

NET = MLP(3, width=4, depth=2)
X = jnp.asarray(np.random.default_rng(0).normal(size=(6, 5)), jnp.float32)
STRUCTURE = Structure(NET.units(), lambda key: NET.init(key, X)["params"])
SILENT_FIRST = {group: jnp.ones((6, 4)).at[:, 0].set(0.0) for group in STRUCTURE.units}
EVERYTHING = "redo+shrink_and_perturb+l2+l2_init+spectral"


def context(step=0, boundary=False, hidden=SILENT_FIRST, seed=7):
    return Context(jax.random.fold_in(jax.random.key(seed), step), jnp.int32(step), jnp.bool_(boundary), hidden)


def small_tree(seed=0):
    random = np.random.default_rng(seed)
    shapes = {
        "layer0": {"kernel": (3, 2), "bias": (2,)},
        "norm0": {"scale": (2,), "bias": (2,)},
        "conv": {"kernel": (2, 2, 2, 3), "bias": (3,)},
    }
    return jax.tree.map(
        lambda shape: jnp.asarray(random.normal(size=shape), jnp.float32), shapes, is_leaf=lambda s: isinstance(s, tuple)
    )


def leaves(tree):
    """{"layer0/kernel": array} in float64."""
    found = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(str(k.key) for k in path): np.asarray(a, np.float64) for path, a in found}


def assert_bitwise(got, want):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_array_equal(np.asarray(g), np.asarray(w))


def gradients(params, step):
    random = np.random.default_rng(100 + step)
    return jax.tree.map(lambda p: jnp.asarray(random.normal(size=p.shape), jnp.float32), params)


def stepper(tx):
    @jax.jit
    def step(gradient, state, params, ctx):
        updates, state = tx.update(gradient, state, params, ctx=ctx)
        return optax.apply_updates(params, updates), state

    return step


def drive(tx, params, steps, ctx=context):
    """The usual optax loop on fixed pseudo-random gradients; returns the params and the state after each step."""
    step, state, history = stepper(tx), tx.init(params), []
    for i in range(steps):
        params, state = step(gradients(params, i), state, params, ctx(i))
        history.append((params, state))
    return history


class NumpyAdam:
    """Kingma & Ba 2015, algorithm 1, in float64."""

    def __init__(self, rate):
        self.rate, self.t, self.m, self.v = rate, 0, {}, {}

    def step(self, params, gradient):
        self.t += 1
        after = {}
        for k, p in params.items():
            self.m[k] = 0.9 * self.m.get(k, 0) + 0.1 * gradient[k]
            self.v[k] = 0.999 * self.v.get(k, 0) + 0.001 * gradient[k] ** 2
            m, v = self.m[k] / (1 - 0.9**self.t), self.v[k] / (1 - 0.999**self.t)
            after[k] = p - self.rate * m / (np.sqrt(v) + 1e-8)
        return after


# ---------------------------------------------------------------------------------------------------------- penalties


def test_l2_and_l2_init_by_hand():
    params = {"layer": {"kernel": jnp.array([[2.0, -1.0]]), "bias": jnp.array([4.0, 0.5])}}
    zero = jax.tree.map(jnp.zeros_like, params)
    # gradient of s * p^2 is 2 s p: the step of SGD is -0.1 * 2 * 0.5 * p = -0.1 p
    tx = methods.l2(strength=0.5)(optax.sgd(0.1))
    updates, _ = tx.update(zero, tx.init(params), params, ctx=context())
    np.testing.assert_allclose(updates["layer"]["kernel"], [[-0.2, 0.1]], rtol=1e-6)
    np.testing.assert_allclose(updates["layer"]["bias"], [-0.4, -0.05], rtol=1e-6)
    # of s * (p - p0)^2 it is 2 s (p - p0), p0 all zero here: moved by (1, 3) from the anchor (1, -4)
    tx = methods.l2_init(strength=0.5)(optax.sgd(0.1))
    anchored = tx.init({"layer": {"kernel": jnp.array([[1.0, -4.0]]), "bias": jnp.array([4.0, 0.5])}})
    updates, _ = tx.update(zero, anchored, params, ctx=context())
    np.testing.assert_allclose(updates["layer"]["kernel"], [[-0.1, -0.3]], rtol=1e-6)
    np.testing.assert_array_equal(updates["layer"]["bias"], [0.0, 0.0])


@pytest.mark.parametrize("on", ["all", "matrices"])
@pytest.mark.parametrize("name", ["l2", "l2_init"])
def test_l2_moments_of_adam_see_the_sum(name, on):
    params = small_tree()
    method = getattr(methods, name)(strength=0.3, on=on)
    got = drive(method(optax.adam(0.01)), params, 6)
    adam, want, anchor = NumpyAdam(0.01), leaves(params), leaves(params)
    for step, (after, _) in enumerate(got):
        gradient = leaves(gradients(params, step))
        for k, p in want.items():
            if on == "all" or p.ndim >= 2:
                gradient[k] = gradient[k] + 2 * 0.3 * (p - (anchor[k] if name == "l2_init" else 0))
        want = adam.step(want, gradient)
        for k, p in leaves(after).items():
            np.testing.assert_allclose(p, want[k], rtol=2e-5, atol=1e-6, err_msg=k)


def test_l2_is_half_of_pytorch_weight_decay_and_not_decoupled():
    # with Adam and no loss gradient, a coupled penalty gives a first step of lr * sign(p), whatever its strength
    params = {"layer": {"kernel": jnp.array([[2.0, -0.01]]), "bias": jnp.array([-3.0, 0.2])}}
    tx = methods.l2(strength=0.05)(optax.adam(0.01))
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params, ctx=context())
    np.testing.assert_allclose(updates["layer"]["kernel"], [[-0.01, 0.01]], rtol=1e-4)  # eps / |g| is 1e-5 here
    np.testing.assert_allclose(updates["layer"]["bias"], [0.01, -0.01], rtol=1e-4)


@pytest.mark.parametrize("name", ["l2", "l2_init"])
def test_l2_refuses_another_on(name):
    with pytest.raises(ValueError, match=rf"{name}\.on is 'weights': allowed are 'all', 'matrices'"):
        getattr(methods, name)(on="weights")


def with_spectrum(random, shape, spectrum):
    rows, columns = int(np.prod(shape[:-1])), shape[-1]
    left = np.linalg.qr(random.normal(size=(rows, rows)))[0]
    right = np.linalg.qr(random.normal(size=(columns, columns)))[0]
    sigma = np.zeros((rows, columns))
    np.fill_diagonal(sigma, spectrum)
    return (left @ sigma @ right.T).reshape(shape)


def spectral_tree(scale=1.0, seed=0):
    random = np.random.default_rng(seed)
    tree = {
        "layer0": {"kernel": with_spectrum(random, (3, 2), [1.7, 0.4]), "bias": random.normal(size=2)},
        "norm0": {"scale": random.normal(size=2), "bias": random.normal(size=2)},
        "conv": {"kernel": with_spectrum(random, (2, 2, 2, 3), [0.6, 0.2, 0.1]), "bias": random.normal(size=3)},
    }
    return jax.tree.map(lambda a: jnp.asarray(scale * a, jnp.float32), tree)


KERNELS, BIASES = ("layer0/kernel", "conv/kernel"), ("layer0/bias", "conv/bias")


def spectral_value(tree, tau, power, bias_power):
    total = 0.0
    for name in KERNELS:
        matrix = tree[name].reshape(-1, tree[name].shape[-1])
        total += (np.linalg.svd(matrix, compute_uv=False)[0] ** power - tau[name] ** power) ** 2
    return total + sum((tree[name] ** 2).sum() ** bias_power for name in BIASES)


def spectral_gradient(tree, tau, power, bias_power):
    gradient = {k: np.zeros_like(p) for k, p in tree.items()}
    for name in KERNELS:
        u, s, vt = np.linalg.svd(tree[name].reshape(-1, tree[name].shape[-1]))
        slope = 2 * power * (s[0] ** power - tau[name] ** power) * s[0] ** (power - 1)
        gradient[name] = (slope * np.outer(u[:, 0], vt[0])).reshape(tree[name].shape)
    for name in BIASES:
        gradient[name] = bias_power * (tree[name] ** 2).sum() ** (bias_power - 1) * 2 * tree[name]
    return gradient


@pytest.mark.parametrize("bias_power", [1, 2])
@pytest.mark.parametrize("power", [1, 2, 3])
@pytest.mark.parametrize("target", ["one", "initial"])
def test_spectral_against_svd(target, power, bias_power):
    initial, params = spectral_tree(), spectral_tree(scale=1.2, seed=1)
    tx = methods.spectral(strength=0.25, power=power, target=target, bias_power=bias_power)(optax.sgd(1.0))
    state, zero = tx.init(initial), jax.tree.map(jnp.zeros_like, params)
    update = jax.jit(tx.update)
    for _ in range(12):  # parameters held still, so the carried vectors converge; the spectra have wide gaps
        updates, state = update(zero, state, params, ctx=context())
    tau = {name: 1.0 if target == "one" else {"layer0": 1.7, "conv": 0.6}[name.split("/")[0]] for name in KERNELS}
    want = spectral_gradient(leaves(params), tau, power, bias_power)
    for name, update in leaves(updates).items():
        np.testing.assert_allclose(update, -0.25 * want[name], rtol=2e-5, atol=2e-6, err_msg=name)
    assert not np.any(leaves(updates)["norm0/scale"])
    assert not np.any(leaves(updates)["norm0/bias"])


def test_spectral_closed_form_against_finite_differences():
    """The closed form above is itself checked, in float64, along random directions."""
    tree, tau, random = leaves(spectral_tree(seed=2)), dict.fromkeys(KERNELS, 1.0), np.random.default_rng(3)
    gradient = spectral_gradient(tree, tau, 2, 2)
    for _ in range(4):
        along = {k: random.normal(size=p.shape) for k, p in tree.items()}
        there, back = ({k: p + h * along[k] for k, p in tree.items()} for h in (1e-6, -1e-6))
        slope = (spectral_value(there, tau, 2, 2) - spectral_value(back, tau, 2, 2)) / 2e-6
        assert slope == pytest.approx(sum((gradient[k] * along[k]).sum() for k in tree), rel=1e-6)


def test_spectral_value_and_one_power_iteration_per_step():
    # a narrow gap (1 : 0.95), so that vectors after 20 iterations are visibly not converged
    random = np.random.default_rng(4)
    matrix = with_spectrum(random, (6, 5), [1.0, 0.95, 0.9, 0.85, 0.8])
    params = {"layer": {"kernel": jnp.asarray(matrix, jnp.float32)}}
    penalty = methods.spectral(strength=1.0)
    memory = penalty.init(params)
    (v,) = (np.asarray(a, np.float64) for a in jax.tree.leaves(memory[0]))
    top = np.linalg.svd(matrix)[2][0]
    assert 1e-3 < 1 - abs(v @ top), "this test needs a vector on its way"
    sizes = [np.linalg.norm(matrix @ v)]
    for _ in range(3):
        np.testing.assert_allclose(penalty.value(params, memory), (sizes[-1] ** 2 - 1) ** 2, rtol=1e-3, atol=1e-7)
        memory = penalty.advance(memory, params)
        v = matrix.T @ matrix @ v
        v /= np.linalg.norm(v)
        np.testing.assert_allclose(jax.tree.leaves(memory[0])[0], v, atol=2e-6)
        sizes.append(np.linalg.norm(matrix @ v))
    assert sizes == sorted(sizes)
    memory = jax.lax.fori_loop(0, 400, lambda _, memory: penalty.advance(memory, params), memory)
    np.testing.assert_allclose(np.abs(top @ np.asarray(jax.tree.leaves(memory[0])[0])), 1, rtol=1e-5)


def test_spectral_vectors_are_carried_in_the_state():
    params = spectral_tree()
    tx = methods.spectral(strength=0.1)(optax.sgd(0.1))
    start = tx.init(params)
    _, after = tx.update(params, start, spectral_tree(seed=5), ctx=context())
    penalty = methods.spectral(strength=0.1)
    assert_bitwise(after[0], penalty.advance(start[0], spectral_tree(seed=5)))
    with pytest.raises(ValueError, match=r"spectral\.target is 'half': allowed are 'one', 'initial'"):
        methods.spectral(target="half")


# ------------------------------------------------------------------------------------------------- shrink and perturb


def noise_of(key, params):
    """One normal draw per leaf, each from its own part of the step's key."""
    flat, structure = jax.tree.flatten(params)
    keys = jax.random.split(key, len(flat))
    return jax.tree.unflatten(structure, [jax.random.normal(k, p.shape) for k, p in zip(keys, flat, strict=True)])


@pytest.mark.parametrize(("period", "acts"), [(0, {3, 5}), (1, {0, 1, 2, 3, 4, 5}), (2, {1, 3, 5}), (4, {3})])
def test_shrink_and_perturb(period, acts):
    # task boundaries at 3 and 5; with a period they count for nothing
    told = lambda step: context(step, boundary=step in (3, 5))  # noqa: E731
    params = small_tree()
    tx = methods.shrink_and_perturb(shrink=0.8, noise=0.05, period=period)(optax.adam(0.01))
    bare = optax.with_extra_args_support(optax.adam(0.01))
    state, bare_state, one, other = tx.init(params), bare.init(params), stepper(tx), stepper(bare)
    for step in range(6):
        after, state = one(gradients(params, step), state, params, told(step))
        stepped, bare_state = other(gradients(params, step), bare_state, params, told(step))
        if step in acts:
            draw = leaves(noise_of(told(step).key, params))
            for k, p in leaves(after).items():
                np.testing.assert_allclose(p, 0.8 * leaves(stepped)[k] + 0.05 * draw[k], rtol=1e-6, atol=2e-7)
        else:
            assert_bitwise(after, stepped)
        assert_bitwise(state.inner, bare_state)  # moments and counts are kept
        params = after


def test_shrink_and_perturb_draws_afresh_every_time_and_for_every_leaf():
    params = {"a": jnp.zeros(50), "b": jnp.zeros(50)}
    tx = methods.shrink_and_perturb(shrink=1.0, noise=1.0, period=1)(optax.sgd(0.0))
    draws = []
    for step in range(2):
        updates, _ = tx.update(params, tx.init(params), params, ctx=context(step))
        draws += [np.asarray(updates["a"]), np.asarray(updates["b"])]
    assert np.abs(np.corrcoef(draws) - np.eye(4)).max() < 0.5  # 0.5 is 3.5 standard errors of a correlation of 50 pairs
    with pytest.raises(ValueError, match="period is -1"):
        methods.shrink_and_perturb(period=-1)


@pytest.mark.parametrize(("period", "warmup", "acts"), [(1, 0, range(9)), (3, 0, [2, 5, 8]), (3, 4, [5, 8]), (3, 6, [5, 8])])
def test_every(period, warmup, acts):
    due = methods.every(period, warmup)
    assert [step for step in range(9) if due(context(step))] == list(acts)


# -------------------------------------------------------------------------------------------------------- composition


def params_after(method, settings=(), steps=4, optimizer=None, ctx=None):
    told = ctx or (lambda step: context(step, boundary=step == 2))
    method = methods.build(method, STRUCTURE, dict(settings))
    return drive(method(optimizer or optax.adam(0.01)), STRUCTURE.init(jax.random.key(1)), steps, told)[-1][0]


OFF = {
    "l2": {"l2.strength": 0.0},
    "l2_init": {"l2_init.strength": 0.0},
    "spectral": {"spectral.strength": 0.0},
    "shrink_and_perturb": {"shrink_and_perturb.shrink": 1.0, "shrink_and_perturb.noise": 0.0},
    "redo": {"redo.threshold": -1.0, "redo.period": 1},
}


@pytest.mark.parametrize("name", [*OFF, EVERYTHING])
def test_strength_zero_is_none_bit_for_bit(name):
    settings = functools.reduce(lambda all_, part: {**all_, **OFF[part]}, name.split("+"), {})
    assert_bitwise(params_after(name, settings), params_after("none"))
    if "+" not in name:
        on = {**settings, **{k: 0.5 for k in settings if k != "redo.period"}}
        changed = jax.tree.map(lambda a, b: bool((a != b).any()), params_after(name, on), params_after("none"))
        assert any(jax.tree.leaves(changed)), f"{name} does nothing here, so the test above says nothing"


def test_penalties_compose_in_any_order():
    one, other = (params_after(name, steps=6) for name in ("l2+spectral+l2_init", "l2_init+spectral+l2"))
    assert_bitwise(one, other)  # names are sorted
    penalties = [methods.l2(strength=0.1), methods.spectral(strength=0.1), methods.l2_init(strength=0.1)]
    params = STRUCTURE.init(jax.random.key(1))
    for order in ([2, 0, 1], [1, 2, 0]):
        composed = methods.compose(*(penalties[i] for i in order))
        got = drive(composed(optax.sgd(0.1)), params, 4)[-1][0]
        want = drive(methods.compose(*penalties)(optax.sgd(0.1)), params, 4)[-1][0]
        jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, rtol=1e-5, atol=1e-6), got, want)


def test_names():
    assert methods.names("spectral+redo+l2+shrink_and_perturb") == ("redo", "shrink_and_perturb", "l2", "spectral")
    assert methods.names("shrink_and_perturb+redo") == ("shrink_and_perturb", "redo")  # the order of rewrites counts
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
    assert not np.any(optax.tree.get(inner, "mu")["layer0"]["kernel"][:, 0]), "unit 0 was to be recycled"


def test_nested_rewrites_act_in_the_order_given():
    """Both at step 1: recycle, then shrink and perturb; the optimizer's moments of the recycled unit are zero."""
    params, told = STRUCTURE.init(jax.random.key(1)), lambda step: context(step, boundary=step == 1)
    settings = {"redo.period": 2, "shrink_and_perturb.shrink": 0.5, "shrink_and_perturb.noise": 0.1}
    both, redo = (
        drive(methods.build(m, STRUCTURE, settings)(optax.adam(0.01)), params, 2, told)
        for m in ("redo+shrink_and_perturb", "redo")
    )
    assert_bitwise(both[0][0], redo[0][0])
    draw = noise_of(told(1).key, params)
    for k, p in leaves(both[1][0]).items():
        np.testing.assert_allclose(p, 0.5 * leaves(redo[1][0])[k] + 0.1 * leaves(draw)[k], rtol=1e-6, atol=2e-7)
    assert_bitwise(both[1][1].inner, redo[1][1])  # redo's own state is the inner one
    assert not np.any(optax.tree.get(both[1][1], "nu")["layer0"]["bias"][0])
    # the other way round the recycled slices are not shrunk: fresh weights, zero bias, zero outgoing weights
    other = drive(methods.build("shrink_and_perturb+redo", STRUCTURE, settings)(optax.adam(0.01)), params, 2, told)[1]
    fresh = STRUCTURE.init(told(1).key)
    np.testing.assert_allclose(other[0]["layer0"]["kernel"][:, 0], fresh["layer0"]["kernel"][:, 0], rtol=1e-6)
    assert not np.any(other[0]["head"]["kernel"][0])
    assert not np.any(optax.tree.get(other[1], "mu")["layer0"]["kernel"][:, 0])


@pytest.mark.parametrize("optimizer", [optax.sgd(0.05), optax.adam(0.005)], ids=["sgd", "adam"])
@pytest.mark.parametrize("name", [*methods.METHODS, EVERYTHING])
def test_any_method_in_a_plain_optax_loop(name, optimizer):
    settings = {"redo.period": 7, "shrink_and_perturb.period": 9, "shrink_and_perturb.shrink": 0.99}
    tx = methods.build(name, STRUCTURE, settings)(optimizer)
    params = STRUCTURE.init(jax.random.key(2))
    y = jax.nn.one_hot(jnp.arange(6) % 3, 3)

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


# --------------------------------------------------------------------------------------------------- lanes: vmap, jit


def primitives(jaxpr, outside_branches=True):
    """Names of the primitives with their largest operand, not looking into the branches of a cond."""
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
    """With the clock shared by all lanes nothing is computed that is not due; with a clock each, both sides are."""
    lanes, params = 3, STRUCTURE.init(jax.random.key(1))
    method = methods.build(name, STRUCTURE, {"redo.period": 5})

    def update(strength, params, key, hidden, step):
        tx = method(optax.adam(strength))
        state = tx.init(params)
        return tx.update(params, state, params, ctx=Context(key, step, step == 2, hidden))

    stacked = jax.tree.map(lambda a: jnp.stack([a] * lanes), (params, SILENT_FIRST))
    step_axis, step = (None, jnp.int32(4)) if clock == "shared" else (0, jnp.arange(lanes))
    vmapped = jax.vmap(update, in_axes=(0, 0, 0, 0, step_axis))
    jaxpr = jax.make_jaxpr(vmapped)(jnp.ones(lanes), stacked[0], jax.random.split(jax.random.key(0), lanes), stacked[1], step)
    found = list(primitives(jaxpr.jaxpr))
    rewrites = sum(part in ("redo", "shrink_and_perturb") for part in name.split("+"))
    draws = [p for p, _ in found if p in ("random_bits", "threefry2x32", "random_fold_in", "random_split")]
    if clock == "shared":
        # nested rewrites: the outer one's branch point is at the top, the inner one's too
        assert sum(p == "cond" for p, _ in found) == rewrites
        assert not [size for p, size in found if p == "select_n" and size >= params["layer0"]["kernel"].size * lanes]
        assert not [d for d in draws if d != "random_fold_in"] or name == EVERYTHING
    else:
        assert not [p for p, _ in found if p == "cond"]
        assert [size for p, size in found if p == "select_n" and size >= params["layer0"]["kernel"].size * lanes]
        assert draws
