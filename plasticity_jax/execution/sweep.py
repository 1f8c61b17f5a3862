"""The host loop: programs x tasks -> results, with checkpoints, progress and a way to stop."""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from plasticity_jax import datasets, registry
from plasticity_jax import lanes as lanes_
from plasticity_jax.execution import memory
from plasticity_jax.optimizers import SCHEDULES
from plasticity_jax.spec import Spec, comparable
from plasticity_jax.storage import paths
from plasticity_jax.storage import workdir as workdir_
from plasticity_jax.storage.checkpoints import Checkpoints
from plasticity_jax.types import Data, PyTree

if TYPE_CHECKING:
    import pandas
from plasticity_jax.execution import compiled as compiled_
from plasticity_jax.execution import program as program_
from plasticity_jax.execution import record, rows
from plasticity_jax.execution.program import History, Program


class Stopped(Exception):
    """The run was asked to stop (signal number in `signal`) and everything it had is saved."""

    def __init__(self, signal: int, message: str):
        super().__init__(message)
        self.signal = signal


def _op_by_op() -> bool:
    """Whether jax may take a program apart, whose constants then come from the host one by one."""
    flags = ("jax_disable_jit", "jax_debug_nans", "jax_debug_infs")
    return any(getattr(jax.config, flag) for flag in flags)


def wait(arrays: PyTree, stop: workdir_.Stop | None) -> bool:
    """Waits for arrays to be computed, or for a stop to be requested; returns whether they are
    computed.

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
    """Returns a history with a further task. NaN stands for what one of the two has not: versions
    measure more or less.
    """
    tasks = max(map(len, history.values()), default=0)

    def column(name: str) -> np.ndarray:
        shape = (new[name] if name in new else history[name]).shape[1:]
        before = history.get(name, np.full((tasks, *shape), np.nan, np.float32))
        return np.concatenate([before, new.get(name, np.full((1, *shape), np.nan, np.float32))])

    return {name: column(name) for name in {**history, **new}}


def run_program(
    program: Program,
    data: Data,
    checkpoints: Checkpoints | None = None,
    stop: workdir_.Stop | None = None,
    checkpoint_every: int = 1,
    report: Callable[[History], None] = lambda history: None,
) -> History:
    """Runs a program's tasks, from its newest checkpoint if there is one, and returns its metrics
    {name: [tasks, lanes]}.

    `report` is called with the metrics so far at the start and after each task that is safe on disk
    (each task, without `checkpoints`); the next task is under way while one is saved and reported.
    Raises Stopped when `stop` is requested: at once if the last checkpoint holds everything up to
    the task in progress, else after that task and a checkpoint.
    """
    tasks, count = program.spec.tasks, len(program.lanes)
    found = checkpoints.restore({"history": {}}) if checkpoints else None
    if found and found[0] == tasks:
        report(found[1]["history"])
        return found[1]["history"]
    compiled = compiled_.compile_program(program, data)
    if checkpoints and found:
        saved, tree = checkpoints.restore({"state": compiled.shapes, "history": {}}) or found
        states, history = compiled.place(tree.pop("state")), tree["history"]
    else:
        saved, states, history = 0, compiled.init(), {}

    def keep(done: int, state: PyTree, history: History) -> None:
        nonlocal saved
        if checkpoints and state is not None:
            own = jax.tree.map(lambda a: a[:count], jax.device_get(state))
            # (its memory would be held until the next checkpoint)
            jax.tree.map(lambda a: a.delete(), state)
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
        # (they are NaN already, but not where jax looks out for it)
        if (number + 1) % program.spec.probe_every:
            new |= {
                name: np.full_like(v, np.nan)
                for name, v in new.items()
                if _probe(name) in program.spec.probes
            }
        history = longer(history, new)
        stopping, due = stop is not None and stop.requested, None
        if checkpoints and (
            stopping or number + 1 - saved >= checkpoint_every or number + 1 == tasks
        ):
            # the next task consumes `states`; what is saved is fetched while it runs
            due = compiled.copy(states)
        pending = functools.partial(keep, number + 1, due, history)
        if stopping:
            pending()
            break
    else:
        if pending:
            pending()
        return history
    raise Stopped(
        stop.signal if stop and stop.signal else 0,
        f"{saved} of {tasks} tasks of this program are saved",
    )


def _probe(column: str) -> str:
    """The probe whose number or detail a column is, if it is one's."""
    return column.partition("/")[0]


