"""The host loop: programs x tasks -> results, with checkpoints, progress and a way to stop."""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from plasticity_jax import datasets, memory, models, paths, registry
from plasticity_jax import lanes as lanes_
from plasticity_jax import metrics as metrics_
from plasticity_jax import workdir as workdir_
from plasticity_jax.checkpoints import Checkpoints
from plasticity_jax.spec import Spec, comparable
from plasticity_jax.train import make_run
from plasticity_jax.types import Data, PyTree

if TYPE_CHECKING:
    import pandas

History = dict[str, np.ndarray]
"""Metrics of one program so far: {name: [tasks done, lanes]}."""


class Program(NamedTuple):
    """One Spec with all its lanes (completed: every number given) and how they are executed."""

    spec: Spec
    lanes: list[dict[str, Any]]
    execution: lanes_.Execution


class Stopped(Exception):
    """The run was asked to stop (signal number in `signal`) and everything it had is saved."""

    def __init__(self, signal: int, message: str):
        super().__init__(message)
        self.signal = signal


def device_data(dataset: datasets.Dataset) -> Data:
    """Returns a dataset as the arrays that programs take (numpy; uint8 images); put it on devices as you like."""
    images = [dataset.images, dataset.labels, dataset.test_images, dataset.test_labels]
    statistics = [np.asarray(s, np.float32) for s in (dataset.mean, dataset.std)]
    arrays: list[Any] = [*map(np.asarray, images), *statistics]
    return Data(*arrays, classes=dataset.classes)


def load_dataset(spec: Spec, data_dir: str | None = None, download: bool = False) -> datasets.Dataset:
    """Returns the Spec's dataset, subsampled as it says. Raises DataError, or ValueError if it asks for too much."""
    if not isinstance(spec, Spec):
        raise ValueError(f"spec is {registry.shown(spec)}: allowed is a Spec.")
    if data_dir:
        data_dir = paths.expanded(data_dir, "data_dir")
    return datasets.subsample(datasets.load(spec.dataset, data_dir, download), spec.samples, seed=spec.subsample_seed)


def load_data(spec: Spec, data_dir: str | None = None, download: bool = False) -> Data:
    """Returns the Spec's dataset as the `data` argument of its pure functions."""
    return jax.tree.map(jax.numpy.asarray, device_data(load_dataset(spec, data_dir, download)))


def sizes(specs: Sequence[Spec], data: Data) -> dict[Spec, int]:
    """Returns how many examples a task of each Spec has in `data`.

    Raises ValueError (one sentence) if an environment or a model cannot use these data.
    """
    found = {}
    for spec in specs:
        environment = spec.make_environment()
        real = data.classes == 0
        if environment.data != "nothing" and real != (environment.data == "numbers"):
            has, wants = ("real targets", "classes") if real else ("classes", "real targets")
            raise ValueError(
                f"dataset {spec.dataset!r} has {has}, but environment {spec.environment!r} needs {wants}: allowed is "
                "another dataset or environment."
            )
        reads = models.inputs(models.MODELS[spec.model])
        if environment.data != "nothing" and data.x.ndim == 2 and "vectors" not in reads:
            raise ValueError(
                f"dataset {spec.dataset!r} has rows of features, but model {spec.model!r} reads {' and '.join(reads)}: "
                "allowed is mlp."
            )
        environment.check(data, spec.tasks)
        found[spec] = environment.size(data)
    return found


def plan(
    runs: Sequence[tuple[Spec, Sequence[Mapping[str, Any]]]],
    samples: int | Mapping[Spec, int],
    strategy: str | None = None,
    width: int | None = None,
) -> list[Program]:
    """Returns the programs of a run, checked; `samples` says how many examples a task has, as `sizes` does of each Spec.

    Raises ValueError (one sentence) for anything that cannot run.
    """
    if len({spec for spec, _ in runs}) < len(runs):
        raise ValueError("a Spec is given twice: allowed is one list of lanes for each Spec.")
    metrics_.of_specs([spec for spec, _ in runs])  # (checks their names)
    checked = []
    for spec, given in runs:
        count = samples if isinstance(samples, int) else samples[spec]
        checked.append((spec, lanes_.check(spec, given, count)))
    lanes_.check_distinct(checked)
    return [
        Program(spec, lanes, lanes_.execution(lanes_.kind(spec), len(lanes), strategy, width))
        for spec, lanes in checked
    ]


