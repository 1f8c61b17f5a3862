"""Probes of mechanisms: preactivations, lines, first-layer gradients, what features and bias carry;
against numpy, and in a run.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny

from plasticity_jax import lanes, probes
from plasticity_jax.models import CNN, MLP
from plasticity_jax.probes import PROBES
from plasticity_jax.spec import Spec
from plasticity_jax.training import supervised

pytestmark = pytest.mark.usefixtures("compiled_quickly")
RANDOM = np.random.default_rng(0)
X = jnp.asarray(RANDOM.normal(size=(40, 4)), jnp.float32)


@pytest.mark.long
def test_moments_and_histogram_against_numpy():
    tree = {"a": RANDOM.normal(size=(6, 2, 3)) * 4, "b": RANDOM.normal(1, 9, (6, 5))}
    tree = {name: jnp.asarray(values, jnp.float32) for name, values in tree.items()}
    rows = [np.asarray(tree["a"]).reshape(12, 3), np.asarray(tree["b"])]
    means, deviations = probes.moments(tree)
    np.testing.assert_allclose(means, np.concatenate([r.mean(0) for r in rows]), atol=1e-5)
    np.testing.assert_allclose(deviations, np.concatenate([r.std(0) for r in rows]), rtol=1e-5)
    values = jnp.asarray([-9.0, -1.9, -0.1, 0.0, 0.1, 1.99, 2.0, 50.0])
    wanted, _ = np.histogram(np.clip(values, -2, 1.999), 4, (-2, 2))
    np.testing.assert_allclose(probes.histogram(values, 4, 2.0), wanted / 8)
    assert np.isnan(probes.histogram(values.at[0].set(np.nan), 4, 2.0)).all()


@pytest.mark.parametrize("activation", ["relu", "gelu", "tanh", "leaky_relu"])
def test_lines_are_units_whose_variance_a_line_explains(activation):
    """Units around 0 bend; those far on the linear side, or in a narrow range, do not; the dead do
    not count.
    """
    function = {"relu": jax.nn.relu, "gelu": lambda x: jax.nn.gelu(x, approximate=False)}
    function |= {"tanh": jnp.tanh, "leaky_relu": jax.nn.leaky_relu}
    before = jnp.stack([X[:, 0], X[:, 1] + 9, 0.01 * X[:, 2], X[:, 3] * 0 - 50], axis=1)
    after = function[activation](before)
    wanted = 0
    for unit in range(4):
        y, x = np.asarray(after, np.float64)[:, unit], np.asarray(before, np.float64)[:, unit]
        if y.std() > 1e-9:
            slope, level = np.polyfit(x, y, 1)
            wanted += 1 - np.var(y - slope * x - level) / np.var(y) > 1 - 1e-3
    found = probes.linear_fraction({"h": after}, {"h": before})
    assert float(found) == pytest.approx(wanted / 4)
    assert wanted >= 1
    doubled = probes.linear_fraction({"h": jnp.concatenate([after, after], 1)}, {"h": before})
    assert float(doubled) == 0


def test_a_line_may_be_on_either_side_of_0():
    """Of leaky ReLU a unit below 0 on all inputs is linear too; of ReLU it is dead."""
    before = {"h": jnp.stack([X[:, 0] + 9, X[:, 1] - 9, X[:, 2]], axis=1)}
    for function, lines in ((jax.nn.leaky_relu, 2), (jax.nn.relu, 1)):
        after = {"h": function(before["h"])}
        assert float(probes.linear_fraction(after, before)) == pytest.approx(lines / 3)
    assert float(probes.linearized_fraction(before)) == pytest.approx(1 / 3)


@pytest.mark.parametrize("norm", ["none", "layer"])
@pytest.mark.long
def test_alignment_of_the_first_layer_is_of_gradient_and_inputs(norm):
    model = MLP(3, width=6, depth=2, norm=norm)
    params = model.init(jax.random.key(0), X)["params"]

    def outputs(params):
        return model.apply({"params": params}, X)

    def loss(params):
        return (outputs(params) ** 2).mean() + outputs(params)[:, 0].mean()

    gradient = jax.grad(loss)(params)["layer0"]
    with_one = np.concatenate([np.asarray(X), np.ones((40, 1))], 1).astype(np.float64)
    weights = np.concatenate([np.asarray(gradient["kernel"]), np.asarray(gradient["bias"])[None]])
    products = with_one @ weights.astype(np.float64)
    uniform, cosine = probes.gradient_alignment(loss, outputs, params)
    np.testing.assert_allclose(uniform, np.abs(np.sign(products).mean(0)), atol=1e-6)
    lengths = np.linalg.norm(with_one, axis=1)[:, None] * np.linalg.norm(weights, axis=0)
    np.testing.assert_allclose(cosine, (products / lengths).mean(0), atol=1e-5)


@pytest.mark.long
def test_alignment_of_a_convolution_counts_its_positions():
    x = jnp.asarray(RANDOM.normal(size=(3, 4, 4, 1)), jnp.float32)
    model = CNN(2, base=2, dense=4, norm="none")
    params = jax.jit(model.init)(jax.random.key(0), x)["params"]

    def outputs(params):
        return model.apply({"params": params}, x)

    def loss(params):
        return (outputs(params) ** 2).mean()

    uniform, cosine = jax.jit(lambda p: probes.gradient_alignment(loss, outputs, p))(params)
    own = jax.jit(jax.grad(loss))(params)["layer0"]
    padded = np.pad(np.asarray(x, np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded[..., 0], (3, 3), axis=(1, 2))
    kernel = np.asarray(own["kernel"], np.float64)[:, :, 0]
    change = np.einsum("nijab,abh->nijh", windows, kernel) + np.asarray(own["bias"])
    change = change.reshape(-1, 2)
    np.testing.assert_allclose(uniform, np.abs(np.sign(change).mean(0)), atol=1e-6)
    wanted = change.mean(0) / np.sqrt((change**2).mean(0))
    np.testing.assert_allclose(cosine, wanted, rtol=1e-3, atol=1e-5)


@pytest.mark.long
def test_what_the_first_direction_and_the_bias_carry():
    features, kernel = RANDOM.normal(1, 1, (20, 6)), RANDOM.normal(size=(6, 3))
    bias = RANDOM.normal(size=3)
    outputs = features @ kernel + bias
    u, s, v = np.linalg.svd(features, full_matrices=False)
    top = s[0] * u[:, :1] @ v[:1] @ kernel
    wanted = (top**2).sum() / (outputs**2).sum(), 20 * (bias**2).sum() / (outputs**2).sum()
    arrays = [jnp.asarray(a, jnp.float32) for a in (features, kernel, bias, outputs)]
    np.testing.assert_allclose(probes.output_shares(*arrays), wanted, rtol=1e-4)
    assert float(probes.largest_singular_value(arrays[0])) == pytest.approx(s[0], rel=1e-5)
    silent = probes.output_shares(*[0 * a for a in arrays])
    np.testing.assert_array_equal(silent, [0, 0])


PROBED = ("ntk", "preactivation", "gradient_alignment", "feature_spectrum", "linearized_fraction")


@pytest.mark.parametrize("model", ["mlp", "cnn"])
@pytest.mark.long
def test_they_are_measured_in_a_run_at_start_and_end(model):
    small = {"cnn.base": 2, "cnn.dense": 4} if model == "cnn" else {}
    names = (*PROBED, "ntk:start")
    options = {"ntk.churn": True, "ntk.samples": 6, **small}
    spec = tiny.spec(model=model, norm="layer", probes=names, probe_samples=20, options=options)
    run, data = supervised.make_run(spec), tiny.data()
    stacked = lanes.stack(lanes.check(spec, lanes.grid(seed=[0, 1]), 64))

    def whole(lane, data):
        return run.run_task(lane, run.init(lane, data), data, jnp.int32(0))[1]

    if model == "cnn":  # (takes long to compile; what is computed is tested above)
        shapes = jax.eval_shape(jax.vmap(whole, (0, None)), stacked, data)
        assert {"ntk", "ntk/churn", "ntk:start", "feature_spectrum/bias"} <= shapes.keys()
        return
    found = jax.jit(jax.vmap(whole, (0, None)))(stacked, data)
    assert all(np.isfinite(values).all() for values in found.values())
    assert ((found["ntk"] >= 1) & (found["ntk"] <= 6)).all()
    assert (found["ntk/churn"] > 0).all()
    assert found["preactivation/histogram"].shape == (2, 40)
    shares = ("feature_spectrum/top_direction", "feature_spectrum/bias", "gradient_alignment")
    assert all((found[name] >= 0).all() for name in shares)
    assert not np.array_equal(found["ntk"], found["ntk:start"])


@pytest.mark.parametrize("name", ["ntk", "gradient_alignment"])
def test_texts_have_no_row_of_outputs(name):
    with pytest.raises(ValueError, match=rf"^probe '{name}' reads one row of outputs for each"):
        Spec(environment="random_seq2seq", model="t5", norm="layer", probes=(name,))


def test_what_needs_a_network_says_so():
    with pytest.raises(ValueError, match=r"^ntk needs a Snapshot with a view: allowed is any"):
        PROBES["ntk"](probes_snapshot())
    with pytest.raises(ValueError, match=r"^gradient_alignment needs a Flax network: allowed is"):
        probes.gradient_alignment(lambda p: p.sum(), lambda p: p[None], jnp.ones(3))


def probes_snapshot():
    from plasticity_jax.types import Snapshot

    return Snapshot({}, {}, {}, lambda p: 0.0, {}, {}, jax.random.key(0))
