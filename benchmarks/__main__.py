"""Measures and prints a table. See `--help`."""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import benchmarks
from benchmarks import picture, worker
from benchmarks.parts import PARTS, USUAL
from benchmarks.rivals import cores, devices, say
from benchmarks.words import processor, table


def main() -> None:
    from plasticity_jax.precision import PRECISIONS

    text = "\n".join(f"  {name:10} {first_line(part)}" for name, part in PARTS.items())
    parser = argparse.ArgumentParser(
        "python -m benchmarks",
        description=f"{benchmarks.__doc__}\nparts:\n{text}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "part",
        nargs="*",
        help=f"what to measure; default: all but {', '.join(set(PARTS) - set(USUAL))}",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=2,
        help="turns of every rival, of a whole job half as many (default: 2)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything there")
    parser.add_argument(
        "--picture",
        type=Path,
        metavar="FILE",
        help="also draw what is to be reached there (.png, .svg)",
    )
    parser.add_argument(
        "--precision", default="float32",
        help=f"arithmetic of forward and backward pass on both sides: "
        f"{', '.join(PRECISIONS)} (default: float32)",
    )  # fmt: skip
    parser.add_argument(
        "--deterministic",
        action="store_true",
        help="the same bits in every run on a GPU, on both sides",
    )
    parser.add_argument(
        "--processor_time",
        action="store_true",
        help="seconds are the processor time of a rival's process, as on a machine that is busy",
    )
    given = parser.parse_args()
    for name in given.part:
        if name not in PARTS:
            parser.error(f"part is {name!r}: allowed are {', '.join(PARTS)}.")
    if given.rounds < 1:
        parser.error(f"--rounds is {given.rounds}: allowed is 1 or more.")
    if given.precision not in PRECISIONS:
        parser.error(f"--precision is {given.precision!r}: allowed are {', '.join(PRECISIONS)}.")
    for file in (given.json, given.picture):
        if file and not file.parent.is_dir():
            parser.error(f"{file} cannot be written: allowed are files in folders that are there.")
    set_up(given.precision, given.deterministic)
    if given.processor_time:
        os.environ["BENCHMARK_CLOCK"] = "processor"
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
            rows = [
                {**figure._asdict(), "median": figure.median, "met": figure.met}
                for figure in figures
            ]
            text = json.dumps({"machine": about, "rounds": given.rounds, "figures": rows}, indent=1)
            given.json.write_text(text + "\n")
    print(f"took {time.perf_counter() - start:.0f} s", flush=True)
    if given.picture:
        picture.draw(figures, given.picture, "; ".join(about.values()))


def set_up(precision: str, deterministic: bool) -> None:
    """Tells the rivals, all of which inherit the environment, how to compute."""
    from plasticity_jax.cli.launcher import DETERMINISTIC

    os.environ["BENCHMARK_PRECISION"] = precision
    if deterministic:
        os.environ["BENCHMARK_DETERMINISTIC"] = "1"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {DETERMINISTIC}"
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # without it PyTorch refuses


def first_line(part: Callable) -> str:
    """Returns what a part is, in a line."""
    return (part.__doc__ or "").partition("\n")[0]


def machine() -> dict[str, str]:
    """Returns what the times depend on."""
    from plasticity_jax.execution import record

    try:
        model = processor(Path("/proc/cpuinfo").read_text())
    except (OSError, KeyError):
        model = platform.processor()
    packages = ("plasticity_jax", "jax", "jaxlib", "flax", "optax", "numpy", "torch")
    versions = ", ".join(f"{name} {record.version(name)}" for name in packages)
    where = devices()
    return {
        "machine": f"{cores()} cores, {model}",
        "devices": f"jax {where.count} x {where.kind} ({where.backend}), PyTorch {torch_device()}",
        "seconds": worker.clock().__name__,
        "arithmetic": worker.precision()
        + (", deterministic" if "BENCHMARK_DETERMINISTIC" in os.environ else ""),
        "versions": f"python {platform.python_version()}, {versions}",
        "time": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }


def torch_device() -> str:
    """Returns where PyTorch computes; a rival on another kind of device than jax would be no
    rival.
    """
    ask = (
        "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else 'cpu')"
    )
    return subprocess.check_output([sys.executable, "-c", ask], text=True).strip()


if __name__ == "__main__":
    main()
