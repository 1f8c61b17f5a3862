"""Command-line flags, made from the fields of Spec, the numbers of lanes and the settings of every
registered part.

A comma list on a flag that is an axis spans a grid. An experiment's settings are Python's values
and become text here; what flags say stays text until a Spec or a lane is made of it, so that one
place (`settings`) reads it and one sentence says what is wrong.
"""

import difflib
import functools
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from absl import flags

from plasticity_jax import arms as arms_
from plasticity_jax import lanes, methods, own_parts, registry, spec
from plasticity_jax.agents import AGENTS
from plasticity_jax.cli import settings
from plasticity_jax.cli.settings import Settings
from plasticity_jax.environments import ENVIRONMENTS
from plasticity_jax.execution import placement
from plasticity_jax.heads import HEADS
from plasticity_jax.models import MODELS
from plasticity_jax.optimizers import OPTIMIZERS, SCHEDULES
from plasticity_jax.probes import PROBES
from plasticity_jax.storage import paths
from plasticity_jax.surgery import SURGERIES

Values = dict[str, Any]

LANE_HELP = {
    "granularity": "micro-tasks a transition is made of; 1 is an abrupt change",
    "learning_rate": "step size of the optimizer",
    "transition_fraction": "share of a task's steps that the transition takes",
}
# name -> (default, help); strings, None where there is no default
PATHS = ("workdir", "data_dir", "profile", "start")  # among these:
RUN_HELP = {
    "import": (None, "modules or files with parts of your own (docs/adding.md)"),
    "seeds": ("5", "number of seeds; each seed is a lane of every arm"),
    "first_seed": ("0", "the first of them"),
    "workdir": (
        None,
        "folder of results, checkpoints and figures; the same command goes on where it was",
    ),
    "start": (None, "workdir of a finished run, from whose trained networks this one begins"),
    "start_task": (None, "the task after whose end they are taken; default the last"),
    "start_arm": (None, "NAME=VALUE,...: of which arm, where that run has several"),
    "data_dir": (None, "folder of original data files; default $PLASTICITY_DATA_DIR, else a cache"),
    "lane_strategy": (
        None,
        f"how lanes are run: {', '.join(placement.STRATEGIES)}; default by backend and model",
    ),
    "lane_width": (None, "lanes vmapped together; decides a lane's last bits, so it is recorded"),
    "engine": (None, "runs the grid in slices: local, slurm or ray (docs/engines.md)"),
    "slice": (None, "with --engine: lanes of a slice at most"),
    "slice_minutes": (None, "with --engine: minutes of a slice, from a trial, instead of --slice"),
    "workers": (None, "slices at a time; default one for each accelerator or core"),
    "wave": (None, "tasks after which lanes that diverged are not run on, again and again"),
    "stop_below": (None, "METRIC:VALUE,...: nor lanes whose mean over a wave is below"),
    "checkpoint_every": (
        "1",
        "tasks between checkpoints, or never: only at the end, or when stopped",
    ),
    "keep_checkpoints": (
        "last",
        "states that stay besides the last two: every:10, each tenth task; last, no more",
    ),
    "profile": (None, "folder of a trace of one task; says what takes time instead of running"),
    "tracker": (None, "who is told of each task: jsonl, tensorboard, wandb"),
    "band": ("minmax", "band of the figure over seeds: minmax, sem, ci or t"),
    "last": ("5", "tasks at the end that the printed table averages over"),
    "figure_title": (None, "title of the figures; default what was run"),
    "figure_format": ("png,svg", "files of a figure: png, svg and pdf"),
    "figure_width": ("page", "page, or a column of a paper: single or double"),
    "arm_names": (None, "what arms are called, apart by ; and in the order of the printed table"),
    "export": (None, "the printed table as a file too: markdown (final.md), latex (final.tex)"),
}
SWITCHES = {
    "download": "fetch the dataset's original files if they are not there",
    "deterministic": "the same bits in every run on a GPU too, where it is slower",
    "dry_run": "print the grid, programs, lanes, steps and memory, and stop",
    "long": "with --dry_run: list every arm and program, however many",
    "list": "print everything that can be named in a flag, and stop",
    "progress": "show a progress bar; --noprogress for none",
    "help": "print this",
}
PART_REGISTRIES = (
    ENVIRONMENTS,
    AGENTS,
    HEADS,
    MODELS,
    OPTIMIZERS,
    SCHEDULES,
    methods.METHODS,
    PROBES,
    SURGERIES,
)


