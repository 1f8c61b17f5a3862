"""Agents: how a network acts in a world and learns from what it remembers of it.

A new one is one factory of an `Agent` and one line in AGENTS. What the network learns is
regression: targets are made from what was remembered and a target network, so heads, methods,
optimizers and probes are those of every other run.
"""

from plasticity_jax.agents.value import Agent, dqn, none, rainbow
from plasticity_jax.types import Environment

__all__ = ["AGENTS", "Agent", "check_fit", "dqn", "none", "rainbow", "usual"]

AGENTS = {
    "none": none,
    "dqn": dqn,
    "rainbow": rainbow,
}
PHASE = 10_000  # usual steps of a phase


def usual(environment: Environment) -> tuple[str, int]:
    """Returns the agent and the steps of a phase that are taken where none are named."""
    return ("none", 0) if environment.world is None else ("dqn", PHASE)


def check_fit(agent: str, phase_steps: int, environment: Environment, where: str) -> None:
    """Raises ValueError if there is an agent and no world to act in, or the other way round;
    `where` is what to call the environment.
    """
    acting = [name for name in AGENTS if name != "none"]
    if environment.world is None:
        if agent != "none":
            raise ValueError(
                f"agent is {agent!r}, but examples of {where} are given and not acted for: allowed "
                "is none, or an environment to act in such as bandit."
            )
        if phase_steps:
            raise ValueError(
                f"phase_steps is {phase_steps}, but a task of {where} is of epochs: leave it out."
            )
        return
    if agent == "none":
        raise ValueError(
            f"agent is 'none', but {where} is acted in: allowed are {', '.join(acting)}."
        )
    if not phase_steps:
        raise ValueError(f"phase_steps is 0: allowed in {where} are whole numbers from 1.")
