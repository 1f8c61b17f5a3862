"""The command line of what is computed in one go, without lanes: a folder, a scale, and data."""

import sys
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from plasticity_jax import registry
from plasticity_jax.cli import flags, launcher
from plasticity_jax.storage import paths, workdir

NOTHING: Mapping[str, Callable[[Any], object]] = types.MappingProxyType({})


def main(
    doc: str,
    scales: Collection[str],
    compute: Callable[..., str],
    argv: Sequence[str] | None = None,
    own: flags.Values | None = None,
    checks: Mapping[str, Callable[[Any], object]] = NOTHING,
) -> int:
    """Writes what `compute` makes of a folder and the name of a scale, prints the text that it
    returns, and returns the exit code: 0, 2 for a fault of the command line, 1 for one of data or
    disk.

    The first of `scales` is the usual one; `own` are flags that are taken besides, with their usual
    values, and given to `compute` by name; `checks` are functions of some of them, which raise
    ValueError for a value that is not allowed.
    """
    known = {"workdir": None, "scale": next(iter(scales)), "help": False, **(own or {})}
    try:
        given, rest = flags.own(known, sys.argv[1:] if argv is None else argv)
        if rest:
            raise ValueError(
                f"argument {rest[0]!r} is not a flag of this: allowed are --workdir=DIR, "
                f"{''.join(f'--{name}, ' for name in own or {})}--scale and --help."
            )
        if given["help"]:
            launcher.say(doc)
            return 0
        scale = registry.one_of("scale", given["scale"], scales)
        values = {name: given[name] for name in own or {}}
        for name, check in checks.items():
            check(values[name])
        if not given["workdir"]:
            raise ValueError("workdir is not given: name a folder with --workdir=DIR.")
        folder = Path(paths.expanded(given["workdir"], "workdir"))
    except ValueError as error:
        return launcher.fault(error, launcher.USAGE)
    try:
        workdir.check_writable(folder)
        launcher.say(run(compute, folder, scale, values))
    except launcher.ENVIRONMENT_FAULTS as error:
        return launcher.fault(error, launcher.ENVIRONMENT)
    return 0


def run(compute: Callable[..., str], folder: Path, scale: str, values: flags.Values) -> str:
    """Returns what `compute` says, with JAX made ready."""
    launcher.prepare_jax()
    return compute(folder, scale, **values)
