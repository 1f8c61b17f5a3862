"""Statistics over games: interquartile means and profiles, against scipy and loops."""

import numpy as np
import pytest
from scipy import stats

from plasticity_jax.reporting import over_games


def scores(games=3, seeds=8):
    random = np.random.default_rng(0)
    return [random.normal(game, 1 + game, seeds) for game in range(games)]


def test_the_mean_is_that_of_the_middle_half_of_all_runs():
    given = scores()
    found = over_games.interquartile_mean(given)
    assert found.value == pytest.approx(stats.trim_mean(np.concatenate(given), 0.25))
    uneven = [[0.0, 1.0, 2.0], [10.0, 11.0]]
    # of 5 runs 1.25 are cut at each end: 1 counts 0.75, 2 whole, 10 counts 0.75
    wanted = (0.75 * 1 + 2 + 0.75 * 10) / 2.5
    assert over_games.interquartile_mean(uneven).value == pytest.approx(wanted)


def test_the_interval_draws_seeds_within_games():
    given, random = scores(), np.random.default_rng(5)
    means = []
    for _ in range(3000):
        runs = [game[random.integers(0, len(game), len(game))] for game in given]
        means.append(stats.trim_mean(np.concatenate(runs), 0.25))
    found = over_games.interquartile_mean(given, level=0.9)
    np.testing.assert_allclose([found.low, found.high], np.quantile(means, [0.05, 0.95]), atol=0.08)
    # with one value in each game nothing is left to chance, however far games are apart
    alone = over_games.interquartile_mean([np.zeros(4), np.full(4, 100.0)])
    assert alone.low == alone.high == alone.value == 50


def test_a_profile_counts_runs_above_a_score():
    given, edges = [[0.0, 1.0], [1.0, 2.0, 3.0, 4.0]], [-1.0, 1.0, 2.5, 9.0]
    found = over_games.profile(given, edges)
    np.testing.assert_allclose(found.value, [1, (0 + 3 / 4) / 2, (0 + 2 / 4) / 2, 0])
    assert (found.low <= found.value).all()
    assert (found.value <= found.high).all()
    assert found.low[0] == found.high[0] == 1
    assert 0 < found.high[2] - found.low[2] < 1


REFUSED = {
    "no games": (([],), "scores are of 0 games"),
    "a game without runs": (([[1.0], []],), r"scores are of 2 games with \[1, 0\] runs"),
    "no number": (([[1.0, np.nan]],), "scores have a value that is not finite"),
    "no level": (([[1.0]], 1.0), r"level is 1\.0: allowed"),
    "no resamples": (([[1.0]], 0.9, 0), "resamples is 0: allowed"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_is_no_set_of_scores_is_refused(why):
    arguments, says = REFUSED[why]
    with pytest.raises(ValueError, match=rf"^{says}.*\.$"):
        over_games.interquartile_mean(*arguments)
