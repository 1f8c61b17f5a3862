"""The tidy table of a run, from the programs and what they measured."""

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from plasticity_jax.execution.program import History, Program
from plasticity_jax.reporting import labels
from plasticity_jax.reporting import metrics as metrics_
from plasticity_jax.reporting.statistics import STAGE
from plasticity_jax.spec import Spec
from plasticity_jax.training.supervised import POINTS
from plasticity_jax.types import one_after_another

if TYPE_CHECKING:
    import pandas


def arm_columns(programs: Sequence[Program]) -> list[str]:
    """Returns the columns of the table that tell arms apart: axes, numbers but for the seed,
    options that are given, and other fields that not all programs have alike.
    """
    axes: dict[str, None] = {}
    numbers: dict[str, None] = {}
    options: dict[str, None] = {}
    fields: dict[str, set[Any]] = {}
    for program in programs:
        axes |= dict.fromkeys(program.spec.axes())
        numbers |= dict.fromkeys(name for name in program.lanes[0] if name != "seed")
        options |= dict.fromkeys(name for name, _ in program.spec.options)
        # (how the network was changed is told even where it is the usual way)
        own = f"{program.spec.surgery}."
        options |= dict.fromkeys(n for n in program.spec.known_options() if n.startswith(own))
        for name in program.spec.fields():
            fields.setdefault(name, set()).add(getattr(program.spec, name))
    several = [name for name, values in fields.items() if len(values) > 1]
    return [*axes, *numbers, *options, *several]


Numbers = Sequence[Sequence[int]] | None
"""The numbers of each program's lanes in the table; None: numbered through all programs."""


def table(
    programs: Sequence[Program],
    histories: Sequence[History],
    numbers: Numbers = None,
    first: int = 0,
) -> "pandas.DataFrame":
    """Returns the tidy results: one row per lane and task done, in the order of the lanes' numbers;
    of tasks from `first` on.

    Columns: lane, task, seed, then, where tasks come back or have parts, `task_number` and `part`:
    which task it is and which part of it. Then what tells arms apart (`arm_columns`; empty where a
    lane has no such number) and whatever else decides a row (`Spec.settings`), then metrics and
    probes. `finite` is false from the first task on at whose end a lane's parameters, what its
    optimizer or norms remember, logits or losses were not finite; it has no measurement there. The
    table carries along what is known of its metrics (see `metrics`).
    """
    whole = unordered(programs, histories, numbers, first)
    return arranged(whole, programs) if any(histories) else whole


def unordered(
    programs: Sequence[Program],
    histories: Sequence[History],
    numbers: Numbers = None,
    first: int = 0,
) -> "pandas.DataFrame":
    """Returns the rows of `table` with its columns in any order, and nothing of its metrics."""
    import pandas

    frames = []
    for own, program, history in zip(
        _numbered(programs, numbers), programs, histories, strict=True
    ):
        if history:
            columns = _settings(program, history, own, first) | _measured(history, first)
            frames.append(pandas.DataFrame(columns))
    if not frames:
        return pandas.DataFrame(columns=["lane", "task", "seed"])
    whole = pandas.concat(frames, ignore_index=True)
    if numbers is not None:
        whole = whole.sort_values("lane", kind="stable", ignore_index=True)
    return whole


def arranged(whole: "pandas.DataFrame", programs: Sequence[Program]) -> "pandas.DataFrame":
    """Returns a table of programs' rows with its columns in order, and what is known of its
    metrics.
    """
    known = setting_columns(programs)
    measured = _in_order([name for name in whole.columns if name not in known], programs)
    # (a program that has no rows yet may be the only one with a number or an option)
    whole = whole.reindex(columns=[*known, *measured])
    whole.attrs[metrics_.KEY] = metrics_.record([program.spec for program in programs])
    return whole


def setting_columns(programs: Sequence[Program]) -> list[str]:
    """Returns the columns of the table that say what a row is, in order."""
    found = ["lane", "task", "seed", *_staged(programs), *arm_columns(programs)]
    for program in programs:
        found += program.spec.settings()
    return list(dict.fromkeys(found))


def _numbered(programs: Sequence[Program], numbers: Numbers) -> list[np.ndarray]:
    """The numbers of each program's lanes."""
    if numbers is not None:
        return [np.asarray(own) for own in numbers]
    found, first = [], 0
    for program in programs:
        found.append(np.arange(first, first + len(program.lanes)))
        first += len(program.lanes)
    return found


def _settings(program: Program, history: History, own: np.ndarray, first: int) -> dict[str, Any]:
    """What the rows of a program are, lane after lane."""
    lanes, done = len(program.lanes), np.arange(first, len(history["finite"]))
    columns = of_lanes(program, own)
    for name, values in columns.items():
        if isinstance(values, np.ndarray):
            columns[name] = np.repeat(values, len(done))
    return {**columns, "task": np.tile(done, lanes), **_stages(program.spec, done, lanes)}


def of_lanes(program: Program, own: np.ndarray) -> dict[str, Any]:
    """Returns what the lanes of a program are by column, apart from any task: an array [lanes], or
    one value for all of them; `own` are their numbers.
    """
    numbers = {}
    for name in program.lanes[0]:
        numbers[name] = np.asarray([lane[name] for lane in program.lanes])
    return {"lane": own, **program.spec.axes(), **numbers, **program.spec.settings()}


def of_programs(programs: Sequence[Program], numbers: Numbers = None) -> "pandas.DataFrame":
    """Returns a row for each lane of programs, as `of_lanes`."""
    import pandas

    numbered = zip(programs, _numbered(programs, numbers), strict=True)
    frames = [pandas.DataFrame(of_lanes(program, own)) for program, own in numbered]
    return pandas.concat(frames, ignore_index=True)


