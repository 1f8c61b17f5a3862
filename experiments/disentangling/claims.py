"""The claims of Lyle et al. that are checked on kept lanes, and the figures whose arms are told."""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments import presence
from experiments.accounts import (
    Claim,
    Contrast,
    Kept,
    Where,
    arm,
    course,
    decades,
    decline,
    interval,
    last,
    more,
    together,
    told,
)
from experiments.disentangling import interventions, settings, switch
from experiments.presence import ERROR

CYCLE = 100  # stages of figure 1b in which all labels are redrawn once
FEW = 10  # cycles of which all are told
NONE: Where = {"norm": "none", "method": "none"}
PLAIN_NETWORK: Where = {**NONE, "activation": "relu", "head": "linear"}
NOTHING: Where = {"norm": "none", "l2.strength": 0.0, "head": "linear"}
DRIFTING: Where = {"norm": "none", "activation": "gelu", "random_labels.draw": "iid"}


def _offset(offset: float, **others: Any) -> Where:
    return {"target_offset.offset": offset, **others}


def _share(share: float) -> Where:
    return {"random_labels.share": share}


KEPT: Mapping[str, Kept] = {
    "figure_1a": Kept(_offset(100.0), ERROR),
    "figure_1a_zero": Kept(_offset(100.0), ERROR),
    "figure_1b": Kept(_share(1.0), window=CYCLE),
    "figure_1b_cifar10": Kept(_share(1.0), window=CYCLE),
    "figure_2a": Kept({"norm": "none"}),
    "figure_2a_cifar10": Kept({"norm": "none"}),
    "figure_2b": Kept(DRIFTING, window=3),
    "figure_2b_cifar10": Kept(DRIFTING, window=3),
    "figure_3": Kept({"norm": "none", "activation": "relu"}),
    "figure_4": Kept(PLAIN_NETWORK),
    "figure_1a_labels": Kept(_offset(100.0), ERROR),
    "figure_4_cnn_digits": Kept(PLAIN_NETWORK),
    "figure_25_cnn_digits": Kept({"norm": "none"}),
    "figure_4_resnet_digits": Kept(PLAIN_NETWORK),
    "figure_25_resnet_digits": Kept({"norm": "none"}),
    "figure_4_cnn": Kept({"norm": "none", "l2.strength": 0.0}, window=3),
    "figure_4_resnet": Kept(NONE, window=2),
    "figure_5a": Kept(NOTHING),
    "figure_5a_cifar10": Kept(NOTHING),
    "figure_5b": Kept(NOTHING),
    "figure_5b_cifar10": Kept(NOTHING),
    "figure_5b_mnist": Kept(NOTHING),
    "figure_5c": Kept(NOTHING),
    "figure_5c_digits": Kept(NOTHING),
    "figure_13_cifar10": Kept(_offset(100.0, norm="none"), ERROR),
    "figure_25": Kept({"norm": "none"}),
    "phases": Kept(NONE, "test_accuracy"),
    "factorial_labels": Kept(NOTHING),
    "factorial_labels_scale_invariant": Kept(NOTHING),
    "factorial_offset": Kept(NOTHING, ERROR),
    "factorial_composite": Kept(NOTHING),
    "factorial_continual": Kept(NOTHING),
}


def _rising(metric: str, norm: str | None = None) -> dict[str, Contrast]:
    """That a measurement grows with the mean of the targets, step by step, in powers of ten."""
    own = {} if norm is None else {"norm": norm}
    pairs = zip(settings.OFFSETS[1:], settings.OFFSETS, strict=False)
    return {
        f"{more_:g} over {less:g}": decades(_offset(more_, **own), _offset(less, **own), metric)
        for more_, less in pairs
    }


def _rising_at(task: int) -> dict[str, Contrast]:
    """That the error of one task, from 1, grows with the mean of the targets."""

    def contrast(greater: float, lesser: float) -> Contrast:
        return lambda table: np.log10(
            arm(table, _offset(greater), ERROR).loc[task - 1].to_numpy()
            / arm(table, _offset(lesser), ERROR).loc[task - 1].to_numpy()
        )

    return {
        f"{more_:g} over {less:g}": contrast(more_, less)
        for less, more_ in itertools.pairwise(settings.OFFSETS)
    }


