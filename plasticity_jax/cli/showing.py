"""What is made of finished workdirs without running anything: the table of their end, also for a
paper.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plasticity_jax import registry
from plasticity_jax.cli import flags, folders, launcher, pages, pictures, settings
from plasticity_jax.execution import merging, program, rows
from plasticity_jax.reporting import metrics
from plasticity_jax.storage import paths, workdir

SHOW = """Prints the table of the end of workdirs, as a run prints it; nothing is run.

plasticity show DIR... [--last=5] [--metric=NAME] [--import=my_parts.py]

The lanes of several workdirs are put together, each once.

  --baseline=NAME=VALUE,...      the arm that others are compared with, by its settings or by its
                                 name in the table; default the first abrupt one without a method

For a paper:
  --export=latex|markdown|csv    that table, and nothing else; csv has all digits and p values
  --p_values                     a column of p values, corrected for the number of arms (Holm 1979)
  --difference=2                 says how many seeds would tell that difference from the baseline,
                                 with a chance of 80 % at a level of 5 %; in the unit of the table
  --figure=curves.pdf            draws the curves into a file: pdf, png or svg
  --figure_width=single|double   of a column, or of both, of a paper; page is the usual one
  --band=minmax|sem|ci|t         what is drawn around a curve
  --arm_names="Abrupt; Ours"     what arms are called, in the order of the table
"""
CITE = """Prints BibTeX of what workdirs used: this software, and the papers that the docstrings of
their environments, methods, probes, networks, optimizers and data name.

plasticity cite DIR... [--import=my_parts.py]

Finished or not; nothing is run.
"""
REPORT = """Writes a page of workdirs for a browser: report.html, which needs no other file.

plasticity report DIR... [--to=FILE.html] [--last=5] [--metric=NAME] [--import=my_parts.py]

What was run and on what, what came out in sentences, the table of the end, curves whose arms can
be switched off, and how to repeat it. A run leaves one in its workdir when it ends. Of several
workdirs, whose lanes are put together, each once, --to is needed.

  --baseline=NAME=VALUE,...      the arm that others are compared with, by its settings or by its
                                 name in the table; default the first abrupt one without a method
  --band=minmax|sem|ci|t         what is drawn around a curve
  --arm_names="Abrupt; Ours"     what arms are called, in the order of the table
