"""Definitions 4.1-4.2, Lemmas 4.3-4.6 and Theorem 4.7 of Liu & Mou: what each predicts, and
gradient descent to measure it.

The formulas of the text at hand are lost, its proofs' words and numbering are not; every formula
here is derived by us, with the source's number where it belongs. ‖·‖ is the Euclidean or spectral
norm. What we found on the way:

- Lemma 4.3, inequality (9), is right but loose: its contraction factor never lies below the exact
  one of `contraction` with exact=True, and its step sizes end at 2μ/β², where gradient descent
  contracts up to 2/β.
- Lemma 4.4 needs no assumption of full rank: ‖A - I‖ <= ε < 1 makes every singular value of A at
  least 1 - ε.
- Lemma 4.5 puts a point into the *preimage* of the old ball, an ellipsoid that gradient descent on
  the new loss can leave. Lemma 4.3 keeps to balls around the new minimizer, so Lemma 4.6 has to
  (and does) ask for more; see `allowed`.
- Lemma 4.6 needs the step size of the *new* constants: 2μ/β² of the old ones may diverge
  (`tests/test_theory.py`).
- Theorem 4.7 speaks of arbitrarily large changes. Its constants shrink by (1 + ε_k) at every step,
  so this holds for a given change cut ever finer, not for steps of a given size in ever greater
  number; see `chain` and `plan`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from plasticity_jax.theory.gradual.landscapes import Basin
from plasticity_jax.types import Array, Key, Number

# --- Definitions 4.1 and 4.2 ---


def smoothness(basin: Basin, a: Array, b: Array) -> Array:
    """Returns ‖∇f(a) - ∇f(b)‖ / ‖a - b‖, [], which Definition 4.1 bounds by beta."""
    gradient = jax.grad(basin.loss)
    return jnp.linalg.norm(gradient(a) - gradient(b)) / jnp.linalg.norm(a - b)


def convexity(basin: Basin, a: Array, b: Array) -> Array:
    """Returns 2 (f(b) - f(a) - ⟨∇f(a), b - a⟩) / ‖b - a‖², [], which Definition 4.2 bounds from
    below by mu.
    """
    value, gradient = jax.value_and_grad(basin.loss)(a)
    return 2 * (basin.loss(b) - value - gradient @ (b - a)) / ((b - a) @ (b - a))


def in_ball(key: Key, center: Array, radius: Number, count: int) -> Array:
    """Returns `count` points [count, d] uniformly from the ball of `radius` around `center` [d]."""
    where, how_far = jax.random.split(key)
    vectors = jax.random.normal(where, (count, len(center)))
    lengths = jax.random.uniform(how_far, (count, 1)) ** (1 / len(center)) * radius
    return center[None] + lengths * vectors / jnp.linalg.norm(vectors, axis=1, keepdims=True)


def measured_constants(basin: Basin, key: Key, pairs: int, radius: Number) -> tuple[Array, Array]:
    """Returns (smallest convexity, largest smoothness) over random `pairs` of points in the ball of
    `radius`, [] each.
    """
    a, b = (in_ball(k, basin.minimizer, radius, pairs) for k in jax.random.split(key))
    low = jax.vmap(lambda a, b: convexity(basin, a, b))(a, b)
    high = jax.vmap(lambda a, b: smoothness(basin, a, b))(a, b)
    return low.min(), high.max()


# --- Lemma 4.3: gradient descent in a basin ---


def step_size_limit(mu: Number, beta: Number, exact: bool = False) -> Array:
    """Returns the step size below which gradient descent stays in the ball and contracts, [].

    2 mu / beta² from inequality (9) (the paper takes a minimum with a second bound, lost). `exact`
    gives 2 / beta.
    """
    return jnp.asarray(2 / beta if exact else 2 * mu / beta**2)


def contraction(mu: Number, beta: Number, step_size: Number, exact: bool = False) -> Array:
    """Returns ρ with ‖θ_{t+1} - θ*‖ <= ρ ‖θ_t - θ*‖ inside the ball, [].

    Lemma 4.3 by inequality (9): ρ² = 1 - 2 η mu + η² beta². Expand ‖θ - η∇f - θ*‖²; adding (2) at
    (θ, θ*) to (2) at (θ*, θ) gives ⟨∇f, θ - θ*⟩ >= mu ‖θ - θ*‖², and (1) gives ‖∇f‖ <= beta ‖θ -
    θ*‖. It is least, 1 - mu²/beta², at η = mu / beta². An equality where mu = beta.

    `exact`: ρ = max(|1 - η mu|, |1 - η beta|), ours. For f twice differentiable θ_{t+1} - θ* = (I -
    η M)(θ_t - θ*), M the Hessian's mean over the segment to θ*, which lies in the ball; M's
    eigenvalues are in [mu, beta]. Attained by every quadratic along an eigenvector, so no better
    bound exists.
    """
    if exact:
        return jnp.maximum(jnp.abs(1 - step_size * mu), jnp.abs(1 - step_size * beta))
    return jnp.sqrt(1 - 2 * step_size * mu + step_size**2 * beta**2)


def steps_needed(distance: Number, tolerance: Number, rate: Number) -> Array:
    """Returns how many steps of contraction `rate` < 1 bring `distance` to `tolerance` at the
    latest, [] float.
    """
    return jnp.ceil(jnp.maximum(jnp.log(jnp.asarray(tolerance / distance)) / jnp.log(rate), 0.0))


class Descent(NamedTuple):
    """A measured run of gradient descent.

    Attributes:
      points: [steps + 1, d] iterates, the start first.
      distances: [steps + 1] from the minimizer.
      rate: [] largest quotient of successive distances, over those that rounding does not blur.
      stays: [] bool, whether no iterate leaves the ball.
    """

    points: Array
    distances: Array
    rate: Array
    stays: Array


def descend(basin: Basin, start: Array, step_size: Number, steps: int) -> Descent:
    """Returns `steps` of gradient descent from `start` [d], to be held against Lemma 4.3.

    Quotients count while the distance exceeds √(machine epsilon) of the start's and the minimizer's
    norm: below that the rounding of θ itself is no longer small against θ - θ*.
    """
    gradient = jax.grad(basin.loss)

    def step(x, _):
        x = x - step_size * gradient(x)
        return x, x

    points = jnp.concatenate([start[None], jax.lax.scan(step, start, length=steps)[1]])
    distances = jnp.linalg.norm(points - basin.minimizer[None], axis=1)
    floor = jnp.finfo(distances.dtype).eps ** 0.5 * (
        distances[0] + jnp.linalg.norm(basin.minimizer)
    )
    quotients = jnp.where(distances[:-1] > floor, distances[1:] / distances[:-1], 0.0)
    slack = 1 + 100 * jnp.finfo(distances.dtype).eps
    return Descent(points, distances, quotients.max(), (distances <= basin.radius * slack).all())


# --- Lemmas 4.4 to 4.6: one micro-task ---


def epsilon_of(matrix: Array) -> Array:
    """Returns ε = ‖A - I‖₂ of `matrix` A [d, d], [] (inequality (3))."""
    return jnp.linalg.norm(matrix - jnp.eye(len(matrix)), 2)


class Known(NamedTuple):
    """What is known of a basin besides its loss: mu, beta, radius [] and the minimizer [d]."""

    mu: Array
    beta: Array
    radius: Array
    minimizer: Array


def known(basin: Basin) -> Known:
    """Returns what is known of `basin` besides its loss."""
    return Known(basin.mu, basin.beta, basin.radius, basin.minimizer)


def carried(before: Known, matrix: Array, exact: bool = False) -> Known:
    """Returns what Lemma 4.4 knows of L'(θ) = L(A θ), A = `matrix` [d, d].

    Minimizer A⁻¹ θ*, beta' = (1 + ε)² beta, mu' = (1 - ε)² mu, R' = R / (1 + ε): ∇L'(θ) = Aᵀ ∇L(A
    θ) brings ‖A‖ twice; ‖A v‖ >= (1 - ε) ‖v‖; and ‖θ - θ'*‖ <= R' puts A θ into the old ball.
    Tight, one at a time, for A = (1 ± ε) I. `exact` puts the largest and smallest singular value of
    A for 1 + ε and 1 - ε, ours: the same proof, and a rotation then costs nothing.
    """
    if exact:
        singular = jnp.linalg.svd(matrix, compute_uv=False)
        most, least = singular[0], singular[-1]
    else:
        most, least = 1 + epsilon_of(matrix), 1 - epsilon_of(matrix)
    minimizer = jnp.linalg.solve(matrix, before.minimizer)
    return Known(before.mu * least**2, before.beta * most**2, before.radius / most, minimizer)


def transported(basin: Basin, matrix: Array, exact: bool = False) -> Basin:
    """Returns the basin of L'(θ) = L(A θ) with what Lemma 4.4 knows of it, as `carried`."""
    mu, beta, radius, minimizer = carried(known(basin), matrix, exact)
    return Basin(lambda x: basin.loss(matrix @ x), minimizer, mu, beta, radius)


