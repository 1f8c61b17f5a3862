"""The file with which experiments.select tells the figures what it chose: written by one, read by
the others.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from plasticity_jax.cli import flags
from plasticity_jax.storage import paths
from plasticity_jax.storage.json_files import read_json

Settings = Mapping[str, Mapping[str, str]]
"""{method of an abrupt arm, or transition of a gradual one: {flag: text}}."""


def write(file: Path, benchmark: str, scale: str, seeds: Sequence[int], arms: Settings) -> None:
    """Writes what was chosen for a benchmark on tuning seeds at a scale; other benchmarks in the
    file stay.
    """
    known = others(file)
    known[benchmark] = {"scale": scale, "seeds": [int(seed) for seed in seeds], "arms": arms}
    file.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")


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
    path: str, benchmark: str, scale: str, values: Mapping[str, str], arms: Iterable[str]
) -> Settings:
    """Returns what was chosen for a benchmark.

    Args:
      values: the figure's flags, of which `first_seed` and `seeds` say what it reports.
      arms: what the figure asks for: abrupt methods, gradual transitions.
    Raises ValueError for a file that is none, of another scale, with an unknown flag or without one
    of the arms, or tuned on a seed to be reported.
    """
    try:
        found = read_json(paths.expanded(path, "selection"))[benchmark]
        made_at, tuned = found["scale"], set(found["seeds"])
        chosen = {name: dict(settings.items()) for name, settings in found["arms"].items()}
        texts = [text for settings in chosen.values() for text in settings.values()]
        if not all(isinstance(text, str) for text in texts) or set(map(type, found["seeds"])) != {
            int
        }:
            raise TypeError
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"selection is {path!r}: allowed is a selected.json with {benchmark!r} in it."
        ) from error
    if made_at != scale:
        raise ValueError(
            f"selection {path!r} was made at scale {made_at!r}: allowed is one at {scale!r}."
        )
    known = {*flags.part_settings(), *flags.LANE_HELP}
    for arm in arms:
        if arm not in chosen:
            raise ValueError(
                f"selection {path!r} lacks {arm!r}: allowed are arms that were tuned, "
                f"{', '.join(chosen)}; "
                "--methods chooses among them."
            )
    for name in (flag for settings in chosen.values() for flag in settings):
        if name not in known:
            raise ValueError(
                f"selection {path!r} sets {name!r}: allowed are flags of methods and numbers of "
                "lanes, as --list names them."
            )
    first = flags.whole("first_seed", values.get("first_seed", "0"), 0)
    both = sorted(
        tuned.intersection(range(first, first + flags.whole("seeds", values["seeds"], 1)))
    )
    if both:
        raise ValueError(
            f"selection {path!r} was tuned on seed {both[0]}, which is to be reported: allowed are "
            "other seeds."
        )
    return chosen
