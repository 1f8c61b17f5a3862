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
from plasticity_jax.training import acting, evaluation, network
from plasticity_jax.training import step as step_
from plasticity_jax.training.evaluation import POINTS, Metrics
from plasticity_jax.training.step import Online
from plasticity_jax.types import (
    Array,
    Batch,
    Data,
    Environment,
    Key,
    Lane,
    PyTree,
    Start,
    TrainState,
    Transition,
)


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
    under `jax_debug_nans`, which would stop at NaN). `finite` says whether parameters, what norms
    and the optimizer remember, logits and loss are, those of the test split too; where it is false,
    all other metrics but the loss are NaN: nothing was measured. Raises ValueError (one sentence)
    for what is no Spec; the functions raise it, when they are called or traced, for a number that
    the Spec's parts do not have or that is not allowed, and for data, states or tasks that are
    none. Of values that are traced only names and shapes can be checked.
    Where an agent acts, a task is a phase, and the metrics are `reward_rate` and `episode_return`
    (of the last fifth of the phase, of all of it as `.._mean`, without chance as `greedy_..`),
    `episodes`, and the loss and value `q` of a fixed minibatch of what is remembered, those of
    training minibatches before their updates as `online_..`.

    >>> small = {"width": 4, "depth": 1, "norm": "none", "optimizer": "sgd", "probes": ()}
    >>> spec = pj.Spec(samples=64, transition="abrupt", tasks=2, epochs=1, **small)
    >>> init, run_task = pj.make_run(spec)
    >>> data, lane = pj.load_data(spec), {"seed": 0}
    >>> state = jax.eval_shape(init, lane, data)  # or jax.jit(init)(lane, data)
    >>> state, metrics = jax.eval_shape(run_task, lane, state, data, 0)
    >>> state.params["layer0"]["kernel"].shape, metrics["accuracy"].shape
    ((64, 4), ())
    """
    if not isinstance(spec, Spec):
        raise ValueError(f"spec is {registry.shown(spec)}: allowed is a Spec.")
    if spec.acts:
        return Run(*map(in_float32, acting.functions(spec)))

    def init(lane: Lane, data: Data) -> TrainState:
        order.check_data(data)
        lane = lanes.arrays(spec, lane)
        net = network.network(spec, spec.make_environment(lane), data)
        variables = net.init(keys.role(jax.random.key(lane["seed"]), keys.INIT))
        params = variables.pop("params")
        optimizer = step_.optimizer(spec, lane, net.structure)
        return TrainState(params, variables, params, optimizer.init(params))

    def run_task(
        lane: Lane, state: TrainState, data: Data, task: Array
    ) -> tuple[TrainState, Metrics]:
        order.check_data(data)
        given, lane = lane, lanes.arrays(spec, lane)
        environment = spec.make_environment(lane)
        _check_task(spec, given, state, data, task, environment.size(data))
        one = _task(spec, lane, environment, data, jnp.asarray(task, jnp.int32))
        before = state
        if one.learner.boundaries:
            state = _begin(one, state)
        begun = state
        at_points = _at_points(one, before, begun)
        state, metrics = _trained(one, state, at_points)
        scores, losses = _scores(one, state)
        metrics |= scores
        finite = step_.is_finite(state, losses)
        metrics |= _recycled(before, state)
        if spec.revisit:
            metrics |= _revisited(one, state)
        if spec.probes:
            metrics |= evaluation.measure(spec, one.learner, _moment(one, before, state), begun)
        return state, numerics.known(finite, metrics) | {"loss": losses[0], "finite": finite}

    return Run(in_float32(init), in_float32(run_task))


class _Task(NamedTuple):
    """One task of one lane: what its steps share.

    Attributes:
      number: [] int32, of the task.
      in_order: whether examples are taken in the order in which they are drawn.
      granularity, length: [] micro-tasks of the transition, and steps that it takes.
      begins: [] bool, whether the task takes the place of another one, rather than going on.
      begun: [] int32, steps of the task in its stages before this one.
    """

    spec: Spec
    transition: Transition
    learner: step_.Learner
    data: Data
    key: Key
    number: Array
    plan: order.Plan
    in_order: bool
    granularity: Array
    length: Array
    begins: Array
    begun: Array

    @property
    def samples(self) -> int:
        """Examples that a task has."""
        return self.learner.environment.size(self.data)

    @property
    def per_epoch(self) -> int:
        """Steps of an epoch."""
        return order.steps_per_epoch(self.samples, self.spec.batch_size)

    @property
    def steps(self) -> int:
        """Steps of the task."""
        return self.per_epoch * self.spec.epochs

    @property
    def ahead(self) -> bool:
        """Whether the batches of an epoch are drawn together, as is quicker for single examples."""
        return self.spec.batch_size == 1


def _task(spec: Spec, lane: Lane, environment: Environment, data: Data, number: Array) -> _Task:
    transition = transitions.TRANSITIONS[spec.transition]
    net = network.network(spec, environment, data)
    key = jax.random.key(lane["seed"])
    steps = order.steps_per_epoch(environment.size(data), spec.batch_size) * spec.epochs
    in_order = order.alone(environment, transition, spec.epochs)
    plan = order.plan(environment, key, data, number, transition.gradual, in_order)
    stage = plan.stage
    learner = step_.learner(spec, lane, environment, net, steps * stage.parts)
    return _Task(
        spec=spec,
        transition=transition,
        learner=learner,
        data=data,
        key=key,
        number=number,
        plan=plan,
        in_order=in_order,
        granularity=lane["granularity"],
        length=transitions.transition_steps(lane["transition_fraction"], steps * stage.parts),
        begins=(stage.part == 0) & (number > 0),
        begun=stage.part * steps,
    )


def _places(one: _Task, epoch: Array) -> Array:
    """The batches of an epoch, [steps, batch_size] places in the changeover order."""
    batch_size = one.spec.batch_size
    return order.places(one.key, one.samples, batch_size, one.number, epoch, one.in_order)


def _drawn(one: _Task, places: Array, step: Array) -> Batch:
    """The batch of these places at a step of the task."""
    alpha = transitions.alpha_at(one.begun + step, one.length, one.granularity)
    environment = one.learner.environment
    return order.batch(environment, one.transition, one.plan, one.data, places, alpha)


def _begin(one: _Task, state: TrainState) -> TrainState:
    """The state after what methods do before a task, if one begins."""
    places = _places(one, jnp.int32(0))[0]
    key = keys.role(one.key, keys.START, one.number)

    def begun(state: TrainState) -> TrainState:
        environment, net, tx, _, boundaries = one.learner

        def loss(params: PyTree) -> Array:
            batch = _drawn(one, places, jnp.int32(0))
            dropped = step_.dropout_key(key)
            logits, *_ = net.apply(params, state.variables, batch.x, True, dropped)
            return step_.mean_loss(environment, logits, batch)

        start = Start(key, one.number, state.initial, jax.grad(loss), net.structure)
        params, opt = lifting.begin(boundaries, tx, state.params, state.opt, start)
        return state._replace(params=params, opt=opt)

    return jax.lax.cond(one.begins, begun, lambda state: state, state)


class _Points(NamedTuple):
    """What probes measure after chosen steps of a task.

    Attributes:
      look: (state, step [] int32, found) -> `found`, with what is measured if it is this step's
        turn; nothing is computed at others.
      nothing: {column: [points]} what there is before anything is measured.
    """

    look: Callable[[TrainState, Array, Metrics], Metrics]
    nothing: Metrics


def _at_points(one: _Task, before: TrainState, begun: TrainState) -> _Points | None:
    """What is measured at the steps that the Spec's points list, None if nothing is."""
    spec = one.spec
    names = [name for name in spec.probes if not name.endswith(START)]
    if not spec.steps_of_points or not names:
        return None
    steps = jnp.asarray(spec.steps_of_points, jnp.int32)

    def probed(state: TrainState) -> Metrics:
        found = evaluation.probed(spec, one.learner, _moment(one, before, state), names)
        return {name: value for name, value in found.items() if value.ndim == 0}

    nothing = {
        name: jnp.full(len(steps), evaluation.not_measured(), value.dtype)
        for name, value in jax.eval_shape(probed, begun).items()
    }
    turn = (one.number + 1) % spec.probe_every == 0

    def look(state: TrainState, step: Array, found: Metrics) -> Metrics:
        def measured(found: Metrics) -> Metrics:
            place = jnp.searchsorted(steps, step)
            return {name: found[name].at[place].set(v) for name, v in probed(state).items()}

        due = (steps == step).any() & turn
        return jax.lax.cond(due, measured, lambda found: found, found)

    return _Points(look, nothing)