def part_settings() -> dict[str, Any]:
    """Returns {"<part>.<setting>": default} of every number and option of every registered part."""
    found: dict[str, Any] = {}
    for known in PART_REGISTRIES:
        for part, factory in known.items():
            own = {**registry.numbers(factory), **registry.options(factory)}
            found |= {f"{part}.{setting}": default for setting, default in own.items()}
    return found


def _defaults() -> dict[str, str | None]:
    """The text of every flag's default, None where there is none."""
    fields = {name: field.default for name, field in settings.SPEC_FIELDS.items()}
    numbers = {name: lanes.DEFAULTS[name] for name in LANE_HELP}
    every = {**fields, **numbers, **part_settings()}
    texts = {name: settings.default_text(default) for name, default in every.items()}
    return texts | {name: default for name, (default, _) in RUN_HELP.items()}


def parse(argv: Sequence[str], defaults: Settings | None = None) -> tuple[Values, set[str]]:
    """Returns ({flag: text or None, switch: bool}, names given on the command line).

    Args:
      argv: arguments without the program's name.
      defaults: an experiment's own settings, by the names of their flags.
    `~` at the start of a folder is expanded. Raises ValueError for a flag that does not exist, a
    missing value, text that is not UTF-8, or a stray argument.
    """
    own = flags.FlagValues()
    arguments = _checked(own, argv)
    _import(arguments)
    known = _defaults()
    _check_known(defaults or {}, known)
    known |= {name: settings.text(value) for name, value in (defaults or {}).items()}
    for name, default in known.items():
        flags.DEFINE_string(name, default, "", flag_values=own)
    for name in SWITCHES:
        flags.DEFINE_bool(name, name == "progress", "", flag_values=own)
    try:
        rest = own(["", *arguments])
    except flags.UnrecognizedFlagError as error:
        near = difflib.get_close_matches(error.flagname, list(own), n=1)
        meant = f" (did you mean --{near[0]}?)" if near else ""
        raise ValueError(
            f"unknown flag --{error.flagname}{meant}: --help and --list name all flags."
        ) from None
    except (flags.Error, ValueError) as error:
        raise ValueError(sentence(error)) from None
    if len(rest) > 1:
        raise ValueError(
            f"argument {rest[1]!r} is not a flag: allowed are flags as --name=value; --help names "
            "them."
        )
    values = _values(own)
    for name in PATHS:
        if values[name]:
            values[name] = paths.expanded(values[name], name)
    return values, {name for name in own if own[name].present}


def _import(arguments: Sequence[str]) -> None:
    """Loads the modules of --import: what they enter has flags like all other parts."""
    known = flags.FlagValues()
    flags.DEFINE_string("import", None, "", flag_values=known)
    try:
        known(["", *_joined(arguments, ())], known_only=True)
    except flags.Error as error:
        raise ValueError(sentence(error)) from None
    if known["import"].value is not None:
        own_parts.load(known["import"].value.split(","))


def _checked(known: flags.FlagValues, argv: Sequence[str]) -> list[str]:
    """The arguments with those of every --flagfile in its place.

    Raises ValueError for text that is not UTF-8, and for absl's --undefok, with which typing errors
    would be ignored.
    """
    for argument in argv:
        if not registry.is_utf8(argument) or "\0" in argument:
            raise ValueError(
                f"argument {registry.shown(argument)} is not text: allowed is text in UTF-8."
            )
    try:
        found = known.read_flags_from_files(list(argv), force_gnu=False)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"a flagfile is not text ({error.reason}): allowed is text in UTF-8."
        ) from None
    except flags.Error as error:
        raise ValueError(sentence(error)) from None
    except OSError as error:
        raise ValueError(
            f"a flagfile cannot be read ({error.strerror}): allowed are files of flags."
        ) from None
    for argument in found:
        if argument.startswith("-") and argument.lstrip("-").partition("=")[0] == "undefok":
            raise ValueError("unknown flag --undefok: --help and --list name all flags.")
    return found


def sentence(error: Exception) -> str:
    """Returns what absl says of a flag as one sentence."""
    said = str(error)
    if isinstance(error, flags.IllegalFlagValueError) and ": " in said:
        # (only a switch refuses a value, as all other flags are text)
        return f"{said.partition(': ')[0]}: allowed are true and false."
    first_line = said.partition("\n")[0].removeprefix("ERROR:: ").rstrip(".")
    return f"{first_line}; --help names all flags."


