"""What every entry of every registry must keep. A new entry is tested by being listed."""

import importlib
import inspect
import pkgutil
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny

import plasticity_jax
from plasticity_jax import datasets, lanes, models, registry
from plasticity_jax.agents import AGENTS
from plasticity_jax.environments import ENVIRONMENTS
from plasticity_jax.heads import HEADS
from plasticity_jax.methods import METHODS
from plasticity_jax.models import ACTIVATIONS, INITIALIZATIONS, MODELS, NORMS
from plasticity_jax.optimizers import OPTIMIZERS, SCHEDULES
from plasticity_jax.probes import PROBES
from plasticity_jax.reporting import metrics as measures
from plasticity_jax.spec import unread
from plasticity_jax.stream import transitions
from plasticity_jax.stream.transitions import TRANSITIONS
from plasticity_jax.surgery import SURGERIES
from plasticity_jax.training import network, supervised
from plasticity_jax.types import Data

FACTORIES = {
    "environment": ENVIRONMENTS,
    "model": MODELS,
    "head": HEADS,
    "method": METHODS,
    "probe": PROBES,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "surgery": SURGERIES,
    "agent": AGENTS,
    "dataset": datasets.DATASETS,
}
AXES = {
    "model": MODELS,
    "norm": NORMS,
    "activation": ACTIVATIONS,
    "initialization": INITIALIZATIONS,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "method": METHODS,
}


PLAYABLE = tiny.playable()
KNOWN = {
    f"{name}.{option}"
    for known in FACTORIES.values()
    for name, f in known.items()
    for option in registry.options(f)
}


def world_of(environment: str) -> tuple[dict[str, str], Data]:
    """The dataset that an environment needs, by its name, and small data that it can use in its
    place.
    """
    needs = ENVIRONMENTS[environment]().data
    data = tiny.real() if needs == "numbers" else tiny.data()
    return {"dataset": "generated" if needs == "nothing" else "digits"}, data


def programs() -> list[dict[str, str]]:
    """Settings that have every entry of every registry in at least one program: each registry goes
    round on its own.

    Except models, some of which take long to compile: after one round it is the turn of the first
    that fits.
    """
    worlds = [
        {"environment": e,
         "transition": t} for e in PLAYABLE for t in transitions.fitting(ENVIRONMENTS[e]())
    ]  # fmt: skip
    count = max(len(worlds), *map(len, AXES.values()))
    waiting = list(MODELS)
    made = []
    for i in range(count):
        world = worlds[i % len(worlds)]
        reads = ENVIRONMENTS[world["environment"]]().inputs
        fitting = [m for m in [*waiting, *MODELS] if reads in models.inputs(MODELS[m])]
        if fitting[0] in waiting:
            waiting.remove(fitting[0])
        others = {axis: [*known][i % len(known)] for axis, known in AXES.items() if axis != "model"}
        others = {axis: name for axis, name in others.items() if axis not in unread(fitting[0])}
        if reads == "text" and others["activation"] == "crelu":  # doubles units, which T5 refuses
            others["activation"] = "relu"
        made.append(world | {"model": fitting[0]} | others)
    return made


