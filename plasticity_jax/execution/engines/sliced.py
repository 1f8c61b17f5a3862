"""A run in slices: cut, given to an engine, and put together in one table (see docs/engines.md)."""

import contextlib
import itertools
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from plasticity_jax import datasets
from plasticity_jax.datasets import npy
from plasticity_jax.execution import (
    engines,
    growth,
    history,
    memory,
    placement,
    results,
    rows,
    slices,
    sweep,
    tasks,
    watching,
    waves,
)
from plasticity_jax.execution import program as program_
from plasticity_jax.execution import progress as progress_
from plasticity_jax.execution.engines import description, worker
from plasticity_jax.execution.program import History, Program
from plasticity_jax.execution.slices import Slice
from plasticity_jax.storage import checkpoints
from plasticity_jax.storage import table as table_
from plasticity_jax.storage import workdir as workdir_
from plasticity_jax.storage.checkpoints import Checkpoints
from plasticity_jax.storage.workdir import WorkdirError, reason_of

if TYPE_CHECKING:
    import pandas

# a table is written anew after so many times the seconds that it took: at most a tenth of the time
_SELDOM = 9
_LOOK = 1.0  # seconds between two looks at what slices have done


class Asked(NamedTuple):
    """How a run is cut and run.

    Attributes:
      engine: its name.
      lanes: of a slice at most.
      workers, backend, imports, passed: see `engines.Options`.
      how: what every slice is told.
    """

    engine: str
    lanes: int
    workers: int
    backend: str
    imports: Sequence[str]
    passed: dict[str, str]
    how: description.How


def run_in_slices(
    programs: Sequence[Program],
    dataset: datasets.Dataset,
    workdir: str | Path,
    asked: Asked,
    *,
    progress: bool = False,
    tell: Callable[[str], None] = lambda line: None,
    on_task: sweep.OnTask | None = None,
    joined: bool = False,
) -> "pandas.DataFrame":
    """Runs planned programs in a workdir, cut into slices that processes of their own run, from
    where they were, and returns the tidy table of their lanes: to the bit that of one run on one
    device of the same kind at the same lane width.

    While another process does the same in this workdir, it is waited for; what is then left is
    run. `on_task` is called with all new rows whenever slices have moved; `joined` is as in
    `growth.plan`.
    Raises as `sweep.run_in_workdir`, and WorkdirError for slices that failed.
    """
    run = engines.engine(asked.engine).run
    workdir = Path(workdir)
    workdir_.check_writable(workdir)
    growth.plan(workdir, programs, dataset, elsewhere=True)
    waiting = _Waiting(workdir, progress)
    with (
        workdir_.Stop() as stop,
        _turn(workdir, stop, tell, waiting),
        workdir_.lock(workdir) as check,
    ):
        progress_.forget(workdir)  # (of a process that trained all slices itself, and was killed)
        planned = _planned(workdir, programs, dataset, asked.lanes, joined)
        left = [one for one in planned.running if one.done(workdir) < one.program.spec.tasks]
        check_memory([one.program for one in left], dataset, asked)
        for line in planned.news:
            tell(line)
        if not planned.is_recorded:
            _grow(workdir, planned, dataset)
        _describe(workdir, planned.running, asked.how)
        runs = sweep.Runs(planned.slices, planned.running, workdir, check=check)
        with sweep.noted(runs), watching.bar(planned.slices, progress) as bar:
            merge = Merge(workdir, planned.slices, bar, check)
            merge.update()
            merge.on_task = on_task
            left = [one.place(workdir) for one in planned.running if not merge.is_done(one)]
            options = engines.Options(
                workdir / "slices",
                asked.workers,
                asked.backend,
                asked.imports,
                asked.passed,
                merge.moved,
                tell,
                stop,
            )
            failed = run(left, options) if left else {}
            merge.update()
        _note_begun(workdir)
    _check_ended(planned, merge, failed, stop)
    table = merge.table()
    chosen = table["lane"].isin(list(planned.asked))
    return table.loc[chosen].reset_index(drop=True)


