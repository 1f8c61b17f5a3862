"""What the figure files of all papers share: a figure's flags, its run and its picture.

What the arms of a figure are is a paper's own: see `Kind`.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.benchmark import NOTHING, SCALES, Benchmark
from plasticity_jax import lanes as lanes_
from plasticity_jax import registry
from plasticity_jax.cli import changes, flags, help, launcher, pictures, settings
from plasticity_jax.cli.settings import Setting, Settings
from plasticity_jax.execution import merging, program, rows, sweep
from plasticity_jax.execution.placement import Execution
from plasticity_jax.reporting import collect, curves, metrics, statistics, tables
from plasticity_jax.storage import paths as paths_
from plasticity_jax.storage import writing

OWN: dict[str, str | bool | None] = {
    "scale": "paper",
    "from": None,
    "only": None,
    "methods": None,
    "selection": None,
    "controls": False,
    "as_published": False,
}
AS_IN_PAPER = "Every setting is the paper's."
HELP = """
This figure's own flags
  --scale=paper                        numbers of every setting: paper, reduced or smoke
  --from=DIR,...                       draw from these workdirs and run nothing
  --only=a|b                           of a file with two figures, this one
  --methods=none,l2,...                the abrupt arms of a figure by method
  --controls                           add the control arms that the paper lacks
  --as_published                       as the public code did, where that is no clean comparison
  --selection=FILE                     each method's settings as experiments.select chose them
