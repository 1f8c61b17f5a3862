"""The texts of --help and --list, made from what can be named in a flag."""

from collections.abc import Mapping
from typing import Any

from plasticity_jax import datasets, lanes, methods, registry, spec
from plasticity_jax.agents import AGENTS
from plasticity_jax.cli import flags, settings
from plasticity_jax.cli.settings import Settings
from plasticity_jax.environments import ENVIRONMENTS
from plasticity_jax.heads import HEADS
from plasticity_jax.models import MODELS
from plasticity_jax.optimizers import OPTIMIZERS, SCHEDULES
from plasticity_jax.probes import PROBES
from plasticity_jax.stream.transitions import TRANSITIONS
from plasticity_jax.surgery import SURGERIES

_FLAG, _NAME = 34, 24  # columns of a flag in --help, of a part in --list
_BESIDE = 4  # settings of a part in a line of --list

_END = """
A comma list on a flag marked * is an axis of the grid. Methods join with + (--method=none,redo+l2).

A part's own settings are flags too, and axes; --list shows which, e.g. --redo.threshold=0.1,0.025.\
"""


def usage(doc: str, defaults: Settings | None = None) -> str:
    """Returns the help text: an experiment's docstring, then the flags in groups with their
    defaults.
    """
    own = {name: settings.text(value) for name, value in (defaults or {}).items()}
    lines = [doc.strip(), ""]
    for group, entries in _groups().items():
        lines.append(group)
        for name, default, words in entries:
            lines += _entry(name, own.get(name, default), words)
    for name, words in flags.SWITCHES.items():
        lines += _entry(name, None, words)
    return "\n".join(lines) + "\n" + _END


def _groups() -> dict[str, list[tuple[str, str | None, str]]]:
    """The flags by group, each with its default and what it is."""
    groups: dict[str, list[tuple[str, str | None, str]]] = {}
    for name, field in settings.SPEC_FIELDS.items():
        about = field.metadata
        words = f"{about['help']} *" if about["axis"] else about["help"]
        entry = name, settings.default_text(field.default), words
        groups.setdefault(about["group"], []).append(entry)
    for name, words in flags.LANE_HELP.items():
        group = "what learns" if name == "learning_rate" else "what changes"
        groups[group].append((name, settings.default_text(lanes.DEFAULTS[name]), f"{words} *"))
    groups["how it runs"] = [
        (name, default, words) for name, (default, words) in flags.RUN_HELP.items()
    ]
    return groups


def _entry(name: str, default: str | None, words: str) -> list[str]:
    """The line of a flag; two where it is long."""
    flag = name if default is None else f"{name}={default}"
    if len(flag) <= _FLAG:
        return [f"  --{flag:{_FLAG}} {words}"]
    return [f"  --{flag}", f"{'':{_FLAG + 5}}{words}"]


def listing() -> str:
    """Returns every environment, transition, model, method, optimizer, probe and dataset with its
    description.
    """
    kinds: dict[str, Mapping[str, Any]] = {
        "datasets": datasets.DATASETS,
        "environments": ENVIRONMENTS,
        "transitions": {name: transition.mix for name, transition in TRANSITIONS.items()},
        "models": MODELS,
        "heads": HEADS,
        "agents": AGENTS,
        "methods": methods.METHODS,
        "optimizers": OPTIMIZERS,
        "learning rate schedules": SCHEDULES,
        "probes": PROBES,
        "surgery": SURGERIES,
    }
    lines = []
    for kind, known in kinds.items():
        lines.append(kind)
        for name, factory in known.items():
            lines.append(f"  {name:{_NAME}} {registry.describe(factory)}")
            if known in flags.PART_REGISTRIES:
                lines += _own_settings(name)
        lines.append("")
    for kind in ("norm", "activation", "initialization", "precision"):
        lines.append(f"{kind}: {', '.join(spec.CHOICES[kind])}")
    return "\n".join(lines)


def _own_settings(part: str) -> list[str]:
    """The lines of a part's settings with their defaults."""
    own = [
        f"--{name}={settings.default_text(default)}"
        for name, default in flags.part_settings().items()
        if name.partition(".")[0] == part
    ]
    rows = [own[first : first + _BESIDE] for first in range(0, len(own), _BESIDE)]
    return [f"  {'':{_NAME}} {'  '.join(row)}" for row in rows]
