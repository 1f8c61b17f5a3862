"""From a command line to a finished workdir: what `experiments/*.py` call."""

import contextlib
import os
import signal
import sys
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from plasticity_jax import datasets, own_parts
from plasticity_jax.cli import (
    changes,
    dry_run,
    flags,
    help,
    pages,
    pictures,
    settings,
    slicing,
    watching,
)
from plasticity_jax.cli.settings import Settings
from plasticity_jax.datasets import cache
from plasticity_jax.estimates import profile
from plasticity_jax.execution import memory, rows, starts, sweep, tasks
from plasticity_jax.execution import program as program_
from plasticity_jax.execution import waves as waves_
from plasticity_jax.execution.engines import sliced
from plasticity_jax.reporting import metrics
from plasticity_jax.spec import Spec
from plasticity_jax.storage import workdir, writing
from plasticity_jax.storage.checkpoints import keeping

# exit codes: a fault of the command line; a fault of data, disk or machine
USAGE, ENVIRONMENT = 2, 1

# what goes wrong around a run; jax has errors of its own for memory that ran out in spite of the
# estimate, and for a number that is none, if it is asked to look for one (`jax_debug_nans`)
JAX_FAULTS = (jax.errors.JaxRuntimeError, FloatingPointError)
ENVIRONMENT_FAULTS = (datasets.DataError, workdir.WorkdirError, OSError, MemoryError, *JAX_FAULTS)
# no sums in a changing order, and no kernels chosen by a stopwatch
DETERMINISTIC = "--xla_gpu_deterministic_ops=true"


class Experiment(NamedTuple):
    """What is run from the command line.

    Attributes:
      doc: the experiment file's docstring, shown by --help.
      defaults: the experiment's own settings, by the names of their flags.
      arms: the grids whose union is run; each replaces some settings (see `flags.runs`).
      title, note: of the figure. A text is for the experiment as its defaults have it; a note of
        what flags change takes its place. A function of (table, flags' values) may say what it
        likes.
      metric: a column that `then` needs: a run that would lack it is refused.
      then: (table, arm columns, flags' values) -> a last line to print, called when the run is
        finished.
    """

    doc: str | None
    defaults: Settings = types.MappingProxyType({})
    arms: Sequence[Settings] = ({},)
    title: str = ""
    note: str | Callable[[Any, flags.Values], str] = ""
    metric: str = ""
    then: Callable[[Any, Sequence[str], flags.Values], str] | None = None


class Checked(NamedTuple):
    """A run that can begin.

    Attributes:
      programs: with all their lanes, in the order of the table.
      checkpoint_every: tasks between checkpoints.
      last: tasks at the end that the printed table averages over.
      always: which checkpoints stay, by tasks done.
      asked: how the run is cut into slices, None if it is not.
      waves: when lanes are not run on, None if all are.
    """

    dataset: datasets.Dataset
    programs: list[program_.Program]
    checkpoint_every: int
    last: int
    always: Callable[[int], bool]
    asked: sliced.Asked | None = None
    waves: waves_.Waves | None = None


