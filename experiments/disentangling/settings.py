"""The benchmarks of Lyle et al. at three scales; every figure file takes its numbers from here.

Source: Lyle et al., "Disentangling the Causes of Plasticity Loss in Neural Networks" (arXiv
2402.18762). The paper gives no learning rates, batch sizes, depths or lengths of tasks, and no bins
or smoothing: Adam at 1e-3, batches of 128 and four layers of 256 units are ours, the last because
its figure 2 counts units of a last layer of 256. Scales as in the first paper: `paper`, `reduced`
for one machine with two cores, `smoke`, which shows only that it runs.
"""

import itertools
from typing import Any

from experiments import figures
from experiments.benchmark import Benchmark, Settings
from experiments.disentangling import switch
from plasticity_jax.cli.settings import Setting

Arms = tuple[Settings, ...]  # the recipe of these benchmarks: grids whose union is run
OFFSETS = (0.0, 1.0, 10.0, 100.0, 1000.0)
SHARES = ((0.01, 1), (0.03, 3), (0.1, 10), (0.3, 30), (1.0, 100))  # share, at every n-th stage

MODELS = ("mlp", "cnn", "resnet18")
METHODS = (
    "none",
    "l2",
    "weight_norm_constraint",
    "feature_norm",
    "redo",
    "infer",
    "gradient_penalty",
)
NORMS = (
    "none",
    "layer",
    "batch",
    "batch+layer",
    "rms",
    "batch_mean+layer_deviation",
    "layer_mean+batch_deviation",
)

COMMON = {
    "samples": 5120,
    "batch_size": 128,
    "epochs": 40,
    "tasks": 20,
    "seeds": 5,
    "norm": "none",
    "l2.strength": 1e-5,
}
REDUCED = {"samples": 1280, "batch_size": 64, "epochs": 40, "width": 64, "probe_samples": 256}
SMOKE = {
    "dataset": "digits",
    "samples": 128,
    "batch_size": 32,
    "epochs": 2,
    "tasks": 3,
    "seeds": 2,
    "width": 16,
    "probe_samples": 64,
}
LABELS = {
    "environment": "random_labels",
    "random_labels.draw": "iid",
    "transition": "abrupt",
    "dataset": "cifar10",
    "learning_rate": 1e-3,
}
ON_MNIST = {**REDUCED, "dataset": "mnist"}
COMPOSITE = {"environment": "composite", "dataset": "cifar10", "probes": ("parameter_norm", "ntk")}
WIDE = {"two_hot.low": -10.0, "two_hot.high": 210.0, "two_hot.bins": 221}  # of growing targets
NARROW = {"two_hot.low": -10.0, "two_hot.high": 10.0, "two_hot.bins": 21}
TOGETHER = {"method": "l2", "norm": ("none", "layer"), "l2.strength": (0.0, 1e-5)}
COMBINATIONS: Arms = (
    {**TOGETHER, "head": "linear"},
    {**TOGETHER, "head": "two_hot", "two_hot.smoothing": (0.0, 0.01)},
)


def benchmark(
    name: str,
    title: str,
    metric: str,
    arms: Arms,
    paper: Settings,
    reduced: Settings | None = None,
    smoke: Settings | None = None,
) -> Benchmark[Arms]:
    """Returns a benchmark with what all of this paper share filled in."""
    return Benchmark(
        name,
        title,
        metric,
        {**COMMON, **paper},
        {**ON_MNIST, **(reduced or {})},
        {**SMOKE, **(smoke or {})},
        arms,
    )


