"""Statistics over several games (or tasks of any kind) with a few seeds each.

Means over few seeds hang on single runs, and medians over games on single games. Agarwal et al.
2021 take the interquartile mean of all runs of all games, and intervals of a bootstrap that draws
seeds anew within each game, so that each game keeps its share.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from plasticity_jax.reporting import over_seeds


class Interval(NamedTuple):
    """An estimate with the ends of its interval, numbers or arrays of one shape."""

    value: Any
    low: Any
    high: Any


def interquartile_mean(
    scores: Sequence[Any], level: float = 0.95, resamples: int = 2000
) -> Interval:
    """Returns the interquartile mean of the runs of all games together.

    `scores` has for each game its runs' scores, made comparable between games beforehand, such as
    0 for a player by chance and 1 for a reference. The interval is the percentile bootstrap's,
    stratified by games, always with the same draws; of one run a game it has no width. Source:
    Agarwal et al. 2021. Deviation: a quarter of the weight is cut off each end exactly, runs on the
    edge counting in part, where theirs cuts whole runs: the same where 4 divides the number of
    runs. Raises ValueError for no games, a game without runs, or a score that is not finite.
    """
    games = _checked(scores, level, resamples)
    value = over_seeds.interquartile(np.concatenate(games)[:, None])[0]
    drawn = over_seeds.interquartile(np.concatenate(_drawn(games, resamples)))
    return Interval(float(value), *map(float, _ends(drawn, level)))


def profile(
    scores: Sequence[Any], above: Any, level: float = 0.95, resamples: int = 2000
) -> Interval:
    """Returns the performance profile: which share of all runs has a score above each of `above`
    [T], arrays [T].

    Games count alike whatever their number of runs. Intervals are as in `interquartile_mean`, point
    by point. Source: Agarwal et al. 2021, run-score distributions. Raises ValueError as
    `interquartile_mean` does.
    """
    games = _checked(scores, level, resamples)
    edges = np.asarray(above, np.float64).reshape(-1)
    value = np.mean([_shares(game[:, None], edges)[0] for game in games], axis=0)
    drawn = np.mean([_shares(game, edges) for game in _drawn(games, resamples)], axis=0)
    return Interval(value, *_ends(drawn, level))


def _shares(runs: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The share of runs [n, R] above each edge, [R, T]."""
    return (runs[:, :, None] > edges[None, None]).mean(axis=0)


def _drawn(games: Sequence[np.ndarray], resamples: int) -> list[np.ndarray]:
    """Runs of each game, as many as it has, drawn with replacement: [n, resamples]."""
    random = np.random.default_rng(0)
    return [game[random.integers(0, len(game), (len(game), resamples))] for game in games]


def _ends(drawn: np.ndarray, level: float) -> np.ndarray:
    return np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)


def _checked(scores: Sequence[Any], level: float, resamples: int) -> list[np.ndarray]:
    games = [np.asarray(game, np.float64).reshape(-1) for game in scores]
    if not games or not all(map(len, games)):
        raise ValueError(
            f"scores are of {len(games)} games with {[len(game) for game in games]} runs: allowed "
            "are one or more of each."
        )
    if not all(np.isfinite(game).all() for game in games):
        raise ValueError("scores have a value that is not finite: allowed are finite numbers.")
    if not 0 < level < 1:
        raise ValueError(f"level is {level!r}: allowed is a share between 0 and 1, such as 0.95.")
    if resamples < 1:
        raise ValueError(f"resamples is {resamples!r}: allowed is at least 1.")
    return games
