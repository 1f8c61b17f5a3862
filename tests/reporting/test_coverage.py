"""How often intervals hold the mean: what documents and pages say of them, simulated."""

import numpy as np
import pytest

from plasticity_jax.reporting import over_seeds

STUDIES = 4000


@pytest.mark.parametrize(("seeds", "held"), [(3, 0.75), (10, 0.89), (20, 0.92)])
def test_how_often_intervals_hold_the_mean(seeds, held):
    """Of normally distributed seeds with mean 0; four standard errors of the simulation are about
    two points.
    """
    drawn = np.random.default_rng(0).normal(size=(seeds, STUDIES))
    found = over_seeds.statistics(drawn)
    bootstrap = np.mean((found.low < 0) & (found.high > 0))
    student = np.mean((found.t_low < 0) & (found.t_high > 0))
    assert bootstrap == pytest.approx(held, abs=0.02)
    assert student == pytest.approx(0.95, abs=0.015)
