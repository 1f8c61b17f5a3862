"""The streams on which remedies are compared, and how runs of several streams are launched."""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from experiments.benchmark import SCALES
from experiments.disentangling import settings
from experiments.presence import ERROR
from plasticity_jax import registry
from plasticity_jax.cli import flags, launcher

HELP = """
This run's own flags
  --scale=reduced                      numbers of every setting: paper, reduced or smoke
  --stream=labels,offset,composite     which streams; also labels_scale_invariant, continual,
                                       growing
"""


class Stream(NamedTuple):
    """One stream.

    Attributes:
      benchmark: whose settings it has.
      changes: settings of its own.
      head: what stands against the linear head.
      metric: column of the outcome.
    """

    benchmark: str
    changes: Mapping[str, Any]
    head: str
    metric: str


STREAMS = {
    "labels": Stream("interventions", {"smoothed.smoothing": 0.01}, "smoothed", "online_accuracy"),
    # (the same stream: what stands against the linear head is another one)
    "labels_scale_invariant": Stream("interventions", {}, "scale_invariant", "online_accuracy"),
    "offset": Stream(
        "offsets",
        {"target_offset.offset": 100.0, "two_hot.low": 90.0, "two_hot.high": 110.0},
        "two_hot",
        ERROR,
    ),
    # (the mean of targets grows by 10 from task to task)
    "composite": Stream("composite", settings.WIDE, "two_hot", "online_accuracy"),
    "continual": Stream("continual", settings.NARROW, "two_hot", "online_accuracy"),
    "growing": Stream("growing", settings.WIDE, "two_hot", "online_accuracy"),
}
USUAL = ("labels", "offset", "composite")
"""Those that are run where no stream is named."""


def title(stream: Stream) -> str:
    """Returns what a stream is called in figures."""
    return settings.BENCHMARKS[stream.benchmark].title


def of_head(stream: Stream, name: str) -> bool:
    """Returns whether a setting is one of the stream's own head, which not all arms have."""
    return name.partition(".")[0] == stream.head


def defaults(stream: Stream, scale: str) -> dict[str, Any]:
    """Returns the settings of all arms of a stream at a scale."""
    known = settings.BENCHMARKS[stream.benchmark].at(scale)
    rest = {name: value for name, value in stream.changes.items() if not of_head(stream, name)}
    head = {k: v for k, v in known.items() if k.partition(".")[0] not in ("l2", "two_hot")}
    return {**head, **rest, "model": "mlp", "probes": ("parameter_norm",)}


def launch(
    doc: str | None,
    experiment: Callable[[str, str, str], launcher.Experiment],
    argv: Sequence[str] | None = None,
) -> int:
    """Runs what `experiment` makes of (stream, scale, doc), one stream after another, each in a
    folder of its own inside the workdir; returns the exit code.
    """
    known: dict[str, Any] = {"scale": "reduced", "stream": ",".join(USUAL)}
    try:
        own, rest = flags.own(known, sys.argv[1:] if argv is None else argv)
        scale = registry.one_of("scale", own["scale"], SCALES)
        names = own["stream"].split(",")
        for name in names:
            registry.lookup(STREAMS, "stream", name)
    except ValueError as error:
        return launcher.fault(error, launcher.USAGE)
    for name in names:
        inside = [
            f"{text.rstrip('/')}/{name}" if text.startswith("--workdir=") else text for text in rest
        ]
        if code := launcher.launch(experiment(name, scale, (doc or "") + HELP), inside):
            return code
    return 0
