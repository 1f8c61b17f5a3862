"""Dropout: what is dropped, where, and that only training steps drop."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny

from plasticity_jax import lanes
from plasticity_jax.models import cnn, layers, mlp, resnet18, vit
from plasticity_jax.training import supervised

pytestmark = pytest.mark.usefixtures("compiled_quickly")

RATE = 0.25
SETTINGS = {"norm": "none", "activation": "relu", "initialization": "torch"}
MADE = {
    "mlp": lambda: mlp(64, 64, 1, **SETTINGS, dropout=RATE),
    "cnn": lambda: cnn(64, **SETTINGS, base=2, dense=64, dropout=RATE),
    "resnet18": lambda: resnet18(16, **SETTINGS, base=2, dropout=RATE),
}


@pytest.mark.parametrize("name", MADE)
@pytest.mark.long
def test_values_are_0_or_divided_by_what_is_kept(name):
    """With the identity as its head, a network's outputs are what is dropped ahead of it."""
    net = MADE[name]()
    x = jnp.asarray(np.random.default_rng(0).normal(1, 1, size=(40, 4, 4, 1)), jnp.float32)
    params = net.init(jax.random.key(0), x)["params"]
    params["head"] = {"kernel": jnp.eye(net.outputs), "bias": jnp.zeros(net.outputs)}

    @jax.jit
    def outputs(key):
        return net.apply({"params": params}, x, True, rngs={"dropout": key})

    plain = np.asarray(net.apply({"params": params}, x, False))
    got = np.asarray(outputs(jax.random.key(1)))
    positive = plain > 1e-6
    assert positive.sum() > 200
    kept = got[positive] != 0
    np.testing.assert_allclose(got[positive][kept], plain[positive][kept] / (1 - RATE), 1e-5, 1e-6)
    share, error = kept.mean(), np.sqrt(RATE * (1 - RATE) / kept.size)
    assert abs(share - (1 - RATE)) < 4 * error
    np.testing.assert_array_equal(got, outputs(jax.random.key(1)))
    assert (got != outputs(jax.random.key(2))).any()


@pytest.mark.long
def test_a_vit_drops_at_four_places():
    """Embeddings, and in each block attention weights, their branch, inner units and theirs."""
    net = vit(3, "none", patch=2, embedding=64, blocks=2, heads=2, ratio=2, dropout=RATE)
    x = jnp.asarray(np.random.default_rng(0).normal(1, 1, size=(40, 4, 4, 1)), jnp.float32)
    params = net.init(jax.random.key(0), x)["params"]
    found = []

    def record(call, args, given, context):
        after = call(*args, **given)
        if isinstance(context.module, layers.Dropout) and "rng" not in given:  # (not its super's)
            found.append((np.asarray(args[0]), np.asarray(after)))
        return after

    with nn.intercept_methods(record):
        net.apply({"params": params}, x, True, rngs={"dropout": jax.random.key(1)})
        training = found.copy()
        net.apply({"params": params}, x, False)
    assert found == training
    of_block = [(2 * 40, 5, 5), (40, 5, 64), (40, 5, 128), (40, 5, 64)]
    assert [before.shape for before, _ in found] == [(40, 5, 64), *of_block, *of_block]
    for before, after in found:
        kept = after != 0
        np.testing.assert_allclose(after[kept], before[kept] / (1 - RATE), 1e-5)
        error = np.sqrt(RATE * (1 - RATE) / kept.size)
        assert abs(kept.mean() - (1 - RATE)) < 4 * error


def trained(learning_rate=0.01, **settings):
    """Metrics and parameters of one task of one lane."""
    spec = tiny.spec(tasks=1, width=16, **settings)
    run, data = supervised.make_run(spec), jax.tree.map(jnp.asarray, tiny.data())
    lane = jax.tree.map(
        lambda a: a[0], lanes.stack(lanes.check(spec, [{"learning_rate": learning_rate}], 64))
    )
    state, metrics = jax.jit(lambda: run.run_task(lane, run.init(lane, data), data, jnp.int32(0)))()
    return metrics, state.params


@pytest.mark.long
def test_training_drops_and_evaluation_does_not():
    """A run that drops is another one, the same each time; at a learning rate of 0 all that is
    evaluated is the same, though what was scored before each step is not.
    """
    dropping = {"options": {"mlp.dropout": 0.5}}
    first, again, plain = trained(**dropping), trained(**dropping), trained()
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert first[0]["online_loss"] != plain[0]["online_loss"]
    dropped, whole = (trained(0.0, **given)[0] for given in (dropping, {}))
    assert dropped["online_loss"] != whole["online_loss"]
    assert dropped["loss"] == whole["loss"]
    zero = trained(options={"mlp.dropout": 0.0})
    jax.tree.map(np.testing.assert_array_equal, zero, plain)
