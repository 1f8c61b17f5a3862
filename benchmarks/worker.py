"""A rival's process: builds its work, warms up, then works and answers whenever it is told to.

Protocol: `python -m benchmarks.worker KIND SETTINGS` (JSON) writes a line when it is ready; for
each line read, a number of repeats, it does that much and answers {"seconds": .., "work": ..}. It
ends with its standard input.
"""

import functools
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rivals import cores

SAMPLES, SHAPE, CLASSES = 5120, (28, 28, 1), 10  # as Random MNIST has them
EPOCHS = 240  # of one of its tasks
TASK = EPOCHS * SAMPLES // 64  # steps of one of its tasks
BITS, RATE = 20, 0.01  # inputs of bit flipping, besides a constant, and its learning rate
LAYERS = [(784, 256), (256, 256), (256, 256), (256, 256), (256, 10)]  # of its MLP

Go = Callable[[], float]
"""Does a fixed amount of work, waits for it, and returns how much it was."""


def main() -> None:
    kind, settings = sys.argv[1], json.loads(sys.argv[2])
    # answers go where standard output went; what a library prints goes to standard error
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    pin(settings.pop("core", None))
    go = WORK[kind](**settings)
    go()
    print(json.dumps({"ready": True}), file=answers, flush=True)
    seconds = clock()
    for line in sys.stdin:
        start = seconds()
        work = sum(go() for _ in range(int(line)))
        print(
            json.dumps({"seconds": seconds() - start, "work": work}),
            file=answers,
            flush=True,
        )


def pin(core: int | None) -> None:
    """Keeps this process and its threads to come on one core, number `core` of those it may use;
    None: on all.
    """
    if core is not None:
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[core]})


def clock() -> Callable[[], float]:
    """Returns what tells the seconds of a rival's work: time that passes, or what its process had
    of the processor; set by the command.
    """
    return time.process_time if os.environ.get("BENCHMARK_CLOCK") else time.perf_counter


def precision() -> str:
    """Returns the arithmetic of forward and backward pass on both sides, as a Spec names it; set by
    the command.
    """
    return os.environ.get("BENCHMARK_PRECISION", "float32")


def useful_gflop(batch_size: int) -> float:
    """Returns the GFLOP of a step's matrix products: forward, by weights, by inputs (but not the
    network's input).
    """
    products = sum(before * after for before, after in LAYERS)
    first = LAYERS[0][0] * LAYERS[0][1]
    return 1e-9 * batch_size * (6 * products - 2 * first)


def images_and_labels(
    samples: int = SAMPLES, shape: tuple[int, ...] = SHAPE
) -> tuple[np.ndarray, np.ndarray]:
    """Returns noise, MNIST-shaped by default: uint8 images and int32 labels, equally many of each
    class.
    """
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (samples, *shape), np.uint8)
    return images, random.permutation(np.arange(samples, dtype=np.int32) % CLASSES)


def data(samples: int = SAMPLES, shape: tuple[int, ...] = SHAPE) -> Any:
    """Returns the noise as the `data` argument of programs."""
    from plasticity_jax import Data

    images, labels = images_and_labels(samples, shape)
    flat = images.reshape(-1, shape[-1])
    mean, std = flat.mean(0, dtype=np.float32), flat.std(0, dtype=np.float32)
    arrays: list[Any] = [images, labels, images[:0], labels[:0], mean, std]
    return Data(*arrays, classes=CLASSES)


def set_up_jax(cache_dir: str | None = None) -> None:
    """Configures jax as the launcher does: a CPU device for every core; a persistent cache if a
    folder is given.
    """
    import jax

    jax.config.update("jax_num_cpu_devices", cores())
    if cache_dir:
        jax.config.update("jax_compilation_cache_dir", cache_dir)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def spec(epochs: int = 16, probes: Any = "none", **settings: Any) -> Any:
    """Returns the Spec of the figures: random labels, output interpolation, MLP 784-4x256-10, layer
    norm, Adam.
    """
    from plasticity_jax import Spec

    return Spec(epochs=epochs, probes=probes, samples=SAMPLES, precision=precision(), **settings)


def sweep(
    lanes: int, granularity: int | Sequence[int] = 20, strategy: str | None = None, **settings: Any
) -> Go:
    """Tasks as `sweep.run` runs them; granularities are dealt out to the lanes in turn. Work:
    lane-steps.
    """
    import jax

    from plasticity_jax.execution import compiled as compiled_
    from plasticity_jax.execution import program as program_

    set_up_jax()
    levels = [granularity] if isinstance(granularity, int) else granularity
    numbers = [{"seed": seed, "granularity": levels[seed % len(levels)]} for seed in range(lanes)]
    program = program_.plan([(spec(**settings), numbers)], SAMPLES, strategy)[0]
    compiled = compiled_.compile_program(program, data())
    return tasks(
        compiled.init(), compiled.run_task, lanes * lane_steps(program.spec), jax.block_until_ready
    )


