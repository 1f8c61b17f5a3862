"""The tidy table of a run, from the programs and what they measured."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from plasticity_jax.reporting import metrics as metrics_

if TYPE_CHECKING:
    import pandas
from plasticity_jax.execution.program import History, Program


def arm_columns(programs: Sequence[Program]) -> list[str]:
    """Returns the columns of the table that say what a lane is, apart from its seed."""
    axes = dict.fromkeys(name for p in programs for name in p.spec.axes())
    numbers = dict.fromkeys(name for p in programs for name in p.lanes[0] if name != "seed")
    options = dict.fromkeys(name for p in programs for name, _ in p.spec.options)
    return [*axes, *numbers, *options]


def table(programs: Sequence[Program], histories: Sequence[History]) -> "pandas.DataFrame":
    """Returns the tidy results: one row per lane and task done, lanes numbered through all
    programs.

    Columns: lane, task, seed, what the lane is (`arm_columns`; empty where a lane has no such
    number), then metrics and probes. `finite` is false from the first task on at whose end a lane's
    parameters, logits or losses were not finite; it has no measurement there. The table carries
    along what is known of its metrics (see `metrics`).
    """
    import pandas

    known = ["lane", "task", "seed", *arm_columns(programs)]
    frames, first = [], 0
    for program, history in zip(programs, histories, strict=True):
        count = len(program.lanes)
        if history:
            done = len(history["finite"])
            options = {**program.spec.known_options(), **dict(program.spec.options)}
            numbers = {
                k: np.repeat([lane[k] for lane in program.lanes], done) for k in program.lanes[0]
            }
            measured = {**history, "finite": np.logical_and.accumulate(history["finite"])}
            columns = {
                "lane": np.repeat(np.arange(first, first + count), done),
                "task": np.tile(np.arange(done), count),
                "seed": numbers["seed"],
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
