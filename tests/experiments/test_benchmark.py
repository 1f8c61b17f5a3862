"""Benchmarks as Specs and lanes."""

import functools

import pytest

import plasticity_jax as pj
from experiments.barriers import cloning
from experiments.barriers import settings as barriers
from experiments.benchmark import SCALES
from experiments.disentangling import settings as disentangling
from experiments.gradual import settings as gradual
from plasticity_jax import arms, lanes
from plasticity_jax.cli import flags, settings

EVERY = [
    *gradual.BENCHMARKS.values(),
    *barriers.BENCHMARKS.values(),
    *cloning.BENCHMARKS.values(),
    *disentangling.BENCHMARKS.values(),
]


def test_a_benchmark_is_a_spec_and_a_grid():
    """Worked by hand from Liu & Mou, appendix B, and the reduced scale's values."""
    ((spec, made),) = gradual.BENCHMARKS["random_mnist"].runs(
        "reduced", {"method": "redo+l2", "granularity": (1, 20), "seeds": 2}
    )
    assert spec == pj.Spec(
        dataset="mnist",
        samples=1280,
        environment="random_labels",
        tasks=50,
        epochs=120,
        width=64,
        probes=gradual.PROBES,
        method="redo+l2",
        options={"redo.period": 250, "redo.warmup": 250, "redo.score": "running"},
    )
    assert [(lane["granularity"], lane["seed"]) for lane in made] == [
        (1, 0),
        (1, 1),
        (20, 0),
        (20, 1),
    ]
    assert {(lane["learning_rate"], lane["l2.strength"]) for lane in made} == {(1e-3, 1e-3)}


def test_two_arms_are_the_union_of_their_grids():
    benchmark = gradual.BENCHMARKS["random_mnist"]
    found = benchmark.runs("smoke", {"method": "none"}, {"method": "none"}, {"method": "l2"})
    assert [(spec.method, len(made)) for spec, made in found] == [("none", 2), ("l2", 2)]


@pytest.mark.parametrize("benchmark", EVERY, ids=lambda one: one.name)
def test_values_are_what_their_text_says(benchmark):
    """A setting becomes the text of a flag and comes back: as if it had never been text."""
    usual = {
        **{name: field.default for name, field in arms.FIELDS.items()},
        **lanes.DEFAULTS,
        **flags.part_settings(),
        "first_seed": 0,
    }

    def listed(name, values):
        return settings.listed(name, values[name])

    for scale in SCALES:
        values = {**usual, **benchmark.at(scale)}
        assert benchmark.runs(scale) == arms.runs([functools.partial(listed, values=values)])


def test_an_unknown_setting_is_refused():
    benchmark = gradual.BENCHMARKS["random_mnist"]
    for name in ("no_such", "l2.stregnth"):
        with pytest.raises(ValueError, match=f"setting '{name}' is known of no flag"):
            benchmark.runs("smoke", {name: 1})
        wrong = benchmark._replace(smoke={**benchmark.smoke, name: 1})
        with pytest.raises(ValueError, match=f"setting '{name}' is known of no flag"):
            wrong.runs("smoke")
