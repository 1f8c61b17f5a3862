"""Clones: outputs, variance explained and training as before, of every model under every norm."""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest
from helpers import tiny
from helpers.networks import quickly

import plasticity_jax as pj
from plasticity_jax import lanes, manifolds, methods, models, probes, surgery
from plasticity_jax.cli import launcher
from plasticity_jax.execution import sweep
from plasticity_jax.models import norms
from plasticity_jax.spec import Spec, of_model
from plasticity_jax.storage.workdir import WorkdirError
from plasticity_jax.surgery.clone import axes
from plasticity_jax.training import beginning, network, step
from plasticity_jax.training.supervised import make_run

DATA = jax.tree.map(jnp.asarray, tiny.data(samples=16, shape=(4, 4, 1)))
SMALL = {
    "mlp": {},
    "cnn": {"cnn.base": 4, "cnn.dense": 64},
    "resnet18": {"resnet18.base": 4},
    "vit": {"vit.embedding": 64, "vit.blocks": 2, "vit.heads": 2, "vit.patch": 2, "vit.ratio": 1},
}


def wide_of(spec, factor=2, **changes):
    options = {**dict(spec.options), "clone.factor": factor}
    return dataclasses.replace(spec, surgery="clone", options=options, **changes)


def spec_of(model, norm, **changes):
    sizes = {"width": 64, "depth": 2} if model == "mlp" else {}
    if model == "vit":
        changes = {"options": {**SMALL["vit"], "vit.dropout": 0.0}} | changes
    return tiny.spec(**{"model": model, "norm": norm, "options": SMALL[model], **sizes, **changes})


def trained(spec, random, data=DATA):
    """A state all of whose numbers are drawn, so that nothing is equal by its start."""
    lane = lanes.complete(spec, {"seed": 0})
    shapes = jax.eval_shape(make_run(spec).init, lane, data)

    def draw(path, leaf):
        name = jax.tree_util.keystr(path)
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return jnp.full(leaf.shape, 3, leaf.dtype)
        spread = 0.5 if leaf.ndim < 2 else math.prod(leaf.shape[:-1]) ** -0.5
        drawn = random.normal(0, spread, leaf.shape)
        drawn = np.abs(drawn) + 0.5 if "var" in name or "nu" in name else drawn
        return jnp.asarray(drawn + (1.0 if "scale" in name else 0.0), jnp.float32)

    return lane, jax.tree_util.tree_map_with_path(draw, shapes)


def seen(spec, params, variables, train=False):
    net = network.network(spec, spec.make_environment({}), DATA)
    x = jnp.asarray(np.random.default_rng(5).normal(size=(6, 4, 4, 1)), jnp.float32)
    return quickly(lambda p, v: net.apply(p, v, x, train)[:2], params, variables)


def assert_close(left, right, relative=1e-5):
    left, right = np.asarray(left, np.float64), np.asarray(right, np.float64)
    assert np.abs(left - right).max() <= relative * np.abs(right).max()


@pytest.mark.parametrize(("model", "norm"), [*itertools.product(SMALL, norms.NORMS)])
@pytest.mark.long
def test_outputs_are_the_same_and_units_are_clones(model, norm):
    spec = spec_of(model, norm)
    lane, state = trained(spec, np.random.default_rng(0))
    wide = wide_of(spec)
    after = jax.jit(lambda s: beginning.begun(wide, lane, s, DATA))(state)
    shapes = jax.eval_shape(make_run(wide).init, lane, DATA)
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, shapes)
    for train in (False, True) if norm in norms.OF_BATCH else (False,):
        before, _ = seen(spec, state.params, state.variables, train)
        logits, hidden = seen(wide, after.params, after.variables, train)
        # (a variance of the six values of a channel may be small, which makes rounding large)
        assert_close(logits, before, 2e-4 if train else 1e-5)
        assert np.abs(before).max() > 1e-3
        for group, units in hidden.items():
            score = float(probes.clone_r2(units, 2))
            assert score == pytest.approx(1, abs=1e-6), group


