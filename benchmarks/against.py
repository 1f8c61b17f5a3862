"""What compiling and a step cost beside another commit, in processor time, a command at a time.

Command: python -m benchmarks.against COMMIT [ROUNDS]
Runs `experiments.run` of this checkout and of COMMIT (in a work tree of its own, for as long as
  this takes) in turns, each with an empty compilation cache: for one epoch, nearly all of which is
  importing and compiling, and for many, whose difference from it is steps. Python's bytecode is
  there, as it is from the second start of a checkout on. Prints medians over
  ROUNDS (3) and the least, in seconds of all cores together, and the ratio of here to there.
"""

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PROBES = "--probes=hessian_top,representation_change,dormant_fraction,distance_from_init"


class Program(NamedTuple):
    """A command that both commits know.

    Attributes:
      flags: of `experiments.run`.
      epochs: of the longer run.
      steps: of an epoch.
    """

    flags: Sequence[str]
    epochs: int
    steps: int


USUAL = ("--seeds=2", "--batch_size=64", PROBES)
MLP = ("--environment=random_labels", "--dataset=digits", "--samples=1280", *USUAL)
SHORT = (f"--random_seq2seq.{name}=2" for name in ("words", "target_words", "word_length"))
TEXT = (
    "--environment=random_seq2seq",
    "--dataset=generated",
    "--transition=sampling",
    "--model=t5",
    "--samples=512",
)
PROGRAMS = {
    "demo": Program((*MLP, "--width=64"), 1001, 20),
    "figure 1a": Program((*MLP, "--width=256"), 201, 20),
    "T5": Program((*TEXT, *SHORT, *USUAL, "--width=32", "--depth=1"), 101, 8),
}
BYTECODE = (sys.executable, "-m", "compileall", "-q", "plasticity_jax", "experiments")


class Measured(NamedTuple):
    """Processor seconds of a command: with one epoch, and of each step more."""

    start: float
    step: float


def main(commit: str, rounds: int = 3) -> None:
    """Measures, and prints a row for each program and quantity."""
    with checked_out(commit) as other:
        for root in (ROOT, other):
            subprocess.run(BYTECODE, cwd=root, check=True)
        for name, program in PROGRAMS.items():
            pairs = [(measure(ROOT, program), measure(other, program)) for _ in range(rounds)]
            for quantity in Measured._fields:
                here = [getattr(own, quantity) for own, _ in pairs]
                there = [getattr(others, quantity) for _, others in pairs]
                print(row(f"{name}, {quantity}", here, there), flush=True)


@contextlib.contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """A work tree of `commit` while the context lasts."""
    with tempfile.TemporaryDirectory() as folder:
        other = Path(folder, "there")
        tree = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*tree, "add", "--quiet", "--detach", str(other), commit], check=True)
        try:
            yield other
        finally:
            subprocess.run([*tree, "remove", "--force", str(other)], check=True)


def measure(root: Path, program: Program) -> Measured:
    """Runs a program of the checkout in `root` twice, short and long."""
    short, long = (processor_seconds(root, program, epochs) for epochs in (1, program.epochs))
    return Measured(short, (long - short) / (program.steps * (program.epochs - 1)))


def environment(root: Path, folder: str) -> dict[str, str]:
    """Returns the environment of a command of the checkout in `root`, with a cache in `folder`."""
    own = {"PYTHONPATH": str(root), "PLASTICITY_CACHE_DIR": f"{folder}/cache"}
    return {**os.environ, **own}


def processor_seconds(root: Path, program: Program, epochs: int) -> float:
    """Returns the processor time of `experiments.run` in the checkout in `root`."""
    with tempfile.TemporaryDirectory() as folder:
        flags = (f"--workdir={folder}/run", f"--epochs={epochs}", "--tasks=1", "--noprogress")
        command = [sys.executable, "-m", "experiments.run", *program.flags, *flags]
        process = subprocess.Popen(
            command, cwd=root, env=environment(root, folder), stdout=subprocess.DEVNULL
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {process.returncode} in {root}.")
    return used.ru_utime + used.ru_stime


def row(name: str, here: Sequence[float], there: Sequence[float]) -> str:
    """A line of the table: medians and, in brackets, the least."""
    one, other = statistics.median(here), statistics.median(there)
    least = f"[{min(here):.4g}, {min(there):.4g}: {min(here) / min(there):.3f}]"
    return f"{name}: {one:.4g} s here, {other:.4g} there, ratio {one / other:.3f} {least}"


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:3]))
