"""Every command of the notes' table of contracts runs, and leaves what its row says."""

import json
import pathlib
import re

import numpy as np
import pandas as pd
import pytest

from plasticity_jax.cli import launcher

pytestmark = pytest.mark.usefixtures("compiled_quickly")

ROOT = pathlib.Path(__file__).parents[2]
SMALL = "--epochs=7 --batch_size=20 --seeds=1 --noprogress --width=8 --depth=2"
SMALL = (SMALL + " --tasks=3 --samples=60").split()
NOTES = (ROOT / "docs" / "decisions" / "streams.md").read_text(encoding="utf-8")
TABLE = NOTES.partition("| contract | command |")[2]
ROWS = {}
for line in TABLE.split("\n\n")[0].splitlines()[2:]:
    contract, told = [cell.strip() for cell in line.strip().strip("|").split(" | ")][:2]
    ROWS[contract] = [
        flag for text in re.findall("`([^`]+)`", told) for flag in text.split() if flag[:2] == "--"
    ]


def columns(workdir):
    return set(pd.read_parquet(workdir / "results.parquet"))


def settings(workdir):
    return json.loads((workdir / "config.json").read_text())["settings"]


def options(workdir):
    return set(dict(settings(workdir)["programs"][0]["spec"]["options"]))


def several(name, *wanted):
    def found(workdir):
        values = pd.read_parquet(workdir / "results.parquet")[name].unique()
        return sorted(values) == pytest.approx(list(wanted))

    return found


# what each row leaves in its workdir
LEFT = {
    "numbers of an environment as axes, whole ones too": lambda workdir: (
        several("random_labels.share", 0.1, 0.3)(workdir)
        and several("random_labels.every", 2)(workdir)
    ),
    "a target fixed over the run, a task that remembers the one before": lambda workdir: (
        {"online_loss", "loss"} <= columns(workdir)
    ),
    "a long task in parts; outputs that count": several("part", 0, 1),
    "real targets, features": lambda workdir: "test_squared_error" in columns(workdir),
    "tasks that come back": lambda workdir: settings(workdir)["programs"][0]["spec"]["cycle"] == 5,
    "what acts before a task's first step": several("method", "head_reset+shrink_and_perturb"),
    "a term that sees the network": several("method", "feature_norm"),
    "rewrites that see gradient and memory; one unit drawn": lambda workdir: (
        several("method", "continual_backprop")(workdir)
        and several("continual_backprop.maturity", 10)(workdir)
    ),
    "real numbers, below 0 too; a head between environment and model": lambda workdir: (
        several("two_hot.low", -10, -5)(workdir) and "outside_range" in columns(workdir)
    ),
    "examples that training alone sees changed; dropout; classes grouped anew": lambda workdir: (
        options(workdir) >= {"class_split.augment", "class_split.classes", "mlp.dropout"}
    ),
    "norms without scale and offset": lambda workdir: "mlp.norm_affine" in options(workdir),
    "probes at the start of a task": lambda workdir: "hessian_top:start" in columns(workdir),
    "probes of preactivations": lambda workdir: "linearized_fraction" in columns(workdir),
    "probes of several numbers": lambda workdir: any((workdir / "arrays").iterdir()),
    "values within a task, and over all of it": lambda workdir: (
        "online_accuracy_mean" in columns(workdir)
        and len(pd.read_parquet(workdir / "points.parquet")) > 20
    ),
    "earlier tasks again": lambda workdir: "revisit_3_accuracy" in columns(workdir),
    "learning rates that change; clipping": several("method", "clip"),
    "the environment's usual transition and dataset": several("environment", "permuted_pixels"),
    "a run that begins from another, with a surgery": several("surgery", "perturb"),
}


def run(workdir, *flags):
    experiment = launcher.Experiment("What it is.")
    given = [*SMALL, f"--workdir={workdir}"]
    if not any(flag.startswith("--probes") for flag in flags):
        given.append("--probes=none")
    assert launcher.launch(experiment, [*given, *flags]) == 0


@pytest.mark.parametrize("contract", [row for row, flags in ROWS.items() if flags])
@pytest.mark.long
def test_a_row_of_the_notes_runs(contract, tmp_path, monkeypatch):
    monkeypatch.setenv("PLASTICITY_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(launcher, "prepare_jax", lambda *_: None)
    flags = ROWS[contract]
    if "--environment=regression" in flags:
        from sklearn.datasets import load_diabetes  # (seconds, for every worker of the tests)

        x, y = load_diabetes(return_X_y=True)
        for part, rows in (("train", slice(0, 100)), ("test", slice(100, 140))):
            np.save(tmp_path / f"{part}_images.npy", np.float32(x[rows]))
            np.save(tmp_path / f"{part}_labels.npy", np.float32(y[rows]))
    if any(flag.startswith("--start=") for flag in flags):
        run(tmp_path / "first")
    folder = {"arrays:PATH": f"arrays:{tmp_path}", "--start=DIR": f"--start={tmp_path / 'first'}"}
    for told, meant in folder.items():
        flags = [flag.replace(told, meant) for flag in flags]
    run(tmp_path / "run", *flags)
    assert pd.read_parquet(tmp_path / "run" / "results.parquet").task.max() >= 2
    assert LEFT[contract](tmp_path / "run")


def test_every_row_says_what_it_leaves():
    assert {row for row, flags in ROWS.items() if flags} == set(LEFT)
