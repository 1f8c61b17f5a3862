"""From the theorem to a network: what of its conditions can be found along a real transition
between two tasks.

The network is trained to near convergence on task 0, then on each of K micro-tasks in turn. Between
consecutive ends θ_{k-1} and θ_k it is measured how far the network moved, how curved the loss of
micro-task k is, and whether the conditions hold that gradient descent from θ_{k-1} would need. Ends
of training stand in for the theorem's minima, which need not exist.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from plasticity_jax import registry
from plasticity_jax.precision import in_float32
from plasticity_jax.probes import curvature
from plasticity_jax.spec import Spec
from plasticity_jax.stream import keys, order, transitions
from plasticity_jax.training import network
from plasticity_jax.training import step as step_
from plasticity_jax.types import Array, Data, Environment, PyTree, TrainState, Transition

POINTS = 41  # on the segment between two consecutive ends


class Step(NamedTuple):
    """What one micro-task did to the network, [] each; L is its loss on all its examples, H the
    Hessian of L.

    Attributes:
      alpha: share of the new task.
      loss_before, loss: L at θ_{k-1} and at θ_k.
      gradient_norm: ‖∇L(θ_k)‖; zero at a minimum.
      moved: ‖θ_k - θ_{k-1}‖ / ‖θ_{k-1}‖.
      epsilon: moved / (1 + moved), the least ε whose bound ε / (1 - ε) ‖θ*‖ covers the move: Lemma
        4.6 read backwards.
      top, top_residual: largest eigenvalue of H at θ_k, which beta must reach, with the residual of
        the Ritz pair.
      bottom: an upper bound on the smallest eigenvalue of H at θ_k, so a value that is not positive
        disproves local strong
        convexity: the lesser of `null` and of what Lanczos finds on -H, whose Ritz values err on
          that side alone.
      bottom_residual: of that Ritz pair; the Lanczos value lies so close to some eigenvalue.
      along: curvature of L at θ_k along the step, d·Hd / ‖d‖², mu on the line spanned by the
        movement.
      secant_convexity: ⟨∇L(θ_{k-1}), θ_{k-1} - θ_k⟩ / ‖θ_{k-1} - θ_k‖². All that the proof of Lemma
        4.3 uses of mu at its first step; positive if a small gradient step from θ_{k-1} comes
        nearer to θ_k.
      secant_smoothness: ‖∇L(θ_{k-1})‖ / ‖θ_{k-1} - θ_k‖, all that it uses of beta.
      barrier: largest rise of L on the segment from θ_{k-1} to θ_k above the higher of its ends; 0
        if there is none.
      bulge: largest rise of L on the segment above its chord; 0 if L is convex as far as the
        segment shows.
      null: curvature of L at θ_k along a change of all head biases alike, which changes no
        probability: zero by symmetry.
    """

    alpha: Array
    loss_before: Array
    loss: Array
    gradient_norm: Array
    moved: Array
    epsilon: Array
    top: Array
    top_residual: Array
    bottom: Array
    bottom_residual: Array
    along: Array
    secant_convexity: Array
    secant_smoothness: Array
    barrier: Array
    bulge: Array
    null: Array


class Bridge(NamedTuple):
    """The compiled functions of a bridge.

    Attributes:
      init: (seed, data) -> TrainState.
      settle: (seed, state, data, task, alpha, learning_rate) -> TrainState after `spec.epochs`
        epochs on one micro-task.
      measure: (seed, before, after, data, task, alpha) -> Step.
    """

    init: Callable[..., TrainState]
    settle: Callable[..., TrainState]
    measure: Callable[..., Step]


@functools.cache
def make_bridge(spec: Spec, lanczos: int = 60) -> Bridge:
    """Returns the functions of a bridge for `spec`, whose `epochs` are those of one round; cached,
    so compiled once.

    Training is the framework's own step on the framework's own stream, Adam on minibatches, whose
    step size falls linearly to zero within each round so that its noise dies away; moments carry
    over, as they do between tasks. `lanczos` is the number of Hessian-vector products for each end
    of the spectrum; the lower end, which lies next to a crowd of eigenvalues near zero, converges
    slowly, hence the residual. Assumes a network without batch statistics. Raises ValueError for a
    Spec with batch norm or with a transition that does not fit.
    """
    registry.one_of("norm", spec.norm, ("none", "layer"))
    transition = transitions.TRANSITIONS[spec.transition]
    course = _Course(spec, spec.make_environment(), transition, lanczos)
    functions = (course.init, course.settle, course.measure)
    return Bridge(*(jax.jit(in_float32(function)) for function in functions))


class _Course(NamedTuple):
    """What is trained and measured, and how; with the functions of its `Bridge`."""

    spec: Spec
    environment: Environment
    transition: Transition
    lanczos: int

    def init(self, seed: Array, data: Data) -> TrainState:
        variables = self.network(data).init(keys.role(jax.random.key(seed), keys.INIT))
        params = variables["params"]
        optimizer = self.optimizer(data, jnp.float32(0))
        return TrainState(params, {}, params, optimizer.init(params))

    def settle(
        self,
        seed: Array,
        state: TrainState,
        data: Data,
        task: Array,
        alpha: Array,
        learning_rate: Array,
    ) -> TrainState:
        key = jax.random.key(seed)
        plan = order.plan(self.environment, key, data, task)
        tx = self.optimizer(data, learning_rate)
        learner = step_.Learner(self.environment, self.network(data), tx)

        def one_step(state, places):
            batch = order.batch(self.environment, self.transition, plan, data, places, alpha)
            never = jnp.asarray(False)
            return step_.train_step(learner, state, batch, key, jnp.int32(0), never)

        def one_epoch(state, epoch):
            places = order.epoch(key, len(data.x), self.spec.batch_size, task, epoch)
            return jax.lax.scan(one_step, state, places)

        return jax.lax.scan(one_epoch, state, jnp.arange(self.spec.epochs))[0]

    def measure(
        self,
        seed: Array,
        before: TrainState,
        after: TrainState,
        data: Data,
        task: Array,
        alpha: Array,
    ) -> Step:
        key = jax.random.key(seed)
        loss = self.loss(key, after.params, data, task, alpha)
        here, there = ravel_pytree(after.params)[0], ravel_pytree(before.params)[0]
        start = jax.random.normal(keys.role(key, keys.PROBE, task), here.shape)
        alike = _all_alike(after.params, data.classes)
        curved = _curved(loss, here, start, alike, self.lanczos)
        return _between(loss, there, here, curved, alpha)

    def loss(
        self, key: Array, params: PyTree, data: Data, task: Array, alpha: Array
    ) -> Callable[[Array], Array]:
        """Returns the loss on all examples of a micro-task, of parameters as one vector."""
        net, unravel = self.network(data), ravel_pytree(params)[1]
        plan, everyone = order.plan(self.environment, key, data, task), jnp.arange(len(data.x))
        whole = order.batch(self.environment, self.transition, plan, data, everyone, alpha)

        def of_flat(flat: Array) -> Array:
            logits, *_ = net.apply(unravel(flat), {}, whole.x, False)
            return step_.mean_loss(self.environment, logits, whole)

        return of_flat

    def network(self, data: Data) -> network.Network:
        """Returns the network for the examples of `data`."""
        return network.network(self.spec, self.environment, data)

    def optimizer(self, data: Data, learning_rate: Array) -> optax.GradientTransformationExtraArgs:
        """Returns Adam with a step size that falls to zero within each round."""
        steps = self.spec.epochs * order.steps_per_epoch(len(data.x), self.spec.batch_size)

        def falling(count: Any) -> Array:
            return learning_rate * (1 - jnp.asarray(count) % steps / steps)

        return optax.with_extra_args_support(optax.adam(falling))


def _all_alike(params: PyTree, classes: int) -> Array:
    """The direction of unit length in which all head biases change alike, flat."""
    alike = jax.tree.map(jnp.zeros_like, params)
    alike["head"]["bias"] = jnp.ones_like(alike["head"]["bias"]) / classes**0.5
    return ravel_pytree(alike)[0]


class _Curved(NamedTuple):
    """The Hessian at the end: its product with a vector, the upper and lower end of its spectrum as
    found on it and on its negative, and its curvature along a direction that changes nothing.
    """

    product: Callable[[Array], Array]
    ends: curvature.Ritz
    null: Array


def _curved(
    loss: Callable[[Array], Array], here: Array, start: Array, shift: Array, lanczos: int
) -> _Curved:
    product = curvature.hessian_vector_product(loss, here)

    def top(sign: Array) -> curvature.Ritz:
        return curvature.top_eigenvalue(lambda v: sign * product(v), start, lanczos)

    signs = jnp.array([1.0, -1.0])  # -H has the lower end of the spectrum on top
    return _Curved(product, jax.lax.map(top, signs), shift @ product(shift))


def _between(
    loss: Callable[[Array], Array], there: Array, here: Array, curved: _Curved, alpha: Array
) -> Step:
    """What a step from `there` to `here` did."""
    step = here - there
    length = jnp.linalg.norm(step)
    moved = length / jnp.linalg.norm(there)
    loss_before, gradient_before = jax.value_and_grad(loss)(there)
    loss_after, gradient_after = jax.value_and_grad(loss)(here)
    share = jnp.linspace(0, 1, POINTS)
    on_segment = jax.lax.map(lambda s: loss(there + s * step), share)
    chord = (1 - share) * loss_before + share * loss_after
    top, bottom = curved.ends.value
    top_residual, bottom_residual = curved.ends.residual
    return Step(
        alpha=alpha,
        loss_before=loss_before,
        loss=loss_after,
        gradient_norm=jnp.linalg.norm(gradient_after),
        moved=moved,
        epsilon=moved / (1 + moved),
        top=top,
        top_residual=top_residual,
        bottom=jnp.minimum(-bottom, curved.null),
        bottom_residual=bottom_residual,
        along=step @ curved.product(step) / length**2,
        secant_convexity=gradient_before @ -step / length**2,
        secant_smoothness=jnp.linalg.norm(gradient_before) / length,
        barrier=jnp.maximum(on_segment.max() - jnp.maximum(loss_before, loss_after), 0),
        bulge=jnp.maximum((on_segment - chord).max(), 0),
        null=curved.null,
    )


class Training(NamedTuple):
    """How long the network is trained, and from which seed and learning rate.

    Attributes:
      rounds: of a Bridge's `settle`, in all.
    """

    rounds: int
    seed: int = 0
    learning_rate: float = 1e-3


def train_rounds(
    bridge: Bridge, state: TrainState, data: Data, task: int, alpha: float, training: Training
) -> TrainState:
    """Returns the state after training on the mixture `alpha` of `task` with the one before it."""
    number, share = jnp.int32(task), jnp.float32(alpha)
    rate = jnp.float32(training.learning_rate)
    for _ in range(training.rounds):
        state = bridge.settle(training.seed, state, data, number, share, rate)
    return state


def walk(
    bridge: Bridge, state: TrainState, data: Data, granularity: int, training: Training
) -> list[Step]:
    """Returns the Steps of a transition from task 0, where `state` was trained, to task 1 in
    `granularity` micro-tasks.

    Every walk trains for as many rounds in all, shared equally between its micro-tasks, so that
    granularities compare at the same cost. Numbers as numpy float32. Raises ValueError if
    granularity does not divide rounds.
    """
    rounds = training.rounds
    if granularity < 1 or rounds % granularity:
        raise ValueError(
            f"granularity is {granularity}: allowed are divisors of the number of rounds, {rounds}."
        )
    each = training._replace(rounds=rounds // granularity)
    steps = []
    for k in range(1, granularity + 1):
        after = train_rounds(bridge, state, data, 1, k / granularity, each)
        alpha = jnp.float32(k / granularity)
        found = bridge.measure(training.seed, state, after, data, jnp.int32(1), alpha)
        steps.append(jax.tree.map(np.asarray, found))
        state = after
    return steps