@pytest.mark.usefixtures("compiled_quickly")
@pytest.mark.long
def test_clones_of_a_resnet18_on_images_of_32_part_by_noise_and_dropout_alone():
    """Where images have positions left at the end."""
    data = jax.tree.map(jnp.asarray, tiny.data(samples=4, shape=(32, 32, 3)))
    x = jnp.asarray(np.random.default_rng(5).normal(size=(4, 32, 32, 3)), jnp.float32)
    spec = spec_of("resnet18", "group", options={"resnet18.base": 2})
    lane, state = trained(spec, np.random.default_rng(0), data)
    start = jax.jit(lambda s: beginning.begun(wide_of(spec), lane, s, data))(state).params
    manifold = manifolds.of_widening(state.params, start, 2)

    def applied(spec, dropout=0.0):
        options = {**dict(spec.options), "resnet18.dropout": dropout}
        spec = dataclasses.replace(spec, options=options)
        return network.network(spec, spec.make_environment({}), data).apply

    def loss(params, dropout):
        apply = applied(wide_of(spec), dropout)
        logits, hidden, _ = apply(params, {}, x, True, jax.random.key(3))
        scores = [probes.clone_r2(units, 2) for units in hidden.values()]
        wrong = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.arange(4) % 3)
        return wrong.mean(), (logits, jnp.stack(scores))

    @jax.jit
    def noisy(updates):
        optimizer = methods.gradient_noise(scale=0.01)(optax.sgd(1.0))
        ctx = pj.Context(jax.random.key(0), step=0, boundary=False, hidden={})
        return optimizer.update(updates, optimizer.init(start), start, ctx=ctx)[0]

    @jax.jit
    def far(updates):
        moved = optax.apply_updates(start, updates)
        return manifolds.distance(manifold, moved) / optax.tree.norm(updates)

    gradient = jax.jit(jax.grad(loss, has_aux=True), static_argnums=1)
    plain, (logits, scores) = gradient(start, 0.0)
    assert_close(logits, quickly(lambda p: applied(spec)(p, {}, x, False)[0], state.params))
    np.testing.assert_allclose(scores, 1, atol=1e-6)
    assert far(plain) < 1e-5
    noise = noisy(plain)
    _, (_, scores) = gradient(jax.tree.map(jnp.add, start, noise), 0.0)
    assert far(noise) > 1e-2
    assert scores.min() < 1 - 1e-3
    dropped, _ = gradient(start, 0.5)
    assert far(dropped) > 1e-2


@pytest.mark.parametrize("activation", ["crelu", "tanh"])
@pytest.mark.long
def test_other_factors_activations_and_norms_without_parameters(activation):
    options = {"mlp.norm_affine": False}
    spec = spec_of("mlp", "layer", activation=activation, options=options)
    lane, state = trained(spec, np.random.default_rng(1))
    wide = wide_of(spec, 3)
    after = beginning.begun(wide, lane, state, DATA)
    assert after.params["layer1"]["kernel"].shape[-1] == 192
    before, _ = seen(spec, state.params, {})
    assert_close(seen(wide, after.params, {})[0], before)


@pytest.mark.long
def test_the_public_codes_clone_of_a_vit_has_other_outputs():
    """It leaves the scores of attention as large as more products make them; units are clones."""
    spec = spec_of("vit", "layer")
    lane, state = trained(spec, np.random.default_rng(0))
    wide = wide_of(spec)
    published = dataclasses.replace(wide, options={**dict(wide.options), "clone.rescale": False})
    before, _ = seen(spec, state.params, state.variables)
    after = beginning.begun(published, lane, state, DATA)
    logits, hidden = seen(published, after.params, after.variables)
    assert np.abs(logits - before).max() > 1e-2 * np.abs(before).max()
    for group, units in hidden.items():
        assert float(probes.clone_r2(units, 2)) == pytest.approx(1, abs=1e-6), group
    for i in range(2):
        query = after.params[f"block{i}_query"]
        after.params[f"block{i}_query"] = jax.tree.map(lambda p: p / jnp.sqrt(2.0), query)
    assert_close(seen(published, after.params, after.variables)[0], before)


