"""A program as functions on its devices: compiled once, with lanes and data in place."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from plasticity_jax import lanes as lanes_
from plasticity_jax.execution import placement
from plasticity_jax.execution.program import Program
from plasticity_jax.training import beginning
from plasticity_jax.training.supervised import Run, make_run
from plasticity_jax.types import Data, PyTree


class Compiled(NamedTuple):
    """A program as functions on its devices, where its lanes and data are placed at first use.

    Attributes:
      init: () -> states of all padded lanes, drawn, or begun from those of the program's start.
      run_task: (states, number of the run's task) -> (states, metrics), both with a lane axis;
        consumes `states`.
      place: numpy states of the program's own lanes -> states of all padded lanes on the devices.
      copy: states -> a copy of them on the devices, which the next `run_task` leaves alone; waits
        for nothing.
      shapes: what `init` returns, cut to the program's own lanes, as ShapeDtypeStructs.
      executable: states -> the compiled `run_task`, which then need not compile; not with the
        strategy "plain", which is no one program.
      compile: () -> compiles `init` and `run_task` for the arguments that they will get, from
        shapes alone; nothing where jax takes programs apart, and not what only a start needs.
    """

    init: Callable[[], PyTree]
    run_task: Callable[[PyTree, int], tuple[PyTree, dict[str, jax.Array]]]
    place: Callable[[PyTree], PyTree]
    copy: Callable[[PyTree], PyTree]
    shapes: PyTree
    executable: Callable[[PyTree], jax.stages.Compiled]
    compile: Callable[[], None]


def compile_program(program: Program, data: Data) -> Compiled:
    """Returns the program ready to run: traced and compiled once, for all its lanes and tasks."""
    how, count = program.execution, len(program.lanes)
    if jax.config.jax_disable_jit:  # pyright: ignore[reportAttributeAccessIssue]
        # op by op there is no program to spread over devices
        how = placement.Execution("vmap", how.width, 1)
    padding = placement.padded(count, how) - count
    where = placement.placement(how)
    padded = lanes_.stack([*program.lanes, *program.lanes[-1:] * padding])
    run = make_run(program.spec)
    init, task = _functions(program, run, how)
    one = jax.eval_shape(run.init, jax.tree.map(lambda a: a[0], padded), data)

    @functools.cache
    def placed() -> tuple[PyTree, PyTree]:
        return jax.device_put(padded, where.lanes), jax.device_put(data, where.shared)

    def place(states: PyTree) -> PyTree:
        filled = jax.tree.map(lambda a: np.concatenate([a, *[a[-1:]] * padding]), states)
        return jax.device_put(filled, where.lanes)

    def arguments(states: PyTree, number: int) -> tuple[PyTree, ...]:
        lanes, data = placed()
        return lanes, states, data, jax.device_put(np.int32(number), where.shared)

    def begin() -> PyTree:
        lanes, data = placed()
        if program.start is None:
            return init(lanes, data)
        begun = placement.over_lanes(functools.partial(beginning.begun, program.spec), how, split=2)
        begun = begun if how.strategy == "plain" else jax.jit(begun)
        return begun(lanes, place(program.start.states()), data)

    def of_lanes(lanes: int) -> PyTree:
        return jax.tree.map(lambda a: jax.ShapeDtypeStruct((lanes, *a.shape), a.dtype), one)

    def compile_both() -> None:
        if how.strategy == "plain" or how != program.execution:
            return
        lanes = _shapes(padded, where.lanes)
        shared = _shapes(data, where.shared)
        if program.start is None:
            init.lower(lanes, shared).compile()
        # (jax keeps what it compiled for arguments of these shapes in these places)
        states = _shapes(of_lanes(count + padding), where.lanes)
        task.lower(lanes, states, shared, _shapes(np.int32(0), where.shared)).compile()

    first = program.spec.first_task
    return Compiled(
        init=begin,
        run_task=lambda states, number: task(*arguments(states, first + number)),
        place=place,
        copy=jax.jit(lambda states: jax.tree.map(jnp.copy, states)),
        shapes=of_lanes(count),
        # (jax keeps what it compiled for the same arguments)
        executable=lambda states: task.lower(*arguments(states, 0)).compile(),
        compile=compile_both,
    )


def _shapes(tree: PyTree, where: Any) -> PyTree:
    """The arrays of a tree as shapes in their places on the devices."""

    def shape(leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)

    return jax.tree.map(shape, tree)


def _functions(program: Program, run: Run, how: placement.Execution) -> tuple[Any, Any]:
    """`run.init` and `run.run_task` for all lanes, jitted but for the strategy "plain"."""
    options = placement.options(program.spec.model)
    init = placement.over_lanes(run.init, how, split=1)
    task = placement.over_lanes(run.run_task, how, split=2, options=options)
    if how.strategy == "plain":
        return init, task
    draws_only = program.spec.method == "none"  # else a method may compute sums as well
    init = placement.jit_once(init) if draws_only else jax.jit(init)
    return init, jax.jit(task, donate_argnums=1, compiler_options=options)
