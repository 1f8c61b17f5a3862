"""From a command line to a finished workdir: what `experiments/*.py` call."""

import contextlib
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from plasticity_jax import datasets, registry, spec
from plasticity_jax.cli import flags, help, settings
from plasticity_jax.cli.settings import Settings
from plasticity_jax.datasets import cache
from plasticity_jax.estimates import cost, profile
from plasticity_jax.execution import memory, rows, sweep
from plasticity_jax.execution import program as program_
from plasticity_jax.reporting import metrics
from plasticity_jax.spec import Spec
from plasticity_jax.storage import workdir

# exit codes: a fault of the command line; a fault of data, disk or machine
USAGE, ENVIRONMENT = 2, 1

# what goes wrong around a run; jax has errors of its own for memory that ran out in spite of the
# estimate, and for a number that is none, if it is asked to look for one (`jax_debug_nans`)
JAX_FAULTS = (jax.errors.JaxRuntimeError, FloatingPointError)
ENVIRONMENT_FAULTS = (datasets.DataError, workdir.WorkdirError, OSError, MemoryError, *JAX_FAULTS)
# no sums in a changing order, and no kernels chosen by a stopwatch
DETERMINISTIC = "--xla_gpu_deterministic_ops=true"


def launch(
    doc: str | None,
    defaults: Settings | None = None,
    arms: Sequence[Settings] = ({},),
    title: str = "",
    note: str | Callable[[Any, flags.Values], str] = "",
    argv: Sequence[str] | None = None,
    then: Callable[[Any, Sequence[str], flags.Values], str] | None = None,
    metric: str = "",
) -> int:
    """Runs an experiment from the command line and returns the exit code.

    Args:
      doc: the experiment file's docstring, shown by --help.
      defaults: the experiment's own settings, by the names of their flags.
      arms: the grids whose union is run; each replaces some settings (see `flags.runs`).
      title, note: of the figure. A text is for the experiment as its defaults have it; a note of
        what flags change takes its place. A function of (table, flags' values) may say what it
        likes.
      argv: arguments; default the process's own.
      then: (table, arm columns, flags' values) -> a last line to print, called when the run is
        finished.
      metric: a column that `then` needs: a run that would lack it is refused.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    with _interruptible():
        try:
            values, given = flags.parse(arguments, defaults)
            if values["help"] or values["list"]:
                say(help.usage(doc or "", defaults) if values["help"] else help.listing())
                return 0
            prepare_jax(values["deterministic"])
            dataset, programs, numbers = check(values, given, arms, metric)
            if values["dry_run"]:
                say(describe(programs, dataset))
                memory.check(programs, program_.device_data(dataset), saves=True)
                taken = _duration(cost.seconds(programs, dataset))
                say(f"about {taken} on this machine, besides compiling (a trial says so)")
                return 0
            if values["profile"]:
                memory.check(programs[:1], program_.device_data(dataset))
                say(
                    f"program 1 of {len(programs)}: {profile.profile(programs[0], dataset, values['profile'])}"
                )
                return 0
        except ValueError as error:
            return fault(error, USAGE)
        except ENVIRONMENT_FAULTS as error:
            return fault(error, ENVIRONMENT)
        try:
            table = sweep.run_in_workdir(
                programs,
                dataset,
                values["workdir"],
                numbers["checkpoint_every"],
                progress=values["progress"],
            )
            if not isinstance(note, str):
                note = note(table, values)
            elif different := changed(values, defaults or {}, table) if defaults else []:
                note = f"Differs from the experiment's own settings: {', '.join(different)}."
            say(report(table, programs, dataset, values, numbers["last"], title, note))
            if then is not None:
                say(then(table, rows.arm_columns(programs), values))
        except sweep.Stopped as stopped:
            print(
                f"stopped: {stopped}; the same command goes on from there.",
                file=sys.stderr,
                flush=True,
            )
            # a task may still be computing in the background, which an ordinary exit would wait for
            os._exit(128 + (stopped.signal or signal.SIGINT))
        except KeyboardInterrupt:  # the second one
            _interrupted()
        except ENVIRONMENT_FAULTS as error:
            return fault(error, ENVIRONMENT)
    return 0


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C and other signals that ask a run to stop end the process with one sentence, at once.

    While nothing else (`workdir.Stop`) looks after them.

    Not by an exception, which Python drops if it comes while a garbage collection runs a callback,
    as jax has one.
    """
    before = workdir.handle(_interrupted)
    try:
        yield
    finally:
        workdir.restore(before)