"""


class Choices(NamedTuple):
    """What a command line says of a figure.

    Attributes:
      scale: one of `SCALES`.
      methods: of the arms by method; None for the paper's.
      controls: whether to add the control arms.
      as_published: whether to do as the public code did.
      selection: path of a selected.json, or None.
      given: every other setting that is given, by the name of its flag.
    """

    scale: str = "paper"
    methods: tuple[str, ...] | None = None
    controls: bool = False
    as_published: bool = False
    selection: str | None = None
    given: Settings = NOTHING


class Figure(NamedTuple):
    """One figure of a paper.

    Attributes:
      name: as in the paper, "7a".
      benchmark: what is run.
      kind: what its arms are.
      metric: column drawn against the task; empty for the benchmark's own.
    """

    name: str
    benchmark: Benchmark[Any]
    kind: "Kind"
    metric: str = ""


class Kind(NamedTuple):
    """What the arms of a kind of figure are; a paper has kinds of its own.

    Attributes:
      arms: (figure, choices) -> the grids whose union is run; each replaces some settings. Raises
        ValueError for choices that do not fit.
      defaults: (benchmark, choices) -> the settings of all arms, which flags replace.
      taken: (benchmark, choices) -> names of settings whose given values are in `arms`, and are not
        for all of them.
      remarks: (figure, choices, table of a run) -> sentences on what differs between arms.
      told: settings that a caption names where they are not the paper's, besides the usual ones.
      controls: (figure, choices, table) -> which rows are of control arms, [rows] bool; they have a
        picture of their own. None if there are no controls.
      beside: (table, columns that name arms, workdir, path of the figure without its ending) ->
        lines on what else was drawn of a run, such as the course within tasks; None for nothing.
      published: metrics of which --as_published draws others, and those, by name.
    """

    arms: Callable[[Figure, Choices], list[dict[str, Setting]]]
    defaults: Callable[[Benchmark[Any], Choices], dict[str, Any]]
    taken: Callable[[Benchmark[Any], Choices], set[str]]
    remarks: Callable[[Figure, Choices, Any], list[str]]
    told: tuple[str, ...] = ()
    controls: Callable[[Figure, Choices, Any], Any] | None = None
    beside: Callable[[Any, Sequence[str], Path, Path], list[str]] | None = None
    published: Settings = NOTHING


def check_own_arms(figure: Figure, choices: Choices) -> None:
    """Raises ValueError for flags about arms, which a figure with arms of its own does not take."""
    for name in ("methods", "selection", "controls"):
        if getattr(choices, name):
            raise ValueError(
                f"{name} is given, but figure {figure.name} has arms of its own: leave it out."
            )


def nothing_taken(*_: Any) -> set[str]:
    """Returns no names: what is given is for all arms."""
    return set()


def no_remarks(*_: Any) -> list[str]:
    """Returns no sentences."""
    return []


class Plan(NamedTuple):
    """A figure as it was asked for.

    Attributes:
      figure, choices: what was asked for.
      defaults: settings of all arms, which flags replace.
      arms: the grids whose union is run; each replaces some settings.
      argv: the arguments that are for all arms.
    """

    figure: Figure
    choices: Choices
    defaults: Settings
    arms: Sequence[Settings]
    argv: Sequence[str]


def main(doc: str | None, *figures: Figure, argv: Sequence[str] | None = None) -> int:
    """Runs and draws figures from the command line and returns the exit code.

    Figures of several benchmarks run one after another, each in a folder of its own inside the
    workdir, after all of them were planned and checked: what the last one lacks is not told after
    hours of the first.
    """
    try:
        own, rest = flags.own(OWN, sys.argv[1:] if argv is None else argv)
        wanted = _wanted(figures, own["only"], rest)
        choices = chosen(own, rest)
        plans = [plan(figure, choices, rest) for figure in wanted]
        if len(wanted) > 1:
            plans = [_in_folder(one, one.figure.benchmark.name) for one in plans]
        if own["from"] is None:
            for one in plans[1:]:  # (the first is checked when it is launched)
                _check_run(one)
    except ValueError as error:
        return launcher.fault(error, launcher.USAGE)
    except launcher.ENVIRONMENT_FAULTS as error:
        return launcher.fault(error, launcher.ENVIRONMENT)
    help_ = (doc or "") + HELP
    for one in plans:
        code = _run(help_, one) if own["from"] is None else _draw_from(help_, one, own["from"])
        if code:
            return code
    return 0


def _wanted(figures: Sequence[Figure], only: str | None, rest: Sequence[str]) -> Sequence[Figure]:
    """The figures of a file that are asked for; the first where nothing is to be run."""
    if only is not None:
        parts = {figure.name[-1]: figure for figure in figures}
        return [registry.lookup(parts, "part of this figure", only)]
    return figures[:1] if {"--help", "--list"} & set(rest) else figures


def chosen(own: Mapping[str, Any], rest: Sequence[str] = ()) -> Choices:
    """Returns what a figure's own flags and the other arguments `rest` say.

    Raises ValueError for an unknown scale or flag, or text that a flag does not take.
    """
    registry.one_of("scale", own["scale"], SCALES)
    values, names = flags.parse(rest)
    given = {name: settings.read(name, values[name]) for name in names - set(flags.SWITCHES)}
    return Choices(
        own["scale"],
        None if own["methods"] is None else tuple(own["methods"].split(",")),
        own["controls"],
        own["as_published"],
        own["selection"] or None,
        given,
    )


def plan(figure: Figure, choices: Choices, rest: Sequence[str] = ()) -> Plan:
    """Returns what a figure runs for these choices; `rest` are the arguments they are made of.

    Says on standard error if --as_published changes nothing. Raises ValueError as `Kind.arms` does.
    """
    benchmark, kind = figure.benchmark, figure.kind
    made = kind.defaults(benchmark, choices), kind.arms(figure, choices)
    if choices.as_published:
        clean = choices._replace(as_published=False)
        metric = kind.published.get(metric_of(figure))
        if metric:
            figure = figure._replace(metric=str(metric))
        elif made == (kind.defaults(benchmark, clean), kind.arms(figure, clean)):
            what = f"figure {figure.name}, {benchmark.title}"
            print(f"note: --as_published changes nothing in {what}.", file=sys.stderr)
    taken = kind.taken(benchmark, choices)
    left = [text for text in rest if text.lstrip("-").partition("=")[0] not in taken]
    return Plan(figure, choices, *made, left)


def _in_folder(one: Plan, folder: str) -> Plan:
    """A plan with its workdir replaced by a folder inside it."""
    inside = [
        f"{text.rstrip('/')}/{folder}" if text.startswith("--workdir=") else text
        for text in one.argv
    ]
    return one._replace(argv=inside)


def _check_run(one: Plan) -> None:
    """Raises what would keep `launcher.launch` from running a plan; nothing is run or written."""
    values, given = flags.parse(one.argv, one.defaults)
    launcher.prepare_jax(values["deterministic"])
    checked = launcher.check(values, given, one.arms, metric_of(one.figure))
    if not (values["dry_run"] or values["profile"]):
        sweep.check_in_workdir(checked.programs, checked.dataset, values["workdir"])


def _run(doc: str, one: Plan) -> int:
    """Runs a plan, draws its figure into the workdir and returns the exit code."""
    experiment = launcher.Experiment(
        doc,
        one.defaults,
        one.arms,
        title=one.figure.benchmark.title,
        note=lambda table, values: differences(one, values, table) or AS_IN_PAPER,
        metric=metric_of(one.figure),
        then=lambda table, columns, values: draw(one, table, columns, values),
    )
    return launcher.launch(experiment, one.argv)


def _draw_from(doc: str, one: Plan, workdirs: str) -> int:
    """Draws a figure from workdirs that exist, into --workdir or the first of them."""
    try:
        folders = [paths_.expanded(name, "from") for name in workdirs.split(",") if name]
        values, given = flags.parse(one.argv, one.defaults)
        if values["help"]:
            launcher.say(help.usage(doc, one.defaults))
            return 0
        for name in {"dry_run", "profile"} & given:
            raise ValueError(
                f"{name} is given with from, which runs nothing: leave one of them out."
            )
        if not folders:
            raise ValueError(f"from is {workdirs!r}: name workdirs with --from=DIR,...")
        runs = flags.runs(values, given, one.arms)
        metrics.check_measured([spec for spec, _ in runs], metric_of(one.figure))
        table = collect.collect(folders, runs, merging.completed)
        folder = values["workdir"] or folders[0]
        launcher.workdir.check_writable(folder)
        Path(folder).mkdir(parents=True, exist_ok=True)
        launcher.say(draw(one, table, arm_columns(runs), values, folder))
    except ValueError as error:
        return launcher.fault(error, launcher.USAGE)
    except (launcher.workdir.WorkdirError, OSError) as error:
        return launcher.fault(error, launcher.ENVIRONMENT)
    return 0


def arm_columns(runs: collect.Runs) -> list[str]:
    """Returns the columns of a run's table that name its arms."""
    alone = Execution("map", 1, 1)  # (how lanes are run names no arm)
    programs = []
    for spec, lanes in runs:
        completed = [lanes_.complete(spec, lane) for lane in lanes]
        programs.append(program.Program(spec, completed, alone))
    return rows.arm_columns(programs)