def own(defaults: Mapping[str, str | bool | None], argv: Sequence[str]) -> tuple[Values, list[str]]:
    """Returns values of an experiment's own flags, and the arguments that are left for `parse`, as
    --name=value.

    Args:
      defaults: by name; a flag whose default is a bool is a switch.
      argv: arguments without the program's name.
    Raises ValueError for a missing value or one that a switch does not take.
    """
    known = flags.FlagValues()
    for name, default in defaults.items():
        if isinstance(default, bool):
            flags.DEFINE_bool(name, default, "", flag_values=known)
        else:
            flags.DEFINE_string(name, default, "", flag_values=known)
    switches = [name for name, default in defaults.items() if isinstance(default, bool)]
    try:
        rest = known(["", *_joined(_checked(known, argv), switches)], known_only=True)[1:]
    except flags.Error as error:
        raise ValueError(sentence(error)) from None
    return _values(known), rest


def _values(known: flags.FlagValues) -> Values:
    """{flag: value}. Raises ValueError where the next flag was taken for a value."""
    values = {name: known[name].value for name in known}
    for name, value in values.items():
        if known[name].present and str(value).startswith("--"):
            raise ValueError(f"{name} is {value!r}: allowed is a value, as --{name}=VALUE.")
    return values


def _joined(argv: Sequence[str], switches: Sequence[str]) -> list[str]:
    """Arguments with each value that stands apart joined to its flag; `switches` are flags without
    a value.
    """
    every = (*SWITCHES, *switches)
    alone = {*every, *(f"no{switch}" for switch in every)}
    made: list[str] = []
    waits = False  # whether the last argument is a flag that waits for its value
    for argument in argv:
        is_flag = argument.startswith("-")
        if waits and not is_flag:
            made[-1] += f"={argument}"
            waits = False
            continue
        name = argument.lstrip("-")
        made.append(f"--{name}" if is_flag else argument)
        waits = is_flag and "=" not in argument and name not in alone
    return made


def runs(values: Values, given: Iterable[str] = (), arms: Sequence[Settings] = ({},)) -> arms_.Runs:
    """Returns the (Spec, lanes) of the union of grids that `arms` make of the flags' values.

    Each arm replaces some values and gives a product of its lists (see `arms.runs`). Raises
    ValueError for values that cannot be read, or a flag in `given` that every arm replaces or that
    fits no arm.
    """
    for arm in arms:
        _check_known(arm, values)
    _check_not_replaced(values, given, arms)

    def listed(name: str, arm: Settings) -> list[Any]:
        if name in arm:
            return settings.listed(name, arm[name])
        return settings.several(name, values[name])

    found = arms_.runs(functools.partial(listed, arm=arm) for arm in arms)
    made = [one for one, _ in found]
    _check_read(values, given, {one.model for one in made})
    _check_used(values, given, made)
    return found


def _check_known(own: Settings, known: Iterable[str]) -> None:
    """Raises ValueError for a setting of an experiment's own that is no flag's name."""
    for name in own:
        if name not in known:
            raise ValueError(
                f"setting {registry.shown(name)} is known of no flag: --help and --list name all."
            )


def _check_not_replaced(values: Values, given: Iterable[str], arms: Sequence[Settings]) -> None:
    """Raises ValueError for a flag in `given` that says nothing, as every arm replaces it."""
    for name in sorted(given):
        if all(name in arm for arm in arms):
            raise ValueError(
                f"{name} is {registry.shown(values[name])}, but every arm of this run has its own: "
                "leave it out."
            )


def _check_read(values: Values, given: Iterable[str], models: Collection[str]) -> None:
    """Raises ValueError for a flag in `given` that none of the `models` is made from."""
    for name in sorted(set(given).intersection(*map(spec.unread, models))):
        has = "has" if len(models) == 1 else "have"
        raise ValueError(
            f"{name} is {registry.shown(values[name])}, but {' and '.join(sorted(models))} {has} "
            f"no {name}: leave it out."
        )


def _check_used(values: Values, given: Iterable[str], made: Iterable[spec.Spec]) -> None:
    """Raises ValueError for a part's setting in `given`, where no Spec has the part."""
    used: set[str] = set()
    for one in made:
        used |= {*one.known_options(), *one.known_numbers()}
    for name in sorted(set(given) & set(part_settings()) - used):
        part = name.partition(".")[0]
        raise ValueError(
            f"{name} is {registry.shown(values[name])}, but no arm of this run uses {part}: "
            f"add {part} or leave it out."
        )