def _note_begun(workdir: Path) -> None:
    """Writes into config.json with which options of XLA the processes of slices began them."""
    found, settings = slices.read(workdir, devices=1), workdir_.read_settings(workdir)
    made = found.settings() if found else settings
    if settings is not None and made is not None and _ways(made) != _ways(settings):
        workdir_.write_config(workdir, made, workdir_.read_record(workdir))


def _ways(settings: Mapping[str, Any]) -> list[Any]:
    programs = settings["programs"]
    return [(program.get("folder"), program.get("compiler_options")) for program in programs]


def _check_ended(
    planned: growth.Plan, merge: "Merge", failed: engines.Failed, stop: workdir_.Stop
) -> None:
    """Raises WorkdirError for slices that failed, and Stopped for a run that was stopped."""
    done = sum(merge.is_done(one) for one in planned.running)
    said = f"{done} of {len(planned.running)} slices are done"
    if stop.requested and done < len(planned.running):
        raise tasks.Stopped(stop.signal or 0, said)
    if not failed and done < len(planned.running):
        raise WorkdirError(
            f"{said}: the results of the others in {merge.workdir / 'slices'} cannot be read, and "
            "the same command makes them anew."
        )
    if failed:
        folder, reason = next(iter(failed.items()))
        more = f", and {len(failed) - 1} more failed" if len(failed) > 1 else ""
        raise WorkdirError(
            f"slice {folder} failed ({reason.rstrip('.')}){more}: {said}, the same command goes on "
            "with the others."
        )


def _say(bar: watching.Bar, workdir: Path, every: Sequence[Slice], done: Sequence[bool]) -> None:
    """Says how many slices are done, and what others compile."""
    left = (one for one, is_done in zip(every, done, strict=True) if not is_done and one.home)
    compiling = (progress_.compiling(one.place(workdir)) for one in left) if bar.shown else ()
    bar.begins(f"{sum(done)} of {len(every)} slices", compiling)


class _Waiting:
    """What another process does in a workdir, as a progress bar over the tasks of lanes."""

    def __init__(self, workdir: Path, progress: bool):
        self._workdir, self._progress = workdir, progress
        self._bar: watching.Bar | None = None
        self._held = contextlib.ExitStack()
        self._next = 0.0

    def look(self) -> None:
        """Shows how far the slices are; not too often."""
        if not self._progress or time.monotonic() < self._next:
            return
        began = time.monotonic()
        recorded = None
        with contextlib.suppress(WorkdirError):  # (what cannot be read is told in its own turn)
            recorded = slices.read(self._workdir, devices=1)
        every = recorded.slices if recorded else []
        if every and self._bar is None:
            self._bar = self._held.enter_context(watching.bar(every, True))
        if self._bar is not None:
            done = [worker.newest(one.checkpoints(self._workdir)) for one in every]
            ended = [d >= one.program.spec.tasks for d, one in zip(done, every, strict=True)]
            _say(self._bar, self._workdir, every, ended)
            self._bar.moves(sum(d * len(one.numbers) for d, one in zip(done, every, strict=True)))
        took = time.monotonic() - began
        self._next = time.monotonic() + max(_LOOK, _SELDOM * took)

    def close(self) -> None:
        """Ends the bar."""
        self._held.close()


@contextlib.contextmanager
def _turn(
    workdir: Path, stop: workdir_.Stop, tell: Callable[[str], None], waiting: _Waiting
) -> Iterator[None]:
    """Holds the slices of a workdir; waits while another process does, and shows how far that is.

    Raises Stopped if it is asked to stop while it waits.
    """
    waits = False
    with contextlib.ExitStack() as held, contextlib.closing(waiting):
        while True:
            try:
                held.enter_context(workdir_.lock(workdir / "slices"))
                break
            except workdir_.InUse as error:
                if not waits:
                    tell(f"{error.said}: it is waited for (plasticity status {workdir} says more)")
                waits = True
            waiting.look()
            if stop.requested:
                raise tasks.Stopped(stop.signal or 0, "the other process goes on with its slices")
            time.sleep(_LOOK / 2)
        waiting.close()
        yield


