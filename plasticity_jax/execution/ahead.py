"""The next program of a run is compiled while one runs."""

import threading
from collections.abc import Sequence

from plasticity_jax.execution import compiled as compiled_
from plasticity_jax.execution.compiled import Compiled
from plasticity_jax.execution.program import Program
from plasticity_jax.types import Data


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

    def take(self, program: Program) -> Compiled:
        """Returns a program ready to run: what the thread made of it, once that is done, or one
        that is compiled when it is called.
        """
        self._left = [other for other in self._left if other is not program]
        making, self._making = self._making, None
        if making is not None and making.program is program:
            making.join()
            if making.made is not None:
                return making.made
        return compiled_.compile_program(program, self._data)

    def begin(self) -> None:
        """Begins to compile the first program that was not taken, if there is one."""
        if self._left and self._making is None:
            self._making = _Making(self._left[0], self._data)
            self._making.start()


class _Making(threading.Thread):
    """Compiles a program; `made` is None until it is done, and if it fails."""

    def __init__(self, program: Program, data: Data):
        # (not a daemon: Python must not end while XLA compiles for one of its threads)
        super().__init__(name="compiles the next program")
        self.program = program
        self.made: Compiled | None = None
        self._data = data

    def run(self) -> None:
        try:
            made = compiled_.compile_program(self.program, self._data)
            made.compile()
        except Exception:
            return  # (raised again where it belongs, in the program's turn)
        self.made = made
