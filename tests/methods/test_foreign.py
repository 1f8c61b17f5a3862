"""Methods on a network of somebody else: activations as plain Flax `sow` leaves them, layers under
other names, and a sentence where a layer is not where it is said to be.
"""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.loops import assert_bitwise

from plasticity_jax import methods
from plasticity_jax.probes import PROBES
from plasticity_jax.types import Context, Snapshot, Start, UnitGroup, View


class Own(nn.Module):
    """A network that leaves its activations with `sow`."""

    @nn.compact
    def __call__(self, x):
        hidden = nn.relu(nn.Dense(5)(x))
        self.sow("intermediates", "h", hidden)
        return nn.Dense(3)(hidden)


NET, X = Own(), jnp.asarray(np.random.default_rng(0).normal(size=(8, 4)), jnp.float32)
SHAPES = jax.eval_shape(NET.init, jax.random.key(0), X)["params"]
DRAWN = np.random.default_rng(1)
PARAMS = jax.tree.map(lambda p: jnp.asarray(DRAWN.normal(size=p.shape), p.dtype), SHAPES)
SOWN = NET.apply({"params": PARAMS}, X, mutable=["intermediates"])[1]["intermediates"]
UNITS = {"h": UnitGroup(("Dense_0",), None, ("Dense_1",))}


def init(key):
    return jax.tree.map(lambda leaf: jax.random.normal(key, leaf.shape), PARAMS)


def variables(key):
    return {"params": init(key)}


def acting(units=UNITS, init=init):
    """Methods that recycle a unit at every step."""
    return {
        "redo": methods.redo(units, init, period=1, threshold=1e3),
        "redo, running": methods.redo(units, init, period=1, threshold=1e3, score="running"),
        "continual_backprop": methods.continual_backprop(
            units, init, count="at_least_one", maturity=0.0
        ),
    }


def stepped(method, hidden):
    tx = method(optax.sgd(0.0))
    told = Context(jax.random.key(1), jnp.int32(0), jnp.bool_(False), hidden)
    zero = jax.tree.map(jnp.zeros_like, PARAMS)
    with jax.disable_jit():
        return tx.update(zero, tx.init(PARAMS), PARAMS, ctx=told)[0]


@pytest.mark.parametrize("name", acting())
def test_sown_activations_are_those_of_an_array(name):
    method = acting()[name]
    updates = stepped(method, SOWN)
    assert_bitwise(updates, stepped(method, {"h": SOWN["h"][0]}))
    assert any(np.any(leaf) for leaf in jax.tree.leaves(updates))
    with pytest.raises(ValueError, match=r"ctx.hidden\['h'\] has 2 arrays: allowed is one"):
        stepped(method, {"h": SOWN["h"] * 2})


@pytest.mark.parametrize("name", ["feature_norm", "infer"])
def test_terms_take_sown_activations(name):
    term = getattr(methods, name)()
    plain = {"h": SOWN["h"][0]}
    view = View(None, jnp.zeros((8, 3)), SOWN, {}, PARAMS, PARAMS, features=lambda params: plain)
    assert float(term.value(view, ())) == float(term.value(view._replace(hidden=plain), ()))


@pytest.mark.parametrize("name", acting())
def test_units_in_a_layer_that_is_not_there_are_refused(name):
    units = {"h": UnitGroup(("params", "Dense_0"), None, ("params", "Dense_1"))}
    wanted = (
        f"{name.partition(',')[0]}'s layer of units 'h' is 'params/Dense_0', which the parameters "
        "do not have: allowed are 'Dense_0', 'Dense_1'."
    )
    with pytest.raises(ValueError, match=re.escape(wanted)):
        stepped(acting(units, variables)[name], {"h": SOWN["h"][0]})


def test_another_number_of_activations_is_refused():
    hidden = {"h": jnp.ones((8, 7))}
    with pytest.raises(ValueError, match="redo's units 'h' have 7 activations: allowed are 5"):
        stepped(acting()["redo"], hidden)


def begun(boundary):
    start = Start(jax.random.key(5), jnp.int32(1), PARAMS, lambda params: params, None)
    return boundary.apply(PARAMS, start)


@pytest.mark.parametrize("to", ["drawn", "zero"])
def test_a_head_that_is_not_there_is_refused(to):
    wanted = "head_reset's head is 'head', which the parameters do not have: allowed are 'Dense_0'"
    with pytest.raises(ValueError, match=re.escape(wanted)):
        begun(methods.head_reset(("head",), init, to=to))
    after, _ = begun(methods.head_reset(("Dense_1",), init, to=to))
    assert np.any(np.asarray(after["Dense_1"]["kernel"]) != PARAMS["Dense_1"]["kernel"])
    assert_bitwise(after["Dense_0"], PARAMS["Dense_0"])


def test_a_full_reset_says_what_its_init_does_not_draw():
    with pytest.raises(ValueError, match="full_reset's init draws no 'Dense_0/bias', "):
        begun(methods.full_reset(variables))


@pytest.mark.parametrize("name", ["distance_from_init", "parameter_norm", "gradient_norm"])
def test_probes_of_parameters_take_a_sequence(name):
    def loss(params):
        return sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(params))

    def found(params):
        initial = jax.tree.map(jnp.ones_like, params)
        plain = {"h": SOWN["h"][0]}
        shot = Snapshot(params, params, initial, loss, plain, plain, jax.random.key(0))
        values = PROBES[name](shot)
        return [values[part] for part in sorted(values, key=str)]

    by_place, by_name = found(list(PARAMS.values())), found(dict(PARAMS))
    assert len(by_place) > 2
    np.testing.assert_array_equal(by_place, by_name)