def plain(**settings: Any) -> Go:
    """One lane, with nothing but jax.jit and the sweep's options around its pure function. Work:
    steps.
    """
    import jax

    from plasticity_jax import lanes, make_run
    from plasticity_jax.execution import placement

    set_up_jax()
    one, examples = spec(**settings), jax.device_put(data())
    lane = {k: v[0] for k, v in lanes.stack([lanes.complete(one, {"granularity": 20})]).items()}
    run = make_run(one)
    init = jax.jit(run.init)
    run_task = jax.jit(
        run.run_task, donate_argnums=1, compiler_options=placement.options(one.model)
    )
    step = lambda state, task: run_task(lane, state, examples, np.int32(task))  # noqa: E731
    return tasks(init(lane, examples), step, lane_steps(one), jax.block_until_ready)


def lane_steps(one: Any) -> int:
    """Returns the optimizer steps of a lane in one task of a Spec."""
    return SAMPLES // one.batch_size * one.epochs


def tasks(state: Any, run_task: Callable, work: float, wait: Callable) -> Go:
    number = 0

    def go():
        nonlocal state, number
        state, metrics = run_task(state, number)
        wait(metrics)
        number += 1
        return work

    return go


def curvature(what: str, epochs: int = 8, samples: int = 512) -> Go:
    """The gradient, or hessian_top, of the mean loss of the first task after training. Work: 1
    each.
    """
    import jax
    import jax.numpy as jnp

    from plasticity_jax import environments, lanes, make_run, probes
    from plasticity_jax.execution import placement
    from plasticity_jax.training import network
    from plasticity_jax.training import step as step_

    set_up_jax()
    one, examples = spec(epochs), jax.device_put(data())
    lane = {k: v[0] for k, v in lanes.stack([lanes.complete(one, {})]).items()}
    run, environment = make_run(one), environments.random_labels()
    state, _ = jax.jit(run.run_task)(lane, jax.jit(run.init)(lane, examples), examples, np.int32(0))
    batch = environment.examples(examples, examples.y, jnp.arange(samples))

    def loss(params, batch):
        net = network.network(one, environment, examples)
        return step_.mean_loss(
            environment, net.apply(params, state.variables, batch.x, False)[0], batch
        )

    @functools.partial(jax.jit, compiler_options=placement.options(one.model))
    def compute(params, batch):
        on_batch = functools.partial(loss, batch=batch)
        if what == "gradient":
            return jax.grad(on_batch)(params)
        return probes.hessian_top(on_batch, params, jax.random.key(0))

    def go():
        jax.block_until_ready(compute(state.params, batch))
        return 1.0

    return go


def kernel(what: str, samples: int = 64) -> Go:
    """The gradient of a batch's mean loss at the network as drawn, or all that the probe `ntk`
    measures of that batch. Work: 1 each.
    """
    import jax
    import jax.numpy as jnp

    from plasticity_jax import environments, probes
    from plasticity_jax.execution import placement
    from plasticity_jax.training import network
    from plasticity_jax.training import step as step_

    set_up_jax()
    one, examples = spec(), jax.device_put(data())
    environment = environments.random_labels()
    net = network.network(one, environment, examples)
    params = jax.jit(net.init)(jax.random.key(0))["params"]
    batch = environment.examples(examples, examples.y, jnp.arange(samples))

    def outputs(params):
        return net.apply(params, {}, batch.x, False)[0]

    def measured(params):
        found = probes.layerwise_ntk(outputs, params)
        assert found is not None
        return probes.kernel_summary(found)

    def loss(params):
        return step_.mean_loss(environment, outputs(params), batch)

    works = {"gradient": jax.grad(loss), "ntk": measured}
    compute = jax.jit(works[what], compiler_options=placement.options(one.model))

    def go():
        jax.block_until_ready(compute(params))
        return 1.0

    return go


