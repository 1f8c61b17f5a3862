"""Whether small runs give the same tables as at another commit, to the bit.

Command: python -m benchmarks.same COMMIT
Runs the demo, methods, texts and a ResNet-18, each as small as it can be, in this checkout and
  in a work tree of COMMIT, and compares the columns that both tables have. Prints how many values
  agree, and the largest difference of two numbers. The exit code is 1 where one does not agree.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from benchmarks import against

PROBES = (
    "hessian_top,representation_change,dormant_fraction,tau_dormant_fraction,distance_from_init,"
    "parameter_norm,gradient_norm,effective_rank"
)
"""All that there were with one paper, by the names that they have."""
RUN = ("experiments.run", "--tasks=2", "--seeds=1", "--probes=dormant_fraction")
WORDS = (
    "--dataset=generated",
    "--random_seq2seq.words=2",
    "--random_seq2seq.target_words=2",
    "--model=t5",
    "--width=16",
)
IMAGES = ("--environment=random_labels", "--dataset=digits", "--model=resnet18", "--norm=batch")
RUNS = {
    "demo": ("experiments.demo", "--epochs=6", "--tasks=3", "--seeds=2", f"--probes={PROBES}"),
    "methods": (  # (not spectral, whose last digits have changed since)
        *(*RUN, "--environment=random_labels", "--dataset=digits", "--samples=128", "--width=16"),
        *("--epochs=4", "--method=l2,l2_init,shrink_and_perturb,redo,optimizer_reset"),
    ),
    "texts": (
        *(*RUN, "--environment=random_seq2seq", "--transition=sampling", *WORDS, "--depth=1"),
        *("--samples=64", "--batch_size=16", "--epochs=2", "--granularity=1,4"),
    ),
    "ResNet-18": (
        *(*RUN, *IMAGES, "--resnet18.base=4"),
        *("--samples=64", "--batch_size=16", "--epochs=1", "--granularity=1,2"),
    ),
}


class Compared(NamedTuple):
    """Values of two tables, those that agree, and the largest difference of two numbers."""

    values: int
    agree: int
    difference: float


def main(commit: str) -> int:
    """Prints a line for each run; returns how many of them differ."""
    different = 0
    with against.checked_out(commit) as there:
        for name, command in RUNS.items():
            found = compared(table(against.ROOT, command), table(there, command))
            told = f"{found.agree:,} of {found.values:,} values agree"
            print(f"{name}: {told}, largest difference {found.difference:g}", flush=True)
            different += found.agree < found.values
    return different


def table(root: Path, command: tuple[str, ...]) -> pd.DataFrame:
    """Returns what a command of the checkout in `root` leaves in its results.parquet."""
    with tempfile.TemporaryDirectory() as folder:
        given = ["-m", *command, f"--workdir={folder}/run", "--noprogress"]
        own = against.environment(root, folder)
        subprocess.run(
            [sys.executable, *given], cwd=root, env=own, stdout=subprocess.DEVNULL, check=True
        )
        return pd.read_parquet(f"{folder}/run/results.parquet")


def compared(here: pd.DataFrame, there: pd.DataFrame) -> Compared:
    """Compares the columns that both tables have, row by row; NaN agrees with NaN."""
    if len(here) != len(there):
        raise ValueError(f"the tables have {len(here)} and {len(there)} rows: allowed are as many.")
    values, agree, largest = 0, 0, 0.0
    for column in here.columns.intersection(there.columns):
        one, other = here[column], there[column]
        equal = (one == other) | (one.isna() & other.isna())
        values += len(equal)
        agree += int(equal.sum())
        if pd.api.types.is_numeric_dtype(one):
            apart = (one[~equal].astype(float) - other[~equal].astype(float)).abs()
            largest = max([largest, *apart.fillna(float("inf"))])
    return Compared(values, agree, largest)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]) > 0)