def _trained(
    one: _Task, state: TrainState, at_points: _Points | None
) -> tuple[TrainState, Metrics]:
    """The state after the task's epochs, and what its minibatches scored before their updates."""

    def one_step(carry: tuple[TrainState, Metrics], batch_and_step) -> tuple[Any, Online]:
        state, found = carry
        batch, step = batch_and_step
        if at_points is not None:
            found = at_points.look(state, step, found)
        if not one.ahead:
            batch = _drawn(one, batch, step)
        clock = one.number * one.steps + step
        augment = one.learner.environment.augment
        if augment is not None:
            drawn = keys.role(one.key, keys.AUGMENT, clock)
            batch = batch._replace(x=augment(drawn, one.data, batch.x))
        noise = keys.role(one.key, keys.NOISE, clock)
        boundary = one.begins & (step == 0)
        state, online = step_.train_step(one.learner, state, batch, noise, clock, boundary)
        return (state, found), online

    def one_epoch(carry: tuple[TrainState, Metrics], epoch: Array) -> tuple[Any, Any]:
        batches = _places(one, epoch)
        numbers = epoch * one.per_epoch + jnp.arange(one.per_epoch)
        if one.ahead:
            batches = jax.vmap(functools.partial(_drawn, one))(batches, numbers)
        carry, online = jax.lax.scan(one_step, carry, (batches, numbers))
        mean = Online(online.metric.mean(), online.loss.mean())
        return carry, (mean, online if one.spec.points else None)

    carry = state, {} if at_points is None else at_points.nothing
    carry, (online, within) = jax.lax.scan(one_epoch, carry, jnp.arange(one.spec.epochs))
    state, found = carry
    main = one.learner.environment.metrics[0].name
    metrics: Metrics = {f"{POINTS}{name}": values for name, values in found.items()}
    if one.spec.points:
        for name, values in ((f"online_{main}", within.metric), ("online_loss", within.loss)):
            metrics[f"{POINTS}{name}"] = evaluation.at_points(values.reshape(-1), one.spec.points)
    metrics[f"online_{main}"] = online.metric[-1]
    metrics[f"online_{main}_mean"] = online.metric.mean()
    metrics["online_loss"] = online.loss[-1]
    metrics["online_loss_mean"] = online.loss.mean()
    return state, metrics


