"""The parts of the benchmark: what is measured against what, and the figure to reach."""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks import barriers, costs, further, slices
from benchmarks.rivals import (
    PIECE,
    Figure,
    Rival,
    alternate,
    best,
    cores,
    devices,
    divide,
    rival,
    say,
)
from benchmarks.worker import EPOCHS, TASK, useful_gflop


def mlp(rounds: int) -> list[Figure]:
    """Training against PyTorch and against the machine's own matrix product, at batch 64 and
    256.
    """
    return [*_mlp(rounds, 64, 1.8, 1.5, 0.62), *_mlp(rounds, 256, 1.3, 1.25, 0.82)]


def _mlp(
    rounds: int, batch_size: int, over_eager: float, over_best: float, of_peak: float
) -> list[Figure]:
    """What is to be reached by 8 lanes; by 2, as came earlier: `over_eager` as well, and 0.65 of
    the peak.
    """
    ours = {"kind": "sweep", "piece": None, "batch_size": batch_size}
    theirs = {"kind": "torch", "batch_size": batch_size}
    seeds = pytorch(**theirs, compiled=batch_size == 64)
    rivals = {
        "8 lanes": rival(**ours, lanes=8, epochs=8 if batch_size == 64 else 16),
        **seeds,
        "matmul jax a core": rival("jax_matmul", piece=0.6, size=2048, spread=True),
        "matmul torch": rival("torch_matmul", piece=0.6, size=2048),
    }
    if batch_size == 64:
        rivals["2 lanes"] = rival(**ours, lanes=2, epochs=8)
        rivals["one core"] = rival(**ours, lanes=1, epochs=8, pinned=True)
        rivals["torch one core"] = rival(**theirs, pinned=True)
    rates = alternate(rivals, rounds)
    peak = best(*(products for name, products in rates.items() if "matmul" in name))
    rival_best = best(*(rates[name] for name in seeds))
    named = f"batch {batch_size}, "
    figures = [
        Figure("mlp", f"{named}sgemm peak of this machine", peak, "GFLOP/s"),
        *(Figure("mlp", f"{named}PyTorch, {name}", rates[name], "steps/s") for name in seeds),
    ]
    if "one core" in rates:
        alone = divide(rates["one core"], rates["torch one core"])
        figures.append(Figure("mlp", f"{named}1 lane / PyTorch, one core each", alone))
    for lanes, over, share in (("2 lanes", None, 0.65), ("8 lanes", over_best, of_peak)):
        if lanes in rates:
            used = [
                useful_gflop(batch_size) * rate / most
                for rate, most in zip(rates[lanes], peak, strict=True)
            ]
            figures += [
                Figure("mlp", f"{named}{lanes}", rates[lanes], "lane-steps/s"),
                Figure(
                    "mlp",
                    f"{named}{lanes} / PyTorch, eager",
                    divide(rates[lanes], rates["eager"]),
                    at_least=over_eager,
                ),
                Figure(
                    "mlp",
                    f"{named}{lanes} / PyTorch, best",
                    divide(rates[lanes], rival_best),
                    at_least=over,
                ),
                Figure(
                    "mlp", f"{named}{lanes}, useful FLOP/s of sgemm peak", used, "%", at_least=share
                ),
            ]
    return figures


def pytorch(kind: str, compiled: bool = True, **settings: Any) -> dict[str, Rival]:
    """Returns the ways in which a good user would train several seeds in PyTorch, by name.

    A compiled process on each core is left out, and compiling at batch 256: part `compiled` has
    both.
    """
    ways = {
        "eager": rival(kind, **settings),
        "a process a core": rival(kind, processes=cores(), pinned=True, **settings),
    }
    return ways | ({"compiled": rival(kind, **settings, compiled=True)} if compiled else {})


