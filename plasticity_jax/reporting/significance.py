"""Whether arms differ: paired t tests over seeds, corrected for how many there are, and the number
of seeds that would tell a difference of a given size.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy.special

POWER = 0.8
"""The chance at which a difference is to be told, as is usual."""
LEVEL = 0.05
"""The chance at which a difference is told that is not there, of both sides together."""
MOST = 1_000_000
"""Seeds beyond which none are counted."""
PILOT = 0.8
"""Browne's (1995) level: with the deviation that it gives, most studies have the power wanted."""


def tests(differences: pd.DataFrame, baseline: int) -> pd.DataFrame:
    """Returns one row per arm, numbered as in `differences`: `pairs` (seeds), `deviation` of the
    difference over seeds, `p` of the two-sided paired t test, and `p_holm`, which is corrected for
    the number of arms that are tested.

    `differences` are `statistics.differences` to the arm of number `baseline`, whose own row is
    empty, as is that of an arm with fewer than two pairs. A difference that is the same for every
    seed has p 0, or 1 where it is 0. The t test takes differences of single seeds to be normal,
    which few seeds cannot show. Sources: Student 1908; Holm 1979.
    """
    count = differences["count"].to_numpy()
    mean, error = (differences[name].to_numpy(float) for name in ("mean", "standard_error"))
    compared = (count > 1) & (np.arange(len(count)) != baseline)
    p = np.full(len(count), np.nan)
    for arm in np.flatnonzero(compared):
        p[arm] = two_sided(mean[arm], error[arm], int(count[arm]))
    corrected = np.full(len(count), np.nan)
    corrected[compared] = holm(p[compared].tolist())
    deviation = np.where(compared, error * np.sqrt(count), np.nan)
    columns = {"pairs": count, "deviation": deviation, "p": p, "p_holm": corrected}
    return pd.DataFrame(columns, index=differences.index)


def two_sided(mean: float, error: float, count: int) -> float:
    """Returns p of Student's t test that a mean of `count` values with this standard error is 0."""
    if error == 0:
        return 1.0 if mean == 0 else 0.0
    return float(2 * scipy.special.stdtr(count - 1, -abs(mean) / error))


def holm(p: Sequence[float]) -> list[float]:
    """Returns p values corrected for their number, in their order. Source: Holm 1979."""
    corrected = np.zeros(len(p))
    running = 0.0
    for rank, index in enumerate(np.argsort(p, kind="stable")):
        running = max(running, min(1.0, (len(p) - rank) * p[index]))
        corrected[index] = running
    return corrected.tolist()


def power(difference: float, deviation: float, seeds: int, level: float = LEVEL) -> float:
    """Returns the chance that a paired t test of so many seeds tells a true difference, two-sided.

    `deviation` is the standard deviation of the difference over seeds, in its unit. The test's
    statistic has a noncentral t distribution with seeds - 1 degrees of freedom. Raises ValueError
    for a deviation below 0, fewer than 2 seeds, or a level outside (0, 1).
    """
    if not deviation >= 0:
        raise ValueError(f"deviation is {deviation!r}: allowed are numbers from 0.")
    if seeds < 2:
        raise ValueError(f"seeds are {seeds!r}: allowed are at least 2.")
    if not 0 < level < 1:
        raise ValueError(f"level is {level!r}: allowed is a share between 0 and 1, such as 0.05.")
    if deviation == 0:
        return 1.0 if difference else level
    degrees = seeds - 1
    critical = float(scipy.special.stdtrit(degrees, 1 - level / 2))
    shift = abs(difference) / deviation * math.sqrt(seeds)
    if shift > 20 * critical:  # (nothing is left to lose, and scipy's series ends somewhere)
        return 1.0
    within = scipy.special.nctdtr(degrees, shift, critical)
    # that the statistic lies above minus the critical value, by its mirror image
    above = scipy.special.nctdtr(degrees, -shift, critical)
    return float((1 - within) + (1 - above))


def seeds_needed(
    difference: float, deviation: float, wanted: float = POWER, level: float = LEVEL
) -> int:
    """Returns the least number of seeds, at least 2, with which a paired t test tells a true
    difference with the chance `wanted`; `MOST` where it takes more than these. Raises ValueError
    for a difference that is not above 0, a power outside (level, 1), and as `power`.
    """
    if not (difference > 0 and math.isfinite(difference)):
        raise ValueError(f"difference is {difference!r}: allowed are numbers above 0.")
    if not level < wanted < 1:
        raise ValueError(f"wanted is {wanted!r}: allowed is a share between {level} and 1.")

    def enough(seeds: int) -> bool:
        return power(difference, deviation, seeds, level) >= wanted

    high = 2
    while not enough(high):
        if high >= MOST:
            return MOST
        high *= 2
    low = high // 2  # (which is not enough, or below 2)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) or middle < 2 else (middle, high)
    return min(high, MOST)


class Seeds(NamedTuple):
    """How many seeds tell a difference.

    Attributes:
      about: with the deviation that was found.
      cautious: with the upper end of its one-sided 80 % interval, as Browne 1995 advises, since a
        deviation from few seeds is often found too small.
    """

    about: int
    cautious: int


def from_pilot(difference: float, deviation: float, pairs: int) -> Seeds:
    """Returns how many seeds tell `difference` at 5 % with a chance of 80 %, where `pairs` seeds
    gave this deviation of the difference.

    Source: Browne 1995. Raises ValueError as `seeds_needed`, and for fewer than 2 pairs.
    """
    if pairs < 2:
        raise ValueError(f"pairs are {pairs!r}: allowed are at least 2.")
    degrees = pairs - 1
    low = float(scipy.special.chdtri(degrees, PILOT))  # below which 1 - PILOT of it lies
    upper = deviation * math.sqrt(degrees / low)
    return Seeds(seeds_needed(difference, deviation), seeds_needed(difference, upper))
