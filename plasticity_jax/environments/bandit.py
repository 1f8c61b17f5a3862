"""A contextual bandit over the images of a dataset."""

import jax
import jax.numpy as jnp

from plasticity_jax import registry
from plasticity_jax.environments import acting, classification
from plasticity_jax.types import Array, Data, Environment, Key, Moved, PyTree, World


@registry.checked
def bandit(*, draw: str = "iid", change: bool = True) -> Environment:
    """Contextual bandit: an image is seen and a class named; the reward is 1 for its label, else 0.

    The next image is drawn at random, whatever was named, and no episode ends: with gamma 0 it is
    classification from rewards, with a larger one the same with targets that move. Labels are drawn
    anew in each phase, uniformly (`draw="iid"`), or the dataset's classes are given to each other
    in random order (`"classes"`). `change=False` is a control: every phase is the first one again.
    Source: after Lyle et al. 2024, "Disentangling the Causes of Plasticity Loss"; labels as in
    `random_labels`. Raises ValueError for another `draw`.
    """
    registry.one_of("bandit.draw", draw, ("iid", "classes"))

    def task(key: Key, data: Data, t: Array) -> Array:
        key = jax.random.fold_in(key, t if change else 0)
        if draw == "classes":
            return jax.random.permutation(key, data.classes)[data.y]
        return jax.random.randint(key, data.y.shape, 0, data.classes)

    def chance(data: Data) -> float:
        return classification.most_frequent(data) if draw == "classes" else 1 / data.classes

    reward = acting.REWARD._replace(share=True, chance=chance)
    world = World(_reset, _step, _view, actions=lambda data: data.classes)
    return acting.environment(world, task, reward, ends=False)


def _reset(key: Key, data: Data, task: PyTree) -> tuple[Array, Array]:
    """The row of a random image is both what is seen and the state."""
    del task
    row = jax.random.randint(key, (), 0, len(data.y))
    return row, row


def _step(key: Key, data: Data, task: PyTree, row: Array, action: Array) -> Moved:
    reward = (task[row] == action).astype(jnp.float32)
    following, _ = _reset(key, data, task)
    return Moved(following, following, reward, jnp.bool_(False), jnp.bool_(False))


def _view(data: Data, rows: Array) -> Array:
    return classification.normalise(data.x[rows], data.mean, data.std)
