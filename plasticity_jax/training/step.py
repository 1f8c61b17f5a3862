"""The objective and one optimizer step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from plasticity_jax import methods, registry
from plasticity_jax.optimizers import OPTIMIZERS, SCHEDULES, scheduled
from plasticity_jax.probes import numerics
from plasticity_jax.spec import Spec
from plasticity_jax.training.network import Network
from plasticity_jax.types import (
    FIXED,
    Array,
    Batch,
    Context,
    Environment,
    Key,
    Lane,
    Method,
    Optimizer,
    PyTree,
    Structure,
    TrainState,
    View,
)


class Online(NamedTuple):
    """What a minibatch scored before the step that learns from it: the environment's main metric,
    and the loss.
    """

    metric: Array
    loss: Array


class Learner(NamedTuple):
    """What a training step needs that stays the same from step to step.

    Attributes:
      terms: those of the optimizer's methods that add to the loss, in their order.
      boundaries: those that act before a task.
    """

    environment: Environment
    network: Network
    optimizer: Optimizer
    terms: tuple[methods.Term, ...] = ()
    boundaries: tuple[methods.Boundary, ...] = ()


def learner(
    spec: Spec, lane: Lane, environment: Environment, net: Network, task_steps: int = 1
) -> Learner:
    """Returns what trains the Spec's network, built from the lane's (traced) numbers."""
    given = parts(spec, lane, net.structure)
    terms = tuple(part for part in given if isinstance(part, methods.Term))
    boundaries = tuple(part for part in given if isinstance(part, methods.Boundary))
    tx = methods.compose(*given)(_bare(spec, lane, task_steps))
    return Learner(environment, net, tx, terms, boundaries)


def parts(spec: Spec, lane: Lane, structure: Structure) -> list[Method]:
    """Returns the Spec's methods one by one, built from the lane's (traced) numbers."""
    return methods.parts(spec.method, structure, _settings(spec, lane))


def optimizer(spec: Spec, lane: Lane, structure: Structure, task_steps: int = 1) -> Optimizer:
    """Returns the Spec's optimizer with its methods, built from the lane's (traced) numbers.

    A schedule needs `task_steps`, the steps of a task; what is remembered does not depend on it.
    """
    return methods.compose(*parts(spec, lane, structure))(_bare(spec, lane, task_steps))


def _settings(spec: Spec, lane: Lane) -> dict[str, Any]:
    return {**dict(spec.options), **lane}  # (an int32 has no 2**32)


def _bare(spec: Spec, lane: Lane, task_steps: int) -> optax.GradientTransformation:
    """The Spec's optimizer with its schedule, without methods."""
    settings = _settings(spec, lane)
    base = registry.make(
        OPTIMIZERS, "optimizer", spec.optimizer, settings, learning_rate=lane["learning_rate"]
    )
    schedule = registry.make(SCHEDULES, "schedule", spec.schedule, settings)
    if schedule is None:
        return base
    return scheduled(base, lambda step: schedule(step, task_steps, task_steps * spec.tasks))


def mean_loss(environment: Environment, logits: Array, batch: Batch) -> Array:
    """Returns the mean loss over the examples that count, []."""
    return (environment.loss(logits, batch) * batch.weight).sum() / batch.weight.sum()


def is_finite(state: TrainState, losses: PyTree) -> Array:
    """Returns whether a network and its losses are finite, [] bool: parameters, and what norms and
    the optimizer remember, since a second moment that overflowed holds its parameter for ever.
    """
    kept = jax.tree.leaves((state.variables, state.opt))
    # (one number alone may begin at infinity, such as the best value so far)
    arrays = [leaf for leaf in kept if leaf.ndim and jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return numerics.finite(state.params, arrays, losses)


def dropout_key(key: Key) -> Key:
    """Returns the key of what a network drops, from that of a step, which methods draw from."""
    return jax.random.fold_in(key, FIXED)


def train_step(
    learner: Learner,
    state: TrainState,
    batch: Batch,
    key: Key,
    clock: Array,
    boundary: Array,
) -> tuple[TrainState, Online]:
    """Returns the state after one optimizer step on `batch`, and what the batch scored before it.

    `online.loss` is without what methods add to the loss.
    """
    environment, net, tx, terms, _ = learner

    def applied(params):
        return net.apply(params, state.variables, batch.x, True, dropout_key(key))

    @jax.named_scope("forward")
    def objective(params):
        logits, hidden, variables = applied(params)
        loss = mean_loss(environment, logits, batch)
        if not terms:
            return loss, (loss, logits, hidden, variables)
        view = View(
            batch,
            logits,
            hidden,
            {},
            params,
            state.initial,
            features=lambda p: applied(p)[1],
            loss=lambda p: mean_loss(environment, applied(p)[0], batch),
        )
        added = methods.objective(terms, state.opt, view)
        return loss + added, (loss, logits, hidden, variables)

    with jax.default_matmul_precision(net.products):
        passes = jax.value_and_grad(objective, has_aux=True)
        (_, (loss, logits, hidden, variables)), gradient = passes(state.params)
    ctx = Context(key, clock, boundary, hidden, gradient)
    with jax.named_scope("method"):
        updates, opt = tx.update(gradient, state.opt, state.params, ctx=ctx)
    with jax.named_scope("optimizer"):
        params = optax.apply_updates(state.params, updates)
    with jax.named_scope("forward"):
        metric = (
            environment.metrics[0].of(logits, batch) * batch.weight
        ).sum() / batch.weight.sum()
    return TrainState(params, variables, state.initial, opt), Online(metric, loss)
