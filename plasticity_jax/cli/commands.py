"""Research on loss of plasticity from the command line.

plasticity run --workdir=DIR ...          runs a grid, or goes on with it
plasticity select --workdir=DIR ...       runs a grid on seeds of its own and chooses the best of it
plasticity show DIR...                    prints the table of the end of finished runs
plasticity report DIR...                  writes a page of runs for a browser, report.html
plasticity cite DIR...                    prints BibTeX of what runs used
plasticity status DIR                     says how far a run is
plasticity merge DIR... --to=DIR          makes one workdir of several
plasticity slice FOLDER                   runs one slice of a run with --engine, as engines do
plasticity list                           prints everything that can be named in a flag

plasticity COMMAND --help says more. Without an installed script: python -m plasticity_jax COMMAND.
"""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plasticity_jax import registry
from plasticity_jax.cli import flags, folders, help, launcher, selecting, settings, showing, status
from plasticity_jax.cli.settings import Settings
from plasticity_jax.execution import merging, tasks
from plasticity_jax.execution.engines import description, local, worker
from plasticity_jax.reporting import metrics
from plasticity_jax.storage import paths, writing

RUN = """Any run by flags: one program per static setting, every seed and number of it at once.

plasticity run --workdir=runs/first --granularity=1,5,20 --method=none,l2 --seeds=5 --tasks=30"""
SELECT = """Runs a grid and says which learning rate and methods' settings were best in each arm.

plasticity select --workdir=runs/tuned --method=none,l2 --learning_rate=1e-2,1e-3 --tasks=10

The best has the best mean over all tasks and seeds; seeds are other ones than those of a run
(--first_seed). Writes into the workdir selection.csv, every configuration, and selected.json.

This command's own flag
  --metric=NAME                        the column that is judged; default what the run is judged by
"""
MERGE = """Makes one workdir of several, which goes on and grows like any other.

plasticity merge DIR... --to=DIR [--import=my_parts.py]

Lanes are numbered anew. A lane that several have is taken once, from the one with more of its
tasks. The others stay as they are.
"""
SLICE = """Runs one slice of a run with --engine, from where it was; engines call it.

plasticity slice FOLDER [--import=my_parts.py] [--cores=0,1] [--parent=PID]
    [--backend=gpu]

Exit code 0: done. 143: stopped by a signal, all it had is saved. 1: a fault, and the same command
would meet it again; the sentence is in FOLDER/fault.txt too.

  --cores=0,1                          cores that it may use
  --parent=PID                         process without which it ends
  --backend=gpu                        kind of device without which it is a fault
"""
LIST = """Prints everything that can be named in a flag of a run.

plasticity list [--import=my_parts.py]
"""
# seeds that no run has by default
TUNING: Settings = {"first_seed": 1000, "seeds": 2, "probes": "none"}
FILE = "selected.json"


def main(argv: Sequence[str] | None = None) -> int:
    """Does what a command line says and returns the exit code; `argv` are the arguments, by default
    the process's own.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        launcher.say(__doc__ or "")
        return 0
    try:
        name, rest = registry.one_of("command", arguments[0], COMMANDS), arguments[1:]
        return COMMANDS[name](rest)
    except ValueError as error:
        return launcher.fault(error, launcher.USAGE)
    except launcher.ENVIRONMENT_FAULTS as error:
        return launcher.fault(error, launcher.ENVIRONMENT)


def run(argv: Sequence[str]) -> int:
    """Runs a grid."""
    return launcher.launch(launcher.Experiment(RUN), argv)


def select(argv: Sequence[str]) -> int:
    """Runs a grid and chooses the best configuration of each arm."""
    own, rest = flags.own({"metric": None}, argv)

    def choose(table: Any, columns: Sequence[str], values: flags.Values) -> str:
        return _choose(table, columns, own["metric"], values)

    experiment = launcher.Experiment(SELECT, TUNING, metric=own["metric"] or "", then=choose)
    return launcher.launch(experiment, rest)


def _choose(table: Any, columns: Sequence[str], metric: str | None, values: flags.Values) -> str:
    """Writes what was chosen into the workdir and returns it as text."""
    scores_there = table.attrs[metrics.KEY]["scores"]  # what a run is judged by first
    judged = metric or next(name for name in scores_there if name in table)
    scores = selecting.scored(table, columns, judged, selecting.by_label(columns))
    folder = Path(values["workdir"])
    writing.text(folder / "selection.csv", scores.to_csv(index=False))
    selected = selecting.chosen(scores, values)
    seeds = sorted(int(seed) for seed in table["seed"].unique())
    content = {"metric": judged, "seeds": seeds, "arms": selected}
    text = json.dumps(content, indent=2) + "\n"
    writing.text(folder / FILE, text)
    return "\n".join([*selecting.told(selected), f"written: {folder / FILE}"])


def merge(argv: Sequence[str]) -> int:
    """Makes one workdir of several."""
    own, given = folders.given(argv, MERGE, {"to": None})
    if given is None:
        return 0
    if not own["to"]:
        raise ValueError("to is not given: name a folder with --to=DIR.")
    found = merging.merge(given, own["to"])
    again = f", {found.repeated} more were the same again" if found.repeated else ""
    where = paths.expanded(own["to"], "to")
    launcher.say(f"{where}: {found.lanes} lanes of {len(given)} workdirs{again}.")
    return 0


def slice_(argv: Sequence[str]) -> int:
    """Runs one slice."""
    own, given = folders.plain(argv, SLICE, {"cores": None, "parent": None, "backend": None})
    if given is None:
        return 0
    if len(given) != 1:
        raise ValueError(f"{len(given)} folders are given: allowed is one, of a slice.")
    if own["parent"]:
        worker.die_with(settings.whole("parent", own["parent"], 1))
    if own["cores"]:
        os.sched_setaffinity(0, _cores(own["cores"]))
    (folder,) = given
    worker.check_ready(folder)
    with launcher.interruptible():
        try:
            launcher.prepare_jax(description.read_how(Path(folder)).deterministic, devices=1)
            if own["backend"]:
                worker.check_backend(own["backend"])
            folders.load(own["import"])
            worker.run(folder)
        except tasks.Stopped as stopped:
            launcher.tell(f"stopped: {stopped}")
            # (as launcher.launch: an ordinary exit would wait for the task that is computed)
            os._exit(worker.STOPPED)
        except (ValueError, *launcher.ENVIRONMENT_FAULTS) as error:
            worker.note_fault(folder, launcher.sentence(error))
            return launcher.fault(error, launcher.ENVIRONMENT)
    return 0


def _cores(given: str) -> list[int]:
    """The cores that --cores names. Raises ValueError for those that this process may not use."""
    found = [settings.whole("cores", one, 0) for one in given.split(",")]
    allowed = local.cores()
    if not set(found) <= set(allowed):
        raise ValueError(f"cores is {given!r}: allowed are {', '.join(map(str, allowed))}.")
    return found


def list_(argv: Sequence[str]) -> int:
    """Prints everything that can be named in a flag."""
    _, given = folders.given(argv, LIST, {})
    if given:
        raise ValueError(f"argument {given[0]!r} is given: list takes none but --import=....")
    if given is not None:
        launcher.say(help.listing())
    return 0


COMMANDS = {
    "run": run,
    "select": select,
    "show": showing.show,
    "report": showing.report,
    "cite": showing.cite,
    "status": status.command,
    "merge": merge,
    "slice": slice_,
    "list": list_,
}
