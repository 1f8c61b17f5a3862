"""What the runs beyond the paper share: Random MNIST at a scale, with arms of their own. Their
rules are in rules.md.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from experiments.gradual.settings import BENCHMARKS
from plasticity_jax import registry
from plasticity_jax.cli import flags, launcher
from plasticity_jax.cli.settings import Settings

BENCHMARK = BENCHMARKS["random_mnist"]
SCALES = ("reduced", "smoke")
HELP = """
This run's own flags
  --scale=reduced                      reduced, or smoke, which shows only that it runs
"""


class Question(NamedTuple):
    """One run.

    Attributes:
      title: of its figure.
      reduced, smoke: settings that differ from the benchmark's at that scale.
      arms: settings of the scale -> the grids whose union is run, as `launcher.Experiment` has
        them.
    """

    title: str
    reduced: Settings
    smoke: Settings
    arms: Callable[[Mapping[str, Any]], Sequence[Settings]]

    def defaults(self, scale: str) -> dict[str, Any]:
        """Returns the settings of all arms at a scale."""
        changes = self.reduced if scale == "reduced" else self.smoke
        return {"method": "none", **BENCHMARK.at(scale), **changes}


def main(
    doc: str | None,
    question: Question,
    switches: Mapping[str, Question] | None = None,
    argv: Sequence[str] | None = None,
) -> int:
    """Runs a question from the command line and returns the exit code.

    Args:
      doc: the file's docstring.
      question: what is run.
      switches: name of a switch of the file's own -> what is run instead if it is given.
      argv: arguments; default the process's own.
    """
    switches = dict(switches or {})
    known: dict[str, Any] = {"scale": "reduced", **dict.fromkeys(switches, False)}
    try:
        own, rest = flags.own(known, sys.argv[1:] if argv is None else argv)
        scale = registry.one_of("scale", own["scale"], SCALES)
    except ValueError as error:
        return launcher.fault(error, launcher.USAGE)
    for name, other in switches.items():
        if own[name]:
            question = other
    defaults = question.defaults(scale)
    title = f"{question.title}: {BENCHMARK.title}"
    experiment = launcher.Experiment((doc or "") + HELP, defaults, question.arms(defaults), title)
    return launcher.launch(experiment, rest)
