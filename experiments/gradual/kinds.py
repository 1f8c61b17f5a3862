"""The kinds of figures of Liu & Mou: abrupt change with every method beside gradual change with
none, and one change at every granularity.

Controls are ours, and tell what in a gradual change helps: see the README's table of controls.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments import selection
from experiments.benchmark import Benchmark
from experiments.figures import Choices, Figure, Kind
from experiments.gradual.settings import METHODS, Changes
from plasticity_jax.cli import settings
from plasticity_jax.cli.settings import Setting
from plasticity_jax.stream import transitions

Arm = dict[str, Setting]


def _by_method(figure: Figure, choices: Choices) -> list[Arm]:
    """Returns the abrupt arms of every method, the gradual arms of none, and controls if wanted.

    Raises ValueError for a selection that cannot be read or does not fit, a flag that an arm of it
    has as well, controls that these settings leave no room for, or what a published comparison
    lacks.
    """
    benchmark, changes = figure.benchmark, figure.benchmark.recipe
    methods = choices.methods or METHODS
    selected = _selected(benchmark, choices, [*methods, *changes.transitions])
    abrupt, gradual = _abrupt(benchmark, choices, selected), _gradual(changes, selected)
    arms = []
    for method in methods:
        with_method = {"method": method, **selected.get(method, {})}
        arms.append(abrupt if method == "none" else {**_plain(changes, 1), **with_method})
    arms += gradual
    if choices.controls:
        arms += _controls(_values(benchmark, choices), abrupt, gradual[0])
    return _published(arms, benchmark, choices)


def _by_granularity(figure: Figure, choices: Choices) -> list[Arm]:
    """Returns the abrupt arm and the first transition at every other granularity, and if controls
    are wanted at the finest there is: a plateau for every step of the transition.

    Raises ValueError as `_by_method` does, and for methods.
    """
    benchmark, changes = figure.benchmark, figure.benchmark.recipe
    if choices.methods not in (None, METHODS):
        raise ValueError(
            f"methods is {settings.text(choices.methods)!r}, but figure {figure.name} compares "
            "granularities: leave it out."
        )
    selected = _selected(benchmark, choices, ["none", changes.transitions[0]])
    abrupt, (gradual, *_) = _abrupt(benchmark, choices, selected), _gradual(changes, selected)
    grid = _granularities(benchmark, choices)
    finer = tuple(k for k in grid if k != 1)
    arms = [abrupt] if 1 in grid else []
    if finer:
        arms.append({**gradual, "granularity": finer})
    if choices.controls:
        arms.append({**gradual, "granularity": _finest(_values(benchmark, choices))})
    return _published(arms, benchmark, choices)


def _plain(changes: Changes, granularity: int) -> Arm:
    return {"method": "none", "transition": changes.transitions[0], "granularity": granularity}


def _abrupt(benchmark: Benchmark[Changes], choices: Choices, selected: selection.Chosen) -> Arm:
    """The abrupt arm without method; in a published comparison its optimizer may be reset."""
    changes = benchmark.recipe
    published = changes.published.abrupt if choices.as_published else {}
    return {**_plain(changes, 1), **selected.get("none", {}), **published}


def _gradual(changes: Changes, selected: selection.Chosen) -> list[Arm]:
    """The arm without method of each transition."""
    return [
        {"method": "none", "transition": transition, **selected.get(transition, {})}
        for transition in changes.transitions
    ]


def _selected(
    benchmark: Benchmark[Changes], choices: Choices, arms: Sequence[str]
) -> selection.Chosen:
    """What was chosen for each of the arms; nothing if there is no selection."""
    if choices.selection is None:
        return {}
    values = _values(benchmark, choices)
    selected = selection.read(choices.selection, benchmark.name, choices.scale, values, arms)
    for name, value in sorted(choices.given.items()):
        if any(name in selected[arm] for arm in arms):
            raise ValueError(
                f"{name} is {settings.text(value)!r}, but {choices.selection} has its own: leave "
                "one of them out."
            )
    return selected


def _granularities(benchmark: Benchmark[Changes], choices: Choices) -> tuple[int, ...]:
    """Those given, else the benchmark's; on the smoke scale none finer than its own."""
    if "granularity" in choices.given:
        return _listed(choices.given["granularity"])
    grid = benchmark.recipe.granularities
    if choices.scale == "smoke":
        grid = tuple(k for k in grid if k <= benchmark.at("smoke")["granularity"])
    return grid


def _listed(value: Any) -> tuple[Any, ...]:
    """The values of a setting, which may have only one."""
    return value if isinstance(value, tuple) else (value,)


def _values(benchmark: Benchmark[Changes], choices: Choices) -> dict[str, Any]:
    """The settings of all arms, flags included."""
    return {**_defaults(benchmark, choices), **choices.given}


def _single(values: Mapping[str, Any], name: str) -> Any:
    """The value of a setting. Raises ValueError if there are several."""
    if isinstance(values[name], tuple):
        raise ValueError(
            f"{name} is {settings.text(values[name])!r}: allowed with controls is one value."
        )
    return values[name]


