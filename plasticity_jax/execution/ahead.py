"""What is compiled in a thread: the next program of a run while one runs, and one in its turn, so
that the main thread notices signals.
"""

import concurrent.futures
import functools
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from plasticity_jax.execution import compiled as compiled_
from plasticity_jax.execution.compiled import Compiled
from plasticity_jax.execution.program import Program
from plasticity_jax.storage.workdir import Stop
from plasticity_jax.types import Data

Result = TypeVar("Result")
_LOOK = 0.1  # seconds between two looks whether a stop is requested


class Ahead:
    """The programs of a run in the order of their turns.

    At most one is compiled ahead of its turn, in a thread; its lanes and data are placed on the
    devices in its turn, so that what it takes besides is its compiled code. Whatever goes wrong in
    the thread is left to its turn, when it is compiled again and the same is raised: no program
    before it is kept from its results. Who leaves early need not wait for the thread.
    """

    def __init__(self, programs: Sequence[Program], data: Data):
        self._left = list(programs)
        self._data = data
        self._making: _Making | None = None

    def take(self, program: Program, stop: Stop | None = None) -> Compiled | None:
        """Returns a program ready to run: what the thread made of it, once that is done, or one
        that is compiled now, or, without a `stop`, when it is called. None once a stop is
        requested, however long the compiler goes on.
        """
        self._left = [other for other in self._left if other is not program]
        making, self._making = self._making, None
        if making is not None and making.program is program:
            if not making.wait(stop):
                return None
            if making.made is not None:
                return making.made
        made = compiled_.compile_program(program, self._data)
        if stop is None:
            return made
        making = _Making(program, lambda: made)
        making.start()
        return made if making.wait(stop) else None

    def begin(self) -> None:
        """Begins to compile the first program that was not taken, if there is one."""
        if self._left and self._making is None:
            program = self._left[0]
            make = functools.partial(compiled_.compile_program, program, self._data)
            self._making = _Making(program, make)
            self._making.start()


class _Making(threading.Thread):
    """Makes a program and compiles it; `made` is None until it is done, and if it fails."""

    def __init__(self, program: Program, make: Callable[[], Compiled]):
        # (not a daemon: Python must not end while XLA compiles for one of its threads)
        super().__init__(name="compiles a program")
        self.program = program
        self.made: Compiled | None = None
        self._make = make

    def run(self) -> None:
        try:
            made = self._make()
            made.compile()
        except Exception:
            return  # (raised again where it belongs, in the program's turn)
        self.made = made

    def wait(self, stop: Stop | None) -> bool:
        """Waits until it is done; returns False as soon as a stop is requested."""
        while self.is_alive():
            if stop is not None and stop.requested:
                return False
            self.join(_LOOK)
        return True


def aside(function: Callable[[], Result]) -> Result:
    """Returns what `function` returns, or raises what it raises, which is called in a thread: while
    XLA compiles in the main one, Python notices no signal.
    """
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        future = threads.submit(function)
        while not future.done():
            concurrent.futures.wait([future], timeout=_LOOK)
        return future.result()