BENCHMARKS = {
    one.name: one
    for one in (
        benchmark(
            "offsets",
            "Targets with an offset",
            "squared_error",
            ({"target_offset.offset": OFFSETS},),
            {
                "environment": "target_offset",
                "dataset": "mnist",
                "probes": ("feature_spectrum", "ntk"),
            },
        ),
        benchmark(
            "spectra",
            "Features against the mean of targets",
            "squared_error",
            ({"target_offset.offset": OFFSETS, "norm": ("none", "layer")},),
            {
                "environment": "target_offset",
                "dataset": "mnist",
                "probes": ("feature_spectrum", "effective_rank", "ntk"),
            },
        ),
        benchmark(
            "shares",
            "Labels redrawn in shares, as many changes in all",
            "online_accuracy",
            tuple(
                {"random_labels.share": share, "random_labels.every": every}
                for share, every in SHARES
            ),
            # 40 times all labels, in 100 stages each
            {**LABELS, "tasks": 4000, "epochs": 3, "probes": ("none",)},
            {"tasks": 2000, "epochs": 1},
        ),
        benchmark(
            "units",
            "Units that became linear",
            "linearized_fraction/line",
            tuple(
                {"random_labels.draw": draw, "activation": activation, "norm": ("none", "layer")}
                for draw, activation in itertools.product(
                    ("iid", "classes"), ("gelu", "leaky_relu")
                )
            ),
            {
                **LABELS,
                "probes": ("linearized_fraction", "preactivation", "gradient_alignment:start"),
            },
        ),
        benchmark(
            "switch",
            "The first steps after labels were redrawn",
            "dormant_fraction",
            ({"norm": ("none", "layer")},),
            {
                **LABELS,
                "tasks": 10,
                "points": (0, 1, 2, 5, 10, 20, 50, 100, 200, 400, 700),
                "probes": ("dormant_fraction", "preactivation", "gradient_alignment"),
            },
            smoke={"points": (0, 1, 2, 5)},
        ),
        benchmark(
            "axes",
            "Axes of a norm's mean and deviation",
            "online_accuracy",
            ({"norm": NORMS, "method": "l2"},),
            # 100 tasks of 50,000 steps
            {
                **LABELS,
                "model": MODELS,
                "epochs": 1250,
                "tasks": 100,
                "probes": ("parameter_norm",),
            },
            {"model": "mlp", "tasks": 20},
            {"model": "mlp"},
        ),
        benchmark(
            "phases",
            "Phases of shifting inputs and frequencies of classes",
            "test_accuracy",
            ({"norm": ("none", "layer"), "method": ("none", "l2")},),
            # 20 phases of 2,000 steps
            {
                "environment": "phased_shift",
                "transition": "abrupt",
                "dataset": "cifar10",
                "learning_rate": 1e-3,
                "epochs": 50,
                "probes": ("parameter_norm",),
            },
        ),
        benchmark(
            "norms_and_kernels",
            "Parameter norm, sharpness and tangent kernel",
            "parameter_norm",
            ({"activation": ("relu", "leaky_relu")}, {"norm": "layer"}),
            {**LABELS, "probes": ("parameter_norm", "hessian_top", "ntk", "ntk:start")},
        ),
        benchmark(
            "interventions",
            "Each intervention alone",
            "online_accuracy",
            (
                {"method": METHODS},
                {"norm": ("layer", "batch"), "method": ("none", "l2")},
                {"norm": "batch+layer", "method": "l2"},
                {"method": "l2", "l2.strength": 1e-6},
                {"head": "smoothed"},
                {"head": "scale_invariant", "norm": ("none", "layer"), "method": ("none", "l2")},
                {"activation": ("leaky_relu", "tanh", "gelu")},
                {"activation": "crelu", "model": "mlp"},  # (which ResNet-18 refuses)
            ),
            {**LABELS, "model": MODELS, "probes": ("parameter_norm", "dormant_fraction")},
            {"model": "mlp"},
            {"model": "mlp"},
        ),
        benchmark(
            "norms_cnn",
            "Norms and L2 in a convolutional network",
            "online_accuracy",
            ({"norm": ("none", "layer", "batch"), "method": "l2", "l2.strength": (0.0, 1e-5)},),
            {**LABELS, "model": "cnn", "probes": ("parameter_norm", "dormant_fraction")},
            {"dataset": "cifar10", "samples": 640, "epochs": 30, "tasks": 8},
        ),
        benchmark(
            "norms_resnet",
            "Norms with L2 in ResNet-18",
            "online_accuracy",
            ({"norm": "none", "method": "none"}, {"norm": ("layer", "batch"), "method": "l2"}),
            {**LABELS, "model": "resnet18", "probes": ("parameter_norm", "dormant_fraction")},
            {
                "dataset": "cifar10",
                "samples": 640,
                "epochs": 20,
                "tasks": 6,
                "resnet18.base": 32,
                "precision": "tensorfloat32",
            },
            {"resnet18.base": 4},
        ),
        benchmark(
            "composite",
            "Inputs, labels and the mean of targets change",
            "online_accuracy",
            COMBINATIONS,
            {**COMPOSITE, **WIDE},
        ),
        benchmark(
            "continual",
            "Inputs and labels change",
            "online_accuracy",
            COMBINATIONS,
            {**COMPOSITE, **NARROW, "composite.mode": "continual"},
        ),
        benchmark(
            "growing",
            "The mean of targets grows",
            "online_accuracy",
            COMBINATIONS,
            {**COMPOSITE, **WIDE, "composite.mode": "growing"},
        ),
    )
}


def _arms(figure: figures.Figure, choices: figures.Choices) -> list[dict[str, Setting]]:
    """Returns the grids of a benchmark. Raises ValueError for flags of other papers' figures."""
    for name in ("methods", "selection", "controls", "as_published"):
        if getattr(choices, name):
            raise ValueError(
                f"{name} is given, but figure {figure.name} has arms of its own: leave it out."
            )
    return [dict(arm) for arm in figure.benchmark.recipe]


def _defaults(benchmark: Benchmark[Any], choices: figures.Choices) -> dict[str, Any]:
    return benchmark.at(choices.scale)


KIND = figures.Kind(
    _arms, _defaults, figures.nothing_taken, figures.no_remarks, beside=switch.drawn
)


def figure(name: str, benchmark: str, metric: str = "") -> figures.Figure:
    """Returns a figure of this paper."""
    return figures.Figure(name, BENCHMARKS[benchmark], KIND, metric)
