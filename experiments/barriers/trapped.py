"""Which trap a run's networks are nearest to in the end, clones or frozen units, in which layer,
how near, whether the loss holds it there, and since which task.

Source: ours; of any finished run with --probes=trap.
Command: python -m experiments.barriers.trapped --from=DIR [--workdir=DIR]
Rule: of clones, the layer whose nearest two units have the smallest relative distance; it is held
where the loss is curved towards the clone (`trap/curvature` above 0). Of frozen units, the layer
with the unit that is flat on most inputs; and, where the run has `trap/frozen_distance`, the one
whose unit has the smallest, which is on the scale of clones, so that one of the two is the nearer
trap. *Since* is the first task from which on it was this layer
to the end; *held since* likewise of the curvature's sign.
Writes: trapped.csv, a row for each lane, into --workdir where it is given; prints a row for each
arm and nearest layer, medians over lanes.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import accounts
from plasticity_jax.cli import flags, launcher
from plasticity_jax.reporting import statistics
from plasticity_jax.storage import paths, workdir, writing
from plasticity_jax.storage import table as table_

PLACE, FROZEN = "trap/layer", "trap/frozen_layer"
DETAILS = (PLACE, FROZEN, "trap/curvature", "trap/frozen")
TRAPS = {"clone": "that of clones", "frozen": "that of frozen units"}
LATER = ("trap/manifold", "trap/frozen_distance")  # columns that older runs lack


def since(values: np.ndarray) -> int:
    """Returns the first place of [tasks] values from which on they are all as the last one."""
    other = np.flatnonzero(values != values[-1])
    return int(other[-1]) + 1 if len(other) else 0


def of_lane(rows: Any) -> dict[str, Any]:
    """Returns what is said of a lane, of its rows in the order of tasks."""
    tasks, last = rows["task"].to_numpy(), rows.iloc[-1]
    held = rows["trap/curvature"].to_numpy() > 0
    layers = [
        name
        for name in rows
        if name.startswith("trap/") and name not in DETAILS and not name.startswith(LATER)
    ]
    nearest = rows[layers].astype(float).idxmin(axis=1).to_numpy()
    frozen = rows[FROZEN].to_numpy()
    return {
        "layer": str(nearest[-1]).removeprefix("trap/"),
        "distance": float(last["trap"]),
        "since": int(tasks[since(nearest)]),
        "held": bool(held[-1]),
        "held_since": int(tasks[since(held)]),
        "frozen_layer": int(frozen[-1]),
        "not_flat": float(last["trap/frozen"]),
        "frozen_since": int(tasks[since(frozen)]),
        **_nearer(rows, tasks),
    }


def _nearer(rows: Any, tasks: np.ndarray) -> dict[str, Any]:
    """Which of the two traps is nearer, where a run measured that."""
    if LATER[0] not in rows:
        return {}
    manifold, distance = (rows[name].to_numpy() for name in LATER)
    names = [name for name in rows if name.startswith(f"{LATER[1]}/")]
    nearest = rows[names].astype(float).fillna(np.inf).idxmin(axis=1).to_numpy()
    return {
        "nearer": "frozen" if manifold[-1] else "clone",
        "nearer_since": int(tasks[since(manifold)]),
        "frozen_distance": float(distance[-1]),
        "frozen_nearest": str(nearest[-1]).removeprefix(f"{LATER[1]}/"),
        "frozen_nearest_since": int(tasks[since(nearest)]),
    }


def of_table(table: Any) -> Any:
    """Returns what is said of each lane of a table, with its arm and seed; lanes that ended in
    numbers that are not finite are left out.

    Raises ValueError for a table without the probe, or in which no lane is left.
    """
    import pandas as pd

    missing = [name for name in ("trap", *DETAILS) if name not in table]
    if missing:
        raise ValueError(f"the run lacks {missing[0]}: allowed are runs with --probes=trap.")
    settings = accounts.differing(table)
    labels = statistics.arm_labels(table, settings)
    found = []
    arms: Any = statistics.arms(table, settings).rows
    for label, rows in zip(labels, arms, strict=True):
        measured = rows[rows["trap"].notna()]
        for seed, lane in measured.groupby("seed"):
            if lane["task"].max() == rows["task"].max():
                found.append({"arm": label, "seed": seed, **of_lane(lane)})
    if not found:
        raise ValueError("trap is not finite in the end of any lane: allowed are others.")
    return pd.DataFrame(found)


def told(found: Any) -> str:
    """Returns a line for each arm and nearest layer: lanes, how many are held, medians."""
    lines = []
    for (arm, layer), rows in found.groupby(["arm", "layer"], sort=False):
        middle = rows[["distance", "since", "not_flat"]].median()
        lines.append(
            f"{arm}: clones nearest in {layer} ({len(rows)} lanes), at {middle['distance']:.3g} "
            f"since task {middle['since']:g}, held in {int(rows['held'].sum())}; nearest to "
            f"frozen, a unit that is not flat on {middle['not_flat']:.3g} of inputs."
        )
    if "nearer" in found:
        lines += _told_nearer(found)
    return "\n".join(lines)


def _told_nearer(found: Any) -> list[str]:
    """Returns a line for each arm and nearer trap: lanes, and medians."""
    lines = []
    for (arm, nearer), rows in found.groupby(["arm", "nearer"], sort=False):
        middle = rows[["nearer_since", "frozen_distance"]].median()
        where = rows["frozen_nearest"].mode()[0]
        lines.append(
            f"{arm}: the nearer trap is {TRAPS[nearer]} ({len(rows)} lanes) since task "
            f"{middle['nearer_since']:g}; nearest to frozen in {where}, at "
            f"{middle['frozen_distance']:.3g}."
        )
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    """Runs it from the command line and returns the exit code."""
    known: dict[str, Any] = {"from": None, "workdir": None, "help": False}
    try:
        own, rest = flags.own(known, sys.argv[1:] if argv is None else argv)
        if own["help"]:
            launcher.say(__doc__ or "")
            return 0
        if rest or not own["from"]:
            raise ValueError("from is needed: allowed are --from=DIR and --workdir=DIR.")
        source = Path(paths.expanded(own["from"], "from"))
        target = own["workdir"] and Path(paths.expanded(own["workdir"], "workdir"))
    except ValueError as error:
        return launcher.fault(error, launcher.USAGE)
    try:
        found = of_table(table_.read(source / "results.parquet"))
        if target:
            workdir.check_writable(target)
            target.mkdir(parents=True, exist_ok=True)
            writing.text(target / "trapped.csv", found.to_csv(index=False))
    except OSError as error:
        sentence = f"{source} cannot be read ({workdir.reason_of(error)}): allowed is a workdir."
        return launcher.fault(workdir.WorkdirError(sentence), launcher.ENVIRONMENT)
    except (ValueError, workdir.WorkdirError) as error:
        return launcher.fault(error, launcher.ENVIRONMENT)
    launcher.say(told(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
