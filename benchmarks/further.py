"""Parts of the benchmark that are measured when they are named: what the defaults were chosen by,
and longer comparisons.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks.rivals import Figure, alternate, best, cores, devices, divide, rival, say
from benchmarks.worker import useful_gflop


def one_lane(rounds: int) -> list[Figure]:
    """One lane through the sweep against bare programs of the same training."""
    rivals = {
        "sweep": rival("sweep", piece=None, lanes=1, epochs=8),
        "plain": rival("plain", piece=None, epochs=8),
        "by hand": rival("scan", piece=None, batch_size=64, epochs=8),
    }
    rates = alternate(rivals, rounds)
    return [
        Figure(
            "one_lane",
            "time, one lane / plain jitted scan",
            divide(rates["plain"], rates["sweep"]),
            at_most=1.1,
        ),
        Figure(
            "one_lane",
            "time, one lane / scan without the library",
            divide(rates["by hand"], rates["sweep"]),
        ),
    ]


SEVERAL = 7  # programs of a figure


def figure(rounds: int) -> list[Figure]:
    """A run of seven programs: what it takes besides its tasks, in times that one takes to compile,
    where the next is compiled while one runs and where each is compiled in its turn; of one lane
    and of two.
    """
    figures = []
    for count, lanes in ((1, "of one lane"), (2, "of two lanes")):
        command = [sys.executable, "-m", "benchmarks.start", "figure", str(SEVERAL), str(count)]
        turns = []
        for _ in range(rounds):
            turns.append(json.loads(subprocess.check_output(command, text=True)))
            say(f"  {lanes}: {turns[-1]}")
        for way, words in (("ahead", ""), ("in turn", ", each compiled in its turn")):
            values = [turn[way] / turn["compile"] for turn in turns]
            what = f"a run of seven programs {lanes}, besides its tasks{words}"
            reach = {} if words else {"at_most": 1.5}
            figures.append(Figure("figure", what, values, "compilations", **reach))
    return figures


# model -> steps a call, and the widths that are tried; the last one is as many lanes a device
ON_CPU = {"mlp": (80, [2]), "cnn": (8, [2]), "t5": (1, [2]), "resnet18": (1, [2])}
ON_GPU = {
    "mlp": (16, [16, 64, 256]),
    "cnn": (4, [4, 16, 64]),
    "t5": (1, [2, 4, 16]),
    "resnet18": (1, [2, 4, 16]),
}


def strategies(rounds: int) -> list[Figure]:
    """Every way to run a few lanes on each device against lanes one at a time on each: every
    model.
    """
    figures, on_cpu = [], devices().backend == "cpu"
    for model, (steps, widths) in (ON_CPU if on_cpu else ON_GPU).items():
        count = widths[-1] * devices().count
        ours = {
            "kind": "steps",
            "piece": None,
            "model": model,
            "steps": steps,
            "count": count,
            "rehearsed": True,
        }
        rivals = {"sharded, width 1": rival(**ours, strategy="sharded", width=1)}
        rivals |= {
            f"sharded, width {width}": rival(**ours, strategy="sharded", width=width)
            for width in widths
        }
        rivals |= {name: rival(**ours, strategy=name) for name in ("map", "plain")}
        if devices().count > 1:
            rivals[f"vmap, width {count}"] = rival(**ours, strategy="vmap", width=count)
        rates = alternate(rivals, rounds)
        alone = rates["sharded, width 1"]
        figures.append(
            Figure("strategies", f"{model}, {count} lanes, sharded, width 1", alone, "lane-steps/s")
        )
        figures += [
            Figure("strategies", f"time, {model}, {name} / sharded, width 1", divide(alone, rate))
            for name, rate in rates.items()
            if name != "sharded, width 1"
        ]
    return figures


def compiled(rounds: int) -> list[Figure]:
    """PyTorch with torch.compile against PyTorch without: on all cores, on one, in a process on
    each.
    """
    figures = []
    kinds = {f"mlp, batch {size}": {"kind": "torch", "batch_size": size} for size in (64, 256)}
    kinds["t5"] = {"kind": "torch_t5", "piece": None, "steps": 3}
    kinds["resnet18"] = {"kind": "torch_resnet", "piece": None, "steps": 2}
    for name, settings in kinds.items():
        places: dict[str, dict[str, Any]] = {"all cores": {}, "one core": {"pinned": True}}
        if settings["kind"] == "torch":
            places["a process a core"] = {"pinned": True, "processes": cores()}
        rivals = {
            f"{way}, {place}": rival(**settings, **where, compiled=way == "compiled")
            for place, where in places.items()
            for way in ("compiled", "eager")
        }
        rates = alternate(rivals, rounds)
        for place in places:
            ratio = divide(rates[f"eager, {place}"], rates[f"compiled, {place}"])
            figures.append(
                Figure("compiled", f"time, PyTorch, {name}, {place}, compiled / eager", ratio)
            )
    return figures


def cores_too(rounds: int) -> list[Figure]:
    """Where the other parts have one core only, all of them, and the other way round, against eager
    PyTorch.
    """
    batch = {"batch_size": 256}
    rivals = {
        "mlp": rival("sweep", piece=None, lanes=1, epochs=16, pinned=True, **batch),
        "mlp, torch": rival("torch", pinned=True, **batch),
        "matmul": rival("torch_matmul", piece=0.6, size=2048, pinned=True),
        "matmul jax": rival("jax_matmul", piece=0.6, size=2048, spread=False, pinned=True),
    }
    rates = alternate(rivals, rounds)
    peak = best(rates["matmul"], rates["matmul jax"])
    share = [useful_gflop(256) * rate / most for rate, most in zip(rates["mlp"], peak, strict=True)]
    figures = [
        Figure(
            "cores_too",
            "MLP, batch 256, 1 lane / PyTorch, one core each",
            divide(rates["mlp"], rates["mlp, torch"]),
        ),
        Figure(
            "cores_too", "MLP, batch 256, one core, useful FLOP/s of its sgemm peak", share, "%"
        ),
    ]
    common = {"piece": None, "rehearsed": True, "steps": 3}
    for name, theirs in (("resnet18", "torch_resnet"), ("t5", "torch_t5")):
        both = {
            "ours": rival("steps", model=name, count=cores(), **common),
            "theirs": rival(theirs, **common),
        }
        rates = alternate(both, rounds)
        ratio = divide(rates["ours"], rates["theirs"])
        figures.append(
            Figure("cores_too", f"{name}, a lane a core / PyTorch, eager on all cores", ratio)
        )
    return figures


def acting(rounds: int) -> list[Figure]:
    """DQN on Breakout of MinAtar against PyTorch on the Python game, a core each; cost of
    memory.
    """
    common = {"rows": 100_000, "pinned": True}
    rivals = {
        "1 lane": rival("acting", piece=None, count=1, steps=16_000, **common),
        "8 lanes": rival("acting", piece=None, count=8, steps=4_000, **common),
        "remembering": rival("remembering", steps=16_000, **common),
        "within the caches": rival("remembering", steps=16_000, rows=4_000, pinned=True),
        "products": rival("acting_products", steps=16_000, pinned=True),
        "numbers": rival("acting_numbers", steps=16_000, pinned=True),
        "by hand": rival("acting_by_hand", piece=None, steps=16_000, **common),
        "PyTorch": rival("torch_dqn", steps=400, **common),
    }
    rates = alternate(rivals, rounds)
    alone = rates["1 lane"]
    return [
        Figure("acting", "1 lane", alone, "frames/s"),
        Figure("acting", "PyTorch", rates["PyTorch"], "frames/s"),
        Figure("acting", "1 lane / PyTorch", divide(alone, rates["PyTorch"]), at_least=10),
        Figure(
            "acting",
            "1 lane / plain JAX by hand",
            divide(alone, rates["by hand"]),
            at_least=1.0,
        ),
        Figure(
            "acting",
            "a lane of 8 in a vmap / plain JAX by hand",
            divide(rates["8 lanes"], rates["by hand"]),
        ),
        Figure(
            "acting",
            "time of a lane, 8 lanes in a vmap / 1 lane",
            divide(alone, rates["8 lanes"]),
            at_most=1.1,
        ),
        Figure(
            "acting",
            "remembering, share of 1 lane's time",
            divide(alone, rates["remembering"]),
            "%",
            at_most=0.05,
        ),
        *(
            Figure("acting", f"{what}, share of 1 lane's time", divide(alone, rates[name]), "%")
            for name, what in (
                ("within the caches", "remembering 4,000 steps instead"),
                ("products", "matrix products alone"),
                ("numbers", "random numbers of a draw alone"),
            )
        ),
    ]


def series(rounds: int) -> list[Figure]:
    """ResNet-18 and T5 with 1, 2, 4 lanes (on GPUs 1, 4, 16, 64), one at a time and in one vmap, of
    grouped convolutions.
    """
    counts = (1, 2, 4) if devices().backend == "cpu" else (1, 4, 16, 64)
    return [figure for model in ("resnet18", "t5") for figure in series_of(model, counts, rounds)]


def series_of(model: str, counts: Sequence[int], rounds: int) -> list[Figure]:
    """Returns the rates of `model` with each of `counts` lanes, one at a time and in one vmap."""
    ours = {"kind": "steps", "piece": None, "model": model, "steps": 1, "rehearsed": True}
    rivals = {f"{count} in a map": rival(**ours, count=count, strategy="map") for count in counts}
    rivals |= {
        f"{count} in a vmap": rival(**ours, count=count, strategy="vmap", width=count)
        for count in counts
        if count > 1
    }
    return [
        Figure("series", f"{model}, {name}", rate, "lane-steps/s")
        for name, rate in alternate(rivals, rounds).items()
    ]


def mechanisms(rounds: int) -> list[Figure]:
    """The tangent kernel in gradients of its batch; norms against layer norm, and two-hot targets
    against squared error, in time of a training step: all on one core, as a lane has it.
    """
    from plasticity_jax.models.norms import NORMS

    kernels = {name: rival("kernel", what=name, pinned=True) for name in ("gradient", "ntk")}
    kernel = alternate(kernels, rounds)
    steps: dict[str, Any] = {"model": "mlp", "steps": 80, "pinned": True}
    names = [name for name in NORMS if name not in ("none", "layer")]
    rivals = {name: rival("steps", **steps, norm=name) for name in ("layer", *names)}
    rivals |= {head: rival("steps", **steps, head=head) for head in ("linear", "two_hot")}
    rates = alternate(rivals, rounds)
    spent = divide(kernel["gradient"], kernel["ntk"])
    heads = divide(rates["linear"], rates["two_hot"])
    return [
        Figure("mechanisms", "probe ntk, batch of 64", spent, "gradients", at_most=8),
        *(
            Figure(
                "mechanisms",
                f"time of a step, {name} / layer norm",
                divide(rates["layer"], rates[name]),
                at_most=1.1,
            )
            for name in names
        ),
        Figure("mechanisms", "time of a step, two-hot / squared error", heads, at_most=1.1),
    ]
