"""Transitions: how one task turns into the next. A new one is one function and one line in
TRANSITIONS.

Source: Liu & Mou 2026, section 4. Their step size delta is 1 / granularity here; an abrupt change
is granularity 1.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from plasticity_jax.types import Array, Batch, Environment, Transition


def transition_steps(fraction: Any, steps: int) -> Any:
    """Returns how many of a task's `steps` the transition takes: fraction * steps, rounded, in the
    type of `fraction`.

    Works alike on a numpy and on a traced float32, so that the check before a run and the program
    agree.
    """
    return (fraction * steps).round()


def alpha_at(step: Array, steps: Array, granularity: Array) -> Array:
    """Returns the interpolation coefficient at `step` of a task whose transition takes `steps`, []
    float32 in (0, 1].

    K = granularity plateaus of equal length (to within a step) at 1/K, 2/K, .. 1, then 1 for the
    rest of the task. Exact integer arithmetic in uint32, hence granularity * steps < 2**32 is
    required. K = 1 gives 1 everywhere.
    """
    step, steps, granularity = (
        jnp.asarray(a).astype(jnp.uint32) for a in (step, steps, granularity)
    )
    within = jnp.minimum(step, jnp.maximum(steps, 1) - 1)
    plateau = within * granularity // jnp.maximum(steps, 1) + 1
    plateau = jnp.where(step < steps, plateau, granularity)
    # compiled for many steps at once, K / K is K * (1 / K), which for some K is not 1
    return jnp.where(
        plateau == granularity, 1.0, plateau.astype(jnp.float32) / granularity.astype(jnp.float32)
    )


def check_plateaus(granularity: int, fraction: float, steps: int) -> None:
    """Raises ValueError if a transition that takes a `fraction` of a task's `steps` has no
    `granularity` plateaus.
    """
    length = int(transition_steps(np.float32(fraction), steps))
    if granularity > 1 and length < granularity:
        raise ValueError(
            f"granularity is {granularity}, but the transition has {length} steps "
            f"({fraction:g} of {steps}): allowed are as many plateaus as steps."
        )
    if granularity * max(length, 1) >= 2**32:
        raise ValueError(
            f"granularity is {granularity}: allowed is at most {(2**32 - 1) // length} for "
            f"{length} steps."
        )


def interpolate_outputs(old: Batch, new: Batch, alpha: Array, rank: Array) -> Batch:
    """Output interpolation: the old target anneals to uniform, then uniform anneals to the new
    target.

    With u = 1/C: (1 - 2a) y_old + 2a u for a <= 1/2, (2 - 2a) u + (2a - 1) y_new for a >= 1/2. At a
    = 1/2 the target is uniform, so accuracy during a transition means little. Inputs must be the
    same in both tasks. Source: Liu & Mou 2026, section 4.
    """
    del rank
    _check_all_count("output", old, new)
    uniform = _uniform(new.y)
    to_uniform = (1 - 2 * alpha) * old.y + 2 * alpha * uniform
    to_new = (2 - 2 * alpha) * uniform + (2 * alpha - 1) * new.y
    return new._replace(y=jnp.where(alpha < 0.5, to_uniform, to_new))


def interpolate_inputs(old: Batch, new: Batch, alpha: Array, rank: Array) -> Batch:
    """Input interpolation: x = (1 - a) x_old + a x_new, pixel by pixel; targets must be the same in
    both tasks. Source: Liu & Mou 2026, section 4.
    """
    del rank
    _check_all_count("input", old, new)
    return new._replace(x=(1 - alpha) * old.x + alpha * new.x)


def smooth_outputs(old: Batch, new: Batch, alpha: Array, rank: Array) -> Batch:
    """Control, not a gradual change: the new task at once, its targets half uniform for as long as
    a transition lasts.

    With u = 1/C: (y_new + u) / 2 for a < 1. The mean share of u in a finely stepped output
    interpolation is one half, so this is soft targets without interpolation between tasks. Inputs
    must be the same in both tasks. Source: ours, a control for Liu & Mou 2026.
    """
    del rank
    _check_all_count("smoothing", old, new)
    uniform = _uniform(new.y)
    return new._replace(y=jnp.where(alpha < 1, 0.5 * new.y + 0.5 * uniform, new.y))


def anneal_outputs(old: Batch, new: Batch, alpha: Array, rank: Array) -> Batch:
    """Control, no gradual change of labels: the new task at once, its targets annealed from uniform
    to themselves.

    With u = 1/C: a y_new + (1 - a) u, on the plateaus of a gradual change, so softness leaves in
    small steps while no label is a mixture of two tasks. The mean share of u over K plateaus is
    (K - 1) / 2K, that of output interpolation one half. Inputs must be the same in both tasks.
    Source: ours, a control for Liu & Mou 2026.
    """
    del rank
    _check_all_count("annealing", old, new)
    uniform = _uniform(new.y)
    return new._replace(y=alpha * new.y + (1 - alpha) * uniform)


def sample_tasks(old: Batch, new: Batch, alpha: Array, rank: Array) -> Batch:
    """Task sampling: a share a of the examples, the same ones throughout a plateau, already belongs
    to the new task.

    Example i comes from the new task iff rank_i < a, so the sets are nested as a grows. With the
    batches of `stream.order.epoch` the share is exact in the task (round(a n) examples) and in
    every minibatch (floor or ceil of a B). Source: Liu & Mou 2026, section 4.
    """
    if (old.active is None) != (new.active is None):
        raise ValueError(
            "transition sampling is given `active` of one of two batches: allowed are both or none."
        )
    take_new = rank < alpha

    def pick(o, n):
        return jnp.where(take_new.reshape(-1, *[1] * (n.ndim - 1)), n, o)

    return jax.tree.map(pick, old, new)


def _check_all_count(name: str, old: Batch, new: Batch) -> None:
    """Raises ValueError where not all outputs count, as those that do may differ between tasks."""
    if old.active is not None or new.active is not None:
        raise ValueError(
            f"transition {name} mixes tasks in which other outputs count (Batch.active): allowed "
            "are sampling and abrupt."
        )


def _uniform(y: Array) -> float:
    """Returns what a uniform distribution has for each class, where `y` [..., C] may hold
    distributions.
    """
    if not jnp.issubdtype(y.dtype, jnp.floating) or y.ndim < 2 or y.shape[-1] < 2:
        raise ValueError(
            f"targets are {y.dtype} {list(y.shape)}: allowed in this transition are distributions "
            "over C >= 2 classes, "
            "floats [B, C]."
        )
    return 1 / y.shape[-1]


def fitting(environment: Environment) -> list[str]:
    """Returns the names of the transitions that an environment allows."""
    return [name for name, transition in TRANSITIONS.items() if _fits(transition, environment)]


def _fits(transition: Transition, environment: Environment) -> bool:
    if environment.world is not None and transition.gradual:
        return False
    shared = transition.needs in ("nothing", environment.shared)
    return shared and transition.targets in ("anything", environment.targets)


def check_fit(transition: Transition, environment: Environment, name: str, where: str) -> None:
    """Raises ValueError if an environment does not allow a transition; `name` and `where` are what
    to call them.
    """
    if _fits(transition, environment):
        return
    if environment.world is not None:
        reason = f"mixes examples, but {where} is acted in"
    elif transition.needs not in ("nothing", environment.shared):
        reason = (
            f"needs tasks that share {transition.needs}, but those of {where} share "
            f"{environment.shared}"
        )
    else:
        reason = (
            f"needs targets that are {transition.targets}, but those of {where} are "
            f"{environment.targets}"
        )
    raise ValueError(f"transition {name} {reason}: allowed are {', '.join(fitting(environment))}.")


def abrupt(old: Batch, new: Batch, alpha: Array, rank: Array) -> Batch:
    """No transition: the new task at once, whatever the granularity."""
    del old, alpha, rank
    return new


TRANSITIONS = {
    "output": Transition(interpolate_outputs, needs="inputs", targets="distributions"),
    "input": Transition(interpolate_inputs, needs="targets"),
    "smoothing": Transition(smooth_outputs, needs="inputs", targets="distributions"),
    "annealing": Transition(anneal_outputs, needs="inputs", targets="distributions"),
    "sampling": Transition(sample_tasks, needs="nothing"),
    "abrupt": Transition(abrupt, needs="nothing", gradual=False),
}
