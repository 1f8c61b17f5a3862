"""The theorem put to use: how many equal micro-tasks a given change needs, guaranteed and in fact.

A change of the landscape is exp(S), S its generator [d, d] (`rotation`, `scaling`, their sums); K
equal micro-tasks are A = exp(S / K) each. As K grows ε is about c / K with c = ‖S‖, the chain's
radius shrinks towards R e^{-c}, and the last
link decides: Theorem 4.7 guarantees about K = c e^c N / (R - r e^c) micro-tasks where ‖θ_k*‖ stays
N (a rotation), and needs a tolerance r < R e^{-c} whatever K. With each product's own singular
values (ours, `exact`) a rotation needs about K = c N / (R - r). The number of steps the theorem
asks for within a micro-task
grows faster still: at its own step size about (beta / mu)² e^{8c} times a logarithm, because beta_k
  / mu_k may grow by ((1 + ε) / (1 - ε))² every time.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from plasticity_jax.theory.gradual import statements
from plasticity_jax.theory.gradual.landscapes import Basin
from plasticity_jax.types import Array, Number


def rotation(angle: Number, dimension: int = 2) -> Array:
    """Returns the generator [d, d] of a rotation by `angle` (radians) in the plane of the first two
    coordinates.
    """
    return jnp.zeros((dimension, dimension)).at[0, 1].set(-angle).at[1, 0].set(angle)


def scaling(factor: Number, dimension: int = 2) -> Array:
    """Returns the generator [d, d] of a scaling of all coordinates by `factor` > 0."""
    return jnp.log(jnp.asarray(factor, float)) * jnp.eye(dimension)


def micro_matrix(generator: Array, number: int | Array) -> Array:
    """Returns the matrix exp(S / K) [d, d] of one of `number` equal micro-tasks."""
    return jax.scipy.linalg.expm(generator / number)


class Smallest(NamedTuple):
    """The smallest number that succeeds, as far as it was looked for.

    Attributes:
      number: None if no number tried up to the limit succeeds.
      failures_above: the larger numbers among the neighbors tried that fail: success is not
        monotone there.
    """

    number: int | None
    failures_above: tuple[int, ...] = ()


def smallest(succeeds: Callable[[int], bool], limit: int, neighbours: int = 4) -> Smallest:
    """Returns the smallest number from 1 that succeeds: doubling to a first success, bisection,
    then its neighbors.

    More micro-tasks are not always better: a coarse chain may land right by luck where a finer one
    does not. Bisection then finds one border of several. So the `neighbours` next smaller numbers
    are tried too, again from any that succeeds, and the next larger ones, whose failures are
    reported. An island of success further below stays unseen.
    """
    failed, number = 0, 1
    while not succeeds(number):
        if number >= limit:
            return Smallest(None)
        failed, number = number, min(2 * number, limit)
    while number - failed > 1:
        middle = (number + failed) // 2
        failed, number = (failed, middle) if succeeds(middle) else (middle, number)
    while lower := [k for k in range(max(1, number - neighbours), number) if succeeds(k)]:
        number = lower[0]
    above = range(number + 1, min(number + neighbours, limit) + 1)
    return Smallest(number, tuple(k for k in above if not succeeds(k)))


@functools.partial(jax.jit, static_argnames="exact")
def holds(
    known: statements.Known, generator: Array, number: Array, tolerance: Array, exact: bool = False
) -> Array:
    """Returns whether Lemma 4.6 holds for all of `number` equal micro-tasks, [] bool.

    By the chain of Theorem 4.7; with `exact`, by Lemma 4.4 applied once to each product A^k with
    its own singular values, and the true displacement in place of its bound: R / σ_max(A^k) >=
    tolerance + ‖θ_k* - θ_{k-1}*‖.
    """
    matrix = micro_matrix(generator, number)

    def link(carry):
        count, before, product, _ = carry
        product = product @ matrix
        if exact:
            after = statements.carried(known, product, exact=True)
            good = after.radius >= tolerance + jnp.linalg.norm(after.minimizer - before.minimizer)
        else:
            one = statements.micro_task(before, matrix, tolerance)
            after = statements.Known(one.mu, one.beta, one.radius, one.minimizer)
            good = one.holds
        return count + 1, after, product, good

    start = jnp.int32(0), known, jnp.eye(len(matrix), dtype=matrix.dtype), jnp.asarray(True)
    return jax.lax.while_loop(lambda c: c[-1] & (c[0] < number), link, start)[-1]


def guaranteed(
    basin: Basin,
    generator: Array,
    tolerance: float,
    limit: int = 2**17,
    exact: bool = False,
    neighbours: int = 4,
) -> Smallest:
    """Returns the smallest number of equal micro-tasks for which Theorem 4.7's conditions hold at
    every one of them.

    Args:
      tolerance: how close to each minimizer gradient descent is run before the next change.
      limit: the largest number tried.
      exact: with the sharper constants of `holds`.
    """
    known = jax.tree.map(jnp.asarray, statements.known(basin))
    near = jnp.asarray(tolerance, known.minimizer.dtype)
    return smallest(
        lambda k: bool(holds(known, generator, jnp.int32(k), near, exact)), limit, neighbours
    )


@functools.partial(jax.jit, static_argnums=0)
def _track(
    loss: Callable,
    known: statements.Known,
    generator: Array,
    number: Array,
    tolerance: Array,
    steps: Array,
) -> tuple[Array, Array]:
    matrix, gradient = micro_matrix(generator, number), jax.grad(loss)

    def link(carry):
        count, x, product, _ = carry
        product = product @ matrix
        of_task = statements.carried(known, product, exact=True)
        slope = lambda x: product.T @ gradient(product @ x)  # noqa: E731
        # within the ball ‖∇L(x)‖ >= mu ‖x - θ*‖, so a gradient this small means arrival
        arrived = of_task.mu * tolerance

        def unfinished(carry):
            step, _, g = carry
            return (step < steps) & (jnp.linalg.norm(g) > arrived)

        def descend(carry):
            step, x, g = carry
            x = x - g / of_task.beta
            return step + 1, x, slope(x)

        x = jax.lax.while_loop(unfinished, descend, (jnp.int32(0), x, slope(x)))[1]
        return count + 1, x, product, jnp.linalg.norm(x - of_task.minimizer) <= 1.001 * tolerance

    start = (
        jnp.int32(0),
        known.minimizer,
        jnp.eye(len(matrix), dtype=matrix.dtype),
        jnp.asarray(True),
    )
    _, x, _, tracked = jax.lax.while_loop(lambda c: c[-1] & (c[0] < number), link, start)
    return tracked, x


def track(
    basin: Basin, generator: Array, number: int, tolerance: float, steps: int = 2000
) -> tuple[bool, Array]:
    """Returns whether gradient descent tracks the transported minimum through `number` micro-tasks,
    and where it ends.

    It starts at θ* and takes at most `steps` steps of size 1 / (beta σ_max(A^k)²) a micro-task,
    fewer once the gradient proves arrival. It tracks if it ends *every* micro-task within
    `tolerance` of that task's θ_k* (a full turn in one step would otherwise count as tracked); else
    it stops at the first that it loses, and the end [d] is the one there.
    """
    known = jax.tree.map(jnp.asarray, statements.known(basin))
    near = jnp.asarray(tolerance, known.minimizer.dtype)
    tracked, end = _track(basin.loss, known, generator, jnp.int32(number), near, jnp.int32(steps))
    return bool(tracked), end


def working(
    basin: Basin,
    generator: Array,
    tolerance: float,
    limit: int = 2**12,
    steps: int = 2000,
    neighbours: int = 4,
) -> Smallest:
    """Returns the smallest number of equal micro-tasks through which gradient descent does track;
    see `track`.
    """
    return smallest(lambda k: track(basin, generator, k, tolerance, steps)[0], limit, neighbours)


def path_in_moving_frame(basin: Basin, generator: Array, number: int, steps: int) -> Array:
    """Returns gradient descent as the first landscape sees it, A^k θ: points [number, steps + 1,
    d].

    In that frame the loss stands still. A micro-task first moves the learner by A (from the end of
    one row to the start of the next; the first row starts at A θ*), then `steps` steps of size 1 /
    (beta σ_max(A^k)²) lead it downhill.
    """
    matrix, gradient = micro_matrix(generator, number), jax.grad(basin.loss)

    def link(carry, _):
        place, product = carry
        product = product @ matrix
        singular = jnp.linalg.svd(product, compute_uv=False)
        step_size, metric = 1 / (basin.beta * singular[0] ** 2), product @ product.T

        def descend(place, _):
            return place - step_size * (metric @ gradient(place)), place

        # the learner stays where it is, and the frame moves: A^(k-1) θ becomes A^k θ
        place, passed = jax.lax.scan(descend, matrix @ place, length=steps)
        return (place, product), jnp.concatenate([passed, place[None]])

    start = basin.minimizer, jnp.eye(len(matrix), dtype=matrix.dtype)
    return jax.lax.scan(link, start, length=number)[1]
