"""From a Spec to two pure functions: one initializes a lane, one takes it through a task. jit and vmap them at will."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from plasticity_jax import lanes, methods, registry, stream, transitions
from plasticity_jax.methods import lifting
from plasticity_jax.optimizers import OPTIMIZERS
from plasticity_jax.precision import PRECISIONS, cast, in_float32
from plasticity_jax.probes import PROBES, numerics
from plasticity_jax.spec import Spec
from plasticity_jax.text import decoding
from plasticity_jax.types import (
    Array,
    Batch,
    Context,
    Data,
    Decoding,
    Environment,
    Key,
    Lane,
    Optimizer,
    PyTree,
    Snapshot,
    Structure,
    TrainState,
)

EVALUATION_CHUNK = 1024  # examples per forward pass outside training; bounds memory, not results

Metrics = dict[str, Array]


class Run(NamedTuple):
    """The pure functions of a Spec.

    Attributes:
      init: (lane, data) -> TrainState.
      run_task: (lane, state, data, task [] int32) -> (TrainState, metrics {name: []}).
    """

    init: Callable[[Lane, Data], TrainState]
    run_task: Callable[[Lane, TrainState, Data, Array], tuple[TrainState, Metrics]]


class Online(NamedTuple):
    """What a minibatch scored before the step that learns from it: the environment's main metric, and the loss."""

    metric: Array
    loss: Array


class Network(NamedTuple):
    """A model bound to the shape of its data.

    Attributes:
      init: key -> {"params": .., other collections}, as the model starts: drawn, or a checkpoint's.
      apply: (params, other collections, x, train) -> (logits, {group: activations in the order of the layers}, other
        collections), all float32; computed in the Spec's precision if `train`.
      structure: what methods may know of it.
      linear: groups of activations that no activation function made.
      generate: (params, other collections, source [B, S], Decoding) -> ids [B, length], of sequence models.
      products: precision of matrix products in a training step, as in `Precision`.
    """

    init: Callable[[Key], PyTree]
    apply: Callable[[PyTree, PyTree, Any, bool], tuple[Array, Mapping[str, Array], PyTree]]
    structure: Structure
    linear: frozenset[str]
    generate: Callable[[PyTree, PyTree, Array, Decoding], Array]
    products: str


def network(spec: Spec, environment: Environment, data: Data) -> Network:
    """Returns the Spec's model for the examples that `environment` makes of `data`, as pure functions."""
    model = spec.make_model(environment.outputs(data))
    groups, precision = model.groups(), PRECISIONS[spec.precision]

    def example():
        task = environment.task(jax.random.key(0), data, jnp.int32(0))
        return environment.examples(data, task, jnp.zeros(1, jnp.int32))

    def drawn(key):
        x = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(example).x)
        return {k: v for k, v in model.init(key, x, False).items() if k != "hidden"}

    def apply(params, variables, x, train):
        mutable = ["hidden", *(variables if train else ())]
        params, x = cast((params, x), precision.dtype if train else jnp.float32)
        logits, changed = model.apply({"params": params, **variables}, x, train, mutable=mutable)
        # (one by one: jax.tree.map would sort the groups by name, and the last one is the last hidden layer)
        hidden = {group: cast(changed["hidden"][group], jnp.float32) for group in groups}
        return cast(logits, jnp.float32), hidden, {k: changed.get(k, v) for k, v in variables.items()}

    def generate(params, variables, source, how):
        collections = {"params": params, **variables}
        cache = model.apply(collections, source, how.length, method="start")

        def step(cache, ids, position):
            return model.apply(collections, cache, ids, position, method="step")

        settings = {"count": len(source), "start": how.start, "end": how.end, "length": how.length}
        if how.beams == 1:
            return decoding.greedy(step, cache, **settings)
        return decoding.beam(step, cache, **settings, beams=how.beams)

    def init(key):
        return model.load(drawn(key)) if getattr(model, "pretrained", "") else drawn(key)

    structure = Structure(model.units(), lambda key: drawn(key)["params"])
    linear = frozenset(getattr(model, "LINEAR_GROUPS", ()))
    return Network(init, apply, structure, linear, generate, precision.products)


