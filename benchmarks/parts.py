"""The parts of the benchmark: what is measured against what, and the figure to reach."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

from benchmarks.rivals import Figure, alternate, cores, divide, rival, say

FULL_EPOCHS, FULL_STEPS = 240, 19_200  # a task of Random MNIST: 5,120 images, batch 64
LAYERS = [(784, 256), (256, 256), (256, 256), (256, 256), (256, 10)]


def useful_gflop(batch_size: int) -> float:
    """Returns the GFLOP of a step's matrix products: forward, by weights, by inputs (but not the network's input)."""
    products = sum(before * after for before, after in LAYERS)
    first = LAYERS[0][0] * LAYERS[0][1]
    return 1e-9 * batch_size * (6 * products - 2 * first)


def mlp(rounds: int) -> list[Figure]:
    """Training against eager PyTorch and against the machine's own matrix product, at batch 64 and 256."""
    figures = []
    for batch_size, reach in ((64, 1.8), (256, 1.3)):
        rivals = {
            "2 lanes": rival("sweep", lanes=2, batch_size=batch_size),
            "8 lanes": rival("sweep", lanes=8, epochs=8, batch_size=batch_size),
            "torch": rival("torch", batch_size=batch_size),
            "torch a core": rival("torch", processes=cores(), threads=1, batch_size=batch_size),
            "matmul jax": rival("jax_matmul", piece=0.7, size=2048, spread=False),
            "matmul jax a core": rival("jax_matmul", piece=0.7, size=2048, spread=True),
            "matmul torch": rival("torch_matmul", piece=0.7, size=2048),
        }
        rates = alternate(rivals, rounds)
        peak = [max(products) for products in zip(*(r for name, r in rates.items() if "matmul" in name), strict=True)]
        named = f"batch {batch_size}, "
        figures.append(Figure("mlp", f"{named}sgemm peak of this machine", peak, "GFLOP/s"))
        figures.append(Figure("mlp", f"{named}PyTorch, fused Adam, all cores", rates["torch"], "steps/s"))
        figures.append(Figure("mlp", f"{named}PyTorch, one process per core", rates["torch a core"], "steps/s"))
        for lanes in ("2 lanes", "8 lanes"):
            ours = rates[lanes]
            share = [useful_gflop(batch_size) * rate / most for rate, most in zip(ours, peak, strict=True)]
            figures += [
                Figure("mlp", f"{named}{lanes}", ours, "lane-steps/s"),
                Figure("mlp", f"{named}{lanes} / PyTorch", divide(ours, rates["torch"]), at_least=reach),
                Figure("mlp", f"{named}{lanes} / PyTorch, one process per core", divide(ours, rates["torch a core"])),
                Figure("mlp", f"{named}{lanes}, useful FLOP/s of sgemm peak", share, "%", at_least=0.65),
            ]
    return figures


def one_lane(rounds: int) -> list[Figure]:
    """One lane through the sweep against bare programs of the same training."""
    rivals = {
        "sweep": rival("sweep", lanes=1),
        "plain": rival("plain"),
        "by hand": rival("scan", batch_size=64, epochs=16),
    }
    rates = alternate(rivals, rounds)
    return [
        Figure("one_lane", "time, one lane / plain jitted scan", divide(rates["plain"], rates["sweep"]), at_most=1.1),
        Figure("one_lane", "time, one lane / scan without the library", divide(rates["by hand"], rates["sweep"])),
    ]


def probes(rounds: int) -> list[Figure]:
    """hessian_top in gradients of the same 512 examples; default probes against a task of full length."""
    curves = {
        "gradient": rival("curvature", what="gradient"),
        "hessian_top": rival("curvature", what="hessian_top"),
        "all iterations": rival("curvature", what="hessian_top", tolerance=0.0),
    }
    curve = alternate(curves, rounds)
    from plasticity_jax import Spec

    tasks = {
        "without": rival("sweep", lanes=cores(), epochs=1),
        "with": rival("sweep", lanes=cores(), epochs=1, probes=list(Spec().probes)),
        "long": rival("sweep", lanes=cores(), epochs=16),
    }
    rates = alternate(tasks, rounds)
    # seconds of a task of one epoch, and what the probes add to it, against the steps of a full task
    short = FULL_STEPS // FULL_EPOCHS
    added = [short / rate - short / bare for rate, bare in zip(rates["with"], rates["without"], strict=True)]
    share = [seconds * rate / FULL_STEPS for seconds, rate in zip(added, rates["long"], strict=True)]
    spent = divide(curve["gradient"], curve["hessian_top"])
    most = divide(curve["gradient"], curve["all iterations"])
    return [
        Figure("probes", "hessian_top after training", spent, "gradients", at_most=25),
        Figure("probes", "hessian_top, every iteration", most, "gradients"),
        Figure("probes", "default probes, seconds per lane and task", added, "s"),
        Figure("probes", "default probes / task of 19,200 steps", share, "%", at_most=0.03),
    ]