def launch(experiment: Experiment, argv: Sequence[str] | None = None) -> int:
    """Runs an experiment from the command line and returns the exit code.

    `argv` are the arguments, by default the process's own.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    with interruptible():
        try:
            arguments, passed = slicing.split(arguments)
            values, given = flags.parse(arguments, experiment.defaults)
            values["passed"] = passed
            if values["help"] or values["list"]:
                usage = help.usage(experiment.doc or "", experiment.defaults)
                say(usage if values["help"] else help.listing())
                return 0
            slicing.prepare(values)
            prepare_jax(values["deterministic"])
            checked = check(values, given, experiment.arms, experiment.metric)
            if values["dry_run"] or values["profile"]:
                _try(checked, values)
                return 0
        except ValueError as error:
            return fault(error, USAGE)
        except ENVIRONMENT_FAULTS as error:
            return fault(error, ENVIRONMENT)
        try:
            _run(experiment, checked, values)
        except tasks.Stopped as stopped:
            _stopped(stopped)
        except KeyboardInterrupt:  # the second one
            _interrupted()
        except ValueError as error:  # (what only an engine's own scheduler could tell)
            return fault(error, USAGE)
        except ENVIRONMENT_FAULTS as error:
            return fault(error, ENVIRONMENT)
    return 0


def _try(checked: Checked, values: flags.Values) -> None:
    """Says what a run would be (--dry_run), or what takes its time (--profile)."""
    dataset, programs = checked.dataset, checked.programs
    data = program_.device_data(dataset)
    if values["dry_run"]:
        say(dry_run.describe(programs, dataset, values["long"]))
        if values["workdir"]:
            elsewhere = checked.asked is not None
            for line in dry_run.workdir(values["workdir"], programs, dataset, elsewhere):
                say(line)
        if checked.asked:
            say(slicing.told(programs, checked.asked))
            cut = sliced.cut_programs(programs, checked.asked.lanes)
            sliced.check_memory(cut, dataset, checked.asked)
        else:
            memory.check(programs, data, saves=True)
        say(dry_run.time(programs, dataset))
        return
    memory.check(programs[:1], data)
    found = profile.profile(programs[0], dataset, values["profile"])
    say(f"program 1 of {len(programs)}: {found}")


def _run(experiment: Experiment, checked: Checked, values: flags.Values) -> None:
    """Runs what was checked, or goes on with it, and reports."""
    before = workdir.read_record(values["workdir"]) if own_parts.LOADED else {}
    for name in own_parts.changed(before.get("imports", {})):
        tell(f"note: {name} has changed since this run began.")
    table = _table(experiment, checked, values)
    note = _note(experiment, values, table)
    say(report(table, checked, values, experiment.title, note))
    if experiment.then is not None:
        say(experiment.then(table, rows.arm_columns(checked.programs), values))


def _table(experiment: Experiment, checked: Checked, values: flags.Values) -> Any:
    """The table of a run, in this process or in slices."""
    programs, dataset, folder = checked.programs, checked.dataset, values["workdir"]

    def draw(table: Any) -> None:
        _draw(table, checked, values, experiment.title, "")

    watchers = watching.Watchers(values, programs, draw)
    how = {"progress": values["progress"], "on_task": watchers, "joined": bool(checked.waves)}

    def run(programs: Sequence[program_.Program]) -> Any:
        if checked.asked:
            return sliced.run_in_slices(programs, dataset, folder, checked.asked, tell=tell, **how)
        every, always = checked.checkpoint_every, checked.always
        return sweep.run_in_workdir(
            programs, dataset, folder, every, tell=say, always=always, **how
        )

    if checked.waves is None:
        table = run(programs)
    else:
        table = waves_.run_in_waves(programs, checked.waves, folder, run, say)
    watchers.ends(table)
    return table


def tell(text: str) -> None:
    """Prints a line beside a run, on standard error, if that takes it: what a process does, and how
    it ends, is the same where its log is on a full disk.
    """
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def _note(experiment: Experiment, values: flags.Values, table: Any) -> str:
    """What is said below the figure."""
    if not isinstance(experiment.note, str):
        return experiment.note(table, values)
    different = changes.told(values, experiment.defaults, table) if experiment.defaults else []
    if not different:
        return experiment.note
    return f"Differs from the experiment's own settings: {', '.join(different)}."


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C and other signals that ask a run to stop end the process with one sentence, at once,
    while nothing else (`workdir.Stop`) looks after them.

    Not by an exception, which Python drops if it comes while a garbage collection runs a callback,
    as jax has one.
    """
    before = workdir.handle(_interrupted)
    try:
        yield
    finally:
        workdir.restore(before)


def _stopped(stopped: tasks.Stopped) -> None:
    tell(f"stopped: {stopped}; the same command goes on from there.")
    # a task may still be computing in the background, which an ordinary exit would wait for
    os._exit(128 + (stopped.signal or signal.SIGINT))


def _interrupted(number: int = signal.SIGINT, _: Any = None) -> None:
    tell("interrupted: the same command goes on from the last checkpoint, if there is one.")
    os._exit(128 + number)


def say(text: str) -> None:
    """Prints text on standard output, at once; nothing more goes there once its reader is gone, as
    after `| head`.
    """
    try:
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)
    except OSError as error:
        # what is left in the buffer would be written, and fail, once more when Python ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise


def fault(error: Exception, code: int) -> int:
    """Prints one sentence that says what is wrong and returns the exit code."""
    tell(f"error: {sentence(error)}")
    return code


