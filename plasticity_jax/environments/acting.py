"""What all environments share in which an agent acts: its loss and its scores."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from plasticity_jax.heads import mean_of_active
from plasticity_jax.types import Array, Batch, Data, Environment, Key, Metric, PyTree, World

REWARD = Metric("reward_rate", "reward per step", better="higher")
RETURN = Metric("episode_return", "return of an episode", better="higher")
Q = Metric("q", "value of the best action", of=lambda outputs, batch: outputs.max(-1))


def environment(
    world: World,
    task: Callable[[Key, Data, Array], PyTree],
    reward: Metric = REWARD,
    ends: bool = True,
) -> Environment:
    """Returns the environment of phases in a world; `reward` is what is known of the reward of a
    step, `ends` whether episodes end.
    """

    def examples(data: Data, task: PyTree, index: Array) -> Batch:
        """What is seen at the beginning of an episode, without targets: what batches are like."""
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), index)
        seen, _ = jax.vmap(world.reset, (0, None, None))(keys, data, task)
        shape = (len(index), world.actions(data))
        weight = jnp.ones(len(index), jnp.float32)
        return Batch(world.view(data, seen), jnp.zeros(shape), weight, jnp.ones(shape, bool))

    return Environment(
        task,
        examples,
        test=None,
        shared="nothing",
        loss=huber,
        metrics=(Q,),
        outputs=world.actions,
        targets="numbers",
        world=world,
        scores=_scores(reward, ends),
    )


class Actions(tuple[int, ...]):
    """Numbers of actions, looked up by what may be traced: int32.

    An array of a device that a program keeps would be copied to the host when it is compiled, and
    runs allow no copies.
    """

    def __getitem__(self, index: Any) -> Any:
        each = (jnp.where(index == place, number, 0) for place, number in enumerate(self))
        return jnp.asarray(sum(each), jnp.int32)


def huber(outputs: Array, batch: Batch) -> Array:
    """Returns [B] the Huber loss of the values of the actions taken: e^2 / 2, linear from |e| = 1.

    Source: Mnih et al. 2015, whose errors are clipped there.
    """
    each = optax.losses.huber_loss(outputs, batch.y)
    return each.mean(-1) if batch.active is None else mean_of_active(each, batch.active)


def _scores(reward: Metric, ends: bool) -> tuple[Metric, ...]:
    """What acting measures, what a run is judged by first."""

    def words(metric: Metric, name: str, text: str) -> Metric:
        return metric._replace(name=name, label=f"{metric.label}{text}")

    rates = [
        reward,
        words(reward, "greedy_reward_rate", " without chance"),
        words(reward, "reward_rate_mean", " over the whole phase"),
    ]
    returns = [
        RETURN,
        words(RETURN, "greedy_return", " without chance"),
        words(RETURN, "episode_return_mean", " over the whole phase"),
    ]
    first, second = (returns, rates) if ends else (rates, returns)
    return (*first, *second, Metric("episodes", "episodes that ended"))
