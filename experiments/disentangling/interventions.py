"""The claims of Lyle et al. on each intervention alone (figure 4) and on a norm's axes (25)."""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments import presence
from experiments.accounts import Claim, Contrast, Where, arm, last, more

HYBRID = "batch_mean+layer_deviation"
OTHER = "layer_mean+batch_deviation"
NORMS = ("layer", "rms", "batch", "batch+layer", OTHER)  # beside the hybrid


def _strength(norm: str, strength: float) -> Where:
    return {"norm": norm, "l2.strength": strength}


def _alone(
    method: str = "none", norm: str = "none", activation: str = "relu", head: str = "linear"
) -> Where:
    """An arm of figure 4; L2 is that of 1e-5."""
    decayed = {"l2.strength": 1e-5} if method == "l2" else {}
    return {"method": method, "norm": norm, "activation": activation, "head": head, **decayed}


def _little(arm_: Where) -> Contrast:
    """How much less than `presence.POINTS` an arm of figure 4 gains over nothing."""
    gained = more(arm_, _alone())
    return lambda table: presence.POINTS - gained(table)


def _slow(table: Any) -> Any:
    """What rescaling to the initial norm lacks in the first task, in which nothing is lost yet."""
    metric = "online_accuracy"
    bare, rescaled = (
        arm(table, _alone(method), metric).iloc[0] for method in ("none", "weight_norm_constraint")
    )
    return (bare - rescaled).to_numpy()


def _means_matter(table: Any, window: int) -> Any:
    """What a mean over the minibatch gains, less what the deviation's axis does either way."""
    batch, hybrid, layer, other = (
        last({"norm": norm, "l2.strength": 1e-5}, "online_accuracy", window)(table)
        for norm in ("batch", HYBRID, "layer", OTHER)
    )
    of_mean, of_deviation = batch + hybrid - layer - other, batch + other - hybrid - layer
    return (of_mean - np.abs(of_deviation)) / 2


def _of_axes(
    figure: str, lanes: str, others: tuple[str, ...], window: int = 5
) -> tuple[Claim, ...]:
    """What the paper says of figure 25, on the lanes of one network."""
    decayed = {"l2.strength": 1e-5}
    hybrid = {"norm": HYBRID, **decayed}
    return (
        Claim(
            figure,
            "the hybrid of batch norm's mean and layer norm's deviation is above the others",
            lanes,
            "points",
            {
                f"over {norm}": more(hybrid, {"norm": norm, **decayed}, window=window)
                for norm in others
            },
        ),
        Claim(
            figure,
            "that a unit's mean is over examples matters more than the deviation: what the one "
            "gains less what the other changes",
            lanes,
            "points",
            {"mean over deviation": functools.partial(_means_matter, window=window)},
        ),
    )


WITHOUT_NORM: Mapping[str, Where] = {
    "L2": _alone("l2"),
    "L2 of 1e-6": {**_alone("l2"), "l2.strength": 1e-6},
    "rescaling": _alone("weight_norm_constraint"),
    "feature norm": _alone("feature_norm"),
    "ReDo": _alone("redo"),
    "InFeR": _alone("infer"),
    "gradient penalty": _alone("gradient_penalty"),
    "leaky ReLU": _alone(activation="leaky_relu"),
    "tanh": _alone(activation="tanh"),
    "GELU": _alone(activation="gelu"),
    "label smoothing": _alone(head="smoothed"),
    "CReLU": _alone(activation="crelu"),
}
"""Arms of figure 4 with one intervention that is no norm."""


def _of_scale(figure: str, lanes: str) -> tuple[Claim, ...]:
    """What the paper says of an output that is invariant to scale: it adds to the two others."""
    remedies = {
        "layer norm + L2": _alone("l2", "layer"),
        "nothing": _alone(),
    }
    return tuple(
        Claim(
            figure,
            f"an output that is invariant to scale adds to {name}",
            lanes,
            "points",
            {f"over {name}": more({**arm_, "head": "scale_invariant"}, arm_)},
        )
        for name, arm_ in remedies.items()
    )


def _of_interventions(figure: str, lanes: str, without: str = "") -> tuple[Claim, ...]:
    """What the paper says of figure 4, on lanes of all its interventions; `without` names one that
    another network stands for there.
    """
    others = {name: arm_ for name, arm_ in WITHOUT_NORM.items() if name != without}
    return (
        Claim(
            figure,
            "layer and batch norm with L2 are above nothing",
            lanes,
            "points",
            {norm: more(_alone("l2", norm), _alone()) for norm in ("layer", "batch")},
        ),
        Claim(
            figure,
            "one of them is best: batch norm with L2 is above whatever has no norm",
            lanes,
            "points",
            {f"over {name}": more(_alone("l2", "batch"), arm_) for name, arm_ in others.items()},
        ),
        Claim(
            figure,
            "rescaling to the initial norm is slow: in the first task it is behind nothing",
            lanes,
            "points",
            {"behind": _slow},
        ),
        Claim(
            figure,
            "ReDo helps",
            lanes,
            "points",
            {"over nothing": more(_alone("redo"), _alone())},
        ),
        Claim(
            figure,
            "others gain nothing: less than 10 points",
            lanes,
            "points",
            {
                f"10 points less what {name} gains": _little(arm_)
                for name, arm_ in others.items()
                if name not in ("ReDo", "rescaling")
            },
        ),
        *_of_scale(figure, lanes),
    )


CLAIMS = (
    *_of_interventions("4, MLP", "figure_4"),
    Claim(
        "4, CNN",
        "layer and batch norm with L2 are above nothing",
        "figure_4_cnn",
        "points",
        {
            norm: more(_strength(norm, 1e-5), _strength("none", 0.0), window=3)
            for norm in ("layer", "batch")
        },
    ),
    Claim(
        "4, ResNet-18",
        "the same",
        "figure_4_resnet",
        "points",
        {norm: more({"norm": norm}, {"norm": "none"}, window=2) for norm in ("layer", "batch")},
    ),
    *_of_interventions("4, CNN, digits", "figure_4_cnn_digits", "CReLU"),
    *_of_interventions("4, ResNet-18, digits", "figure_4_resnet_digits", "CReLU"),
    *_of_axes("25, MLP", "figure_25", NORMS),
    *_of_axes("25, CNN", "figure_4_cnn", ("layer", "batch", OTHER), 3),
    *_of_axes("25, CNN, digits", "figure_25_cnn_digits", NORMS),
    *_of_axes("25, ResNet-18, digits", "figure_25_resnet_digits", NORMS),
    *_of_axes("25, ResNet-18", "figure_4_resnet", NORMS, 2),
)
