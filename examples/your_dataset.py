"""Your data: a loader for tables of features, by name, from a folder of files.

Run: python examples/your_dataset.py (seconds)

A loader returns a `pj.datasets.Dataset`: arrays on the host, with what normalizes them, where they
are from, and a fingerprint by which a run that goes on notices other data. Entered in
`pj.datasets.DATASETS`, its name is one of `--dataset`. (Arrays that are already in files need no
loader: `--dataset=arrays:DIR`.)
"""

import pathlib
import tempfile

import numpy as np

import plasticity_jax as pj
from plasticity_jax.datasets import contract


def spirals(name, data_dir=None, download=False):
    """Points of a plane in `spirals.csv` of the data folder, labels 0 to 2 in the last column.

    Every fifth row is held out, for environments that test. Raises DataError where the file is not
    as it should be.
    """
    path = pathlib.Path(data_dir or ".") / f"{name}.csv"
    try:
        rows = np.loadtxt(path, delimiter=",", dtype=np.float32, ndmin=2)
    except (OSError, ValueError) as fault:
        raise pj.datasets.DataError(
            f"{path} cannot be read ({fault}): expected a file with numbers and commas."
        ) from fault
    features, labels = rows[:, :-1], rows[:, -1].astype(np.int32)
    held_out = np.arange(len(rows)) % 5 == 4
    parts = (features[~held_out], labels[~held_out], features[held_out], labels[held_out])
    mean, std = contract.statistics(parts[0])  # of training rows alone
    known = contract.fingerprint(parts)
    return pj.datasets.Dataset(name, str(path), known, 3, *parts, mean=mean, std=std)


def draw(folder):
    """Writes the file: three arms of a spiral, two hundred points of each."""
    random = np.random.default_rng(0)
    labels = np.arange(600) % 3
    radius = random.uniform(0.1, 1.0, 600)
    angle = 4 * radius + labels * 2 * np.pi / 3 + random.normal(0, 0.1, 600)
    rows = np.stack([radius * np.cos(angle), radius * np.sin(angle), labels], axis=1)
    np.savetxt(folder / "spirals.csv", rows, delimiter=",", fmt="%.6g")


pj.datasets.DATASETS["spirals"] = spirals
spec = pj.Spec(
    dataset="spirals",
    options={"random_labels.draw": "classes"},  # in every task the classes change names
    tasks=4,
    epochs=30,
    width=32,
    depth=2,
    probes=(),
)
lanes = pj.grid(learning_rate=1e-2, granularity=[1, 10], seed=range(2))
with tempfile.TemporaryDirectory() as name:
    try:
        pj.run(spec, lanes, data_dir=name)
    except pj.datasets.DataError as fault:
        print("without the file:", fault)
    draw(pathlib.Path(name))
    table = pj.run(spec, lanes, data_dir=name)
columns = ["online_accuracy_mean", "online_accuracy", "accuracy"]
print(table.groupby(["granularity", "task"])[columns].mean().to_string(float_format="%.3f"))
