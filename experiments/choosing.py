"""The sentences of docs/choosing.md on the second and the third paper, with what their numbers are
worked out from; those on the first are written by `make claims`.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments import prose
from experiments.barriers import prose as barriers
from experiments.disentangling import claims
from experiments.disentangling import prose as disentangling
from experiments.prose import Sentence, Told

PAGE = Path(__file__).parents[1] / "docs" / "choosing.md"
BEGIN = "## From the other two papers"
LANES = disentangling.LANES


def _row(name: str, column: str, row: str) -> Told:
    """Mean and interval of a row of a committed table of a factorial."""
    rows = prose.statistics(disentangling.RESULTS / f"{name}.csv").set_index(column)
    return Told(*map(float, rows.loc[row, ["mean", "low", "high"]]))


_BESIDE = {"method": "l2", "norm": "layer", "activation": "relu", "l2.strength": 1e-5}
SCALE = ({**_BESIDE, "head": "scale_invariant"}, {**_BESIDE, "head": "linear"})
"""An output that is invariant to scale beside layer norm and L2, and the two without it."""


@functools.cache
def remedies() -> Mapping[str, Any]:
    """Of the factorials and of figure 5a on CIFAR-10."""
    every = {"norm": "layer", "head": "two_hot", "l2.strength": 1e-5, "two_hot.smoothing": 0.01}
    return {
        "norm": _row("factorial_labels", "effect", "layer norm"),
        "l2": _row("factorial_labels", "effect", "L2"),
        "output": _row("factorial_labels", "effect", "output"),
        "offset": _row("factorial_offset", "effect", "layer norm"),
        "offset_l2": _row("factorial_offset", "effect", "L2"),
        "beside_norm": _row("factorial_offset", "effect", "layer norm x L2"),
        "beside_output": _row("factorial_offset", "effect", "L2 x output"),
        "composite": _row("factorial_composite_cells", "cell", "none"),
        "composite_norm": _row("factorial_composite_cells", "cell", "layer norm"),
        "together": LANES.more("figure_5a_cifar10", (every, claims.NOTHING)),
        "scale_mlp": LANES.more("figure_4", SCALE),
        "scale_resnet": LANES.more("figure_4_resnet_digits", SCALE),
    }


@functools.cache
def areas() -> Mapping[str, Told]:
    """Areas under the ROC curve of measurements that foretell a fall on MNIST."""
    rows = prose.statistics(barriers.RESULTS / "foretelling_mnist.csv").set_index("score")
    names = {
        "task": "task",
        "trap": "trap",
        "top": "hessian_top",
        "frozen": "trap/frozen_distance",
    }
    found = {
        key: Told(*map(float, rows.loc[name, ["area", "low", "high"]]))
        for key, name in names.items()
    }
    columns = ["of_one_task", "of_one_task_low", "of_one_task_high"]
    for key in ("trap", "top", "frozen"):
        found[f"{key}_of_one_task"] = Told(*map(float, rows.loc[names[key], columns]))
    return found


SENTENCES = (
    Sentence(
        "An output that is invariant to scale (`--head=scale_invariant`) beside layer norm and L2: "
        "{scale_resnet:+.1p} points in ResNet-18 on digits, {scale_mlp:+.1p} in an MLP on MNIST.",
        remedies,
    ),
    Sentence(
        "Where labels are drawn anew they add up: layer norm gains {norm:+.1p} points of accuracy "
        "over all levels of the others, L2 {l2:+.1p}, label smoothing {output:+.1p} (not for "
        "certain).",
        remedies,
    ),
    Sentence(
        "With targets that have an offset, layer norm takes away {offset:.2} decades of squared "
        "error and L2 {offset_l2:.2}; L2 gains little beside layer norm (interaction "
        "{beside_norm:+.2}) and much beside two-hot targets ({beside_output:+.2}).",
        remedies,
    ),
    Sentence(
        "Where pixels, labels and the mean of targets all change, layer norm alone was best on "
        "MNIST ({composite_norm:.1%}, nothing {composite:.1%}); on CIFAR-10 all remedies together "
        "are not told from none ({together:+.1p} points).",
        remedies,
    ),
    Sentence(
        "with continual backprop the loss at width 5 ended at {cbp:.3z}, without at {bare:.2z}, "
        "when {dead:.1%} of units were dead; at first it was {cbp_first} in both.",
        barriers.bit_flipping,
    ),
    Sentence(
        "On MNIST the number of the task alone has an area under the ROC curve of {task:.2z}, the "
        "distance from clones {trap:.2z}, from frozen units {frozen:.2z}, the largest eigenvalue "
        "{top:.2z}. Among networks of the same age the first points the other way "
        "({trap_of_one_task:.2z}), the second is not told from chance "
        "({frozen_of_one_task:.2z}), and the eigenvalue barely is ({top_of_one_task:.2z}).",
        areas,
    ),
)
