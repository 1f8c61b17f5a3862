"""Final tables, pictures and curves made again from lanes that are kept, apart from any figure's
own settings.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from experiments import figures
from plasticity_jax.reporting import curves, tables
from plasticity_jax.storage import table as table_
from plasticity_jax.storage import writing

Printed = Mapping[tuple[str, str], float]  # {(arm, metric): number of the paper}
ORIGIN = ["dataset", "samples", "batch_size", "code_version", "compiler_options"]


def joined(parts: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Returns the rows of several tables with lane numbers of their own, without the columns that
    say where a table is from.
    """
    found: list[pd.DataFrame] = []
    for part in parts:
        first = found[-1]["lane"].max() + 1 if found else 0
        found.append(part.assign(lane=part["lane"] + first).drop(columns=ORIGIN, errors="ignore"))
    return pd.concat(found, ignore_index=True)


def read(names: Iterable[str], folder: Path) -> pd.DataFrame:
    """Returns the kept lanes of these names in a folder as `joined` does."""
    return joined(table_.read(folder / f"{name}.parquet") for name in names)


def beside(found: pd.DataFrame, printed: Printed) -> pd.DataFrame:
    """Returns a final table with a column `paper`, the paper's number for each arm and metric."""
    own = zip(found["arm"], found["metric"], strict=True)
    return found.assign(paper=[float(printed.get(one, "nan")) for one in own])


def mark(path: Path, printed: Printed) -> Path:
    """Adds the paper's numbers to a final table that a run has written; returns its path."""
    found = pd.read_csv(path, dtype=str, keep_default_na=False)
    writing.text(path, beside(found, printed).to_csv(index=False))
    return path


def store(
    table: pd.DataFrame,
    arms: Sequence[str],
    metrics: Sequence[str],
    path: Path,
    title: str = "",
    printed: Printed | None = None,
) -> Path:
    """Writes the final table of all arms, PATH_final.csv, and with a title the picture and the
    curves of the first metric, PATH.png and PATH.csv; returns the path of the picture, else that
    of the table.

    Args:
      table: lanes, numbered in the order in which their arms are told.
      arms: columns that tell the arms apart; those that the table lacks are left out.
      metrics: what is drawn and averaged, the main one first.
      path: of the files, without what they end in.
      title: of the picture.
      printed: what is in a column `paper` beside ours.
    """
    columns = [column for column in arms if column in table]
    wanted = {"lane", "task", "seed", "finite", *columns, *metrics}
    table = table.reindex(columns=[column for column in table if column in wanted])
    for column in table[columns].select_dtypes("float32"):
        table[column] = table[column].map(lambda number: float(f"{number:.6g}"))
    final = path.with_name(f"{path.name}_final.csv")
    found = tables.finals(table, columns).round(6)
    if printed:
        found = beside(found, printed)
    writing.text(final, found.to_csv(index=False))
    if not title:
        return final
    drawing = curves.Drawing(metric=metrics[0], title=title, formats=("png",))
    drawn, *_ = curves.curves(table, columns, path, drawing)
    curve = path.with_name(f"{path.name}.csv")
    writing.text(curve, figures.drawn(table, columns, metrics[0]).to_csv(index=False))
    return drawn
