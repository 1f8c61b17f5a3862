import copy
import dataclasses
import json
import pickle

import jax.numpy as jnp
import numpy as np
import pytest

from plasticity_jax import lanes, methods
from plasticity_jax.agents import AGENTS
from plasticity_jax.environments import ENVIRONMENTS
from plasticity_jax.execution import placement
from plasticity_jax.heads import HEADS
from plasticity_jax.models import ACTIVATIONS, INITIALIZATIONS, MODELS, NORMS
from plasticity_jax.models.norms import OF_BATCH
from plasticity_jax.optimizers import OPTIMIZERS, SCHEDULES
from plasticity_jax.precision import PRECISIONS
from plasticity_jax.probes import PROBES
from plasticity_jax.spec import CHOICES, PARTS, Spec, comparable, unread
from plasticity_jax.stream.transitions import TRANSITIONS
from plasticity_jax.surgery import SURGERIES

KNOWN = {
    "environment": ENVIRONMENTS,
    "transition": TRANSITIONS,
    "model": MODELS,
    "norm": NORMS,
    "activation": ACTIVATIONS,
    "initialization": INITIALIZATIONS,
    "head": HEADS,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "precision": PRECISIONS,
    "surgery": SURGERIES,
    "agent": AGENTS,
    "method": methods.METHODS,
}


def refused(function, *arguments, **keyword) -> str:
    """The message of the ValueError: one sentence on one line."""
    with pytest.raises(ValueError) as caught:
        function(*arguments, **keyword)
    message = str(caught.value)
    assert message.endswith(".")
    assert "\n" not in message
    assert ". " not in message.replace("e.g. ", "")
    assert len(message) < 600
    return message


def test_a_name_stands_in_one_registry():
    """So that `<part>.<setting>` says of what it is a setting; what is not there has none."""
    names = {id(known): set(known) - {"none"} for known in (*PARTS.maps, *CHOICES.values())}
    assert sum(map(len, names.values())) == len(set().union(*names.values()))


# Spec


@pytest.mark.parametrize("kind", KNOWN)
def test_unknown_names_are_refused_with_the_known(kind):
    expected = f"unknown {kind} 'nonsense': known are {', '.join(KNOWN[kind])}."
    assert refused(Spec, **{kind: "nonsense"}) == expected


def test_what_is_not_given_is_the_environments_usual():
    usual = {
        "random_labels": ("output", "digits"),
        "permuted_pixels": ("input", "digits"),
        "class_split": ("abrupt", "digits"),
        "regression": ("input", "digits"),
        "bit_flip": ("abrupt", "generated"),
        "target_offset": ("abrupt", "digits"),
        "composite": ("abrupt", "digits"),
        "phased_shift": ("abrupt", "digits"),
        "bandit": ("abrupt", "digits"),
        "minatar": ("abrupt", "generated"),
        "atari": ("abrupt", "generated"),
    }
    for environment, wanted in usual.items():
        spec = Spec(environment=environment)
        assert (spec.transition, spec.dataset) == wanted
        assert spec == Spec(environment=environment, transition=wanted[0], dataset=wanted[1])
    targets = Spec(environment="regression", options={"regression.of": "targets"})
    assert targets.transition == "sampling"
    text = Spec(environment="random_seq2seq", model="t5", norm="layer", dataset=None)
    assert (text.transition, text.dataset) == ("sampling", "generated")


def test_every_choice_is_checked():
    assert dict(CHOICES) == {kind: known for kind, known in KNOWN.items() if kind != "method"}


@pytest.mark.parametrize("probes", ["nonsense", ("dormant_fraction", "nonsense")])
def test_unknown_probes_are_refused(probes):
    assert (
        refused(Spec, probes=probes) == f"unknown probe 'nonsense': known are {', '.join(PROBES)}."
    )


def test_unknown_datasets_are_refused():
    message = refused(Spec, dataset="nonsense")
    assert "'nonsense'" in message
    assert "digits, mnist" in message
    assert "arrays:PATH" in message
    assert "arrays:PATH" in refused(Spec, dataset="arrays:")
    # a file is looked for when the run begins
    assert Spec(dataset="arrays:/nowhere").dataset == "arrays:/nowhere"