def start(rounds: int) -> list[Figure]:
    """Import, first compilation, and a second start that finds it in the persistent cache."""

    def child(*arguments: str) -> dict:
        command = [sys.executable, "-m", "benchmarks.start", *arguments]
        return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)

    child("import")  # fills the file cache
    imports, cold, warm = [], [], []
    for number in range(rounds):
        imports.append(child("import"))
        with tempfile.TemporaryDirectory() as folder:
            cold.append(child("first", folder, str(time.time())))
            warm.append(child("first", folder, str(time.time())))
        say(f"  round {number + 1} of {rounds}: {imports[-1]}, {cold[-1]}, {warm[-1]}")
    clean = [float(found["clean"]) for found in imports]
    return [
        Figure("start", "import", [found["seconds"] for found in imports], "s", at_most=2),
        Figure("start", "import sets no variable, starts no backend (1: yes)", clean, "", at_least=1),
        Figure("start", "compile", [found["compile"] for found in cold], "s", at_most=6),
        Figure("start", "compile, second start", [found["compile"] for found in warm], "s", at_most=2),
        Figure("start", "process to first task done, less training", [f["start"] for f in cold], "s"),
        Figure("start", "the same, second start", [f["start"] for f in warm], "s", at_most=4),
    ]


def methods(rounds: int) -> list[Figure]:
    """A step with each method against a step without."""
    from plasticity_jax.methods import METHODS

    rates = alternate({name: rival("sweep", lanes=cores(), epochs=12, method=name) for name in METHODS}, rounds)
    reach = {name: 1.3 if name == "spectral" else 1.08 for name in METHODS if name != "none"}
    return [
        Figure("methods", f"time, {name} / none", divide(rates["none"], rates[name]), at_most=most)
        for name, most in reach.items()
    ]


def lanes(rounds: int) -> list[Figure]:
    """Lane-steps per second over the number of lanes, and with different granularities in one program."""
    counts = (1, 2, 4, 8, 16)
    rivals = {str(count): rival("sweep", lanes=count, epochs=max(1, 32 // count)) for count in counts}
    rivals["mixed"] = rival("sweep", lanes=8, epochs=4, granularity=[1, 2, 4, 20])
    rates = alternate(rivals, rounds)
    figures = [Figure("lanes", f"lanes: {count}", rates[str(count)], "lane-steps/s") for count in counts]
    mixed = divide(rates["8"], rates["mixed"])
    return [*figures, Figure("lanes", "time, 8 lanes, four granularities / one", mixed)]


def job(rounds: int) -> list[Figure]:
    """A whole run against its bare training steps: what a task costs besides, set against a task of full length."""
    few, many, epochs, count = 2, 12, 2, cores()
    with tempfile.TemporaryDirectory() as folder:
        common = {"epochs": epochs, "lanes": count, "cache_dir": folder}
        rivals = {
            "bare": rival("sweep", lanes=count, epochs=epochs),
            **{
                f"{place} {tasks}": rival("job", piece=None, tasks=tasks, on_disk=place == "disk", **common)
                for place in ("memory", "disk")
                for tasks in (few, many)
            },
        }
        rates = alternate(rivals, rounds)
    steps = count * epochs * FULL_STEPS // FULL_EPOCHS
    figures = []
    for place in ("memory", "disk"):
        # what each further task takes, beyond its steps; starting and compiling happen once and drop out
        more = [
            (1 / long - 1 / short) / (many - few)
            for short, long in zip(rates[f"{place} {few}"], rates[f"{place} {many}"], strict=True)
        ]
        added = [seconds - steps / rate for seconds, rate in zip(more, rates["bare"], strict=True)]
        whole = [1 + s * rate / (count * FULL_STEPS) for s, rate in zip(added, rates["bare"], strict=True)]
        where = "checkpoints and results on disk" if place == "disk" else "in memory"
        figures += [
            Figure("job", f"a task besides its steps, {where}", added, "s"),
            Figure("job", f"time, {where} / bare, task of 19,200 steps", whole, at_most=1.08),
        ]
    return figures


PARTS: dict[str, Callable[[int], list[Figure]]] = {
    "mlp": mlp,
    "one_lane": one_lane,
    "probes": probes,
    "start": start,
    "methods": methods,
    "lanes": lanes,
    "job": job,
}
