"""A run in a process of its own, which others stop or kill: python worked.py CASE WORKDIR TASKS."""

import locale
import os
import sys

import plasticity_jax as pj
from plasticity_jax.cli import launcher
from plasticity_jax.execution import tasks

SMALL = {"dataset": "digits", "samples": 128, "batch_size": 32, "epochs": 2, "probes": ()}
MLP = {**SMALL, "width": 8, "depth": 1}
AGENT = {"environment": "bandit", "phase_steps": 400, "width": 8, "depth": 1, "probes": ()}
TEXT = {
    "environment": "random_seq2seq",
    "dataset": "generated",
    "model": "t5",
    "samples": 64,
    "batch_size": 32,
    "epochs": 1,
    "transition": "sampling",
    "width": 16,
    "probes": (),
    "options": {"t5.feed_forward": 32, "t5.heads": 2, "random_seq2seq.words": 2},
}
CASES = {
    "methods": {**MLP, "method": "redo+l2_init", "probes": ("dormant_fraction",)},
    "split": {**MLP, "environment": "class_split", "options": {"class_split.classes": "regroup"}},
    "replay": AGENT,
    "text": TEXT,
    # whose compilation takes far longer than a run that is stopped may
    "long": {**SMALL, "model": "resnet18", "method": "spectral", "samples": 32, "epochs": 1},
}
SEEDS = [{"seed": seed} for seed in range(2)]


def spec(case: str, count: int) -> pj.Spec:
    return pj.Spec(**CASES[case], tasks=count)


def main(case: str, folder: str, count: str) -> None:
    if "PLASTICITY_FAULTS_LOCALE" in os.environ:
        locale.setlocale(locale.LC_ALL, "")  # (for libraries in C, which Python leaves alone)
        print(locale.format_string("%.1f", 1.5), file=sys.stderr)
    launcher.prepare_jax()
    with launcher.interruptible():
        print(0, flush=True)  # (before, while modules are imported, signals are Python's own)
        try:
            pj.run(spec(case, int(count)), SEEDS, folder, on_task=tell)
        except tasks.Stopped as stopped:
            launcher._stopped(stopped)


def tell(rows) -> None:
    print(int(rows["task"].max()) + 1, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
