"""A page for a run: one HTML file that needs nothing else, neither another file nor a network.

What was run, what came out in sentences, the table of the end, curves, and how to do it again.
"""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.colors
import pandas as pd

from plasticity_jax.reporting import (
    charts,
    findings,
    labels,
    metrics,
    panels,
    statistics,
    tables,
)

HERE = Path(__file__).parent
MAIN, SMALL = (640, 330), (400, 250)  # sizes of charts
MANY = 12
"""Arms beyond which a band is shown only of the arm that is pointed at."""
EVERY = 400
"""Rows of the table of every measurement at most: a larger one is left to final.csv."""


class Run(NamedTuple):
    """A folder of results, as its record has it.

    Attributes:
      folder: its name.
      record: config.json without settings.
      data: name and fingerprint of the data.
    """

    folder: str
    record: Mapping[str, Any]
    data: Mapping[str, Any]


class About(NamedTuple):
    """What a page says besides its table.

    Attributes:
      title: what was run, in a few words.
      setting: what all lanes have in common, in a sentence.
      remarks: what differs from the settings of a paper or an experiment, or that none is known.
      done: how much of it is done, in a sentence.
      runs: the folders.
      literature: BibTeX of what was used.
    """

    title: str
    setting: str
    remarks: str
    done: str
    runs: Sequence[Run]
    literature: str


class Shown(NamedTuple):
    """What of a table is shown.

    Attributes:
      metric: the column that the run is judged by.
      last: tasks at the end that are averaged over.
      names: what arms are called; default `labels.of_arms`.
      band: one of `panels.BANDS`.
      chance: the value of guessing, a line in the chart of the metric; None where there is none.
      baseline: arm columns and values of the arm that others are compared with; default
        `statistics.baseline_of`.
      finals: `tables.finals` of it with these names and baseline, where that is at hand.
    """

    metric: str
    last: int = 5
    names: Sequence[str] | None = None
    band: str = "t"
    chance: float | None = None
    baseline: dict[str, Any] | None = None
    finals: Any = None


def page(table: Any, arm_columns: Sequence[str], shown: Shown, about: About) -> str:
    """Returns the page of a table as HTML. Raises ValueError as `statistics.final`."""
    statistics.check(table, arm_columns, shown.metric, shown.last)
    found = findings.of_table(
        table, arm_columns, shown.metric, shown.last, shown.names, baseline=shown.baseline
    )
    ends = statistics.final(table, arm_columns, shown.metric, shown.last)
    arms = statistics.arm_labels(table, arm_columns)
    named = pd.Series(labels.named(list(arms), shown.names), name=arms.name)
    lines = _lines(table, arm_columns, ends, named)
    title = html.escape(about.title)
    script = (HERE / "page.js").read_text(encoding="utf-8")
    pieces = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{title}</title>",
        f"<style>{(HERE / 'page.css').read_text(encoding='utf-8')}{_colors(lines)}</style>",
        f"</head><body{' class=many' if len(lines) > MANY else ''}><main>",
        f"<h1>{title}</h1>",
        *_paragraphs([about.setting, about.done, about.remarks, _words(list(named))]),
        *_found(found, int(table["task"].max()) + 1),
        *_ends(table, arm_columns, shown),
        *_curves(table, arm_columns, shown, lines),
        *_again(about),
        "</main>",
        '<div id="tip" aria-hidden="true"></div>',
        f"<script>{script}</script>",
        "</body></html>",
    ]
    return "\n".join(piece for piece in pieces if piece) + "\n"


def _lines(table: Any, arm_columns: Sequence[str], ends: Any, named: Any) -> list[panels.Line]:
    """Every arm, with the statistics of what is drawn: not of single layers."""
    measured = statistics.metric_columns(table, arm_columns)
    parts = [column for column in measured if "/" in column]
    summary = statistics.summary(table.drop(columns=parts), arm_columns)
    return panels.lines(summary, ends, named, arm_columns)


