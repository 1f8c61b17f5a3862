"""What the figure files share: the arms of a figure, its scale, its run and its picture."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import flags as absl_flags

from experiments import settings
from experiments.settings import BENCHMARKS, Benchmark
from plasticity_jax import collect, flags, launcher, registry, report, results, sweep, transitions
from plasticity_jax import lanes as lanes_
from plasticity_jax.lanes import Execution

SCALES = ("paper", "reduced", "smoke")
HELP = """
This figure's own flags
  --scale=paper                        numbers of every setting: paper, reduced or smoke
  --from=DIR,...                       draw from these workdirs and run nothing
  --controls                           add the control arms that the paper lacks
  --as_published                       do as the public code did where that is not a clean comparison
  --selection=FILE                     each method's settings as experiments.select chose them
"""


class Figure(NamedTuple):
    """One figure of the paper.

    Attributes:
      name: as in the paper, "7a".
      benchmark: a key of BENCHMARKS.
      arms: "methods" (abrupt with every method, gradual with none) or "granularity".
      metric: column drawn against the task; empty for the benchmark's own.
    """

    name: str
    benchmark: str
    arms: str
    metric: str = ""


def main(doc: str | None, *figures: Figure, argv: Sequence[str] | None = None) -> int:
    """Runs and draws a figure from the command line and returns the exit code.

    Figures of several benchmarks run one after another, each in a folder of its own inside the workdir.
    """
    try:
        own, rest = _own_flags(argv)
    except ValueError as error:
        return launcher.fault(error, launcher.USAGE)
    for figure in figures:
        try:
            defaults, arms, inside = plan(figure, own, rest)
        except ValueError as error:
            return launcher.fault(error, launcher.USAGE)
        if len(figures) > 1:
            inside = [_inside(text, figure.benchmark) for text in inside]
        if own["from"]:
            code = _draw(doc, figure, defaults, arms, own["from"].split(","), inside)
        else:
            code = launcher.launch(
                (doc or "") + HELP,
                defaults,
                arms,
                title=BENCHMARKS[figure.benchmark].title,
                argv=inside,
                then=lambda table, columns, values, figure=figure: draw(figure, table, columns, values),
            )
        if code:
            return code
    return 0


def plan(
    figure: Figure, own: Mapping[str, Any], rest: Sequence[str] = ()
) -> tuple[dict[str, str], list[dict[str, str]], list[str]]:
    """Returns defaults and arms of a figure for its own flags, and the arguments that are left of `rest`.

    Raises ValueError for an unknown scale, a selection that cannot be read, or what a published comparison lacks.
    """
    left = list(rest)
    registry.one_of("scale", own["scale"], SCALES)
    benchmark = BENCHMARKS[figure.benchmark]
    defaults = {**benchmark.paper}
    if own["scale"] != "paper":
        defaults |= benchmark.reduced if own["scale"] == "reduced" else benchmark.smoke
    if own["as_published"]:
        defaults |= benchmark.published
    if figure.arms == "granularity":
        finest = int(defaults["granularity"]) if own["scale"] == "smoke" else None
        grid = [k for k in benchmark.granularities.split(",") if finest is None or int(k) <= finest]
        arms = [{"method": "none", "transition": benchmark.gradual[0], "granularity": ",".join(grid)}]
    else:
        arms = method_arms(benchmark, own["as_published"], _selection(own["selection"], figure.benchmark))
    if own["controls"]:
        given = (text.lstrip("-").partition("=") for text in left)
        arms += controls(benchmark, {**defaults, **{name: value for name, _, value in given}}, figure.arms)
    if own["as_published"]:
        gradual = dict(benchmark.gradual_published)
        for flag, what in benchmark.needs.items():
            given = next((text for text in left if text.startswith(f"--{flag}=")), None)
            if given is None:
                raise ValueError(f"as_published is given without {flag}: name {what} with --{flag}=.")
            if flag.endswith(".pretrained"):
                left.remove(given)
                gradual[flag] = given.partition("=")[2]
        for arm in arms:
            if "granularity" not in arm:
                arm.update(gradual)
    return defaults, arms, left


def method_arms(benchmark: Benchmark, published: bool, chosen: Mapping[str, Mapping[str, str]]) -> list[dict[str, str]]:
    """Returns an abrupt arm for every method and a gradual arm, without method, for every transition."""
    arms = []
    for method in settings.METHODS.split(","):
        arm = {"method": method, "transition": benchmark.gradual[0], "granularity": "1", **chosen.get(method, {})}
        arms.append({**arm, **(benchmark.unregularised if published and method == "none" else settings.NOTHING)})
    for transition in benchmark.gradual:
        arms.append({"method": "none", "transition": transition, **chosen.get(transition, {})})
    return arms


def controls(benchmark: Benchmark, values: Mapping[str, str], kind: str) -> list[dict[str, str]]:
    """Returns the arms that tell what in a gradual change helps, for a figure of this kind and its flags' `values`.

    See the README's table of controls.
    """
    epochs, samples, batch_size = (flags.whole(name, values[name], 1) for name in ("epochs", "samples", "batch_size"))
    share, transition = flags.number("transition_fraction", values["transition_fraction"]), benchmark.gradual[0]
    changing = round(epochs * share)
    arm = {"method": "none", "transition": transition}
    if kind == "granularity":  # the finest possible: a plateau for every step of the transition
        steps = transitions.transition_steps(np.float32(share), epochs * (samples // batch_size))
        return [{**arm, "granularity": str(int(steps))}]
    arms = [
        {**arm, "transition_fraction": "1", "epochs": str(changing)},  # the gradual epochs without the stable phase
        {**arm, "granularity": "1", "epochs": str(epochs - changing)},  # the stable phase alone
    ]
    if values["environment"] == "random_labels":
        arms += [
            {**arm, "transition": "smoothing"},  # soft targets without interpolation
            {**arm, "random_labels.change": "false"},  # the gradual schedule on a task that does not change
            {**arm, "random_labels.change": "false", "granularity": "1"},
        ]
    return arms


def draw(figure: Figure, table: Any, columns: Sequence[str], values: Mapping[str, Any], folder: str = "") -> str:
    """Draws the figure as figure_NAME.png and .svg in the workdir (or `folder`) and returns a line that says where.

    What is drawn is written beside it as figure_NAME.csv: statistics over seeds of the metric by arm and task.
    """
    benchmark = BENCHMARKS[figure.benchmark]
    metric = figure.metric or benchmark.metric
    path = Path(folder or values["workdir"]) / f"figure_{figure.name}"
    title, note = f"Figure {figure.name}: {benchmark.title}", differences(benchmark, values)
    paths = report.curves(table, columns, path, metric=metric, band=values["band"], title=title, note=note, panels=())
    drawn(table, columns, metric).to_csv(f"{path}.csv", index=False)
    return f"figure {figure.name}: {paths[0]}"


def differences(benchmark: Benchmark, values: Mapping[str, Any]) -> str:
    """Returns a sentence that names every setting that is not the paper's, with the paper's in brackets; or nothing."""
    usual = flags.parse([], benchmark.paper)[0]
    own = [name for name in flags.SPEC_FIELDS if name not in ("transition", "method", "probes", "probe_every")]
    names = [*own, "learning_rate", "transition_fraction", *(name for name in usual if "." in name), "seeds"]
    changed = [f"{name} {values[name]} ({usual[name]})" for name in names if values[name] != usual[name]]
    return f"Differs from the paper's numbers: {', '.join(changed)}." if changed else ""


def drawn(table: Any, columns: Sequence[str], metric: str) -> Any:
    """Returns the statistics over seeds of one metric, a row for each arm (by its label) and task, as pandas.DataFrame."""
    others = [c for c in results.metric_columns(table, columns) if c != metric]
    long = results.summary(table.drop(columns=others), columns)
    labels = results.arm_labels(table, columns)
    arms = results.final(table, columns, metric)[list(columns)].assign(arm=labels)
    return arms.merge(long, on=list(columns)).drop(columns=[*columns, "metric"]).round(6)


def _draw(doc, figure: Figure, defaults, arms, workdirs: list[str], argv: Sequence[str]) -> int:
    """Draws a figure from workdirs that exist, into --workdir or the first of them."""
    try:
        values, given = flags.parse(argv, defaults)
        if values["help"]:
            print(flags.usage((doc or "") + HELP, defaults))
            return 0
        runs = flags.runs(values, given, arms)
        table = collect.collect(workdirs, runs)
        programs = [
            sweep.Program(spec, [lanes_.complete(spec, lane) for lane in lanes], Execution("map", 1, 1))
            for spec, lanes in runs
        ]
        folder = values["workdir"] or workdirs[0]
        Path(folder).mkdir(parents=True, exist_ok=True)
        print(draw(figure, table, sweep.arm_columns(programs), values, folder))
    except ValueError as error:
        return launcher.fault(error, launcher.USAGE)
    except (launcher.workdir.WorkdirError, OSError) as error:
        return launcher.fault(error, launcher.ENVIRONMENT)
    return 0


def _selection(path: str | None, benchmark: str) -> Mapping[str, Mapping[str, str]]:
    """What experiments.select chose: {method or transition: {flag: text}}."""
    if not path:
        return {}
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))[benchmark]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"selection is {path!r}: allowed is a selected.json with {benchmark!r} in it.") from error


def _own_flags(argv: Sequence[str] | None) -> tuple[dict[str, Any], list[str]]:
    """The figure's own flags, and the arguments that are left."""
    import sys

    arguments = sys.argv[1:] if argv is None else list(argv)
    own = absl_flags.FlagValues()
    absl_flags.DEFINE_string("scale", "paper", "", flag_values=own)
    absl_flags.DEFINE_string("from", None, "", flag_values=own)
    absl_flags.DEFINE_string("selection", None, "", flag_values=own)
    absl_flags.DEFINE_bool("controls", False, "", flag_values=own)
    absl_flags.DEFINE_bool("as_published", False, "", flag_values=own)
    try:
        rest = own(["", *arguments], known_only=True)[1:]
    except absl_flags.Error as error:
        raise ValueError(f"{str(error).partition(chr(10))[0].rstrip('.')}; --help names all flags.") from None
    return {name: own[name].value for name in own}, rest


def _inside(text: str, folder: str) -> str:
    """An argument with the workdir replaced by a folder inside it."""
    return f"{text.rstrip('/')}/{folder}" if text.startswith(("--workdir=", "-workdir=")) else text
