"""Optax's own tests of contributed optimizers, which its wheel has, over every method and optimizer
of ours.
"""

import importlib.util
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import pytest
from absl.testing import parameterized

from plasticity_jax import methods
from plasticity_jax.optimizers import OPTIMIZERS
from plasticity_jax.types import Context

pytestmark = pytest.mark.oracle


class ToldState(NamedTuple):
    step: jax.Array
    inner: Any


def told(method, learning_rate):
    """Adam with a method, with the context that a loop would give: optax's tests know of none."""
    tx = method(OPTIMIZERS["adam"](learning_rate))

    def init(params):
        return ToldState(jnp.zeros((), jnp.int32), tx.init(params))

    def update(updates, state, params=None, **extra):
        ctx = Context(
            jax.random.fold_in(jax.random.key(0), state.step), state.step, state.step == 1, {}
        )
        updates, inner = tx.update(updates, state.inner, params, ctx=ctx, **extra)
        return updates, ToldState(state.step + 1, inner)

    return optax.GradientTransformationExtraArgs(init, update)


def shrink_and_perturb(learning_rate, shrink, noise):
    return told(methods.shrink_and_perturb(shrink=shrink, noise=noise, period=3), learning_rate)


def redo(learning_rate, threshold):
    return told(methods.redo({}, lambda key: {}, threshold=threshold, period=3), learning_rate)


FACTORIES = {
    "none": lambda learning_rate: told(methods.none(), learning_rate),
    "l2": lambda learning_rate, strength: told(methods.l2(strength=strength), learning_rate),
    "l2_init": lambda learning_rate, strength: told(
        methods.l2_init(strength=strength), learning_rate
    ),
    "spectral": lambda learning_rate, strength: told(
        methods.spectral(strength=strength), learning_rate
    ),
    "shrink_and_perturb": shrink_and_perturb,
    "redo": redo,
    "optimizer_reset": lambda learning_rate: told(methods.optimizer_reset(), learning_rate),
    "clip": lambda learning_rate, norm: told(methods.clip(norm=norm), learning_rate),
    "head_reset": lambda learning_rate: told(
        methods.head_reset(("head",), lambda key: {}), learning_rate
    ),
    "feature_norm": lambda learning_rate, strength: told(
        methods.feature_norm(strength=strength), learning_rate
    ),
    "infer": lambda learning_rate, strength: told(methods.infer(strength=strength), learning_rate),
    "gradient_penalty": lambda learning_rate, strength: told(
        methods.gradient_penalty(strength=strength), learning_rate
    ),
    "weight_norm_constraint": lambda learning_rate, pull: told(
        methods.weight_norm_constraint(pull=pull), learning_rate
    ),
    "full_reset": lambda learning_rate: told(methods.full_reset(lambda key: {}), learning_rate),
    "gradient_noise": lambda learning_rate, scale: told(
        methods.gradient_noise(scale=scale), learning_rate
    ),
    "continual_backprop": lambda learning_rate, decay: told(
        methods.continual_backprop({}, lambda key: {}, decay=decay), learning_rate
    ),
    **OPTIMIZERS,
}
# so weak that the minima of optax's test functions stay where they are
KEYWORDS = {
    "none": {"learning_rate": 1e-2},
    "l2": {"learning_rate": 1e-2, "strength": 1e-5},
    "l2_init": {"learning_rate": 1e-2, "strength": 1e-5},
    "spectral": {"learning_rate": 1e-2, "strength": 1e-5},
    "shrink_and_perturb": {"learning_rate": 1e-2, "shrink": 1.0, "noise": 1e-4},
    "redo": {"learning_rate": 1e-2, "threshold": 0.1},
    "optimizer_reset": {"learning_rate": 1e-2},
    "clip": {"learning_rate": 1e-2, "norm": 1e3},
    "head_reset": {"learning_rate": 1e-2},
    "feature_norm": {"learning_rate": 1e-2, "strength": 1e-5},
    "infer": {"learning_rate": 1e-2, "strength": 1e-5},
    "gradient_penalty": {"learning_rate": 1e-2, "strength": 1e-5},
    "weight_norm_constraint": {"learning_rate": 1e-2, "pull": 1e-6},
    "full_reset": {"learning_rate": 1e-2},
    "gradient_noise": {"learning_rate": 1e-2, "scale": 1e-5},
    "continual_backprop": {"learning_rate": 1e-2, "decay": 0.9},
    "adam": {"learning_rate": 1e-2},
    "adam_per_weight": {"learning_rate": 1e-2},
    "adamw": {"learning_rate": 1e-2, "weight_decay": 1e-4},
    "sgd": {"learning_rate": 1e-3},
    "momentum": {"learning_rate": 1e-3, "decay": 0.8},
}