def _colors(lines: Sequence[panels.Line]) -> str:
    """Style of each arm, and the rule by which its box switches it off; black is the color of
    ink, so that it is seen in the dark.
    """
    rules = []
    for arm, line in enumerate(lines):
        color = matplotlib.colors.to_hex(line.look["color"])
        color = "var(--ink)" if color == "#000000" else color
        rules.append(f".a{arm}{{--c:{color}}}")
        rules.append(f"body:has(#arm{arm}:not(:checked)) g.a{arm}{{display:none}}")
    return "\n".join(rules)


def _words(names: Sequence[str]) -> str:
    """What the words mean that arms are told apart by."""
    words = "An arm is a setting with all its seeds"
    if any("K = " in name for name in names):
        words += "; K is the number of equal steps in which one task turns into the next"
    return f"{words}."


def _paragraphs(texts: Sequence[str]) -> list[str]:
    return [f"<p>{html.escape(text)}</p>" for text in texts if text]


def _found(found: findings.Findings, tasks: int) -> list[str]:
    """What came out, in sentences."""
    pieces = ["<h2>What came out</h2>"]
    for title, sentences in (
        ("From start to end", found.changes),
        ("At the end", found.ends),
        ("What moved before a fall", found.first),
        ("What diverged", found.diverged),
    ):
        if sentences:
            pieces += [f"<h3>{title}</h3>", *_listed(sentences)]
    if found.warnings:
        pieces += ["<h3>To be careful about</h3>", *_listed(found.warnings, "warnings")]
    rules = html.escape(findings.rules(tasks))
    return [*pieces, f'<details class="quiet"><summary>By which rules</summary>{rules}</details>']


def _listed(sentences: Sequence[str], kind: str = "") -> list[str]:
    attribute = f' class="{kind}"' if kind else ""
    items = [f"<li>{html.escape(sentence)}</li>" for sentence in sentences]
    return [f"<ul{attribute}>", *items, "</ul>"] if items else []


def _ends(table: Any, arm_columns: Sequence[str], shown: Shown) -> list[str]:
    """The table of the end, and one of every measurement."""
    head, rows = tables.final_cells(
        table,
        arm_columns,
        shown.metric,
        shown.baseline,
        shown.last,
        shown.names,
        tested=True,
    )
    pieces = [
        "<h2>Table of the end</h2>",
        f'<p class="quiet">{html.escape("; ".join(head))}.</p>',
        '<div class="wide" tabindex="0" role="region" aria-label="Table of the end">',
        *_table(rows),
        "</div>",
    ]
    measured = [c for c in statistics.metric_columns(table, arm_columns) if "/" not in c]
    if (len(rows) - 1) * len(measured) > EVERY:
        return [*pieces, '<p class="quiet">Every other measurement is in final.csv.</p>']
    every = shown.finals
    if every is None:
        every = tables.finals(
            table, arm_columns, shown.last, names=shown.names, baseline=shown.baseline
        )
    left = ("low", "high", "minus_low", "minus_high", "p", "p_holm")
    every = every.drop(columns=[column for column in left if column in every])
    cells = [[column.replace("_", " ") for column in every]]
    cells += [list(map(_cell, row)) for row in every.to_numpy()]
    return [
        *pieces,
        "<details><summary>Every measurement at the end, as numbers</summary>",
        '<div class="wide" tabindex="0" role="region" aria-label="Every measurement">',
        *_table(cells, "every"),
        "</div></details>",
    ]


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if pd.isna(value) else f"{value:.4g}"


def _table(rows: Sequence[Sequence[str]], kind: str = "") -> list[str]:
    """Rows of cells, of which the first are heads, as are the first of each row."""
    first, *others = rows
    heads = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in first)
    pieces = [f'<table class="{kind}">' if kind else "<table>"]
    pieces.append(f"<thead><tr>{heads}</tr></thead><tbody>")
    for name, *cells in others:
        rest = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
        pieces.append(f'<tr><th scope="row">{html.escape(name)}</th>{rest}</tr>')
    return [*pieces, "</tbody></table>"]