def settings(programs: Sequence[Program], dataset: datasets.Dataset) -> dict[str, Any]:
    """Returns everything that decides a run's numbers, as JSON types; a workdir is bound to it."""
    return {
        "programs": [
            {
                "spec": p.spec.record(),
                "lanes": p.lanes,
                "lane_strategy": p.execution.strategy,
                "lane_width": p.execution.width,
                # with lanes vmapped, XLA fuses differently on another number of devices, and last bits follow
                **({"lane_devices": p.execution.devices} if p.execution.width > 1 else {}),
                **({"compiler_options": options} if (options := lanes_.options(p.spec.model)) else {}),
            }
            for p in programs
        ],
        "data": {"name": dataset.name, "fingerprint": dataset.fingerprint, "classes": dataset.classes},
    }


def code_version(folder: Path = Path(__file__).parent) -> str:
    """Returns the commit of the git checkout that `folder` lies in, with "+" if its files differ from that commit.

    "not recorded" where there is none, as in an installed package.
    """
    import subprocess

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if not Path(git("rev-parse", "--show-toplevel"), "plasticity_jax").is_dir():  # a checkout of something else
            return "not recorded"
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return "not recorded"


def environment_record(dataset: datasets.Dataset) -> dict[str, Any]:
    """Returns what is worth knowing about where a run was made: versions, commit, device, source of the data."""
    import os
    import platform

    packages = ("plasticity_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    return {
        "versions": {"python": platform.python_version(), **{p: _version(p) for p in packages}},
        "code_version": code_version(),
        "device": f"{jax.local_device_count()} x {jax.devices()[0].device_kind} ({jax.default_backend()})",
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "data_source": dataset.source,
        "data_shape": list(dataset.images.shape),
    }


def _version(package: str) -> str:
    """The version of an installed package, or what one that is only on the path says of itself."""
    import importlib
    import importlib.metadata

    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        module = package.replace("orbax-checkpoint", "orbax.checkpoint")
        return getattr(importlib.import_module(module), "__version__", "unknown")


class Compiled(NamedTuple):
    """A program on its devices, with lanes and data in place.

    Attributes:
      init: () -> states of all padded lanes.
      run_task: (states, task number) -> (states, metrics), both with a lane axis; consumes `states`.
      place: numpy states of the program's own lanes -> states of all padded lanes on the devices.
      copy: states -> a copy of them on the devices, which the next `run_task` leaves alone; waits for nothing.
      shapes: what `init` returns, cut to the program's own lanes, as ShapeDtypeStructs.
      executable: states -> the compiled `run_task`, which then need not compile; not with the strategy "plain", which is
        no one program.
    """

    init: Callable[[], PyTree]
    run_task: Callable[[PyTree, int], tuple[PyTree, dict[str, jax.Array]]]
    place: Callable[[PyTree], PyTree]
    copy: Callable[[PyTree], PyTree]
    shapes: PyTree
    executable: Callable[[PyTree], jax.stages.Compiled]


def compile_program(program: Program, data: Data) -> Compiled:
    """Returns the program ready to run: traced and compiled once, for all its lanes and tasks."""
    how, count = program.execution, len(program.lanes)
    if jax.config.jax_disable_jit:  # pyright: ignore[reportAttributeAccessIssue]
        # op by op there is no program to spread over devices
        how = lanes_.Execution("vmap", how.width, 1)
    padding = lanes_.padded(count, how) - count
    where = lanes_.placement(how)
    lanes = jax.device_put(lanes_.stack([*program.lanes, *program.lanes[-1:] * padding]), where.lanes)
    data = jax.device_put(data, where.shared)
    run = make_run(program.spec)
    init = lanes_.over_lanes(run.init, how, split=1)
    options = lanes_.options(program.spec.model)
    task = lanes_.over_lanes(run.run_task, how, split=2, options=options)
    if how.strategy != "plain":
        draws_only = program.spec.method == "none"  # else a method may compute sums as well
        init = lanes_.jit_once(init) if draws_only else jax.jit(init)
        task = jax.jit(task, donate_argnums=1, compiler_options=options)
    one = jax.eval_shape(run.init, jax.tree.map(lambda a: a[0], lanes), data)

    def place(states):
        return jax.device_put(jax.tree.map(lambda a: np.concatenate([a, *[a[-1:]] * padding]), states), where.lanes)

    def arguments(states, number):
        return lanes, states, data, jax.device_put(np.int32(number), where.shared)

    return Compiled(
        init=lambda: init(lanes, data),
        run_task=lambda states, number: task(*arguments(states, number)),
        place=place,
        copy=jax.jit(lambda states: jax.tree.map(jnp.copy, states)),
        shapes=jax.tree.map(lambda a: jax.ShapeDtypeStruct((count, *a.shape), a.dtype), one),
        # (jax keeps what it compiled for the same arguments)
        executable=lambda states: task.lower(*arguments(states, 0)).compile(),
    )