def job(
    tasks: int,
    epochs: int,
    lanes: int,
    cache_dir: str,
    probes: str | None = None,
    checkpoints: bool = True,
    results: bool = True,
) -> Go:
    """A whole job of `tasks` tasks, with default probes if none are named, from reading the data to
    the table. Work: 1 each.

    It runs in a fresh workdir, is traced anew and finds its program in the persistent cache.
    Checkpoints, and writing of the results after every task, can be left out. The first call warms
    up: the same job with one task of one epoch and no probes, and the compilation of the real one.
    """
    import plasticity_jax
    from plasticity_jax.execution import compiled as compiled_
    from plasticity_jax.execution import program as program_
    from plasticity_jax.execution import rows
    from plasticity_jax.execution import tasks as tasks_
    from plasticity_jax.storage.checkpoints import Checkpoints
    from plasticity_jax.storage.table import write

    set_up_jax(cache_dir)
    arrays = Path(cache_dir, f"arrays-{os.getpid()}")
    arrays.mkdir()
    for name, array in zip(("images", "labels"), images_and_labels(), strict=True):
        np.save(arrays / f"train_{name}.npy", array)
    probed, dataset = probes or plasticity_jax.Spec().probes, f"arrays:{arrays}"
    whole = spec(epochs, probed, dataset=dataset, tasks=tasks)
    next_up = spec(1, "none", dataset=dataset, tasks=1)
    grid = plasticity_jax.grid(seed=range(lanes), granularity=20)

    def prepared(one: Any) -> Any:
        return program_.device_data(program_.load_dataset(one, None, False))

    def in_part(one: Any, folder: Path) -> None:
        program = program_.plan([(one, grid)], SAMPLES)[0]

        def report(history):
            if results and history:
                write(rows.table([program], [history]), folder / "results.parquet")

        kept = Checkpoints(folder / "checkpoints") if checkpoints else None
        tasks_.run_program(program, prepared(one), tasks_.Safekeeping(kept, report=report))

    def go():
        nonlocal next_up
        one, next_up = next_up, whole
        if one is not whole:
            ready = compiled_.compile_program(
                program_.plan([(whole, grid)], SAMPLES)[0], prepared(whole)
            )
            ready.executable(ready.init())
        with tempfile.TemporaryDirectory(dir=cache_dir) as folder:
            if checkpoints and results:
                plasticity_jax.run(one, grid, workdir=Path(folder, "work"))
            else:
                in_part(one, Path(folder))
        return 1.0

    return go


def jax_matmul(size: int, spread: bool) -> Go:
    """A square float32 product, or one on each CPU device at once. Work: GFLOP."""
    import jax
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    set_up_jax()
    count = len(jax.devices()) if spread else 1
    mesh = Mesh(np.asarray(jax.devices()[:count]), ("core",))
    left = jax.device_put(
        np.random.rand(count, size, size).astype(np.float32),
        NamedSharding(mesh, PartitionSpec("core")),
    )

    def plainly(part):  # (a batched product would be another routine)
        return jax.numpy.matmul(part[0], part[0], precision="highest")[None]

    split = PartitionSpec("core")
    product = jax.jit(jax.shard_map(plainly, mesh=mesh, in_specs=split, out_specs=split))

    def go():
        product(left).block_until_ready()
        return 2e-9 * count * size**3

    return go


def lazily(module: str, name: str) -> Callable[..., Go]:
    """Returns `module.name`, imported when it is called: a process imports only what it works
    with.
    """

    def build(**settings):
        import importlib

        return getattr(importlib.import_module(module), name)(**settings)

    return build


WORK: dict[str, Callable[..., Go]] = {
    "sweep": sweep,
    "plain": plain,
    "scan": lazily("benchmarks.jax_mlp", "training"),
    "steps": lazily("benchmarks.jax_steps", "training"),
    "acting": lazily("benchmarks.jax_acting", "training"),
    "remembering": lazily("benchmarks.jax_acting", "remembering"),
    "acting_products": lazily("benchmarks.jax_acting", "products"),
    "acting_numbers": lazily("benchmarks.jax_acting", "numbers"),
    "acting_by_hand": lazily("benchmarks.jax_dqn", "training"),
    "curvature": curvature,
    "kernel": kernel,
    "job": job,
    "jax_matmul": jax_matmul,
    "torch": lazily("benchmarks.torch_mlp", "training"),
    "torch_matmul": lazily("benchmarks.torch_mlp", "matmul"),
    "torch_resnet": lazily("benchmarks.torch_resnet", "training"),
    "torch_t5": lazily("benchmarks.torch_t5", "training"),
    "torch_dqn": lazily("benchmarks.torch_dqn", "training"),
    "torch_vit": lazily("benchmarks.torch_vit", "training"),
    "torch_online": lazily("benchmarks.torch_online", "training"),
    "online_run": lazily("benchmarks.online", "run"),
    "online_compile": lazily("benchmarks.online", "compilation"),
    "online_scan": lazily("benchmarks.online", "scan"),
}

if __name__ == "__main__":
    main()
