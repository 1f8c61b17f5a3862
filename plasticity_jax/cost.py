"""What a run will take on this machine: time, from a few seconds of it, and memory, before it starts."""

import dataclasses
import os
import time
from collections.abc import Sequence

import jax
import numpy as np

from plasticity_jax import datasets, sweep
from plasticity_jax import lanes as lanes_
from plasticity_jax.methods import METHODS
from plasticity_jax.spec import Spec

BATCHES = 20  # at most, in an epoch of the trial
EPOCHS = (1, 4)  # of the two trials, whose difference is training alone
REPEATS = 3


def seconds(programs: Sequence[sweep.Program], dataset: datasets.Dataset) -> float:
    """Returns the estimated wall time of a run, without compiling: good to about a factor of 1.5 on a quiet machine.

    One block of lanes of each program is tried for a few epochs on part of the data, once for all programs that differ
    in nothing but method and transition, whose cost differs less than that.
    """
    known: dict[tuple, tuple[float, float]] = {}
    total = 0.0
    for program in programs:
        spec, how = program.spec, program.execution
        plain = _plain(spec)
        if (plain, how) not in known:
            known[plain, how] = _trial(program._replace(spec=plain), dataset)
        step, rest = known[plain, how]
        per_epoch = len(dataset.images) // spec.batch_size
        # the whole task is evaluated once at its end, which takes about a third of a step for each batch
        task = step * per_epoch * (spec.epochs + 1 / 3) + rest / spec.probe_every
        blocks = -(-len(program.lanes) // (how.width * how.devices))
        total += blocks * spec.tasks * task
    return total


def check_memory(programs: Sequence[sweep.Program], dataset: datasets.Dataset) -> None:
    """Returns if the programs fit into memory, by an estimate good to about a factor of two.

    Raises MemoryError: one sentence with what is needed, what there is, and how many lanes fit.
    """
    free = free_memory()
    known: dict[Spec, tuple[int, int]] = {}
    for program in programs:
        spec, how = _plain(program.spec), program.execution
        if spec not in known:
            known[spec] = sweep.memory(spec, dataset)
        waiting, running = known[spec]
        together = how.width * how.devices
        lanes = lanes_.padded(len(program.lanes), how)
        needed = lanes * waiting + together * running
        if needed > free:
            fit = max(0, (free - together * running) // max(waiting, 1)) // together * together
            allowed = f"at most {fit} lanes fit" if fit else "a smaller model, batch or lane_width is allowed"
            raise MemoryError(
                f"{lanes} lanes of {spec.model}, {together} at a time, need about {needed / 2**30:,.1f} GiB, "
                f"but {free / 2**30:,.1f} GiB are free: {allowed}."
            )


def free_memory() -> int:
    """Returns the bytes that a run may use: of the accelerator, or of this machine."""
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    if limit:
        return limit
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            return next(1024 * int(line.split()[1]) for line in file if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _plain(spec: Spec) -> Spec:
    """The Spec without method, with the transition and the run's length that all others share."""
    options = {name: v for name, v in spec.options if name.partition(".")[0] not in METHODS}
    return dataclasses.replace(
        spec, method="none", transition="sampling", tasks=2, epochs=1, probe_every=1, options=options
    )


def _trial(program: sweep.Program, dataset: datasets.Dataset) -> tuple[float, float]:
    """Seconds of a step and of a task's end (probes and decoding) for one block of lanes."""
    spec, how = program.spec, program.execution
    count = min(len(dataset.images), BATCHES * spec.batch_size)
    part = dataclasses.replace(dataset, images=dataset.images[:count], labels=dataset.labels[:count])
    lane = {name: value for name, value in program.lanes[0].items() if name.partition(".")[0] not in METHODS}
    lanes = [lane | {"granularity": 1}] * (how.width * how.devices)
    times = []
    for epochs in EPOCHS:
        one = dataclasses.replace(spec, epochs=epochs)
        compiled = sweep.compile_program(sweep.Program(one, lanes, how), sweep.device_data(part))
        states = jax.block_until_ready(compiled.run_task(compiled.init(), 0))[0]
        taken = []
        for number in range(REPEATS):
            start = time.perf_counter()
            states = jax.block_until_ready(compiled.run_task(states, number))[0]
            taken.append(time.perf_counter() - start)
        times.append(float(np.median(taken)))
    per_epoch = count // spec.batch_size
    step = max(times[1] - times[0], 0.0) / ((EPOCHS[1] - EPOCHS[0]) * per_epoch)
    return step, max(times[0] - step * per_epoch * (EPOCHS[0] + 1 / 3), 0.0)