def _interrupted(number: int = signal.SIGINT, _: Any = None) -> None:
    print(
        "interrupted: the same command goes on from the last checkpoint, if there is one.",
        file=sys.stderr,
        flush=True,
    )
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
    text = jax_fault(error) if isinstance(error, JAX_FAULTS) else str(error)
    text = " ".join(text.split()) or type(error).__name__
    if isinstance(error, MemoryError) and not text.endswith("."):  # not a sentence of our own
        text = (
            f"memory ran out ({text}): allowed is a smaller run, or more memory for this process."
        )
    print(f"error: {text if len(text) <= 2000 else text[:1000] + '...'}", file=sys.stderr)
    return code


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


def prepare_jax(deterministic: bool = False) -> None:
    """Sets jax up for a process of our own: one CPU device per usable core, and a compilation cache
    that persists.

    Does nothing that a library import should not: only the launcher calls it, before a backend
    starts. If `deterministic`, GPUs are asked for the same bits in every run; CPUs give them
    anyway. Raises ValueError if it is too late to ask.
    """
    try:
        jax.config.update("jax_num_cpu_devices", len(os.sched_getaffinity(0)))
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
        print(
            f"note: {folder} cannot be written, so compiled programs are not kept.", file=sys.stderr
        )
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def check(
    values: flags.Values, given: set[str], arms: Sequence[Settings], metric: str = ""
) -> tuple[datasets.Dataset, list[program_.Program], dict[str, int]]:
    """Returns dataset, programs and the numbers of the run flags, everything checked and nothing
    written or compiled.

    Raises ValueError, DataError or WorkdirError, one sentence each.
    """
    # (pandas takes its time, which --help and --list need not wait for)
    from plasticity_jax.reporting import curves

    runs = flags.runs(values, given, arms)
    numbers = {name: settings.read(name, values[name]) for name in ("checkpoint_every", "last")}
    width = settings.read("lane_width", values["lane_width"])
    registry.one_of("band", values["band"], curves.BANDS)
    if not values["dry_run"]:
        kind = "workdir" if values["profile"] is None else "profile"
        if not values[kind]:
            raise ValueError(f"{kind} is not given: name a folder with --{kind}=DIR.")
        workdir.check_writable(values[kind], kind)
    dataset = program_.load_common_dataset(
        [one for one, _ in runs], values["data_dir"], values["download"]
    )
    if metric:
        metrics.check_measured([one for one, _ in runs], metric, len(dataset.test_images) > 0)
    samples = program_.sizes([one for one, _ in runs], program_.device_data(dataset))
    return dataset, program_.plan(runs, samples, values["lane_strategy"], width), numbers