def metric_of(figure: Figure) -> str:
    """Returns the column that a figure shows."""
    return figure.metric or figure.benchmark.metric


def draw(
    one: Plan, table: Any, columns: Sequence[str], values: flags.Values, folder: str = ""
) -> str:
    """Draws the figure as figure_NAME.png and .svg in the workdir (or `folder`) and returns a line
    that says where.

    What is drawn is written beside it as figure_NAME.csv: statistics over seeds of the metric by
    arm and task; beside a figure of the benchmark's own metric, every probe as
    figure_NAME_probes.png and .svg, and all measurements over the last tasks as
    figure_NAME_final.csv (`tables.finals`). Control arms are drawn apart, as
    figure_NAME_controls.png and .svg, beside the arms without a method.
    """
    figure, metric = one.figure, metric_of(one.figure)
    path = Path(folder or values["workdir"]) / f"figure_{figure.name}"
    title = f"Figure {figure.name}: {figure.benchmark.title}"
    whole, control = table, _controls(one, table)
    table = table[~control]
    drawing = pictures.drawing(values, metric, title, differences(one, values, table))
    paths = curves.curves(table, columns, path, drawing._replace(panels=()))
    if control.any():
        apart = whole[control | (whole["method"] == "none")]
        note = differences(one, values, apart)
        curves.curves(apart, columns, f"{path}_controls", drawing._replace(panels=(), note=note))
    writing.text(f"{path}.csv", drawn(whole, columns, metric).to_csv(index=False))
    if not figure.metric:
        curves.curves(table, columns, f"{path}_probes", drawing)
        last = settings.read("last", values["last"])
        final = tables.finals(whole, columns, last).round(6)
        writing.text(f"{path}_final.csv", final.to_csv(index=False))
    said = [f"figure {figure.name}: {paths[0]}"]
    if figure.kind.beside and not folder:  # (runs that exist number their lanes by themselves)
        said += figure.kind.beside(whole, columns, Path(values["workdir"]), path)
    return "\n".join(said)


def _controls(one: Plan, table: Any) -> Any:
    """Which rows of a table are of control arms, [rows] bool."""
    found, choices = one.figure.kind.controls, one.choices
    if not choices.controls or found is None:
        return np.zeros(len(table), bool)
    return np.asarray(found(one.figure, choices, table))


def differences(one: Plan, values: flags.Values, table: Any) -> str:
    """Returns a sentence that names every setting that is not the paper's, with the paper's in
    brackets; or nothing.

    Then one for a selection, and what the kind of figure remarks on what differs between arms. Only
    what some lane of `table` has is named: not a method's settings in a figure without it.
    """
    figure, choices = one.figure, one.choices
    changed = changes.told(values, figure.benchmark.paper, table, figure.kind.told)
    said = [f"Differs from the paper's numbers: {', '.join(changed)}."] if changed else []
    if choices.selection:
        plain = set(table["method"]) == {"none"}
        what = "Learning rates" if plain else "Learning rates and methods' settings"
        said.append(f"{what} as chosen in {choices.selection}.")
    return " ".join([*said, *figure.kind.remarks(figure, choices, table)])


def drawn(table: Any, columns: Sequence[str], metric: str) -> Any:
    """Returns the statistics over seeds of one metric, a row for each arm (by its label) and task,
    as pandas.DataFrame.
    """
    others = [c for c in statistics.metric_columns(table, columns) if c != metric]
    long = statistics.summary(table.drop(columns=others), columns)
    labels = statistics.arm_labels(table, columns)
    arms = statistics.final(table, columns, metric)[list(columns)].assign(arm=labels)
    return arms.merge(long, on=list(columns)).drop(columns=[*columns, "metric"]).round(6)