def containment(radius: Number, epsilon: Number, norm: Number) -> Array:
    """Returns (R - ε ‖θ*‖) / (1 + ε), []: whoever is that close to θ* has A θ in the old ball
    (Lemma 4.5).

    ‖A θ - θ*‖ <= ‖A (θ - θ*)‖ + ‖(A - I) θ*‖ <= (1 + ε) ‖θ - θ*‖ + ε ‖θ*‖. Negative: for nobody.
    Tight for A = (1 + ε) I.
    """
    return jnp.asarray((radius - epsilon * norm) / (1 + epsilon))


def displacement(epsilon: Number, norm: Number) -> Array:
    """Returns ε / (1 - ε) ‖θ*‖, [], the bound of Lemma 4.6 on ‖θ'* - θ*‖ = ‖(A⁻¹ - I) θ*‖.

    (A⁻¹ - I) = Σ_{n >= 1} (I - A)ⁿ, a geometric series in ε < 1. Tight for A = (1 - ε) I.
    """
    return jnp.asarray(epsilon / (1 - epsilon) * norm)


def allowed(radius: Number, epsilon: Number, norm: Number) -> Array:
    """Returns the largest r that Lemma 4.6 allows for ‖θ - θ*‖ before the change, []: R / (1 + ε) -
    ε / (1 - ε) ‖θ*‖.

    Then ‖θ - θ'*‖ <= r + displacement <= R', the ball of Lemma 4.4 in which Lemma 4.3 works. It is
    less than `containment` by (ε/(1-ε) - ε/(1+ε)) ‖θ*‖ >= 0, so it implies Lemma 4.5; the converse
    would not do, as steps that shorten the distance to θ'* may still leave the ellipsoid A⁻¹
    B_R(θ*). Negative: for nobody.
    """
    return radius / (1 + epsilon) - displacement(epsilon, norm)