def check_memory(programs: Sequence[Program], dataset: datasets.Dataset, asked: Asked) -> None:
    """Returns if slices fit into the memory of this machine, where its cores run them.

    Raises MemoryError. An accelerator has its own memory, which the process of a slice looks at.
    """
    if asked.engine == "local" and asked.backend == "cpu":
        memory.check_together(programs, program_.device_data(dataset), asked.workers)


# Cutting


def _planned(
    workdir: Path,
    programs: Sequence[Program],
    dataset: datasets.Dataset,
    lanes: int,
    joined: bool,
) -> growth.Plan:
    """What a workdir will consist of, where every slice that is run has a workdir of its own."""
    planned = growth.plan(workdir, programs, dataset, elsewhere=True, joined=joined)
    recorded = slices.read(workdir, devices=1)
    before = recorded.slices if recorded else []
    known = frozenset().union(*(one.numbers for one in before))
    made: list[Slice] = []
    renamed: dict[str, Slice] = {}
    for one in planned.slices:
        if one.home or planned.asked.isdisjoint(one.numbers):
            made.append(one)
        elif known.issuperset(one.numbers):
            _check_one_device(workdir, one)
            renamed[one.folder] = one._replace(home=one.folder)
            made.append(renamed[one.folder])
        else:
            made += cut(one, lanes)
    parts = [
        part._replace(after=renamed.get(part.after.folder, part.after)) for part in planned.parts
    ]
    is_recorded = [one.record() for one in before] == [one.record() for one in made]
    return planned._replace(slices=made, parts=parts, is_recorded=is_recorded)


def cut(one: Slice, lanes: int) -> list[Slice]:
    """Returns the slices that a new one is cut into, of so many lanes at most, in order; each is
    run on one device.
    """
    made = []
    for first in range(0, len(one.numbers), lanes):
        places = list(range(first, min(first + lanes, len(one.numbers))))
        program = growth.some(one.program, places)
        program = program._replace(execution=program.execution._replace(devices=1))
        name = slices.name(program, one.options)
        numbers = [one.numbers[place] for place in places]
        made.append(Slice(program, numbers, name, one.options, home=name))
    return made


def cut_programs(programs: Sequence[Program], lanes: int) -> list[Program]:
    """Returns those of the slices that new programs are cut into."""
    cuts = [cut(one, lanes) for one in slices.in_order(programs)]
    return [one.program for one in itertools.chain.from_iterable(cuts)]


def _check_one_device(workdir: Path, one: Slice) -> None:
    """Raises WorkdirError for lanes whose last digits stand on several devices."""
    how = one.program.execution
    if how.width > 1 and how.devices > 1:
        raise WorkdirError(
            f"the lanes in {workdir} were run {how.width} at a time on each of {how.devices} "
            "devices, and last digits follow, but an engine gives a slice one: leave --engine out, "
            "or use another --workdir."
        )


def _grow(workdir: Path, planned: growth.Plan, dataset: datasets.Dataset) -> None:
    """Makes a workdir what is planned, with all that slices there had in their new places."""
    kept = slices.read(workdir, devices=1)
    before = {one.folder: one for one in kept.slices} if kept else {}
    moved = []
    for one in planned.running:
        source = before.get(one.folder)
        if source and not source.home and one.home:
            moved.append(source)
            checkpoints.copy(source.checkpoints(workdir), one.checkpoints(workdir))
    sweep.grow(workdir, planned, dataset, lambda: _settle(workdir, planned.running, dataset))
    for source in moved:
        shutil.rmtree(source.checkpoints(workdir), ignore_errors=True)


def _settle(workdir: Path, running: Sequence[Slice], dataset: datasets.Dataset) -> None:
    """Gives slices whose checkpoints came from elsewhere the record and the results of a workdir,
    so that the way they were begun is kept.
    """
    for one in running:
        home = one.place(workdir)
        if not one.checkpoints(workdir).is_dir() or (home / "config.json").exists():
            continue
        own = one._replace(numbers=list(range(len(one.numbers))), home=None)
        results.write([own], [history.read(Checkpoints(own.checkpoints(home)))[1]], home)
        workdir_.write_config(home, slices.settings([own], dataset), {})


