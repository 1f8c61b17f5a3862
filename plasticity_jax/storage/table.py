"""The table of a run on disk, as Parquet."""

import hashlib
import json
import os
import pathlib

import numpy as np
import pandas as pd

from plasticity_jax.storage import writing
from plasticity_jax.storage.small_files import check_regular
from plasticity_jax.storage.workdir import reason_of

# Names in a Parquet file's metadata. The checksum (Parquet itself notices few of the bits that
# flip) is not among pandas' attributes, which would go along with a part of the table that somebody
# takes and writes.
_SUM, _ATTRIBUTES = "plasticity_jax.sha256", "PANDAS_ATTRS"


def write(table: pd.DataFrame, path: str | os.PathLike) -> None:
    """Writes the table as Parquet, whole or not at all: a reader sees the old file or the new one.

    Raises:
      OSError: the folder is missing or the disk does not take the file; an older file stays as it
        was.
    """
    import pyarrow
    import pyarrow.parquet

    whole = pyarrow.Table.from_pandas(table, preserve_index=False)
    attributes = {_ATTRIBUTES: json.dumps(table.attrs), _SUM: _digest(table)}
    whole = whole.replace_schema_metadata({**(whole.schema.metadata or {}), **attributes})
    with writing.whole(path) as file:
        pyarrow.parquet.write_table(whole, file)


def read(path: str | os.PathLike) -> pd.DataFrame:
    """Returns the table that `write` wrote.

    Raises:
      OSError: there is no such file, or it cannot be read.
      ValueError: it is no Parquet file of pandas, or not what was written; of one that pandas wrote
        no checksum is known.
    """
    import pyarrow.parquet

    check_regular(path)
    try:
        written = pyarrow.parquet.read_schema(path).metadata or {}
        if b"pandas" not in written:
            raise ValueError("it lacks what pandas writes of a table's columns")
        table = pd.read_parquet(path)
        if written.get(_SUM.encode()) not in (None, _digest(table).encode()):
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


def _digest(table: pd.DataFrame) -> str:
    """SHA-256 over attributes, names and values; all NaN are one, as Parquet has one for what is
    missing.
    """
    digest = hashlib.sha256(json.dumps(table.attrs, sort_keys=True).encode())
    for name, column in table.items():
        values, texts = column.to_numpy(), []
        if values.dtype.kind == "f":
            values = np.where(np.isnan(values), np.array(np.nan, values.dtype), values)
        elif values.dtype.kind not in "iub":  # few different ones, numbered
            values, found = pd.factorize(values)
            texts = [str(value) for value in found]
        digest.update(json.dumps([name, values.dtype.str, len(values), *texts]).encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def write_array(values: np.ndarray, path: str | os.PathLike) -> None:
    """Writes an array as .npy, whole or not at all; the folder is made. Raises OSError."""
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    with writing.whole(path) as file:
        np.save(file, values)
