"""A workdir of an early commit (b218645), unfinished, goes on and is collected.

It was made there by `python -m experiments.run` with `ARGUMENTS` and `--tasks=1`; `whole.csv` in it
has the main columns of the same run with three tasks, also made there.
"""

import pathlib
import zipfile

import numpy as np
import pandas as pd
import pytest

from experiments import run
from plasticity_jax.cli import flags, launcher
from plasticity_jax.reporting import collect

pytestmark = pytest.mark.usefixtures("compiled_quickly")

ARCHIVE = pathlib.Path(__file__).parents[1] / "helpers" / "workdir_of_0_1_0.zip"
ARGUMENTS = [
    "--dataset=digits",
    "--samples=64",
    "--transition=output",
    "--granularity=1,2",
    "--method=none,shrink_and_perturb,redo,redo+l2_init",
    "--redo.period=3",
    "--redo.score=running",
    "--epochs=2",
    "--batch_size=16",
    "--width=4",
    "--depth=1",
    "--norm=none",
    "--seeds=2",
    "--probes=dormant_fraction",
    "--noprogress",
]


@pytest.fixture
def old(tmp_path):
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(tmp_path / "old")
    return tmp_path / "old"


def launched(folder, tasks) -> pd.DataFrame:
    argv = [*ARGUMENTS, f"--tasks={tasks}", f"--workdir={folder}"]
    assert launcher.launch(launcher.Experiment(run.__doc__), argv) == 0
    return pd.read_parquet(folder / "results.parquet")


@pytest.mark.long
def test_it_goes_on_with_the_same_numbers(old):
    before = pd.read_parquet(old / "results.parquet")
    table = launched(old, 3)
    columns = [c for c in before if not c.startswith("plasticity")]
    kept = table[table["task"] == 0].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept[columns], before[columns], check_exact=True)
    whole = pd.read_csv(old / "whole.csv")
    assert table["lane"].tolist() == whole["lane"].tolist()
    assert table["task"].tolist() == whole["task"].tolist()
    for column in ("online_accuracy", "accuracy", "dormant_fraction", "loss"):
        # another processor may round otherwise, and a step or two later an example may be another
        np.testing.assert_allclose(table[column], whole[column], rtol=1e-3, atol=1 / 64)
    assert table["random_labels.share"].eq(1).all()
    assert table.loc[table["task"] == 0, "online_loss"].isna().all()  # was not measured then
    assert table.loc[table["task"] > 0, "online_loss"].notna().all()


def test_it_is_known_again_and_collected(old):
    before = pd.read_parquet(old / "results.parquet")
    values, given = flags.parse([*ARGUMENTS, "--tasks=1"])
    found = collect.collect([str(old)], flags.runs(values, given))
    assert found["dataset"].eq("digits").all()
    for spec, _ in flags.runs(values, given):
        own = found[found["method"] == spec.method]
        for name, value in spec.settings().items():
            assert own[name].eq(value).all(), name
    columns = ["lane", "task", "seed", "method", "granularity", "accuracy", "loss"]
    pd.testing.assert_frame_equal(
        found[columns].reset_index(drop=True), before[columns], check_dtype=False, check_exact=True
    )