def sentence(error: Exception) -> str:
    """Returns one sentence that says what is wrong."""
    text = jax_fault(error) if isinstance(error, JAX_FAULTS) else str(error)
    if isinstance(error, OSError) and error.strerror:
        what = f"{error.filename} cannot be used" if error.filename else "the system refuses it"
        text = f"{what} ({error.strerror})."
    text = " ".join(text.split()) or type(error).__name__
    if isinstance(error, MemoryError) and not text.endswith("."):  # not a sentence of our own
        text = (
            f"memory ran out ({text}): allowed is a smaller run, or more memory for this process."
        )
    return text if len(text) <= 2000 else text[:1000] + "..."


def jax_fault(error: Exception) -> str:
    """Returns one sentence for an error that jax raises in the middle of a run."""
    reason = workdir.reason_of(error)
    if isinstance(error, FloatingPointError):
        return (
            f"jax was asked to stop at NaN or infinity, and found one ({reason}): without "
            "jax_debug_nans and "
            "jax_debug_infs the same command goes on from the last checkpoint and records which "
            "lanes diverge."
        )
    if reason.startswith("RESOURCE_EXHAUSTED"):
        return (
            f"memory ran out in spite of the estimate ({reason}): the same command goes on from "
            "the last checkpoint once "
            "more is free, and fewer lanes at a time (--lane_strategy=map), a smaller model or "
            "smaller batches need less."
        )
    return str(error)


def prepare_jax(deterministic: bool = False, devices: int | None = None) -> None:
    """Sets jax up for a process of our own: one CPU device per usable core, or `devices` of any
    kind, and a compilation cache that persists.

    Does nothing that a library import should not: only the launcher calls it, before a backend
    starts. If `deterministic`, GPUs are asked for the same bits in every run; CPUs give them
    anyway. Raises ValueError if it is too late to ask.
    """
    try:
        jax.config.update("jax_num_cpu_devices", devices or len(os.sched_getaffinity(0)))
        if devices:
            seen = ",".join(map(str, range(devices)))
            jax.config.update("jax_cuda_visible_devices", seen)
    except RuntimeError:  # the backend runs already, as in a notebook: its devices stay
        if (
            deterministic
            and jax.default_backend() != "cpu"
            and DETERMINISTIC not in os.environ.get("XLA_FLAGS", "")
        ):
            raise ValueError(
                "deterministic is given, but jax runs already: allowed is a process that starts "
                "with "
                f"XLA_FLAGS={DETERMINISTIC}."
            ) from None
        return
    if deterministic:  # read when the backend starts; of a flag given twice the last one holds
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {DETERMINISTIC}".strip()
    folder = cache.cache_folder() / "xla"
    try:
        workdir.check_writable(folder)
    except workdir.WorkdirError:  # then every start compiles anew
        tell(f"note: {folder} cannot be written, so compiled programs are not kept.")
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def check(
    values: flags.Values, given: set[str], arms: Sequence[Settings], metric: str = ""
) -> Checked:
    """Returns a run of these flags with everything checked and nothing written or compiled.

    Raises ValueError, DataError or WorkdirError, one sentence each.
    """
    with own_parts.told():
        runs = flags.runs(values, given, arms)
    specs = [one for one, _ in runs]
    numbers = {name: settings.read(name, values[name]) for name in ("checkpoint_every", "last")}
    width = settings.read("lane_width", values["lane_width"])
    always = keeping(values["keep_checkpoints"])
    if not values["dry_run"]:
        kind = "workdir" if values["profile"] is None else "profile"
        if not values[kind]:
            raise ValueError(f"{kind} is not given: name a folder with --{kind}=DIR.")
        workdir.check_writable(values[kind], kind)
    dataset = program_.load_common_dataset(specs, values["data_dir"], values["download"])
    if metric:
        metrics.check_measured(specs, metric, len(dataset.test_images) > 0)
    data = program_.device_data(dataset)
    samples = program_.sizes(specs, data)
    if "probe_samples" in given:
        _say_what_is_probed(samples)
    with own_parts.told():
        programs = program_.plan(runs, samples, values["lane_strategy"], width)
        for program in programs if own_parts.LOADED else ():
            memory.of_lane(program.spec, data)  # (builds the network with its methods)
    task = settings.read("start_task", values["start_task"]) if values["start_task"] else None
    arm = settings.pairs("start_arm", values["start_arm"])
    programs = starts.attached(programs, values["start"], task, data, arm)
    pictures.check(values, pictures.arms(programs))
    watching.names(values)
    wave = settings.read("wave", values["wave"]) if values["wave"] else None
    below = settings.limits("stop_below", values["stop_below"]) if values["stop_below"] else None
    parted = waves_.checked(wave, below, programs)
    programs, asked = slicing.checked(values, programs, dataset)
    return Checked(dataset, programs, **numbers, always=always, asked=asked, waves=parted)


