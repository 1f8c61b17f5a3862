"""The figure that is drawn as a run goes takes at most a hundredth of its time."""

import pandas as pd
import pytest

from plasticity_jax.cli import watching
from plasticity_jax.storage import table

HOURS = 3600.0
TASK = 7.0  # seconds


@pytest.mark.parametrize(
    ("first", "grows"), [(0.5, 1.0), (3.0, 1.0), (0.5, 1.2), (40.0, 1.0), (40.0, 0.5)]
)
def test_it_takes_a_hundredth_of_the_time(first, grows, monkeypatch, tmp_path):
    """Of a run of a day, by a clock of its own; also where each takes longer than the last one, or
    the first takes far longer than is thought of one.
    """
    now, costs = [1000.0], []

    def draw(_):
        costs.append(first * grows ** len(costs))
        now[0] += costs[-1]

    monkeypatch.setattr(watching.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(table, "read", lambda path: pd.DataFrame())
    watchers = watching.Watchers({"tracker": None, "workdir": str(tmp_path)}, (), draw)
    while (passed := now[0] - 1000.0) < 24 * HOURS:
        before = len(costs)
        watchers(pd.DataFrame())
        now[0] += TASK
        if len(costs) > before and (len(costs) > 1 or first <= watching._AT_FIRST):
            passed = now[0] - 1000.0
            # (what the last one took longer than the one before it is not foreseen)
            foreseen = sum(costs) - max(0.0, costs[-1] - [first, *costs[:-1]][-1])
            assert foreseen <= 0.01 * passed
    assert sum(costs) <= 0.01 * passed * max(grows, 1.0)
    # it is drawn, and often where that costs little
    assert len(costs) >= 10


def test_a_short_run_draws_none(monkeypatch, tmp_path):
    """The one at its end is enough."""
    watchers = watching.Watchers({"tracker": None, "workdir": str(tmp_path)}, (), pytest.fail)
    watchers(pd.DataFrame())