def _describe(workdir: Path, running: Sequence[Slice], how: description.How) -> None:
    """Writes what a process needs to know of each slice."""
    for one in running:
        description.write(one.place(workdir), one.program, how)
        worker.forget(one.place(workdir))


# Putting together


class _Read(NamedTuple):
    """What was last read of a slice.

    Attributes:
      done: tasks whose states were saved then.
      table: its rows, with the numbers that its lanes have in the table of all.
    """

    done: int
    table: "pandas.DataFrame | None"


class Merge:
    """The table of all slices of a workdir, which follows what they do.

    A slice without a workdir of its own is read once. `check` raises WorkdirError once the workdir
    was deleted or another folder took its place.
    """

    def __init__(
        self,
        workdir: Path,
        every: Sequence[Slice],
        bar: watching.Bar,
        check: Callable[[], None] = lambda: None,
    ):
        self.workdir = workdir
        self._check = check
        self._slices = list(every)
        # (a lane is in one slice alone)
        self._places = {one.numbers[0]: index for index, one in enumerate(every)}
        self._bar = bar
        self.on_task: sweep.OnTask | None = None
        self._stopped = waves.stopped(workdir)
        self._read: dict[int, _Read] = {}
        self._next = 0.0

    def moved(self) -> None:
        """Looks whether slices have moved, and if so writes the table; not too often."""
        if time.monotonic() < self._next:
            return
        began = time.monotonic()
        self.update()
        took = time.monotonic() - began
        self._next = time.monotonic() + max(_LOOK, _SELDOM * took)

    def update(self) -> None:
        """Reads what has moved and writes the table of all. Raises WorkdirError."""
        self._check()
        before: dict[int, int] = {}
        for index, one in enumerate(self._slices):
            known = self._read.get(index)
            done = worker.tasks_done(one.place(self.workdir)) if one.home else 0
            if (known is None or done != known.done) and self._reread(index, one, done):
                before |= dict.fromkeys(one.numbers, 0 if known is None else known.done)
        self._tell()
        if not before:
            return
        table = self.table()
        self._bar.tells(table)
        self._write(table)
        if self.on_task:
            never = len(table)
            first = [before.get(int(lane), never) for lane in table["lane"]]
            self.on_task(table.loc[table["task"] >= first].reset_index(drop=True))

    def is_done(self, one: Slice) -> bool:
        """Whether all tasks of a slice are done and in the table."""
        known = self._read.get(self._places[one.numbers[0]])
        if known is None or known.table is None:
            return False
        return len(known.table) >= len(one.numbers) * one.program.spec.tasks

    def table(self) -> "pandas.DataFrame":
        """Returns the table of all lanes so far, as one run would have made it."""
        import pandas

        programs = [one.program for one in self._slices]
        read = [self._read[index] for index in sorted(self._read)]
        tables = [one.table for one in read if one.table is not None]
        if not tables:
            return rows.table(programs, [{} for _ in programs], self._numbers())
        whole = pandas.concat(tables, ignore_index=True)
        whole = whole.sort_values("lane", kind="stable", ignore_index=True)
        return waves.marked(rows.arranged(whole, programs), self._stopped)

    def _numbers(self) -> list[list[int]]:
        return [one.numbers for one in self._slices]

    def _reread(self, index: int, one: Slice, done: int) -> bool:
        """Reads the rows of a slice; returns whether there are any."""
        try:
            found = _rows(one, self.workdir)
        except (OSError, ValueError, KeyError):
            found = None  # (a slice that is run writes them anew, from its states)
        if found is None:
            # (states are saved just before results are written: they are looked for again)
            self._read[index] = _Read(0 if one.home else done, None)
            return False
        self._read[index] = _Read(int(found["task"].to_numpy().max()) + 1, found)
        return True

    def _tell(self) -> None:
        tables = [one.table for one in self._read.values() if one.table is not None]
        _say(self._bar, self.workdir, self._slices, list(map(self.is_done, self._slices)))
        self._bar.moves(sum(map(len, tables)))

    def _write(self, table: "pandas.DataFrame") -> None:
        """Writes the table of all, and what else slices measured."""
        table_.write(table, self.workdir / "results.parquet")
        points = _points(self._slices, self.workdir)
        if points is not None:
            table_.write(points, self.workdir / "points.parquet")
        tasks = max((known.done for known in self._read.values()), default=0)
        for name, values in _arrays(self._slices, self.workdir, tasks).items():
            table_.write_array(values, self.workdir / "arrays", name)


