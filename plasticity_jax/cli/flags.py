"""Command-line flags, made from the fields of Spec, the numbers of lanes and the settings of every
registered part.

A comma list on a flag that is an axis spans a grid. An experiment's settings are Python's values
and become text here; what flags say stays text until a Spec or a lane is made of it, so that one
place (`settings`) reads it and one sentence says what is wrong.
"""

import dataclasses
import difflib
import itertools
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from absl import flags

from plasticity_jax import datasets, lanes, methods, registry, spec
from plasticity_jax.cli import settings
from plasticity_jax.cli.settings import Settings
from plasticity_jax.environments import ENVIRONMENTS
from plasticity_jax.execution import placement
from plasticity_jax.models import MODELS
from plasticity_jax.optimizers import OPTIMIZERS, SCHEDULES
from plasticity_jax.probes import PROBES
from plasticity_jax.storage import paths
from plasticity_jax.stream.transitions import TRANSITIONS

Values = dict[str, Any]

LANE_HELP = {
    "granularity": "micro-tasks a transition is made of; 1 is an abrupt change",
    "learning_rate": "step size of the optimizer",
    "transition_fraction": "share of a task's steps that the transition takes",
}
# name -> (default, help); strings, None where there is no default
PATHS = ("workdir", "data_dir", "profile")  # among these:
RUN_HELP = {
    "seeds": ("5", "number of seeds; each seed is a lane of every arm"),
    "first_seed": ("0", "the first of them"),
    "workdir": (
        None,
        "folder of results, checkpoints and figures; the same command goes on where it was",
    ),
    "data_dir": (None, "folder of original data files; default $PLASTICITY_DATA_DIR, else a cache"),
    "lane_strategy": (
        None,
        f"how lanes are run: {', '.join(placement.STRATEGIES)}; default by backend and model",
    ),
    "lane_width": (None, "lanes vmapped together; decides a lane's last bits, so it is recorded"),
    "checkpoint_every": (
        "1",
        "tasks between checkpoints, or never: only at the end, or when stopped",
    ),
    "profile": (None, "folder of a trace of one task; says what takes time instead of running"),
    "band": ("minmax", "band of the figure over seeds: minmax, sem, ci or t"),
    "last": ("5", "tasks at the end that the printed table averages over"),
}
SWITCHES = {
    "download": "fetch the dataset's original files if they are not there",
    "deterministic": "the same bits in every run on a GPU too, where it is slower",
    "dry_run": "print the grid, programs, lanes, steps and memory, and stop",
    "list": "print everything that can be named in a flag, and stop",
    "progress": "show a progress bar; --noprogress for none",
    "help": "print this",
}
PROGRAMS = 10_000  # of a run at most: more would take days to compile
PART_REGISTRIES = (ENVIRONMENTS, MODELS, OPTIMIZERS, SCHEDULES, methods.METHODS, PROBES)


def part_settings() -> dict[str, Any]:
    """Returns {"<part>.<setting>": default} of every number and option of every registered part."""
    factories = {name: factory for known in PART_REGISTRIES for name, factory in known.items()}
    return {
        f"{part}.{setting}": default
        for part, factory in factories.items()
        for setting, default in {**registry.numbers(factory), **registry.options(factory)}.items()
    }


def parse(argv: Sequence[str], defaults: Settings | None = None) -> tuple[Values, set[str]]:
    """Returns ({flag: text or None, switch: bool}, names given on the command line).

    Args:
      argv: arguments without the program's name.
      defaults: an experiment's own settings, by the names of their flags.
    `~` at the start of a folder is expanded. Raises ValueError for a flag that does not exist, a
    missing value, text that is not UTF-8, or a stray argument.
    """
    known: dict[str, Any] = {
        name: settings.default_text(field.default) for name, field in settings.SPEC_FIELDS.items()
    }
    known |= {name: settings.default_text(lanes.DEFAULTS[name]) for name in LANE_HELP}
    known |= {name: default for name, (default, _) in RUN_HELP.items()}
    known |= {name: settings.default_text(default) for name, default in part_settings().items()}
    own = flags.FlagValues()
    arguments = _checked(own, argv)
    for name, value in (defaults or {}).items():
        known[name] = settings.text(value)
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
            f"argument {rest[1]!r} is not a flag: allowed are flags as --name=value; --help names them."
        )
    values: Values = {name: own[name].value for name in own}
    for name in PATHS:
        if values[name]:
            values[name] = paths.expanded(values[name], name)
    return values, {name for name in own if own[name].present}


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
    if isinstance(error, flags.IllegalFlagValueError) and ": " in str(
        error
    ):  # of a switch, as all other flags are text
        return f"{str(error).partition(': ')[0]}: allowed are true and false."
    said = str(error).partition("\n")[0].removeprefix("ERROR:: ").rstrip(".")
    return f"{said}; --help names all flags."


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
    return {name: known[name].value for name in known}, rest


