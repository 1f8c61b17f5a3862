"""The tidy table of a run, from the programs and what they measured."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from plasticity_jax.execution.program import History, Program
from plasticity_jax.reporting import metrics as metrics_
from plasticity_jax.reporting.statistics import STAGE
from plasticity_jax.spec import Spec
from plasticity_jax.training.supervised import POINTS
from plasticity_jax.types import one_after_another

if TYPE_CHECKING:
    import pandas


def arm_columns(programs: Sequence[Program]) -> list[str]:
    """Returns the columns of the table that say what a lane is, apart from its seed."""
    axes = dict.fromkeys(name for p in programs for name in p.spec.axes())
    numbers = dict.fromkeys(name for p in programs for name in p.lanes[0] if name != "seed")
    options = dict.fromkeys(name for p in programs for name, _ in p.spec.options)
    return [*axes, *numbers, *options]


def table(programs: Sequence[Program], histories: Sequence[History]) -> "pandas.DataFrame":
    """Returns the tidy results: one row per lane and task done, lanes numbered through all
    programs.

    Columns: lane, task, seed, then, where tasks come back or have parts, `task_number` and `part`:
    which task it is and which part of it. Then what the lane is (`arm_columns`; empty where a lane
    has no such number), then metrics and probes. `finite` is false from the first task on at whose end a lane's
    parameters, logits or losses were not finite; it has no measurement there. The table carries
    along what is known of its metrics (see `metrics`).
    """
    import pandas

    known = ["lane", "task", "seed", *_staged(programs), *arm_columns(programs)]
    frames, first = [], 0
    for program, history in zip(programs, histories, strict=True):
        count = len(program.lanes)
        if history:
            done = len(history["finite"])
            options = {**program.spec.known_options(), **dict(program.spec.options)}
            numbers = {
                k: np.repeat([lane[k] for lane in program.lanes], done) for k in program.lanes[0]
            }
            measured = {name: values for name, values in history.items() if values.ndim == 2}
            measured["finite"] = np.logical_and.accumulate(history["finite"])
            columns = {
                "lane": np.repeat(np.arange(first, first + count), done),
                "task": np.tile(np.arange(done), count),
                "seed": numbers["seed"],
                **_stages(program.spec, done, count),
                **program.spec.axes(),
                **numbers,
                **{k: v for k, v in options.items() if k in known},
                # lane after lane
                **{name: values.ravel(order="F") for name, values in measured.items()},
            }
            frames.append(pandas.DataFrame(columns))
        first += count
    if not frames:
        return pandas.DataFrame(columns=["lane", "task", "seed"])
    whole = pandas.concat(frames, ignore_index=True)
    probes = [probe for p in programs for probe in p.spec.probes]
    # settings, then metrics, then probes in the order of the Spec
    rest = [c for c in whole.columns if c not in known]
    rest.sort(
        key=lambda c: probes.index(c.partition("/")[0]) if c.partition("/")[0] in probes else -1
    )
    # (a program that has no rows yet may be the only one with a number or an option)
    whole = whole.reindex(columns=[*known, *rest])
    whole.attrs[metrics_.KEY] = metrics_.record([p.spec for p in programs])
    return whole


def _staged(programs: Sequence[Program]) -> list[str]:
    """The columns that say which task it is, where that is not its place in the run."""
    return list(STAGE) if any(_stages(p.spec, 1, 1) for p in programs) else []


def _stages(spec: Spec, done: int, lanes: int) -> dict[str, np.ndarray]:
    """{column: [lanes * done]} of a Spec whose tasks come back or have parts, {} of others."""
    environment = spec.make_environment()
    if environment.schedule is one_after_another:
        return {}
    stages = [environment.schedule(number) for number in range(done)]
    number, part = STAGE
    return {
        number: np.tile([int(stage.task) for stage in stages], lanes),
        part: np.tile([int(stage.part) for stage in stages], lanes),
    }


def arrays(programs: Sequence[Program], histories: Sequence[History]) -> dict[str, np.ndarray]:
    """Returns {probe: [tasks, lanes, K]} of probes that measure several numbers, lanes numbered as
    in the table; NaN where a lane has no such task or probe yet.
    """
    return _stacked(programs, histories, lambda name: not name.startswith(POINTS))


def points(programs: Sequence[Program], histories: Sequence[History]) -> "pandas.DataFrame | None":
    """Returns the values within tasks: a row for each lane, task and part of its steps.

    Columns: lane, task, seed, point (the part of the task's steps, from 0), then the means
    over it. None if none were asked for.
    """
    import pandas

    found = _stacked(programs, histories, lambda name: name.startswith(POINTS))
    if not found:
        return None
    tasks, lanes, count = next(iter(found.values())).shape
    task, lane, point = np.indices((tasks, lanes, count)).reshape(3, -1)
    seeds = np.array([lane["seed"] for p in programs for lane in p.lanes])
    columns = {"lane": lane, "task": task, "seed": seeds[lane], "point": point}
    columns |= {name.removeprefix(POINTS): v.reshape(-1) for name, v in found.items()}
    table = pandas.DataFrame(columns).dropna(subset=[name.removeprefix(POINTS) for name in found])
    return table.sort_values(["lane", "task", "point"], ignore_index=True)


def _stacked(
    programs: Sequence[Program], histories: Sequence[History], wanted: Callable[[str], bool]
) -> dict[str, np.ndarray]:
    """{name: [tasks, lanes, K]} of what is measured as several numbers, over all programs."""
    done = max((len(history["finite"]) for history in histories if history), default=0)
    total, first = sum(len(p.lanes) for p in programs), 0
    found: dict[str, np.ndarray] = {}
    for program, history in zip(programs, histories, strict=True):
        for name, values in history.items():
            if values.ndim == 3 and wanted(name):
                most = max(values.shape[2], found[name].shape[2] if name in found else 0)
                whole = np.full((done, total, most), np.nan, np.float32)
                if name in found:
                    whole[..., : found[name].shape[2]] = found[name]
                whole[: len(values), first : first + len(program.lanes), : values.shape[2]] = values
                found[name] = whole
        first += len(program.lanes)
    return found
