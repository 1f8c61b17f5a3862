"""Rivals: programs that are timed against each other, each in its own processes, in rotated
alternation.
"""

import functools
import json
import os
import select
import statistics
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

PIECE = 0.8  # seconds that a rival works when it is its turn, about
PATIENCE = 300  # seconds to wait for an answer


class Work(NamedTuple):
    """What one process does: a name in `worker.WORK` and its settings (JSON types)."""

    kind: str
    settings: Mapping[str, Any] = {}


class Rival(NamedTuple):
    """A competitor: one process for each of `works`, all at work at the same time when it is its
    turn.

    Attributes:
      works: what each process does; their rates are added.
      piece: seconds of a turn, about. None: a turn is a single call of the work, however long.
      rehearsed: does its turn twice, of which the second counts. For work that needs GBs: a machine
        that takes memory back from a process that waits lets it pay for every page again, once,
        where a run of many steps hardly notices.
    """

    works: tuple[Work, ...]
    piece: float | None = PIECE
    rehearsed: bool = False


def rival(
    kind: str,
    piece: float | None = PIECE,
    processes: int = 1,
    pinned: bool = False,
    rehearsed: bool = False,
    **settings: Any,
) -> Rival:
    """Returns the rival whose `processes` processes all do `kind` with `settings`; `pinned`: each
    on a core of its own.
    """
    places = [{"core": number} if pinned else {} for number in range(processes)]
    return Rival(tuple(Work(kind, {**settings, **place}) for place in places), piece, rehearsed)


class Figure(NamedTuple):
    """One line of the report.

    Attributes:
      part, what: where it belongs, and what was measured.
      values: one for each round.
      unit: "x" (a ratio), "%" (a share, kept as a fraction), "s", "/s", or anything to print behind
        the number.
      at_least, at_most: what is to be reached, in the unit of `values`; neither: for information.
    """

    part: str
    what: str
    values: Sequence[float]
    unit: str = "x"
    at_least: float | None = None
    at_most: float | None = None

    @property
    def median(self) -> float:
        """Median over rounds."""
        return statistics.median(self.values)

    @property
    def met(self) -> bool | None:
        """Whether the median reaches what is to be reached; None if nothing is."""
        if self.at_least is None and self.at_most is None:
            return None
        return (self.at_least is None or self.median >= self.at_least) and (
            self.at_most is None or self.median <= self.at_most
        )


class _Process:
    """A worker process; it sleeps in a read from its standard input while it is not its turn."""

    def __init__(self, work: Work):
        command = [
            sys.executable,
            "-m",
            "benchmarks.worker",
            work.kind,
            json.dumps(dict(work.settings)),
        ]
        self.command = " ".join(command)
        self.core: int | None = work.settings.get("core")
        # on a GPU jax would reserve most of its memory for every process, and many wait at the same
        # time
        environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", **os.environ}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def send(self, repeats: int) -> None:
        assert self.process.stdin
        self.process.stdin.write(f"{repeats}\n")
        self.process.stdin.flush()

    def receive(self) -> dict[str, float]:
        assert self.process.stdout
        answered = select.select([self.process.stdout], [], [], PATIENCE)[0]
        line = self.process.stdout.readline() if answered else ""
        if not line:
            fault = (
                f"ended with exit code {self.process.wait()}"
                if answered
                else f"says nothing for {PATIENCE} s"
            )
            raise RuntimeError(f"a worker {fault}: {self.command}")
        return json.loads(line)

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def alternate(rivals: Mapping[str, Rival], rounds: int) -> dict[str, list[float]]:
    """Returns {name: [rounds] work per second}; in each round every rival has one turn, in another
    order each time.
    """
    say(f"  starting {sum(len(r.works) for r in rivals.values())} processes: {', '.join(rivals)}")
    processes: dict[str, list[_Process]] = {}
    rates: dict[str, list[float]] = {name: [] for name in rivals}
    began = time.perf_counter()
    try:
        _start(rivals, processes)
        say(f"  started in {time.perf_counter() - began:.0f} s")
        repeats = {name: 1 for name in rivals}
        for name, one in rivals.items():
            if one.piece is not None:
                seconds = max(answer["seconds"] for answer in _turn(processes[name], 1))
                repeats[name] = max(1, round(one.piece / seconds))
        for number in range(rounds):
            for name in order(list(rivals), number):
                if rivals[name].rehearsed:
                    _turn(processes[name], repeats[name])
                answers = _turn(processes[name], repeats[name])
                rates[name].append(sum(answer["work"] / answer["seconds"] for answer in answers))
            shown = ", ".join(f"{name} {rates[name][-1]:,.4g}/s" for name in rivals)
            say(f"  round {number + 1} of {rounds}: {shown}")
    finally:
        for group in processes.values():
            for process in group:
                process.close()
    return rates