class MicroTask(NamedTuple):
    """What Lemma 4.6 says of one change θ -> A θ.

    Attributes:
      epsilon: [] ‖A - I‖₂.
      mu, beta, radius, minimizer: of the new loss, by Lemma 4.4.
      moved: [] ‖θ'* - θ*‖, and `bound`, [], what the lemma has for it.
      slack: [] how much less than `allowed` the distance to the old minimizer is; negative if it is
        too far.
      step_size: [] mu'/beta'², in the middle of what Lemma 4.3 allows.
      steps: [] float, how many of those the lemma needs from the edge of the ball down to the
        tolerance.
      holds: [] bool, ε < 1 and slack >= 0.
    """

    epsilon: Array
    mu: Array
    beta: Array
    radius: Array
    minimizer: Array
    moved: Array
    bound: Array
    slack: Array
    step_size: Array
    steps: Array
    holds: Array


def micro_task(before: Known, matrix: Array, tolerance: Number) -> MicroTask:
    """Returns what Lemma 4.6 says when a learner within `tolerance` of the old minimizer meets
    L'(θ) = L(A θ).
    """
    epsilon, norm = epsilon_of(matrix), jnp.linalg.norm(before.minimizer)
    new = carried(before, matrix)
    slack = allowed(before.radius, epsilon, norm) - tolerance
    step_size = step_size_limit(new.mu, new.beta) / 2
    rate = contraction(new.mu, new.beta, step_size)
    return MicroTask(
        epsilon,
        *new,
        moved=jnp.linalg.norm(new.minimizer - before.minimizer),
        bound=displacement(epsilon, norm),
        slack=slack,
        step_size=step_size,
        steps=steps_needed(new.radius, tolerance, rate),
        holds=(epsilon < 1) & (slack >= 0),
    )


# --- Theorem 4.7: a chain of micro-tasks ---


def chain(basin: Basin, matrices: Array, tolerance: Number) -> MicroTask:
    """Returns Lemma 4.6 for each link of L_k(θ) = L_{k-1}(A_k θ), stacked [K, ..]; the theorem
    holds if all of them do.

    beta_k = beta Π(1 + ε_j)², mu_k = mu Π(1 - ε_j)², R_k = R / Π(1 + ε_j), θ_k* = A_k⁻¹ θ_{k-1}*.
    By induction: gradient descent on L_k ends within `tolerance` of θ_k*, whence the next link
      starts. `matrices` [K, d, d].
    """

    def link(before, matrix):
        one = micro_task(before, matrix, tolerance)
        return Known(one.mu, one.beta, one.radius, one.minimizer), one

    return jax.lax.scan(link, known(basin), matrices)[1]


def follow(
    basin: Basin, matrices: Array, start: Array, step_sizes: Array, steps: Array
) -> tuple[Array, Array]:
    """Returns gradient descent through a chain: (points [K, d] at the end of each micro-task,
    distances [K] from θ_k*).

    `step_sizes` [K] and `steps` [K] int are each micro-task's own, as `chain` says them.
    """
    gradient = jax.grad(basin.loss)

    def link(carry, given):
        point, product = carry
        matrix, step_size, count = given
        product = product @ matrix  # L_k(θ) = L_0(A_1 .. A_k θ)
        point = jax.lax.fori_loop(
            0, count, lambda _, x: x - step_size * (product.T @ gradient(product @ x)), point
        )
        distance = jnp.linalg.norm(point - jnp.linalg.solve(product, basin.minimizer))
        return (point, product), (point, distance)

    eye = jnp.eye(len(start), dtype=matrices.dtype)
    return jax.lax.scan(link, (start, eye), (matrices, step_sizes, steps))[1]
