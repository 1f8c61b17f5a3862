"""Reading small JSON files that others may have written, cut short or changed."""

import json
import os
from pathlib import Path
from typing import Any


def read_json(path: str | os.PathLike) -> Any:
    """Returns the content of a JSON file in UTF-8.

    Raises OSError if the file cannot be read, and ValueError, whatever is wrong inside, if it is not JSON: bytes that are
    no UTF-8, text that is cut short, numbers of thousands of digits, brackets in brackets beyond what Python can follow.
    """
    text = Path(path).read_bytes().decode("utf-8")
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("brackets in brackets, too many to follow") from None
