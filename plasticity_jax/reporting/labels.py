"""What an arm is called in tables and figures."""

import collections
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from plasticity_jax import spec

_TRANSITIONS = {
    "output": "output interpolation",
    "input": "input interpolation",
    "smoothing": "constant smoothing",
    "annealing": "annealed smoothing",
    "sampling": "task sampling",
}
METHODS = {
    "l2": "L2",
    "l2_init": "L2 Init",
    "spectral": "Spectral",
    "shrink_and_perturb": "Shrink & Perturb",
    "redo": "ReDo",
    "infer": "InFeR",
    "clip": "gradient clipping",
    "continual_backprop": "Continual Backprop",
}
"""Proper names of methods; the others go by their own name's words."""

_CHANGE = ("granularity", "transition", "method")  # named in words of their own


def of_arms(values: pd.DataFrame) -> list[str]:
    """Returns a short, distinct label for each row of `values`, the arm columns of one arm a row.

    Only what varies between arms is named: the method, the change ("abrupt" for granularity 1, else
    such as "task sampling, K = 20"), then other settings. Method "none" goes without saying where
    something else is named.
    """
    # What most arms have goes without saying, and a number that only some arms have, such as a
    # method's strength: both are named only where labels coincide without them.
    labels: list[str] = []
    for brief, thorough in ((True, False), (False, False), (False, True)):
        varying = [
            str(c)
            for c in values
            if len((values[c] if thorough else values[c].dropna()).drop_duplicates()) > 1
        ]
        usual = (
            {c: _majority(values[c].tolist()) for c in varying if c not in _CHANGE} if brief else {}
        )
        labels = [_label(row, varying, thorough, usual) for row in values.to_dict("records")]
        if len(set(labels)) == len(labels):
            break
    return labels


def of_rows(rows: pd.DataFrame, columns: Sequence[str]) -> list[str]:
    """Returns what the arm of each row is called, where `columns` tell arms apart."""
    arms = rows.groupby(list(columns), dropna=False, sort=False).ngroup()
    names = of_arms(rows.loc[~arms.duplicated(), list(columns)])
    return [names[arm] for arm in arms]


def method_name(method: str) -> str:
    """Returns a method, or several joined by +, in words: "Shrink & Perturb", "L2 + ReDo"."""
    parts = method.split("+")
    return " + ".join(METHODS.get(part, part.replace("_", " ")) for part in parts)


def _majority(values: list[Any]) -> Any:
    """The value that more than half of the arms have, or None."""
    (value, count), *_ = collections.Counter(values).most_common(1)
    return value if len(values) > 2 and count > len(values) / 2 else None


def _label(arm: dict[Any, Any], varying: list[str], thorough: bool, usual: dict[str, Any]) -> str:
    change = [c for c in ("granularity", "transition") if c in arm]
    # A single arm has nothing that varies; its change and method then say best what it is.
    parts = (
        [_change(arm, thorough)]
        if change and (not varying or any(c in varying for c in change))
        else []
    )
    for column in varying:
        value = arm[column]
        if (
            column in _CHANGE
            or pd.isna(value)
            or (usual.get(column) is not None and value == usual[column])
        ):
            continue
        if column.endswith(".change") and isinstance(value, bool | np.bool_):  # of an environment
            parts.append("changing task" if value else "unchanging task")
        elif isinstance(value, bool | np.bool_):
            parts.append(f"{column}={str(value).lower()}")
        elif not isinstance(value, str):
            text = f"{value:g}" if float(f"{value:g}") == value else f"{value!r}"
            parts.append(f"{column}={spec.word(column, value, text)}")
        else:
            parts.append(f"no {column}" if value in ("none", "") else value.replace("_", " "))
    method = arm.get("method")
    if (
        isinstance(method, str)
        and (not varying or "method" in varying)
        and not (method == "none" and parts)
    ):
        parts.insert(0, method_name(method))
    return ", ".join(parts) or (method_name(method) if isinstance(method, str) else "all lanes")


def named(usual: Sequence[str], names: Sequence[str] | None) -> list[str]:
    """Returns what arms are called: `names`, or what they usually are if there are none. Raises
    ValueError for more or fewer names than arms.
    """
    if names is None:
        return list(usual)
    if len(names) != len(usual):
        raise ValueError(
            f"arm_names are {len(names)}: allowed are as many as arms, {len(usual)}, in this "
            f"order: {'; '.join(usual)}."
        )
    return list(names)


def _change(arm: dict[Any, Any], thorough: bool) -> str:
    transition = arm.get("transition")
    words = (
        _TRANSITIONS.get(transition, transition.replace("_", " "))
        if isinstance(transition, str)
        else ""
    )
    granularity = arm.get("granularity")
    if granularity is None or pd.isna(granularity):
        return words or "no transition"
    if granularity == 1:  # an abrupt change is the same whatever the transition
        return f"abrupt ({words})" if thorough and words else "abrupt"
    return f"{words}, K = {granularity:g}" if words else f"K = {granularity:g}"
