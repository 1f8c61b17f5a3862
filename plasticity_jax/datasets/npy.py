"""Reading .npy files, of which nothing is trusted before it is checked: no pickles, no sizes that
the file has not.
"""

import io
import math
import warnings
from pathlib import Path

import numpy as np

from plasticity_jax.storage.small_files import check_regular

HEADER = 12 + 10_000
"""Bytes of the longest header that is read, as numpy allows it; those of `np.save` have 128."""
_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def mapped(path: Path) -> np.ndarray:
    """Returns the array of plain values in an .npy file, mapped and read-only.

    Unlike `np.load` it refuses a file that has more bytes than its header says, and never raises
    anything else. Raises OSError where the file cannot be read, ValueError, whose text is a clause,
    where it is no .npy file of plain values.
    """
    size = check_regular(path).st_size
    with path.open("rb") as file:
        start = io.BytesIO(file.read(HEADER))
    try:
        # numpy's of headers from Python 2, Python's of odd literals
        with warnings.catch_warnings(action="ignore"):
            shape, fortran, dtype = _READERS[np.lib.format.read_magic(start)](start)
    except Exception as fault:  # numpy evaluates the header as Python, whose faults are of any type
        reason = (
            f"format version {fault}"
            if isinstance(fault, KeyError)
            else str(fault) or type(fault).__name__
        )
        raise ValueError(
            f"its header is none of an .npy file: {reason.splitlines()[0][:200]}"
        ) from fault
    if dtype.hasobject:
        raise ValueError("it holds pickled Python objects, which are never read")
    if min(shape, default=0) < 0:
        raise ValueError(f"its header has the shape {list(shape)}")
    if size - start.tell() != (wanted := math.prod(shape) * dtype.itemsize):
        raise ValueError(
            f"it has {size - start.tell():,} bytes behind its header, where {dtype} {list(shape)} "
            f"has {wanted:,}"
        )
    try:
        return np.memmap(path, dtype, "r", start.tell(), shape, "F" if fortran else "C")
    # beside a size of 0 another can be beyond all bounds
    except (ValueError, OverflowError) as fault:
        raise ValueError(f"its header has the shape {list(shape)}") from fault
