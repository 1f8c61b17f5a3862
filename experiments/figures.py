"""What the figure files share: the arms of a figure, its scale, its run and its picture."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments import selection
from experiments.gradual import settings
from experiments.gradual.settings import BENCHMARKS, Benchmark
from plasticity_jax import lanes as lanes_
from plasticity_jax import registry
from plasticity_jax.cli import flags, launcher
from plasticity_jax.execution import program, rows, sweep
from plasticity_jax.execution.placement import Execution
from plasticity_jax.reporting import collect, curves, metrics, statistics
from plasticity_jax.storage import paths as paths_
from plasticity_jax.stream import transitions

SCALES = ("paper", "reduced", "smoke")
OWN: dict[str, str | bool | None] = {
    "scale": "paper",
    "from": None,
    "only": None,
    "methods": settings.METHODS,
    "selection": None,
    "controls": False,
    "as_published": False,
}
HELP = """
This figure's own flags
  --scale=paper                        numbers of every setting: paper, reduced or smoke
  --from=DIR,...                       draw from these workdirs and run nothing
  --only=a|b                           of a file with two figures, this one
  --methods=none,l2,...                the abrupt arms of a figure by method
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

    Figures of several benchmarks run one after another, each in a folder of its own inside the
    workdir, after all of them
    were planned and checked: what the last one lacks is not told after hours of the first.
    """
    try:
        own, rest = flags.own(OWN, sys.argv[1:] if argv is None else argv)
        if own["only"] is not None:
            parts = {figure.name[-1]: figure for figure in figures}
            figures = (registry.lookup(parts, "part of this figure", own["only"]),)
        elif {"--help", "--list"} & set(rest):
            figures = figures[:1]
        planned = []
        for figure in figures:
            defaults, arms, inside = plan(figure, own, rest)
            if len(figures) > 1:
                inside = [_inside(text, figure.benchmark) for text in inside]
            planned.append((figure, defaults, arms, inside))
        if own["from"] is None:
            # (the first is checked when it is launched)
            for figure, defaults, arms, inside in planned[1:]:
                _check_run(defaults, arms, inside, metric_of(figure))
    except ValueError as error:
        return launcher.fault(error, launcher.USAGE)
    except launcher.ENVIRONMENT_FAULTS as error:
        return launcher.fault(error, launcher.ENVIRONMENT)
    for figure, defaults, arms, inside in planned:
        if own["from"] is not None:
            code = _draw(doc, figure, own, defaults, arms, inside)
        else:
            code = launcher.launch(
                (doc or "") + HELP,
                defaults,
                arms,
                title=BENCHMARKS[figure.benchmark].title,
                note=lambda table, values, figure=figure: differences(figure, own, values, table),
                argv=inside,
                metric=metric_of(figure),
                then=lambda table, columns, values, figure=figure: draw(
                    figure, own, table, columns, values
                ),
            )
        if code:
            return code
    return 0


def metric_of(figure: Figure) -> str:
    """Returns the column that a figure shows."""
    return figure.metric or BENCHMARKS[figure.benchmark].metric


def plan(
    figure: Figure, own: Mapping[str, Any], rest: Sequence[str] = ()
) -> tuple[dict[str, str], list[dict[str, str]], list[str]]:
    """Returns defaults and arms of a figure for its own flags, and the arguments that are left of
    `rest`.

    Raises ValueError for an unknown scale or method, a selection that cannot be read or does not
    fit, or what a published comparison lacks.
    """
    left, published = list(rest), own["as_published"]
    registry.one_of("scale", own["scale"], SCALES)
    benchmark = BENCHMARKS[figure.benchmark]
    defaults = {**benchmark.paper}
    if own["scale"] != "paper":
        defaults |= benchmark.reduced if own["scale"] == "reduced" else benchmark.smoke
    if published:
        defaults |= benchmark.published
    given = {name: value for name, _, value in (text.lstrip("-").partition("=") for text in left)}
    values = defaults | given
    if figure.arms == "granularity" and own["methods"] != settings.METHODS:
        raise ValueError(
            f"methods is {own['methods']!r}, but figure {figure.name} compares granularities: "
            "leave it out."
        )
    methods = ["none"] if figure.arms == "granularity" else own["methods"].split(",")
    gradually = benchmark.gradual[:1] if figure.arms == "granularity" else benchmark.gradual
    chosen: selection.Settings = {}
    if own["selection"]:
        chosen = selection.read(
            own["selection"], figure.benchmark, own["scale"], values, [*methods, *gradually]
        )
        for name in sorted(
            given.keys() & {flag for arm in (*methods, *gradually) for flag in chosen[arm]}
        ):
            raise ValueError(
                f"{name} is {given[name]!r}, but {own['selection']} has its own: leave one of them out."
            )
    plain = {"method": "none", "transition": benchmark.gradual[0]}
    abrupt = {
        **plain,
        "granularity": "1",
        **chosen.get("none", {}),
        **(benchmark.unregularised if published else {}),
    }
    gradual = [{**plain, "transition": name, **chosen.get(name, {})} for name in gradually]
    if figure.arms == "granularity":
        finest = int(defaults["granularity"]) if own["scale"] == "smoke" else None
        grid = [k for k in benchmark.granularities.split(",") if finest is None or int(k) <= finest]
        if "granularity" in given:
            left = [text for text in left if not text.startswith("--granularity=")]
            grid = given["granularity"].split(",")
            for text in grid:
                flags.whole("granularity", text, 1)
        finer = ",".join(k for k in grid if k != "1")
        arms = [abrupt] * ("1" in grid) + [{**gradual[0], "granularity": finer}] * bool(finer)
    else:
        arms = [
            abrupt
            if method == "none"
            else {**plain, "method": method, "granularity": "1", **chosen.get(method, {})}
            for method in methods
        ]
        arms += gradual
    if own["controls"]:
        arms += controls(benchmark, values, figure.arms, abrupt, gradual[0])
    if published:
        different = dict(benchmark.gradual_published)
        for flag, what in benchmark.needs.items():
            if flag not in given:
                raise ValueError(
                    f"as_published is given without {flag}: name {what} with --{flag}=."
                )
            if flag.endswith(".pretrained"):
                left = [text for text in left if not text.startswith(f"--{flag}=")]
                different[flag] = given[flag]
        for arm in arms:
            if arm.get("granularity") != "1":
                arm.update(different)
                if (
                    arm["transition"] in ("output", "smoothing")
                    and "granularity" not in arm
                    and "granularity" not in given
                ):
                    # its steps are of half the way
                    arm["granularity"] = str(2 * int(defaults["granularity"]))
        if (defaults, arms) == plan(figure, {**own, "as_published": False}, rest)[:2]:
            print(
                f"note: --as_published changes nothing in figure {figure.name}, {benchmark.title}.",
                file=sys.stderr,
            )
    return defaults, arms, left


def controls(
    benchmark: Benchmark,
    values: Mapping[str, str],
    kind: str,
    abrupt: Mapping[str, str],
    gradual: Mapping[str, str],
) -> list[dict[str, str]]:
    """Returns the arms that tell what in a gradual change helps: see the README's table of
    controls.

    Args:
      values: the figure's flags.
      kind: of the figure's arms, as in `Figure`.
      abrupt, gradual: the arms without method that they are compared with.
    """
    for name in ("epochs", "samples", "batch_size", "transition_fraction"):
        if "," in values[name]:
            raise ValueError(f"{name} is {values[name]!r}: allowed with controls is one value.")
    epochs, samples, batch_size = (
        flags.whole(name, values[name], 1) for name in ("epochs", "samples", "batch_size")
    )
    share, environment = (
        flags.number("transition_fraction", values["transition_fraction"]),
        values["environment"],
    )
    changing = round(epochs * share)
    if kind == "methods" and not 0 < changing < epochs:
        raise ValueError(
            f"transition_fraction is {values['transition_fraction']} of {epochs} epochs: allowed "
            "with controls is a share "
            "that leaves an epoch for the change and one for the stable phase."
        )
    if kind == "granularity":  # the finest possible: a plateau for every step of the transition
        steps = transitions.transition_steps(np.float32(share), epochs * (samples // batch_size))
        return [{**gradual, "granularity": str(int(steps))}]
    arms = [
        # the gradual epochs without the stable phase
        {**gradual, "transition_fraction": "1", "epochs": str(changing)},
        {**abrupt, "epochs": str(epochs - changing)},  # the stable phase alone
        # the gradual schedule on a task that does not change
        {**gradual, f"{environment}.change": "false"},
        {**abrupt, f"{environment}.change": "false"},
    ]
    if gradual["transition"] == "output":
        arms.append({**gradual, "transition": "smoothing"})  # soft targets without interpolation
    return arms


def draw(
    figure: Figure,
    own: Mapping[str, Any],
    table: Any,
    columns: Sequence[str],
    values: flags.Values,
    folder: str = "",
) -> str:
    """Draws the figure as figure_NAME.png and .svg in the workdir (or `folder`) and returns a line
    that says where.

    What is drawn is written beside it as figure_NAME.csv: statistics over seeds of the metric by
    arm and task; beside a figure of the benchmark's own metric, every probe as
    figure_NAME_probes.png and .svg, and all measurements over the last tasks as
    figure_NAME_final.csv (`results.finals`).
    """
    benchmark = BENCHMARKS[figure.benchmark]
    metric = metric_of(figure)
    path = Path(folder or values["workdir"]) / f"figure_{figure.name}"
    title, note = (
        f"Figure {figure.name}: {benchmark.title}",
        differences(figure, own, values, table),
    )
    words = {"metric": metric, "band": values["band"], "title": title, "note": note}
    paths = curves.curves(table, columns, path, **words, panels=())
    drawn(table, columns, metric).to_csv(f"{path}.csv", index=False)
    if not figure.metric:
        curves.curves(table, columns, f"{path}_probes", **words)
        last = flags.whole("last", values["last"], 1)
        statistics.finals(table, columns, last).round(6).to_csv(f"{path}_final.csv", index=False)
    return f"figure {figure.name}: {paths[0]}"


def differences(figure: Figure, own: Mapping[str, Any], values: flags.Values, table: Any) -> str:
    """Returns a sentence that names every setting that is not the paper's, with the paper's in
    brackets; or nothing.

    Then one each for a selection and for a published comparison, which differ between arms. Only
    what some lane of
    `table` has is named: not a method's settings in a figure without it.
    """
    benchmark = BENCHMARKS[figure.benchmark]
    # (figures of granularity show it)
    changed = launcher.changed(
        values, benchmark.paper, table, ["granularity"] if figure.arms == "methods" else []
    )
    said = [f"Differs from the paper's numbers: {', '.join(changed)}."] if changed else []
    methods = set(table["method"])
    gradual = table[table["granularity"] > 1]
    if own["selection"]:
        what = "Learning rates" if methods == {"none"} else "Learning rates and methods' settings"
        said.append(f"{what} as chosen in {own['selection']}.")
    if own["as_published"]:
        other = {
            **benchmark.gradual_published,
            **{flag: "given" for flag in benchmark.needs if "pretrained" in flag},
        }
        if other and len(gradual):
            said.append(f"Gradual arms have {', '.join(f'{k} {v}' for k, v in other.items())}.")
        if benchmark.unregularised.get("method") in methods:
            said.append("The abrupt arm resets its optimizer.")
        output = set(gradual.loc[gradual["transition"] == "output", "granularity"])
        if figure.arms == "methods" and output == {
            2 * int(k) for k in values["granularity"].split(",")
        }:
            said.append(
                "Output interpolation has twice the granularity, as steps of 0.05 of each half of its way."
            )
    return " ".join(said)


def drawn(table: Any, columns: Sequence[str], metric: str) -> Any:
    """Returns the statistics over seeds of one metric, a row for each arm (by its label) and task,
    as pandas.DataFrame.
    """
    others = [c for c in statistics.metric_columns(table, columns) if c != metric]
    long = statistics.summary(table.drop(columns=others), columns)
    labels = statistics.arm_labels(table, columns)
    arms = statistics.final(table, columns, metric)[list(columns)].assign(arm=labels)
    return arms.merge(long, on=list(columns)).drop(columns=[*columns, "metric"]).round(6)


def _draw(doc, figure: Figure, own: Mapping[str, Any], defaults, arms, argv: Sequence[str]) -> int:
    """Draws a figure from workdirs that exist, into --workdir or the first of them."""
    try:
        workdirs = [paths_.expanded(name, "from") for name in own["from"].split(",") if name]
        values, given = flags.parse(argv, defaults)
        if values["help"]:
            launcher.say(flags.usage((doc or "") + HELP, defaults))
            return 0
        for name in {"dry_run", "profile"} & given:
            raise ValueError(
                f"{name} is given with from, which runs nothing: leave one of them out."
            )
        if not workdirs:
            raise ValueError(f"from is {own['from']!r}: name workdirs with --from=DIR,...")
        runs = flags.runs(values, given, arms)
        metrics.check_measured([spec for spec, _ in runs], metric_of(figure))
        table = collect.collect(workdirs, runs)
        programs = [
            program.Program(
                spec, [lanes_.complete(spec, lane) for lane in lanes], Execution("map", 1, 1)
            )
            for spec, lanes in runs
        ]
        folder = values["workdir"] or workdirs[0]
        launcher.workdir.check_writable(folder)
        Path(folder).mkdir(parents=True, exist_ok=True)
        launcher.say(draw(figure, own, table, rows.arm_columns(programs), values, folder))
    except ValueError as error:
        return launcher.fault(error, launcher.USAGE)
    except (launcher.workdir.WorkdirError, OSError) as error:
        return launcher.fault(error, launcher.ENVIRONMENT)
    return 0


def _check_run(
    defaults: Mapping[str, str], arms: Sequence[Mapping[str, str]], argv: Sequence[str], metric: str
) -> None:
    """Raises what would keep `launcher.launch` from running these arms; nothing is run or written."""
    values, given = flags.parse(argv, defaults)
    launcher.prepare_jax(values["deterministic"])
    dataset, programs, _ = launcher.check(values, given, arms, metric)
    if not (values["dry_run"] or values["profile"]):
        sweep.check_in_workdir(programs, dataset, values["workdir"])


def _inside(text: str, folder: str) -> str:
    """An argument with the workdir replaced by a folder inside it."""
    return f"{text.rstrip('/')}/{folder}" if text.startswith("--workdir=") else text
