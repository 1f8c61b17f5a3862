"""What a start costs, seen from a fresh process: `python -m benchmarks.start import|first ..` prints JSON."""

import json
import os
import sys
import time


def importing() -> dict[str, float | bool]:
    """Imports the library; "clean": it set no environment variable (beyond those that jax sets) and started no backend."""
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


def first_task(cache_dir: str, spawned: float) -> dict[str, float]:
    """From nothing to the end of a first task with default probes, with a persistent compilation cache in `cache_dir`.

    `spawned`: time.time() of the parent just before this process was. Training is a second call of the compiled task;
    "compile" is tracing, lowering and compiling or loading of everything up to the first, "start" is all but training.
    """
    import jax

    from benchmarks import worker
    from plasticity_jax import Spec, sweep

    worker.set_up_jax(cache_dir)
    data = worker.data()
    jax.devices()  # starts the backend, which is not compilation
    one = Spec(epochs=1, samples=worker.SAMPLES)
    start = time.perf_counter()
    program = sweep.plan([(one, [{"seed": 0}, {"seed": 1}])], worker.SAMPLES)[0]
    compiled = sweep.compile_program(program, data)
    states, metrics = compiled.run_task(compiled.init(), 0)
    jax.block_until_ready(metrics)
    finished, middle = time.time(), time.perf_counter()
    jax.block_until_ready(compiled.run_task(states, 1)[1])
    task = time.perf_counter() - middle
    return {"compile": middle - start - task, "start": finished - spawned - task}


if __name__ == "__main__":
    found = importing() if sys.argv[1] == "import" else first_task(sys.argv[2], float(sys.argv[3]))
    print(json.dumps(found))
