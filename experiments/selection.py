"""The file with which experiments.select tells the figures what it chose: written by one, read by the others."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from plasticity_jax import flags

Settings = Mapping[str, Mapping[str, str]]
"""{method of an abrupt arm, or transition of a gradual one: {flag: text}}."""


def write(file: Path, benchmark: str, scale: str, seeds: Sequence[int], arms: Settings) -> None:
    """Writes what was chosen for a benchmark on tuning seeds at a scale; other benchmarks in the file stay."""
    known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    known[benchmark] = {"scale": scale, "seeds": [int(seed) for seed in seeds], "arms": arms}
    file.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")


def read(path: str, benchmark: str, scale: str, values: Mapping[str, str]) -> Settings:
    """Returns what was chosen for a benchmark.

    Args:
      values: the figure's flags, of which `first_seed` and `seeds` say what it reports.
    Raises ValueError for a file that is none, of another scale, with an unknown flag, or tuned on a seed to be reported.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))[benchmark]
        tuned, arms = set(found["seeds"]), {name: dict(chosen) for name, chosen in found["arms"].items()}
        texts = [text for chosen in arms.values() for text in chosen.values()]
        if not all(isinstance(text, str) for text in texts):
            raise TypeError
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"selection is {path!r}: allowed is a selected.json with {benchmark!r} in it.") from error
    if found["scale"] != scale:
        raise ValueError(f"selection {path!r} was made at scale {found['scale']!r}: allowed is one at {scale!r}.")
    known = {*flags.part_settings(), *flags.LANE_HELP}
    for name in (flag for chosen in arms.values() for flag in chosen):
        if name not in known:
            raise ValueError(f"selection {path!r} sets {name!r}, which is no flag of a method or learning rate.")
    first = flags.whole("first_seed", values.get("first_seed", "0"), 0)
    both = sorted(tuned.intersection(range(first, first + flags.whole("seeds", values["seeds"], 1))))
    if both:
        raise ValueError(
            f"selection {path!r} was tuned on seed {both[0]}, which is to be reported: allowed are other seeds."
        )
    return arms
