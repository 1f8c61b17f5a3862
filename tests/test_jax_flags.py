"""Runs under jax's flags for debugging and configuration: the same numbers where that can be."""

import contextlib
import functools
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from helpers import tiny

import plasticity_jax as pj
from plasticity_jax import environments, lanes
from plasticity_jax.cli import launcher
from plasticity_jax.estimates import profile
from plasticity_jax.execution import program as program_
from plasticity_jax.models.cnn import CNN
from plasticity_jax.models.t5 import T5
from plasticity_jax.probes import numerics
from plasticity_jax.storage import table as table_
from plasticity_jax.stream import order
from plasticity_jax.text import decoding
from plasticity_jax.training import supervised
from plasticity_jax.types import Text

pytestmark = pytest.mark.usefixtures("compiled_quickly")

ROOT = Path(__file__).resolve().parent.parent
SMALL = {"tasks": 2, "epochs": 1, "batch_size": 8, "probe_samples": 8, "transition": "sampling"}
SIZES = {"width": 4, "depth": 1}  # of those that read them
PARTS = {
    "mlp": {},
    "cnn": {"cnn.base": 1, "cnn.dense": 2},
    "resnet18": {"resnet18.base": 1},
    "t5": {"t5.heads": 1, "t5.head_width": 2, "t5.feed_forward": 4},
    "random_seq2seq": {
        "random_seq2seq.words": 1,
        "random_seq2seq.target_words": 1,
        "random_seq2seq.beams": 2,
    },
    "bigram_cipher": {"bigram_cipher.words": 1, "bigram_cipher.beams": 1},
}
RUNS = (
    ("mlp", "random_labels"),
    ("cnn", "permuted_pixels"),
    ("resnet18", "random_labels"),
    ("t5", "random_seq2seq"),
)
MORE_RUNS = (
    ("mlp", "permuted_pixels"),
    ("cnn", "random_labels"),
    ("resnet18", "permuted_pixels"),
    ("t5", "bigram_cipher"),
)
# under these a run has the same numbers, to the bit
SAME = {
    "jax_enable_x64": True,
    "jax_debug_nans": True,
    "jax_debug_infs": True,
    "jax_check_tracer_leaks": True,
    "jax_numpy_rank_promotion": "raise",
    "jax_numpy_dtype_promotion": "strict",
    "jax_default_matmul_precision": "bfloat16",
}
DRAWS = (
    {"jax_default_prng_impl": "rbg"},
    {"jax_default_prng_impl": "unsafe_rbg"},
    {"jax_threefry_partitionable": False},
)


@contextlib.contextmanager
def jax_set(**flags):
    """Sets flags of jax for a while."""
    before = {name: jax.config.values[name] for name in flags}
    try:
        for name, value in flags.items():
            jax.config.update(name, value)
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """(model, environment, ...) -> table of a run under the flags of the moment; `plain` keeps
    it.
    """
    dataset = tiny.arrays(tmp_path_factory.mktemp("data"), 16)

    def spec(model, environment, **changes):
        if model == "t5":
            kind = {"dataset": "generated", "samples": 16}
            own = {f"{environment}.word_length": 2, f"{environment}.decoded": 8}
        else:
            kind, own = {"dataset": dataset, "norm": "batch"}, {}
        options = PARTS[model] | PARTS.get(environment, {}) | own | dict(changes.pop("options", ()))
        sizes = SIZES if model in ("mlp", "t5") else {}
        what = {"model": model, "environment": environment, "options": options}
        return pj.Spec(**SMALL | sizes | kind | what | changes)

    def run(model, environment, workdir=None, **changes):
        return pj.run(spec(model, environment, **changes), pj.grid(seed=range(2)), workdir)

    run.plain = functools.cache(run)
    run.spec = spec
    return run


def assert_same(one, other):
    pd.testing.assert_frame_equal(one, other, check_exact=True)


def numbers(frame):
    # (how many examples were asked for: not given here)
    return frame.drop(columns="samples").select_dtypes("number").to_numpy(float)


