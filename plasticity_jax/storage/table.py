"""The table of a run on disk, as Parquet."""

import hashlib
import itertools
import json
import os
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from plasticity_jax.storage import writing
from plasticity_jax.storage.small_files import check_fits, check_regular
from plasticity_jax.storage.workdir import WorkdirError, reason_of

# Names in a Parquet file's metadata. The checksum (Parquet itself notices few of the bits that
# flip) is not among pandas' attributes, which would go along with a part of the table that somebody
# takes and writes.
_SUM, _ATTRIBUTES = "plasticity_jax.sha256", "PANDAS_ATTRS"
_NUMBER = 8  # bytes of a value in memory
_ROWS = "plasticity_jax.rows"  # of the parts that the checksum was taken of; without it, of one


def write(table: pd.DataFrame, path: str | os.PathLike) -> None:
    """Writes the table as Parquet, whole or not at all: a reader sees the old file or the new one.
    Raises OSError where the folder is missing or the disk does not take the file; an older file
    stays as it was.
    """
    write_parts(table, [], path)


def write_parts(like: pd.DataFrame, parts: Iterable[pd.DataFrame], path: str | os.PathLike) -> None:
    """Writes the table that `parts` are one after another, which is never in memory whole; as
    `write`. Columns, types and attributes are those of `like`, which is written if there is none.
    """
    import pyarrow
    import pyarrow.parquet

    schema = pyarrow.Schema.from_pandas(like, preserve_index=False)
    attributes = {_ATTRIBUTES: json.dumps(like.attrs)}
    schema = schema.with_metadata({**(schema.metadata or {}), **attributes})
    digest, lengths = _begun(like), []
    with (
        writing.whole(path) as file,
        pyarrow.parquet.ParquetWriter(file, schema) as writer,
    ):
        for part in itertools.chain(parts, [like]):
            if part is like and lengths:
                break
            _add(digest, part)
            lengths.append(len(part))
            writer.write_table(pyarrow.Table.from_pandas(part, schema, preserve_index=False))
        sums = {_SUM: digest.hexdigest(), _ROWS: json.dumps(lengths)}
        writer.add_key_value_metadata(sums)


def read(path: str | os.PathLike) -> pd.DataFrame:
    """Returns the table that `write` wrote. Raises OSError where there is no such file, or it
    cannot be read, ValueError where it is no Parquet file of pandas, or not what was written; of
    one that pandas wrote no checksum is known.
    """
    import pyarrow.parquet

    check_regular(path)
    try:
        # (opened once: a run that goes on may write it anew at any moment)
        with open(path, "rb") as file:
            described = pyarrow.parquet.read_metadata(file)
            # (a few bytes may stand for as many equal rows as one likes)
            check_fits(_NUMBER * described.num_rows * described.num_columns)
            written = described.metadata or {}
            if b"pandas" not in written:
                raise ValueError("it lacks what pandas writes of a table's columns")
            table = pd.read_parquet(file)
        lengths = json.loads(written.get(_ROWS.encode(), json.dumps([len(table)])))
        if written.get(_SUM.encode()) not in (None, _digest(table, lengths).encode()):
            raise ValueError("its values do not have the checksum that they were written with")
    except MemoryError:
        raise
    # damage surfaces as almost any type, depending on the byte that it hit
    except Exception as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise ValueError(
            f"{path} cannot be read as a table of results ({reason_of(error)}): expected the "
            "Parquet file of a run."
        ) from error
    return table


def _digest(table: pd.DataFrame, lengths: Sequence[int]) -> str:
    """SHA-256 of a table that is parts of so many rows."""
    digest = _begun(table)
    if sum(lengths) != len(table):
        raise ValueError("it has not as many rows as were written")
    ends = itertools.accumulate(lengths)
    for length, end in zip(lengths, ends, strict=True):
        _add(digest, table.iloc[end - length : end])
    return digest.hexdigest()


def _begun(table: pd.DataFrame) -> "hashlib._Hash":
    """SHA-256 over the attributes of a table."""
    return hashlib.sha256(json.dumps(table.attrs, sort_keys=True).encode())


def _add(digest: "hashlib._Hash", part: pd.DataFrame) -> None:
    """Adds names and values of rows to a checksum; all NaN are one, as Parquet has one for what is
    missing.
    """
    # (pandas copies attributes for each column)
    plain = part.copy(deep=False)
    plain.attrs = {}
    for name, column in plain.items():
        values, texts = column.to_numpy(), []
        if values.dtype.kind == "f":
            values = np.where(np.isnan(values), np.array(np.nan, values.dtype), values)
        elif values.dtype.kind not in "iub":  # few different ones, numbered
            values, found = pd.factorize(values)
            texts = [str(value) for value in found]
        digest.update(json.dumps([name, values.dtype.str, len(values), *texts]).encode())
        digest.update(np.ascontiguousarray(values).tobytes())


def write_array(values: np.ndarray, folder: str | os.PathLike, name: str) -> None:
    """Writes the array of a measurement as NAME.npy into a folder, whole or not at all.

    A name may have folders of its own. Raises OSError, and WorkdirError for a name that leads out
    of the folder: it may come from a checkpoint that somebody else made.
    """
    place = pathlib.PurePosixPath(name)
    if place.is_absolute() or ".." in place.parts or not place.parts:
        raise WorkdirError(
            f"{folder} cannot have the array {name!r}: allowed are names of measurements."
        )
    path = pathlib.Path(folder, f"{name}.npy")
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing.whole(path) as file:
        np.save(file, values)
