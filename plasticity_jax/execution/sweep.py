"""Runs of many programs: in memory, or in a workdir that the same call goes on with."""

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from plasticity_jax import datasets, registry
from plasticity_jax import lanes as lanes_
from plasticity_jax.execution import (
    growth,
    memory,
    record,
    results,
    rows,
    slices,
    starts,
    tasks,
    watching,
    waves,
)
from plasticity_jax.execution import history as history_
from plasticity_jax.execution import program as program_
from plasticity_jax.execution import progress as progress_
from plasticity_jax.execution.ahead import Ahead
from plasticity_jax.execution.program import History, Program
from plasticity_jax.execution.slices import Slice
from plasticity_jax.reporting import metrics
from plasticity_jax.spec import Spec
from plasticity_jax.storage import paths
from plasticity_jax.storage import workdir as workdir_
from plasticity_jax.storage.checkpoints import Checkpoints, keeping
from plasticity_jax.types import PyTree

if TYPE_CHECKING:
    import pandas


OnTask = Callable[["pandas.DataFrame"], None]


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
    keep_checkpoints: str = "last",
    progress: bool = False,
    start: str | Path | PyTree | None = None,
    start_task: int | None = None,
    on_task: OnTask | None = None,
    start_arm: Mapping[str, Any] | None = None,
    wave: int | None = None,
    stop_below: Mapping[str, float] | None = None,
) -> "pandas.DataFrame":
    """Runs lanes of a Spec through all tasks and returns the tidy table (see `table`).

    Args:
      spec: a Spec, with `lanes` as `grid` makes them (default: one lane of defaults); or a list of
        (Spec, lanes).
      workdir: where to keep results, checkpoints and config; the same call again goes on where it
        was. A workdir also takes more tasks, more lanes, and other Specs; the table returned is of
        the lanes asked for, numbered as in the workdir, whose results.parquet has those that were
        asked for before as well. None: memory only.
      data_dir, download: where the dataset's original files are, and whether to fetch them.
      lane_strategy, lane_width: see `placement.Execution`; default by backend and model.
      checkpoint_every: tasks between checkpoints; "never": only at the end, or when stopped.
      keep_checkpoints: those that stay besides the newest two: "every:10" of each tenth task (which
        `load_state` reads), "last" no more.
      progress: show a progress bar on standard error.
      start: workdir of a finished run, from whose trained networks the lanes begin, each from that
        of its seed, after the Spec's `surgery`; or a tree of parameters (or of Flax variables, with
        "params") from which all of them begin, with the optimizer at its start; None: they are
        drawn.
      start_task: the task after whose end they are taken; None: the last.
      on_task: called with the rows of each task (of one program's lanes, columns as in the table)
        once it is safe on disk, or done without a workdir; not with those of an earlier call.
      start_arm: settings of the lanes to take, such as {"granularity": 20}, where the workdir has
        several for a seed.
      wave: tasks after which lanes that diverged, or that `stop_below` marks, are not run on, again
        and again (see docs/slices.md); needs a workdir. None: all lanes do all tasks, or, with
        `stop_below`, a tenth of the tasks.
      stop_below: {column of the table: value}; marked is a lane whose mean over a wave is below.
    `~` at the start of a folder is expanded. Raises ValueError (settings), DataError (data),
    MemoryError (by an estimate), WorkdirError (workdir), Stopped (a signal of `workdir.Stop`, such
    as SIGTERM or Ctrl-C, with a workdir).

    >>> small = {"width": 4, "depth": 1, "norm": "none", "optimizer": "sgd", "probes": ()}
    >>> spec = pj.Spec(samples=64, transition="abrupt", tasks=2, epochs=1, **small)
    >>> table = pj.run(spec, pj.grid(seed=range(2)), "runs/tiny")
    >>> table[["lane", "seed", "task"]].to_numpy().tolist()
    [[0, 0, 0], [0, 0, 1], [1, 1, 0], [1, 1, 1]]
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
    always = keeping(keep_checkpoints)
    if workdir is not None:
        workdir = paths.expanded(workdir, "workdir")
    specs = [one for one, _ in runs]
    dataset = program_.load_common_dataset(specs, data_dir, download)
    data = program_.device_data(dataset)
    programs = program_.plan(runs, program_.sizes(specs, data), lane_strategy, lane_width)
    programs = starts.attached(programs, start, start_task, data, start_arm)
    parted = waves.checked(wave, stop_below, programs, workdir is not None)
    if workdir is None:
        memory.check(programs, data)
        made = slices.in_order(programs)
        runs_ = Runs(made, made, None)
        return _run(runs_, dataset, None, checkpoint_every, Watch(progress, on_task))
    run_all = functools.partial(
        run_in_workdir,
        dataset=dataset,
        workdir=workdir,
        checkpoint_every=checkpoint_every,
        progress=progress,
        always=always,
        on_task=on_task,
        joined=parted is not None,
    )
    return waves.run_in_waves(programs, parted, workdir, run_all) if parted else run_all(programs)


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
    *,
    progress: bool = False,
    tell: Callable[[str], None] = lambda line: None,
    always: Callable[[int], bool] = lambda step: False,
    on_task: OnTask | None = None,
    joined: bool = False,
) -> "pandas.DataFrame":
    """Runs planned programs in a workdir, from where they were, and returns the tidy table of their
    lanes; `tell` is called with lines on what is new in a workdir with lanes, `always` says which
    checkpoints stay (see `checkpoints.keeping`), `on_task` is as in `run`, `joined` as in
    `growth.plan`. Raises as `run` does.
    """
    planned = check_in_workdir(programs, dataset, workdir, joined)
    with (
        workdir_.lock(workdir) as check,
        slices.locked(workdir, planned.slices),
        workdir_.Stop() as stop,
        progress_.told(workdir),
    ):
        planned = growth.plan(workdir, programs, dataset, joined=joined)
        for line in planned.news:
            tell(line)
        if not planned.is_recorded:
            grow(workdir, planned, dataset)
        runs = Runs(planned.slices, planned.running, Path(workdir), always, check)
        with noted(runs):
            table = _run(runs, dataset, stop, checkpoint_every, Watch(progress, on_task))
    asked = table["lane"].isin(list(planned.asked))
    return table.loc[asked].reset_index(drop=True)


def grow(
    workdir: str | Path,
    planned: growth.Plan,
    dataset: datasets.Dataset,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Makes a workdir what is planned; `ready` is called before config.json says so.

    Raises WorkdirError.
    """
    growth.apply(workdir, planned)
    ready()
    made = record.environment_record(dataset)
    specs = dict.fromkeys(one.program.spec for one in planned.slices)
    environments = [spec.make_environment() for spec in specs]
    made["chance"] = metrics.chances(environments, program_.device_data(dataset))
    before = workdir_.read_record(workdir)  # of a run that grows
    if before:
        made["calls"] = before.pop("calls", [])
        made["imports"] = before.get("imports", {}) | made["imports"]
        made["before"] = before
        if waves.RECORD in before:
            made[waves.RECORD] = before.pop(waves.RECORD)
    workdir_.write_config(workdir, slices.settings(planned.slices, dataset), made)
    growth.tidy(workdir, planned)


