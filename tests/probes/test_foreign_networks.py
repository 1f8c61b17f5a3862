"""Probes on a network of somebody else: parameters in other containers and under other names,
activations as plain Flax `sow` leaves them. The same numbers, or one sentence.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flax.core import freeze

from plasticity_jax.probes import PROBES, traps
from plasticity_jax.types import Batch, Snapshot, UnitGroup, View

X = jnp.asarray(np.random.default_rng(0).normal(size=(8, 4)), jnp.float32)
Y = jax.nn.one_hot(jnp.arange(8) % 3, 3)
WIDTHS = {"a": (4, 6), "z": (6, 3)}
UNITS = {"h": UnitGroup(("a",), None, ("z",))}
# names that Flax gives to what sits under `kernel` and `bias`, or those of somebody else
OTHER = {"kernel": "w", "bias": "b"}


def renamed(tree):
    return {name: {OTHER[key]: leaf for key, leaf in each.items()} for name, each in tree.items()}


def sown(activations):
    return {group: (values,) for group, values in activations.items()}


# form -> (what holds the parameters, what holds the activations)
FORMS = {
    "dict": (dict, dict),
    "FrozenDict": (freeze, dict),
    "nnx.State": (lambda tree: nnx.State(jax.tree.map(nnx.Param, tree)), dict),
    "other names": (renamed, dict),
    "sown": (dict, sown),
}
# form -> {probe: the sentence it says instead}
NO_KERNEL = "units 'h' are of a/kernel, which the parameters do not have: allowed are"
NO_LAYER = "gradient_alignment needs a Flax network: allowed is one with a layer that has a kernel"
ONE_ARRAY = "is a tuple: allowed is one array of activations"
SAID = {
    "other names": {"trap": NO_KERNEL, "normal_gradient_fraction": NO_KERNEL},
    "sown": {
        "representation_change": f"now {ONE_ARRAY}",
        **dict.fromkeys(
            (
                "effective_rank",
                "feature_spectrum",
                "participation_ratio",
                "stable_rank",
                "hard_rank",
                "clone_r2",
            ),
            f"activations {ONE_ARRAY}",
        ),
        "saturated_fraction": "allowed are trees of the same shapes",
        "trap": f"preactivations {ONE_ARRAY}",
    },
}


def drawn(seed):
    random = np.random.default_rng(seed)
    return {
        name: {
            "kernel": jnp.asarray(random.normal(size=shape), jnp.float32),
            "bias": jnp.asarray(random.normal(size=shape[1]), jnp.float32),
        }
        for name, shape in WIDTHS.items()
    }


def snapshot_of(form):
    held, left = FORMS[form]
    params, before = held(drawn(1)), held(drawn(2))

    def passed(tree):
        # (a layer's leaves in the order of jax: bias before kernel, in every form)
        b0, w0, b1, w1 = jax.tree.leaves(tree)
        made = X @ w0 + b0[None]
        hidden = jax.nn.relu(made)
        return made, hidden, hidden @ w1 + b1[None]

    def hidden_of(tree):
        return left({"h": passed(tree)[1]})

    def loss(tree):
        return -(jax.nn.log_softmax(passed(tree)[2]) * Y).sum(-1).mean()

    def view(tree, count=None):
        made, hidden, outputs = (part[:count] for part in passed(tree))
        batch = Batch(X[:count], Y[:count], jnp.ones(len(outputs)))
        return View(batch, outputs, left({"h": hidden}), left({"h": made}), tree, before)

    return Snapshot(
        params,
        before,
        before,
        loss,
        hidden_of(params),
        hidden_of(before),
        jax.random.key(3),
        view=view,
        activation=jax.nn.relu,
        unit_gradients=lambda tree: {"h": jnp.ones((8, 6))},
        units=UNITS,
    )


# for time
FEWER = {"hessian_top": {"iterations": 2}, "ntk": {"samples": 2}}


@functools.cache
def measured(name, form):
    # op by op, as the operations of all forms are the same and compile once
    with jax.disable_jit():
        return jax.tree.map(np.asarray, PROBES[name](snapshot_of(form), **FEWER.get(name, {})))


# (Lanczos compiles most)
LONG = {"hessian_top"}
EACH = [pytest.param(name, marks=[pytest.mark.long] * (name in LONG)) for name in PROBES]


@pytest.mark.parametrize("form", [form for form in FORMS if form != "dict"])
@pytest.mark.parametrize("name", EACH)
def test_a_probe_of_a_foreign_network_is_right_or_says_what_it_lacks(name, form):
    said = {"gradient_alignment": NO_LAYER, **SAID.get(form, {})}
    if name in said:
        with pytest.raises(ValueError, match=said[name]):
            measured(name, form)
        return
    want, got = measured(name, "dict"), measured(name, form)
    assert got.keys() == want.keys()
    for detail, value in want.items():
        np.testing.assert_array_equal(got[detail], value, err_msg=detail)
    assert all(np.all(np.isfinite(value)) for value in got.values())


def test_a_norm_that_is_not_there_is_refused():
    units = {"h": UnitGroup(("a",), ("norm",), ("z",))}
    with pytest.raises(ValueError, match="the norm of units 'h' is 'norm', which the parameters"):
        traps.clone_pairs(units, drawn(1))
