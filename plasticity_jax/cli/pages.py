"""The page of a run, report.html: what its records say of it beside the table."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plasticity_jax.cli import pictures
from plasticity_jax.execution import program as program_
from plasticity_jax.execution import rows
from plasticity_jax.storage import paths, workdir, writing

if TYPE_CHECKING:
    from plasticity_jax.reporting.page import About, Run, Shown

FILE = "report.html"
NO_PAPER = (
    "No settings of a paper were recorded with this run: it is compared with no paper's experiment."
)


def write(
    path: Path,
    table: Any,
    programs: Sequence[program_.Program],
    shown: "Shown",
    folders: Sequence[str],
    *,
    title: str = "",
) -> Path:
    """Writes the page of a table into a file and returns its path; `folders` are the workdirs that
    the table is of, and `title` the page's, by default what was run.

    Raises ValueError for a metric that the table lacks, OSError if the file cannot be written.
    """
    from plasticity_jax.reporting import page

    about = _about(table, programs, folders, title)
    text = page.page(table, rows.arm_columns(programs), shown, about)
    writing.text(path, text)
    return path


def chance(folders: Sequence[str], metric: str) -> float | None:
    """Returns the value of guessing in a column as the records of workdirs have it; None where they
    do not all have one, and the same.
    """
    records = [workdir.read_record(paths.expanded(folder, "workdir")) for folder in folders]
    values = {(record.get("chance") or {}).get(metric) for record in records}
    return values.pop() if len(values) == 1 else None


def _about(
    table: Any, programs: Sequence[program_.Program], folders: Sequence[str], title: str
) -> "About":
    """What is said beside the table."""
    from plasticity_jax.reporting import literature, page

    records = [_run(folder) for folder in folders]
    papers = literature.of_specs(program.spec for program in programs)
    return page.About(
        title or pictures.title(programs),
        pictures.setting(programs),
        remarks_of([run.record for run in records]),
        _done(table, programs),
        records,
        literature.bibtex(papers),
    )


def remarks_of(records: Sequence[Mapping[str, Any]]) -> str:
    """Returns what the records of runs say of how these differ from a paper's or an experiment's
    settings, or that they know of none.
    """
    said = dict.fromkeys(record.get("remarks", "") for record in records)
    return " ".join(remark for remark in said if remark) or NO_PAPER


def _run(folder: str) -> "Run":
    from plasticity_jax.reporting import page

    path = paths.expanded(folder, "workdir")
    data = (workdir.read_settings(path) or {}).get("data", {})
    return page.Run(Path(path).resolve().name, workdir.read_record(path), data)


def _done(table: Any, programs: Sequence[program_.Program]) -> str:
    """How many arms, seeds and tasks there are, and whether all are done."""
    columns = [column for column in rows.arm_columns(programs) if column in table]
    lanes, arms = table["lane"].nunique(), len(table[columns].drop_duplicates())
    asked = sum(len(program.lanes) * program.spec.tasks for program in programs)
    seeds = table["seed"].nunique()
    words = f"{lanes} training runs: {arms} {'arm' if arms == 1 else 'arms'}"
    words += f", {seeds} {'seed' if seeds == 1 else 'seeds'}, {table['task'].max() + 1} tasks."
    done = len(table)
    if done < asked:
        words += f" Not finished: {done:,} of {asked:,} tasks of all runs are done."
    return words