def run_two_lanes(**settings):
    """States before and after one task, and its metrics, of two lanes vmapped in one compiled
    program.
    """
    # a period that comes round in a tiny run, and fewer channels, words and units than in a real
    # one
    wanted = {
        "redo.period": 3,
        "resnet18.base": 4,
        "cnn.base": 4,
        "cnn.dense": 8,
        "t5.feed_forward": 8,
        "t5.heads": 2,
        "vit.embedding": 8,
        "vit.blocks": 1,
        "vit.heads": 2,
    }
    wanted |= {
        f"{e}.{size}": 2 for e in ENVIRONMENTS for size in ("words", "target_words", "word_length")
    }
    wanted = {name: n for name, n in wanted.items() if name in KNOWN}
    wanted |= {"class_split.per_task": 2}
    if settings.get("method") == "head_reset":
        wanted["t5.head"] = "own"
    small = {name: n for name, n in wanted.items() if name.partition(".")[0] in settings.values()}
    dataset, data = world_of(settings.get("environment", "random_labels"))
    # (blocks of a transformer take long to compile)
    several = 1 if settings.get("model") == "t5" else 2
    deep = {} if "depth" in unread(settings.get("model", "mlp")) else {"depth": several}
    if settings.get("norm") == "group" and deep:  # (a group of one unit is always zero)
        deep["width"] = 64
    spec = tiny.spec(options=small, **dataset, **deep, **settings)
    run = supervised.make_run(spec)

    def whole(lane, data, task):
        state = run.init(lane, data)
        return state, *run.run_task(lane, state, data, task)

    plateaus = 2 if TRANSITIONS[spec.transition].gradual else 1
    stacked = lanes.stack(lanes.check(spec, lanes.grid(seed=[0, 1], granularity=plateaus), 32))
    lowered = jax.jit(jax.vmap(whole, (0, None, None))).lower(stacked, data, jnp.int32(1))
    # a third of the time to compile; sums may be wrong so (docs/benchmarks.md), none is looked at
    quickly = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
    fast = lowered.compile(compiler_options=quickly)
    one = jax.eval_shape(whole, jax.tree.map(lambda a: a[0], stacked), data, jnp.int32(1))
    return one, *fast(stacked, data, jnp.int32(1))


@pytest.mark.parametrize("name", MODELS)
def test_activations_come_in_the_order_of_the_layers(name):
    # the last one is the last hidden layer to every probe; a sorted dictionary would have h10
    # before h2
    environment = next(
        e for e in ENVIRONMENTS if ENVIRONMENTS[e]().inputs in models.inputs(MODELS[name])
    )
    deep = {} if "depth" in unread(name) else {"depth": 11}
    spec = tiny.spec(
        model=name,
        **deep,
        **world_of(environment)[0],
        environment=environment,
        transition="sampling",
    )
    made, seen = ENVIRONMENTS[environment](), []

    def apply(data):
        net = network.network(spec, made, data)
        variables = net.init(jax.random.key(0))
        x = made.examples(data, made.task(jax.random.key(0), data, 0), jnp.zeros(1, jnp.int32)).x
        seen.extend(net.apply(variables.pop("params"), variables, x, False)[1])

    jax.eval_shape(apply, tiny.data())
    assert seen == spec.make_model(made.outputs(tiny.data())).groups()
    assert len(seen) > 1


def check_run(one, before, after, metrics):
    for alone, leaf in zip(
        jax.tree.leaves(one), jax.tree.leaves((before, after, metrics)), strict=True
    ):
        assert (leaf.shape, leaf.dtype) == ((2, *alone.shape), alone.dtype)
    metrics = dict(metrics)
    finite = metrics.pop("finite")
    assert (finite.dtype, finite.shape) == (bool, (2,))
    assert finite.all()
    score = next(
        name for name in ("token_accuracy", "accuracy", "squared_error", "q") if name in metrics
    )
    assert {f"online_{score}", score, "loss"} <= metrics.keys()
    for name, values in metrics.items():
        # (kept beside the table)
        several = {"feature_spectrum": (32,), "preactivation/histogram": (40,)}.get(name, ())
        assert (values.dtype, values.shape) == (np.float32, (2, *several)), name
        ended = metrics.get("episodes", np.ones(1)) > 0  # (a bandit has no episodes)
        assert np.isfinite(values).all() or ("return" in name and not ended.any()), name
    for name in (f"online_{score}", score):
        is_share = (metrics[name] >= 0) & (metrics[name] <= 1)
        assert (is_share | (score in ("squared_error", "q"))).all()
    assert jax.tree.structure(after) == jax.tree.structure(before)
    shapes = [
        jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state) for state in (before, after)
    ]
    assert shapes[0] == shapes[1]
    for leaf in map(np.asarray, jax.tree.leaves(after)):
        assert leaf.dtype.kind in "iub" or np.isfinite(leaf).all()
    for left, right in zip(
        jax.tree.leaves(before.initial), jax.tree.leaves(after.initial), strict=True
    ):
        np.testing.assert_array_equal(left, right)
    # (T5 reads and writes with one embedding)
    head = "shared" if "shared" in after.params else "head"
    (kernel,), (first,) = (
        [p for p in jax.tree.leaves(s.params[head]) if p.ndim > 2] for s in (after, before)
    )
    assert (np.asarray(kernel) != first).any()
    # (a network of a few units may be recycled whole, and its head with it)
    assert any((np.asarray(leaf[0]) != leaf[1]).any() for leaf in jax.tree.leaves(after.params))