@pytest.mark.parametrize(
    "name", ["tasks", "epochs", "batch_size", "width", "depth", "probe_every", "probe_samples"]
)
@pytest.mark.parametrize("value", [0, -3, 1.5, 2.0, "2", None])
def test_counts(name, value):
    word = ", or 'never'" if name == "probe_every" else ""
    want = f"{name} is {value!r}: allowed are whole numbers from 1{word}."
    assert refused(Spec, **{name: value}) == want


@pytest.mark.parametrize("norm", OF_BATCH)
def test_a_norm_over_a_minibatch_needs_more_than_one_example(norm):
    assert refused(Spec, norm=norm, batch_size=1) == (
        f"norm {norm!r} takes statistics over a minibatch, but batch_size is 1: allowed are 2 or "
        "more, or one of none, layer, group, rms."
    )
    assert Spec(norm="rms", batch_size=1).batch_size == 1


def test_batch_larger_than_the_samples():
    want = "batch_size is 64: allowed is at most the number of samples, 63."
    assert refused(Spec, samples=63, batch_size=64) == want
    assert Spec(samples=64, batch_size=64).samples == 64


@pytest.mark.parametrize(
    ("environment", "transition", "needs", "shared", "allowed"),
    [
        (
            "random_labels",
            "input",
            "targets",
            "inputs",
            "output, smoothing, annealing, sampling, abrupt",
        ),
        ("permuted_pixels", "output", "inputs", "targets", "input, sampling, abrupt"),
    ],
)
def test_transition_that_does_not_fit(environment, transition, needs, shared, allowed):
    assert refused(Spec, environment=environment, transition=transition) == (
        f"transition {transition!r} needs tasks that share {needs}, but those of {environment!r} "
        f"share {shared}: "
        f"allowed are {allowed}."
    )
    for name in allowed.split(", "):
        assert Spec(environment=environment, transition=name).transition == name


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        ("none", "none"),
        ("none+none", "none"),
        ("none+l2", "l2"),
        ("l2+none", "l2"),
        ("l2+redo", "redo+l2"),
        ("redo+l2", "redo+l2"),
        ("spectral+l2_init+l2", "l2+l2_init+spectral"),
        ("l2+shrink_and_perturb+redo", "shrink_and_perturb+redo+l2"),
        # the order of rewrites matters and stays
        ("redo+shrink_and_perturb", "redo+shrink_and_perturb"),
    ],
)
def test_methods_have_one_name(given, canonical):
    assert Spec(method=given).method == canonical
    assert Spec(method=given) == Spec(method=canonical)
    assert hash(Spec(method=given)) == hash(Spec(method=canonical))


def test_methods_are_given_once_and_by_name():
    assert (
        refused(Spec, method="l2+redo+l2")
        == "method 'l2+redo+l2' has 'l2' twice: each method may be given once."
    )
    for wrong in ("", "l2+", "l2,redo", "L2"):
        assert refused(Spec, method=wrong).startswith("unknown method ")


def test_a_spec_is_a_value():
    first = Spec(method="redo", options={"redo.period": 5, "random_labels.draw": "iid"})
    second = Spec(method="redo", options=(("random_labels.draw", "iid"), ("redo.period", 5)))
    assert first == second
    assert {first: 1}[second] == 1
    assert first != Spec(method="redo")
    assert dataclasses.replace(first, tasks=3).options == first.options
    assert dataclasses.replace(first, tasks=3) != first
    with pytest.raises(dataclasses.FrozenInstanceError):
        first.tasks = 3  # pyright: ignore[reportAttributeAccessIssue]
    assert Spec(probes="none") == Spec(probes=()) == Spec(probes=("none",))
    assert Spec(probes="dormant_fraction").probes == ("dormant_fraction",)


def test_every_field_is_documented():
    for field in dataclasses.fields(Spec):
        assert set(field.metadata) == {"group", "help", "axis", "limits"}
        assert bool(field.metadata["help"]) == (field.name != "options")