def _combined(strength: float, head: str, norm: str = "layer", smoothing: float = 0.0) -> Where:
    own = {} if head == "linear" else {"two_hot.smoothing": smoothing}
    return {"norm": norm, "l2.strength": strength, "head": head, **own}


def _together(smoothing: float = 0.0, window: int = 5) -> dict[str, Contrast]:
    """That all three remedies are above nothing, above each one alone and above the other two."""
    all_three = _combined(1e-5, "two_hot", smoothing=smoothing)
    others = {
        "nothing": NOTHING,
        "layer norm": _combined(0.0, "linear"),
        "L2": _combined(1e-5, "linear", "none"),
        "two-hot": _combined(0.0, "two_hot", "none", smoothing),
        "layer norm + L2": _combined(1e-5, "linear"),
    }
    return {f"over {name}": more(all_three, arm, window=window) for name, arm in others.items()}


def _smoothed(norm: str) -> Contrast:
    """That two-hot targets are better with label smoothing than without, beside a norm."""
    return more(_combined(0.0, "two_hot", norm, 0.01), _combined(0.0, "two_hot", norm))


def _smaller_decline(window: int) -> Contrast:
    """How much less than `presence.POINTS` the accuracy declines where 1 % is redrawn at a time."""
    lost = decline(_share(0.01), "online_accuracy", window)
    return lambda table: presence.POINTS - lost(table)


def _units(draw: str, activation: str, metric: str) -> Contrast:
    own = {"random_labels.draw": draw, "activation": activation}
    return more({**own, "norm": "none"}, {**own, "norm": "layer"}, metric, 1)


def _of_units(figure: str, lanes: str, *rules: str) -> tuple[Claim, ...]:
    """What the paper says of figure 2, right, by several rules for units, on one dataset."""
    says = {
        UNITS: "the last layer has fewer linearized units with layer norm",
        LINES: "the same, where a unit counts that a line fits, in all layers",
        LAST_LINES: "the same, where a unit counts that a line fits, in the last layer",
    }
    found = []
    for metric in rules:
        words = says[metric]
        contrasts = {
            f"{activation}, {draw}": _units(draw, activation, metric)
            for draw, activation in itertools.product(("iid", "classes"), ("gelu", "leaky_relu"))
        }
        found.append(Claim(figure, words, lanes, "points", contrasts))
    return tuple(found)


def _ranks(figure: str, lanes: str, **own: Any) -> Claim:
    """That the tangent kernel loses rank where the mean of targets is large."""
    return Claim(
        figure,
        "the tangent kernel loses rank for a large mean of targets: the effective rank at 0 over "
        "that at 100 and 1000",
        lanes,
        "of effective rank",
        {
            f"0 over {offset:g}": more(_offset(0.0, **own), _offset(offset, **own), "ntk")
            for offset in (100.0, 1000.0)
        },
    )


def _of_factorial(stream: str, output: Where, metric: str = "online_accuracy") -> Claim:
    """That all three remedies are above nothing, above each one alone and above each two."""
    remedies = {
        "layer norm": {"norm": "layer"},
        "L2": {"l2.strength": 1e-4},
        "output": output,
    }
    whole: dict[str, Any] = {}
    for one in remedies.values():
        whole |= one
    contrasts = {}
    for size in range(len(remedies)):
        for on in itertools.combinations(remedies, size):
            part: dict[str, Any] = {**NOTHING}
            for name in on:
                part |= remedies[name]
            found = decades(part, whole, metric) if metric == ERROR else more(whole, part, metric)
            contrasts[f"over {' + '.join(on) or 'nothing'}"] = found
    unit = "decades of squared error" if metric == ERROR else "points"
    return Claim(
        f"5, factorial, {stream}", "remedies add up", f"factorial_{stream}", unit, contrasts
    )


PLAIN: Where = {"norm": "none", "activation": "relu"}
LEAKY: Where = {"norm": "none", "activation": "leaky_relu"}
UNITS = "linearized_fraction/h3"  # of the last hidden layer, 256 wide
LINES = "linearized_fraction/line"  # of all layers
LAST_LINES = f"{LINES}/h3"
READINGS: Mapping[tuple[str, str, str], str] = {
    ("gelu", "none", "iid"): "about 250",
    ("gelu", "none", "classes"): "about 170",
    ("gelu", "layer", "iid"): "about 0, with spikes of 30 to 40",
    ("gelu", "layer", "classes"): "about 0, with spikes of 30 to 40",
    ("leaky_relu", "none", "iid"): "200 to 250",
    ("leaky_relu", "none", "classes"): "80 to 120",
    ("leaky_relu", "layer", "iid"): "about 40",
    ("leaky_relu", "layer", "classes"): "about 10",
}
"""Linearized units of 256 in the paper's figure 2, read by eye: (activation, norm, draw) -> words.
That the second numbers of leaky ReLU are those of classes that change places is our reading.
"""


