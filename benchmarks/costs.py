"""What every probe and every method costs, in processor time, for the table that pages of parts
show:
`python -m benchmarks.costs probes|methods TURNS` prints JSON.
"""

import csv
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.rivals import Figure, cores, say
from benchmarks.words import processor

TABLE = Path(__file__).parents[1] / "docs" / "costs.csv"
COLUMNS = ("part", "kind", "ratio", "low", "high", "unit", "machine")
SAMPLES, EPOCHS = 512, 2  # of the batch that is probed; of the task it is probed after
PIECE = 0.05  # seconds of processor time that a turn of a probe takes at least, about
LONG = 1000  # steps of a turn in which a rare method acts once
RARE = ("redo", "shrink_and_perturb")  # methods that act once in so many steps

Call = Callable[[], Any]


def costs(rounds: int) -> list[Figure]:
    """Processor time of every probe in gradients of the same 512 examples, and of a step with every
    method over one without: writes docs/costs.csv.

    An MLP 784-4x256-10 on one core. A round is three turns of each beside its gradient or its step,
    one right after the other; a ratio is formed in each turn.
    """
    where = machine()
    found = {}
    for kind in KINDS:
        command = [sys.executable, "-m", "benchmarks.costs", kind, str(3 * rounds)]
        found[kind] = json.loads(subprocess.check_output(command, text=True))
    write(found, where)
    return [
        Figure("costs", f"{kind}, {name}", spent, unit(name, kind))
        for kind, parts in found.items()
        for name, spent in parts.items()
    ]


def unit(name: str, kind: str) -> str:
    """Returns of what a part's ratio is a multiple."""
    if kind == "probes":
        return "gradients"
    return f"steps of {LONG:,} in which it acts once" if name in RARE else "steps"


def machine() -> str:
    """Returns where and when it is measured, and whether others compute there too."""
    known = processor(Path("/proc/cpuinfo").read_text())
    busy = ", on a busy machine" if os.getloadavg()[0] > 0.75 * cores() else ""
    return f"{known}, {time.strftime('%Y-%m-%d', time.gmtime())}{busy}"


def write(
    found: Mapping[str, Mapping[str, Sequence[float]]], where: str, path: Path = TABLE
) -> None:
    """Writes the table of the costs: median, least and most of the ratios of each part."""
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(COLUMNS)
        for kind, parts in found.items():
            for name, spent in parts.items():
                shown = [f"{of(spent):.3g}" for of in (statistics.median, min, max)]
                rows.writerow([name, kind, *shown, unit(name, kind), where])


def processor_time(work: Call, calls: int) -> float:
    """Returns the seconds that processors work for a call, mean of `calls` one after the other."""
    start = time.process_time()
    for _ in range(calls):
        work()
    return (time.process_time() - start) / calls


def ratios(work: Call, beside: Call, turns: int, piece: float = PIECE) -> list[float]:
    """Returns the processor time of `work` over that of `beside`, [turns]; who is first
    alternates.
    """
    both = (work, beside)
    calls = [max(1, round(piece / max(processor_time(one, 1), 1e-6))) for one in both]
    found = []
    for turn in range(turns):
        spent = [0.0, 0.0]
        for place in (0, 1) if turn % 2 else (1, 0):
            spent[place] = processor_time(both[place], calls[place])
        found.append(spent[0] / spent[1])
    return found


def of_probes(turns: int) -> dict[str, list[float]]:
    """Returns {probe: [turns] its time in gradients of the mean loss of the same batch}.

    Each is by itself, with the forward and backward passes that it needs, and settings by default.
    """
    from plasticity_jax.probes import PROBES

    gradient, probe = probing()
    found = {}
    for name in PROBES:
        found[name] = ratios(probe(name), gradient, turns)
        say(f"  {name} {found[name]}")
    return found


def probing() -> tuple[Call, Callable[[str], Call]]:
    """Returns the gradient of a batch's mean loss after a task, and what compiles a probe there by
    name.
    """
    import functools

    import jax
    import jax.numpy as jnp
    import numpy as np

    from benchmarks import worker
    from plasticity_jax import environments, lanes, make_run
    from plasticity_jax.execution import placement
    from plasticity_jax.training import evaluation, network
    from plasticity_jax.training import step as step_

    worker.set_up_jax()
    spec, data = worker.spec(EPOCHS), jax.device_put(worker.data())
    lane = {k: v[0] for k, v in lanes.stack([lanes.complete(spec, {})]).items()}
    run, environment = make_run(spec), environments.random_labels()
    before = jax.jit(run.init)(lane, data)
    after, _ = jax.jit(run.run_task)(lane, before, data, np.int32(0))
    batch = environment.examples(data, data.y, jnp.arange(SAMPLES))
    compiled = functools.partial(jax.jit, compiler_options=placement.options(spec.model))

    def loss(params, variables, batch):
        net = network.network(spec, environment, data)
        return step_.mean_loss(environment, net.apply(params, variables, batch.x, False)[0], batch)

    def call(function: Callable, *given: Any) -> Call:
        function = compiled(function)
        jax.block_until_ready(function(*given))
        return lambda: jax.block_until_ready(function(*given))

    def probe(name: str) -> Call:
        def measured(lane, before, after, batch, key):
            net = network.network(spec, environment, data)
            learner = step_.learner(spec, lane, environment, net)
            moment = evaluation.Moment(before, after, batch, key, jnp.int32(0))
            return evaluation.probed(spec, learner, moment, [name])

        return call(measured, lane, before, after, batch, jax.random.key(0))

    return call(jax.grad(loss), after.params, after.variables, batch), probe


def of_methods(turns: int) -> dict[str, list[float]]:
    """Returns {method: [turns] time of a training step with it over one without}.

    Of an epoch of 80 steps, and where a method acts once in so many of 1,000, of which it acts at
    one.
    """
    from benchmarks import jax_steps, worker
    from plasticity_jax.methods import METHODS

    def training(method: str, rare: bool) -> Call:
        length: dict[str, Any] = {"steps": worker.TASK // worker.EPOCHS}
        if rare:
            length = {"steps": LONG, "task": LONG}
        go = jax_steps.training("mlp", method=method, **length)
        go()
        return go

    without = {rare: training("none", rare) for rare in (False, True)}
    found = {}
    for name in METHODS:
        rare = name in RARE
        if name != "none":
            found[name] = ratios(training(name, rare), without[rare], turns)
            say(f"  {name} {found[name]}")
    return found


KINDS: dict[str, Callable[[int], dict[str, list[float]]]] = {
    "probes": of_probes,
    "methods": of_methods,
}

if __name__ == "__main__":
    from benchmarks import worker

    worker.pin(0)
    print(json.dumps(KINDS[sys.argv[1]](int(sys.argv[2]))))
