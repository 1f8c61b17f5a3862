"""Measures and prints a table. See `--help`."""

import argparse
import importlib.metadata
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path

import benchmarks
from benchmarks import picture
from benchmarks.parts import PARTS, USUAL
from benchmarks.rivals import cores, say
from benchmarks.words import table


def main() -> None:
    text = "\n".join(f"  {name:10} {first_line(part)}" for name, part in PARTS.items())
    parser = argparse.ArgumentParser(
        "python -m benchmarks",
        description=f"{benchmarks.__doc__}\nparts:\n{text}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "part", nargs="*", help=f"what to measure; default: all but {', '.join(set(PARTS) - set(USUAL))}"
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="turns of every rival, half as many of slow ones (default: 3)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything there")
    parser.add_argument(
        "--picture", type=Path, metavar="FILE", help="also draw what is to be reached there (.png, .svg)"
    )
    given = parser.parse_args()
    for name in given.part:
        if name not in PARTS:
            parser.error(f"part is {name!r}: allowed are {', '.join(PARTS)}.")
    if given.rounds < 1:
        parser.error(f"--rounds is {given.rounds}: allowed is 1 or more.")
    about = machine()
    print("\n".join(f"{name}: {value}" for name, value in about.items()), flush=True)
    figures, start = [], time.perf_counter()
    for name in given.part or USUAL:
        say(f"{name}: {first_line(PARTS[name])}")
        began = time.perf_counter()
        found = PARTS[name](given.rounds)
        say(f"  took {time.perf_counter() - began:.0f} s")
        print(table(found), flush=True)
        figures += found
        if given.json:  # after every part, so that a suite that breaks off leaves what it has
            rows = [{**figure._asdict(), "median": figure.median, "met": figure.met} for figure in figures]
            text = json.dumps({"machine": about, "rounds": given.rounds, "figures": rows}, indent=1)
            given.json.write_text(text + "\n")
    print(f"took {time.perf_counter() - start:.0f} s", flush=True)
    if given.picture:
        picture.draw(figures, given.picture, "; ".join(about.values()))


def first_line(part: Callable) -> str:
    """Returns what a part is, in a line."""
    return (part.__doc__ or "").partition("\n")[0]


def machine() -> dict[str, str]:
    """Returns what the times depend on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor()
    packages = ("plasticity_jax", "jax", "jaxlib", "flax", "optax", "numpy", "torch")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    return {"machine": f"{cores()} cores, {model}", "versions": f"python {platform.python_version()}, {versions}"}


if __name__ == "__main__":
    main()
