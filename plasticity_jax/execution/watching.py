"""The progress bar of a run, and what is said beside it."""

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from plasticity_jax.reporting import metrics

if TYPE_CHECKING:
    import pandas

METHODS = 4  # whose newest mean is shown, of more none


class Bar:
    """A progress bar over the tasks of lanes; says nothing if it is not shown."""

    def __init__(self, shown: Any):
        self._bar = shown
        self._name = ""
        self._diverged: set[int] = set()

    def begins(self, name: str, compiles: bool) -> None:
        """Says which program is next, and that it is compiled first."""
        self._name = name
        self._bar.set_description(f"{name}: compiling" if compiles else name)

    def moves(self, done: int) -> None:
        """Sets how many tasks of lanes are done."""
        if done > self._bar.n:
            self._bar.set_description(self._name)
        self._bar.update(done - self._bar.n)

    def tells(self, rows: "pandas.DataFrame") -> None:
        """Shows what the newest task of each arm says, and warns of lanes that diverge."""
        if self._bar.disable or rows.empty:
            return
        since = rows.loc[~rows["finite"]].groupby("lane")["task"].min()
        lost = set(since.index) - self._diverged
        if lost:
            self._diverged |= lost
            task = max(since[lane] for lane in lost)
            which = ", ".join(map(str, sorted(lost)[:METHODS]))
            more = f" and {len(lost) - METHODS} more" if len(lost) > METHODS else ""
            self._bar.write(f"lane {which}{more} diverged by task {task}", file=sys.stderr)
        known = rows.attrs.get(metrics.KEY) or {}
        judged = next((name for name in known.get("scores", ()) if name in rows), None)
        if judged is None:
            return
        columns = ["granularity", "method"]
        last = rows.groupby(columns)["task"].transform("max")
        newest = rows.loc[rows["task"].eq(last)]
        arms = newest.groupby(columns, sort=False)[judged].mean()
        if len(arms) <= METHODS:
            words = [f"{method} K={grain:g} {mean:.3g}" for (grain, method), mean in arms.items()]
            self._bar.set_postfix_str(f"{judged.replace('_', ' ')}: {', '.join(words)}")


@contextlib.contextmanager
def bar(total: int, shown: bool) -> Iterator[Bar]:
    """Shows a progress bar on standard error while the context lasts, if it is to be `shown`."""
    from tqdm import tqdm

    with tqdm(total=total, unit="lane-task", disable=not shown, smoothing=0.1) as made:
        yield Bar(made)
