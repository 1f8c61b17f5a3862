"""Runs from the command line in processes of their own, and those of their slices."""

import sys
import time

from plasticity_jax.cli import launcher
from plasticity_jax.execution.engines import worker
from plasticity_jax.storage import workdir


def command(folder, data, *more, name="run"):
    words = ["--tasks=3", "--epochs=2", "--width=8", "--depth=1", "--norm=none", "--seeds=2"]
    words += ["--batch_size=16", "--probes=none", "--noprogress", f"--dataset={data}", *more]
    return [sys.executable, "-m", "plasticity_jax", name, f"--workdir={folder}", *words]


def ended(folders):
    """Runs slices one after another in this process; why one failed."""
    failed = {}
    for folder in folders:
        try:
            worker.check_ready(folder)
            worker.run(folder)
        except (ValueError, *launcher.ENVIRONMENT_FAULTS) as error:
            failed[folder] = launcher.sentence(error)
    return failed


def finish(process):
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def wait_for(folder, besides=()):
    """The processes of slices that have begun, once there is a new one."""
    for _ in range(3000):
        found = []
        for lock in (folder / "slices").glob("*/lock"):
            if workdir.is_held(lock.parent):
                found.append(int(lock.read_text().partition('"pid": ')[2].partition(",")[0] or 0))
        new = [pid for pid in found if pid and pid not in besides]
        if new:
            return new
        time.sleep(0.02)
    raise AssertionError("no slice has begun")
