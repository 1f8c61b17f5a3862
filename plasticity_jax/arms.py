"""Arms: what settings by name make, as Specs and the lanes of each.

A setting is a field of `Spec` or a number of lanes ("learning_rate"), a part's own option or number
("redo.period", "l2.strength"), or how many seeds there are ("seeds", "first_seed"). One with
several values is an axis; a part's own settings multiply only the arms that use the part.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from plasticity_jax import lanes, registry
from plasticity_jax.models import MODELS
from plasticity_jax.spec import Spec, unread

Listed = Callable[[str], Sequence[Any]]
"""Name of a setting -> its values, each once."""
Runs = list[tuple[Spec, list[dict[str, Any]]]]

FIELDS = {field.name: field for field in dataclasses.fields(Spec) if field.name != "options"}
PROGRAMS = 10_000  # of a run at most: more would take days to compile


def runs(arms: Iterable[Listed]) -> Runs:
    """Returns the (Spec, lanes) of the union of grids.

    Args:
      arms: the settings of each, every one of them.
    Lanes that would be the same run (see `lanes.identity`) appear once, as the first of them.
    Raises ValueError for values that are not allowed, or more than can be run.
    """
    made: dict[Spec, list[dict[str, Any]]] = {}
    seen: set[Any] = set()
    count = 0  # lanes so far, the same ones among them
    for listed in arms:
        seeds = _seeds(listed)
        for spec in _specs(listed):
            axes = {**_numbers(spec, listed), "seed": seeds}
            count += math.prod(map(len, axes.values()))
            _check_lanes(count)
            for lane in lanes.grid(**axes):
                same = lanes.identity(spec, lanes.complete(spec, lane))
                if same not in seen:
                    seen.add(same)
                    made.setdefault(spec, []).append(lane)
    return list(made.items())


def _seeds(listed: Listed) -> range:
    """The seeds of an arm. Raises ValueError for those that a program cannot count."""
    (first,), (count,) = listed("first_seed"), listed("seeds")
    if first + count > 2**31:
        raise ValueError(
            f"first_seed is {first} and seeds is {count}: allowed are seeds up to {2**31 - 1}."
        )
    return range(first, first + count)


def _numbers(spec: Spec, listed: Listed) -> dict[str, Sequence[Any]]:
    """The values of every number of a Spec's lanes but the seed."""
    return {name: listed(name) for name in lanes.defaults(spec) if name != "seed"}


def _specs(listed: Listed) -> list[Spec]:
    """The Specs of a grid; what a model does not read is no axis of it, and the default."""
    fields = {name: listed(name) for name in FIELDS}
    _check_programs(fields)
    points = {}  # (two that differ in what a model does not read are one)
    for values in itertools.product(*fields.values()):
        point = _read(dict(zip(fields, values, strict=True)))
        points[tuple(point.values())] = point
    made = []
    for point in points.values():
        made += _with_options(Spec(**point), listed, len(made))
    return made


def _read(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a Spec, with the default of those that its model does not read."""
    registry.lookup(MODELS, "model", fields["model"])
    return {**fields, **{name: FIELDS[name].default for name in unread(fields["model"])}}


def _with_options(plain: Spec, listed: Listed, before: int) -> list[Spec]:
    """A Spec with every combination of its parts' options; `before` counts the Specs so far."""
    usual = plain.known_options()
    options = {name: listed(name) for name in usual}
    _check_programs(options, before)
    made = []
    for values in itertools.product(*options.values()):
        point = dict(zip(options, values, strict=True))
        # defaults are left out, so that a Spec made by hand and one made by flags are equal
        changed = {name: value for name, value in point.items() if value != usual[name]}
        made.append(dataclasses.replace(plain, options=changed))
    return made


def _check_lanes(count: int) -> None:
    if count > lanes.MOST:
        raise ValueError(
            f"this grid has {count:,} lanes or more: allowed are at most {lanes.MOST:,}."
        )


def _check_programs(axes: Mapping[str, Sequence[Any]], before: int = 0) -> None:
    count = before + math.prod(map(len, axes.values()))
    if count > PROGRAMS:
        raise ValueError(
            f"this grid has {count:,} programs or more: allowed are at most {PROGRAMS:,}."
        )
