"""Runs of many programs: in memory, or in a workdir that the same call goes on with."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plasticity_jax import datasets, registry
from plasticity_jax import lanes as lanes_
from plasticity_jax.execution import memory, record, rows, tasks
from plasticity_jax.execution import program as program_
from plasticity_jax.execution.program import History, Program
from plasticity_jax.spec import Spec, comparable
from plasticity_jax.storage import paths
from plasticity_jax.storage import workdir as workdir_
from plasticity_jax.storage.checkpoints import Checkpoints

if TYPE_CHECKING:
    import pandas


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
        was, also with more tasks than before. None: memory only.
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
    elif not registry.several(spec):
        raise ValueError(
            f"spec is {registry.shown(spec)}: allowed is a Spec, or a list of (Spec, lanes)."
        )
    else:
        raise ValueError(
            "lanes are given twice: with a list of (Spec, lanes) leave the argument `lanes` out."
        )
    runs = [(one, lanes_.listed(given)) for one, given in runs]
    checkpoint_every = registry.whole("checkpoint_every", checkpoint_every, 1, never=True)
    if workdir is not None:
        workdir = paths.expanded(workdir, "workdir")
    specs = [one for one, _ in runs]
    dataset = program_.load_common_dataset(specs, data_dir, download)
    samples = program_.sizes(specs, program_.device_data(dataset))
    programs = program_.plan(runs, samples, lane_strategy, lane_width)
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
    check_in_workdir(programs, dataset, workdir)
    with workdir_.lock(workdir), workdir_.Stop() as stop:
        if not check_config(workdir, programs, dataset):
            made = record.environment_record(dataset)
            before = workdir_.read_record(workdir)  # of a run that becomes longer
            if before:
                made["before"] = before
            workdir_.write_config(workdir, program_.settings(programs, dataset), made)
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
    check_config(workdir, programs, dataset)


def check_config(
    workdir: str | Path, programs: Sequence[Program], dataset: datasets.Dataset
) -> bool:
    """Returns whether a workdir is of these programs, see `workdir.check_config`.

    They may have more tasks than there, if the first tasks stay what they were.
    """
    wanted = program_.settings(programs, dataset)
    open_ended = all(program.spec.open_ended for program in programs)
    extendable = "tasks" if open_ended else ""
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

    data = program_.device_data(dataset)
    checkpoints = _checkpoints(path, len(programs))
    # (a run that became longer has rows of all programs from the start)
    histories = [_history(kept) for kept in checkpoints]
    total = sum(len(program.lanes) * program.spec.tasks for program in programs)
    with tqdm(total=total, unit="lane-task", disable=not progress, smoothing=0.1) as bar:
        for number, program in enumerate(programs):
            bar.set_description(f"program {number + 1} of {len(programs)}")

            def report(history: History, number: int = number) -> None:
                histories[number] = history
                bar.update(sum(map(_lane_tasks, histories)) - bar.n)
                if path and history:
                    _write(programs, histories, path)

            tasks.run_program(program, data, checkpoints[number], stop, checkpoint_every, report)
    return rows.table(programs, histories)


def _checkpoints(path: Path | None, programs: int) -> list[Checkpoints | None]:
    """Those of each program in a workdir, none without one."""
    if path is None:
        return [None] * programs
    return [Checkpoints(path / "checkpoints" / str(number)) for number in range(programs)]


def _history(checkpoints: Checkpoints | None) -> History:
    """What was measured so far."""
    found = tasks.restored(checkpoints)
    return found.history if found else {}


def _lane_tasks(history: History) -> int:
    return history["finite"].size if history else 0


def _write(programs: Sequence[Program], histories: Sequence[History], path: Path) -> None:
    """Writes the results so far into a workdir."""
    from plasticity_jax.storage import table

    table.write(rows.table(programs, histories), path / "results.parquet")
    points = rows.points(programs, histories)
    if points is not None:
        table.write(points, path / "points.parquet")
    for name, values in rows.arrays(programs, histories).items():
        table.write_array(values, path / "arrays" / f"{name}.npy")
