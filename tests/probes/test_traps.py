"""The probe of traps: against the manifolds' own distances and Hessians, and in networks that sit
in one.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny
from helpers.networks import quickly

from plasticity_jax import lanes, manifolds, models, probes
from plasticity_jax.models import CNN, MLP, MODELS
from plasticity_jax.probes import PROBES, traps
from plasticity_jax.training.supervised import make_run
from plasticity_jax.types import Snapshot, View

X = jnp.asarray(np.random.default_rng(0).normal(size=(10, 4, 4, 1)), jnp.float32)
Y = jnp.asarray(np.random.default_rng(1).normal(size=(10, 2)), jnp.float32)
NETS = [
    MLP(2, width=4, depth=2, norm="layer", activation="crelu"),
    CNN(2, norm="none", base=2, dense=4, activation="tanh"),
]


def snapshot_of(net, params):
    def loss(params):
        return jnp.square(net.apply({"params": params}, X) - Y).mean()

    def view(params):
        _, seen = net.apply({"params": params}, X, mutable=["hidden", "preactivations"])
        return View(None, None, seen["hidden"], seen["preactivations"], params, params)

    activation = {"crelu": jax.nn.relu, "tanh": jnp.tanh, "relu": jax.nn.relu}[net.activation]
    key = jax.random.key(0)
    more = {"view": view, "activation": activation, "units": net.units()}
    return Snapshot(params, params, params, loss, {}, {}, key, **more)


def params_of(net):
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), X)["params"])
    random = np.random.default_rng(3)
    return jax.tree.map(lambda s: jnp.asarray(random.normal(0, 0.5, s.shape), s.dtype), shapes)


@pytest.mark.parametrize("net", NETS, ids=["mlp", "cnn"])
@pytest.mark.long
def test_the_nearest_pair_and_its_curvature_are_those_of_the_manifold(net):
    params = params_of(net)
    snapshot = snapshot_of(net, params)
    found, share = quickly(both_probes(net), params)
    found = jax.tree.map(float, found)
    pairs = manifolds.nearest_pairs(net.units(), params)
    relative = {group: float(pair.relative) for group, pair in pairs.items()}
    nearest = min(relative, key=lambda group: relative[group])
    assert found[""] == pytest.approx(relative[nearest], rel=1e-5)
    assert {group: found[group] for group in relative} == pytest.approx(relative, rel=1e-5)
    assert list(relative)[int(found["layer"])] == nearest
    (layer,) = net.units()[nearest].made_by
    labels = np.arange(params[layer]["kernel"].shape[-1])
    one, other = np.asarray(pairs[nearest].units)
    labels[other] = one
    clones = manifolds.of_units(net.units(), params, {nearest: labels})
    apart = jax.tree.map(jnp.subtract, params, clones.nearest(params))
    assert float(manifolds.distance(clones, params)) == pytest.approx(
        float(pairs[nearest].distance), rel=1e-4
    )
    gradient = jax.grad(snapshot.loss)(params)
    assert float(share[""]) == float(share[nearest])
    assert float(share[nearest]) == pytest.approx(
        float(manifolds.normal_fraction(clones, gradient)), rel=1e-4
    )
    curved = float(quickly(lambda v: manifolds.curvature(snapshot.loss, params, v), apart))
    assert found["curvature"] == pytest.approx(curved, rel=1e-3, abs=1e-5)


def test_small_units_are_near_in_parameters_and_others_for_their_size():
    """By hand: two units of size 100 a tenth apart, and two of size .05 at a right angle."""
    own = np.zeros((2, 4), np.float32)
    own[:, 0], own[:, 1] = (100, 0), (100, 0.1)
    own[:, 2], own[:, 3] = (0.05, 0), (0, 0.05)
    found = probes.nearest_pair(jnp.asarray(own), jnp.zeros((1, 4)))
    assert found.units.tolist() == [2, 3]
    assert float(found.distance) == pytest.approx(0.05)
    assert float(found.relative) == pytest.approx(np.sqrt(0.5))
    assert float(found.least) == pytest.approx(0.1 / (100 + np.hypot(100, 0.1)), rel=1e-4)
    zeros = probes.nearest_pair(jnp.zeros((2, 3)), jnp.zeros((1, 3)))
    assert (float(zeros.relative), float(zeros.least)) == (0, 0)


def both_probes(net):
    names = ("trap", "normal_gradient_fraction")
    return lambda params: [PROBES[name](snapshot_of(net, params)) for name in names]


def trapped(net, params):
    return quickly(lambda p: PROBES["trap"](snapshot_of(net, p)), params)


@pytest.mark.long
def test_networks_that_sit_in_a_trap():
    net = MLP(2, width=4, depth=2, norm="none")
    params = params_of(net)
    labels = {"h1": [0, 1, 2, 1]}
    here = manifolds.of_units(net.units(), params, labels).nearest(params)
    found, kept = quickly(both_probes(net), here)
    assert float(found[""]) < 1e-6
    assert (float(found["layer"]), float(found["curvature"])) == (1, pytest.approx(0, abs=1e-2))
    assert float(found["relative"]) < 1e-6
    assert float(found["h0"]) > 0.1
    smooth = trapped(MLP(2, width=4, depth=2, norm="none", activation="tanh"), here)
    assert float(smooth["frozen_distance"]) > 0.1 > float(smooth[""])
    assert (float(smooth["nearest_layer"]), float(smooth["manifold"])) == (1, 0)
    assert float(kept["h1"]) < 1e-6
    assert float(kept["h0"]) > 0.01
    frozen = {**here, "layer1": {**here["layer1"], "bias": here["layer1"]["bias"].at[2].set(-99.0)}}
    found = trapped(net, frozen)
    assert (float(found["frozen"]), float(found["frozen_layer"])) == (0, 1)
    assert float(found["frozen_distance/h1"]) == float(found["frozen_distance"]) == 0
    assert float(found["frozen_distance/h0"]) > 0
    alone = trapped(net, {**params, "layer1": frozen["layer1"]})
    assert (float(alone["manifold"]), float(alone["frozen_distance"])) == (1, 0)
    assert float(alone["nearest_layer"]) == 1
    assert float(alone[""]) > 0
    lost = {**here, "head": {**here["head"], "bias": here["head"]["bias"].at[0].set(np.nan)}}
    assert all(np.isnan(value) for value in trapped(net, lost).values())
    with pytest.raises(ValueError, match="normal_gradient_fraction needs a Snapshot with units"):
        PROBES["normal_gradient_fraction"](snapshot_of(net, here)._replace(units={}))
    with pytest.raises(ValueError, match="trap needs a Snapshot with units and an activation"):
        PROBES["trap"](snapshot_of(net, here)._replace(units={}))


@pytest.mark.long
def test_relative_distances():
    own = jnp.asarray([[1.0, 0.0, -1.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
    pair = probes.nearest_pair(own[:, ::2], jnp.zeros((1, 2)))
    assert float(pair.relative) == pytest.approx(1)
    pair = probes.nearest_pair(own[:, :2], jnp.zeros((1, 2)))
    assert float(pair.relative) == pytest.approx(0.5**0.5)
    assert float(pair.distance) == float(pair.forward) == pytest.approx(1)
    silent = probes.nearest_pair(jnp.zeros((2, 2)), jnp.zeros((1, 2)))
    assert float(silent.relative) == 0
    assert silent.units.tolist() == [0, 1]


FUNCTIONS = {  # with the derivative of each, written out
    "relu": (jax.nn.relu, lambda z: np.where(z > 0, 1.0, 0.0)),
    "tanh": (jnp.tanh, lambda z: 1 / np.cosh(z) ** 2),
    "sigmoid": (jax.nn.sigmoid, lambda z: 1 / (2 + 2 * np.cosh(z))),
    "selu": (jax.nn.selu, lambda z: 1.0507 * np.where(z > 0, 1, 1.6733 * np.exp(np.minimum(z, 0)))),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_how_far_a_unit_is_from_frozen_is_how_far_its_bias_has_to_go(name):
    """Against every shift in steps of .01, until the derivative is flat on all inputs."""
    function, derivative = FUNCTIONS[name]
    rows, sizes = np.random.default_rng(5).normal(size=(12, 3)), np.asarray([1.0, 2.0, 0.5])
    shifts = np.arange(0, 15, 0.01)
    both = np.concatenate([-shifts, shifts])
    slopes = np.abs(derivative(rows[None] + both[:, None, None])).max(axis=1)
    needed = [np.abs(both[slopes[:, unit] < 1e-3]).min() for unit in range(3)]
    found = traps.frozen_distance(
        jnp.asarray(rows, jnp.float32), function, jnp.asarray(sizes, jnp.float32)
    )
    assert float(found) == pytest.approx((needed / sizes).min(), abs=0.02 / sizes.min())
    assert float(found) > 0.5
    silent = jnp.asarray(rows, jnp.float32) - 99
    assert float(traps.frozen_distance(silent, function, jnp.ones(3))) == 0


def test_a_function_that_is_nowhere_flat_freezes_no_unit():
    rows = jnp.ones((4, 2))
    assert np.isnan(float(traps.frozen_distance(rows, jax.nn.leaky_relu, jnp.ones(2))))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.long
def test_every_model_has_what_it_looks_at(name):
    """Nothing is computed: units, their kernels and their preactivations are there."""
    text = models.inputs(MODELS[name]) == ("text",)
    spec = tiny.spec(
        model=name,
        environment="bigram_cipher" if text else "random_labels",
        probes=("trap", "saturated_fraction", "normal_gradient_fraction"),
    )
    run, data = make_run(spec), jax.tree.map(jnp.asarray, tiny.data())
    lane = jax.tree.map(lambda a: a[0], lanes.stack(lanes.check(spec, [{}], 64)))
    metrics = jax.eval_shape(
        lambda: run.run_task(lane, run.init(lane, data), data, jnp.int32(0))[1]
    )
    for group in spec.make_model(4).units():
        names = ("trap", "saturated_fraction", "normal_gradient_fraction")
        assert {f"{name}/{group}" for name in names} <= metrics.keys()
        assert f"trap/frozen_distance/{group}" in metrics
