"""Whether arms differ, and how many seeds tell it."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from plasticity_jax.reporting import exports, significance, statistics, tables

RANDOM = np.random.default_rng(0)


def made(scores):
    """A table of one task: {method: score of each seed}."""
    rows = []
    for arm, (method, values) in enumerate(scores.items()):
        for seed, value in enumerate(values):
            row = {"lane": 10 * arm + seed, "task": 0, "seed": seed, "method": method}
            rows.append(row | {"finite": True, "online_accuracy": value})
    return pd.DataFrame(rows)


SCORES = {name: RANDOM.uniform(0.2, 0.9, 6) for name in ("none", "l2", "redo", "spectral")}


def test_p_values_are_those_of_scipy_corrected_by_hand():
    table = made({**SCORES, "clip": SCORES["none"], "infer": [0.5]})
    arms = statistics.arms(table, ["method"])
    found = significance.tests(statistics.differences(arms, 0, "online_accuracy", 1), 0)
    raw = [scipy.stats.ttest_rel(SCORES[m], SCORES["none"]).pvalue for m in [*SCORES][1:]]
    np.testing.assert_allclose(found["p"], [np.nan, *raw, 1.0, np.nan])
    np.testing.assert_allclose(found["p_holm"][1:5], significance.holm([*raw, 1.0]))
    deviation = np.std(SCORES["l2"] - SCORES["none"], ddof=1)
    assert found["deviation"][1] == pytest.approx(deviation)
    assert np.isnan(found["p_holm"][[0, 5]]).all()


def test_holm_by_hand():
    # smallest times 4, next times 3, never below the one before, at most 1
    found = significance.holm([0.01, 0.04, 0.03, 0.005])
    assert found == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert significance.holm([0.9, 0.8]) == [1.0, 1.0]
    assert significance.holm([]) == []


def test_a_difference_that_every_seed_has_needs_no_test():
    assert significance.two_sided(0.1, 0.0, 3) == 0.0
    assert significance.two_sided(0.0, 0.0, 3) == 1.0


@pytest.mark.parametrize(("difference", "needed"), [(0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10)])
def test_seeds_are_those_of_the_tables(difference, needed):
    """The usual sample sizes of a paired t test by Cohen's d, at 80 % power and a level of 5 %."""
    assert significance.seeds_needed(difference, 1.0) == needed
    assert significance.seeds_needed(3 * difference, 3.0) == needed


@pytest.mark.parametrize(("shift", "seeds"), [(0.0, 5), (0.7, 8), (2.0, 3), (30.0, 2)])
def test_power_is_that_of_the_noncentral_t_and_of_simulated_studies(shift, seeds):
    found = significance.power(shift, 1.0, seeds)
    edge = scipy.stats.t.ppf(0.975, seeds - 1)
    other = scipy.stats.nct(seeds - 1, shift * np.sqrt(seeds) or 1e-12)
    if shift < 30:  # (where scipy knows it)
        assert found == pytest.approx(other.sf(edge) + other.cdf(-edge), abs=1e-6)
    drawn = RANDOM.normal(shift, 1.0, (20_000, seeds))
    told = scipy.stats.ttest_1samp(drawn, 0.0, axis=1).pvalue < 0.05
    assert found == pytest.approx(told.mean(), abs=0.012)


def test_the_least_number_of_seeds_is_the_least():
    for difference in (0.03, 0.4, 1.3, 5.0, 1000.0):
        needed = significance.seeds_needed(difference, 1.0)
        assert significance.power(difference, 1.0, needed) >= 0.8
        assert needed == 2 or significance.power(difference, 1.0, needed - 1) < 0.8
    assert significance.seeds_needed(1e-9, 1.0) == significance.MOST
    assert significance.seeds_needed(1.0, 0.0) == 2


def test_few_seeds_ask_for_more_to_be_safe():
    """Over many pilots, the cautious number has enough power in four of five."""
    enough = significance.seeds_needed(1.0, 1.0)
    pilots = RANDOM.normal(size=(300, 4)).std(axis=1, ddof=1)
    found = [significance.from_pilot(1.0, deviation, 4) for deviation in pilots]
    assert all(pair.cautious >= pair.about for pair in found)
    # (somewhat more than 80 %, as seeds are whole)
    assert 0.78 < np.mean([pair.cautious >= enough for pair in found]) < 0.92
    assert np.mean([pair.about >= enough for pair in found]) < 0.55


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: significance.power(1, -1.0, 3), "deviation is -1.0: allowed are numbers from 0."),
        (lambda: significance.power(1, 1.0, 1), "seeds are 1: allowed are at least 2."),
        (lambda: significance.power(1, 1.0, 3, 1.0), "level is 1.0: allowed is a share"),
        (lambda: significance.seeds_needed(0.0, 1.0), "difference is 0.0: allowed are numbers"),
        (lambda: significance.seeds_needed(1.0, 1.0, 1.0), "wanted is 1.0: allowed is a share"),
        (lambda: significance.from_pilot(1.0, 1.0, 1), "pairs are 1: allowed are at least 2."),
    ],
)
def test_numbers_that_are_none_are_one_sentence(call, said):
    with pytest.raises(ValueError, match="allowed") as raised:
        call()
    assert str(raised.value).startswith(said)


def test_tables_have_p_values_where_they_are_asked_for():
    table = made({"none": [0.1, 0.2, 0.3], "l2": [0.6, 0.7, 0.81], "redo": [0.2, 0.1, 0.4]})
    plain = tables.final_table(table, ["method"])
    tested = tables.final_table(table, ["method"], tested=True)
    assert "p: paired t test over seeds, corrected for the number of arms (Holm)" in tested
    lines = tested.splitlines()[-4:]
    assert [line.split()[-1] for line in lines[:1]] == ["p"]
    assert lines[2].endswith("< 0.001")
    p = scipy.stats.ttest_rel([0.2, 0.1, 0.4], [0.1, 0.2, 0.3]).pvalue
    assert lines[3].endswith(f"{p:.3f}")
    assert [line[: len(old)] for line, old in zip(lines[2:], plain.splitlines()[-2:], strict=True)]
    assert r"$<$ 0.001 \\" in exports.latex(exports.final(table, ["method"], tested=True))
    found = tables.finals(table, ["method"], tested=True)
    assert found["p_holm"].isna().tolist() == [True, False, False]
    assert "p" not in tables.finals(table, ["method"])