def check_same(table, model, environment):
    with jax_set(**SAME):
        found = table(model, environment)
    assert_same(found, table.plain(model, environment))
    assert np.isfinite(numbers(found)).all()


@pytest.mark.long
def test_the_same_to_the_bit_under_all_flags_that_leave_draws_alone(table):
    check_same(table, *RUNS[0])


@pytest.mark.slow
@pytest.mark.parametrize(("model", "environment"), [*RUNS[1:], *MORE_RUNS])
def test_the_same_to_the_bit_everywhere(table, model, environment):
    check_same(table, model, environment)


def operations(program):
    """Every operation of a traced program and of those inside it, with what it takes and gives."""
    for equation in program.eqns:
        types = [str(variable.aval) for variable in (*equation.invars, *equation.outvars)]
        yield equation.primitive.name, types
        for value in jax.tree.leaves(list(equation.params.values())):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from operations(inner)


def traced(spec):
    """A task's program: its operations as they are traced, and the text that XLA is given."""
    data, run = program_.device_data(program_.load_dataset(spec)), supervised.make_run(spec)
    lane = {name: numbers[0] for name, numbers in lanes.stack([lanes.complete(spec, {})]).items()}
    state = jax.eval_shape(run.init, lane, data)
    program = jax.jit(run.run_task).trace(lane, state, data, np.int32(0))
    return list(operations(program.jaxpr)), program.lower().as_text()


@pytest.mark.parametrize(("model", "environment"), RUNS[1:])
@pytest.mark.long
def test_the_same_program_under_all_flags_that_leave_draws_alone(table, model, environment):
    """Compiling it twice takes minutes for all networks together, tracing it seconds."""
    with jax_set(**SAME):
        found, lowered = traced(table.spec(model, environment))
    plain, _ = traced(table.spec(model, environment))
    assert found == plain
    assert len(found) > 1000
    assert "f64" not in lowered


@pytest.mark.slow
@pytest.mark.parametrize(("model", "environment"), [*RUNS, *MORE_RUNS])
@pytest.mark.parametrize("flag", [*SAME, "jax_default_device"])
def test_the_same_to_the_bit_under_each_flag(table, model, environment, flag):
    value = jax.devices()[-1] if flag == "jax_default_device" else SAME[flag]
    with jax_set(**{flag: value}):
        found = table(model, environment)
    assert_same(found, table.plain(model, environment))


def check_draws(table, model, environment, flags):
    with jax_set(**flags):
        found, again = table(model, environment), table(model, environment)
    assert_same(found, again)
    assert np.isfinite(numbers(found)).all()
    assert not found.equals(table.plain(model, environment))


@pytest.mark.parametrize("flags", DRAWS[:1], ids=str)
@pytest.mark.long
def test_other_draws_are_as_repeatable(table, flags):
    check_draws(table, *RUNS[0], flags)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "environment"), [*RUNS, *MORE_RUNS])
@pytest.mark.parametrize("flags", DRAWS, ids=str)
def test_other_draws_are_as_repeatable_everywhere(table, model, environment, flags):
    check_draws(table, model, environment, flags)


def check_op_by_op(table, model, environment, **changes):
    """No operation makes a NaN, for which otherwise only the results of programs are searched."""
    # (Adam would make whole steps of a gradient that is rounding alone, as of a bias before batch
    # norm)
    changes |= {"optimizer": "sgd"}
    with jax_set(jax_disable_jit=True, jax_debug_nans=True):
        found = table(model, environment, **changes)
    expected = table.plain(model, environment, **changes)
    for column in found.select_dtypes("number"):
        # (a residual is a difference of almost equal numbers)
        near = 1e-3 if column.endswith("/residual") else 1e-5
        np.testing.assert_allclose(
            found[column], expected[column], rtol=1e-3, atol=near, err_msg=column
        )


@pytest.mark.long
def test_op_by_op(table):
    check_op_by_op(table, *RUNS[0], tasks=1, options=(("hessian_top.iterations", 3),))


