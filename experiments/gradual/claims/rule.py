"""The rule of experiments/gradual/rules.md: when a claim agrees."""

from typing import Any, NamedTuple

import numpy as np
import scipy.stats

LEVEL = 0.05


class Estimate(NamedTuple):
    """A number per seed, against a bound.

    Attributes:
      values: [seeds] finite.
      mean, low, high: Student's t interval at 95 %; `low` and `high` are NaN for one seed.
      p: of the two-sided t test against the bound; for "within" that of the nearer of two bounds.
      side: +1 if the mean lies on the claim's side, -1 on the other.
    """

    values: np.ndarray
    mean: float
    low: float
    high: float
    p: float
    side: int


def estimate(values: Any, direction: str, bound: float) -> Estimate:
    """Returns the test of a claim about the mean of `values` [seeds].

    Args:
      values: one number per seed.
      direction: ">" or "<", the claim is mean > bound or mean < bound; "within", -bound < mean <
        bound.
      bound: in the unit of the values.

    Raises ValueError for values that are not finite, none at all, or an unknown direction.
    """
    values = np.asarray(values, np.float64)
    if not len(values) or not np.isfinite(values).all():
        raise ValueError(f"values are {values}: allowed are one finite number or more.")
    mean, n = float(values.mean()), len(values)
    error = float(values.std(ddof=1)) / np.sqrt(n) if n > 1 else np.nan
    half = scipy.stats.t.ppf(1 - LEVEL / 2, n - 1) * error if n > 1 else np.nan

    def p_against(limit: float) -> float:
        if n < 2:
            return 1.0
        if error == 0:
            return 1.0 if mean == limit else 0.0
        return float(2 * scipy.stats.t.sf(abs(mean - limit) / error, n - 1))

    if direction == "within":
        near = bound if mean > 0 else -bound
        p, side = p_against(near), 1 if abs(mean) < bound else -1
    elif direction in (">", "<"):
        p, side = p_against(bound), 1 if (mean > bound) == (direction == ">") else -1
    else:
        raise ValueError(f"direction is {direction!r}: allowed are >, < and within.")
    return Estimate(values, mean, float(mean - half), float(mean + half), p, side)


def verdict(found: Estimate, corrected: float, direction: str, bound: float) -> str:
    """Returns "agrees", "disagrees" or "not told", the latter with what single seeds say."""
    if corrected < LEVEL:
        return "agrees" if found.side > 0 else "disagrees"
    values = found.values
    holds = {">": values > bound, "<": values < bound, "within": np.abs(values) < bound}[direction]
    return f"not told ({int(holds.sum())} of {len(values)} seeds for it)"
