"""Results of several workdirs in one table: the lanes that a figure asks for, each from the run that has it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plasticity_jax import lanes as lanes_
from plasticity_jax import results
from plasticity_jax.spec import Spec
from plasticity_jax.workdir import WorkdirError, reason_of

if TYPE_CHECKING:
    import pandas

Runs = Sequence[tuple[Spec, Sequence[Mapping[str, Any]]]]


def collect(workdirs: Sequence[str | Path], runs: Runs) -> "pandas.DataFrame":
    """Returns the tidy table of the lanes of `runs`, numbered in their order, each from the first workdir that has it.

    A lane is found by everything that decides its numbers: the whole Spec and all of the lane's numbers.
    Raises WorkdirError if a folder is no workdir with results, or none has a lane (the first one missing is named).
    """
    import pandas

    found: dict[str, pandas.DataFrame] = {}
    for workdir in workdirs:
        for key, rows in _lanes(Path(workdir)).items():
            found.setdefault(key, rows)
    wanted = [(spec, lanes_.complete(spec, lane)) for spec, given in runs for lane in given]
    keys = [_key(spec.record(), lane) for spec, lane in wanted]
    missing = [number for number, key in enumerate(keys) if key not in found]
    if missing:
        raise WorkdirError(
            f"{' nor '.join(map(str, workdirs))} lacks {len(missing)} of the {len(wanted)} lanes asked for, "
            f"the first of them {_named(*wanted[missing[0]])}: "
            "allowed are runs made with the same settings; give those settings as flags, or run them."
        )
    # (a table from before an axis existed lacks its column)
    parts = [found[key].assign(lane=n, **wanted[n][0].axes()) for n, key in enumerate(keys)]
    return pandas.concat(parts, ignore_index=True)


def _lanes(workdir: Path) -> dict[str, "pandas.DataFrame"]:
    """The rows of each lane in a workdir by its key."""
    try:
        programs = json.loads((workdir / "config.json").read_text(encoding="utf-8"))["settings"]["programs"]
        table = results.read(workdir / "results.parquet")
        keys = [_key(program["spec"], lane) for program in programs for lane in program["lanes"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WorkdirError(f"{workdir} is not a workdir with results ({reason_of(error)}).") from error
    rows = dict(list(table.groupby("lane")))
    return {key: rows[number] for number, key in enumerate(keys) if number in rows}


def _key(spec: Mapping[str, Any], lane: Mapping[str, Any]) -> str:
    return json.dumps([spec, lane], sort_keys=True)


def _named(spec: Spec, lane: Mapping[str, Any]) -> str:
    words = {
        "dataset": spec.dataset,
        "samples": spec.samples,
        "tasks": spec.tasks,
        "epochs": spec.epochs,
        "model": spec.model,
        "width": spec.width,
        "method": spec.method,
        "transition": spec.transition,
        **lane,
    }
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in words.items()
    )
