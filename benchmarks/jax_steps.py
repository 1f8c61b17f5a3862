"""Bare training steps of any model through the library's train step: no evaluation, no probes, no
tasks that mix.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import worker
from benchmarks.worker import Go
from plasticity_jax import Spec, environments, lanes
from plasticity_jax.environments import text
from plasticity_jax.execution import placement
from plasticity_jax.training import network
from plasticity_jax.training import step as step_
from plasticity_jax.types import Batch, Data, Environment, Metric, Text, TrainState

LENGTH, SYMBOLS = 64, 32  # of the texts: ids in a source and in a target, and ids that there are


class Subject(NamedTuple):
    """What is trained on what."""

    spec: Spec
    environment: Environment
    data: Data


def mlp(samples: int, batch_size: int) -> Subject:
    """Random labels for MNIST-shaped noise."""
    spec = Spec(batch_size=batch_size, probes=())
    return Subject(spec, environments.random_labels(), worker.data(samples))


def resnet18(samples: int, batch_size: int) -> Subject:
    """Random labels for noise of 32x32x3, batch norm, Adam."""
    spec = Spec(model="resnet18", norm="batch", batch_size=batch_size, probes=())
    return Subject(spec, environments.random_labels(), worker.data(samples, (32, 32, 3)))


def cnn(samples: int, batch_size: int) -> Subject:
    """Random labels for noise of 32x32x3, Adam."""
    spec = Spec(model="cnn", batch_size=batch_size, probes=())
    return Subject(spec, environments.random_labels(), worker.data(samples, (32, 32, 3)))


def t5(samples: int, batch_size: int) -> Subject:
    """One block a side, width 256, 4 heads of 64, 2,048 feed-forward units, AdamW, on random
    ids.
    """
    spec = Spec(
        model="t5", environment="random_seq2seq", dataset="generated", transition="sampling",
        optimizer="adamw", width=256, depth=1, batch_size=batch_size, probes=(),
    )  # fmt: skip
    return Subject(spec, random_ids(), worker.data(samples, (1, 1, 1)))


def vit(samples: int, batch_size: int, side: int = 32) -> Subject:
    """Random labels for noise of `side` x `side` x 3, layer norm, dropout 0.1, Adam."""
    spec = Spec(model="vit", norm="layer", batch_size=batch_size, probes=())
    return Subject(spec, environments.random_labels(), worker.data(samples, (side, side, 3)))


SUBJECTS: dict[str, Callable[..., Subject]] = {
    "mlp": mlp,
    "cnn": cnn,
    "resnet18": resnet18,
    "t5": t5,
    "vit": vit,
}


def of_numbers(subject: Subject, head: str) -> Subject:
    """Returns a subject that is trained on a random network's outputs, read by a head."""
    spec = dataclasses.replace(
        subject.spec, environment="target_offset", transition="abrupt", head=head
    )
    return subject._replace(spec=spec, environment=spec.make_environment({}))


def random_ids() -> Environment:
    """Random ids in, random ids out, all but padding (0), which is also the decoder's first."""

    def task(key, data, number):
        key = jax.random.fold_in(key, number)
        return jax.random.randint(key, (2, len(data.x), LENGTH), 1, SYMBOLS)

    def examples(data, task, index):
        source, target = task[0][index], task[1][index]
        inputs = jnp.pad(target, ((0, 0), (1, 0)))[:, :-1]
        return Batch(Text(source, inputs), target, jnp.ones(target.shape))

    return Environment(
        task, examples, None, shared="nothing", loss=text.cross_entropy,
        metrics=(Metric("token_accuracy", of=text.token_accuracy),), inputs="text",
        outputs=lambda data: SYMBOLS,
    )  # fmt: skip


def training(
    model: str,
    steps: int,
    batch_size: int = 64,
    count: int = 1,
    method: str = "none",
    scanned: bool = True,
    strategy: str | None = None,
    width: int | None = None,
    task: int = worker.TASK,
    *,
    norm: str | None = None,
    head: str | None = None,
    side: int | None = None,
) -> Go:
    """Trains `count` lanes of `model` with `method` for `steps` steps a call. Work: lane-steps.

    `norm` replaces the model's usual one; with a `head` targets are numbers (`of_numbers`).

    Lanes are executed as a sweep does it, by default or as `strategy` and `width` say; steps are a
    scan in one program, or else (`scanned=False`) each step is a call of a program of its own.
    Their numbers go on from call to call, and the first of every `task` of them begins a task, so a
    method does what it does at such a step and at every so many.
    """
    worker.set_up_jax()
    samples = min(steps * batch_size, worker.SAMPLES)
    size = {} if side is None else {"side": side}
    subject = SUBJECTS[model](samples, batch_size, **size)
    own: dict[str, Any] = {"method": method, "precision": worker.precision()}
    if norm is not None:
        own["norm"] = norm
    subject = subject._replace(spec=dataclasses.replace(subject.spec, **own))
    subject = subject if head is None else of_numbers(subject, head)
    how = placement.execution(model, count, strategy, width)
    where = placement.placement(how)
    given = [lanes.complete(subject.spec, {"seed": seed}) for seed in range(count)]
    given += given[-1:] * (placement.padded(count, how) - count)
    numbers = jax.device_put(lanes.stack(given), where.lanes)
    data = jax.device_put(subject.data, where.shared)
    init, several, one = pure(subject, samples, task)
    options = placement.options(model)
    init = placement.over_lanes(init, how, split=1)
    run = placement.over_lanes(several if scanned else one, how, split=2, options=options)
    if how.strategy != "plain":
        init, run = (
            placement.jit_once(init),
            jax.jit(run, donate_argnums=1, compiler_options=options),
        )
    states, done = init(numbers, data), 0
    clocks = np.arange(steps, dtype=np.int32)
    calls = clocks[None] if scanned else clocks

    def go():
        nonlocal states, done
        for part in calls:
            states, metric = run(
                numbers, states, data, jax.device_put(part + np.int32(done), where.shared)
            )
            jax.block_until_ready(metric)
        done += steps
        return float(count * steps)

    return go


def pure(
    subject: Subject, samples: int, task: int = worker.TASK
) -> tuple[Callable, Callable, Callable]:
    """Returns functions of one lane: init(lane, data), several(lane, state, data, clocks [steps]),
    one(.., clock []).
    """
    spec, environment, _ = subject

    def built(lane, data):
        net = network.network(spec, environment, data)
        return step_.learner(spec, lane, environment, net)

    def init(lane, data):
        learner = built(lane, data)
        variables = learner.network.init(jax.random.key(lane["seed"]))
        params = variables.pop("params")
        return TrainState(params, variables, params, learner.optimizer.init(params))

    def stepping(lane, data) -> Callable[[TrainState, Any], tuple[TrainState, Any]]:
        learner = built(lane, data)
        key = jax.random.key(lane["seed"])
        drawn = environment.task(key, data, 0)

        def step(state, clock):
            index = (clock * spec.batch_size + jnp.arange(spec.batch_size)) % samples
            batch = environment.examples(data, drawn, index)
            return step_.train_step(learner, state, batch, key, clock, clock % task == 0)

        return step

    def several(lane, state, data, clocks):
        return jax.lax.scan(stepping(lane, data), state, clocks)

    def one(lane, state, data, clock):
        return stepping(lane, data)(state, clock)

    return init, several, one
