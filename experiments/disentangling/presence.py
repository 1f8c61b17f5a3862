"""Whether a stream shows the effect at all: does the arm without any remedy lose plasticity?

Question: is there, at this scale, a loss of plasticity for remedies to undo?
Command: python -m experiments.disentangling.presence --data_dir=DIR
    --workdir=runs/disentangling_presence --scale=reduced
(--stream=labels, offset or composite for one)
Rule: fixed before any figure. With five seeds that no result is reported of (1000 to 1004), the
effect is present if at least four of five seeds fall, from their best mean over five tasks in a row
to their last, by 10 points of accuracy or by a tenth of the squared error. A figure or factorial of
a stream without it says that the effect is not present here.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.disentangling import streams
from plasticity_jax.cli import flags, launcher

WINDOW = 5  # tasks in a row
POINTS = 0.10  # of an accuracy
TENTH = 0.10  # of the best squared error
SEEDS = 4 / 5  # that must fall
FIRST_SEED = 1000


def fallen(table: Any, metric: str, window: int = WINDOW) -> Any:
    """Returns a row for each seed of one arm: its best mean over `window` tasks in a row (`best`),
    its last (`last`), and whether it fell (`fell`), as pandas.DataFrame.
    """
    import pandas as pd

    better = "min" if metric == streams.ERROR else "max"
    wide = table.pivot(index="task", columns="seed", values=metric)
    means = wide.rolling(min(window, len(wide))).mean().dropna(how="all")
    best, last = means.agg(better), means.iloc[-1]
    lost = last >= (1 + TENTH) * best if better == "min" else best - last >= POINTS
    return pd.DataFrame({"best": best, "last": last, "fell": lost}).reset_index()


def bare(table: Any) -> Any:
    """Returns the rows of a factorial's table that have no remedy."""
    rows = table[(table["norm"] == "none") & (table["l2.strength"] == 0)]
    rows = rows[rows["head"] == "linear"]
    return rows[rows["granularity"] == rows["granularity"].min()]


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


def _analysed(name: str, table: Any, values: flags.Values) -> str:
    found = fallen(table, streams.STREAMS[name].metric)
    found.round(6).to_csv(Path(values["workdir"]) / "presence.csv", index=False)
    return told(name, found)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the arm without remedies on each stream; returns the exit code."""

    def experiment(name: str, scale: str, doc: str) -> launcher.Experiment:
        stream = streams.STREAMS[name]
        settings = {**streams.defaults(stream, scale), "first_seed": FIRST_SEED}
        return launcher.Experiment(
            doc,
            settings,
            [{"norm": "none", "method": "none", "head": "linear"}],
            title=f"No remedy: {streams.title(stream)}",
            metric=stream.metric,
            then=lambda table, columns, values: _analysed(name, table, values),
        )

    return streams.launch(__doc__, experiment, argv)


if __name__ == "__main__":
    sys.exit(main())