def check_in_workdir(
    programs: Sequence[Program],
    dataset: datasets.Dataset,
    workdir: str | Path,
    joined: bool = False,
) -> growth.Plan:
    """Raises what would keep `run_in_workdir` from running these programs there, and returns what
    the workdir will consist of; nothing is compiled or written.

    MemoryError or WorkdirError; whether another process holds the workdir only `run_in_workdir` can
    tell.
    """
    workdir_.check_writable(workdir)
    planned = growth.plan(workdir, programs, dataset, joined=joined)
    running = [one.program for one in planned.running]
    memory.check(running, program_.device_data(dataset), saves=True)
    return planned


class Runs(NamedTuple):
    """Slices, those of them that are run, and the workdir that they are in, if any; `always` and
    `check` are as in `Checkpoints`.
    """

    slices: Sequence[Slice]
    running: Sequence[Slice]
    path: Path | None
    always: Callable[[int], bool] = lambda step: False
    check: Callable[[], None] = lambda: None

    def checkpoints(self, one: Slice) -> Checkpoints | None:
        """Returns those of a slice, None without a workdir."""
        if self.path is None:
            return None
        folder = one.checkpoints(self.path)
        return Checkpoints(folder, always=self.always, check=self.check)

    def note(self, at: progress_.Progress) -> None:
        """Writes down what this process is at, if there is a workdir. Raises WorkdirError if it was
        deleted.
        """
        if self.path is not None:
            self.check()
            progress_.note(self.path, at)

    def is_done(self) -> bool:
        """Whether there is nothing to run."""
        return all(self._done(one) >= one.program.spec.tasks for one in self.running)

    def _done(self, one: Slice) -> int:
        kept = self.checkpoints(one)
        return max(kept.steps(), default=0) if kept else 0