def rows_of_units(table: Any) -> str:
    """Returns the table of linearized units of 256, after the last task, beside the readings."""
    lines = [
        "| arm | linearized of 256 | most after a task | a line fits, of 256 | most after a task "
        "| paper |",
        "|---|---|---|---|---|---|",
    ]
    for (activation, norm, draw), reading in READINGS.items():
        where = {"activation": activation, "norm": norm, "random_labels.draw": draw}
        cells = [f"{activation}, norm {norm}, {draw}"]
        for rule in (UNITS, LAST_LINES):
            values = 256 * arm(table, where, rule)
            parts = values.iloc[-1], values.max()
            cells += [told(interval(part.to_numpy()), 1) for part in parts]
        lines.append(f"| {' | '.join([*cells, reading])} |")
    return "\n".join(lines)


def rows_of_shares(table: Any) -> str:
    """Returns the table of figure 1b: the mean accuracy while all labels are redrawn once, by how
    many at a time, with intervals over seeds; of more than a few cycles the first three and then
    each third.
    """
    count = int(table["task"].max()) // CYCLE + 1
    shown = [cycle for cycle in range(count) if count <= FEW or cycle < 3 or cycle % 3 == 1]
    names = [f"{cycle + 1}" for cycle in shown]
    lines = [f"| share | {' | '.join(names)} |", "|---" * (len(shown) + 1) + "|"]
    for share, _ in settings.SHARES:
        values = arm(table, _share(share), "online_accuracy")
        cycles = values.groupby(values.index // CYCLE).mean()
        cells = [told(interval(cycles.loc[cycle].to_numpy()), 100) for cycle in shown]
        lines.append(f"| {share:g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _of_shares(figure: str, lanes: str) -> tuple[Claim, ...]:
    """What the two versions of the paper say of figure 1b, on the lanes of one dataset."""
    return (
        Claim(
            figure,
            "redrawing 1 % of the labels at a time hardly hurts (preprint): less than 10 points",
            lanes,
            "points",
            {"10 points less what is lost": _smaller_decline(CYCLE)},
        ),
        Claim(
            figure,
            "gradual redrawing declines as well (published version)",
            lanes,
            "points",
            {"lost": decline(_share(0.01), "online_accuracy", CYCLE)},
        ),
        Claim(
            figure,
            "the more labels at a time, the worse",
            lanes,
            "points",
            {
                f"{less:g} over {more_:g}": more(_share(less), _share(more_), window=CYCLE)
                for less, more_ in ((0.01, 0.1), (0.1, 1.0))
            },
        ),
    )


CLAIMS = (
    Claim(
        "1a, MNIST",
        "fine-tuning is the worse the larger the mean of the targets",
        "figure_1a",
        "decades of squared error",
        _rising(ERROR),
    ),
    Claim(
        "1a, MNIST, then a mean of 0",
        "the same, if later targets have a mean of 0: in the second task, the first of them",
        "figure_1a_zero",
        "decades of squared error",
        _rising_at(2),
    ),
    Claim(
        "1a, MNIST, then a mean of 0",
        "and in the last five tasks",
        "figure_1a_zero",
        "decades of squared error",
        _rising(ERROR),
    ),
    Claim(
        "1a, MNIST, labels as targets",
        "the same where targets are random labels",
        "figure_1a_labels",
        "decades of squared error",
        _rising(ERROR),
    ),
    Claim(
        "1a, CIFAR-10",
        "the same on the images of the appendix",
        "figure_13_cifar10",
        "decades of squared error",
        _rising("squared_error", "none"),
    ),
    *_of_shares("1b, digits", "figure_1b"),
    *_of_shares("1b, CIFAR-10", "figure_1b_cifar10"),
    *switch.CLAIMS,
    *_of_units("2, right, MNIST", "figure_2b", UNITS, LINES),
    *_of_units("2, right, CIFAR-10", "figure_2b_cifar10", UNITS, LINES, LAST_LINES),
    _ranks("3, right, MNIST", "figure_1a"),
    _ranks("3, right, CIFAR-10", "figure_13_cifar10", norm="none"),
    Claim(
        "3, right, CIFAR-10",
        "the larger the mean, the lower the rank",
        "figure_13_cifar10",
        "of effective rank",
        {
            f"{less:g} over {more_:g}": more(
                _offset(less, norm="none"), _offset(more_, norm="none"), "ntk"
            )
            for less, more_ in itertools.pairwise(settings.OFFSETS)
        },
    ),
    Claim(
        "3",
        "the parameters' norm goes with the largest Hessian eigenvalue (rank correlation over "
        "tasks)",
        "figure_3",
        "",
        {"ReLU": together(PLAIN, "parameter_norm", "hessian_top")},
    ),
    Claim(
        "3",
        "the tangent kernel loses rank, with ReLU more than with leaky ReLU",
        "figure_3",
        "of effective rank",
        {
            "ReLU, lost": course(PLAIN, "ntk", "ntk:start"),
            "leaky ReLU over ReLU at the end": more(LEAKY, PLAIN, "ntk", 1),
        },
    ),
    *interventions.CLAIMS,
    _of_factorial("labels", {"head": "smoothed", "smoothed.smoothing": 0.01}),
    _of_factorial("labels_scale_invariant", {"head": "scale_invariant"}),
    _of_factorial("offset", {"head": "two_hot"}, ERROR),
    _of_factorial("composite", {"head": "two_hot"}),
    _of_factorial("continual", {"head": "two_hot"}),
    Claim("5, composite, digits", "remedies add up", "figure_5a", "points", _together()),
    Claim("5, composite, CIFAR-10", "remedies add up", "figure_5a_cifar10", "points", _together()),
    Claim(
        "5, composite, CIFAR-10",
        "remedies add up, with label smoothing",
        "figure_5a_cifar10",
        "points",
        _together(0.01),
    ),
    Claim(
        "5, composite, CIFAR-10",
        "two-hot targets need label smoothing here",
        "figure_5a_cifar10",
        "points",
        {"no norm": _smoothed("none"), "layer norm": _smoothed("layer")},
    ),
    Claim("5, continual, digits", "remedies add up", "figure_5b", "points", _together()),
    Claim("5, continual, MNIST", "remedies add up", "figure_5b_mnist", "points", _together()),
    Claim("5, continual, CIFAR-10", "remedies add up", "figure_5b_cifar10", "points", _together()),
    Claim("5, growing", "remedies add up", "figure_5c", "points", _together()),
    Claim("5, growing, digits", "remedies add up", "figure_5c_digits", "points", _together()),
    Claim(
        "13",
        "without norm the largest singular value grows with the mean of the targets",
        "figure_13_cifar10",
        "decades",
        _rising("feature_spectrum/largest", "none"),
    ),
    Claim(
        "13",
        "layer norm bounds it: at a mean of 100 it is smaller with than without",
        "figure_13_cifar10",
        "decades",
        {
            "none over layer": decades(
                _offset(100.0, norm="none"),
                _offset(100.0, norm="layer"),
                "feature_spectrum/largest",
            )
        },
    ),
    Claim(
        "13",
        "with layer norm the others decay all the same: the rank at 0 over that at 100",
        "figure_13_cifar10",
        "of effective rank",
        {
            "layer norm": more(
                _offset(0.0, norm="layer"), _offset(100.0, norm="layer"), "effective_rank"
            )
        },
    ),
    Claim(
        "14, 15",
        "one direction of the features carries the mean, not the bias: its share of the output at "
        "100 over the bias's",
        "figure_13_cifar10",
        "points",
        {
            "none": lambda table: _shares(table, "none"),
            "layer": lambda table: _shares(table, "layer"),
        },
    ),
    Claim(
        "iWildCam's phases",
        "layer norm with L2 is ahead at the end",
        "phases",
        "points",
        {"over nothing": more({"norm": "layer", "method": "l2"}, NONE, "test_accuracy")},
    ),
)


def _shares(table: Any, norm: str) -> Any:
    """The share of the output that the first direction carries less the bias's, seed by seed."""
    own = _offset(100.0, norm=norm)
    whole = table.assign(
        apart=table["feature_spectrum/top_direction"] - table["feature_spectrum/bias"]
    )
    return last(own, "apart", 5)(whole)