@pytest.mark.parametrize(
    ("model", "optimizer"),
    [
        *((model, "adam") for model in SMALL),
        ("mlp", "momentum"),
        ("mlp", "adam_per_weight"),
    ],
)
@pytest.mark.long
def test_what_an_optimizer_remembers_is_what_it_would_of_clones(model, optimizer):
    """Moments after steps with given gradients, cloned, are moments of the clones' own
    gradients.
    """
    spec = spec_of(model, "layer", optimizer=optimizer, epochs=1)
    lane, state = trained(spec, np.random.default_rng(2))
    wide = wide_of(spec)
    cloned = beginning.begun(wide, lane, state, DATA)

    def gradient(spec, params):
        net = network.network(spec, spec.make_environment({}), DATA)
        x = jnp.asarray(np.random.default_rng(3).normal(size=(6, 4, 4, 1)), jnp.float32)
        return jax.grad(lambda p: jnp.square(net.apply(p, {}, x, False)[0]).mean())(params)

    def remembered(spec, start):
        tx = make_optimizer(spec, lane)
        fresh = tx.init(start.params)
        given = quickly(lambda p: gradient(spec, p), start.params)
        return tx.update(given, fresh, start.params)[1]

    narrow, expected = remembered(spec, state), remembered(wide, cloned)
    found = beginning.begun(wide, lane, state._replace(opt=narrow), DATA).opt
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for left, right in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        if np.abs(right).max() > 1e-9:  # (keys of attention have biases that change nothing)
            assert_close(left, right, 2e-4)


def make_optimizer(spec, lane):
    net = network.network(spec, spec.make_environment({}), DATA)
    return step.optimizer(spec, lanes.arrays(spec, lane), net.structure)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A Spec, and the folder of its run, with a method that remembers units."""
    folder = tmp_path_factory.mktemp("clone")
    sizes = {"dataset": tiny.arrays(folder / "data"), "tasks": 1, "epochs": 1, "depth": 2}
    spec = tiny.spec(**sizes, optimizer="adam", method="redo", options={"redo.score": "running"})
    sweep.run(spec, [{"seed": 0}], folder / "base")
    return spec, folder / "base"


@pytest.mark.long
def test_clones_stay_clones_in_training_and_can_be_cloned_again(base, tmp_path):
    """Sizes in the Spec are those of the donor; a run that begins from a clone has the clone's."""
    spec, folder = base
    plain = dataclasses.replace(spec, method="none", options={}, probes=("clone_r2",))
    wide = dataclasses.replace(plain, surgery="clone", start_optimizer="fresh")
    table = sweep.run(wide, [{"seed": 0}], tmp_path / "wide", start=folder)
    for column in ("clone_r2", "clone_r2/backward", "clone_r2/both"):
        assert table[column].min() > 1 - 1e-5
    assert (table["clone.factor"][0], table["width"][0]) == (2, 8)
    again = dataclasses.replace(plain, width=16)
    assert sweep.run(again, [{"seed": 0}], start=tmp_path / "wide")["clone_r2"][0] > 1 - 1e-5
    with pytest.raises(WorkdirError, match=r"^width is 8, but the networks in .* have 16: allowed"):
        sweep.run(plain, [{"seed": 0}], start=tmp_path / "wide")
    twice = dataclasses.replace(again, surgery="clone", options={"clone.factor": 3})
    assert of_model(twice)["width"] == of_model(wide, ended=True)["width"] == 16
    assert of_model(twice, ended=True)["width"] == 48


TINY = {
    "mlp": ["--width=8", "--depth=1"],
    "cnn": ["--cnn.base=2", "--cnn.dense=4", "--cnn.dropout=0"],
    "resnet18": ["--resnet18.base=2"],
    "vit": [
        *("--vit.embedding=4", "--vit.blocks=1", "--vit.heads=2", "--vit.patch=4"),
        "--vit.dropout=0",
    ],
}


