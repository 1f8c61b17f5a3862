"""The table of a run's end for a document: Markdown, or LaTeX with booktabs."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pandas as pd

from plasticity_jax.reporting import tables

LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    "&": r"\&",
    "%": r"\%",
    "_": r"\_",
    "#": r"\#",
    "$": r"\$",
    "{": r"\{",
    "}": r"\}",
}


class Final(NamedTuple):
    """A table as text.

    Attributes:
      head: sentences on what is shown.
      rows: cells, the names of the columns first.
    """

    head: list[str]
    rows: list[list[str]]


def final(
    table: pd.DataFrame,
    arm_columns: Sequence[str],
    metric: str = "online_accuracy",
    last: int = 5,
    names: Sequence[str] | None = None,
    *,
    tested: bool = False,
    baseline: dict[str, Any] | None = None,
) -> Final:
    """Returns what `tables.final_table` prints, in cells; `names` are what arms are called. Raises
    ValueError as `tables.final_table`.
    """
    head, rows = tables.final_cells(
        table, arm_columns, metric, baseline, last, names, tested=tested
    )
    return Final(head, rows)


def markdown(shown: Final) -> str:
    """Returns the table as Markdown, with its head as a paragraph above it."""
    lines = [f"{'; '.join(shown.head)}.", ""]
    for number, row in enumerate(shown.rows):
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |")
        if number == 0:
            lines.append(f"|---{'|---:' * (len(row) - 1)}|")
    return "\n".join([*lines, ""])


def latex(shown: Final) -> str:
    """Returns the table as a LaTeX tabular, which needs the package booktabs."""
    lines = [f"% {sentence}" for sentence in shown.head]
    lines += [rf"\begin{{tabular}}{{l{'r' * (len(shown.rows[0]) - 1)}}}", r"\toprule"]
    escapes = str.maketrans(LATEX)
    for number, row in enumerate(shown.rows):
        cells = [cell.translate(escapes) for cell in row]
        lines.append(f"{' & '.join(cells)} " + r"\\")
        if number == 0:
            lines.append(r"\midrule")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


KINDS: dict[str, Callable[[Final], str]] = {"markdown": markdown, "latex": latex}
