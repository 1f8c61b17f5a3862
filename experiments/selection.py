"""The file with which experiments.select tells the figures what it chose: written by one, read by
the others.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from plasticity_jax.cli import flags, settings
from plasticity_jax.cli.settings import Settings
from plasticity_jax.storage import paths, writing
from plasticity_jax.storage.json_files import read_json

Chosen: TypeAlias = Mapping[str, Settings]
"""{method of an abrupt arm, or transition of a gradual one: its settings}."""


def write(
    file: Path,
    benchmark: str,
    scale: str,
    seeds: Sequence[int],
    arms: Mapping[str, Mapping[str, str]],
) -> None:
    """Writes what was chosen for a benchmark on tuning seeds at a scale; other benchmarks in the
    file stay.

    Args:
      arms: as `Chosen`, with settings as the text of their flags.
    """
    known = others(file)
    known[benchmark] = {"scale": scale, "seeds": [int(seed) for seed in seeds], "arms": arms}
    writing.text(file, json.dumps(known, indent=2) + "\n")


def others(file: Path) -> dict[str, dict]:
    """Returns what is in the file so far, by benchmark. Raises ValueError if it is no file of this
    kind.
    """
    try:
        known = read_json(file) if file.exists() else {}
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{file} is no selected.json: allowed is one that this command wrote, or none."
        ) from error
    return known


def read(
    path: str, benchmark: str, scale: str, values: Mapping[str, Any], arms: Iterable[str]
) -> Chosen:
    """Returns what was chosen for a benchmark.

    Args:
      values: the figure's settings, of which `first_seed` and `seeds` say what it reports.
      arms: what the figure asks for: abrupt methods, gradual transitions.
    Raises ValueError for a file that is none, of another scale, with an unknown flag or without one
    of the arms, or tuned on a seed to be reported.
    """
    made_at, tuned, found = _content(path, benchmark)
    if made_at != scale:
        raise ValueError(
            f"selection {path!r} was made at scale {made_at!r}: allowed is one at {scale!r}."
        )
    for arm in arms:
        if arm not in found:
            raise ValueError(
                f"selection {path!r} lacks {arm!r}: allowed are arms that were tuned, "
                f"{', '.join(found)}; --methods chooses among them."
            )
    chosen = {arm: _settings(path, texts) for arm, texts in found.items()}
    first = values.get("first_seed", 0)
    for seed in sorted(tuned):
        if first <= seed < first + values["seeds"]:
            raise ValueError(
                f"selection {path!r} was tuned on seed {seed}, which is to be reported: allowed "
                "are other seeds."
            )
    return chosen


def _content(path: str, benchmark: str) -> tuple[str, list[int], dict[str, dict[str, str]]]:
    """The scale, the seeds and the arms' settings as text of a benchmark in the file."""
    try:
        found = read_json(paths.expanded(path, "selection"))[benchmark]
        scale, seeds = found["scale"], found["seeds"]
        arms = {name: dict(texts.items()) for name, texts in found["arms"].items()}
        if {type(seed) for seed in seeds} != {int}:
            raise TypeError
        for texts in arms.values():
            if not all(isinstance(text, str) for text in texts.values()):
                raise TypeError
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"selection is {path!r}: allowed is a selected.json with {benchmark!r} in it."
        ) from error
    return scale, seeds, arms


def _settings(path: str, texts: Mapping[str, str]) -> Settings:
    """The settings of an arm, of which the file has the text."""
    known = {*flags.part_settings(), *flags.LANE_HELP}
    for name in texts:
        if name not in known:
            raise ValueError(
                f"selection {path!r} sets {name!r}: allowed are flags of methods and numbers of "
                "lanes, as --list names them."
            )
    return {name: settings.read(name, text) for name, text in texts.items()}