@pytest.fixture(scope="module")
def suite():
    """Optax's module of tests, whose cases take our factories as arguments instead of being made
    for optax's own.
    """
    found = importlib.util.find_spec("optax.contrib._common_test")
    if found is None:
        pytest.skip("this optax is without its tests")
    module = importlib.util.module_from_spec(found)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parameterized, "product", lambda *sets, **axes: lambda case: case)
        found.loader.exec_module(module)
    module._get_opt_factory = FACTORIES.__getitem__
    return module


def run(suite, case, name, **axes):
    arguments = {
        "opt_name": name,
        "opt_kwargs": KEYWORDS[name],
        "wrapper_name": None,
        "wrapper_kwargs": None,
    }
    getattr(suite.ContribTest(), case)(**arguments, **axes)


def test_every_factory_is_here(suite):
    assert set(FACTORIES) == set(KEYWORDS) == set(methods.METHODS) | set(OPTIMIZERS)
    covered = {
        "test_optimizers_accept_extra_args",
        "test_optimizers",
        "test_optimizers_can_be_wrapped_in_inject_hyperparams",
        "test_preserve_dtype",
        "test_gradient_accumulation",
        "test_state_shape_dtype_shard_stability",
        # ours are not annotated so
        "test_optimizers_accept_learning_rate_schedule_if_type_annotated_as_such",
    }
    assert {case for case in dir(suite.ContribTest) if case.startswith("test")} == covered


@pytest.mark.parametrize("name", FACTORIES)
def test_takes_extra_arguments(suite, name):
    run(suite, "test_optimizers_accept_extra_args", name, wrap=False)


@pytest.mark.parametrize(
    "target", ["parabola", "rosenbrock", "matrix_parabola", "mixed_tensor_target"]
)
@pytest.mark.parametrize("name", FACTORIES)
def test_converges(suite, name, target):
    run(suite, "test_optimizers", name, target=getattr(suite, f"_setup_{target}"), dtype="float32")


@pytest.mark.parametrize("name", FACTORIES)
def test_takes_injected_numbers(suite, name):
    run(suite, "test_optimizers_can_be_wrapped_in_inject_hyperparams", name)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("case", ["test_preserve_dtype", "test_gradient_accumulation"])
@pytest.mark.parametrize("name", FACTORIES)
def test_keeps_dtypes(suite, name, case, dtype):
    run(suite, case, name, dtype=dtype)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64])
@pytest.mark.parametrize("name", FACTORIES)
def test_keeps_the_form_of_its_state(suite, name, dtype):
    run(suite, "test_state_shape_dtype_shard_stability", name, dtype=dtype)


def test_a_suite_that_can_fail(suite):
    """The harness reaches optax's assertions: an optimizer whose updates are of another dtype
    fails.
    """
    wrong = optax.GradientTransformation(
        lambda params: (), lambda u, state, params=None: (u.astype(jnp.float16), state)
    )
    FACTORIES["wrong"], KEYWORDS["wrong"] = lambda: wrong, {}
    try:
        with pytest.raises(AssertionError):
            run(suite, "test_preserve_dtype", "wrong", dtype="float32")
    finally:
        del FACTORIES["wrong"], KEYWORDS["wrong"]
