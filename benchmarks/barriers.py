"""Parts of the benchmark about what the paper of Joudaki et al. needs; measured when named."""

import tempfile
from collections.abc import Mapping, Sequence

from benchmarks.rivals import Figure, alternate, cores, divide, rival
from benchmarks.worker import EPOCHS, TASK

WIDTH, LANES, SAMPLES = 5, 32, 10_000  # of bit flipping
SHORT, LONG = 4, 44  # tasks of two runs that differ in nothing else


def bit_flip(rounds: int) -> list[Figure]:
    """Bit flipping, width 5, one example a step, on one core: whole runs of 32 lanes against a scan
    of plain JAX and loops in PyTorch, and with continual backprop.

    A run has metrics, a table and checkpoints. Its steps are what a long run takes beyond a short
    one, so that start and compilation, which do not grow, are told apart.
    """
    size = {"width": WIDTH, "lanes": LANES, "samples": SAMPLES}
    with tempfile.TemporaryDirectory() as folder:
        common = {**size, "cache_dir": folder, "pinned": True, "piece": None}
        rivals = {
            "scan": rival("online_scan", **size, pinned=True),
            "autograd": rival("torch_online", width=WIDTH, autograd=True, pinned=True),
            "by hand": rival("torch_online", width=WIDTH, autograd=False, pinned=True),
            "compile": rival("online_compile", **size, pinned=True, piece=None),
        }
        for method in ("none", "continual_backprop"):
            for tasks in (SHORT, LONG):
                rivals[f"{method} {tasks}"] = rival(
                    "online_run", **common, method=method, tasks=tasks
                )
        return bit_flip_figures(alternate(rivals, rounds))


def bit_flip_figures(rates: Mapping[str, Sequence[float]]) -> list[Figure]:
    """Returns the figures of runs and compilations (each per second) and of steps per second."""

    def steps(method: str) -> list[float]:
        pairs = zip(rates[f"{method} {SHORT}"], rates[f"{method} {LONG}"], strict=True)
        return [(LONG - SHORT) * LANES * SAMPLES / (1 / long - 1 / short) for short, long in pairs]

    plain, replaced = steps("none"), steps("continual_backprop")

    def figure(what: str, values: Sequence[float], unit: str = "x", **reach: float) -> Figure:
        return Figure("bit_flip", what, values, unit, **reach)

    loops = {name: divide(plain, rates[name]) for name in ("scan", "autograd", "by hand")}
    return [
        figure("whole runs, 32 lanes, one core", plain, "lane-steps/s"),
        figure("whole runs / scan of plain JAX", loops["scan"], at_least=0.5),
        figure("whole runs / PyTorch with autograd", loops["autograd"], at_least=250),
        figure("whole runs / PyTorch without autograd", loops["by hand"], at_least=60),
        figure("compile a task", [1 / rate for rate in rates["compile"]], "s", at_most=12),
        figure("time, continual_backprop / none", divide(plain, replaced), at_most=1.8),
    ]


def vit(rounds: int) -> list[Figure]:
    """ViT of Joudaki et al., batch 64, 64x64 and 32x32: training against eager PyTorch, a core
    each.
    """
    common = {"piece": None, "rehearsed": True, "pinned": True, "steps": 2}
    rivals = {}
    for side in (64, 32):
        rivals[f"ours {side}"] = rival("steps", model="vit", side=side, **common)
        rivals[f"torch {side}"] = rival("torch_vit", side=side, **common)
    rates = alternate(rivals, rounds)
    found = []
    for side in (64, 32):
        ours, theirs = rates[f"ours {side}"], rates[f"torch {side}"]
        named = f"{side}x{side}, one core"
        found += [
            Figure("vit", f"{named}, PyTorch, eager", theirs, "steps/s"),
            Figure("vit", f"{named}, 1 lane / PyTorch", divide(ours, theirs), at_least=1.0),
        ]
    return found


def trap(rounds: int) -> list[Figure]:
    """The probe `trap` once a task, against the steps of a task of full length."""
    tasks = {
        "without": rival("sweep", lanes=cores(), epochs=1),
        "with": rival("sweep", lanes=cores(), epochs=1, probes=["trap"]),
        "long": rival("sweep", piece=None, lanes=cores(), epochs=8),
    }
    rates = alternate(tasks, rounds)
    short = TASK // EPOCHS  # steps
    pairs = zip(rates["with"], rates["without"], strict=True)
    added = [short / rate - short / bare for rate, bare in pairs]
    share = [seconds * rate / TASK for seconds, rate in zip(added, rates["long"], strict=True)]
    return [
        Figure("trap", "the probe, seconds per lane and task", added, "s"),
        Figure("trap", "the probe / task of 19,200 steps", share, "%", at_most=0.01),
    ]
