"""What `plasticity status` prints."""

import math
import sys
import time
from collections.abc import Sequence

from plasticity_jax.cli import dry_run, folders, launcher
from plasticity_jax.execution.engines import status
from plasticity_jax.execution.engines.status import State, Status
from plasticity_jax.storage import paths

DOC = """Says how far a run is, from its folder alone, on any machine that sees it.

plasticity status DIR [--watch] [--long]

  --watch                              again every two seconds, until nothing waits or runs
  --long                               every slice, however many, those that are done as well
"""

MANY = 20  # slices that are not done, of which more are counted
SECONDS = 2.0  # between two looks with --watch
_CLEAR = "\x1b[H\x1b[2J"


def command(argv: Sequence[str]) -> int:
    """Says how far a run is."""
    own, given = folders.plain(argv, DOC, {"watch": False, "long": False})
    if given is None:
        return 0
    if len(given) != 1:
        raise ValueError(f"{len(given)} folders are given: allowed is one, of a run.")
    folder = paths.expanded(given[0], "workdir")
    with launcher.interruptible():
        if own["watch"]:
            watch(folder, own["long"])
        else:
            launcher.say(text(folder, status.read(folder), own["long"]))
    return 0


def text(workdir: str, found: Status, long: bool = False) -> str:
    """Returns how far a run is: a line on all of it, then one for each slice that runs, failed or
    waits, of many the first; for each slice with `long`.
    """
    lanes = sum(one.lanes for one in found.slices)
    states = (status.DONE, status.RUNNING, status.WAITING, status.FAILED)
    counts = ", ".join(f"{found.count(state)} {state}" for state in states)
    slices = dry_run.amount(len(found.slices), "slice")
    words = [f"{workdir}: {dry_run.amount(lanes, 'lane')} in {slices}", counts]
    diverged = sum(one.diverged for one in found.slices)
    if diverged:
        words.append(f"{dry_run.amount(diverged, 'lane')} diverged")
    stopped = sum(one.stopped for one in found.slices)
    if stopped:
        words.append(f"{dry_run.amount(stopped, 'lane')} stopped")
    if found.goal > max((one.tasks for one in found.slices), default=0):
        words.append(f"further waves up to task {found.goal}")
    left = found.seconds_left()
    if left is not None:
        words.append(f"about {dry_run.duration(left)} left")
    lines = ["; ".join(words)]
    order = {status.FAILED: 0, status.RUNNING: 1, status.WAITING: 2, status.DONE: 3}
    listed = sorted(found.slices, key=lambda one: order[one.state])
    if not long:
        listed = [one for one in listed if one.state != status.DONE]
    shown = listed if long else listed[:MANY]
    if shown:
        lines += ["", _row("slice", "lanes", "tasks", "state", found.metric.replace("_", " "))]
        lines += [_line(one) for one in shown]
    if len(listed) > len(shown):
        lines.append(f"and {len(listed) - len(shown):,} more (--long lists them)")
    return "\n".join(lines)


def watch(workdir: str, long: bool = False) -> None:
    """Prints how far a run is again and again, until nothing of it waits or runs."""
    while True:
        found = status.read(workdir)
        start = _CLEAR if sys.stdout.isatty() else ""
        launcher.say(start + text(workdir, found, long))
        if not found.count(status.RUNNING) + found.count(status.WAITING):
            return
        time.sleep(SECONDS)


def _line(one: State) -> str:
    last = "" if one.last is None or math.isnan(one.last) else f"{one.last:.4g}"
    if last and one.told < one.done:
        last += f" (after task {one.told})"
    beside = [
        last,
        f"{dry_run.amount(one.diverged, 'lane')} diverged" if one.diverged else "",
        f"{dry_run.amount(one.stopped, 'lane')} stopped" if one.stopped else "",
        f"compiling {one.compiling}" if one.compiling else "",
        one.reason,
    ]
    words = "  ".join(word for word in beside if word)
    return _row(one.name, str(one.lanes), f"{one.done} of {one.tasks}", one.state, words)


def _row(name: str, lanes: str, tasks: str, state: str, last: str) -> str:
    return f"{name:16}  {lanes:>5}  {tasks:>11}  {state:7}  {last}".rstrip()
