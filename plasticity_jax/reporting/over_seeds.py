"""Statistics over seeds of arrays: means, bootstrap and Student's t intervals."""

import functools
import math
from typing import Any, NamedTuple

import numpy as np

ENOUGH = 10
"""With fewer seeds a percentile bootstrap is clearly too narrow (see `statistics`), and the t
interval is shown.
"""


class Statistics(NamedTuple):
    """Statistics over seeds, one array [...] each; NaN where too few seeds are known.

    Attributes:
      count: number of seeds whose value is finite; all else is over these.
      mean, minimum, maximum: NaN only if there is none.
      standard_error: sample standard deviation (n - 1) over sqrt(n); NaN for one seed, which tells
        nothing of spread.
      low, high: ends of the bootstrap interval of the mean; NaN for one seed.
      interquartile_mean: mean of the middle half of the sorted values.
      t_low, t_high: ends of Student's t interval of the mean; NaN for one seed.
    """

    count: np.ndarray
    mean: np.ndarray
    minimum: np.ndarray
    maximum: np.ndarray
    standard_error: np.ndarray
    low: np.ndarray
    high: np.ndarray
    interquartile_mean: np.ndarray
    t_low: np.ndarray
    t_high: np.ndarray


def statistics(values: Any, level: float = 0.95, resamples: int = 2000) -> Statistics:
    """Returns the statistics over the leading axis of `values` [seeds, ...], as arrays [...].

    `low` and `high` are the percentile bootstrap of the mean over seeds, always with the same
    draws. From few seeds it is too narrow, with three exactly from the smallest to the largest: for
    normal data a 95 % interval holds the true mean in about 75 % of cases with 3 seeds, 83 % with
    5, 89 % with 10, 92 % with 20. `t_low` and `t_high` are Student's (1908) interval, mean ± t(n -
    1) standard errors, which holds it in 95 % with any number of seeds from 2 if the data are
    normal; it knows nothing of the range of a metric, so one of a share may reach below 0 or above
    1. The interquartile mean cuts exactly a quarter of the weight off each end, seeds on the edge
    counting in part, so it differs from `scipy.stats.trim_mean(_, 0.25)` unless 4 divides the
    number of seeds. Raises ValueError for values without a leading axis, a level outside (0, 1), or
    fewer than one resample.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim == 0:
        raise ValueError("values must have a leading axis of seeds, not be a single number.")
    if not 0 < level < 1:
        raise ValueError(f"level is {level!r}: allowed is a share between 0 and 1, such as 0.95.")
    if resamples < 1:
        raise ValueError(f"resamples is {resamples!r}: allowed is at least 1.")
    shape = values.shape[1:]
    flat = values.reshape(len(values), math.prod(shape))
    known = np.isfinite(flat)
    out = np.full((len(Statistics._fields), flat.shape[1]), np.nan)
    out[0] = known.sum(axis=0)
    if known.any():
        # Positions that lack the same seeds are computed together; nearly always all seeds are
        # known.
        patterns, which = np.unique(known, axis=1, return_inverse=True)
        for number, seeds in enumerate(patterns.T):
            if seeds.any():
                positions = which.reshape(-1) == number
                out[1:, positions] = _complete(flat[np.ix_(seeds, positions)], level, resamples)
    count, *rest = (row.reshape(shape) for row in out)
    return Statistics(count.astype(np.int64), *rest)


def _complete(values: np.ndarray, level: float, resamples: int) -> np.ndarray:
    """All statistics but the count, [9, P], of finite values [n, P]."""
    n = len(values)
    mean = values.mean(axis=0)
    middle = interquartile(values)
    error = low = high = half = np.full_like(mean, np.nan)
    if n > 1:
        error = values.std(axis=0, ddof=1) / math.sqrt(n)
        low, high = mean + _bootstrap(values - mean, level, resamples)
        import scipy.special  # (a tenth of the time to import this package)

        half = scipy.special.stdtrit(n - 1, (1 + level) / 2) * error
    extremes = values.min(axis=0), values.max(axis=0)
    return np.stack([mean, *extremes, error, low, high, middle, mean - half, mean + half])


def interquartile(values: np.ndarray) -> np.ndarray:
    """Returns the mean of the middle half of the sorted values [n, P], [P]."""
    n = len(values)
    # Sorted value i stands for the stretch [i, i + 1] of [0, n]; the middle half is [n/4, 3n/4].
    middle = np.clip(
        np.minimum(np.arange(n) + 1, 0.75 * n) - np.maximum(np.arange(n), 0.25 * n), 0, None
    )
    return middle @ np.sort(values, axis=0) / (n / 2)


def _bootstrap(values: np.ndarray, level: float, resamples: int) -> np.ndarray:
    """Quantiles [2, P] of the means of resamples of values [n, P]; the draws are the same for every
    position.
    """
    n, positions = values.shape
    share = _resampled(n, resamples)
    tails = [(1 - level) / 2, (1 + level) / 2]
    width = max(1, 4_000_000 // resamples)  # positions at a time, which bounds the memory
    parts = [
        np.quantile(share @ values[:, i : i + width], tails, axis=0)
        for i in range(0, positions, width)
    ]
    return np.concatenate(parts, axis=1)


@functools.lru_cache(maxsize=8)
def _resampled(n: int, resamples: int) -> np.ndarray:
    """The share that each of n seeds has in each resample, [resamples, n]."""
    drawn = np.random.default_rng(0).integers(0, n, (resamples, n))
    share = np.stack([(drawn == seed).mean(axis=1) for seed in range(n)], axis=1)
    share.flags.writeable = False  # (it is kept for the next call)
    return share
