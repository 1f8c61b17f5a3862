"""Whether a stream shows the effect at all: does the arm without any remedy lose plasticity?

Question: is there, at this scale, a loss of plasticity for remedies to undo?
Command: python -m experiments.disentangling.presence --data_dir=DIR
    --workdir=runs/disentangling_presence --scale=reduced
(--stream=labels, offset, composite, continual or growing for one)
Rule: that of `experiments.presence`, fixed before any figure, with five seeds that no result is
reported of (1000 to 1004). A figure or factorial of a stream without it says that the effect is not
present here.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments import presence
from experiments.disentangling import streams
from plasticity_jax.cli import flags, launcher
from plasticity_jax.storage import writing

FIRST_SEED = 1000


def bare(table: Any) -> Any:
    """Returns the rows of a factorial's table that have no remedy."""
    rows = table[(table["norm"] == "none") & (table["l2.strength"] == 0)]
    rows = rows[rows["head"] == "linear"]
    return rows[rows["granularity"] == rows["granularity"].min()]


def _analysed(name: str, table: Any, values: flags.Values) -> str:
    found = presence.fallen(table, streams.STREAMS[name].metric)
    writing.text(Path(values["workdir"]) / "presence.csv", found.round(6).to_csv(index=False))
    return presence.told(name, found)


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
