"""Research on loss of plasticity from the command line.

plasticity run --workdir=DIR ...          runs a grid, or goes on with it
plasticity show DIR...                    prints the table of the end of finished runs
plasticity merge DIR... --to=DIR          makes one workdir of several
plasticity list                           prints everything that can be named in a flag

plasticity COMMAND --help says more. Without an installed script: python -m plasticity_jax COMMAND.
"""

import sys
from collections.abc import Sequence

import jax

from plasticity_jax import own_parts, registry
from plasticity_jax.cli import flags, help, launcher, settings
from plasticity_jax.execution import merging, rows
from plasticity_jax.reporting import metrics
from plasticity_jax.storage import paths, workdir

RUN = """Any run by flags: one program per static setting, every seed and number of it at once.

plasticity run --workdir=runs/first --granularity=1,5,20 --method=none,l2 --seeds=5 --tasks=30"""
SHOW = """Prints the table of the end of workdirs, as a run prints it; nothing is run.

plasticity show DIR... [--last=5] [--metric=NAME] [--import=my_parts.py]

The lanes of several workdirs are put together, each once.
"""
MERGE = """Makes one workdir of several, which goes on and grows like any other.

plasticity merge DIR... --to=DIR [--import=my_parts.py]

Lanes are numbered anew. A lane that several have is taken once, from the one with more of its
tasks. The others stay as they are.
"""
LIST = """Prints everything that can be named in a flag of a run.

plasticity list [--import=my_parts.py]
"""


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


def show(argv: Sequence[str]) -> int:
    """Prints the table of the end of workdirs."""
    own, folders = _folders(argv, SHOW, {"last": "5", "metric": None})
    if folders is None:
        return 0
    last = settings.read("last", own["last"])
    table, programs = merging.load_with_programs(folders)
    if table.empty:
        raise workdir.WorkdirError(
            f"{' and '.join(folders)} has no finished task yet: allowed are runs with results."
        )
    environments = [program.spec.make_environment() for program in programs]
    metric = own["metric"] or metrics.judged_by(environments, table)
    launcher.say("\n".join(launcher.ending(table, rows.arm_columns(programs), metric, last)))
    return 0


def merge(argv: Sequence[str]) -> int:
    """Makes one workdir of several."""
    own, folders = _folders(argv, MERGE, {"to": None})
    if folders is None:
        return 0
    if not own["to"]:
        raise ValueError("to is not given: name a folder with --to=DIR.")
    found = merging.merge(folders, own["to"])
    again = f", {found.repeated} more were the same again" if found.repeated else ""
    where = paths.expanded(own["to"], "to")
    launcher.say(f"{where}: {found.lanes} lanes of {len(folders)} workdirs{again}.")
    return 0


def list_(argv: Sequence[str]) -> int:
    """Prints everything that can be named in a flag."""
    _, folders = _folders(argv, LIST, {})
    if folders:
        raise ValueError(f"argument {folders[0]!r} is given: list takes none but --import=....")
    if folders is not None:
        launcher.say(help.listing())
    return 0


COMMANDS = {"run": run, "show": show, "merge": merge, "list": list_}


def _folders(
    argv: Sequence[str], doc: str, defaults: dict[str, str | bool | None]
) -> tuple[flags.Values, list[str] | None]:
    """A command's own flags and its folders, with the modules of --import loaded; None in their
    place where help was asked for, and printed.
    """
    # what makes Specs computes a little, for which no accelerator shall be started: another process
    # may have all of its memory (where jax runs already, this changes nothing)
    jax.config.update("jax_platforms", "cpu")
    own, rest = flags.own({**defaults, "import": None}, argv)
    if "--help" in rest:
        launcher.say(doc)
        return own, None
    for argument in rest:
        if argument.startswith("-"):
            known = ", ".join(f"--{name}" for name in own)
            raise ValueError(f"unknown flag {argument}: allowed are {known}.")
    if own["import"]:
        own_parts.load(own["import"].split(","))
    return own, rest