@pytest.mark.parametrize("kind", [jnp.float32, jnp.bfloat16])
def test_no_nan_is_made_of_what_is_known_op_by_op_in_a_vmap(kind):
    values = jnp.array([1, 2], kind)
    known = jax.vmap(numerics.known)
    with jax_set(jax_disable_jit=True):
        found = known(jnp.array([True, False]), values).astype(jnp.float32)
        np.testing.assert_array_equal(found, [1, np.nan])
        with jax_set(jax_debug_nans=True):
            found = known(jnp.array([True, True]), values)
    assert found.dtype == kind
    np.testing.assert_array_equal(found, values)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "environment"), [*RUNS, *MORE_RUNS])
def test_op_by_op_everywhere(table, model, environment):
    check_op_by_op(table, model, environment)


@pytest.mark.long
def test_what_is_not_measured_is_no_nan_to_be_debugged(table):
    """A task without its probes, and tasks before the first."""
    asked = {"probe_every": 2, "probes": ("parameter_norm",), "revisit": 1}
    with jax_set(jax_debug_nans=True):
        found = table(*RUNS[0], **asked)
    assert found["parameter_norm"].isna().tolist() == [True, False] * 2
    assert found["revisit_1_accuracy"].isna().tolist() == [True, False] * 2
    assert_same(found, table.plain(*RUNS[0], **asked))


DIVERGES = [
    "--samples=32",
    "--epochs=1",
    "--tasks=2",
    "--batch_size=16",
    "--width=4",
    "--depth=1",
    "--norm=none",
]
DIVERGES += [
    "--probes=none",
    "--noprogress",
    "--optimizer=sgd",
    "--learning_rate=0.1,1e30",
    "--seeds=1",
]


@pytest.mark.long
def test_a_diverged_lane_stops_a_run_that_looks_for_nan_and_the_workdir_goes_on(tmp_path, capsys):
    argv = [*DIVERGES, f"--workdir={tmp_path / 'run'}"]
    with jax_set(jax_debug_nans=True):
        assert launcher.launch(launcher.Experiment(""), argv) == launcher.ENVIRONMENT
    _, err = capsys.readouterr()
    assert err.startswith(
        "error: jax was asked to stop at NaN or infinity, and found one (Invalid value (nan) "
    )
    assert err.endswith(
        " the same command goes on from the last checkpoint and records which lanes diverge.\n"
    )
    assert err.count("\n") == 1
    assert launcher.launch(launcher.Experiment(""), argv) == 0
    assert "1 of 2 lanes diverged" in capsys.readouterr().out


def test_memory_that_runs_out_is_said_in_a_sentence(capsys):
    with pytest.raises(jax.errors.JaxRuntimeError) as caught:
        jnp.zeros(2**48)
    assert launcher.fault(caught.value, launcher.ENVIRONMENT) == 1
    said = capsys.readouterr().err
    assert said.startswith(
        "error: memory ran out in spite of the estimate (RESOURCE_EXHAUSTED: Out of memory "
        "allocating "
    )
    assert said.endswith("need less.\n")


def test_nothing_to_profile_where_nothing_is_compiled(table):
    (program,) = program_.plan([(table.spec(*RUNS[0]), [{}])], 16)
    with (
        jax_set(jax_disable_jit=True),
        pytest.raises(ValueError, match="jax_disable_jit is set: allowed with a profile"),
    ):
        profile.profile(program, None, "")  # pyright: ignore


ELSEWHERE = """
import sys
import plasticity_jax as pj
from test_jax_flags import RUNS, SIZES, SMALL
spec = pj.Spec(**SMALL, **SIZES, dataset=sys.argv[1], norm="batch", model=RUNS[0][0],
               environment=RUNS[0][1])
pj.run(spec, pj.grid(seed=range(2)), sys.argv[2])
"""


