"""The objective and one optimizer step."""

from typing import NamedTuple

import jax
import optax

from plasticity_jax import methods, registry
from plasticity_jax.optimizers import OPTIMIZERS, SCHEDULES, scheduled
from plasticity_jax.spec import Spec
from plasticity_jax.training.network import Network
from plasticity_jax.types import (
    Array,
    Batch,
    Context,
    Environment,
    Key,
    Lane,
    Optimizer,
    Structure,
    TrainState,
)


class Online(NamedTuple):
    """What a minibatch scored before the step that learns from it: the environment's main metric,
    and the loss.
    """

    metric: Array
    loss: Array


def optimizer(spec: Spec, lane: Lane, structure: Structure, task_steps: int = 1) -> Optimizer:
    """Returns the Spec's optimizer with its methods, built from the lane's (traced) numbers.

    A schedule needs `task_steps`, the steps of a task; what is remembered does not depend on it.
    """
    settings = {**dict(spec.options), **lane}
    base = registry.make(
        OPTIMIZERS, "optimizer", spec.optimizer, settings, learning_rate=lane["learning_rate"]
    )
    schedule = registry.make(SCHEDULES, "schedule", spec.schedule, settings)
    if schedule is not None:
        base = scheduled(base, lambda step: schedule(step, task_steps, task_steps * spec.tasks))
    return methods.build(spec.method, structure, settings)(base)  # (an int32 has no 2**32)


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
        metric = (
            environment.metrics[0].of(logits, batch) * batch.weight
        ).sum() / batch.weight.sum()
    return TrainState(params, variables, state.initial, opt), Online(metric, loss)