def test_options_belong_to_the_parts_in_use():
    message = refused(Spec, options={"redo.period": 5})
    assert message.startswith(
        "option 'redo.period' fits no part of this run: known are random_labels.draw, "
    )
    assert refused(
        Spec, probes=(), environment="permuted_pixels", transition="input", options={"x": 1}
    ) == (
        "option 'x' fits no part of this run: known are permuted_pixels.change, mlp.norm_affine, "
        "mlp.dropout, mlp.noisy."
    )
    assert refused(Spec, method="redo", options={"redo.threshold": 0.1}).startswith(
        "option 'redo.threshold' is none: it is a number of lanes"
    )
    assert refused(Spec, method="redo", options={"redo.period": 5.0}) == (
        "option redo.period is 5.0: allowed are whole numbers from 0, or 'never'."
    )
    assert refused(Spec, method="redo", options={"redo.period": True}) == (
        "option redo.period is True: allowed are whole numbers from 0, or 'never'."
    )
    assert refused(Spec, model="cnn", options={"cnn.base": 5.0}) == (
        "option cnn.base is 5.0: allowed are values of type int."
    )
    assert refused(Spec, options={"random_labels.draw": "both"}) == (
        "random_labels.draw is 'both': allowed are 'shuffle', 'iid', 'classes'."
    )


@pytest.mark.parametrize(
    ("method", "option", "value"),
    [
        ("redo", "score", "nonsense"),
        ("redo", "period", 0),
        ("l2", "on", "nonsense"),
        ("spectral", "target", "nonsense"),
    ],
)
def test_options_that_a_method_refuses(method, option, value):
    message = refused(Spec, method=method, options={f"{method}.{option}": value})
    assert f"{method}.{option} is {value!r}" in message


def test_known_settings():
    spec = Spec(method="redo+l2", probes="hessian_top", optimizer="momentum")
    options = {
        "redo.period": 1000,
        "redo.score": "batch",
        "l2.on": "all",
        "random_labels.draw": "shuffle",
    }
    assert spec.known_options().items() >= options.items()
    assert spec.known_options()["hessian_top.iterations"] >= 1
    labels = {"random_labels.share", "random_labels.every"}
    methods = {"redo.threshold", "redo.max_fraction", "l2.strength", "momentum.decay"}
    assert set(spec.known_numbers()) == labels | methods
    assert set(Spec(optimizer="sgd").known_numbers()) == labels
    assert (
        Spec(optimizer="sgd", environment="permuted_pixels", transition="input").known_numbers()
        == {}
    )


def test_numbers_of_numpy_and_jax_are_pythons():
    spec = Spec(width=np.int64(64), depth=np.array(2), tasks=jnp.int32(3), model=np.str_("mlp"))
    assert spec == Spec(width=64, depth=2, tasks=3)
    assert hash(spec) == hash(Spec(width=64, depth=2, tasks=3))
    options = {
        "redo.period": np.int32(7),
        "redo.relative": np.bool_(False),
        "redo.score": np.str_("running"),
    }
    made = Spec(method="redo", options=options)
    assert made == Spec(
        method="redo", options={"redo.period": 7, "redo.relative": False, "redo.score": "running"}
    )
    assert json.loads(json.dumps(made.record()))["options"]["redo.period"] == 7
    lane = {"learning_rate": 1e-3}
    assert lanes.grid(seed=jnp.arange(2), learning_rate=np.float64(1e-3)) == [
        {"seed": 0, **lane},
        {"seed": 1, **lane},
    ]


def test_numbers_have_a_largest():
    for name in (
        "tasks",
        "epochs",
        "batch_size",
        "width",
        "probe_every",
        "probe_samples",
        "samples",
    ):
        message = refused(Spec, **{name: 2**31})
        word = ", or 'never'" if name == "probe_every" else ""
        allowed = f"allowed are whole numbers from 1 to 2147483647{word}."
        assert message == f"{name} is 2147483648: {allowed}"
    assert (
        refused(Spec, revisit=1001) == "revisit is 1001: allowed are whole numbers from 0 to 1000."
    )
    assert refused(Spec, depth=5000) == "depth is 5000: allowed are whole numbers from 1 to 1000."
    assert refused(Spec, method="redo", options={"redo.period": 10**10}) == (
        "option redo.period is 10000000000: allowed are whole numbers from 0 to 2147483647, "
        "or 'never'."
    )
    assert Spec(probe_every=2**31 - 1, subsample_seed=2**40).subsample_seed == 2**40
    long = Spec(tasks=26_843_546)
    assert refused(lanes.check, long, [{}], 128) == (
        "26843546 tasks have 2147483680 steps: allowed are fewer than 2147483647."
    )