def optimizer(spec: Spec, lane: Lane, structure: Structure) -> Optimizer:
    """Returns the Spec's optimizer with its methods, built from the lane's (traced) numbers."""
    settings = {**dict(spec.options), **lane}
    base = registry.make(OPTIMIZERS, "optimizer", spec.optimizer, settings, learning_rate=lane["learning_rate"])
    return methods.build(spec.method, structure, settings)(base)


def make_run(spec: Spec) -> Run:
    """Returns the pure functions `init` and `run_task` of a Spec.

    A lane is a mapping of numbers as `grid` makes them; those it lacks take their defaults. For vmap, give it arrays with
    a leading axis (`stack`). The compiled unit is one task: a scan over epochs of a scan over steps, evaluation and
    probes at its end.
    Metrics: `online_accuracy` (mean over the minibatches of the last epoch, each measured before its update), `accuracy`
    and `loss` (whole current task, after training), `test_accuracy` where there is a test split, `finite` [] bool,
    `units_reset` (units recycled in this task) where a method acts on units, and the probes' numbers (NaN at tasks where
    probes do not run; 0 there under `jax_debug_nans`, which would stop at NaN). `finite` says whether parameters, logits
    and loss are, those of the test split too; where it is false, all other metrics but the loss are NaN: nothing was
    measured.
    Raises ValueError (one sentence) for what is no Spec; the functions raise it, when they are called or traced, for a
    number that the Spec's parts do not have or that is not allowed, and for data, states or tasks that are none. Of values
    that are traced only names and shapes can be checked.
    """
    if not isinstance(spec, Spec):
        raise ValueError(f"spec is {registry.shown(spec)}: allowed is a Spec.")
    transition = transitions.TRANSITIONS[spec.transition]

    def init(lane: Lane, data: Data) -> TrainState:
        stream.check_data(data)
        lane = lanes.arrays(spec, lane)
        net = network(spec, spec.make_environment(lane), data)
        variables = net.init(stream.role(jax.random.key(lane["seed"]), stream.INIT))
        params = variables.pop("params")
        return TrainState(params, variables, params, optimizer(spec, lane, net.structure).init(params))

    def run_task(lane: Lane, state: TrainState, data: Data, task: Array) -> tuple[TrainState, Metrics]:
        stream.check_data(data)
        given, lane = lane, lanes.arrays(spec, lane)
        environment = spec.make_environment(lane)
        _check_task(spec, given, state, data, task, environment.size(data))
        task = jnp.asarray(task, jnp.int32)
        net, key = network(spec, environment, data), jax.random.key(lane["seed"])
        samples = environment.size(data)
        tx = optimizer(spec, lane, net.structure)
        per_epoch = stream.steps_per_epoch(samples, spec.batch_size)
        steps = per_epoch * spec.epochs
        ahead = spec.batch_size == 1
        # what is drawn for this task and seen once needs no shuffling
        in_order = spec.epochs == 1 and environment.data == "nothing" and not transition.gradual
        plan = stream.plan(environment, key, data, task, transition.gradual, in_order)
        stage = plan.stage
        length = transitions.transition_steps(lane["transition_fraction"], steps * stage.parts)
        begun = stage.part * steps  # steps of the task in its stages before this one

        def draw(places: Array, step: Array) -> Batch:
            alpha = transitions.alpha_at(begun + step, length, lane["granularity"])
            return stream.batch(environment, transition, plan, data, places, alpha)

        def one_step(state: TrainState, batch_and_step) -> tuple[TrainState, Online]:
            batch, step = batch_and_step
            batch = batch if ahead else draw(batch, step)
            clock = task * steps + step
            noise = stream.role(key, stream.NOISE, clock)
            return train_step(
                environment, net, tx, state, batch, noise, clock, (step == 0) & (stage.part == 0) & (task > 0)
            )

        def one_epoch(state: TrainState, epoch: Array) -> tuple[TrainState, Online]:
            if in_order:
                places = jnp.arange(steps * spec.batch_size, dtype=jnp.int32).reshape(steps, -1)
            else:
                places = stream.epoch(key, samples, spec.batch_size, task, epoch)
            numbers = epoch * per_epoch + jnp.arange(per_epoch)
            batches = jax.vmap(draw)(places, numbers) if ahead else places
            state, online = jax.lax.scan(one_step, state, (batches, numbers))
            return state, Online(online.metric.mean(), online.loss.mean())

        before = state
        state, online = jax.lax.scan(one_epoch, state, jnp.arange(spec.epochs))

        def of_task(index):
            return environment.examples(data, plan.new, index)

        main = environment.metrics[0].name
        metrics = {f"online_{main}": online.metric[-1], f"online_{main}_mean": online.metric.mean()}
        metrics |= {"online_loss": online.loss[-1], "online_loss_mean": online.loss.mean()}
        chunk = evaluation_chunk(spec, environment)
        scores = evaluate(environment, net, state, of_task, samples, chunk)
        loss = scores.pop("loss")
        metrics, judged = metrics | scores, [state.params, loss]
        test = environment.test
        if test is not None and environment.test_size(data):
            count = environment.test_size(data)
            held_out = evaluate(environment, net, state, lambda i: test(data, plan.new, i), count, chunk)
            judged.append(held_out.pop("loss"))
            metrics |= {f"test_{name}": value for name, value in held_out.items()}
        finite = numerics.finite(judged)
        was, now = lifting.recycled(before.opt), lifting.recycled(state.opt)
        metrics |= {name: (now[name] - was[name]).astype(jnp.float32) for name in now}
        if spec.probes:
            batch = of_task(jnp.arange(min(spec.probe_samples, samples)))
            probe_key = stream.role(key, stream.PROBE, task)
            metrics |= measure(spec, environment, net, before, state, batch, probe_key, task)
        return state, numerics.known(finite, metrics) | {"loss": loss, "finite": finite}

    return Run(in_float32(init), in_float32(run_task))


