"""Measures and prints a table. See `--help`."""

import argparse
import importlib.metadata
import json
import platform
import time
from pathlib import Path

import benchmarks
from benchmarks.parts import PARTS
from benchmarks.rivals import Figure, cores, say


def main() -> None:
    text = "\n".join(f"  {name:10} {part.__doc__}" for name, part in PARTS.items())
    parser = argparse.ArgumentParser(
        "python -m benchmarks",
        description=f"{benchmarks.__doc__}\nparts:\n{text}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("part", nargs="*", help="what to measure; default: all")
    parser.add_argument("--rounds", type=int, default=5, help="turns of every rival (default: 5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything there")
    given = parser.parse_args()
    for name in given.part:
        if name not in PARTS:
            parser.error(f"part is {name!r}: allowed are {', '.join(PARTS)}.")
    if given.rounds < 1:
        parser.error(f"--rounds is {given.rounds}: allowed is 1 or more.")
    about = machine()
    print("\n".join(f"{name}: {value}" for name, value in about.items()), flush=True)
    figures, start = [], time.perf_counter()
    for name in given.part or PARTS:
        say(f"{name}: {PARTS[name].__doc__}")
        found = PARTS[name](given.rounds)
        print(table(found), flush=True)
        figures += found
    say(f"took {time.perf_counter() - start:.0f} s")
    if given.json:
        rows = [{**figure._asdict(), "median": figure.median, "met": figure.met} for figure in figures]
        given.json.write_text(json.dumps({"machine": about, "rounds": given.rounds, "figures": rows}, indent=1) + "\n")


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


def table(figures: list[Figure]) -> str:
    """Returns the figures as lines: part, what, median [range], what to reach, whether it is reached."""
    return "\n".join(
        f"{f.part:9} {f.what:56} {shown(f):>40}  {reach(f):16} { ({True: 'yes', False: 'NO'}.get(f.met, '')) }".rstrip()
        for f in figures
    )


def shown(figure: Figure) -> str:
    """Returns median [range] of a figure with its unit."""
    low, high = min(figure.values), max(figure.values)
    middle, low, high = (number(value, figure.unit) for value in (figure.median, low, high))
    return f"{middle} [{low}, {high}] {figure.unit}".rstrip()


def number(value: float, unit: str) -> str:
    """Returns a value as it reads best in its unit."""
    if unit == "%":
        return f"{100 * value:.1f}" if abs(value) >= 0.1 else f"{100 * value:.2f}"
    if unit == "x":
        return f"{value:.3f}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def reach(figure: Figure) -> str:
    """Returns in words what a figure is to reach."""
    if figure.at_least is not None:
        return f"at least {number(figure.at_least, figure.unit)}"
    return "" if figure.at_most is None else f"at most {number(figure.at_most, figure.unit)}"


if __name__ == "__main__":
    main()
