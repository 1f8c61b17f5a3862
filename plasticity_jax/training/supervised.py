"""From a Spec to two pure functions: one initializes a lane, one takes it through a task. jit and
vmap them at will.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from plasticity_jax import lanes, registry
from plasticity_jax.methods import lifting
from plasticity_jax.precision import in_float32
from plasticity_jax.probes import numerics
from plasticity_jax.spec import START, Spec
from plasticity_jax.stream import keys, order, transitions
from plasticity_jax.training import evaluation, network
from plasticity_jax.training import step as step_
from plasticity_jax.training.evaluation import Metrics
from plasticity_jax.training.step import Online
from plasticity_jax.types import (
    Array,
    Batch,
    Data,
    Key,
    Lane,
    Start,
    TrainState,
)

POINTS = "points/"  # names of metrics within a task begin with it


class Run(NamedTuple):
    """The pure functions of a Spec.

    Attributes:
      init: (lane, data) -> TrainState.
      run_task: (lane, state, data, task [] int32) -> (TrainState, metrics {name: []}).
    """

    init: Callable[[Lane, Data], TrainState]
    run_task: Callable[[Lane, TrainState, Data, Array], tuple[TrainState, Metrics]]


def make_run(spec: Spec) -> Run:
    """Returns the pure functions `init` and `run_task` of a Spec.

    A lane is a mapping of numbers as `grid` makes them; those it lacks take their defaults. For
    vmap, give it arrays with a leading axis (`stack`). The compiled unit is one task: a scan over
    epochs of a scan over steps, evaluation and probes at its end.
    Metrics: `online_accuracy` (mean over the minibatches of the last epoch, each measured before
    its update), `accuracy` and `loss` (whole current task, after training), `test_accuracy` where
    there is a test split, `finite` [] bool, `units_reset` (units recycled in this task) where a
    method acts on units, and the probes' numbers (NaN at tasks where probes do not run; 0 there
    under `jax_debug_nans`, which would stop at NaN). `finite` says whether parameters, logits and
    loss are, those of the test split too; where it is false, all other metrics but the loss are
    NaN: nothing was measured. Raises ValueError (one sentence) for what is no Spec; the functions
    raise it, when they are called or traced, for a number that the Spec's parts do not have or that
    is not allowed, and for data, states or tasks that are none. Of values that are traced only
    names and shapes can be checked.
    """
    if not isinstance(spec, Spec):
        raise ValueError(f"spec is {registry.shown(spec)}: allowed is a Spec.")
    transition = transitions.TRANSITIONS[spec.transition]

    def init(lane: Lane, data: Data) -> TrainState:
        order.check_data(data)
        lane = lanes.arrays(spec, lane)
        net = network.network(spec, spec.make_environment(lane), data)
        variables = net.init(keys.role(jax.random.key(lane["seed"]), keys.INIT))
        params = variables.pop("params")
        return TrainState(
            params, variables, params, step_.optimizer(spec, lane, net.structure).init(params)
        )

    def run_task(
        lane: Lane, state: TrainState, data: Data, task: Array
    ) -> tuple[TrainState, Metrics]:
        order.check_data(data)
        given, lane = lane, lanes.arrays(spec, lane)
        environment = spec.make_environment(lane)
        _check_task(spec, given, state, data, task, environment.size(data))
        task = jnp.asarray(task, jnp.int32)
        net, key = network.network(spec, environment, data), jax.random.key(lane["seed"])
        samples = environment.size(data)
        per_epoch = order.steps_per_epoch(samples, spec.batch_size)
        steps = per_epoch * spec.epochs
        ahead = spec.batch_size == 1
        in_order = order.alone(environment, transition, spec.epochs)
        plan = order.plan(environment, key, data, task, transition.gradual, in_order)
        stage = plan.stage
        learner = step_.learner(spec, lane, environment, net, steps * stage.parts)
        length = transitions.transition_steps(lane["transition_fraction"], steps * stage.parts)
        begins = (stage.part == 0) & (task > 0)
        begun = stage.part * steps  # steps of the task in its stages before this one

        def draw(places: Array, step: Array) -> Batch:
            alpha = transitions.alpha_at(begun + step, length, lane["granularity"])
            return order.batch(environment, transition, plan, data, places, alpha)

        def one_step(state: TrainState, batch_and_step) -> tuple[TrainState, Online]:
            batch, step = batch_and_step
            batch = batch if ahead else draw(batch, step)
            clock = task * steps + step
            noise = keys.role(key, keys.NOISE, clock)
            return step_.train_step(learner, state, batch, noise, clock, begins & (step == 0))

        def one_epoch(state: TrainState, epoch: Array) -> tuple[TrainState, tuple[Online, Any]]:
            places = order.places(key, samples, spec.batch_size, task, epoch, in_order)
            numbers = epoch * per_epoch + jnp.arange(per_epoch)
            batches = jax.vmap(draw)(places, numbers) if ahead else places
            state, online = jax.lax.scan(one_step, state, (batches, numbers))
            mean = Online(online.metric.mean(), online.loss.mean())
            return state, (mean, online if spec.points else None)

        def of_task(index):
            return environment.examples(data, plan.new, index)

        before = state
        if learner.boundaries:
            first_epoch = (key, samples, spec.batch_size, task, jnp.int32(0), in_order)
            places = order.places(*first_epoch)[0]
            first = functools.partial(draw, places, jnp.int32(0))
            begin = functools.partial(
                _begun, learner, first, keys.role(key, keys.START, task), task
            )
            state = jax.lax.cond(begins, begin, lambda state: state, state)
        main = environment.metrics[0].name
        metrics = {}
        started = [name for name in spec.probes if name.endswith(START)]
        probe_key = keys.role(key, keys.PROBE, task)
        probe_batch = functools.partial(of_task, jnp.arange(min(spec.probe_samples, samples)))
        if started:
            metrics |= evaluation.measure(
                spec, environment, net, before, state, probe_batch(), probe_key, task, start=True
            )
        state, (online, steps_of) = jax.lax.scan(one_epoch, state, jnp.arange(spec.epochs))
        if spec.points:
            within = {f"online_{main}": steps_of.metric, "online_loss": steps_of.loss}
            for name, values in within.items():
                metrics[f"{POINTS}{name}"] = evaluation.windows(values.reshape(-1), spec.points)
        metrics |= {f"online_{main}": online.metric[-1]}
        metrics |= {f"online_{main}_mean": online.metric.mean()}
        metrics |= {"online_loss": online.loss[-1], "online_loss_mean": online.loss.mean()}
        chunk = evaluation.evaluation_chunk(spec, environment)
        examine = functools.partial(evaluation.examine, environment, net, state, data, chunk=chunk)
        scores, losses = examine(plan.new)
        metrics |= scores
        finite = numerics.finite([state.params, *losses])
        was, now = lifting.recycled(before.opt), lifting.recycled(state.opt)
        metrics |= {name: (now[name] - was[name]).astype(jnp.float32) for name in now}
        if spec.revisit:
            drawn = functools.partial(environment.task, keys.role(key, keys.TASK), data)
            metrics |= evaluation.revisit(environment, drawn, examine, spec.revisit, task)
        if len(started) < len(spec.probes):
            metrics |= evaluation.measure(
                spec, environment, net, before, state, probe_batch(), probe_key, task
            )
        return state, numerics.known(finite, metrics) | {"loss": losses[0], "finite": finite}

    return Run(in_float32(init), in_float32(run_task))


def _begun(
    learner: step_.Learner,
    first: Callable[[], Batch],
    key: Key,
    task: Array,
    state: TrainState,
) -> TrainState:
    """The state after what methods do before a task; `first` is the task's first batch."""
    environment, net, tx, _, boundaries = learner

    def loss(params):
        batch = first()
        logits, _, _ = net.apply(params, state.variables, batch.x, True)
        return step_.mean_loss(environment, logits, batch)

    start = Start(key, task, state.initial, jax.grad(loss), net.structure)
    params, opt = lifting.begin(boundaries, tx, state.params, state.opt, start)
    return state._replace(params=params, opt=opt)


def _check_task(spec: Spec, lane: Lane, state: Any, data: Any, task: Any, samples: int) -> None:
    """Raises ValueError for arguments of `run_task` that it has no meaning for, as far as they are
    known.
    """
    if not all(hasattr(state, name) for name in TrainState._fields):
        raise ValueError(
            f"state is a {type(state).__name__}: allowed is a TrainState, as init gives it."
        )
    if not registry.is_traced(task):
        registry.whole("task", task, 0)
    steps = lanes.check_steps(spec, samples)
    numbers = {**lanes.DEFAULTS, **lane}
    plateaus, fraction = numbers["granularity"], numbers["transition_fraction"]
    if not registry.is_traced(plateaus) and not registry.is_traced(fraction):
        transitions.check_plateaus(int(plateaus), float(fraction), steps)
