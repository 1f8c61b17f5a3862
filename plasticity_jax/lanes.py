"""Lanes: the traced numbers of runs, grids of them, and how a lane axis is executed.

A lane's floating-point bits depend on how many lanes are vmapped together, and on nothing else
about its company: not on order, padding, neighbors or number of lanes. So the width is a recorded
constant of a run. At width 1 they do not depend on the number of devices either; at larger widths
XLA may fuse differently, so there it is recorded too.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from plasticity_jax import registry
from plasticity_jax.spec import PARTS, Spec, is_period
from plasticity_jax.stream import order, transitions

DEFAULTS = {"seed": 0, "granularity": 1, "learning_rate": 1e-3, "transition_fraction": 2 / 3}
WHOLE = ("seed", "granularity")
LIMITS = {
    "seed": (0, registry.LARGEST_WHOLE),
    "granularity": (1, registry.LARGEST_WHOLE),
    "learning_rate": (0, None),
    "transition_fraction": (0, 1),
}
# numbers that older records of runs lack
LATER = {"random_labels.share": 1.0, "random_labels.every": 1}
MOST = 100_000  # lanes of a run: more would take minutes to list


def grid(**axes: Any) -> list[dict[str, Any]]:
    """Returns the lanes of a grid: the product of the axes, each a number or an iterable of
    numbers; the last runs fastest.

    Names are `seed`, `granularity`, `learning_rate`, `transition_fraction` and `<part>.<number>`,
    the latter as `**{"l2.strength": [1e-3, 1e-4]}`. What is not named takes its default when the
    lanes are run. Numbers of numpy and jax become Python's. Raises ValueError for a field of Spec,
    a number that no part has, an axis with something that is no number, or more than `MOST` lanes.

    >>> lanes = pj.grid(granularity=[1, 20], seed=range(2))
    >>> len(lanes), lanes[0], lanes[-1]
    (4, {'granularity': 1, 'seed': 0}, {'granularity': 20, 'seed': 1})
    """
    for name in axes:
        if name in Spec.__dataclass_fields__:
            raise ValueError(
                f"{name} is no number of lanes: it is a field of Spec, Spec({name}=...), and each "
                "value of it has a program of its own."
            )
        part, _, number = name.partition(".")
        if name not in DEFAULTS and not (part in PARTS and number):
            listed = ", ".join(DEFAULTS)
            raise ValueError(
                f"number {registry.shown(name)} is known of no part: known are {listed}, and "
                "numbers of parts as l2.strength."
            )
    values = {name: _axis(name, given) for name, given in axes.items()}
    if math.prod(map(len, values.values())) > MOST:
        sizes = " x ".join(str(len(axis)) for axis in values.values())
        raise ValueError(f"a grid of {sizes} lanes is given: allowed are at most {MOST:,}.")
    return [dict(zip(axes, point, strict=True)) for point in itertools.product(*values.values())]


def _axis(name: str, given: Any) -> list[Any]:
    """The numbers of one axis, which may be only one."""
    if not registry.several(given):
        return [_plain(name, given)]
    values = list(itertools.islice(given, MOST + 1))
    if len(values) > MOST:
        raise ValueError(
            f"{name} has more than {MOST:,} values: allowed are at most so many lanes."
        )
    return [_plain(name, value) for value in values]


def _plain(name: str, value: Any) -> Any:
    """A number as Python's own; one that is traced as it is."""
    if registry.is_traced(value):
        return value
    if isinstance(value, str) and is_period(name):
        return registry.whole(name, value, 1, never=True)
    read = registry.number(name, value)
    return read if registry.index(value) is None else registry.index(value)


def defaults(spec: Spec) -> dict[str, Any]:
    """Returns every number that a lane of `spec` has, with its default."""
    return {**DEFAULTS, **spec.known_numbers()}


def is_whole(name: str) -> bool:
    """Returns whether a number of lanes, known by its name, is a whole one."""
    part, _, number = str(name).partition(".")
    return name in WHOLE or (part in PARTS and number in registry.whole_numbers(PARTS[part]))