def _joined(argv: Sequence[str], switches: Sequence[str]) -> list[str]:
    """Arguments with each value that stands apart joined to its flag; `switches` are flags without
    a value.
    """
    alone = {name for switch in (*SWITCHES, *switches) for name in (switch, f"no{switch}")}
    made: list[str] = []
    open_ = False  # whether the last argument is a flag that waits for its value
    for argument in argv:
        if open_ and not argument.startswith("-"):
            made[-1] += f"={argument}"
            open_ = False
        else:
            name = argument.lstrip("-")
            made.append(f"--{name}" if argument.startswith("-") else argument)
            open_ = argument.startswith("-") and "=" not in argument and name not in alone
    return made


def runs(
    values: Values, given: Iterable[str] = (), arms: Sequence[Settings] = ({},)
) -> list[tuple[spec.Spec, list[dict[str, Any]]]]:
    """Returns the (Spec, lanes) of the union of grids that `arms` make of the flags' values.

    Each arm replaces some values and gives a product of its comma lists; a part's own settings
    multiply only the arms that use the part. Lanes that would be the same run (see
    `lanes.identity`) appear once, as the first of them. Raises ValueError for values that cannot be
    read, or a flag in `given` that every arm replaces or that fits no arm.
    """
    for name in sorted(given):
        if all(name in arm for arm in arms):
            raise ValueError(
                f"{name} is {registry.shown(values[name])}, but every arm of this run has its own: "
                "leave it out."
            )
    made: dict[spec.Spec, list[dict[str, Any]]] = {}
    seen: set[Any] = set()
    listed = 0  # lanes so far, the same ones among them
    for arm in arms:
        texts = {**values, **{name: settings.text(value) for name, value in arm.items()}}
        [first], [count] = (settings.several(name, texts[name]) for name in ("first_seed", "seeds"))
        if first + count > 2**31:
            raise ValueError(
                f"first_seed is {first} and seeds is {count}: allowed are seeds up to {2**31 - 1}."
            )
        for one in _specs(texts):
            axes = {
                name: settings.several(name, texts[name])
                for name in lanes.defaults(one)
                if name != "seed"
            }
            listed += math.prod([count, *(len(dict.fromkeys(axis)) for axis in axes.values())])
            if listed > lanes.MOST:
                raise ValueError(
                    f"this grid has {listed:,} lanes or more: allowed are at most {lanes.MOST:,}."
                )
            for lane in lanes.grid(**axes, seed=range(first, first + count)):
                same = lanes.identity(one, lanes.complete(one, lane))
                if same not in seen:
                    seen.add(same)
                    made.setdefault(one, []).append(lane)
    _check_read(values, given, {one.model for one in made})
    used = {name for one in made for name in (*one.known_options(), *one.known_numbers())}
    for name in sorted(set(given) & set(part_settings())):
        if name not in used:
            part = name.partition(".")[0]
            raise ValueError(
                f"{name} is {registry.shown(values[name])}, but no arm of this run uses {part}: "
                f"add {part} or leave it out."
            )
    return list(made.items())


def _check_read(values: Values, given: Iterable[str], models: Collection[str]) -> None:
    """Raises ValueError for a flag in `given` that none of the `models` is made from."""
    for name in sorted(set(given).intersection(*map(spec.unread, models))):
        which = f"{' and '.join(sorted(models))} {'has' if len(models) == 1 else 'have'} no {name}"
        raise ValueError(f"{name} is {registry.shown(values[name])}, but {which}: leave it out.")


