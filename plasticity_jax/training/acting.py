"""Training where an agent acts: a task is a phase of steps in a world.

Rounds of actions alternate with updates, which are the training steps of every other run: what was
remembered becomes a batch whose targets a target network makes.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from plasticity_jax import heads, lanes, registry
from plasticity_jax.agents import Agent, replay
from plasticity_jax.methods import lifting
from plasticity_jax.models.cpu import draws
from plasticity_jax.probes import numerics
from plasticity_jax.spec import Spec
from plasticity_jax.stream import keys
from plasticity_jax.training import evaluation, network
from plasticity_jax.training import step as step_
from plasticity_jax.training.evaluation import Metrics
from plasticity_jax.training.step import Online
from plasticity_jax.types import (
    FIXED,
    AgentState,
    Array,
    Batch,
    Data,
    Head,
    Key,
    Lane,
    PyTree,
    Start,
    TrainState,
    World,
)

LAST = 5  # scores are of the last of so many equal parts of a phase


class _Phase(NamedTuple):
    """One phase of one lane: what its steps share.

    Attributes:
      number, since: [] int32, of the phase in the stream and in the run.
      task: what defines it.
      begins: [] bool, whether it takes the place of another one.
    """

    spec: Spec
    agent: Agent
    head: Head
    world: World
    learner: step_.Learner
    data: Data
    key: Key
    number: Array
    since: Array
    task: PyTree
    begins: Array

    @property
    def updates(self) -> int:
        """Updates of a phase."""
        return self.agent.updates(self.spec.phase_steps)

    def clock(self, update: Array | int, first: Array | None = None) -> Array:
        """The round of actions before this update's, counted from the run's beginning, or from
        another first phase.
        """
        phases = self.since if first is None else first
        return (phases * self.updates + update) * self.agent.every

    def outputs(self, train: TrainState, seen: PyTree, key: Key | None = None) -> Array:
        """What the network gives [B, ...]; with a key noisy layers have noise."""
        x = self.world.view(self.data, seen)
        return self.learner.network.apply(train.params, train.variables, x, False, key)[0]

    def values(self, train: TrainState, seen: PyTree, key: Key | None = None) -> Array:
        """Values of all actions [B, actions]."""
        return self.head.read(self.outputs(train, seen, key))


class _Acting(NamedTuple):
    """An agent within a phase: its state, what it sees [environments, ...], its world and the
    return of each episode so far.
    """

    agent: AgentState
    seen: PyTree
    world: PyTree
    score: Array


class _Lived(NamedTuple):
    """Means and sums over the copies of the world of one round of actions."""

    reward: Array
    returned: Array
    episodes: Array


def init(spec: Spec, lane: Lane, data: Data) -> AgentState:
    """Returns an agent that has seen nothing."""
    lane = lanes.arrays(spec, lane)
    environment = spec.make_environment(lane)
    net = network.network(spec, environment, data)
    key = jax.random.key(lane["seed"])
    variables = net.init(keys.role(key, keys.INIT))
    params = variables.pop("params")
    optimizer = step_.optimizer(spec, lane, net.structure)
    train = TrainState(params, variables, params, optimizer.init(params))
    agent, world = spec.make_agent(lane), _world(environment.world)
    task = environment.task(keys.role(key, keys.TASK), data, jnp.int32(0))
    seen, _ = _reset(world, agent, data, task, keys.role(key, keys.RESET))
    return AgentState(train, _as_target(train), replay.empty(seen, agent.rows, agent.prioritised))


def with_network(state: AgentState, train: TrainState) -> AgentState:
    """Returns the agent with another network, which its target network becomes too."""
    return state._replace(train=train, target=_as_target(train))


def run_task(
    spec: Spec, lane: Lane, state: AgentState, data: Data, task: Array
) -> tuple[AgentState, Metrics]:
    """Returns the state after a phase, and what was measured; see `supervised.make_run`."""
    if not isinstance(state, AgentState):
        raise ValueError(
            f"state is a {type(state).__name__}: allowed is an AgentState, as init gives it."
        )
    if not registry.is_traced(task):
        registry.whole("task", task, spec.first_task)
    one = _phase(spec, lanes.arrays(spec, lane), data, jnp.asarray(task, jnp.int32))
    before = state.train
    if one.learner.boundaries:
        state = state._replace(train=_begin(one, state))
    begun = state.train
    state, metrics = _lived(one, state)
    metrics |= _greedy(one, state.train)
    found, loss = _probed(one, before, begun, state)
    metrics |= found
    finite = step_.is_finite(state.train, loss)
    was, now = lifting.recycled(before.opt), lifting.recycled(state.train.opt)
    metrics |= {name: (now[name] - was[name]).astype(jnp.float32) for name in now}
    return state, numerics.known(finite, metrics) | {"loss": loss, "finite": finite}


def _world(world: World | None) -> World:
    assert world is not None  # (a Spec with an agent has one)
    return world


def _phase(spec: Spec, lane: Lane, data: Data, number: Array) -> _Phase:
    environment = spec.make_environment(lane)
    net = network.network(spec, environment, data)
    key = jax.random.key(lane["seed"])
    stage, agent = environment.schedule(number), spec.make_agent(lane)
    since = number - spec.first_task
    task = environment.task(keys.role(key, keys.TASK), data, jnp.asarray(stage.task, jnp.int32))
    updates = agent.updates(spec.phase_steps) * stage.parts
    return _Phase(
        spec=spec,
        agent=agent,
        head=spec.make_head(lane),
        world=_world(environment.world),
        learner=step_.learner(spec, lane, environment, net, updates),
        data=data,
        key=key,
        number=number,
        since=since,
        task=task,
        begins=(jnp.asarray(stage.part) == 0) & (since > 0),
    )


def _as_target(train: TrainState) -> PyTree:
    return {"params": train.params, "variables": train.variables}


def _reset(world: World, agent: Agent, data: Data, task: PyTree, key: Key) -> tuple[Any, Any]:
    """What all copies of the world show at the beginning of an episode, and their states."""
    own = jax.random.split(key, agent.environments)
    return jax.vmap(world.reset, (0, None, None))(own, data, task)


def _drawn(one: _Phase, state: AgentState, update: Array, key: Key, count: int) -> replay.Drawn:
    """What is remembered once the actions before an update are taken."""
    agent = one.agent
    how = replay.Window(agent.n, agent.gamma, agent.correction)
    newest = one.clock(update) + agent.every - 1
    return replay.draw(state.replay, newest, draws.as_usual(key), count, how)


def _batch(one: _Phase, state: AgentState, drawn: replay.Drawn, key: Key | None = None) -> Batch:
    """What was remembered, with targets made by the target network; with a key noisy layers have
    noise, each network its own.
    """
    of_target, of_judge = (None, None) if key is None else jax.random.split(key)
    target = TrainState(state.target["params"], state.target["variables"], None, None)
    outputs = one.outputs(target, drawn.after, of_target)
    values = one.head.read(outputs)
    judge = one.values(state.train, drawn.after, of_judge) if one.agent.double else values
    y = heads.bootstrap(one.head)(outputs, judge.argmax(-1), drawn.reward, drawn.discount)
    # where every window was cut there is nothing to learn: the loss is 0
    known = (drawn.weight > 0).any()
    taken = jnp.arange(values.shape[1])[None] == drawn.action[:, None]
    weight = jnp.where(known, drawn.weight, 1.0)
    return Batch(one.world.view(one.data, drawn.seen), y, weight, taken & known)


def _begin(one: _Phase, state: AgentState) -> TrainState:
    """The network after what methods do before a phase, if one begins.

    The gradient that they may look at is that of a minibatch from the phases before.
    """
    learner, train = one.learner, state.train
    key = keys.role(one.key, keys.START, one.number)

    def loss(params: PyTree) -> Array:
        drawn = _drawn(one, state, jnp.int32(-1), key, one.spec.batch_size)
        batch = _batch(one, state, drawn)
        dropped = step_.dropout_key(key)
        outputs, *_ = learner.network.apply(params, train.variables, batch.x, True, dropped)
        return step_.mean_loss(learner.environment, outputs, batch)

    def begun(train: TrainState) -> TrainState:
        structure = learner.network.structure
        start = Start(key, one.number, train.initial, jax.grad(loss), structure)
        params, opt = lifting.begin(
            learner.boundaries, learner.optimizer, train.params, train.opt, start
        )
        return train._replace(params=params, opt=opt)

    return jax.lax.cond(one.begins, begun, lambda train: train, train)


def _lived(one: _Phase, state: AgentState) -> tuple[AgentState, Metrics]:
    """The state after the steps of a phase, and what they scored."""
    seen, world = _reset(
        one.world, one.agent, one.data, one.task, keys.role(one.key, keys.RESET, one.number)
    )
    score = jnp.zeros(one.agent.environments)
    silent = one.agent.silent

    def round_(acting: _Acting, clock: Array) -> tuple[_Acting, _Lived]:
        return _round(one, acting, clock)

    def one_update(acting: _Acting, number: Array) -> tuple[_Acting, tuple[_Lived, Online]]:
        rounds = one.clock(number, one.number) + jnp.arange(one.agent.every)
        acting, lived = jax.lax.scan(round_, acting, rounds)
        done = one.since * one.updates + number  # of the run, those left out among them
        nothing = Online(jnp.float32(0), jnp.float32(0))
        state, online = jax.lax.cond(
            done >= silent,
            functools.partial(_update, one, number),
            lambda state: (state, nothing),
            acting.agent,
        )
        return acting._replace(agent=state), (lived, online)

    acting = _Acting(state, seen, world, score)
    acting, (lived, online) = jax.lax.scan(one_update, acting, jnp.arange(one.updates))
    state = acting.agent
    ended = replay.cut(state.replay, one.clock(one.updates) - 1)
    learnt = one.since * one.updates + jnp.arange(one.updates) >= silent
    return state._replace(replay=ended), _scores(one, lived, online, learnt)


def _round(one: _Phase, acting: _Acting, clock: Array) -> tuple[_Acting, _Lived]:
    """One action in every copy of the world, remembered; `clock` is of the stream."""
    agent, key = one.agent, keys.role(one.key, keys.ACT, clock)
    since = clock - one.spec.first_task * one.updates * agent.every
    values = one.values(acting.agent.train, acting.seen, jax.random.fold_in(key, FIXED))
    by_chance, which = jax.random.split(key)
    count = (agent.environments,)
    chance = jax.random.uniform(by_chance, count) < _epsilon(agent, since)
    any_action = jax.random.randint(which, count, 0, values.shape[1])
    action = jnp.where(chance, any_action, values.argmax(-1).astype(jnp.int32))
    moved = _moved(one, keys.role(one.key, keys.WORLD, clock), acting.world, action)
    new = replay.Experience(acting.seen, action, moved.reward, moved.terminated, moved.truncated)
    remembered = replay.push(acting.agent.replay, since, new)
    score, lived = _counted(acting.score, moved)
    state = acting.agent._replace(replay=remembered)
    return _Acting(state, moved.seen, moved.state, score), lived


def _epsilon(agent: Agent, since: Array) -> Array:
    """The share of actions by chance after so many rounds."""
    if not agent.explore:
        return jnp.asarray(agent.epsilon)
    passed = jnp.minimum(since * (agent.environments / agent.explore), 1.0)
    return 1.0 - (1.0 - agent.epsilon) * passed


def _moved(one: _Phase, key: Key, world: PyTree, action: Array):
    own = jax.random.split(key, one.agent.environments)
    step = jax.vmap(one.world.step, (0, None, None, 0, 0))
    return step(own, one.data, one.task, world, action)


def _counted(score: Array, moved: Any) -> tuple[Array, _Lived]:
    """The return of each episode so far, and what a round scored."""
    over = moved.terminated | moved.truncated
    score = score + (moved.reward if moved.score is None else moved.score)
    ended = over.astype(jnp.float32)
    lived = _Lived(moved.reward.mean(), (score * ended).sum(), ended.sum())
    return jnp.where(over, 0.0, score), lived


def _update(one: _Phase, number: Array, state: AgentState) -> tuple[AgentState, Online]:
    """The state after update `number` of the phase."""
    clock = one.number * one.updates + number
    key = keys.role(one.key, keys.REPLAY, clock)
    drawn = _drawn(one, state, number, key, one.spec.batch_size)
    batch = _batch(one, state, drawn, jax.random.fold_in(key, FIXED))
    noise = keys.role(one.key, keys.NOISE, clock)
    boundary = one.begins & (number == 0)
    remembered = state.replay
    if one.agent.prioritised:
        remembered = replay.judged(
            remembered, drawn, _errors(one, state, drawn), one.agent.priority
        )
    train, online = step_.train_step(one.learner, state.train, batch, noise, clock, boundary)
    done = one.since * one.updates + number - one.agent.silent + 1
    renew = done % one.agent.target_every == 0
    target = jax.tree.map(
        lambda new, old: jnp.where(renew, new, old), _as_target(train), state.target
    )
    return AgentState(train, target, remembered), online


def _errors(one: _Phase, state: AgentState, drawn: replay.Drawn) -> Array:
    """By how much the values of the actions taken miss their targets, [B]."""
    now = one.values(state.train, drawn.seen)
    values = jnp.take_along_axis(now, drawn.action[:, None], axis=1)[:, 0]
    target = TrainState(state.target["params"], state.target["variables"], None, None)
    following = one.values(target, drawn.after)
    judge = one.values(state.train, drawn.after) if one.agent.double else following
    best = jnp.take_along_axis(following, judge.argmax(-1)[:, None], axis=1)[:, 0]
    return drawn.reward + drawn.discount * best - values


def _scores(one: _Phase, lived: _Lived, online: Online, learnt: Array) -> Metrics:
    """What a phase scored, from every round [updates, every] and update [updates]."""
    last = max(one.updates // LAST, 1)
    metrics: Metrics = {
        "reward_rate": lived.reward[-last:].mean(),
        "reward_rate_mean": lived.reward.mean(),
        "episode_return": _ratio(lived.returned[-last:].sum(), lived.episodes[-last:].sum()),
        "episode_return_mean": _ratio(lived.returned.sum(), lived.episodes.sum()),
        "episodes": lived.episodes.sum(),
    }
    for name, values in (("q", online.metric), ("loss", online.loss)):
        metrics[f"online_{name}"] = _ratio(values[-last:].sum(), learnt[-last:].sum())
        metrics[f"online_{name}_mean"] = _ratio(values.sum(), learnt.sum())
    if one.spec.points:
        reward = lived.reward.mean(1)
        metrics[f"{evaluation.POINTS}reward_rate"] = evaluation.at_points(reward, one.spec.points)
    return metrics


def _ratio(total: Array, count: Array) -> Array:
    """The mean of `count` values; of none it is not measured."""
    mean = total / jnp.maximum(count, 1)
    return jnp.where(count > 0, mean, evaluation.not_measured())


def _greedy(one: _Phase, train: TrainState) -> Metrics:
    """What the network scores that acts without chance, in copies of the world of its own."""
    agent, key = one.agent, keys.role(one.key, keys.GREEDY, one.number)
    seen, world = _reset(one.world, agent, one.data, one.task, key)

    def round_(carry: tuple[PyTree, PyTree, Array], number: Array):
        seen, world, score = carry
        action = one.values(train, seen).argmax(-1).astype(jnp.int32)
        moved = _moved(one, jax.random.fold_in(key, number), world, action)
        score, lived = _counted(score, moved)
        return (moved.seen, moved.state, score), lived

    rounds = jnp.arange(agent.evaluate // agent.environments)
    start = (seen, world, jnp.zeros(agent.environments))
    _, lived = jax.lax.scan(round_, start, rounds)
    return {
        "greedy_reward_rate": lived.reward.mean(),
        "greedy_return": _ratio(lived.returned.sum(), lived.episodes.sum()),
    }


def _probed(
    one: _Phase, before: TrainState, begun: TrainState, state: AgentState
) -> tuple[Metrics, Array]:
    """Probes and metrics on a minibatch that stays, its targets frozen, and its loss."""
    key = keys.role(one.key, keys.PROBE, one.number)
    drawn = _drawn(one, state, jnp.int32(one.updates - 1), key, one.spec.probe_samples)
    batch = _batch(one, state, drawn)
    train, environment = state.train, one.learner.environment
    metrics: Metrics = {}
    if one.spec.probes:
        moment = evaluation.Moment(before, train, batch, jax.random.fold_in(key, 1), one.number)
        metrics |= evaluation.measure(one.spec, one.learner, moment, begun)
    outputs, *_ = one.learner.network.apply(train.params, train.variables, batch.x, False)
    for metric in environment.metrics:
        score = metric.of(outputs, batch) * batch.weight
        metrics[metric.name] = score.sum() / batch.weight.sum()
    loss = step_.mean_loss(environment, outputs, batch)
    return metrics, numerics.known(numerics.finite(outputs), loss)


def functions(spec: Spec) -> tuple[Callable[..., AgentState], Callable[..., Any]]:
    """Returns `init` and `run_task` of a Spec with an agent."""
    return functools.partial(init, spec), functools.partial(run_task, spec)
