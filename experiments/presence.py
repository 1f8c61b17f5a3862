"""Whether an effect is there to be undone: does an arm without any remedy lose plasticity?

Rule: fixed before any figure. With five seeds the effect is present if at least four of them fall,
from their best mean over five tasks in a row to their last, by 10 points of accuracy or by a tenth
of the squared error.
"""

from typing import Any

ERROR = "squared_error"  # the metric of which less is better
WINDOW = 5  # tasks in a row
POINTS = 0.10  # of an accuracy
TENTH = 0.10  # of the best squared error
SEEDS = 4 / 5  # that must fall


def fallen(table: Any, metric: str, window: int = WINDOW) -> Any:
    """Returns a row for each seed of one arm: its best mean over `window` tasks in a row (`best`),
    its last (`last`), and whether it fell (`fell`), as pandas.DataFrame.
    """
    import pandas as pd

    better = "min" if metric == ERROR else "max"
    wide = table.pivot(index="task", columns="seed", values=metric)
    means = wide.rolling(min(window, len(wide))).mean().dropna(how="all")
    best, last = means.agg(better), means.iloc[-1]
    lost = last >= (1 + TENTH) * best if better == "min" else best - last >= POINTS
    return pd.DataFrame({"best": best, "last": last, "fell": lost}).reset_index()


def is_present(found: Any) -> bool:
    """Returns whether enough seeds of `fallen` fell."""
    return bool(found["fell"].mean() >= SEEDS)


def told(name: str, found: Any) -> str:
    """Returns the sentence on one stream."""
    word = "present" if is_present(found) else "not present here"
    best, last = found["best"].mean(), found["last"].mean()
    return (
        f"stream {name}: effect {word}: {found['fell'].sum()} of {len(found)} seeds fall, "
        f"from {best:.3g} to {last:.3g} on average."
    )