def run(
    spec: Spec | Sequence[tuple[Spec, Sequence[Mapping[str, Any]]]],
    lanes: Sequence[Mapping[str, Any]] | None = None,
    workdir: str | Path | None = None,
    *,
    data_dir: str | None = None,
    download: bool = False,
    lane_strategy: str | None = None,
    lane_width: int | None = None,
    checkpoint_every: int | str = 1,
    progress: bool = False,
) -> "pandas.DataFrame":
    """Runs lanes of a Spec through all tasks and returns the tidy table (see `table`).

    Args:
      spec: a Spec, with `lanes` as `grid` makes them (default: one lane of defaults); or a list of
        (Spec, lanes).
      workdir: where to keep results, checkpoints and config; the same call again goes on where it
        was, also with more
        tasks than before. None: memory only.
      data_dir, download: where the dataset's original files are, and whether to fetch them.
      lane_strategy, lane_width: see `lanes.Execution`; default by backend and model.
      checkpoint_every: tasks between checkpoints; "never": only at the end, or when stopped.
      progress: show a progress bar on standard error.
    `~` at the start of a folder is expanded. Raises ValueError (settings), DataError (data),
    MemoryError (by an estimate), WorkdirError (workdir), Stopped (a signal of `workdir.Stop`, such
    as SIGTERM or Ctrl-C, with a workdir).
    """
    if isinstance(spec, Spec):
        runs = [(spec, [{}] if lanes is None else lanes)]
    elif lanes is None:
        runs = checked_runs(spec)
    else:
        raise ValueError(
            "lanes are given twice: with a list of (Spec, lanes) leave the argument `lanes` out."
        )
    runs = [(one, lanes_.listed(given)) for one, given in runs]
    checkpoint_every = registry.whole("checkpoint_every", checkpoint_every, 1, never=True)
    if workdir is not None:
        workdir = paths.expanded(workdir, "workdir")
    dataset = program_.load_common_dataset([s for s, _ in runs], data_dir, download)
    programs = program_.plan(
        runs,
        program_.sizes([s for s, _ in runs], program_.device_data(dataset)),
        lane_strategy,
        lane_width,
    )
    if workdir is None:
        memory.check(programs, program_.device_data(dataset))
        return _run(programs, dataset, None, None, checkpoint_every, progress)
    return run_in_workdir(programs, dataset, workdir, checkpoint_every, progress)


def checked_runs(runs: Any) -> list[tuple[Spec, Any]]:
    """Returns a list of (Spec, lanes). Raises ValueError for what is none, or an empty one."""
    entries: list[Any] = list(runs) if registry.several(runs) else [runs]
    for entry in entries:
        if not isinstance(entry, tuple | list) or len(entry) != 2 or not isinstance(entry[0], Spec):
            raise ValueError(
                f"spec is {registry.shown(runs)}: allowed is a Spec, or a list of (Spec, lanes)."
            )
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
    """Runs planned programs in a workdir, from where they were, and returns the tidy table. Raises
    as `run` does.
    """
    wanted = program_.settings(programs, dataset)
    check_in_workdir(programs, dataset, workdir)
    with workdir_.lock(workdir), workdir_.Stop() as stop:
        if not check_config(workdir, wanted):
            before = workdir_.read_record(workdir)  # of a run that becomes longer
            workdir_.write_config(
                workdir,
                wanted,
                record.environment_record(dataset) | ({"before": before} if before else {}),
            )
        return _run(programs, dataset, Path(workdir), stop, checkpoint_every, progress)


def check_in_workdir(
    programs: Sequence[Program], dataset: datasets.Dataset, workdir: str | Path
) -> None:
    """Raises what would keep `run_in_workdir` from running these programs there; nothing is
    compiled or written.

    MemoryError or WorkdirError; whether another process holds the workdir only `run_in_workdir` can
    tell.
    """
    memory.check(programs, program_.device_data(dataset), saves=True)
    workdir_.check_writable(workdir)
    check_config(workdir, program_.settings(programs, dataset))


def check_config(workdir: str | Path, wanted: dict[str, Any]) -> bool:
    """Returns whether a workdir records these `settings`, see `workdir.check_config`; more tasks
    may be asked for.
    """
    whole = any(
        program["spec"]["options"].get(f"{schedule}.over") == "run"
        for program in wanted["programs"]
        for schedule in SCHEDULES
    )
    extendable = (
        "" if whole else "tasks"
    )  # (a schedule over the run is another one if it is longer)
    return workdir_.check_config(workdir, wanted, extendable=extendable, today=_today)


def _today(recorded: Any) -> Any:
    """Settings that a workdir records, perhaps from long ago, as they would be recorded today."""
    if "programs" not in recorded:
        return recorded
    programs = []
    for program in recorded["programs"]:
        own = [lanes_.comparable(program["spec"], lane) for lane in program["lanes"]]
        programs.append({**program, "spec": comparable(program["spec"]), "lanes": own})
    return {**recorded, "programs": programs}


def _run(
    programs: Sequence[Program],
    dataset: datasets.Dataset,
    path: Path | None,
    stop: workdir_.Stop | None,
    checkpoint_every: int,
    progress: bool,
) -> "pandas.DataFrame":
    from tqdm import tqdm

    from plasticity_jax.storage import table

    def lane_tasks(history: History) -> int:
        return history["finite"].size if history else 0

    data, histories = program_.device_data(dataset), [{} for _ in programs]
    total = sum(len(p.lanes) * p.spec.tasks for p in programs)
    folders = [
        path / "checkpoints" / str(number) if path else None for number in range(len(programs))
    ]
    # a run that became longer has rows of all programs from the start
    for number, folder in enumerate(folders):
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
                    table.write(rows.table(programs, histories), path / "results.parquet")
                    points = rows.points(programs, histories)
                    if points is not None:
                        table.write(points, path / "points.parquet")
                    for name, values in rows.arrays(programs, histories).items():
                        table.write_array(values, path / "arrays" / f"{name}.npy")

            run_program(program, data, checkpoints, stop, checkpoint_every, report)
    return rows.table(programs, histories)