def _specs(texts: Values) -> list[spec.Spec]:
    """The Specs of a grid; what a model does not read is no axis of it, and the default."""
    fields = {name: settings.several(name, texts[name]) for name in settings.SPEC_FIELDS}
    points: dict[tuple, None] = {}
    _check_programs(fields)
    for point in itertools.product(*fields.values()):
        chosen = dict(zip(fields, point, strict=True))
        registry.lookup(MODELS, "model", chosen["model"])
        points[
            tuple(
                (
                    chosen
                    | {
                        name: settings.SPEC_FIELDS[name].default
                        for name in spec.unread(chosen["model"])
                    }
                ).values()
            )
        ] = None
    made = []
    for point in points:
        plain = spec.Spec(**dict(zip(fields, point, strict=True)))
        options = {name: settings.several(name, texts[name]) for name in plain.known_options()}
        _check_programs(options, len(made))
        for chosen in itertools.product(*options.values()):
            # defaults are left out, so that a Spec made by hand and one made by flags are equal
            changed = {
                k: v for k, v in zip(options, chosen, strict=True) if v != plain.known_options()[k]
            }
            made.append(dataclasses.replace(plain, options=changed))
    return made


def _check_programs(axes: Mapping[str, Sequence[Any]], before: int = 0) -> None:
    count = before + math.prod(map(len, axes.values()))
    if count > PROGRAMS:
        raise ValueError(
            f"this grid has {count:,} programs or more: allowed are at most {PROGRAMS:,}."
        )


def usage(doc: str, defaults: Settings | None = None) -> str:
    """Returns the help text: an experiment's docstring, then the flags in groups with their
    defaults.
    """
    own_defaults = {name: settings.text(value) for name, value in (defaults or {}).items()}
    groups: dict[str, list[tuple[str, Any, str]]] = {}
    for name, field in settings.SPEC_FIELDS.items():
        mark = " *" if field.metadata["axis"] else ""
        groups.setdefault(field.metadata["group"], []).append(
            (name, settings.default_text(field.default), field.metadata["help"] + mark)
        )
    for name, help_ in LANE_HELP.items():
        groups.setdefault("what learns" if name == "learning_rate" else "what changes", []).append(
            (name, settings.default_text(lanes.DEFAULTS[name]), f"{help_} *")
        )
    groups["how it runs"] = [(name, *rest) for name, rest in RUN_HELP.items()]
    lines = [doc.strip(), ""]
    for group, entries in groups.items():
        lines.append(group)
        for name, default, help_ in entries:
            default = own_defaults.get(name, default)
            flag = name if default is None else f"{name}={default}"
            lines += (
                [f"  --{flag:34} {help_}"]
                if len(flag) <= 34
                else [f"  --{flag}", f"{'':39}{help_}"]
            )
    lines += [f"  --{name:34} {help_}" for name, help_ in SWITCHES.items()]
    lines += [
        "",
        "A comma list on a flag marked * is an axis of the grid. Methods join with + "
        "(--method=none,redo+l2).",
        "",
    ]
    lines.append(
        "A part's own settings are flags too, and axes; --list shows which, e.g. --redo.threshold=0.1,0.025."
    )
    return "\n".join(lines)


def listing() -> str:
    """Returns every environment, transition, model, method, optimizer, probe and dataset with its
    description.
    """
    kinds: dict[str, Mapping[str, Any]] = {
        "datasets": datasets.DATASETS,
        "environments": ENVIRONMENTS,
        "transitions": {name: t.mix for name, t in TRANSITIONS.items()},
        "models": MODELS,
        "methods": methods.METHODS,
        "optimizers": OPTIMIZERS,
        "learning rate schedules": SCHEDULES,
        "probes": PROBES,
    }
    known_settings, lines = part_settings(), []
    for kind, known in kinds.items():
        lines.append(f"{kind}")
        for name, factory in known.items():
            lines.append(f"  {name:24} {registry.describe(factory)}")
            if known in PART_REGISTRIES:
                own = [
                    f"--{s}={settings.default_text(d)}"
                    for s, d in known_settings.items()
                    if s.partition(".")[0] == name
                ]
                lines += [f"  {'':24} {'  '.join(own[i : i + 4])}" for i in range(0, len(own), 4)]
        lines.append("")
    for kind in ("norm", "activation", "initialization", "precision"):
        lines.append(f"{kind}: {', '.join(spec.CHOICES[kind])}")
    return "\n".join(lines)