def describe(programs: Sequence[program_.Program], dataset: datasets.Dataset) -> str:
    """Returns the text of --dry_run: the arms, what is compiled, how many lanes and steps, memory
    per lane.
    """
    lines = [f"data: {dataset.name}, {len(dataset.images):,} examples, {dataset.source}"]
    total, data = 0, program_.device_data(dataset)
    for number, program in enumerate(programs):
        one, how = program.spec, program.execution
        samples = one.make_environment().size(data)
        steps = one.tasks * one.epochs * (samples // one.batch_size)
        total += steps * len(program.lanes)
        needs = memory.of_lane(one, data)
        mebibytes = (needs.waiting + needs.running) / 2**20
        options = "".join(
            f", {name} {spec.word(name, value, value)}" for name, value in one.options
        )
        schedule = one.schedule
        rate = "" if schedule == "constant" else f" with learning rate {schedule}"
        lines.append(
            f"program {number + 1}: {one.environment}, transition {one.transition}, "
            f"{_network(one)}, "
            f"{one.optimizer}{rate}, {one.precision}, method {one.method}{options}"
        )
        arms: dict[Any, list[int]] = {}
        for lane in program.lanes:
            arms.setdefault(tuple((k, v) for k, v in lane.items() if k != "seed"), []).append(
                lane["seed"]
            )
        for arm, seeds in arms.items():
            numbers = ", ".join(
                f"{name} {spec.word(name, value, f'{value:g}')}" for name, value in arm
            )
            lines.append(
                f"    {numbers}; {f'seeds {seeds[0]} to {seeds[-1]}' if seeds[1:] else f'seed {seeds[0]}'}"
            )
        lines.append(
            f"    {_count(len(program.lanes), 'lane')} x {_count(one.tasks, 'task')}, {steps:,} "
            "steps a lane; "
            f"{how.strategy}, width {how.width}, {_count(how.devices, 'device')}; about "
            f"{mebibytes:,.1f} MiB a lane"
        )
    count = _count(sum(len(p.lanes) for p in programs), "lane")
    lines.append(
        f"in all {_count(len(programs), 'compiled program')}, {count}, {total:,} lane-steps"
    )
    return "\n".join(lines)


def _network(one: Spec) -> str:
    """The model with what it is made from, in words."""
    unread = spec.unread(one.model)
    size = f" {one.depth} x {one.width}" if not {"depth", "width"} & set(unread) else ""
    shape = {
        "norm": f"norm {one.norm}",
        "activation": one.activation,
        "initialization": one.initialization,
    }
    return ", ".join(
        [f"{one.model}{size}", *(text for name, text in shape.items() if name not in unread)]
    )


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} seconds"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def changed(
    values: flags.Values, defaults: Settings, table: Any, besides: Sequence[str] = ()
) -> list[str]:
    """Returns "name value (default)" of every setting that some lane of `table` has other than by
    `defaults`.

    Without what a figure shows anyway: methods, transitions, probes, granularity; `besides` are to
    be told as well.
    """
    usual = flags.parse([], defaults)[0]
    shown = {"transition", "method", "probes", "probe_every"}
    names = [name for name in settings.SPEC_FIELDS if name not in shown]
    names += [
        "learning_rate",
        "transition_fraction",
        *flags.part_settings(),
        "seeds",
        "first_seed",
        *besides,
    ]
    return [
        f"{name} {values[name]} ({usual[name]})"
        for name in names
        if _differ(name, values[name], usual[name]) and _has(table, name, values)
    ]


def _differ(name: str, one: str | None, other: str | None) -> bool:
    """Whether two texts of a flag say different things: 0.5 is 1/2."""
    return one != other and settings.read(name, one) != settings.read(name, other)


def _has(table: Any, name: str, values: flags.Values) -> bool:
    """Whether a lane of the table has a value of the flag `name`: arms may have their own, or no
    use for it.
    """
    part, dot, _ = name.partition(".")
    probes = [probe.strip() for probe in values["probes"].split(",")]
    methods = [method for joined in set(table["method"]) for method in joined.split("+")]
    if dot and part not in {
        *methods,
        *table["environment"],
        *table["model"],
        *table["optimizer"],
        *probes,
    }:
        return False
    if name == "probe_samples":
        return probes != ["none"]
    if name == "transition_fraction" and not (table["granularity"] > 1).any():
        return False
    there = table[name].dropna().unique() if name in table else ()
    texts = [text.strip() for text in str(values[name]).split(",")]
    return not len(there) or any(_same(name, text, value) for text in texts for value in there)


def _same(name: str, text: str, value: Any) -> bool:
    """Whether a flag's text says a lane's value."""
    if isinstance(value, str | bool | np.bool_):
        return text.lower() == str(value).lower()
    if spec.is_period(name):
        return settings.whole(name, text, 0) == value
    return math.isclose(settings.number(name, text), value, rel_tol=1e-6)


def report(
    table: Any,
    programs: Sequence[program_.Program],
    dataset: datasets.Dataset,
    values: flags.Values,
    last: int,
    title: str = "",
    note: str = "",
) -> str:
    """Writes summary.csv, curves.png and curves.svg into the workdir and returns the text to print
    at the end.
    """
    from plasticity_jax.reporting import curves, statistics

    folder, columns = Path(values["workdir"]), rows.arm_columns(programs)
    environments = [program.spec.make_environment() for program in programs]
    metric = metrics.judged_by(environments, table)
    statistics.summary(table, columns).to_csv(folder / "summary.csv", index=False)
    chance = metrics.chance(environments, program_.device_data(dataset), metric)
    figure = curves.curves(
        table,
        columns,
        folder / "curves",
        metric=metric,
        band=values["band"],
        title=title,
        note=note,
        chance=chance,
    )
    lost = table.loc[~table["finite"], "lane"].nunique()
    diverged = (
        f"\n{lost} of {table['lane'].nunique()} lanes diverged (finite is false)." if lost else ""
    )
    return f"{statistics.final_table(table, columns, metric, last=last)}{diverged}\n\nfigure: {figure[0]}"
