"""A benchmark of a paper: its settings at three scales, and what the paper makes its arms of."""

import types
from typing import Any, Generic, NamedTuple, TypeVar

from plasticity_jax import registry
from plasticity_jax.arms import Runs
from plasticity_jax.cli import flags
from plasticity_jax.cli.flags import Settings

SCALES = ("paper", "reduced", "smoke")
NOTHING: Settings = types.MappingProxyType({})
Recipe = TypeVar("Recipe")


class Benchmark(NamedTuple, Generic[Recipe]):
    """One benchmark.

    Attributes:
      name: as on the command line.
      title: of its figures.
      metric: column that its figures show against the task.
      paper: settings at the paper's scale, methods' values included: fields of `Spec`, numbers of
        lanes, settings of parts and flags of a run, by the name of their flags.
      reduced, smoke: what differs from them at these scales.
      recipe: what else the arms are made of, a record of the paper's own.
    """

    name: str
    title: str
    metric: str
    paper: Settings
    reduced: Settings
    smoke: Settings
    recipe: Recipe

    def at(self, scale: str) -> dict[str, Any]:
        """Returns all settings at a scale. Raises ValueError for one that there is not."""
        registry.one_of("scale", scale, SCALES)
        smaller = {"paper": NOTHING, "reduced": self.reduced, "smoke": self.smoke}
        return {**self.paper, **smaller[scale]}

    def runs(self, scale: str, *arms: Settings) -> Runs:
        """Returns the (Spec, lanes) of the union of grids that `arms` make of a scale's settings.

        Args:
          scale: one of `SCALES`.
          arms: what each replaces; none for the settings as they are.
        Raises ValueError for a setting that is not allowed.
        """
        values, _ = flags.parse([], self.at(scale))
        return flags.runs(values, (), arms or (NOTHING,))