def _start(rivals: Mapping[str, Rival], processes: dict[str, list[_Process]]) -> None:
    """Puts every rival's processes, warmed up, into `processes`, which holds those started so far
    if one of them fails.

    As many warm up at a time as there are cores: more would compile no faster and need more memory.
    """
    waiting = [(name, work) for name, one in rivals.items() for work in one.works]
    warming: dict[Any, _Process] = {}
    while waiting or warming:
        while waiting and len(warming) < cores():
            name, work = waiting.pop(
                _next([work for _, work in waiting], {p.core for p in warming.values()})
            )
            process = _Process(work)
            processes.setdefault(name, []).append(process)
            warming[process.process.stdout] = process
        ready = select.select([*warming], [], [], PATIENCE)[0]
        # (if none says anything, one is waited for once more, and that fails)
        for answer in ready or [*warming]:
            warming.pop(answer).receive()


def _next(waiting: Sequence[Work], busy: Collection[int | None]) -> int:
    """Returns the place of the work to start while work is under way that is pinned to the cores
    `busy` (None: to none).

    First what must stay on a core that is free, then what need not: left to the end, the pinned
    would share one core.
    """

    def rank(place: int) -> tuple[bool, bool]:
        core = waiting[place].settings.get("core")
        return core in busy and core is not None, core is None

    return min(range(len(waiting)), key=rank)


def order(names: list[str], number: int) -> list[str]:
    """Returns who follows whom in round `number`: every odd round is the one before backwards,
    every even one is rotated.

    So after any two rounds all have had the same mean place.
    """
    shift = number // 2 % len(names)
    turned = names[shift:] + names[:shift]
    return turned[::-1] if number % 2 else turned


def _turn(group: list[_Process], repeats: int) -> list[dict[str, float]]:
    for process in group:
        process.send(repeats)
    return [process.receive() for process in group]


def divide(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Returns the ratios within each round."""
    return [a / b for a, b in zip(above, below, strict=True)]


def best(*rates: Sequence[float]) -> list[float]:
    """Returns the highest rate within each round."""
    return [max(together) for together in zip(*rates, strict=True)]


def cores() -> int:
    """Returns the number of cores this process may use."""
    return len(os.sched_getaffinity(0))


class Devices(NamedTuple):
    """Where jax computes: "cpu", "gpu" or "tpu", on how many devices, and what they are called."""

    backend: str
    count: int
    kind: str


@functools.cache
def devices() -> Devices:
    """Returns where workers will compute; asked of a process that ends, since this one must leave
    the devices free.
    """
    ask = (
        "import jax; print(jax.default_backend(), jax.local_device_count(), "
        "jax.devices()[0].device_kind)"
    )
    backend, count, kind = (
        subprocess.check_output([sys.executable, "-c", ask], text=True).strip().split(maxsplit=2)
    )
    return Devices(backend, cores() if backend == "cpu" else int(count), kind)


def say(text: str) -> None:
    """Prints progress to standard error."""
    print(text, file=sys.stderr, flush=True)
