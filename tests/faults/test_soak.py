"""One run of thousands of tasks: the last ones take as long as early ones, and hardly more
memory.
"""

import os
import pathlib
import time

import numpy as np
import pytest
from scipy import stats

import plasticity_jax as pj

pytestmark = [pytest.mark.faults, pytest.mark.slow]

TASKS = int(os.environ.get("PLASTICITY_FAULTS_TASKS", "10000"))
EARLY, BLOCK, BLOCKS = 500, 100, 12
FIRST = 5  # tasks of a block that are left out, since compiling is among them
SEEDS = [{"seed": 0}, {"seed": 1}]
SMALL = {"dataset": "digits", "samples": 128, "batch_size": 32, "epochs": 2, "width": 8, "depth": 1}
MEMORY = 1.01


def resident():
    """Bytes of memory that this process has."""
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def went_on(folder, count):
    """Seconds of CPU of each task, and the memory after it."""
    spec = pj.Spec(**SMALL, method="redo+l2_init", probes=("dormant_fraction",), tasks=count)
    seen = []
    pj.run(spec, SEEDS, folder, on_task=lambda rows: seen.append((time.process_time(), resident())))
    times, memory = np.array(seen).T
    return np.diff(times)[FIRST:], memory[FIRST:]


def test_time_and_memory_of_a_task_stay(tmp_path):
    """Times of an early and of the late run are taken in turn, as other work slows both down."""
    _, memory = went_on(tmp_path / "late", TASKS)
    part = len(memory) // 10
    grown = np.median(memory[-part:]) / np.median(memory[:part])
    went_on(tmp_path / "early", EARLY)
    ratios = []
    for number in range(1, BLOCKS + 1):
        early, _ = went_on(tmp_path / "early", EARLY + number * BLOCK)
        late, _ = went_on(tmp_path / "late", TASKS + number * BLOCK)
        ratios.append(np.log(np.median(late) / np.median(early)))
    mean, error = np.mean(ratios), stats.sem(ratios)
    low, high = np.exp(stats.t.interval(0.95, BLOCKS - 1, mean, error))
    print(f"time {np.exp(mean):.3f} ({low:.3f} to {high:.3f}), memory {grown:.3f}")
    assert low < 1.01
    assert grown < MEMORY