@contextlib.contextmanager
def noted(runs: Runs) -> Iterator[None]:
    """Writes into config.json by which command, when and where something is run, if anything is;
    when it ended as well, unless the process is killed.
    """
    if runs.path is None or runs.is_done():
        yield
        return
    settings, kept = workdir_.read_settings(runs.path), workdir_.read_record(runs.path)
    call = record.call()
    kept["calls"] = [*kept.get("calls", []), call]
    workdir_.write_config(runs.path, settings or {}, kept)
    try:
        yield
    finally:
        call["ended"] = record.now()
        # (what went wrong before, such as a full disk, is what is to be told)
        with contextlib.suppress(workdir_.WorkdirError):
            runs.check()
            workdir_.write_config(runs.path, settings or {}, kept)


class Watch(NamedTuple):
    """How a run is watched.

    Attributes:
      progress: whether a bar is shown on standard error.
      on_task: see `run`.
    """

    progress: bool = False
    on_task: OnTask | None = None


def _run(
    runs: Runs,
    dataset: datasets.Dataset,
    stop: workdir_.Stop | None,
    checkpoint_every: int,
    watch: Watch,
) -> "pandas.DataFrame":
    data = program_.device_data(dataset)
    # (slices of a run that grew have rows from the start)
    histories = [history_.read(runs.checkpoints(one))[1] for one in runs.slices]
    asked = {one.numbers[0] for one in runs.running}  # (a lane is in one slice alone)
    active = [number for number, one in enumerate(runs.slices) if one.numbers[0] in asked]
    programs = [runs.slices[number].program for number in active]
    left = [
        program
        for number, program in zip(active, programs, strict=True)
        if _tasks(histories[number]) < program.spec.tasks
    ]
    ahead = Ahead(left, data)
    done = sum(_lane_tasks(histories[number]) for number in active)
    written = results.Written(runs.slices, histories, runs.path)
    began, before = time.time(), sum(map(_lane_tasks, histories))
    with written, watching.bar([runs.slices[n] for n in active], watch.progress) as bar:
        for count, number in enumerate(active, 1):
            one = runs.slices[number]
            told = [_tasks(histories[number])]

            def begins(compiling: str = "", one: Slice = one, count: int = count) -> None:
                bar.begins(f"program {count} of {len(active)}", [compiling])
                runs.note(progress_.Progress(one.home or one.folder, compiling, began, before))

            if told[0] < one.program.spec.tasks:
                begins(watching.compiled(one.program.spec))

            def report(history: History, number: int = number, told: list[int] = told) -> None:
                nonlocal done
                done += _lane_tasks(history) - _lane_tasks(histories[number])
                histories[number] = history
                bar.moves(done)
                if history:
                    written.moved()
                if (watch.progress or watch.on_task) and _tasks(history) > told[0]:
                    rows_ = _rows_from(runs.slices, number, history, told[0])
                    told[0] = _tasks(history)
                    bar.tells(rows_)
                    if watch.on_task:
                        watch.on_task(rows_)

            kept = tasks.Safekeeping(runs.checkpoints(one), checkpoint_every, report, stop)
            tasks.run_program(one.program, data, kept, ahead=ahead, compiled=begins)
    return rows.table(*results.laid_out(runs.slices, histories))


def _rows_from(
    slices: Sequence[Slice], number: int, history: History, first: int
) -> "pandas.DataFrame":
    """The rows of a slice from a task on, with the columns of the whole table."""
    one = slices[number]
    new = rows.table([one.program], [history], [one.numbers], first)
    return rows.arranged(new, [other.program for other in slices])


def _tasks(history: History) -> int:
    return len(history["finite"]) if history else 0


def _lane_tasks(history: History) -> int:
    return history["finite"].size if history else 0