def _check_task(spec: Spec, lane: Lane, state: Any, data: Any, task: Any, samples: int) -> None:
    """Raises ValueError for arguments of `run_task` that it has no meaning for, as far as they are known."""
    if not all(hasattr(state, name) for name in TrainState._fields):
        raise ValueError(f"state is a {type(state).__name__}: allowed is a TrainState, as init gives it.")
    if not registry.is_traced(task):
        registry.whole("task", task, 0)
    steps = lanes.check_steps(spec, samples)
    numbers = {**lanes.DEFAULTS, **lane}
    plateaus, fraction = numbers["granularity"], numbers["transition_fraction"]
    if not registry.is_traced(plateaus) and not registry.is_traced(fraction):
        transitions.check_plateaus(int(plateaus), float(fraction), steps)  # (an int32 has no 2**32)


def mean_loss(environment: Environment, logits: Array, batch: Batch) -> Array:
    """Returns the mean loss over the examples that count, []."""
    return (environment.loss(logits, batch) * batch.weight).sum() / batch.weight.sum()


def train_step(
    environment: Environment,
    net: Network,
    tx: Optimizer,
    state: TrainState,
    batch: Batch,
    key: Key,
    clock: Array,
    boundary: Array,
) -> tuple[TrainState, Online]:
    """Returns the state after one optimizer step on `batch`, and what the batch scored before it."""

    @jax.named_scope("forward")
    def objective(params):
        logits, hidden, variables = net.apply(params, state.variables, batch.x, True)
        return mean_loss(environment, logits, batch), (logits, hidden, variables)

    with jax.default_matmul_precision(net.products):
        passes = jax.value_and_grad(objective, has_aux=True)
        (loss, (logits, hidden, variables)), gradient = passes(state.params)
    ctx = Context(key, clock, boundary, hidden)
    with jax.named_scope("method"):
        updates, opt = tx.update(gradient, state.opt, state.params, ctx=ctx)
    with jax.named_scope("optimizer"):
        params = optax.apply_updates(state.params, updates)
    with jax.named_scope("forward"):
        metric = (environment.metrics[0].of(logits, batch) * batch.weight).sum() / batch.weight.sum()
    return TrainState(params, variables, state.initial, opt), Online(metric, loss)


def evaluation_chunk(spec: Spec, environment: Environment) -> int:
    """Returns the examples per forward pass outside training. Bounds memory, not results."""
    return EVALUATION_CHUNK if environment.inputs != "text" else spec.batch_size  # texts are large


