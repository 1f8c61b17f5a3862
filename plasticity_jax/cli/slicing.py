"""What --engine asks for: how a grid is cut into slices, and what its engine is told."""

import os
from collections.abc import Sequence
from pathlib import Path

import jax

from plasticity_jax import datasets, registry
from plasticity_jax.cli import flags, settings
from plasticity_jax.estimates import cost
from plasticity_jax.execution import ahead, engines
from plasticity_jax.execution.engines import description, local, sliced
from plasticity_jax.execution.program import Program

# flags that say something only with --engine
ONLY = ("slice", "slice_minutes", "workers")
# options of an engine's own scheduler, which go there as they are: --slurm.partition=gpu
PASSED = ("slurm", "ray")


def split(argv: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Returns the arguments without those for an engine's own scheduler, and these by name
    ("slurm.partition"). Raises ValueError for one without a value.
    """
    rest: list[str] = []
    passed: dict[str, str] = {}
    for argument in argv:
        name, equals, value = argument.lstrip("-").partition("=")
        if not argument.startswith("-") or name.partition(".")[0] not in PASSED:
            rest.append(argument)
            continue
        if not equals or not name.partition(".")[2] or "\n" in argument:
            raise ValueError(f"{argument} is given: allowed is --{name.strip('.')}=VALUE.")
        passed[name] = value
    return rest, passed


def prepare(values: flags.Values) -> None:
    """Keeps this process off accelerators where slices are run by others, which need their memory;
    before jax starts.
    """
    if values["engine"]:
        jax.config.update("jax_platforms", "cpu")


def checked(
    values: flags.Values, programs: Sequence[Program], dataset: datasets.Dataset
) -> tuple[list[Program], sliced.Asked | None]:
    """Returns the programs as their slices are run, and how they are cut; as they are, and None,
    without --engine.

    Raises ValueError for flags that do not go together, WorkdirError where they cannot be run from.
    """
    passed = values.get("passed") or {}
    name = values["engine"]
    if name is None:
        for flag in (*passed, *(flag for flag in ONLY if values[flag] is not None)):
            raise ValueError(f"{flag} is given without an engine: add --engine, or leave it out.")
        return list(programs), None
    registry.one_of("engine", name, engines.ENGINES)
    for flag in passed:
        if flag.partition(".")[0] != name:
            raise ValueError(f"{flag} is given, but engine is {name}: leave it out.")
    own = {flag.partition(".")[2]: value for flag, value in passed.items()}
    engines.engine(name).check(own)
    width = settings.read("lane_width", values["lane_width"])
    if name != "local" and width is None:
        raise ValueError(
            f"lane_width is not given: with engine {name} slices may run on other devices than "
            "this machine has, so that a number is allowed, such as --lane_width=1 for CPUs."
        )
    backend, workers = _where(values)
    asked = sliced.Asked(
        name,
        registry.LARGEST_WHOLE,
        workers,
        backend,
        tuple(_imports(values)),
        own,
        _how(values),
    )
    strategy = values["lane_strategy"]
    whole = sliced.on_one_device(programs, asked, strategy, width)
    asked = asked._replace(lanes=_lanes(values, whole, dataset, workers))
    return sliced.on_one_device(programs, asked, strategy, width), asked


def _where(values: flags.Values) -> tuple[str, int]:
    """The kind of devices that slices are run on, "" if it is not known, and how many at a time.
    Raises ValueError for more than there are accelerators.
    """
    workers = settings.read("workers", values["workers"])
    if values["engine"] != "local":
        return "", workers or 0
    found = local.devices()
    if found.backend != "cpu" and (workers or 0) > found.count:
        # (jax starts on a CPU, without a word that stops it, where its accelerator is not there)
        raise ValueError(
            f"workers is {workers}: allowed are 1 to {found.count}, as many as this machine has "
            f"accelerators ({found.backend})."
        )
    return found.backend, workers or found.count


def _lanes(
    values: flags.Values, programs: Sequence[Program], dataset: datasets.Dataset, workers: int
) -> int:
    """The lanes of a slice."""
    given, minutes = (settings.read(n, values[n]) for n in ("slice", "slice_minutes"))
    if given and minutes:
        raise ValueError("slice and slice_minutes are given: allowed is one of them.")
    if given:
        return given
    if minutes:
        lanes = sum(len(program.lanes) for program in programs)
        found = ahead.aside(lambda: cost.estimate(programs, dataset))
        return max(1, int(60 * minutes * lanes / found.seconds))
    if not workers:
        raise ValueError("slice is not given: allowed is --slice=LANES, or --slice_minutes.")
    largest = max(len(program.lanes) for program in programs)
    return -(-largest // workers)


def _imports(values: flags.Values) -> list[str]:
    """Modules with parts of one's own, as another process in another folder finds them."""
    names = values["import"].split(",") if values["import"] else []
    return [str(Path(name).absolute()) if name.endswith(".py") else name for name in names]


def _how(values: flags.Values) -> description.How:
    """What every slice is told. Folders become absolute."""
    data_dir = values["data_dir"] or os.environ.get("PLASTICITY_DATA_DIR") or None
    start = values["start"]
    return description.How(
        data_dir=str(Path(data_dir).absolute()) if data_dir else None,
        checkpoint_every=settings.read("checkpoint_every", values["checkpoint_every"]),
        keep_checkpoints=values["keep_checkpoints"],
        deterministic=bool(values["deterministic"]),
        start=str(Path(start).absolute()) if start else None,
        start_task=settings.read("start_task", values["start_task"])
        if values["start_task"]
        else None,
        start_arm=settings.pairs("start_arm", values["start_arm"]),
    )


def told(programs: Sequence[Program], asked: sliced.Asked) -> str:
    """Returns a line on how a run is cut."""
    count = sum(-(-len(program.lanes) // asked.lanes) for program in programs)
    most = min(asked.lanes, max(len(program.lanes) for program in programs))
    together = f", {asked.workers} at a time" if asked.workers else ""
    return f"engine {asked.engine}: {count:,} slices of at most {most:,} lanes{together}"