def resnet(rounds: int) -> list[Figure]:
    """ResNet-18, batch 64, 32x32: training against eager PyTorch on one core, inside a scan, and
    lanes on all cores.
    """
    common = {"piece": None, "rehearsed": True}
    ours = {"kind": "steps", "model": "resnet18", **common}
    rivals = {
        "scan, one core": rival(**ours, pinned=True, steps=2),
        "step, one core": rival(**ours, pinned=True, steps=1, scanned=False),
        "torch, one core": rival("torch_resnet", pinned=True, steps=2, **common),
        "2 lanes": rival(**ours, count=2, steps=2),
    }
    rates = alternate(rivals, rounds)
    alone = rates["scan, one core"]
    return [
        Figure("resnet", "PyTorch, channels last, one core", rates["torch, one core"], "steps/s"),
        Figure("resnet", "one core", alone, "steps/s"),
        Figure(
            "resnet",
            "1 lane / PyTorch, each on one core",
            divide(alone, rates["torch, one core"]),
            at_least=1.0,
        ),
        Figure(
            "resnet",
            "time, step in a scan / jitted step",
            divide(rates["step, one core"], alone),
            at_most=1.1,
        ),
        Figure(
            "resnet",
            "2 lanes, 2 devices / 1 lane, one core",
            divide(rates["2 lanes"], alone),
            at_least=1.9,
        ),
    ]


def t5(rounds: int) -> list[Figure]:
    """T5, a block a side, batch 64, 64 ids in and out: training against transformers, on one core
    and a lane on each.

    A call of ours gets its working memory anew, which costs about 0.1 s and in a run, where a call
    is a task of thousands of steps, nothing; so there are three.
    """
    common = {"piece": None, "rehearsed": True, "steps": 3}
    ours, theirs = {"kind": "steps", "model": "t5", **common}, {"kind": "torch_t5", **common}
    rivals = {
        "one core": rival(**ours, pinned=True),
        "torch, one core": rival(**theirs, pinned=True),
        "a lane a core": rival(**ours, count=cores()),
        "torch, a process a core": rival(**theirs, processes=cores(), pinned=True),
    }
    rates = alternate(rivals, rounds)
    alone = divide(rates["one core"], rates["torch, one core"])
    spread = divide(rates["a lane a core"], rates["torch, a process a core"])
    return [
        Figure("t5", "one core", rates["one core"], "steps/s"),
        Figure("t5", "PyTorch, eager, one core", rates["torch, one core"], "steps/s"),
        Figure("t5", "1 lane / PyTorch, one core each", alone, at_least=1.1),
        Figure("t5", "all cores, a lane each / PyTorch, a process each", spread, at_least=1.1),
    ]


def probes(rounds: int) -> list[Figure]:
    """hessian_top in gradients of the same 512 examples; default probes against a task of full
    length.
    """
    curves = {
        "gradient": rival("curvature", what="gradient"),
        "hessian_top": rival("curvature", what="hessian_top"),
    }
    curve = alternate(curves, rounds)
    from plasticity_jax import Spec

    tasks = {
        "without": rival("sweep", lanes=cores(), epochs=1),
        "with": rival("sweep", lanes=cores(), epochs=1, probes=list(Spec().probes)),
        "long": rival("sweep", piece=None, lanes=cores(), epochs=8),
    }
    rates = alternate(tasks, rounds)
    # seconds of a task of one epoch, and what the probes add to it, against the steps of a full
    # task
    short = TASK // EPOCHS
    added = [
        short / rate - short / bare
        for rate, bare in zip(rates["with"], rates["without"], strict=True)
    ]
    share = [seconds * rate / TASK for seconds, rate in zip(added, rates["long"], strict=True)]
    spent = divide(curve["gradient"], curve["hessian_top"])
    return [
        Figure("probes", "hessian_top after training", spent, "gradients", at_most=20),
        Figure("probes", "default probes, seconds per lane and task", added, "s"),
        Figure("probes", "default probes / task of 19,200 steps", share, "%", at_most=0.03),
    ]


