"""Agents that learn the values of actions (Q-learning)."""

from typing import NamedTuple

from plasticity_jax import registry
from plasticity_jax.types import Number, Period, Share


class Agent(NamedTuple):
    """How an agent acts and learns; see `dqn` for what the settings mean.

    Attributes:
      name: as settings are named after it.
    """

    name: str
    gamma: Number
    epsilon: Number
    explore: int
    environments: int
    every: int
    replay: int
    warmup: int
    target_every: int
    n: int
    double: bool
    dueling: bool
    evaluate: int
    prioritised: bool = False
    priority: Number = 0.0
    correction: Number = 0.0

    @property
    def frames(self) -> int:
        """Steps of the world from one update to the next."""
        return self.environments * self.every

    @property
    def rows(self) -> int:
        """Steps of each copy of the world that are remembered."""
        return self.replay // self.environments

    @property
    def silent(self) -> int:
        """Updates left out at the beginning of a run: `warmup` steps, and until a window fits."""
        return max(-(-self.warmup // self.frames), -(-(self.n + 1) // self.every) - 1)

    def updates(self, phase_steps: int) -> int:
        """Returns the updates of a phase of so many steps, those left out at first among them.

        Raises ValueError if a phase has no whole number of updates, or the first has none.
        """
        if phase_steps % self.frames:
            raise ValueError(
                f"phase_steps is {phase_steps}: allowed are multiples of {self.frames}, the steps "
                f"of {self.environments} environments between updates."
            )
        updates = phase_steps // self.frames
        if self.silent >= updates:
            raise ValueError(
                f"{self.name}.warmup is {self.warmup}, but a phase has {phase_steps} steps: "
                f"allowed are fewer than {phase_steps - self.frames + 1}, so that the first phase "
                "has an update."
            )
        return updates


def none() -> None:
    """No agent: examples are given."""


@registry.checked
def dqn(
    *,
    gamma: Share = 0.99,
    epsilon: Share = 0.05,
    explore: int = 0,
    environments: int = 4,
    every: int = 1,
    replay: int = 4_000,
    warmup: int = 100,
    target_every: Period = 100,
    n: int = 1,
    double: bool = True,
    dueling: bool = False,
    evaluate: int = 1000,
) -> Agent:
    """DQN: Q-learning from memory with a target network; double, n steps and dueling as switches.

    In `environments` copies of the world an action is taken, at random in a share `epsilon` of the
    steps, which falls from 1 over the run's first `explore` steps of the world, otherwise that of
    largest value; after `every` such rounds comes one update on a minibatch of the last `replay`
    steps, the first one after `warmup` steps. Targets are the rewards of `n` steps and, discounted
    by `gamma`, the target network's value of the next action, which `double` chooses by the network
    that learns; every `target_every` updates the target network becomes that one. At the end of a
    phase `evaluate` steps are taken without chance, apart from training. Source: Mnih et al. 2015;
    van Hasselt et al. 2016. Deviation: copies of the world side by side. Raises ValueError for
    settings that do not go together.
    """
    return _checked(
        Agent(
            "dqn",
            gamma=gamma,
            epsilon=epsilon,
            explore=explore,
            environments=environments,
            every=every,
            replay=replay,
            warmup=warmup,
            target_every=target_every,
            n=n,
            double=double,
            dueling=dueling,
            evaluate=evaluate,
        )
    )


@registry.checked
def rainbow(
    *,
    gamma: Share = 0.99,
    epsilon: Share = 0.05,
    priority: Share = 0.5,
    correction: Share = 0.4,
    explore: int = 0,
    environments: int = 4,
    every: int = 1,
    replay: int = 4_000,
    warmup: int = 100,
    target_every: Period = 100,
    n: int = 3,
    double: bool = True,
    dueling: bool = True,
    prioritised: bool = True,
    evaluate: int = 1000,
) -> Agent:
    """Rainbow's parts: double DQN with n steps, dueling outputs and prioritised memory.

    A step is drawn in proportion to its last error to the power `priority`, and its loss weighs
    (number of steps * probability)^-`correction`, over the largest such weight of the minibatch.
    With --head=c51 it learns distributions. Settings else as of `dqn`. Source: Hessel et al. 2018;
    Schaul et al. 2016. Noisy layers are the network's, `--mlp.noisy=true` or `--cnn.noisy=true`,
    then with `epsilon` 0. Deviation: a constant `correction`, and the error is that of values under
    every head, without noise.
    """
    return _checked(
        Agent(
            "rainbow",
            gamma=gamma,
            epsilon=epsilon,
            explore=explore,
            environments=environments,
            every=every,
            replay=replay,
            warmup=warmup,
            target_every=target_every,
            n=n,
            double=double,
            dueling=dueling,
            evaluate=evaluate,
            prioritised=prioritised,
            priority=priority,
            correction=correction,
        )
    )


def _checked(made: Agent) -> Agent:
    """The agent, its counts checked one by one and together."""
    name = made.name
    for count in ("environments", "every", "replay", "target_every", "n", "evaluate"):
        registry.whole(f"{name}.{count}", getattr(made, count), 1, never=count == "target_every")
    for count in ("replay", "evaluate"):
        if getattr(made, count) % made.environments:
            raise ValueError(
                f"{name}.{count} is {getattr(made, count)}: allowed are multiples of "
                f"{name}.environments, which is {made.environments}."
            )
    if made.rows <= made.n:
        raise ValueError(
            f"{name}.replay is {made.replay}: allowed are more than {made.n * made.environments}, "
            f"{made.n} steps of {made.environments} environments."
        )
    return made