def _examine(one: _Task, state: TrainState) -> Callable[[PyTree], tuple[Metrics, list[Array]]]:
    """Returns drawn task -> its scores and losses in this state."""
    environment, net = one.learner.environment, one.learner.network
    chunk = evaluation.evaluation_chunk(one.spec, environment)
    return functools.partial(evaluation.examine, environment, net, state, one.data, chunk=chunk)


def _scores(one: _Task, state: TrainState) -> tuple[Metrics, list[Array]]:
    return _examine(one, state)(one.plan.new)


def _revisited(one: _Task, state: TrainState) -> Metrics:
    """The scores of earlier tasks."""
    environment = one.learner.environment
    drawn = functools.partial(environment.task, keys.role(one.key, keys.TASK), one.data)
    examine = _examine(one, state)
    return evaluation.revisit(environment, drawn, examine, one.spec.revisit, one.number)


def _moment(one: _Task, before: TrainState, after: TrainState) -> evaluation.Moment:
    """What probes see: the fixed probe batch is the first examples of the task."""
    index = jnp.arange(min(one.spec.probe_samples, one.samples))
    batch = one.learner.environment.examples(one.data, one.plan.new, index)
    key = keys.role(one.key, keys.PROBE, one.number)
    return evaluation.Moment(before, after, batch, key, one.number)


def _recycled(before: TrainState, after: TrainState) -> Metrics:
    """How many units methods recycled in the task."""
    was, now = lifting.recycled(before.opt), lifting.recycled(after.opt)
    return {name: (now[name] - was[name]).astype(jnp.float32) for name in now}


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