def _say_what_is_probed(samples: Mapping[Spec, int]) -> None:
    """Says so where a task has fewer examples than the probes were to see."""
    for one, count in samples.items():
        if one.probes and not one.acts and one.probe_samples > count:
            tell(
                f"note: probe_samples is {one.probe_samples}, but a task has {count} examples, so "
                "probes see these."
            )
            return


def report(
    table: Any, checked: Checked, values: flags.Values, title: str = "", note: str = ""
) -> str:
    """Writes summary.csv, final.csv, the figure, the page and what --export asks for into the
    workdir and returns the text to print at the end.
    """
    from plasticity_jax.reporting import page, statistics, tables

    folder, columns = Path(values["workdir"]), rows.arm_columns(checked.programs)
    metric = metrics.judged_by(_environments(checked), table)
    summary = statistics.summary(table, columns)
    writing.text(folder / "summary.csv", summary.to_csv(index=False))
    finals = tables.finals(table, columns, checked.last, names=pictures.names(values), tested=True)
    writing.text(folder / "final.csv", finals.to_csv(index=False))
    pictures.export(values, table, columns, metric)
    figure = _draw(table, checked, values, title, note)
    if note:
        workdir.remark(folder, note)
    shown = page.Shown(
        *(metric, checked.last, pictures.names(values), values["band"], _chance(checked, metric)),
        finals=finals,
    )
    programs, folders = checked.programs, [values["workdir"]]
    written = pages.write(folder / pages.FILE, table, programs, shown, folders, title=title)
    lines = ending(table, columns, metric, checked.last, pictures.names(values))
    return "\n".join([*lines, "", f"figure: {figure}", f"page: {written}"])


def _draw(table: Any, checked: Checked, values: flags.Values, title: str, note: str) -> Path:
    """Draws the figure of a table and returns its file."""
    from plasticity_jax.reporting import curves

    folder, columns = Path(values["workdir"]), rows.arm_columns(checked.programs)
    metric = metrics.judged_by(_environments(checked), table)
    title = title or pictures.title(checked.programs)
    note = note or pictures.setting(checked.programs)
    drawing = pictures.drawing(values, metric, title, note)._replace(
        chance=_chance(checked, metric)
    )
    figure, *_ = curves.curves(table, columns, folder / "curves", drawing)
    return figure


def _environments(checked: Checked) -> list[Any]:
    return [program.spec.make_environment() for program in checked.programs]


def _chance(checked: Checked, metric: str) -> float | None:
    """The value of guessing in a column."""
    data = program_.device_data(checked.dataset)
    return metrics.chance(_environments(checked), data, metric)


def ending(
    table: Any,
    columns: Sequence[str],
    metric: str,
    last: int,
    names: Sequence[str] | None = None,
    *,
    tested: bool = False,
    baseline: dict[str, Any] | None = None,
) -> list[str]:
    """Returns the lines that say how a run ended: the table of its arms, which may be given names,
    p values and another baseline, and what diverged.
    """
    from plasticity_jax.reporting import tables

    text = tables.final_table(table, columns, metric, baseline, last, names, tested=tested)
    lines = [text]
    lost, lanes = table.loc[~table["finite"], "lane"].nunique(), table["lane"].nunique()
    if lost:
        lines.append(f"{lost} of {lanes} lanes diverged (finite is false).")
    stopped = int(table[waves_.COLUMN].sum()) if waves_.COLUMN in table else 0
    if stopped:
        lines.append(
            f"{stopped} of {lanes} lanes were not run on (stopped is true): means over later tasks "
            "are of the others alone."
        )
    return lines