def _controls(values: Mapping[str, Any], abrupt: Arm, gradual: Arm) -> list[Arm]:
    """The control arms of a figure by method.

    Args:
      values: settings of all arms.
      abrupt, gradual: the arms without method that they are compared with.
    """
    epochs, share = _single(values, "epochs"), _single(values, "transition_fraction")
    unchanging = {f"{_single(values, 'environment')}.change": False}
    changing = round(epochs * share)
    if not 0 < changing < epochs:
        raise ValueError(
            f"transition_fraction is {settings.text(share)} of {epochs} epochs: allowed with "
            "controls is a share that leaves an epoch for the change and one for the stable phase."
        )
    arms = [
        # the gradual epochs without the stable phase
        {**gradual, "transition_fraction": 1.0, "epochs": changing},
        {**abrupt, "epochs": epochs - changing},  # the stable phase alone
        {**gradual, **unchanging},  # the gradual schedule on a task that does not change
        {**abrupt, **unchanging},
    ]
    if gradual["transition"] == "output":
        arms.append({**gradual, "transition": "smoothing"})  # soft targets without interpolation
    return arms


def _finest(values: Mapping[str, Any]) -> int:
    """The granularity of a plateau for every step of the transition."""
    steps = _single(values, "epochs") * (values["samples"] // values["batch_size"])
    share = np.float32(_single(values, "transition_fraction"))
    return int(transitions.transition_steps(share, steps))


def _published(arms: list[Arm], benchmark: Benchmark[Changes], choices: Choices) -> list[Arm]:
    """The arms as the public code has them, if that is wanted."""
    if not choices.as_published:
        return arms
    published, given = benchmark.recipe.published, choices.given
    for flag, what in published.needs.items():
        if flag not in given:
            raise ValueError(f"as_published is given without {flag}: name {what} with --{flag}=.")
    different = {**published.gradual, **{flag: given[flag] for flag in _pretrained(benchmark)}}
    # (steps of output interpolation are of half the way)
    twice = {"granularity": 2 * benchmark.at(choices.scale)["granularity"]}
    made = []
    for arm in arms:
        own = {} if arm.get("granularity") == 1 else different
        halves = arm["transition"] in ("output", "smoothing")
        if halves and "granularity" not in arm and "granularity" not in given:
            own = {**own, **twice}
        made.append({**arm, **own})
    return made


def _pretrained(benchmark: Benchmark[Changes]) -> set[str]:
    """The flags of a published comparison that name a network which the gradual arms start from."""
    return {flag for flag in benchmark.recipe.published.needs if flag.endswith(".pretrained")}


def _defaults(benchmark: Benchmark[Changes], choices: Choices) -> dict[str, Any]:
    published = benchmark.recipe.published.every if choices.as_published else {}
    return {**benchmark.at(choices.scale), **published}


def _taken(benchmark: Benchmark[Changes], choices: Choices) -> set[str]:
    return _pretrained(benchmark) if choices.as_published else set()


def _taken_with_granularity(benchmark: Benchmark[Changes], choices: Choices) -> set[str]:
    return {"granularity", *_taken(benchmark, choices)}


def _remarks(figure: Figure, choices: Choices, table: Any) -> list[str]:
    """What a published comparison has other in some arms than in others."""
    if not choices.as_published:
        return []
    published = figure.benchmark.recipe.published
    said = []
    other = {**published.gradual, **dict.fromkeys(_pretrained(figure.benchmark), "given")}
    if other and (table["granularity"] > 1).any():
        listed = ", ".join(f"{name} {settings.text(value)}" for name, value in other.items())
        said.append(f"Gradual arms have {listed}.")
    if published.abrupt.get("method") in set(table["method"]):
        said.append("The abrupt arm resets its optimizer.")
    return said


def _remarks_by_method(figure: Figure, choices: Choices, table: Any) -> list[str]:
    """As `_remarks`, and whether output interpolation has other steps than task sampling."""
    said = _remarks(figure, choices, table)
    output = table[(table["granularity"] > 1) & (table["transition"] == "output")]
    usual = _listed(_values(figure.benchmark, choices)["granularity"])
    if choices.as_published and set(output["granularity"]) == {2 * k for k in usual}:
        said.append(
            "Output interpolation has twice the granularity, as steps of 0.05 of each half of its "
            "way."
        )
    return said


def _controls_by_method(figure: Figure, choices: Choices, table: Any) -> Any:
    """Which rows are of arms that `_controls` adds, [rows] bool."""
    values = _values(figure.benchmark, choices)
    control = (table["epochs"] != values["epochs"]) | (table["transition"] == "smoothing")
    change = f"{values['environment']}.change"
    return control | (table[change] == False) if change in table else control  # noqa: E712


BY_METHOD = Kind(
    _by_method,
    _defaults,
    _taken,
    _remarks_by_method,
    told=("granularity",),
    controls=_controls_by_method,
)
BY_GRANULARITY = Kind(_by_granularity, _defaults, _taken_with_granularity, _remarks)