"""
OWN = {
    "last": "5",
    "metric": None,
    "baseline": None,
    "export": None,
    "p_values": False,
    "difference": None,
    "figure": None,
    "figure_width": "single",
    "figure_title": "",
    "band": "t",
    "arm_names": None,
}
KINDS = ("latex", "markdown", "csv")


def show(argv: Sequence[str]) -> int:
    """Prints the table of the end of workdirs."""
    own, given = folders.given(argv, SHOW, OWN)
    if given is None:
        return 0
    last, difference = _checked(own)
    table, programs = finished(given)
    columns = rows.arm_columns(programs)
    metric = own["metric"] or metrics.judged_by(_environments(programs), table)
    names = pictures.names(own)
    baseline = _baseline(own["baseline"], table, columns, names)
    how = {"names": names, "tested": own["p_values"], "baseline": baseline}
    if own["export"]:
        text = _exported(own["export"], table, columns, metric, last, **how)
        launcher.say(text.rstrip("\n"))
    else:
        launcher.say("\n".join(launcher.ending(table, columns, metric, last, **how)))
    if difference is not None:
        lines = seeds(table, columns, metric, last, difference, **how)
        launcher.say("\n".join(["", *lines]))
    if own["figure"]:
        # (the file's name says its format)
        values = {**own, "figure_format": None}
        drawn = pictures.drawing(values, metric, "", pictures.setting(programs))
        drawn = drawn._replace(chance=pages.chance(given, metric))
        _draw(own["figure"], table, columns, drawn)
    return 0


def _baseline(
    given: str | None, table: Any, columns: Sequence[str], names: Sequence[str] | None
) -> dict[str, Any] | None:
    """The settings of the arm that --baseline says, None where it is not given."""
    from plasticity_jax.reporting import labels, statistics

    if given is None:
        return None
    arms = statistics.arms(table, columns)
    called = labels.named(labels.of_arms(arms.values), names)
    if given in called:
        return arms.values.to_dict("records")[called.index(given)]
    if "=" not in given:
        raise ValueError(
            f"baseline is {given!r}: allowed are NAME=VALUE,... and the names of arms, "
            f"{'; '.join(called)}."
        )
    return settings.pairs("baseline", given)


def finished(given: Sequence[str]) -> tuple[Any, list[program.Program]]:
    """Returns the table of workdirs and their programs. Raises WorkdirError where nothing is
    finished yet.
    """
    table, programs = merging.load_with_programs(given)
    if table.empty:
        raise workdir.WorkdirError(
            f"{' and '.join(given)} has no finished task yet: allowed are runs with results."
        )
    return table, programs


def _environments(programs: Sequence[program.Program]) -> list[Any]:
    return [program.spec.make_environment() for program in programs]


def _checked(own: flags.Values) -> tuple[int, float | None]:
    """The numbers among the flags, with the others looked at before any folder is."""
    from plasticity_jax.reporting import curves, panels

    if own["export"]:
        registry.one_of("export", own["export"], KINDS)
    registry.one_of("band", own["band"], panels.BANDS)
    registry.one_of("figure_width", own["figure_width"], curves.WIDTHS)
    if own["figure"]:
        ending = Path(own["figure"]).suffix.removeprefix(".")
        registry.one_of("the ending of figure", ending, curves.FORMATS)
    if own["difference"] is None:
        return settings.read("last", own["last"]), None
    difference = settings.number("difference", own["difference"])
    if not (difference > 0 and math.isfinite(difference)):
        raise ValueError(
            f"difference is {own['difference']}: allowed are numbers above 0, in the unit of the "
            "table."
        )
    return settings.read("last", own["last"]), difference


def _exported(
    kind: str,
    table: Any,
    columns: Sequence[str],
    metric: str,
    last: int,
    **how: Any,
) -> str:
    """The table as text of a kind; `how` are names of arms, whether with p values, and the
    baseline.
    """
    from plasticity_jax.reporting import exports, statistics, tables

    if kind == "csv":
        statistics.check(table, columns, metric, last)
        every = tables.finals(table, columns, last, **{**how, "tested": True})
        return every[every["metric"] == metric].to_csv(index=False)
    final = exports.final(table, columns, metric, last, **how)
    return exports.KINDS[kind](final)


def seeds(
    table: Any,
    columns: Sequence[str],
    metric: str,
    last: int,
    difference: float,
    **how: Any,
) -> list[str]:
    """Returns lines that say how many seeds would tell a difference of each arm to the baseline
    (`statistics.baseline_of`), in the unit of the printed table; `how` is as in `_exported`.
    """
    from plasticity_jax.reporting import labels, significance, statistics

    arms = statistics.arms(table, columns)
    number = statistics.baseline_of(arms.values, how.get("baseline"))
    names = labels.named(labels.of_arms(arms.values), how.get("names"))
    about = metrics.of_column(table, metric)
    scale, unit = (100, " points") if about.share else (1, "")
    found = significance.tests(statistics.differences(arms, number, metric, last), number)
    lines = [
        f"seeds that tell a difference of {difference:g}{unit} from {names[number]} with a chance "
        "of 80 % at a level of 5 %, by a paired t test of one arm:",
    ]
    for name, row in zip(names, found.to_dict("records"), strict=True):
        if name == names[number]:
            continue
        if row["pairs"] < 2:
            lines.append(f"  {name}: not known from {row['pairs']} pairs of seeds")
            continue
        needed = significance.from_pilot(difference / scale, row["deviation"], row["pairs"])
        lines.append(
            f"  {name}: about {needed.about:,}; to be safe {needed.cautious:,}, as the deviation "
            f"is known from {row['pairs']} pairs only"
        )
    return lines


def _draw(file: str, table: Any, columns: Sequence[str], drawing: Any) -> None:
    """Draws a `curves.Drawing` into a file, of the format that its name ends with."""
    from plasticity_jax.reporting import curves

    path = Path(paths.expanded(file, "figure"))
    format_ = path.suffix.removeprefix(".")
    with curves.style(drawing.width):
        drawn = curves.figure(table, columns, drawing)
        curves.store_figure(drawn, path, metadata=curves.FORMATS[format_])
    launcher.say(f"\nfigure: {path}")


def cite(argv: Sequence[str]) -> int:
    """Prints BibTeX of what runs used."""
    from plasticity_jax.reporting import literature

    _, given = folders.given(argv, CITE, {})
    if given is None:
        return 0
    programs = merging.programs(given)
    specs = [one.spec for one in programs]
    launcher.say(literature.bibtex(literature.of_specs(specs)).rstrip("\n"))
    return 0


def report(argv: Sequence[str]) -> int:
    """Writes a page of workdirs."""
    from plasticity_jax.reporting import page, panels

    defaults = {"to": None, "last": "5", "metric": None, "band": "minmax", "arm_names": None}
    defaults |= {"baseline": None}
    own, given = folders.given(argv, REPORT, defaults)
    if given is None:
        return 0
    last = settings.read("last", own["last"])
    registry.one_of("band", own["band"], panels.BANDS)
    if not own["to"] and len(given) > 1:
        raise ValueError(f"to is not given, but {len(given)} folders are: name a file with --to=.")
    table, programs = finished(given)
    metric = own["metric"] or metrics.judged_by(_environments(programs), table)
    path = Path(paths.expanded(own["to"], "to")) if own["to"] else Path(given[0], pages.FILE)
    names, columns = pictures.names(own), rows.arm_columns(programs)
    baseline = _baseline(own["baseline"], table, columns, names)
    chance = pages.chance(given, metric)
    shown = page.Shown(metric, last, names, own["band"], chance, baseline)
    launcher.say(f"page: {pages.write(path, table, programs, shown, given)}")
    return 0