def _rows(one: Slice, workdir: Path) -> "pandas.DataFrame | None":
    """The rows of a slice so far, None if there are none."""
    if not one.home:
        found = _history(one, workdir)
        return rows.table([one.program], [found], [one.numbers]) if found else None
    path = one.place(workdir) / "results.parquet"
    if not path.exists():
        return None
    return rows.again(_numbered(table_.read(path), one), [one.program], [one.numbers])


def _history(one: Slice, workdir: Path) -> History:
    """What a slice without a workdir of its own measured."""
    return history.read(Checkpoints(one.checkpoints(workdir)))[1]


def _numbered(table: "pandas.DataFrame", one: Slice) -> "pandas.DataFrame":
    """A slice's own table with the numbers of its lanes in the table of all.

    Raises ValueError if it has lanes that the slice has not.
    """
    own = table["lane"].to_numpy()
    if len(own) and not 0 <= own.min() <= own.max() < len(one.numbers):
        raise ValueError("it has lanes that config.json does not have")
    return table.assign(lane=np.asarray(one.numbers)[own])


def _points(every: Sequence[Slice], workdir: Path) -> "pandas.DataFrame | None":
    """The values within tasks of all slices, None if none were asked for."""
    import pandas

    found = []
    for one in every:
        path = one.place(workdir) / "points.parquet"
        if not one.home:
            own = rows.points([one.program], [_history(one, workdir)])
            found += [] if own is None else [_numbered(own, one)]
        elif path.exists():
            with _reading(path, one.place(workdir)):
                found.append(_numbered(table_.read(path), one))
    if not found:
        return None
    whole = pandas.concat(found, ignore_index=True)
    return whole.sort_values(["lane", "task", "point"], ignore_index=True)


@contextlib.contextmanager
def _reading(path: Path, place: Path) -> Iterator[None]:
    """Faults of what a slice wrote into its workdir become WorkdirErrors."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise WorkdirError(
            f"{path} cannot be read ({reason_of(error)}): delete {place / 'results.parquet'}, and "
            "the same command writes both anew."
        ) from error


def _arrays(every: Sequence[Slice], workdir: Path, tasks: int) -> dict[str, np.ndarray]:
    """{probe: [tasks, lanes, K]} of all slices, NaN where there is nothing."""
    parts: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for one in every:
        found = {} if one.home else rows.arrays([one.program], [_history(one, workdir)])
        folder = one.place(workdir) / "arrays"
        for path in sorted(folder.rglob("*.npy")) if one.home else ():
            name = path.relative_to(folder).with_suffix("").as_posix()
            with _reading(path, one.place(workdir)):
                found[name] = npy.mapped(path)
        for name, values in found.items():
            parts.setdefault(name, []).append((np.asarray(one.numbers), values))
    lanes = sum(len(one.numbers) for one in every)
    return {name: rows.filled(placed, tasks, lanes) for name, placed in parts.items()}


def on_one_device(
    programs: Sequence[Program], asked: Asked, strategy: str | None, width: int | None
) -> list[Program]:
    """Returns the programs as their slices are run: each on one device.

    Raises ValueError as `placement.execution`.
    """
    made = []
    for program in programs:
        count = min(asked.lanes, len(program.lanes))
        kind = placement.kind(program.spec)
        how = placement.execution(kind, count, strategy, width, asked.backend, 1)
        made.append(program._replace(execution=how))
    return made