def comparable(record: Mapping[str, Any], lane: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a lane that was recorded with a Spec's `record`, perhaps long ago, as it would be
    recorded today.

    A number that came later has the value that did what was done before it.
    """
    parts = {
        record.get("environment"),
        record.get("model"),
        record.get("optimizer"),
        *str(record.get("method")).split("+"),
    }
    return {
        **{name: value for name, value in LATER.items() if name.partition(".")[0] in parts},
        **lane,
    }


def complete(spec: Spec, lane: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `lane` with the defaults filled in.

    Raises ValueError for a number that the Spec's parts do not have, or something that is no
    number.
    """
    known = defaults(spec)
    check_names(known, lane)
    return {name: _read(name, value) for name, value in {**known, **lane}.items()}


def check_names(known: Iterable[str], lane: Mapping[str, Any]) -> None:
    """Raises ValueError if a lane is no mapping or has a number that is not among the `known`."""
    if not isinstance(lane, Mapping):
        raise ValueError(
            f"a lane is {registry.shown(lane)}: allowed are mappings of names to numbers, as "
            "grid() makes."
        )
    for name in lane:
        if name not in known:
            listed = ", ".join(known)
            raise ValueError(
                f"number {registry.shown(name)} fits no part of this run: known are {listed}."
            )


def _read(name: str, value: Any) -> int | float:
    """A lane's number: whole for some, float for others."""
    if not is_whole(name):
        return registry.number(name, value)
    if isinstance(value, str) and is_period(name):
        return registry.whole(name, value, 1, never=True)
    allowed = "whole numbers, or 'never'" if is_period(name) else "whole numbers"
    found = registry.number(name, value, allowed)
    if not found.is_integer():
        raise ValueError(f"{name} is {registry.shown(value)}: allowed are {allowed}.")
    return int(value)


def check(spec: Spec, lanes: Sequence[Mapping[str, Any]], samples: int) -> list[dict[str, Any]]:
    """Returns the lanes completed, after checking them against the Spec and the number of training
    examples.

    Raises ValueError: one sentence with the value given and what is allowed.
    """
    lanes = listed(lanes)
    if not lanes:
        raise ValueError("there are no lanes: give at least one, e.g. grid(seed=range(5)).")
    steps = check_steps(spec, samples)
    gradual = transitions.TRANSITIONS[spec.transition].gradual
    completed = [complete(spec, lane) for lane in lanes]
    limits = _limits(spec)
    for lane in completed:
        for name, value in lane.items():
            _within(name, value, *limits[name])
        transitions.check_plateaus(lane["granularity"], lane["transition_fraction"], steps)
        if lane["granularity"] > 1 and not gradual:
            raise ValueError(
                f"granularity is {lane['granularity']}: allowed with transition "
                f"{spec.transition!r} is 1, as nothing mixes."
            )
    _check_together(spec, completed)
    check_distinct([(spec, completed)])
    return completed


def _check_together(spec: Spec, completed: Sequence[Mapping[str, Any]]) -> None:
    """Raises ValueError for numbers of one part that do not go together, such as an empty range."""
    parts = (spec.environment, spec.head, spec.agent)
    names = [name for name in completed[0] if name.partition(".")[0] in parts]
    seen = set()
    for lane in completed:
        numbers = {name: lane[name] for name in names}
        if tuple(numbers.values()) not in seen:
            seen.add(tuple(numbers.values()))
            spec.make_environment(numbers)


def identity(spec: Spec, lane: Mapping[str, Any]) -> Any:
    """Returns what is equal for the same run and hashable, of a completed lane.

    Numbers are the same if they are as float32. An abrupt change (granularity 1) is the same
    whatever the transition and its fraction, and a part that is asked never to act is whatever its
    other numbers are.
    """
    numbers = {
        name: value if is_whole(name) else float(np.float32(value)) for name, value in lane.items()
    }
    periods = {name: v for name, v in {**dict(spec.options), **numbers}.items() if is_period(name)}
    idle = {name.partition(".")[0] for name, v in periods.items() if v == registry.LARGEST_WHOLE}
    for name in numbers:
        if name.partition(".")[0] in idle and name not in periods:
            numbers[name] = 0.0
    if lane["granularity"] == 1:
        spec = spec if spec.acts else _abrupt(spec)
        numbers["transition_fraction"] = 0.0
    return spec, tuple(sorted(numbers.items()))


@functools.lru_cache(maxsize=1024)
def _abrupt(spec: Spec) -> Spec:
    return dataclasses.replace(spec, transition="sampling")  # (which every environment allows)


def check_distinct(runs: Iterable[tuple[Spec, Sequence[Mapping[str, Any]]]]) -> None:
    """Raises ValueError if two completed lanes of Specs are the same run."""
    seen: dict[Any, tuple[Spec, Mapping[str, Any]]] = {}
    for spec, lanes in runs:
        for lane in lanes:
            before = seen.setdefault(identity(spec, lane), (spec, lane))
            if before[1] is lane:
                continue
            if before == (spec, lane):
                raise ValueError(
                    "a lane is given twice: allowed are lanes that differ in a number, e.g. in "
                    "their seed."
                )
            changed = {name: value for name, value in lane.items() if value != before[1][name]}
            if spec != before[0]:
                changed["transition"] = spec.transition
            listed = ", ".join(f"{name} {value}" for name, value in changed.items())
            raise ValueError(
                f"a lane with {listed} is the same run as one before it: allowed are lanes that "
                "differ as float32, with granularity 1 in more than the transition and its "
                "fraction, and with a part that never acts in more than its numbers."
            )


def listed(lanes: Any) -> list[Any]:
    """Returns lanes as a list. Raises ValueError for what is no sequence of lanes, or one of more
    than `MOST`.
    """
    if not registry.several(lanes):
        raise ValueError(
            f"lanes is {registry.shown(lanes)}: allowed is a list of lanes, as grid() makes."
        )
    found = list(itertools.islice(lanes, MOST + 1))
    if len(found) > MOST:
        raise ValueError(f"more than {MOST:,} lanes are given: allowed are at most so many.")
    return found


def check_steps(spec: Spec, samples: int) -> int:
    """Returns the steps of a task, those of the optimizer. Raises ValueError if there are none, or
    more than the clock counts.
    """
    steps = spec.phase_steps if spec.acts else _steps_of_epochs(spec, samples)
    most = registry.LARGEST_WHOLE  # (so many steps are "never")
    if steps >= most:
        raise ValueError(f"a task has {steps} steps: allowed are fewer than {most}.")
    updates = spec.make_agent().updates(steps) if spec.acts else steps
    if isinstance(spec.points, tuple):
        last = spec.points[-1]
        if last >= steps:
            raise ValueError(
                f"points lists step {last}, but a task has {steps} steps: allowed are 0 to "
                f"{steps - 1}."
            )
    elif spec.points > updates:
        raise ValueError(
            f"points is {spec.points}, but a task has {updates} steps: allowed are as many as "
            "steps."
        )
    if (spec.first_task + spec.tasks) * steps >= most:
        raise ValueError(
            f"{spec.first_task + spec.tasks} tasks have {(spec.first_task + spec.tasks) * steps} "
            f"steps: allowed are fewer than {most}."
        )
    return updates


def _steps_of_epochs(spec: Spec, samples: int) -> int:
    if spec.batch_size > samples:
        raise ValueError(
            f"batch_size is {spec.batch_size}: allowed is at most the number of samples, {samples}."
        )
    return order.steps_per_epoch(samples, spec.batch_size) * spec.epochs


def _limits(spec: Spec) -> dict[str, tuple[float | None, float | None]]:
    """The smallest and largest value allowed of each number of a lane, None for any."""
    limits: dict[str, tuple[float | None, float | None]] = dict(LIMITS)
    for part, factory in spec.parts().items():
        limits |= {f"{part}.{number}": both for number, both in registry.bounds(factory).items()}
    return limits


def arrays(spec: Spec, lane: Mapping[str, Any]) -> dict[str, jax.Array]:
    """Returns every number of a lane as an array [], the defaults filled in, int32 for seed and
    granularity, else float32.

    For pure functions, whose lane may be traced: then only its names and shapes are checked. Raises
    ValueError, one sentence, as `check` does.
    """
    numbers = defaults(spec)
    check_names(numbers, lane)
    limits = _limits(spec)
    for name, value in lane.items():
        if getattr(value, "ndim", 0):
            raise ValueError(
                f"{name} has shape {list(value.shape)}: allowed is one number, or what stack() "
                "makes inside jax.vmap."
            )
        if registry.is_traced(value):
            numbers[name] = value
            continue
        numbers[name] = _read(name, value)
        _within(name, numbers[name], *limits[name])
    return {
        name: jnp.asarray(value, jnp.int32 if is_whole(name) else jnp.float32)
        for name, value in numbers.items()
    }


def _within(name: str, value: float, low: float | None, high: float | None) -> None:
    if (low is not None and value < low) or (high is not None and value > high):
        allowed = f"{low} or more" if high is None else f"{low} to {high}"
        raise ValueError(f"{name} is {value}: allowed is {allowed}.")


def stack(lanes: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Returns lanes with the same names as arrays with a leading lane axis, int32 for seed and
    granularity, else float32.

    Raises ValueError if there are no lanes, or they have other names, or something in them is no
    number.

    >>> lanes = pj.stack(pj.grid(granularity=[1, 20], seed=range(2)))
    >>> lanes["granularity"].tolist(), lanes["seed"].tolist()
    ([1, 1, 20, 20], [0, 1, 0, 1])
    """
    lanes = listed(lanes)
    if not lanes:
        raise ValueError("there are no lanes: give at least one, e.g. grid(seed=range(5)).")
    for lane in lanes:
        check_names(lanes[0], lane)
        if len(lane) < len(lanes[0]):
            missing = next(name for name in lanes[0] if name not in lane)
            raise ValueError(f"a lane lacks {missing}: allowed are lanes with the same numbers.")
    made = []
    for lane in lanes:
        read = {name: _read(name, value) for name, value in lane.items()}
        for name in LIMITS.keys() & read.keys():
            _within(name, read[name], *LIMITS[name])
        made.append(read)
    arrays = {}
    for name in made[0]:
        kind = np.int32 if is_whole(name) else np.float32
        arrays[name] = np.asarray([lane[name] for lane in made], kind)
    return arrays