def _op_by_op() -> bool:
    """Whether jax may take a program apart, whose constants then come from the host one by one."""
    flags = ("jax_disable_jit", "jax_debug_nans", "jax_debug_infs")
    return any(getattr(jax.config, flag) for flag in flags)


def wait(arrays: PyTree, stop: workdir_.Stop | None) -> bool:
    """Waits for arrays to be computed, or for a stop to be requested; returns whether they are computed.

    Polls, because Python notices a signal only between two of its own instructions.
    """
    pause = 0.0005
    while not all(a.is_ready() for a in jax.tree.leaves(arrays)):
        if stop is not None and stop.requested:
            return False
        time.sleep(pause)
        pause = min(2 * pause, 0.02)
    return True


def longer(history: History, new: History) -> History:
    """Returns a history with a further task. NaN stands for what one of the two has not: versions measure more or less."""
    tasks, lanes = max(map(len, history.values()), default=0), next(iter(new.values())).shape[1]

    def column(name: str) -> np.ndarray:
        before = history.get(name, np.full((tasks, lanes), np.nan, np.float32))
        return np.concatenate([before, new.get(name, np.full((1, lanes), np.nan, np.float32))])

    return {name: column(name) for name in {**history, **new}}


def run_program(
    program: Program,
    data: Data,
    checkpoints: Checkpoints | None = None,
    stop: workdir_.Stop | None = None,
    checkpoint_every: int = 1,
    report: Callable[[History], None] = lambda history: None,
) -> History:
    """Runs a program's tasks, from its newest checkpoint if there is one, and returns its metrics {name: [tasks, lanes]}.

    `report` is called with the metrics so far at the start and after each task that is safe on disk (each task, without
    `checkpoints`); the next task is under way while one is saved and reported. Raises Stopped when `stop` is requested: at
    once if the last checkpoint holds everything up to the task in progress, else after that task and a checkpoint.
    """
    tasks, count = program.spec.tasks, len(program.lanes)
    found = checkpoints.restore({"history": {}}) if checkpoints else None
    if found and found[0] == tasks:
        report(found[1]["history"])
        return found[1]["history"]
    compiled = compile_program(program, data)
    if checkpoints and found:
        saved, tree = checkpoints.restore({"state": compiled.shapes, "history": {}}) or found
        states, history = compiled.place(tree.pop("state")), tree["history"]
    else:
        saved, states, history = 0, compiled.init(), {}

    def keep(done: int, state: PyTree, history: History) -> None:
        nonlocal saved
        if checkpoints and state is not None:
            own = jax.tree.map(lambda a: a[:count], jax.device_get(state))
            jax.tree.map(lambda a: a.delete(), state)  # (its memory would be held until the next checkpoint)
            checkpoints.save(done, {"state": own, "history": history})
            saved = done
        if not checkpoints or saved == done:
            report(history)

    report(history)
    pending: Callable[[], None] | None = None  # keeps what the task before has left
    for number in range(saved, tasks):
        with jax.transfer_guard("allow" if _op_by_op() else "disallow"):
            # (else nothing goes to or from the host inside a task but what is said here)
            states, metrics = compiled.run_task(states, number)
        if pending:
            pending()  # while the devices are at work
        if not wait(metrics, stop if checkpoints and saved == number else None):
            break
        new = {name: values[None, :count] for name, values in jax.device_get(metrics).items()}
        if (number + 1) % program.spec.probe_every:  # (they are NaN already, but not where jax looks out for it)
            new |= {name: np.full_like(v, np.nan) for name, v in new.items() if _probe(name) in program.spec.probes}
        history = longer(history, new)
        stopping, due = stop is not None and stop.requested, None
        if checkpoints and (stopping or number + 1 - saved >= checkpoint_every or number + 1 == tasks):
            due = compiled.copy(states)  # the next task consumes `states`; what is saved is fetched while it runs
        pending = functools.partial(keep, number + 1, due, history)
        if stopping:
            pending()
            break
    else:
        if pending:
            pending()
        return history
    raise Stopped(stop.signal if stop and stop.signal else 0, f"{saved} of {tasks} tasks of this program are saved")


def _probe(column: str) -> str:
    """The probe whose number or detail a column is, if it is one's."""
    return column.partition("/")[0]


def arm_columns(programs: Sequence[Program]) -> list[str]:
    """Returns the columns of the table that say what a lane is, apart from its seed."""
    axes = dict.fromkeys(name for p in programs for name in p.spec.axes())
    numbers = dict.fromkeys(name for p in programs for name in p.lanes[0] if name != "seed")
    options = dict.fromkeys(name for p in programs for name, _ in p.spec.options)
    return [*axes, *numbers, *options]


