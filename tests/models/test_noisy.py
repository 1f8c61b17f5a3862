"""Layers whose weights have noise, against the formula of Fortunato et al."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity_jax.models import layers
from plasticity_jax.models.mlp import MLP
from tests.helpers import tiny

pytestmark = pytest.mark.usefixtures("compiled_quickly")
READ, GIVEN = 5, 7


def layer(noisy=True):
    from flax import linen as nn

    class One(nn.Module):
        @nn.compact
        def __call__(self, x):
            return layers.dense(x, GIVEN, "torch", "one", noisy)

    return One()


@pytest.fixture(scope="module")
def params():
    return layer().init(jax.random.key(0), jnp.zeros((1, READ)))["params"]


@jax.jit
def kernel_and_bias(params, key):
    """The weights that a call with a key has, read off its outputs."""
    x = np.vstack([np.eye(READ), np.zeros((1, READ))]).astype(np.float32)
    rngs = {} if key is None else {layers.NOISE: key}
    found = layer().apply({"params": params}, x, rngs=rngs)
    return found[:READ] - found[READ:], found[READ]


def test_without_a_key_it_is_a_plain_layer_with_the_same_weights(params):
    plain = layer(noisy=False).init(jax.random.key(0), jnp.zeros((1, READ)))["params"]["one"]
    kernel, bias = kernel_and_bias(params, None)
    np.testing.assert_allclose(kernel, plain["kernel"], atol=1e-6)
    np.testing.assert_allclose(bias, plain["bias"], atol=1e-6)
    own = params["one"]
    np.testing.assert_array_equal(own["kernel_noise"], np.float32(0.5 / READ**0.5))
    np.testing.assert_array_equal(own["bias_noise"], np.float32(0.5 / READ**0.5))


def test_noise_is_a_product_of_roots_of_normal_numbers(params):
    random = np.random.default_rng(0)
    loud = {
        "kernel_noise": random.uniform(0.1, 1, (READ, GIVEN)).astype(np.float32),
        "bias_noise": random.uniform(0.1, 1, GIVEN).astype(np.float32),
    }
    params = {"one": {**params["one"], **loud}}
    mean_kernel, mean_bias = kernel_and_bias(params, None)
    drawn = []
    for seed in range(300):
        kernel, bias = kernel_and_bias(params, jax.random.key(seed))
        given = (bias - mean_bias) / loud["bias_noise"]  # f(e')
        product = (kernel - mean_kernel) / loud["kernel_noise"]  # f(e) f(e')
        read = product @ given / (given @ given)
        np.testing.assert_allclose(product, np.outer(read, given), atol=2e-4)
        drawn.append(np.concatenate([read, given]))
    drawn = np.array(drawn)
    squared = drawn**2 * np.sign(drawn)  # sign(e) |e|: normal again
    assert abs(squared.mean()) < 0.06
    np.testing.assert_allclose(squared.std(), 1, atol=0.05)
    np.testing.assert_allclose(np.corrcoef(squared.T) - np.eye(READ + GIVEN), 0, atol=0.25)


SMALL = {
    "environment": "bandit",
    "phase_steps": 240,
    "optimizer": "adam",
    "samples": 32,
    "options": {"dqn.replay": 200, "dqn.evaluate": 40, "dqn.warmup": 40, "mlp.noisy": True},
}


@pytest.mark.slow
def test_an_agent_explores_by_noise_alone_and_is_told_without_it():
    from plasticity_jax.training import supervised

    run = supervised.make_run(tiny.spec(**SMALL))
    lane = {"learning_rate": 1e-2, "dqn.gamma": 0.0, "dqn.epsilon": 0.0}
    data = jax.tree.map(jnp.asarray, tiny.data(16))
    state = jax.jit(run.init)(lane, data)
    after, metrics = jax.jit(run.run_task)(lane, state, data, jnp.int32(0))
    ring = after.replay
    by_image = [set(np.asarray(ring.action)[np.asarray(ring.seen) == i]) for i in range(16)]
    assert max(map(len, by_image)) > 1  # (without noise the first network names one class each)
    changed = after.params["layer0"]["kernel_noise"] != state.params["layer0"]["kernel_noise"]
    assert changed.any()
    assert np.isfinite(metrics["online_loss"])


def test_clones_with_noise_are_refused():
    network = MLP(2, width=4, depth=1, noisy=True)
    with pytest.raises(ValueError, match=r"^mlp\.noisy is True: allowed with clones of units is F"):
        network.widened(2)


@pytest.mark.long
def test_a_network_has_noise_only_with_a_key():
    from plasticity_jax.training.network import network

    one = tiny.spec(options={"mlp.noisy": True})
    data = jax.tree.map(jnp.asarray, tiny.data(16))
    net = network(one, one.make_environment(), data)
    params = net.init(jax.random.key(0))["params"]
    x = np.ones((2, 3, 3, 1), np.float32)
    plain, again = (net.apply(params, {}, x, train)[0] for train in (False, True))
    np.testing.assert_array_equal(plain, again)
    drawn = [net.apply(params, {}, x, False, jax.random.key(seed))[0] for seed in (1, 2)]
    assert (drawn[0] != plain).all()
    assert (drawn[0] != drawn[1]).all()
    np.testing.assert_array_equal(drawn[0][0], drawn[0][1])  # (the same for all examples)