@jax.named_scope("evaluation")
def evaluate(
    environment: Environment,
    net: Network,
    state: TrainState,
    examples: Callable[[Array], Batch],
    count: int,
    chunk: int = EVALUATION_CHUNK,
) -> Metrics:
    """Returns {each metric's name, "loss": mean over examples 0..count-1} in evaluation mode, a chunk at a time.

    The loss is NaN if any logit is not finite, whatever it would be: such logits have a largest one, but no accuracy.
    Where the environment generates texts, also the score of what the network generates for the first of them.
    """

    def add(total, batch, counts):
        weight = batch.weight * counts.reshape(-1, *[1] * (batch.weight.ndim - 1))
        logits, _, _ = net.apply(state.params, state.variables, batch.x, False)
        scores = [metric.of(logits, batch) for metric in environment.metrics]
        parts = [environment.loss(logits, batch), *scores, jnp.ones_like(weight)]
        loss, *rest = ((part * weight).sum() for part in parts)
        return total + jnp.stack([numerics.known(numerics.finite(logits), loss), *rest])

    start = jnp.zeros(2 + len(environment.metrics), jnp.float32)
    loss, *scores, weight = _over_chunks(add, start, examples, count, chunk)
    means = {m.name: score / weight for m, score in zip(environment.metrics, scores, strict=True)}
    means["loss"] = loss / weight
    how = environment.decoding
    if how is None:
        return means

    def decoded(total, batch, counts):
        ids = net.generate(state.params, state.variables, batch.x.source, how)
        return total + (how.counts(ids, batch.y) * counts[:, None]).sum(axis=0)

    first = examples(jnp.zeros(1, jnp.int32)).y
    width = jax.eval_shape(how.counts, jnp.zeros((1, how.length), jnp.int32), first).shape[1]
    total = _over_chunks(decoded, jnp.zeros(width, jnp.float32), examples, min(count, how.samples), chunk)
    return means | {how.metric.name: how.score(total)}


def _over_chunks(
    add: Callable[[Array, Batch, Array], Array],
    start: Array,
    examples: Callable[[Array], Batch],
    count: int,
    chunk: int,
) -> Array:
    """Returns `add(total, batch, counts [B])` folded over examples 0..count-1; `counts` is 0 for what only fills up."""
    chunk = min(count, chunk)
    places = jnp.arange(-(-count // chunk) * chunk).reshape(-1, chunk)

    def one(total, index):
        batch = examples(jnp.minimum(index, count - 1))
        return add(total, batch, (index < count).astype(jnp.float32)), None

    return jax.lax.scan(one, start, places)[0]


@jax.named_scope("probes")
def measure(
    spec: Spec,
    environment: Environment,
    net: Network,
    before: TrainState,
    after: TrainState,
    batch: Batch,
    key: Key,
    task: Array,
) -> Metrics:
    """Returns {column: []} of the Spec's probes at the end of `task`, NaN where it is not their turn."""

    def probed() -> Metrics:
        def loss(params):
            return mean_loss(environment, net.apply(params, after.variables, batch.x, False)[0], batch)

        hidden = net.apply(after.params, after.variables, batch.x, False)[1]
        previous = net.apply(before.params, before.variables, batch.x, False)[1]
        snapshot = Snapshot(after.params, before.params, after.initial, loss, hidden, previous, key, net.linear)
        columns: Metrics = {}
        for name in spec.probes:
            found: Any = _with_options(spec, name)(snapshot)
            details = found if isinstance(found, dict) else {"": found}
            columns |= {f"{name}/{detail}" if detail else name: value for detail, value in details.items()}
        return columns

    if spec.probe_every == 1:
        return probed()
    nothing = 0.0 if jax.config.jax_debug_nans else jnp.nan  # pyright: ignore[reportAttributeAccessIssue]
    absent = jax.tree.map(lambda a: jnp.full(a.shape, nothing, a.dtype), jax.eval_shape(probed))
    return jax.lax.cond((task + 1) % spec.probe_every == 0, probed, lambda: absent)


def _with_options(spec: Spec, name: str) -> Callable[[Snapshot], Any]:
    chosen = {option: value for option, value in spec.options if option.startswith(f"{name}.")}
    keyword = {option.removeprefix(f"{name}."): value for option, value in chosen.items()}
    return lambda snapshot: PROBES[name](snapshot, **keyword)
