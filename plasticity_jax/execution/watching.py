"""The progress bar of a run, and what is said beside it."""

import contextlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from plasticity_jax.execution import rows as rows_
from plasticity_jax.execution.slices import Slice
from plasticity_jax.reporting import labels, metrics
from plasticity_jax.spec import Spec

if TYPE_CHECKING:
    import pandas

MANY = 4  # arms, lanes or programs that are named, of more some or how many


class Bar:
    """A progress bar over the tasks of lanes, whose arms have `names` by lane; says nothing if it
    is not shown.
    """

    def __init__(self, shown: Any, names: Mapping[int, str]):
        self._bar, self._names = shown, names
        self._diverged: set[int] = set()

    @property
    def shown(self) -> bool:
        """Whether anybody sees it."""
        return not self._bar.disable

    def begins(self, name: str, compiling: Iterable[str] = ()) -> None:
        """Says what goes on, and what is compiled for it, in words; `compiled` makes them."""
        words = _listed(list(dict.fromkeys(filter(None, compiling))))
        self._bar.set_description(f"{name}: compiling {words}" if words else name)

    def moves(self, done: int) -> None:
        """Sets how many tasks of lanes are done."""
        self._bar.update(done - self._bar.n)

    def tells(self, rows: "pandas.DataFrame") -> None:
        """Shows what the newest task of each arm says, and warns of lanes that diverge."""
        if not self.shown or rows.empty:
            return
        since = rows.loc[~rows["finite"]].groupby("lane")["task"].min()
        lost = set(since.index) - self._diverged
        if lost:
            self._diverged |= lost
            task = max(since[lane] for lane in lost)
            which = _listed(list(map(str, sorted(lost))))
            with contextlib.suppress(OSError):  # (as where a log is on a full disk)
                self._bar.write(f"lane {which} diverged by task {task}", file=sys.stderr)
        known = rows.attrs.get(metrics.KEY) or {}
        judged = next((name for name in known.get("scores", ()) if name in rows), None)
        if judged is None:
            return
        arm = rows["lane"].map(self._names.get).to_numpy()
        newest = rows["task"].eq(rows.groupby(arm)["task"].transform("max")).to_numpy()
        arms = rows.loc[newest].groupby(arm[newest], sort=False)[judged].mean()
        if len(arms) <= MANY:
            said = ", ".join(f"{mean:.3g} ({name})" for name, mean in arms.items())
        else:
            ordered = arms.sort_values(na_position="first")
            least, most = (f"{ordered.iloc[n]:.3g} ({ordered.index[n]})" for n in (0, -1))
            said = f"from {least} to {most} in {len(arms)} arms"
        self._bar.set_postfix_str(f"{judged.replace('_', ' ')}: {said}")


def _listed(words: Sequence[str]) -> str:
    """Words one after another, of many the first and how many more there are."""
    more = f" and {len(words) - MANY} more" if len(words) > MANY else ""
    return ", ".join(words[:MANY]) + more


def compiled(spec: Spec) -> str:
    """Returns in words what is compiled for a Spec."""
    method = "" if spec.method == "none" else f" with {labels.method_name(spec.method)}"
    return f"{spec.model}{method}"


@contextlib.contextmanager
def bar(every: Sequence[Slice], shown: bool) -> Iterator[Bar]:
    """Shows a progress bar over the tasks of slices' lanes on standard error while the context
    lasts, if it is to be `shown`.
    """
    from tqdm import tqdm

    programs, numbers = [one.program for one in every], [one.numbers for one in every]
    names = rows_.arm_names(programs, numbers) if shown and every else {}
    total = sum(len(one.numbers) * one.program.spec.tasks for one in every)
    with tqdm(total=total, unit="lane-task", disable=not shown, smoothing=0.1) as made:
        yield Bar(made, names)