@pytest.mark.parametrize(
    ("model", "read"),
    [
        ("mlp", {"width", "depth", "norm", "activation", "initialization"}),
        ("cnn", {"norm", "activation", "initialization"}),
        ("resnet18", {"norm", "activation", "initialization"}),
        ("t5", {"width", "depth", "activation"}),
    ],
)
def test_fields_that_a_model_does_not_read_are_left_alone(model, read):
    text = (
        {"dataset": "generated", "environment": "bigram_cipher", "transition": "sampling"}
        if model == "t5"
        else {}
    )
    usual = Spec(model=model, **text)
    other = {"width": 8, "depth": 2, "norm": "none", "activation": "tanh", "initialization": "he"}
    assert set(unread(model)) == set(other) - read
    for name, value in other.items():
        if name in read:
            assert Spec(model=model, **text, **{name: value}) != usual
        else:
            told = f"{name} is {value!r}, but {model} has no {name}: leave it out."
            assert refused(Spec, model=model, **text, **{name: value}) == told
            assert Spec(model=model, **text, **{name: getattr(usual, name)}) == usual
            # as it was written before
            assert comparable({**usual.record(), name: value}) == usual.record()
    assert comparable(usual.record()) == usual.record()


def test_fields_that_there_are_not():
    assert refused(Spec, learning_rate=1e-3).startswith(
        "a Spec has no field 'learning_rate' (it is a number of lanes: grid(learning_rate=...)): "
        "known "
        "are dataset, samples, "
    )
    assert "(did you mean width?)" in refused(Spec, widht=3)
    assert (
        refused(dataclasses.replace, Spec(), model="cnn", width=8)
        == "width is 8, but cnn has no width: leave it out."
    )
    assert (
        copy.deepcopy(Spec(width=8)) == pickle.loads(pickle.dumps(Spec(width=8))) == Spec(width=8)
    )


# Lanes


SPEC = Spec(method="l2", epochs=10, batch_size=64)  # 80 steps on 512 samples, 53 of them transition
NUMBERS = (
    "seed, granularity, learning_rate, transition_fraction, l2.strength, random_labels.share, "
    "random_labels.every, "
    "adam.b1, adam.b2, adam.eps"
)


def test_lanes_are_completed():
    given = [{"seed": 3.0, "l2.strength": 1}, {}]
    assert lanes.check(SPEC, given, 512) == [lanes.complete(SPEC, lane) for lane in given]
    lane = lanes.complete(SPEC, given[0])
    assert ", ".join(lane) == NUMBERS
    assert lane == lanes.defaults(SPEC) | {"seed": 3, "l2.strength": 1.0}
    assert {name: type(value) for name, value in lane.items() if type(value) is int} == {
        "seed": int,
        "granularity": int,
        "random_labels.every": int,
    }
    assert given == [{"seed": 3.0, "l2.strength": 1}, {}]  # what was given stays as it was


