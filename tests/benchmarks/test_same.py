import pandas as pd
import pytest

from benchmarks import same

NAN, INF = float("nan"), float("inf")
HERE = pd.DataFrame({"name": ["a", "b"], "loss": [0.5, NAN], "lane": [0, 1], "new": [1.0, 2.0]})


@pytest.mark.parametrize(
    ("changes", "agree", "difference"),
    [
        ({}, 6, 0.0),
        ({"name": ["a", "c"]}, 5, 0.0),
        ({"loss": [0.25, NAN]}, 5, 0.25),
        ({"loss": [0.5, 1.0]}, 5, INF),  # a number where there was none
        ({"lane": [0, 3], "loss": [0.5 + 2**-53, NAN]}, 4, 2.0),
    ],
)
def test_values_that_agree_are_counted_in_common_columns(changes, agree, difference):
    there = HERE.drop(columns="new").assign(old=0, **changes)
    assert same.compared(HERE, there) == (6, agree, difference)


def test_tables_of_other_lengths_are_refused():
    with pytest.raises(ValueError, match=r"have 2 and 1 rows: allowed are as many\.$"):
        same.compared(HERE, HERE[:1])
