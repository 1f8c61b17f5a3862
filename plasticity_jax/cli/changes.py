"""Which settings of a finished run are other than an experiment's own, as captions tell it."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from plasticity_jax import spec
from plasticity_jax.cli import flags, settings
from plasticity_jax.cli.settings import Settings


def told(
    values: flags.Values, defaults: Settings, table: Any, besides: Sequence[str] = ()
) -> list[str]:
    """Returns "name value (default)" of every setting that some lane of `table` has other than by
    `defaults`.

    Without what a figure shows anyway: methods, transitions, probes, granularity; `besides` are to
    be told as well.
    """
    usual = flags.parse([], defaults)[0]
    shown = {"transition", "method", "probes", "probe_every"}
    names = [
        *(name for name in settings.SPEC_FIELDS if name not in shown),
        "learning_rate",
        "transition_fraction",
        *flags.part_settings(),
        "seeds",
        "first_seed",
        *besides,
    ]
    return [
        f"{name} {values[name]} ({usual[name]})"
        for name in names
        if _differ(name, values[name], usual[name]) and _has(table, name, values)
    ]


def _differ(name: str, one: str | None, other: str | None) -> bool:
    """Whether two texts of a flag say different things: 0.5 is 1/2."""
    return one != other and settings.read(name, one) != settings.read(name, other)


def _has(table: Any, name: str, values: flags.Values) -> bool:
    """Whether a lane of the table has a value of the flag `name`: arms may have their own, or no
    use for it.
    """
    probes = settings.items(values["probes"])
    part, dot, _ = name.partition(".")
    if dot and part not in {*_parts(table), *probes}:
        return False
    if name == "probe_samples":
        return probes != ["none"]
    if name == "transition_fraction" and not (table["granularity"] > 1).any():
        return False
    there = table[name].dropna().unique() if name in table else ()
    if not len(there):
        return True
    pairs = itertools.product(settings.items(str(values[name])), there)
    return any(_same(name, text, value) for text, value in pairs)


def _parts(table: Any) -> set[str]:
    """The parts of a table's lanes that are named in columns."""
    parts = {*table["environment"], *table["model"], *table["optimizer"]}
    for method in set(table["method"]):
        parts |= set(method.split("+"))
    return parts


def _same(name: str, text: str, value: Any) -> bool:
    """Whether a flag's text says a lane's value."""
    if isinstance(value, str | bool | np.bool_):
        return text.lower() == str(value).lower()
    if spec.is_period(name):
        return settings.whole(name, text, 0) == value
    return math.isclose(settings.number(name, text), value, rel_tol=1e-6)
