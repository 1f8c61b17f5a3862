"""The benchmarks of Joudaki et al. at three scales; every figure file takes its numbers from here.

Source: Joudaki et al. 2025, "Barriers for Learning in an Evolving World" (arXiv 2510.00304), and
its public code where the text gives no number. A value that is in neither is marked "ours". Scales:
`paper`; `reduced` for one machine with two cores; `smoke`, seconds on scikit-learn's digits, which
shows only that it runs.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from experiments import figures
from experiments.benchmark import NOTHING, Benchmark, Settings
from plasticity_jax import registry
from plasticity_jax.cli.settings import Setting

NETWORKS = ("mlp", "cnn", "resnet18", "vit")
WIDTHS = (5, 10, 50, 100)  # of the learner in bit flipping
BOTH = ("none", "continual_backprop")


class Arms(NamedTuple):
    """What the arms of a benchmark are.

    Attributes:
      grids: whose union is run.
      published: settings of all arms in which the public code differs from the text.
    """

    grids: tuple[Settings, ...]
    published: Settings = NOTHING


SIZES = {  # as in the paper
    "width": 128,
    "depth": 5,
    "cnn.base": 64,
    "cnn.dense": 512,
    "resnet18.base": 64,
    "vit.embedding": 384,
}
SMALL = {"cnn.base": 8, "cnn.dense": 64, "resnet18.base": 8, "vit.embedding": 48}
SMOKE = {
    **SMALL,
    "dataset": "digits",
    "width": 8,
    "depth": 2,
    "vit.embedding": 12,
    "vit.patch": 4,
    "vit.blocks": 1,
    "cnn.base": 2,
    "cnn.dense": 8,
    "resnet18.base": 2,
    "seeds": 2,
    "probe_samples": 32,
}
UNITS = ("dead_fraction", "duplicate_fraction", "effective_rank", "saturated_fraction", "trap")
SPLIT = {
    **SIZES,
    "environment": "class_split",
    "dataset": "tiny_imagenet",
    "class_split.per_task": 5,
    "class_split.augment": "crop_flip_jitter",
    "tasks": 40,
    "epochs": 500,
    "batch_size": 128,
    "learning_rate": 1e-3,
    "method": "head_reset",
    "head_reset.to": "zero",
    "norm": "none",
    "vit.dropout": 0.0,
    "seeds": 5,
    "first_seed": 40,
    "probes": UNITS,
}
SPLIT_REDUCED = {
    **SMALL,
    "width": 32,
    "dataset": "cifar10",
    "class_split.classes": "regroup",
    "class_split.augment": "none",
    "samples": 500,
    "batch_size": 50,
    "epochs": 100,
    "tasks": 20,
    "seeds": 3,
    "probe_samples": 250,
}
SPLIT_SMOKE = {
    **SMOKE,
    "class_split.classes": "regroup",
    "samples": 100,
    "batch_size": 25,
    "epochs": 1,
    "tasks": 2,
}
BITS = {
    "environment": "bit_flip",
    "samples": 10_000,
    "batch_size": 1,
    "epochs": 1,
    "tasks": 500,
    "model": "mlp",
    "depth": 1,
    "norm": "none",
    "initialization": "he_uniform",
    "optimizer": "sgd",
    "learning_rate": 0.01,
    "seeds": 30,
    "first_seed": 30,
    "continual_backprop.utility": "adaptable",
    "duplicate_fraction.cosine": 0.98,
    "saturated_fraction.size": 0.05,
    "saturated_fraction.share": 0.8,
    "probes": UNITS,
    "probe_samples": 128,
    "checkpoint_every": 10,
    "last": 50,
}
BITS_REDUCED = {"tasks": 100, "seeds": 10, "last": 10}
BITS_SMOKE = {"samples": 100, "tasks": 3, "seeds": 2, "probe_samples": 32, "last": 2}
BITS_PUBLISHED = {
    "continual_backprop.count": "at_least_one",
    "continual_backprop.reset_bias": "whole_layer",
}


def _normed(network: str, *norms: Settings) -> tuple[Settings, ...]:
    """Grids of a network with each of `norms`."""
    own = {"model": network, "learning_rate": 1e-4} if network == "vit" else {"model": network}
    return tuple({**own, **norm} for norm in norms)


def _affine(network: str) -> tuple[Settings, ...]:
    """No norm, and both norms with and without scale and offset."""
    both = {"norm": ("batch", "layer"), f"{network}.norm_affine": (True, False)}
    return _normed(network, {"norm": "none"}, both)


def _dropped(network: str) -> tuple[Settings, ...]:
    return _normed(network, {"norm": ("none", "batch", "layer"), f"{network}.dropout": (0.0, 0.1)})


def _plain(network: str) -> tuple[Settings, ...]:
    return _normed(network, NOTHING)


def split(
    name: str, title: str, metric: str, arms: Callable[[str], tuple[Settings, ...]]
) -> Benchmark[Arms]:
    """Returns a benchmark of class split, with the grids that `arms` gives of each network."""
    joined = tuple(itertools.chain.from_iterable(map(arms, NETWORKS)))
    return Benchmark(name, title, metric, SPLIT, SPLIT_REDUCED, SPLIT_SMOKE, Arms(joined))


BENCHMARKS = {
    one.name: one
    for one in (
        split(
            "class_split",
            "Class split, no norm, no dropout",
            "online_accuracy",
            _plain,
        ),
        split(
            "norms",
            "Class split with norms",
            "effective_rank",
            _affine,
        ),
        split(
            "norms_and_dropout",
            "Class split with norms and dropout",
            "dead_fraction",
            _dropped,
        ),
        Benchmark(
            "bit_flip",
            "Bit flipping",
            "online_squared_error",
            {**BITS, "width": 5},
            BITS_REDUCED,
            BITS_SMOKE,
            Arms(({"method": BOTH},), BITS_PUBLISHED),
        ),
        Benchmark(
            "bit_flip_widths",
            "Bit flipping by width",
            "online_squared_error",
            {**BITS, "seeds": 10},
            {**BITS_REDUCED, "seeds": 5},
            BITS_SMOKE,
            Arms(({"method": BOTH, "width": WIDTHS},), BITS_PUBLISHED),
        ),
    )
}


def _arms(figure: figures.Figure, choices: figures.Choices) -> list[dict[str, Setting]]:
    """Returns the grids of a benchmark; of those given, only the networks, and other axes as they
    are given. Raises ValueError for flags that it does not take, or a network that it lacks.
    """
    figures.check_own_arms(figure, choices)
    axes = _given_axes(figure.benchmark, choices) - {"model"}
    given = {name: choices.given[name] for name in axes}
    return [{**grid, **given} for grid in _of_networks(figure.benchmark, choices)]


def _of_networks(benchmark: Benchmark[Any], choices: figures.Choices) -> Sequence[Settings]:
    """The grids of the networks that are asked for; raises ValueError for one that there is not."""
    grids = benchmark.recipe.grids
    if "model" not in choices.given or not all("model" in grid for grid in grids):
        return grids
    asked = choices.given["model"]
    wanted = asked if isinstance(asked, tuple) else (asked,)
    for one in wanted:
        registry.one_of("model", one, dict.fromkeys(str(grid["model"]) for grid in grids))
    return [grid for grid in grids if grid["model"] in wanted]


def _given_axes(benchmark: Benchmark[Any], choices: figures.Choices) -> set[str]:
    """Names of settings that are given and that all arms of these networks have as their own."""
    return set(choices.given).intersection(*_of_networks(benchmark, choices))


def _defaults(benchmark: Benchmark[Any], choices: figures.Choices) -> dict[str, Any]:
    published = benchmark.recipe.published if choices.as_published else NOTHING
    return {**benchmark.at(choices.scale), **published}


READOUTS = {"online_accuracy": "accuracy_of_all", "clone_r2": "clone_r2/as_published"}
"""The public code's accuracy is among all outputs, also those that a task does not have, and its R2
of standard deviations.
"""
KIND = figures.Kind(_arms, _defaults, _given_axes, figures.no_remarks, published=READOUTS)


def figure(name: str, benchmark: str, metric: str = "") -> figures.Figure:
    """Returns a figure of this paper."""
    return figures.Figure(name, BENCHMARKS[benchmark], KIND, metric)