def start(rounds: int) -> list[Figure]:
    """Import, first compilation, a second start that finds it in the persistent cache, and both
    from a command line.
    """

    def child(*arguments: str) -> dict:
        command = [sys.executable, "-m", "benchmarks.start", *arguments]
        return json.loads(
            subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        )

    child("import")  # fills the file cache
    found: dict[str, list[dict]] = {"import": [], "cold": [], "warm": [], "launch": []}
    with tempfile.TemporaryDirectory() as launched:
        cold_launch = child("launch", launched)
        for number in range(rounds):
            found["import"].append(child("import"))
            with tempfile.TemporaryDirectory() as folder:
                for name in ("cold", "warm"):
                    found[name].append(child("first", folder, str(time.time())))
            found["launch"].append(child("launch", launched))
            last = ", ".join(f"{name} {values[-1]}" for name, values in found.items())
            say(f"  round {number + 1} of {rounds}: {last}")

    def seconds(name: str, key: str) -> list[float]:
        return [float(one[key]) for one in found[name]]

    words = "command to first task on disk (an epoch of 2 lanes included)"
    return [
        Figure("start", "import", seconds("import", "seconds"), "s", at_most=2),
        Figure(
            "start",
            "import sets no variable, starts no backend (1: yes)",
            seconds("import", "clean"),
            "",
            at_least=1,
        ),
        Figure("start", "compile", seconds("cold", "compile"), "s", at_most=6),
        Figure("start", "compile, second start", seconds("warm", "compile"), "s", at_most=2),
        Figure("start", "process to first task done, less training", seconds("cold", "start"), "s"),
        Figure("start", "the same, second start", seconds("warm", "start"), "s", at_most=4),
        Figure("start", words, [cold_launch["seconds"]], "s"),
        Figure("start", f"{words}, second start", seconds("launch", "seconds"), "s", at_most=4),
    ]