@pytest.mark.long
@pytest.mark.parametrize("model", TINY)
def test_the_command_line_goes_on_with_a_clone(model, tmp_path):
    """Under batch norm, so with running statistics; clones stay clones in training."""
    argv = [
        f"--dataset={tiny.arrays(tmp_path / 'data')}",
        *("--epochs=1", "--batch_size=16", "--seeds=1", "--noprogress", "--granularity=1"),
        *(f"--model={model}", "--norm=batch", "--optimizer=sgd", *TINY[model]),
    ]
    experiment, base, wide = launcher.Experiment(""), tmp_path / "base", tmp_path / "wide"
    assert launcher.launch(experiment, [*argv, "--tasks=1", f"--workdir={base}"]) == 0
    of_clone = [f"--start={base}", "--surgery=clone", "--clone.factor=2", "--probes=clone_r2"]
    assert launcher.launch(experiment, [*argv, "--tasks=2", f"--workdir={wide}", *of_clone]) == 0
    table = pd.read_parquet(wide / "results.parquet")
    assert set(table["clone.factor"]) == {2}
    assert table["clone_r2"].min() > 1 - 1e-4


@pytest.mark.long
def test_what_cannot_be_cloned_is_refused_in_one_sentence(base):
    with pytest.raises(ValueError, match=r"^surgery is 'clone', but a t5 cannot become wider: all"):
        Spec(model="t5", environment="bigram_cipher", surgery="clone", dataset="digits").make_model(
            3
        )
    for factor in (1, 0, 2.0, True):
        with pytest.raises(ValueError, match=r"^clone\.factor is .*: allowed are whole numbers"):
            surgery.clone(factor=factor)
    with pytest.raises(
        ValueError, match=r"^norm of mlp is 'group' of 12 channels, whose groups clones of factor 2"
    ):
        surgery.clone(factor=2).model(models.MLP(3, width=12, norm="group"))
    assert surgery.clone(factor=3).model(models.MLP(3, width=12, norm="group")).width == 36
    with pytest.raises(
        ValueError, match=r"^parameter a/kernel has shape \(2, 3\), of which clones"
    ):
        axes(("a", "kernel"), (2, 3), (2, 7), 2)
    spec, folder = base
    with pytest.raises(WorkdirError, match=r"cannot go on with the optimizer's state .*=fresh\.$"):
        sweep.run(wide_of(spec), [{"seed": 0}], start=folder)
    lane, state = trained(spec, np.random.default_rng(6))
    fresh = wide_of(spec, start_optimizer="fresh")
    after = jax.eval_shape(lambda s: beginning.begun(fresh, lane, s, DATA), state)
    shapes = jax.eval_shape(make_run(fresh).init, lane, DATA)
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, shapes)


@pytest.mark.long
def test_anchors_are_at_the_clones_where_the_optimizer_starts_afresh():
    spec = spec_of("mlp", "none", method="l2_init")
    lane, state = trained(spec, np.random.default_rng(4))
    state = state._replace(opt=make_optimizer(spec, lane).init(state.params), initial=state.params)
    with pytest.raises(ValueError, match="of which clones know nothing: allowed are moments"):
        beginning.begun(wide_of(spec), lane, state, DATA)
    after = beginning.begun(wide_of(spec, start_optimizer="fresh"), lane, state, DATA)
    anchors = [leaf for leaf in jax.tree.leaves(after.opt) if leaf.ndim == 2]
    kernels = [leaf for leaf in jax.tree.leaves(after.params) if leaf.ndim == 2]
    for left, right in zip(anchors, kernels, strict=True):
        assert jnp.array_equal(left, right)
    assert jnp.array_equal(after.initial["head"]["kernel"], after.params["head"]["kernel"])
    assert jnp.array_equal(after.params["head"]["kernel"][::2], state.params["head"]["kernel"] / 2)
