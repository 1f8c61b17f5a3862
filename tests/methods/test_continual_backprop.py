"""Continual backprop (Dohare et al. 2024) against a re-implementation in numpy, unit by unit."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.loops import NET, STRUCTURE, X, gradients

from plasticity_jax import methods
from plasticity_jax.methods import replacement
from plasticity_jax.models import CNN, MLP
from plasticity_jax.optimizers import OPTIMIZERS
from plasticity_jax.types import Context, Start, UnitGroup

pytestmark = pytest.mark.usefixtures("compiled_quickly")

DEFAULTS = {
    "replacement_rate": 0.13,
    "maturity": 3.0,
    "decay": 0.8,
    "utility": "contribution",
    "count": "accumulated",
    "reset_bias": "own",
}
# group -> (layer, layer that reads it, units, copies): a convolution, another whose activation
# copies its units and whose positions are flattened, and a dense layer
LAYERS = {"c": ("conv", "next", 3, 1), "d": ("next", "dense", 2, 2), "h": ("dense", "head", 5, 1)}
HIDDEN = {"c": (4, 2, 3, 3), "d": (4, 2, 3, 4), "h": (4, 5)}
KERNELS = {"conv": (3, 3, 1, 3), "next": (3, 3, 3, 2), "dense": (24, 5), "head": (5, 2)}
UNITS = {g: UnitGroup((a,), None, (b,), copies) for g, (a, b, _, copies) in LAYERS.items()}


def tree(key):
    """Parameters of which those of `next` have no bias, as in front of a norm."""
    found = {}
    for place, (name, shape) in enumerate(KERNELS.items()):
        kernel = jax.random.normal(jax.random.fold_in(key, place), shape)
        found[name] = {"kernel": kernel}
        if name != "next":
            found[name]["bias"] = kernel.reshape(-1, shape[-1])[0]
    return found


def key_at(step):
    return jax.random.fold_in(jax.random.key(5), step)


def hidden_at(step):
    random = np.random.default_rng(50 + step)
    return {g: random.normal(0.3, 1, shape).astype(np.float32) for g, shape in HIDDEN.items()}


def context(step):
    hidden = {g: jnp.asarray(h) for g, h in hidden_at(step).items()}
    return Context(key_at(step), jnp.int32(step), jnp.bool_(False), hidden)


class Written:
    """The rule written out: loops over units and copies, float64."""

    def __init__(self, **settings):
        self.of = {**DEFAULTS, **settings}
        self.age = {g: np.zeros(n, int) for g, (_, _, n, _) in LAYERS.items()}
        self.mean = {g: np.zeros((copies, n)) for g, (_, _, n, copies) in LAYERS.items()}
        self.utility = {g: np.zeros(n) for g, (_, _, n, _) in LAYERS.items()}
        self.owed = dict.fromkeys(LAYERS, 0.0)
        self.replaced = []

    def rows(self, group, unit, copy):
        """The rows of the reading kernel that belong to one copy of a unit."""
        _, reads, units, copies = LAYERS[group]
        return np.s_[copy * units + unit : KERNELS[reads][-2] : copies * units]

    def outgoing(self, params, group, unit):
        _, reads, _, copies = LAYERS[group]
        kernel = params[reads]["kernel"]
        parts = [kernel[..., self.rows(group, unit, c), :] for c in range(copies)]
        return np.mean([np.abs(part).mean() for part in parts])

    def look(self, params, group, h):
        layer, _, units, copies = LAYERS[group]
        rho, h = self.of["decay"], h.reshape(-1, copies, units).astype(np.float64)
        for i in range(units):
            self.age[group][i] += 1
            for c in range(copies):
                old = self.mean[group][c, i]
                self.mean[group][c, i] = rho * old + (1 - rho) * h[:, c, i].mean()
            size = np.abs(h[:, :, i]).mean() * self.outgoing(params, group, i)
            if self.of["utility"] == "adaptable":
                usual = self.mean[group][:, i] / (1 - rho ** self.age[group][i])
                size = np.abs(h[:, :, i] - usual).mean() * self.outgoing(params, group, i)
                size /= np.abs(params[layer]["kernel"][..., i]).mean()
            self.utility[group][i] = rho * self.utility[group][i] + (1 - rho) * size

    def number(self, group, step):
        rate, mature = (
            self.of["replacement_rate"],
            int((self.age[group] > self.of["maturity"]).sum()),
        )
        if self.of["count"] == "at_least_one":
            return min(mature, max(1, int(rate * len(self.age[group]))))
        if self.of["count"] == "drawn":
            place = list(LAYERS).index(group)
            key = jax.random.fold_in(jax.random.fold_in(key_at(step), replacement._DRAW), place)
            share = rate * mature
            return int(jax.random.uniform(key) < share) if share < 1 else int(share)
        self.owed[group] += rate * mature
        whole = int(self.owed[group])
        self.owed[group] -= whole
        return whole

    def step(self, params, moments, step):
        """Changes `params` and `moments` (trees of arrays that are forgotten) in place."""
        for group, h in hidden_at(step).items():
            self.look(params, group, h)
        chosen = {}
        for group in LAYERS:
            age, rho = self.age[group], self.of["decay"]
            order = np.argsort(self.utility[group] / (1 - rho**age), kind="stable")
            mature = [i for i in order if age[i] > self.of["maturity"]]
            chosen[group] = mature[: self.number(group, step)]
        old = jax.tree.map(np.copy, params)
        fresh = tree(jax.random.fold_in(key_at(step), replacement._DRAW))
        for group, units in chosen.items():
            _, reads, _, copies = LAYERS[group]
            for i in units if "bias" in params[reads] else ():
                for c in range(copies):
                    usual = self.mean[group][c, i] / (1 - self.of["decay"] ** self.age[group][i])
                    weights = old[reads]["kernel"][..., self.rows(group, i, c), :]
                    params[reads]["bias"] += weights.reshape(-1, weights.shape[-1]).sum(0) * usual
        for group, units in chosen.items():
            layer = LAYERS[group][0]
            for i in units:
                params[layer]["kernel"][..., i] = fresh[layer]["kernel"][..., i]
                if "bias" in params[layer]:
                    everything = self.of["reset_bias"] == "whole_layer"
                    params[layer]["bias"][slice(None) if everything else i] = 0
                for tree_ in moments:
                    for leaf in tree_[layer].values():
                        leaf[..., i] = 0
        for group, units in chosen.items():
            _, reads, _, copies = LAYERS[group]
            for i in units:
                self.age[group][i] = self.utility[group][i] = 0
                for c in range(copies):
                    self.mean[group][c, i] = 0
                    params[reads]["kernel"][..., self.rows(group, i, c), :] = 0
                    for tree_ in moments:
                        tree_[reads]["kernel"][..., self.rows(group, i, c), :] = 0
        self.replaced.append({g: len(units) for g, units in chosen.items()})


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"utility": "adaptable", "maturity": 2.0},
        {"count": "drawn", "replacement_rate": 0.3},
        {"count": "at_least_one", "reset_bias": "whole_layer", "maturity": 5.0},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())) or "default",
)
@pytest.mark.long
def test_against_numpy(settings):
    """Twelve steps with momentum: parameters, moments, and what is remembered."""
    written, rate, decay = Written(**settings), 0.01, 0.9
    method = methods.continual_backprop(UNITS, tree, **{**DEFAULTS, **settings})
    tx = method(optax.sgd(rate, momentum=decay))
    params = tree(jax.random.key(0))
    state, step = tx.init(params), jax.jit(tx.update)
    wanted = jax.tree.map(lambda p: np.array(p, np.float64), params)
    trace = jax.tree.map(np.zeros_like, wanted)
    for number in range(12):
        gradient = gradients(params, number)
        updates, state = step(gradient, state, params, ctx=context(number))
        params = optax.apply_updates(params, updates)
        trace = jax.tree.map(lambda m, g: decay * m + np.asarray(g, np.float64), trace, gradient)
        wanted = jax.tree.map(lambda p, m: p - rate * m, wanted, trace)
        written.step(wanted, [trace], number)
        pairs = [(params, wanted), (optax.tree.get(state, "trace"), trace)]
        for got, want in pairs:
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), got, want
            )
    memory = state.memory.memory
    for group in LAYERS:
        np.testing.assert_array_equal(memory[group].age, written.age[group])
        np.testing.assert_allclose(
            memory[group].utility, written.utility[group], rtol=1e-4, atol=1e-6
        )
        np.testing.assert_allclose(
            memory[group].mean, written.mean[group].ravel(), rtol=1e-4, atol=1e-6
        )
    total = sum(sum(step.values()) for step in written.replaced)
    assert int(state.memory.units) == total > 2
    assert all(any(step[g] for step in written.replaced) for g in LAYERS)


@pytest.mark.long
def test_the_reading_layer_does_not_miss_a_unit_of_constant_activation():
    """The bias is compensated before the outgoing weights are zeroed, so outputs stay."""
    params = STRUCTURE.init(jax.random.key(1))
    layer = params["layer0"]
    # without a norm: unit 2 is 0.7 on every input, and the weights on it are small
    net = MLP(4, width=4, depth=2, norm="none")
    params = {name: part for name, part in params.items() if not name.startswith("norm")}
    params["layer0"] = {
        "kernel": layer["kernel"].at[:, 2].set(0.0),
        "bias": layer["bias"].at[2].set(0.7),
    }
    params["layer1"] = {**params["layer1"], "kernel": params["layer1"]["kernel"].at[2].mul(0.01)}
    units = {"h0": net.units()["h0"]}
    method = methods.continual_backprop(
        units, lambda key: params, replacement_rate=0.25, maturity=4.0, decay=0.9
    )
    tx = method(optax.sgd(0.0))
    before, seen = net.apply({"params": params}, X, mutable=["hidden"])
    state, now, zero = tx.init(params), params, jax.tree.map(jnp.zeros_like, params)
    update = jax.jit(tx.update)
    for step in range(5):
        ctx = Context(key_at(step), jnp.int32(step), jnp.bool_(False), seen["hidden"])
        updates, state = update(zero, state, now, ctx=ctx)
        now = optax.apply_updates(now, updates)
    assert int(state.memory.units) == 1
    assert not np.any(now["layer1"]["kernel"][2])
    assert np.abs(now["layer1"]["bias"] - params["layer1"]["bias"]).max() > 1e-4
    np.testing.assert_allclose(net.apply({"params": now}, X), before, rtol=1e-5, atol=1e-6)


@pytest.mark.long
def test_a_compensation_of_the_convolutions_of_a_network():
    """The same of a real CNN, whose dense layer reads flattened positions."""
    net = CNN(3, norm="none", base=2, dense=4)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 4, 1)), jnp.float32)
    init = jax.jit(lambda key: net.init(key, x)["params"])
    params = init(jax.random.key(0))
    params["layer2"] = {
        "kernel": params["layer2"]["kernel"].at[..., 1].set(0.0),
        "bias": jnp.full(8, 2.0).at[1].set(0.5),  # no other unit is silent
    }
    kernel = params["layer3"]["kernel"]
    params["layer3"] = {**params["layer3"], "kernel": kernel.at[1::8].mul(1e-3)}
    before, seen = jax.jit(lambda p: net.apply({"params": p}, x, mutable=["hidden"]))(params)
    method = methods.continual_backprop(
        {"h2": net.units()["h2"]}, init, replacement_rate=0.125, maturity=0.0
    )
    tx = method(optax.sgd(0.0))
    ctx = Context(key_at(0), jnp.int32(0), jnp.bool_(False), seen["hidden"])
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, state = jax.jit(tx.update)(zero, tx.init(params), params, ctx=ctx)
    now = optax.apply_updates(params, updates)
    assert int(state.memory.units) == 1
    assert not np.any(now["layer3"]["kernel"][1::8])
    after = jax.jit(lambda p: net.apply({"params": p}, x))(now)
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6)


@pytest.mark.long
def test_lanes_replace_their_own_units():
    """Vmapped lanes of different rates are those that run alone: one replaces, one never does."""

    def run(rate):
        tx = methods.continual_backprop(
            UNITS, tree, **{**DEFAULTS, "replacement_rate": rate, "maturity": 1.0}
        )(optax.sgd(0.01))
        params = tree(jax.random.key(0))
        state = tx.init(params)
        for step in range(3):
            updates, state = tx.update(gradients(params, step), state, params, ctx=context(step))
            params = optax.apply_updates(params, updates)
        return params, state.memory.units

    rates = jnp.array([0.2, 0.0])
    lanes, counts = jax.jit(jax.vmap(run))(rates)
    assert counts[0] > 0 == counts[1]
    for place, rate in enumerate(rates):
        alone, count = jax.jit(run)(rate)
        assert count == counts[place]
        jax.tree.map(
            lambda a, b, i=place: np.testing.assert_allclose(a[i], b, rtol=1e-5, atol=1e-6),
            lanes,
            alone,
        )


def test_a_network_is_drawn_only_when_a_unit_is_replaced():
    """A draw that does not depend on the loop which replaces, the compiler would take out of it."""
    units = {"h": UnitGroup(("dense",), None, ("head",))}

    def init(key):
        kernel = jax.random.uniform(key, (7, 5))
        return {"dense": {"kernel": kernel}, "head": {"kernel": kernel[:5]}}

    tx = methods.continual_backprop(units, init)(optax.sgd(0.01))

    def step(seed, params, state):
        ctx = Context(jax.random.key(seed), seed, jnp.bool_(False), {"h": jnp.ones((1, 5))})
        return tx.update(params, state, params, ctx=ctx)

    params = jax.eval_shape(jax.vmap(init), jax.random.split(jax.random.key(0), 3))
    given = jnp.arange(3, dtype=jnp.uint32), params, jax.eval_shape(jax.vmap(tx.init), params)
    lowered = jax.jit(jax.vmap(step)).lower(*given)
    text = lowered.compile().as_text()
    assert "u32[3,7,5]" in text
    assert "u32[3,7,5]" not in text[text.index("ENTRY") :]


@pytest.mark.long
def test_what_is_refused():
    for option, known in (
        ("utility", "contribution"),
        ("count", "accumulated"),
        ("reset_bias", "own"),
    ):
        with pytest.raises(ValueError, match=rf"{option} is 'x': allowed are '{known}', "):
            methods.continual_backprop(UNITS, tree, **{option: "x"})
    with pytest.raises(
        ValueError, match=r"continual_backprop's units 'h0' are of a layer 'layer0'"
    ):
        methods.continual_backprop(NET.units(), tree)
    tx = methods.continual_backprop(UNITS, tree)(optax.sgd(0.1))
    params = tree(jax.random.key(0))
    with pytest.raises(ValueError, match="continual_backprop needs the activations 'c' in ctx"):
        tx.update(params, tx.init(params), params, ctx=context(0)._replace(hidden={}))
    wrong = {**context(0).hidden, "d": jnp.ones((4, 2))}
    with pytest.raises(ValueError, match="units 'd' have 2 activations: allowed are 4, or a UnitG"):
        tx.update(params, tx.init(params), params, ctx=context(0)._replace(hidden=wrong))


# The optimizer that goes with it


def stepped(optimizer, params, state, steps):
    for step in steps:
        updates, state = optimizer.update(gradients(params, step), state, params)
        params = optax.apply_updates(params, updates)
    return params, state, updates


def test_adam_per_weight_is_adam_until_a_weight_starts_afresh():
    params = STRUCTURE.init(jax.random.key(0))
    ours, theirs = (
        stepped(tx, params, tx.init(params), range(4))[0]
        for tx in (OPTIMIZERS["adam_per_weight"](0.01), OPTIMIZERS["adam"](0.01))
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), ours, theirs)


@pytest.mark.long
def test_a_weight_that_starts_afresh_steps_as_at_first():
    """A first step of Adam is the learning rate times the sign of the gradient. With one count for
    all weights it is 0.64 times that after 40 steps, 3.2 times in the end.
    """
    params, rate = STRUCTURE.init(jax.random.key(0)), 0.01
    reset = methods.full_reset(lambda key: params)

    def first_step(optimizer):
        tx = reset(optimizer(rate))
        _, state, _ = stepped(tx, params, tx.init(params), range(40))
        start = Start(jax.random.key(0), jnp.int32(1), params, lambda p: p, STRUCTURE)
        after, state = methods.begin([reset], tx, params, state, start)
        return stepped(tx, after, state, [41])[2]

    sign = jax.tree.map(lambda g: -rate * jnp.sign(g), gradients(params, 41))
    got, shared = (first_step(OPTIMIZERS[name]) for name in ("adam_per_weight", "adam"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3), got, sign)
    wrong = 0.1 / (1 - 0.9**41) / np.sqrt(0.001 / (1 - 0.999**41))
    assert optax.tree.norm(shared) == pytest.approx(wrong * float(optax.tree.norm(sign)), rel=1e-3)


def test_without_units_nothing_is_replaced():
    params = tree(jax.random.key(0))
    tx = methods.continual_backprop({}, tree)(optax.sgd(0.1))
    updates, _ = tx.update(params, tx.init(params), params, ctx=context(0))
    jax.tree.map(lambda u, p: np.testing.assert_array_equal(u, -0.1 * p), updates, params)