def table(programs: Sequence[Program], histories: Sequence[History]) -> "pandas.DataFrame":
    """Returns the tidy results: one row per lane and task done, lanes numbered through all programs.

    Columns: lane, task, seed, what the lane is (`arm_columns`; empty where a lane has no such number), then metrics and
    probes. `finite` is false from the first task on at whose end a lane's parameters, logits or losses were not finite; it
    has no measurement there. The table carries along what is known of its metrics (see `metrics`).
    """
    import pandas

    known = ["lane", "task", "seed", *arm_columns(programs)]
    frames, first = [], 0
    for program, history in zip(programs, histories, strict=True):
        count = len(program.lanes)
        if history:
            done = len(history["finite"])
            options = {**program.spec.known_options(), **dict(program.spec.options)}
            numbers = {k: np.repeat([lane[k] for lane in program.lanes], done) for k in program.lanes[0]}
            measured = {**history, "finite": np.logical_and.accumulate(history["finite"])}
            columns = {
                "lane": np.repeat(np.arange(first, first + count), done),
                "task": np.tile(np.arange(done), count),
                "seed": numbers["seed"],
                **program.spec.axes(),
                **numbers,
                **{k: v for k, v in options.items() if k in known},
                **{name: values.ravel(order="F") for name, values in measured.items()},  # lane after lane
            }
            frames.append(pandas.DataFrame(columns))
        first += count
    if not frames:
        return pandas.DataFrame(columns=["lane", "task", "seed"])
    whole = pandas.concat(frames, ignore_index=True)
    probes = [probe for p in programs for probe in p.spec.probes]
    # settings, then metrics, then probes in the order of the Spec
    rest = [c for c in whole.columns if c not in known]
    rest.sort(key=lambda c: probes.index(c.partition("/")[0]) if c.partition("/")[0] in probes else -1)
    # (a program that has no rows yet may be the only one with a number or an option)
    whole = whole.reindex(columns=[*known, *rest])
    whole.attrs[metrics_.KEY] = metrics_.record([p.spec for p in programs])
    return whole


def run(
    spec: Spec | Sequence[tuple[Spec, Sequence[Mapping[str, Any]]]],
    lanes: Sequence[Mapping[str, Any]] | None = None,
    workdir: str | Path | None = None,
    *,
    data_dir: str | None = None,
    download: bool = False,
    lane_strategy: str | None = None,
    lane_width: int | None = None,
    checkpoint_every: int = 1,
    progress: bool = False,
) -> "pandas.DataFrame":
    """Runs lanes of a Spec through all tasks and returns the tidy table (see `table`).

    Args:
      spec: a Spec, with `lanes` as `grid` makes them (default: one lane of defaults); or a list of (Spec, lanes).
      workdir: where to keep results, checkpoints and config; the same call again goes on where it was, also with more
        tasks than before. None: memory only.
      data_dir, download: where the dataset's original files are, and whether to fetch them.
      lane_strategy, lane_width: see `lanes.Execution`; default by backend and model.
      checkpoint_every: tasks between checkpoints.
      progress: show a progress bar on standard error.
    `~` at the start of a folder is expanded. Raises ValueError (settings), DataError (data), MemoryError (by an estimate),
    WorkdirError (workdir), Stopped (a signal of `workdir.Stop`, such as SIGTERM or Ctrl-C, with a workdir).
    """
    if isinstance(spec, Spec):
        runs = [(spec, [{}] if lanes is None else lanes)]
    elif lanes is None:
        runs = checked_runs(spec)
    else:
        raise ValueError("lanes are given twice: with a list of (Spec, lanes) leave the argument `lanes` out.")
    runs = [(one, lanes_.listed(given)) for one, given in runs]
    checkpoint_every = registry.whole("checkpoint_every", checkpoint_every, 1)
    if workdir is not None:
        workdir = paths.expanded(workdir, "workdir")
    dataset = load_common_dataset([s for s, _ in runs], data_dir, download)
    programs = plan(runs, sizes([s for s, _ in runs], device_data(dataset)), lane_strategy, lane_width)
    if workdir is None:
        memory.check(programs, device_data(dataset))
        return _run(programs, dataset, None, None, checkpoint_every, progress)
    return run_in_workdir(programs, dataset, workdir, checkpoint_every, progress)