@pytest.mark.parametrize(
    ("lane", "message"),
    [
        ({"nonsense": 1}, f"number 'nonsense' fits no part of this run: known are {NUMBERS}."),
        (
            {"redo.threshold": 1},
            f"number 'redo.threshold' fits no part of this run: known are {NUMBERS}.",
        ),
        ({"seed": -1}, "seed is -1: allowed is 0 to 2147483647."),
        ({"seed": 2**31}, "seed is 2147483648: allowed is 0 to 2147483647."),
        ({"seed": 1.5}, "seed is 1.5: allowed are whole numbers."),
        ({"seed": float("nan")}, "seed is nan: allowed are whole numbers."),
        ({"seed": float("inf")}, "seed is inf: allowed are whole numbers."),
        ({"granularity": 2.5}, "granularity is 2.5: allowed are whole numbers."),
        ({"granularity": 0}, "granularity is 0: allowed is 1 to 2147483647."),
        ({"learning_rate": -0.001}, "learning_rate is -0.001: allowed is 0 or more."),
        ({"learning_rate": float("nan")}, "learning_rate is nan: allowed are finite numbers."),
        ({"l2.strength": float("-inf")}, "l2.strength is -inf: allowed are finite numbers."),
        ({"transition_fraction": 1.25}, "transition_fraction is 1.25: allowed is 0 to 1."),
        ({"transition_fraction": -0.5}, "transition_fraction is -0.5: allowed is 0 to 1."),
        (
            {"granularity": 54},
            "granularity is 54, but the transition has 53 steps (0.666667 of 80): allowed are as "
            "many plateaus as steps.",
        ),
        (
            {"granularity": 2, "transition_fraction": 0},
            "granularity is 2, but the transition has 0 steps (0 of 80): allowed are as many "
            "plateaus as steps.",
        ),
    ],
)
def test_numbers_that_cannot_run(lane, message):
    assert refused(lanes.check, SPEC, [{}, lane], 512) == message


def test_numbers_at_the_edge_can_run():
    edge = [
        {"seed": 2**31 - 1, "granularity": 53},
        {"transition_fraction": 0},
        {"transition_fraction": 1, "seed": 1},
    ]
    assert (
        len(
            lanes.check(
                SPEC,
                [*edge, {"granularity": 80, "transition_fraction": 1}, {"learning_rate": 0}],
                512,
            )
        )
        == 5
    )


def test_granularity_times_steps_fits_into_32_bits():
    long = Spec(epochs=50_000, batch_size=64)  # 66,667 steps of transition on 128 samples
    assert lanes.check(long, [{"granularity": 64_424}], 128)
    message = refused(lanes.check, long, [{"granularity": 64_425}], 128)
    assert message == "granularity is 64425: allowed is at most 64424 for 66667 steps."


def test_lanes_need_samples_and_there_must_be_one():
    assert (
        refused(lanes.check, SPEC, [], 512)
        == "there are no lanes: give at least one, e.g. grid(seed=range(5))."
    )
    want = "batch_size is 64: allowed is at most the number of samples, 63."
    assert refused(lanes.check, SPEC, [{}], 63) == want


def test_execution_that_cannot_run():
    assert refused(placement.execution, "mlp", 5, "nonsense") == (
        "lane_strategy is 'nonsense': allowed are 'plain', 'vmap', 'map', 'sharded'."
    )
    assert (
        refused(placement.execution, "mlp", 5, "sharded", 0)
        == "lane_width is 0: allowed with sharded is 1 or more."
    )
    assert (
        refused(placement.execution, "mlp", 5, "plain", 2)
        == "lane_width is 2: allowed with plain is 1."
    )
    assert (
        refused(placement.execution, "mlp", 5, "map", 2)
        == "lane_width is 2: allowed with map is 1."
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"seed": 1}, "(it is a number of lanes: grid(seed=...))"),
        ({"l2.strength": 0.1}, '(it is a number of lanes: grid(**{"l2.strength": ...}))'),
        ({"redo.period": 5}, '(it is an option: options={"redo.period": ...})'),
        ({"widht": 5}, "(did you mean width?)"),
        ({"no.such": 5}, "(options and numbers of lanes are given apart)"),
    ],
)
def test_what_is_no_field_is_told_where_it_belongs(given, said):
    assert said in refused(Spec, **given)


def test_a_number_among_the_options_is_told_where_it_belongs():
    told = refused(Spec, method="l2", options={"l2.strength": 0.1})
    said = "option 'l2.strength' is none: it is a number of lanes: grid"
    assert told == said + '(**{"l2.strength": ...}).'


def test_a_field_among_the_lanes_is_told_where_it_belongs():
    assert refused(lanes.grid, width=[32, 64]).startswith(
        "width is no number of lanes: it is a field of Spec, Spec(width=...)"
    )