@pytest.mark.parametrize("settings", programs(), ids=lambda settings: "-".join(settings.values()))
def test_every_entry_runs_compiled_and_vmapped(settings):
    one, before, after, metrics = run_two_lanes(**settings)
    environment = ENVIRONMENTS[settings["environment"]]()
    assert (f"test_{environment.metrics[0].name}" in metrics) == (environment.test is not None)
    assert metrics.keys() - {"finite", "units_reset"} == measures.of_environment(environment).keys()
    check_run(one, before, after, metrics)


def test_every_entry_is_in_a_program():
    everything = AXES | {"environment": PLAYABLE, "transition": TRANSITIONS}
    for axis, known in everything.items():
        assert {settings[axis] for settings in programs() if axis in settings} == set(known)


def test_probes_run_compiled_and_vmapped():
    check_run(*run_two_lanes(norm="layer", probes=tuple(PROBES)))


@pytest.mark.parametrize("name", PROBES)
def test_a_probe_is_a_number_and_details_under_its_name(name):
    spec = tiny.spec(probes=(name,))
    lane = jax.tree.map(lambda a: a[0], lanes.stack(lanes.check(spec, [{}], 64)))
    run, data = supervised.make_run(spec), jax.tree.map(jnp.asarray, tiny.data())
    metrics = jax.eval_shape(
        lambda: run.run_task(lane, run.init(lane, data), data, jnp.int32(0))[1]
    )
    plain = {"accuracy", "loss", "finite"}
    assert name in metrics
    probed = {column for column in metrics.keys() - plain if not column.startswith("online_")}
    assert all(column == name or column.startswith(f"{name}/") for column in probed)


# What is written about them


def begins_with_a_sentence(thing) -> bool:
    """Whether the first paragraph of a docstring is whole sentences."""
    line = registry.describe(thing)
    return line.endswith(".") and len(line.split()) > 2 and (line[0].isupper() or line[0] in "`[")


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, known in FACTORIES.items() for name in known]
)
def test_factories_say_what_they_are(kind, name):
    factory = FACTORIES[kind][name]
    assert begins_with_a_sentence(factory)
    assert len(registry.describe(factory)) < 200  # (--list shows it)
    for number, default in registry.numbers(factory).items():
        kind = int if number in registry.whole_numbers(factory) else float
        assert isinstance(default, kind), f"{name}.{number} must have a number as its default"
    for option, default in registry.options(factory).items():
        assert isinstance(default, (bool, int, float, str)), f"{name}.{option} must have a default"


@pytest.mark.parametrize("name", TRANSITIONS)
def test_transitions_say_what_they_are(name):
    assert begins_with_a_sentence(TRANSITIONS[name].mix)
    assert TRANSITIONS[name].needs in ("inputs", "targets", "nothing")


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_environments_have_a_transition(name):
    assert transitions.fitting(ENVIRONMENTS[name]())


MODULES = [m.name for m in pkgutil.walk_packages(plasticity_jax.__path__, "plasticity_jax.")]


@pytest.mark.parametrize("name", MODULES)
def test_public_names_exist_and_are_documented(name):
    module = importlib.import_module(name)
    assert begins_with_a_sentence(module) or registry.describe(module).endswith(":")
    listed = getattr(module, "__all__", [])
    assert list(listed) == sorted(listed, key=lambda n: (not n.isupper(), n.islower(), n))
    for public in listed:
        thing = getattr(module, public)
        if not isinstance(thing, Mapping):
            assert begins_with_a_sentence(thing), public
    for function, thing in vars(module).items():
        own = getattr(thing, "__module__", None) == name and inspect.isroutine(thing)
        if own and not function.startswith("_"):
            assert inspect.getdoc(thing), function