def arm_names(programs: Sequence[Program], numbers: Numbers = None) -> dict[int, str]:
    """Returns what the arm of each lane is called, by the lane's number."""
    lanes = of_programs(programs, numbers)
    return dict(zip(lanes["lane"], labels.of_rows(lanes, arm_columns(programs)), strict=True))


def again(
    table: "pandas.DataFrame", programs: Sequence[Program], numbers: Sequence[Sequence[int]]
) -> "pandas.DataFrame":
    """Returns a table with the settings of its lanes as the programs have them now.

    Raises ValueError if it has lanes that the programs have not.
    """
    lanes = of_programs(programs, numbers)
    measured = [c for c in table if c in ("lane", "task") or c not in lanes]
    whole = table[measured].merge(lanes, on="lane", validate="many_to_one")
    if len(whole) < len(table):
        raise ValueError("it has lanes that config.json does not have")
    return whole


def _measured(history: History, first: int) -> dict[str, np.ndarray]:
    """What the rows of a program measured, lane after lane."""
    single = {name: values[first:] for name, values in history.items() if values.ndim == 2}
    before = history["finite"][:first].all(axis=0)
    single["finite"] = before & np.logical_and.accumulate(single["finite"])
    return {name: values.ravel(order="F") for name, values in single.items()}


def _in_order(columns: Sequence[str], programs: Sequence[Program]) -> list[str]:
    """Columns of measurements: metrics, then probes in the order of the Specs."""
    probes: list[str] = []
    for program in programs:
        probes += program.spec.probes

    def place(column: str) -> int:
        probe = column.partition("/")[0]
        return probes.index(probe) if probe in probes else -1

    return sorted(columns, key=place)


def _staged(programs: Sequence[Program]) -> list[str]:
    """The columns that say which task it is, where that is not its place in the run."""
    staged = any(_stages(program.spec, np.arange(1), 1) for program in programs)
    return list(STAGE) if staged else []


def _stages(spec: Spec, done: np.ndarray, lanes: int) -> dict[str, np.ndarray]:
    """{column: [lanes * tasks]} of tasks `done`, of a Spec whose tasks come back or have parts; {}
    of others.
    """
    environment = spec.make_environment()
    if environment.schedule is one_after_another:
        return {}
    first = spec.first_task
    stages = [environment.schedule(first + number) for number in map(int, done)]
    number, part = STAGE
    return {
        number: np.tile([int(stage.task) for stage in stages], lanes),
        part: np.tile([int(stage.part) for stage in stages], lanes),
    }


def arrays(
    programs: Sequence[Program], histories: Sequence[History], numbers: Numbers = None
) -> dict[str, np.ndarray]:
    """Returns {probe: [tasks, lanes, K]} of probes that measure several numbers, lanes numbered as
    in the table; NaN where a lane has no such task or probe yet.
    """
    own = _numbered(programs, numbers)
    return _stacked(own, histories, lambda name: not name.startswith(POINTS))


def points(
    programs: Sequence[Program], histories: Sequence[History], numbers: Numbers = None
) -> "pandas.DataFrame | None":
    """Returns the values within tasks: a row for each lane, task and part of its steps.

    Columns: lane, task, seed, point (the part of the task's steps, from 0), then the means over it;
    where `points` lists steps: point, the number of steps done, then what the minibatch of that
    step scored and what the probes of the end measured. None if none were asked for.
    """
    import pandas

    own = _numbered(programs, numbers)
    found = _stacked(own, histories, lambda name: name.startswith(POINTS))
    if not found:
        return None
    tasks, lanes, count = next(iter(found.values())).shape
    task, lane, point = np.indices((tasks, lanes, count)).reshape(3, -1)
    whole = itertools.chain.from_iterable(program.lanes for program in programs)
    seeds = np.array([lane["seed"] for lane in whole])
    seeds[np.concatenate(own)] = seeds.copy()
    steps = np.tile(np.arange(count), (lanes, 1))
    for program, numbered in zip(programs, own, strict=True):
        chosen = program.spec.steps_of_points
        steps[numbered, : len(chosen)] = chosen
    columns = {"lane": lane, "task": task, "seed": seeds[lane], "point": steps[lane, point]}
    means = {name.removeprefix(POINTS): values.reshape(-1) for name, values in found.items()}
    table = pandas.DataFrame(columns | means).dropna(subset=list(means), how="all")
    return table.sort_values(["lane", "task", "point"], ignore_index=True)


def _stacked(
    numbers: Sequence[np.ndarray], histories: Sequence[History], wanted: Callable[[str], bool]
) -> dict[str, np.ndarray]:
    """{name: [tasks, lanes, K]} of what is measured as several numbers, over all programs."""
    parts: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for own, history in zip(numbers, histories, strict=True):
        for name, values in history.items():
            if values.ndim == 3 and wanted(name):
                parts.setdefault(name, []).append((own, values))
    tasks = max((len(history["finite"]) for history in histories if history), default=0)
    lanes = sum(map(len, numbers))
    return {name: filled(placed, tasks, lanes) for name, placed in parts.items()}


def filled(placed: Sequence[tuple[np.ndarray, np.ndarray]], tasks: int, lanes: int) -> np.ndarray:
    """Returns [tasks, lanes, K] from programs' values [tasks, lanes, K], each with the numbers of
    its lanes; NaN where there is none.
    """
    most = max(values.shape[2] for _, values in placed)
    whole = np.full((tasks, lanes, most), np.nan, np.float32)
    for own, values in placed:
        done, _, width = values.shape
        whole[:done, own, :width] = values
    return whole