def _curves(
    table: Any, arm_columns: Sequence[str], shown: Shown, lines: Sequence[panels.Line]
) -> list[str]:
    """A key that switches arms off, a chart of the metric, and one of every probe."""
    scores = metrics.of_table(table).scores
    measured = statistics.metric_columns(table, arm_columns)
    own = [c for c in measured if "/" not in c and c not in scores and c != shown.metric]
    tasks = int(table["task"].max()) + 1
    points = len(lines) * (1 + len(own)) * tasks
    every = max(1, -(-points // charts.POINTS))
    words = f"Lines are means over seeds; bands: {panels.BANDS[shown.band]}."
    if len(lines) > MANY:
        words += (
            " With so many arms a band is shown of the one that is pointed at or has the focus."
        )
    if shown.chance is not None:
        level = charts.written(shown.chance, metrics.of_column(table, shown.metric))
        words += f" Dotted, where the axis has it: chance, {level}."
    if every > 1:
        which = {2: "second", 3: "third"}.get(every, f"{every}th")
        words += f" Drawn at every {which} task."
    every_about = [metrics.of_column(table, column) for column in (shown.metric, *own)]
    words = " ".join(filter(None, [words, panels.gaps(lines, every_about)]))
    pieces = ["<h2>Curves</h2>", f'<p class="quiet">{html.escape(words)}</p>', *_keys(lines)]
    for place, about in enumerate(every_about):
        column = about.name
        frame = charts.Frame(SMALL if place else MAIN, tasks, shown.band, every)
        chance = None if place else shown.chance
        svg = charts.chart(about, lines, frame, f"chart{place}", chance)
        name = html.escape(about.label or column.replace("_", " "))
        figure = f"<figure{'' if place else ' class=main'}><figcaption>{name}</figcaption>{svg}"
        pieces.append(f"{figure}</figure>")
        if not place:
            pieces.append('<div class="charts">')
    return [*pieces, "</div>"]


def _keys(lines: Sequence[panels.Line]) -> list[str]:
    """The arms with a box each."""
    items = []
    for arm, line in enumerate(lines):
        dashes = charts.dashes(line.look["linestyle"])
        stroke = f' stroke-dasharray="{dashes}"' if dashes else ""
        swatch = (
            f'<svg viewBox="0 0 34 12" aria-hidden="true"><path class="line" d="M1 6h32"{stroke}/>'
            "</svg>"
        )
        name = html.escape(" ".join(line.label.split()))
        items.append(
            f'<li><label class="a{arm}"><input type="checkbox" id="arm{arm}" checked>{swatch}{name}'
            "</label></li>"
        )
    head = '<nav class="keys" aria-label="Arms that are drawn">'
    if len(lines) > 2:
        for which in ("all", "none"):
            head += f'<button type="button" value="{which}" hidden>{which}</button> '
    return [f"{head}<ul>", *items, "</ul></nav>"]


def _again(about: About) -> list[str]:
    """How to repeat it."""
    pieces = ["<h2>How to repeat it</h2>"]
    for run in about.runs:
        pieces += _repeated(run)
    bibtex = html.escape(about.literature)
    return [*pieces, "<details><summary>What to cite</summary>", f"<pre>{bibtex}</pre></details>"]


def _repeated(run: Run) -> list[str]:
    record = run.record
    versions = ", ".join(f"{name} {known}" for name, known in record.get("versions", {}).items())
    pieces = [
        f"<h3>{html.escape(run.folder)}</h3>",
        f"<p>Data: {html.escape(str(run.data.get('name', '')))}, fingerprint "
        f"<code>{html.escape(str(run.data.get('fingerprint', '')))}</code>"
        f" ({html.escape(str(record.get('data_source', 'source not recorded')))}).</p>",
        f"<p>Code {html.escape(str(record.get('code_version', 'not recorded')))}; device "
        f"{html.escape(str(record.get('device', 'not recorded')))}; {html.escape(versions)}.</p>",
    ]
    calls = record.get("calls") or []
    if not calls:
        return [*pieces, "<p>The command was not recorded.</p>"]
    pieces.append("<p>Commands, in the order in which they were given:</p>")
    for call in calls:
        commit = call.get("commit") or "not recorded"
        changed = ", with files changed since" if call.get("dirty") else ""
        times = f"{call.get('started')} to {call.get('ended') or 'a stop'}"
        words = f"{times}, commit {commit}{changed}"
        pieces.append(f"<pre>{html.escape(call['command'])}</pre>")
        pieces.append(f'<p class="quiet">{html.escape(words)}</p>')
    return pieces
