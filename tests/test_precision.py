"""What each precision computes in: read off the program of a task, and measured on one gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import networks, tiny
from jax.flatten_util import ravel_pytree

from plasticity_jax import lanes, registry
from plasticity_jax.environments import ENVIRONMENTS
from plasticity_jax.execution import program as program_
from plasticity_jax.execution import rows
from plasticity_jax.methods import METHODS
from plasticity_jax.precision import PRECISIONS, cast
from plasticity_jax.training import network, supervised
from plasticity_jax.training import step as step_
from plasticity_jax.types import Batch

pytestmark = pytest.mark.usefixtures("compiled_quickly")

EPOCHS = 3  # no other loop of a task has as many rounds
HIGH, HIGHEST, DEFAULT = (
    jax.lax.Precision.HIGH,
    jax.lax.Precision.HIGHEST,
    jax.lax.Precision.DEFAULT,
)
NETWORKS = {
    "mlp": {"norm": "layer", "depth": 2},
    "cnn": {"model": "cnn", "norm": "batch", "options": {"cnn.base": 4, "cnn.dense": 8}},
    "resnet18": {"model": "resnet18", "norm": "batch", "options": {"resnet18.base": 4}},
    "t5": {
        "model": "t5",
        "dataset": "generated",
        "environment": "bigram_cipher",
        "transition": "sampling",
        "options": {
            "t5.feed_forward": 8,
            "t5.heads": 2,
            "t5.head_width": 4,
            "bigram_cipher.words": 2,
            "bigram_cipher.word_length": 2,
        },
    },
}


def spec(name="mlp", **changes):
    return tiny.spec(**(NETWORKS[name] | {"epochs": EPOCHS} | changes))


def products(jaxpr, inside=()):
    """(rounds of the loops around it, operand type, precision) of each matrix product and
    convolution of a program.
    """
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            yield inside, equation.invars[0].aval.dtype, equation.params["precision"]
        for inner in jax.tree.leaves(
            list(equation.params.values()),
            is_leaf=lambda leaf: hasattr(leaf, "eqns") or hasattr(leaf, "jaxpr"),
        ):
            if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                yield from products(
                    getattr(inner, "jaxpr", inner), (*inside, equation.params.get("length"))
                )


def of_a_task(one):
    """The products of a whole task, {(in training, operand type, precision)}."""
    run, data = supervised.make_run(one), tiny.data(shape=(8, 8, 1))
    lane = {k: v[0] for k, v in lanes.stack([lanes.complete(one, {})]).items()}
    state = jax.eval_shape(run.init, lane, data)
    program = jax.make_jaxpr(run.run_task)(lane, state, data, jnp.int32(1))
    return {
        (EPOCHS in inside, str(dtype), precision)
        for inside, dtype, precision in products(program.jaxpr)
    }


EXACT = (False, "float32", (HIGHEST, HIGHEST))


@pytest.mark.parametrize("name", NETWORKS)
def test_only_the_networks_passes_in_training_are_of_less_precision(name):
    """Evaluation, decoding and probes, which follow the training loop, are float32 whatever
    training is.
    """
    probes = {"probes": ("hessian_top", "effective_rank")}
    assert of_a_task(spec(name, **probes)) == {EXACT, (True, "float32", (HIGHEST, HIGHEST))}
    assert of_a_task(spec(name, precision="tensorfloat32", **probes)) == {
        EXACT,
        (True, "float32", (HIGH, HIGH)),
    }
    assert of_a_task(spec(name, precision="bfloat16", **probes)) == {
        EXACT,
        (True, "bfloat16", (DEFAULT, DEFAULT)),
    }


@pytest.mark.parametrize(
    ("precision", "forward"),
    [("tensorfloat32", ("float32", (HIGH, HIGH))), ("bfloat16", ("bfloat16", (DEFAULT,) * 2))],
)
def test_methods_compute_in_float32(precision, forward):
    found = of_a_task(spec(precision=precision, method="spectral"))
    assert found == {EXACT, (True, *forward), (True, "float32", (HIGHEST, HIGHEST))}


@functools.cache
def stepping(one):
    """(data, whether rounded) -> what `one_step` returns, compiled once for both."""
    environment = registry.make(ENVIRONMENTS, "environment", one.environment, dict(one.options))
    lane = {k: v[0] for k, v in lanes.stack([lanes.complete(one, {"learning_rate": 1.0})]).items()}

    def step(data, rounded):
        def may_be_rounded(tree):
            low = cast(cast(tree, jnp.bfloat16), jnp.float32)
            return jax.tree.map(lambda a, b: jnp.where(rounded, a, b), low, tree)

        state, net = (
            supervised.make_run(one).init(lane, data),
            network.network(one, environment, data),
        )
        batch = environment.examples(
            data, environment.task(jax.random.key(1), data, jnp.int32(0)), jnp.arange(16)
        )
        state, batch = may_be_rounded(state), may_be_rounded(batch)
        tx, key = step_.optimizer(one, lane, net.structure), jax.random.key(2)
        learner = step_.Learner(environment, net, tx)
        never = jnp.asarray(False)
        after, _ = step_.train_step(learner, state, batch, key, jnp.int32(0), never)
        gradient = ravel_pytree(jax.tree.map(jnp.subtract, state.params, after.params))[0]
        return gradient, after, net.apply(state.params, state.variables, batch.x, True)

    lowered = jax.jit(step).lower(step_data(), jnp.asarray(False))
    return lowered.compile(compiler_options={"xla_backend_optimization_level": 0})


def step_data():
    return jax.tree.map(jnp.asarray, tiny.data(shape=(8, 8, 1)))


def one_step(one, rounded=False):
    """The state after a step of gradient descent of size 1 on the first examples, its gradient, and
    what the network gave.

    If `rounded`, weights and inputs are rounded to bfloat16 first, and everything is computed in
    the Spec's precision.
    """
    return stepping(one)(step_data(), jnp.asarray(rounded))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_gradient_in_bfloat16_is_close_and_everything_at_rest_is_float32(name):
    exact, *rest = one_step(spec(name))
    half, *rest_of_half = one_step(spec(name, precision="bfloat16"))
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), rest_of_half) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), rest
    )
    assert {leaf.dtype for leaf in (half, *jax.tree.leaves(rest_of_half))} == {np.dtype(np.float32)}
    # How much a gradient makes of rounding is the network's affair (batch norm on 16 examples makes
    # 0.3 of 2^-9), so the measure is the gradient in float32 at rounded weights and inputs.
    # Rounding activations and their gradients as well is two to three times as many errors of the
    # same size, which add up like random ones: within a factor of 3.
    rounded, *_ = one_step(spec(name), rounded=True)
    error, expected = (
        np.linalg.norm(found - exact) / np.linalg.norm(exact) for found in (half, rounded)
    )
    assert 2**-12 < error < 3 * expected


@pytest.mark.parametrize("method", METHODS)
def test_every_method_runs_in_bfloat16(method):  # (tensorfloat32 is float32 on a CPU)
    one = spec(
        precision="bfloat16", method=method, options={"redo.period": 3} if method == "redo" else {}
    )
    lane = {k: v[0] for k, v in lanes.stack([lanes.complete(one, {})]).items()}
    environment = one.make_environment()

    def steps(data):
        """Six of a second task."""
        net = network.network(one, environment, data)
        batch = environment.examples(
            data, environment.task(jax.random.key(1), data, jnp.int32(1)), jnp.arange(16)
        )
        learner = step_.learner(one, lane, environment, net, 6)
        state = supervised.make_run(one).init(lane, data)

        def step(state, clock):
            key = jax.random.fold_in(jax.random.key(2), clock)
            return step_.train_step(learner, state, batch, key, clock, clock == 6)

        return jax.lax.scan(step, state, jnp.arange(6, 12))

    state, online = networks.quickly(steps, tiny.data())
    assert np.isfinite(online.loss).all()
    assert online.loss[-1] != online.loss[0]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {np.dtype(np.float32)}


def test_only_floating_point_is_cast():
    batch = Batch(jnp.ones((2, 3)), jnp.ones((2, 2), jnp.int32), jnp.ones(2, bool))
    found = cast(batch, jnp.bfloat16)
    assert [leaf.dtype for leaf in found if leaf is not None] == [jnp.bfloat16, jnp.int32, bool]
    assert cast(batch, jnp.float32).x is batch.x


def test_precision_is_an_axis_of_the_table_and_no_part_of_older_records():
    assert "precision" not in spec().record()
    assert spec(precision="bfloat16").record()["precision"] == "bfloat16"
    programs = program_.plan([(spec(precision=name), [{}]) for name in PRECISIONS], 64)
    assert "precision" in rows.arm_columns(programs)
    assert [p.spec.record().get("precision") for p in programs] == [
        None,
        "tensorfloat32",
        "bfloat16",
    ]
