"""What is measured of a task: evaluation in chunks, and probes."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from plasticity_jax.probes import PROBES, numerics
from plasticity_jax.spec import START, Spec
from plasticity_jax.training import step
from plasticity_jax.training.network import Network
from plasticity_jax.types import (
    Array,
    Batch,
    Data,
    Environment,
    Key,
    PyTree,
    Snapshot,
    TrainState,
    View,
)

EVALUATION_CHUNK = 1024  # examples per forward pass outside training; bounds memory, not results

POINTS = "points/"  # names of metrics within a task begin with it

Metrics = dict[str, Array]


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
    """Returns {each metric's name, "loss": mean over examples 0..count-1} in evaluation mode, a
    chunk at a time.

    The loss is NaN if any logit is not finite, whatever it would be: such logits have a largest
    one, but no accuracy. Where the environment generates texts, also the score of what the network
    generates for the first of them.
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
    total = _over_chunks(
        decoded, jnp.zeros(width, jnp.float32), examples, min(count, how.samples), chunk
    )
    return means | {how.metric.name: how.score(total)}


def examine(
    environment: Environment, net: Network, state: TrainState, data: Data, drawn: PyTree, chunk: int
) -> tuple[Metrics, list[Array]]:
    """Returns the scores of the task that was `drawn`, of held-out examples as `test_<name>`, and
    the losses of training and held-out examples.
    """
    examples = functools.partial(environment.examples, data, drawn)
    scores = evaluate(environment, net, state, examples, environment.size(data), chunk)
    losses = [scores.pop("loss")]
    if environment.test is not None and environment.test_size(data):
        held_out = functools.partial(environment.test, data, drawn)
        found = evaluate(environment, net, state, held_out, environment.test_size(data), chunk)
        losses.append(found.pop("loss"))
        scores |= {f"test_{name}": value for name, value in found.items()}
    return scores, losses


def _over_chunks(
    add: Callable[[Array, Batch, Array], Array],
    start: Array,
    examples: Callable[[Array], Batch],
    count: int,
    chunk: int,
) -> Array:
    """Returns `add(total, batch, counts [B])` folded over examples 0..count-1; `counts` is 0 for
    what only fills up.
    """
    chunk = min(count, chunk)
    places = jnp.arange(-(-count // chunk) * chunk).reshape(-1, chunk)

    def one(total, index):
        batch = examples(jnp.minimum(index, count - 1))
        return add(total, batch, (index < count).astype(jnp.float32)), None

    return jax.lax.scan(one, start, places)[0]


class Moment(NamedTuple):
    """What probes see of a task, at its start or its end.

    Attributes:
      before, after: the state that the task before left, and the one that is measured.
      batch: the fixed probe batch.
      key: for probes that draw.
      task: [] int32.
    """

    before: TrainState
    after: TrainState
    batch: Batch
    key: Key
    task: Array


@jax.named_scope("probes")
def measure(spec: Spec, learner: step.Learner, at: Moment, begun: TrainState) -> Metrics:
    """Returns {column: [] or [K]} of the Spec's probes at the end of a task, and of those that it
    asks for before the first step, in the state `begun`; NaN where it is not their turn.

    A probe that is asked for at both is traced once, as a second time would double what it costs
    to compile.
    """
    starts = [name.removesuffix(START) for name in spec.probes if name.endswith(START)]
    ends = [name for name in spec.probes if not name.endswith(START)]
    twice = [name for name in ends if name in starts]

    def probes(names: Sequence[str], after: TrainState) -> dict[str, Any]:
        snapshot = _snapshot(learner, at._replace(after=after))
        return {name: _with_options(spec, name)(snapshot) for name in names}

    def probed() -> Metrics:
        first = probes([name for name in starts if name not in twice], begun)
        last = probes([name for name in ends if name not in twice], at.after)
        if twice:
            states = jax.tree.map(lambda *leaves: jnp.stack(leaves), begun, at.after)
            found = jax.lax.map(lambda after: probes(twice, after), states)
            first |= jax.tree.map(lambda leaf: leaf[0], found)
            last |= jax.tree.map(lambda leaf: leaf[1], found)
        return _columns(first, START) | _columns(last)

    if spec.probe_every == 1:
        return probed()

    def absent() -> Metrics:
        shapes = jax.eval_shape(probed)
        return jax.tree.map(lambda a: jnp.full(a.shape, not_measured(), a.dtype), shapes)

    return jax.lax.cond((at.task + 1) % spec.probe_every == 0, probed, absent)


def probed(spec: Spec, learner: step.Learner, at: Moment, names: Sequence[str]) -> Metrics:
    """Returns {column: [] or [K]} of these probes of a Spec in the state `at.after`."""
    snapshot = _snapshot(learner, at)
    return _columns({name: _with_options(spec, name)(snapshot) for name in names})


def _columns(found: Mapping[str, Any], suffix: str = "") -> Metrics:
    """What probes found, by column: a probe with several numbers has one for each."""
    columns: Metrics = {}
    for name, values in found.items():
        several = values if isinstance(values, dict) else {"": values}
        for detail, value in several.items():
            columns[f"{name}{suffix}/{detail}" if detail else f"{name}{suffix}"] = value
    return columns


def _snapshot(learner: step.Learner, at: Moment) -> Snapshot:
    """What a probe is given."""
    environment, net = learner.environment, learner.network
    before, after, batch = at.before, at.after, at.batch

    def loss(params: PyTree) -> Array:
        logits, *_ = net.apply(params, after.variables, batch.x, False)
        return step.mean_loss(environment, logits, batch)

    def view(params: PyTree, count: int | None = None) -> View:
        part = jax.tree.map(lambda leaf: leaf[:count], batch)
        return net.view(params, after.variables, part, after.initial)

    def unit_gradients(params: PyTree) -> dict[str, Array]:
        def of_logits(logits: Array) -> Array:
            return step.mean_loss(environment, logits, batch)

        assert net.unit_gradients is not None  # (networks of a Spec have it)
        return dict(net.unit_gradients(of_logits, params, after.variables, batch.x))

    return Snapshot(
        params=after.params,
        previous=before.params,
        initial=after.initial,
        loss=loss,
        hidden=net.apply(after.params, after.variables, batch.x, False)[1],
        previous_hidden=net.apply(before.params, before.variables, batch.x, False)[1],
        key=at.key,
        linear=net.linear,
        view=view,
        activation=net.activation,
        unit_gradients=unit_gradients,
        units=net.structure.units,
    )


def not_measured() -> float:
    """Returns what stands for a number that was not measured: NaN, 0 where jax looks out for it."""
    return 0.0 if jax.config.values["jax_debug_nans"] else jnp.nan


def revisit(
    environment: Environment,
    drawn: Callable[[Array], PyTree],
    examine: Callable[[PyTree], tuple[Metrics, list[Array]]],
    count: int,
    stage: Array,
) -> Metrics:
    """Returns {"revisit_<i>_<name>": []}, the scores of the tasks i = 1..count before this one.

    `drawn` makes a task of its number, `examine` scores it. NaN where there is no such task.
    """

    def one(back: Array) -> Metrics:
        there = stage - back >= 0
        number = environment.schedule(jnp.maximum(stage - back, 0)).task
        found, _ = examine(drawn(number))
        return {name: jnp.where(there, value, not_measured()) for name, value in found.items()}

    found = jax.lax.map(one, jnp.arange(1, count + 1, dtype=jnp.int32))
    columns: Metrics = {}
    for back in range(count):
        columns |= {f"revisit_{back + 1}_{name}": values[back] for name, values in found.items()}
    return columns


def at_points(values: Array, points: int | tuple[int, ...]) -> Array:
    """Returns `values` [steps] at the steps listed, or their `windows` if it is a count."""
    return windows(values, points) if isinstance(points, int) else values[jnp.asarray(points)]


def windows(values: Array, count: int) -> Array:
    """Returns [count] means of `values` [steps] over `count` parts of equal length, to one step."""
    part = jnp.arange(len(values)) * count // len(values)
    sums = jax.ops.segment_sum(values, part, count)
    return sums / jax.ops.segment_sum(jnp.ones_like(values), part, count)


def _with_options(spec: Spec, name: str) -> Callable[[Snapshot], Any]:
    chosen = {option: value for option, value in spec.options if option.startswith(f"{name}.")}
    keyword = {option.removeprefix(f"{name}."): value for option, value in chosen.items()}
    return lambda snapshot: PROBES[name](snapshot, **keyword)