def checked_runs(runs: Any) -> list[tuple[Spec, Any]]:
    """Returns a list of (Spec, lanes). Raises ValueError for what is none, or an empty one."""
    entries: list[Any] = list(runs) if registry.several(runs) else [runs]
    for entry in entries:
        if not isinstance(entry, tuple | list) or len(entry) != 2 or not isinstance(entry[0], Spec):
            raise ValueError(f"spec is {registry.shown(runs)}: allowed is a Spec, or a list of (Spec, lanes).")
    if not entries:
        raise ValueError("there are no runs: give a Spec, or at least one (Spec, lanes).")
    return [tuple(entry) for entry in entries]


def run_in_workdir(
    programs: Sequence[Program],
    dataset: datasets.Dataset,
    workdir: str | Path,
    checkpoint_every: int = 1,
    progress: bool = False,
) -> "pandas.DataFrame":
    """Runs planned programs in a workdir, from where they were, and returns the tidy table. Raises as `run` does."""
    wanted = settings(programs, dataset)
    check_in_workdir(programs, dataset, workdir)
    with workdir_.lock(workdir), workdir_.Stop() as stop:
        if not check_config(workdir, wanted):
            before = workdir_.read_record(workdir)  # of a run that becomes longer
            workdir_.write_config(workdir, wanted, environment_record(dataset) | ({"before": before} if before else {}))
        return _run(programs, dataset, Path(workdir), stop, checkpoint_every, progress)


def check_in_workdir(programs: Sequence[Program], dataset: datasets.Dataset, workdir: str | Path) -> None:
    """Raises what would keep `run_in_workdir` from running these programs there; nothing is compiled or written.

    MemoryError or WorkdirError; whether another process holds the workdir only `run_in_workdir` can tell.
    """
    memory.check(programs, device_data(dataset), saves=True)
    workdir_.check_writable(workdir)
    check_config(workdir, settings(programs, dataset))


def check_config(workdir: str | Path, wanted: dict[str, Any]) -> bool:
    """Returns whether a workdir records these `settings`, see `workdir.check_config`; more tasks may be asked for."""
    return workdir_.check_config(workdir, wanted, extendable="tasks", today=_today)


def _today(recorded: Any) -> Any:
    """Settings that a workdir records, perhaps from long ago, as they would be recorded today."""
    if "programs" not in recorded:
        return recorded
    programs = []
    for program in recorded["programs"]:
        own = [lanes_.comparable(program["spec"], lane) for lane in program["lanes"]]
        programs.append({**program, "spec": comparable(program["spec"]), "lanes": own})
    return {**recorded, "programs": programs}


def load_common_dataset(specs: Sequence[Spec], data_dir: str | None, download: bool) -> datasets.Dataset:
    """Returns the dataset that all Specs of a run share. Raises ValueError if they differ in it."""
    for name in ("dataset", "samples", "subsample_seed"):
        given = list(dict.fromkeys(getattr(spec, name) for spec in specs))
        if len(given) > 1:
            raise ValueError(f"{name} is {given[0]!r} and {given[1]!r}: allowed is one for all programs of a run.")
    dataset = load_dataset(specs[0], data_dir, download)
    for spec in specs:
        if spec.dataset != "generated":  # which has places for texts, and no classes
            spec.check_classes(dataset.classes)
    return dataset


def _run(
    programs: Sequence[Program],
    dataset: datasets.Dataset,
    path: Path | None,
    stop: workdir_.Stop | None,
    checkpoint_every: int,
    progress: bool,
) -> "pandas.DataFrame":
    from tqdm import tqdm

    from plasticity_jax import results

    def lane_tasks(history: History) -> int:
        return next(iter(history.values())).size if history else 0

    data, histories = device_data(dataset), [{} for _ in programs]
    total = sum(len(p.lanes) * p.spec.tasks for p in programs)
    folders = [path / "checkpoints" / str(number) if path else None for number in range(len(programs))]
    for number, folder in enumerate(folders):  # a run that became longer has rows of all programs from the start
        if folder and folder.is_dir() and (found := Checkpoints(folder).restore({"history": {}})):
            histories[number] = found[1]["history"]
    with tqdm(total=total, unit="lane-task", disable=not progress, smoothing=0.1) as bar:
        for number, program in enumerate(programs):
            bar.set_description(f"program {number + 1} of {len(programs)}")
            folder = folders[number]
            checkpoints = Checkpoints(folder) if folder else None

            def report(history, number=number):
                histories[number] = history
                bar.update(sum(map(lane_tasks, histories)) - bar.n)
                if path and history:
                    results.write(table(programs, histories), path / "results.parquet")

            run_program(program, data, checkpoints, stop, checkpoint_every, report)
    return table(programs, histories)
