"""What a start costs, seen from a fresh process: `python -m benchmarks.start
import|first|launch|figure ..` prints JSON.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path


def importing() -> dict[str, float | bool]:
    """Imports the library; "clean": it set no environment variable (beyond those that jax sets) and
    started no backend.
    """
    start = time.perf_counter()
    import jax

    before = dict(os.environ)
    import plasticity_jax  # noqa: F401

    seconds = time.perf_counter() - start
    try:
        jax.config.update("jax_num_cpu_devices", 3)  # refused once a backend runs
        idle = True
    except RuntimeError:
        idle = False
    return {"seconds": seconds, "clean": idle and before == dict(os.environ)}


def first_task(cache_dir: str, spawned: str) -> dict[str, float]:
    """From nothing to the end of a first task with default probes, with a persistent compilation
    cache in `cache_dir`.

    `spawned`: time.time() of the parent just before this process was. Training is a second call of
    the compiled task; "compile" is tracing, lowering and compiling or loading of everything up to
    the first, "start" is all but training.
    """
    import jax

    from benchmarks import worker
    from plasticity_jax import Spec
    from plasticity_jax.execution import compiled as compiled_
    from plasticity_jax.execution import program as program_

    worker.set_up_jax(cache_dir)
    data = worker.data()
    jax.devices()  # starts the backend, which is not compilation
    one = Spec(epochs=1, samples=worker.SAMPLES)
    start = time.perf_counter()
    program = program_.plan([(one, [{"seed": 0}, {"seed": 1}])], worker.SAMPLES)[0]
    compiled = compiled_.compile_program(program, data)
    states, metrics = compiled.run_task(compiled.init(), 0)
    jax.block_until_ready(metrics)
    finished, middle = time.time(), time.perf_counter()
    jax.block_until_ready(compiled.run_task(states, 1)[1])
    task = time.perf_counter() - middle
    return {"compile": middle - start - task, "start": finished - float(spawned) - task}


def launching(cache_dir: str) -> dict[str, float]:
    """From a command line to the first task in results.parquet: `experiments.run`, 2 seeds, an
    epoch, default probes.
    """
    import numpy as np

    from benchmarks import worker

    arrays = Path(cache_dir, "arrays")
    arrays.mkdir(exist_ok=True)
    for name, array in zip(("images", "labels"), worker.images_and_labels(), strict=True):
        np.save(arrays / f"train_{name}.npy", array)
    with tempfile.TemporaryDirectory(dir=cache_dir) as folder:
        flags = {
            "workdir": folder,
            "dataset": f"arrays:{arrays}",
            "samples": 5120,
            "tasks": 1,
            "epochs": 1,
            "seeds": 2,
        }
        settings = (f"--{name}={value}" for name, value in flags.items())
        command = [sys.executable, "-m", "experiments.run", "--noprogress", *settings]
        spawned = time.time()
        environment = {**os.environ, "PLASTICITY_CACHE_DIR": cache_dir}
        subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
        return {"seconds": Path(folder, "results.parquet").stat().st_mtime - spawned}


def figure(programs: str, count: str) -> dict[str, float]:
    """A run of so many programs of `count` lanes, each of whose tasks take half as long again as to
    compile one of them, twice: "in turn", where no program is compiled before its turn, and
    "ahead". What a task takes is the median of those of the run in turn, which nothing runs beside.

    "compile": seconds until a program's first task is done, less a task; the others: what a run
    takes besides its tasks.
    """
    import numpy as np

    from benchmarks import worker
    from plasticity_jax import Spec
    from plasticity_jax.execution import ahead as ahead_
    from plasticity_jax.execution import sweep

    worker.set_up_jax()
    lanes = [{"seed": seed} for seed in range(int(count))]
    # (programs that differ, and take as long)
    samples = iter(range(512, 0, -1))

    def run(folder: str, count: int, tasks: int) -> tuple[float, np.ndarray]:
        """Returns seconds of the whole, and of each program until each of its tasks is done."""
        made = [
            Spec(
                epochs=2,
                samples=worker.SAMPLES,
                probe_samples=next(samples),
                tasks=tasks,
                dataset=f"arrays:{folder}",
            )
            for _ in range(count)
        ]
        start = time.perf_counter()
        times = [start]
        sweep.run(
            [(spec, lanes) for spec in made], on_task=lambda rows: times.append(time.perf_counter())
        )
        return time.perf_counter() - start, np.diff(times).reshape(count, tasks)

    with tempfile.TemporaryDirectory() as folder:
        for name, array in zip(("images", "labels"), worker.images_and_labels(), strict=True):
            np.save(Path(folder, f"train_{name}.npy"), array)
        _, alone = run(folder, 1, 4)
        task = float(np.median(alone[0, 1:]))
        tasks = int(1.5 * (alone[0, 0] - task) / task) + 2
        begin = ahead_.Ahead.begin
        ahead_.Ahead.begin = lambda self: None
        in_turn, times = run(folder, int(programs), tasks)
        ahead_.Ahead.begin = begin
        ahead, _ = run(folder, int(programs), tasks)
    task = float(np.median(times[:, 1:]))
    besides = int(programs) * tasks * task
    compiling = float(np.mean(times[:, 0]) - task)
    return {"compile": compiling, "in turn": in_turn - besides, "ahead": ahead - besides}


KINDS: dict[str, Callable[..., dict]] = {
    "import": importing,
    "first": first_task,
    "launch": launching,
    "figure": figure,
}

if __name__ == "__main__":
    print(json.dumps(KINDS[sys.argv[1]](*sys.argv[2:])))