def steps_of_lanes(count: int, **settings: Any) -> Rival:
    """Returns the bare training steps of `count` lanes of the MLP, batch 64: 80 steps, an epoch, a
    call.
    """
    return rival("steps", model="mlp", steps=TASK // EPOCHS, count=count, **settings)


REACH = {"spectral": 1.15, "shrink_and_perturb": 1.02, "redo": 1.05}  # of all others 1.08


def methods(rounds: int) -> list[Figure]:
    """A step with each method against a step without, turns in which methods that act at some steps
    do so.

    ReDo acts once in 1,000 steps, as by default; shrink and perturb at the first of every 1,000, 19
    times as often as in a task of Random MNIST. Both have a rival without a method in turns of the
    same length.
    """
    from plasticity_jax.methods import METHODS

    rare = costs.RARE
    rivals = {name: steps_of_lanes(cores(), method=name) for name in METHODS if name not in rare}
    length = {"steps": costs.LONG, "task": costs.LONG}
    long = {"piece": None, "model": "mlp", "count": cores(), **length}
    rivals |= {name: rival("steps", **long, method=name) for name in rare}
    rivals["none, long"] = rival("steps", **long)
    rates = alternate(rivals, rounds)
    reach = {name: 1.08 for name in METHODS if name != "none"} | REACH
    return [
        Figure(
            "methods",
            f"time, {name} / none",
            divide(rates["none, long" if name in rare else "none"], rates[name]),
            at_most=most,
        )
        for name, most in reach.items()
    ]


def lanes(rounds: int) -> list[Figure]:
    """Lane-steps per second over the number of lanes, and with different granularities in one
    program.

    A granularity is a number that a program is given: programs of 2 lanes with one granularity each
    differ in nothing else, and one of them stands for all four.
    """
    counts = [2**power for power in range(7 if devices().backend == "cpu" else 11)]
    # A call reads and writes the state of every lane once: equally many steps a call, so that all
    # pay alike.
    rivals = {
        str(n): steps_of_lanes(n, piece=PIECE if n <= 16 else None, rehearsed=True) for n in counts
    }
    rivals["8 alike"] = rival("sweep", lanes=8, epochs=1)
    rivals["8 mixed"] = rival("sweep", lanes=8, epochs=1, granularity=[1, 2, 4, 20])
    rivals["2 alike"] = rival("sweep", lanes=2, epochs=1)
    rates = alternate(rivals, rounds)
    mixed = rates["8 mixed"]
    doubled = [
        divide(rates[str(2 * n)], rates[str(n)]) for n in counts[:-1] if n >= devices().count
    ]
    worst = min(doubled, key=statistics.median)
    return [
        *(
            Figure("lanes", f"lanes: {count}", rates[str(count)], "lane-steps/s")
            for count in counts
        ),
        Figure(
            "lanes",
            "lane-steps/s, 64 lanes / 8 lanes",
            divide(rates["64"], rates["8"]),
            at_least=0.97,
        ),
        Figure("lanes", "lane-steps/s, twice the lanes / the lanes, worst", worst, at_least=0.97),
        Figure("lanes", "time, 8 lanes, four granularities / one", divide(rates["8 alike"], mixed)),
        Figure(
            "lanes",
            "time, four granularities / a program of 2 lanes each",
            divide(rates["2 alike"], mixed),
        ),
    ]


JOB_LANES, JOB_TASKS, JOB_EPOCHS = 8, 3, 20


def job(rounds: int) -> list[Figure]:
    """A whole job of 8 lanes, 3 tasks of 20 epochs, against its bare training steps; what
    checkpoints and results take.

    What is written depends neither on the number of epochs nor on probes, so short jobs without
    probes tell it. A job works for most of a minute, so half of the rounds must do.
    """
    with tempfile.TemporaryDirectory() as folder:
        common = {
            "kind": "job",
            "piece": None,
            "tasks": JOB_TASKS,
            "lanes": JOB_LANES,
            "cache_dir": folder,
        }
        short = {**common, "epochs": 1, "probes": "none"}
        rivals = {
            "bare": steps_of_lanes(JOB_LANES, piece=5),
            "short": rival(**short),
            "job": rival(**common, epochs=JOB_EPOCHS),
            "no checkpoints": rival(**short, checkpoints=False),
            "no results": rival(**short, results=False),
        }
        return job_figures(alternate(rivals, (rounds + 1) // 2))


def job_figures(rates: Mapping[str, Sequence[float]]) -> list[Figure]:
    """Returns the figures of jobs (jobs per second) and bare steps (lane-steps per second)."""
    rounds = [dict(zip(rates, values, strict=True)) for values in zip(*rates.values(), strict=True)]
    found = [
        _one_job(**{name.replace(" ", "_"): rate for name, rate in one.items()}) for one in rounds
    ]

    def figure(what: str, unit: str = "x", **reach: float) -> Figure:
        return Figure("job", what, [one[what] for one in found], unit, **reach)

    return [
        figure("time, 8 lanes, 3 tasks of 20 epochs / bare steps", at_most=1.08),
        figure("the job beyond its bare steps", "s"),
        figure("time, with checkpoints / without"),
        figure("time, with results on disk / without"),
        figure("time, tasks of 240 epochs (if an epoch is as bare steps) / bare steps"),
    ]


def _one_job(
    bare: float, job: float, short: float, no_checkpoints: float, no_results: float
) -> dict[str, float]:
    """What one round says, by the figures' names."""
    epoch = JOB_LANES * TASK // EPOCHS / bare
    beyond = 1 / job - JOB_TASKS * JOB_EPOCHS * epoch
    saving, writing = 1 / short - 1 / no_checkpoints, 1 / short - 1 / no_results
    return {
        "time, 8 lanes, 3 tasks of 20 epochs / bare steps": 1
        / job
        / (JOB_TASKS * JOB_EPOCHS * epoch),
        "the job beyond its bare steps": beyond,
        "time, with checkpoints / without": 1 / (1 - saving * job),
        "time, with results on disk / without": 1 / (1 - writing * job),
        "time, tasks of 240 epochs (if an epoch is as bare steps) / bare steps": 1
        + beyond / (JOB_TASKS * EPOCHS * epoch),
    }


PARTS: dict[str, Callable[[int], list[Figure]]] = {
    "mlp": mlp,
    "resnet": resnet,
    "t5": t5,
    "one_lane": further.one_lane,
    "probes": probes,
    "start": start,
    "methods": methods,
    "lanes": lanes,
    "job": job,
    "strategies": further.strategies,
    "compiled": further.compiled,
    "cores_too": further.cores_too,
    "series": further.series,
    "figure": further.figure,
    "acting": further.acting,
    "mechanisms": further.mechanisms,
    "bit_flip": barriers.bit_flip,
    "vit": barriers.vit,
    "trap": barriers.trap,
    "costs": costs.costs,
    "slices": slices.sliced,
}
# what is measured if no part is named, in less than ten minutes: what has a figure to reach, but
# for those of `one_lane`, `figure`, `acting`, `mechanisms` and `barriers`
USUAL = [name for name, part in PARTS.items() if part.__module__ == __name__]