@pytest.mark.long
def test_flags_from_the_environment_on_one_device_and_no_warning(table, tmp_path):
    flags = {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "1",
        "JAX_ENABLE_X64": "1",
        "JAX_DEBUG_NANS": "1",
    }
    flags |= {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    argv = ["-W", "error", "-c", ELSEWHERE, table.spec(*RUNS[0]).dataset, str(tmp_path)]
    subprocess.run([sys.executable, *argv], env=os.environ | flags, check=True)
    assert_same(table_.read(tmp_path / "results.parquet"), table.plain(*RUNS[0]))


# Parts by themselves, in a program of someone else's


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def types(tree):
    return {str(leaf.dtype) for leaf in jax.tree.leaves(tree)}


def text(rows=2, length=3):
    ids = jnp.ones((rows, length), jnp.int32)
    return Text(ids, ids)


NETWORKS = {
    "cnn": (CNN(3, base=2, dense=4), jnp.ones((2, 4, 4, 1), jnp.float32)),
    "t5": (T5(5, 4, 1, heads=2, head_width=2, feed_forward=4), text()),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.long
def test_parameters_and_logits_are_float32(x64, name):
    net, x = NETWORKS[name]
    variables = net.init(jax.random.key(0), x)
    assert types(variables["params"]) == {"float32"}
    assert types(net.apply(variables, x)) == {"float32"}


@pytest.mark.parametrize("kind", [jnp.float32, jnp.float64, jnp.bfloat16])
@pytest.mark.parametrize("search", [decoding.greedy, decoding.beam])
@pytest.mark.long
def test_decoding_in_any_precision(x64, kind, search):
    net, x = NETWORKS["t5"]
    params = jax.tree.map(lambda p: p.astype(kind), net.init(jax.random.key(3), x)["params"])
    cache = net.apply({"params": params}, x.source, 4, method="start")

    def step(cache, ids, position):
        return net.apply({"params": params}, cache, ids, position, method="step")

    found = search(step, cache, count=2, start=2, end=1, length=4)
    assert found.dtype == jnp.int32
    assert found.shape == (2, 4)
    assert (found[0] == found[1]).all()  # the same source


@pytest.mark.parametrize(
    "name", ["random_labels", "permuted_pixels", "random_seq2seq", "bigram_cipher"]
)
@pytest.mark.long
def test_a_stream_draws_the_same(name):
    options = {k.partition(".")[2]: v for k, v in PARTS.get(name, {}).items()}
    environment = environments.ENVIRONMENTS[name](**options)
    at = order.make_stream(environment, "sampling", batch_size=8, epochs=2)

    def batches():
        # not even: some examples are left out in each epoch
        data = jax.tree.map(jnp.asarray, tiny.data(21))
        return jax.jit(jax.vmap(lambda step: at(jax.random.key(1), data, 1, step, 2)))(
            jnp.arange(4, dtype=jnp.int32)
        )

    plain = batches()
    with jax.enable_x64(True):
        found = batches()
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(plain), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


@pytest.mark.long
def test_a_run_inside_of_other_programs():
    spec = tiny.spec(epochs=1, tasks=1)
    run = supervised.make_run(spec)

    def final(rate, seed=0):
        data, lane = jax.tree.map(jnp.asarray, tiny.data(32)), {"learning_rate": rate, "seed": seed}
        return run.run_task(lane, run.init(lane, data), data, 0)[1]["loss"]

    def everything():
        rates, seeds = np.array([0.1, 0.2], np.float32), np.arange(2)
        program = jax.export.export(jax.jit(final))(jax.ShapeDtypeStruct((), jnp.float32))
        slope = jax.jit(jax.value_and_grad(final))(0.1)
        return [*slope, jax.jit(jax.vmap(final))(rates, seeds), program.call(rates[0])]

    plain = everything()
    with jax.enable_x64(True):
        assert jax.eval_shape(final, 0.1).dtype == jnp.float32
        found = everything()
    for one, other in zip(found, plain, strict=True):
        np.testing.assert_array_equal(np.asarray(one, np.float32), other)
