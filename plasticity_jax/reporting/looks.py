"""How an arm looks: a method, or a kind of gradual change, has one color in every figure.

What tells arms apart besides is in dashes, and where these run out, in markers. Granularity alone
is a ramp of color.
"""

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

# Colors that stay apart for color-blind readers: Okabe and Ito 2008 (without the yellow that is
# faint on white), and what is left of Tol's muted scheme.
BLACK = "#000000"
COLORS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
OTHERS = ("#332288", "#882255", "#44AA99", "#999933", "#AA4499", "#661100", "#6699CC", "#888888")
OF_METHOD = {
    "none": BLACK,
    "l2": "#D55E00",
    "spectral": "#0072B2",
    "redo": "#009E73",
    "l2_init": "#CC79A7",
    "shrink_and_perturb": "#E69F00",
}
OF_CHANGE = {
    "output": "#56B4E9",
    "sampling": "#332288",
    "input": "#44AA99",
    "smoothing": "#999933",
    "annealing": "#888888",
}
DASHES: tuple[Any, ...] = ("-", (0, (4, 1.6)), (0, (1, 1.3)), (0, (5, 1.5, 1, 1.5)), (0, (9, 2)))
MARKERS = ("", "o", "s", "^", "D", "v", "P", "X")  # of arms that look the same otherwise
_CHANGE = ("granularity", "transition", "method")


def of_arms(values: Any) -> list[dict[str, Any]]:
    """Returns keywords of `Axes.plot` for each arm: color, linestyle and marker.

    `values`, a DataFrame, has a row of arm columns for each arm. Arms that differ in granularity
    have a ramp of color; else the color is the method's, or that of the kind of gradual change
    where there is no method; else that of the first column that differs.
    """
    rows = values.to_dict("records")
    varying = [str(column) for column in values if len(values[column].drop_duplicates()) > 1]
    colors, told = _colors(values, rows, varying)
    within = [c for c in varying if c not in told and _differs(values[c], colors)]
    dashes = _dashes(_ranked(values, within).to_dict("records"), within)
    seen: dict[Any, int] = {}
    looks = []
    for color, dash in zip(colors, dashes, strict=True):
        times = seen[color, dash] = seen.get((color, dash), -1) + 1
        looks.append({"color": color, "linestyle": dash, "marker": MARKERS[times % len(MARKERS)]})
    return looks


def _ranked(values: Any, columns: Sequence[str]) -> Any:
    """The arms with the settings of single methods as their place among what is given, so that the
    first of one method and those of a method without such a setting have the same dashes.
    """
    ranked = values.copy()
    for column in columns:
        if values[column].isna().any():
            known = list(dict.fromkeys(values[column].dropna()))
            ranked[column] = [known.index(v) if v in known else 0 for v in values[column]]
    return ranked


def of_name(name: str) -> str:
    """Returns the color of a method by its name, which is the same in every figure.

    Methods without a color of their own, and several together, share out the other colors by
    their name, so that two of them may have the same.
    """
    return OF_METHOD.get(name) or OTHERS[zlib.crc32(name.encode()) % len(OTHERS)]


def _colors(
    values: Any, rows: Sequence[dict[Any, Any]], varying: Sequence[str]
) -> tuple[list[Any], set[str]]:
    """Each arm's color, and the columns that it tells."""
    if "granularity" in varying and not {"method", "transition"} & set(varying):
        granularity = values["granularity"].to_numpy(float)
        return [ramp(granularity, number) for number in range(len(rows))], {"granularity"}
    if set(_CHANGE) & set(varying):
        told = {"method", "transition"}
        return [_of_change(row, _methods_change_gradually(rows)) for row in rows], told
    method = str(rows[0].get("method", "none")) if rows else "none"
    different = len(values[list(varying)].drop_duplicates()) if varying else 1
    if method != "none" and different <= len(DASHES):
        return [of_name(method)] * len(rows), {"method"}
    column = varying[0] if varying else None
    known = list(dict.fromkeys(str(row[column]) for row in rows)) if column else [""]
    palette = (BLACK, *COLORS, *OTHERS)
    places = [known.index(str(row[column])) if column else 0 for row in rows]
    return [palette[place % len(palette)] for place in places], {column or ""}


def _methods_change_gradually(rows: Sequence[dict[Any, Any]]) -> bool:
    """Whether methods are combined with gradual change, so that the color is the method's
    alone.
    """
    return any(row.get("method", "none") != "none" and _is_gradual(row) for row in rows)


def _is_gradual(row: dict[Any, Any]) -> bool:
    return row.get("granularity", 1) > 1 or row.get("transition") in ("smoothing", "annealing")


def _of_change(row: dict[Any, Any], by_method: bool) -> str:
    method = row.get("method", "none")
    if method == "none" and not by_method and _is_gradual(row):
        change = str(row.get("transition", ""))
        return OF_CHANGE.get(change) or of_name(change)
    return of_name(method)


def _differs(column: Any, colors: Sequence[Any]) -> bool:
    """Whether a column tells arms of one color apart: a method's own strength does not, if it has
    one value.
    """
    grouped = pd.Series(column.to_numpy()).groupby([str(color) for color in colors])
    return bool((grouped.nunique(dropna=False) > 1).any())


def _dashes(rows: Sequence[dict[Any, Any]], columns: Sequence[str]) -> list[Any]:
    """Each arm's dashes: solid for gradual change where some change is abrupt, and one pattern for
    each other combination of `columns`.
    """
    keys = []
    for row in rows:
        others = tuple(str(row[column]) for column in columns)
        keys.append((not _is_gradual(row), others))
    order = sorted(dict.fromkeys(keys), key=lambda key: key[0])  # gradual ones first
    solid = int(any(not abrupt for abrupt, _ in order))  # which only gradual change has, if any is
    looks = dict.fromkeys(order[:solid], DASHES[0])
    for place, key in enumerate(order[solid:]):
        looks[key] = DASHES[solid:][place % len(DASHES[solid:])]
    return [looks[key] for key in keys]


def ramp(granularity: np.ndarray, number: int) -> Any:
    """Returns the color of one granularity among all: abrupt is black, then from light (coarse) to
    dark (fine).
    """
    import matplotlib

    if granularity[number] == 1:
        return BLACK
    finer = np.unique(granularity[granularity != 1])
    place = 0.5
    if len(finer) > 1:
        place = np.searchsorted(finer, granularity[number]) / (len(finer) - 1)
    return matplotlib.colormaps["viridis"](0.78 - 0.63 * place)
