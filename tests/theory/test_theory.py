"""Every inequality of the theory over many random draws, where each is tight, and that the checks
can fail.
"""

import csv
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny
from jax.flatten_util import ravel_pytree

from experiments.gradual import theory as experiment
from plasticity_jax.cli import launcher
from plasticity_jax.environments import ENVIRONMENTS
from plasticity_jax.execution import program
from plasticity_jax.stream import order
from plasticity_jax.theory.gradual import bridge, landscapes, panels, plan, statements
from plasticity_jax.training import network
from plasticity_jax.training import step as step_

pytestmark = pytest.mark.usefixtures("compiled_quickly")

DRAWS = 200
ROUNDING = 1e-9  # relative; float64 through differences of losses and of distances


@pytest.fixture(autouse=True)
def float64(request):
    """Bounds are compared to nine digits; the network's own tests stay in float32, as it runs."""
    with jax.enable_x64("float32" not in request.fixturenames):
        yield


@pytest.fixture
def float32():
    """Asked for by tests of the network."""


def wells(key, dimension=3):
    where, axes, shape = jax.random.split(key, 3)
    basis = jax.random.orthogonal(axes, dimension)
    precision = (
        basis * jax.random.uniform(shape, (1, dimension), minval=1.0, maxval=3.0)
    ) @ basis.T
    return landscapes.gaussian_well(2 * landscapes.direction(where, dimension), precision, 1.5, 0.6)


def bumps(key, dimension=3):
    where, axes = jax.random.split(key)
    basis = jax.random.orthogonal(axes, dimension)
    return landscapes.bumped_quadratic(
        2 * landscapes.direction(where, dimension), basis, 6.0, 1.5, 0.9
    )


def two(key):
    return landscapes.two_wells(jax.random.uniform(key, minval=-0.3, maxval=0.3), 0.7)


FAMILIES = {
    "quadratic": lambda key: landscapes.quadratic(key, 4, 0.5, 3.0, 2.0),
    "well": wells,
    "bumps": bumps,
    "two": two,
}
family = pytest.mark.parametrize("make", FAMILIES.values(), ids=FAMILIES)


# these programs run for milliseconds and would compile for seconds
compiled = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def draws(function, count=DRAWS):
    """`function` of as many keys, in one program."""
    return compiled(jax.vmap(function))(jax.random.split(jax.random.key(7), count))


def edge(basin):
    return jnp.where(jnp.isfinite(basin.radius), basin.radius, 2.0)


def near_identity(key, dimension, epsilon):
    matrix = jax.random.normal(key, (dimension, dimension))
    return jnp.eye(dimension) + epsilon * matrix / jnp.linalg.norm(matrix, 2)


def line(curvature, minimizer, radius=jnp.inf):
    """Half curvature (θ - minimizer)² on the line."""
    known = (jnp.asarray(float(curvature)),) * 2
    return landscapes.Basin(
        lambda x: curvature * ((x - minimizer) ** 2).sum() / 2,
        jnp.array([float(minimizer)]),
        *known,
        jnp.asarray(radius),
    )


# --- landscapes and definitions ---


@family
def test_constants_hold_on_the_ball(make):
    def check(key):
        shape, pairs = jax.random.split(key)
        basin = make(shape)
        low, high = statements.measured_constants(basin, pairs, 50, edge(basin))
        return (
            low / basin.mu,
            high / basin.beta,
            jnp.linalg.norm(jax.grad(basin.loss)(basin.minimizer)),
        )

    low, high, slope = draws(check)
    assert low.min() >= 1 - 1e-6  # a difference of nearly equal losses at close pairs
    assert high.max() <= 1 + ROUNDING
    assert slope.max() < 1e-12


@pytest.mark.parametrize("make", [bumps, two])
def test_the_edge_of_the_ball_attains_mu_and_beyond_it_the_loss_is_not_convex(make):
    basin = make(jax.random.key(3))

    @compiled
    def lowest(radius):
        points = basin.minimizer[None] + radius * jax.vmap(landscapes.direction, (0, None))(
            jax.random.split(jax.random.key(0), 4000), len(basin.minimizer)
        )
        return jnp.linalg.eigvalsh(jax.vmap(jax.hessian(basin.loss))(points)).min()

    assert basin.mu <= lowest(basin.radius) <= 1.05 * basin.mu + 0.05
    assert lowest(1.3 * basin.radius) < 0


def test_a_false_claim_of_convexity_is_found_out():
    basin = landscapes.quadratic(jax.random.key(0), 2, 1.0, 4.0)
    low, high = compiled(
        lambda: statements.measured_constants(basin, jax.random.key(1), 4000, 1.0)
    )()
    assert 1.0 - 1e-6 <= low < 1.01 < 1.1
    assert 3.6 < 3.99 < high <= 4.0 + ROUNDING
    well = landscapes.gaussian_well(jnp.zeros(2), jnp.eye(2), share=0.5)
    assert (
        statements.measured_constants(well, jax.random.key(1), 2000, 3 * well.radius)[0] < well.mu
    )  # outside the ball


# --- Lemma 4.3 ---


@family
def test_descent_contracts_as_the_lemma_says(make):
    def check(key):
        shape, begin, size = jax.random.split(key, 3)
        share = jax.random.uniform(size, minval=0.02, maxval=0.98)  # of the largest step size
        basin = make(shape)
        start = basin.minimizer + edge(basin) * landscapes.direction(begin, len(basin.minimizer))
        found = []
        for exact in (False, True):
            step_size = share * statements.step_size_limit(basin.mu, basin.beta, exact)
            descent = statements.descend(basin, start, step_size, 40)
            found.append(
                (
                    descent.rate / statements.contraction(basin.mu, basin.beta, step_size, exact),
                    descent.stays,
                )
            )
        step_size = statements.step_size_limit(basin.mu, basin.beta) * share
        rates = [
            statements.contraction(basin.mu, basin.beta, step_size, exact)
            for exact in (True, False)
        ]
        return found, rates[0] / rates[1], rates[1]

    ((loose, stays_loose), (exact, stays_exact)), quotient, bound = draws(check)
    assert loose.max() <= 1 + 1e-6  # down to where √eps of rounding is left of the distance
    assert exact.max() <= 1 + 1e-6
    assert stays_loose.all()
    assert stays_exact.all()
    assert quotient.max() <= 1 + ROUNDING  # the exact bound is never the weaker one
    assert bound.max() < 1


def test_a_line_by_hand():
    basin = line(2.0, 3.0)
    np.testing.assert_allclose(
        statements.descend(basin, jnp.array([7.0]), 0.25, 3).distances, [4, 2, 1, 0.5]
    )
    for exact in (False, True):  # mu = beta: both bounds are equalities
        assert statements.contraction(basin.mu, basin.beta, 0.25, exact) == 0.5
        assert statements.step_size_limit(basin.mu, basin.beta, exact) == 1.0
    assert statements.steps_needed(4.0, 0.5, 0.5) == 3
    assert statements.steps_needed(0.4, 0.5, 0.5) == 0


def test_the_best_step_of_inequality_9_and_the_exact_bound_along_an_eigenvector():
    basin = landscapes.quadratic(jax.random.key(2), 3, 1.0, 4.0)
    best = statements.contraction(basin.mu, basin.beta, basin.mu / basin.beta**2)
    np.testing.assert_allclose(best**2, 1 - 1 / 16)
    values, vectors = jnp.linalg.eigh(jax.hessian(basin.loss)(basin.minimizer))
    np.testing.assert_allclose(values[jnp.array([0, -1])], [1.0, 4.0])
    slow = statements.descend(basin, basin.minimizer + vectors[:, 0], 0.2, 20)
    np.testing.assert_allclose(
        slow.rate, statements.contraction(basin.mu, basin.beta, 0.2, exact=True), rtol=1e-7
    )


@pytest.mark.parametrize(("step_size", "contracts"), [(0.12, True), (0.49, True), (0.51, False)])
def test_what_the_step_size_decides(step_size, contracts):
    # 2 mu / beta² = 0.125 is where inequality (9) ends, 2 / beta = 0.5 where descent does
    basin = landscapes.quadratic(jax.random.key(2), 2, 1.0, 4.0)
    descent = statements.descend(basin, basin.minimizer + jnp.array([1.0, 1.0]), step_size, 200)
    assert (descent.distances[-1] < descent.distances[0]) == contracts
    assert (descent.rate < 1) == contracts


# --- Lemmas 4.4 to 4.6 ---


@family
def test_one_linear_change_keeps_the_basin(make):
    def check(key):
        shape, change, pairs, place, size = jax.random.split(key, 5)
        epsilon = jax.random.uniform(size, minval=0.01, maxval=0.8)
        basin = make(shape)
        matrix = near_identity(change, len(basin.minimizer), epsilon)
        stated, exact = (
            statements.transported(basin, matrix),
            statements.transported(basin, matrix, exact=True),
        )
        found = []
        for new in (stated, exact):
            low, high = statements.measured_constants(new, pairs, 30, edge(new))
            found.append((low / new.mu, high / new.beta))
        inside = exact.mu / stated.mu, stated.beta / exact.beta, edge(exact) / edge(stated)
        old, norm = basin.minimizer, jnp.linalg.norm(basin.minimizer)
        moved = jnp.linalg.norm(stated.minimizer - old) / statements.displacement(epsilon, norm)
        slope = jnp.linalg.norm(jax.grad(stated.loss)(stated.minimizer))
        reach = epsilon * norm + 1.0  # some radius for which Lemma 4.5 speaks of somebody
        close = old + statements.containment(reach, epsilon, norm) * landscapes.direction(
            place, len(old)
        )
        gap = statements.containment(reach, epsilon, norm) - statements.allowed(
            reach, epsilon, norm
        )
        return found, inside, moved, slope, jnp.linalg.norm(matrix @ close - old) / reach, gap

    found, inside, moved, slope, contained, gap = draws(check)
    for low, high in found:
        assert low.min() >= 1 - 1e-6
        assert high.max() <= 1 + ROUNDING
    # exact constants are never the weaker ones
    assert all(share.min() >= 1 - ROUNDING for share in inside)
    assert moved.max() <= 1 + ROUNDING
    assert slope.max() < 1e-10
    assert contained.max() <= 1 + ROUNDING
    assert gap.min() >= 0  # Lemma 4.6 asks for more than Lemma 4.5


def test_where_each_bound_is_attained():
    basin, epsilon = line(2.0, 3.0, 1.5), 0.25
    grown, shrunk = (
        statements.transported(basin, jnp.array([[1 + sign * epsilon]])) for sign in (1, -1)
    )
    np.testing.assert_allclose(jax.hessian(grown.loss)(jnp.zeros(1))[0, 0], grown.beta)
    np.testing.assert_allclose(jax.hessian(shrunk.loss)(jnp.zeros(1))[0, 0], shrunk.mu)
    # A θ at the old edge 4.5 is θ = 3.6, and 3.6 - 2.4 = 1.2 = R / 1.25
    np.testing.assert_allclose([grown.minimizer[0], grown.radius], [2.4, 1.2])
    np.testing.assert_allclose(shrunk.minimizer[0] - 3, statements.displacement(epsilon, 3.0))
    assert statements.displacement(epsilon, 3.0) == 1.0
    # Lemma 4.5: θ = 3 + 0.6 goes to 4.5, the edge
    np.testing.assert_allclose(statements.containment(1.5, epsilon, 3.0), 0.6)
    np.testing.assert_allclose(statements.allowed(1.5, epsilon, 3.0), 1.2 - 1.0)


def test_a_rotation_by_hand():
    basin = landscapes.two_wells(0.0, 2.0)  # the minimizer is (1, 0)
    quarter = plan.micro_matrix(plan.rotation(math.pi / 2), 1)
    np.testing.assert_allclose(statements.epsilon_of(quarter), math.sqrt(2))
    new = statements.transported(basin, quarter, exact=True)
    np.testing.assert_allclose(new.minimizer, [0, -1], atol=1e-12)
    np.testing.assert_allclose([new.mu, new.beta, new.radius], [basin.mu, basin.beta, basin.radius])
    assert not statements.micro_task(statements.known(basin), quarter, 0.0).holds


def test_the_step_size_must_be_that_of_the_new_loss():
    basin, matrix = line(1.0, 1.0), jnp.array([[1.05]])
    new = statements.transported(basin, matrix)
    # 1.9, where the new loss allows 1.814
    step_size = 0.95 * statements.step_size_limit(basin.mu, basin.beta)
    assert statements.descend(basin, jnp.array([2.0]), step_size, 50).rate < 1
    assert statements.descend(new, jnp.array([2.0]), step_size, 50).rate > 1
    within = 0.95 * statements.step_size_limit(new.mu, new.beta, exact=True)
    assert statements.descend(new, jnp.array([2.0]), within, 50).rate < 1


def test_the_preimage_of_the_ball_can_be_left_on_the_way_to_its_center():
    turn = plan.micro_matrix(plan.rotation(math.pi / 4), 1)
    hessian = turn @ jnp.diag(jnp.array([1.0, 20.0])) @ turn.T
    matrix = jnp.diag(jnp.array([1.5, 0.5]))  # ε = 1/2
    values, vectors = jnp.linalg.eigh(matrix @ matrix @ hessian + (matrix @ matrix @ hessian).T)
    assert values[0] < 0
    # A θ on the edge of the unit ball around θ* = 0
    start = jnp.linalg.solve(matrix, vectors[:, 0])
    after = start - 1e-3 * matrix.T @ hessian @ matrix @ start
    assert jnp.linalg.norm(after) < jnp.linalg.norm(start)
    assert jnp.linalg.norm(matrix @ start) <= 1 + 1e-12 < jnp.linalg.norm(matrix @ after)


@pytest.mark.parametrize("make", [bumps, wells])
def test_within_what_lemma_46_allows_descent_arrives(make):
    epsilon = 0.03

    def check(key):
        shape, change, place = jax.random.split(key, 3)
        basin = make(shape)
        matrix = near_identity(change, 3, epsilon)
        r = statements.allowed(basin.radius, epsilon, jnp.linalg.norm(basin.minimizer))
        one = statements.micro_task(statements.known(basin), matrix, r)
        start = basin.minimizer + r * landscapes.direction(place, 3)
        new = statements.transported(basin, matrix)
        found = statements.descend(new, start, one.step_size, 400)
        bound = statements.contraction(new.mu, new.beta, one.step_size)
        return (
            r,
            one.holds | (jnp.abs(one.slack) < 1e-12),
            found.stays,
            found.rate / bound,
            one.moved / one.bound,
        )

    allowed, holds, stays, rate, moved = draws(check)
    assert allowed.min() > 0
    assert holds.all()
    assert stays.all()
    assert rate.max() <= 1 + 1e-6
    assert moved.max() <= 1 + ROUNDING


def test_beyond_what_it_allows_descent_may_be_lost():
    basin = landscapes.bumped_quadratic(jnp.array([3.0, 0.0]), bump=20.0)
    matrix = plan.micro_matrix(plan.rotation(0.25), 1)
    one = statements.micro_task(statements.known(basin), matrix, 0.0)
    assert one.slack < 0
    assert not one.holds
    end = statements.descend(statements.transported(basin, matrix), basin.minimizer, 1 / 25, 500)
    assert end.distances[-1] > 0.5
    assert not end.stays


# --- Theorem 4.7 and the plan ---


@functools.cache
def dented():
    """One landscape for several tests: programs are compiled once per loss."""
    return landscapes.bumped_quadratic(jnp.array([3.0, 0.0]), bump=20.0)


def test_a_chain_multiplies_its_constants():
    basin = landscapes.quadratic(jax.random.key(0), 3, 1.0, 2.0)._replace(radius=jnp.asarray(5.0))
    keys = jax.random.split(jax.random.key(1), 6)
    matrices = jnp.stack([near_identity(key, 3, 0.01 * (k + 1)) for k, key in enumerate(keys)])
    found = statements.chain(basin, matrices, 0.0)
    grown = np.cumprod(1 + 0.01 * np.arange(1, 7))
    shrunk = np.cumprod(1 - 0.01 * np.arange(1, 7))
    np.testing.assert_allclose(found.beta, 2 * grown**2)
    np.testing.assert_allclose(found.mu, shrunk**2)
    np.testing.assert_allclose(found.radius, 5 / grown)
    product = np.linalg.multi_dot(np.asarray(matrices))
    np.testing.assert_allclose(found.minimizer[-1], np.linalg.solve(product, basin.minimizer))
    assert (found.moved <= found.bound).all()


def test_the_theorem_run_as_it_stands():
    basin = landscapes.bumped_quadratic(jnp.array([1.0, 0.0]), bump=3.0, share=0.7)
    generator = plan.rotation(0.3) + plan.scaling(1.1)
    near = 0.01 * float(basin.radius)
    number = plan.guaranteed(basin, generator, near).number
    matrices = jnp.tile(plan.micro_matrix(generator, number), (number, 1, 1))
    said = statements.chain(basin, matrices, near)
    assert said.holds.all()
    start = basin.minimizer + jnp.array([0.0, near])
    distances = statements.follow(basin, matrices, start, said.step_size, said.steps.astype(int))[1]
    assert (distances <= near).all()
    short = statements.follow(basin, matrices, start, said.step_size, jnp.zeros(number, int))[1]
    assert (short > near).any()  # without the steps it is not so


def test_the_smallest_number_is_found_and_islands_are_told():
    assert plan.smallest(lambda k: k >= 37, 1000) == plan.Smallest(37)
    assert plan.smallest(lambda k: k >= 37, 36) == plan.Smallest(None)
    assert plan.smallest(lambda k: k >= 36, 36) == plan.Smallest(36)
    assert plan.smallest(lambda k: k in (8, 13) or k >= 16, 1000) == plan.Smallest(
        8, (9, 10, 11, 12)
    )
    assert plan.smallest(lambda k: k in (13, 14) or k >= 16, 1000) == plan.Smallest(13, (15,))


@pytest.mark.parametrize("angle", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("factor", [1.0, 1.3])
def test_more_is_guaranteed_than_needed(angle, factor):
    basin = dented()
    generator, near = plan.rotation(angle) + plan.scaling(factor), 1e-3 * float(basin.radius)
    theorem, sharper = (
        plan.guaranteed(basin, generator, near, exact=exact).number for exact in (False, True)
    )
    works = plan.working(basin, generator, near).number
    assert theorem >= sharper >= works >= 1
    known, arguments = statements.known(basin), (jnp.int32(theorem - 1), near)
    assert not plan.holds(known, generator, *arguments)
    for number in (theorem, sharper):  # what is guaranteed is so
        assert plan.track(basin, generator, number, near)[0]


def test_the_law_of_many_micro_tasks():
    basin, angle = dented(), 4.0
    near = 1e-4 * float(basin.radius)
    number = plan.guaranteed(basin, plan.rotation(angle), near).number
    radius = float(basin.radius)
    law = angle * math.exp(angle) * 3 / (radius - near * math.exp(angle))
    assert number == pytest.approx(law, rel=0.02)
    assert plan.guaranteed(basin, plan.rotation(angle), near, exact=True).number == pytest.approx(
        angle * 3 / radius, abs=1
    )
    # a tolerance above R e^-c cannot be had at any number
    assert (
        plan.guaranteed(
            basin, plan.rotation(angle), 1.01 * radius * math.exp(-angle), limit=2**14
        ).number
        is None
    )


def test_two_wells_gradual_tracks_and_abrupt_is_lost():
    basin, generator = landscapes.two_wells(0.1), plan.rotation(2.6)
    near = 1e-3 * float(basin.radius)
    number = plan.guaranteed(basin, generator, near, exact=True).number
    turn = plan.micro_matrix(generator, 1)
    tracked, end = plan.track(basin, generator, number, near)
    assert tracked
    np.testing.assert_allclose(turn @ end, basin.minimizer, atol=1e-3)
    tracked, end = plan.track(basin, generator, 1, near)
    assert not tracked
    np.testing.assert_allclose(turn @ end, landscapes.other_well(0.1), atol=1e-3)
    assert basin.loss(turn @ end) > basin.loss(basin.minimizer) + 0.1
    frame = plan.path_in_moving_frame(basin, generator, 1, 200)
    np.testing.assert_allclose(frame[-1, -1], landscapes.other_well(0.1), atol=1e-6)


def test_gradual_change_keeps_the_poor_well_too():
    basin, generator = landscapes.two_wells(-0.1), plan.rotation(2.6)
    turn = plan.micro_matrix(generator, 1)
    kept, lost = (plan.track(basin, generator, number, 1e-3)[1] for number in (12, 1))
    assert basin.loss(turn @ lost) < basin.loss(turn @ kept) - 0.1


def test_a_full_turn_at_once_works_and_in_two_does_not():
    basin = landscapes.two_wells(0.1)
    found = plan.working(basin, plan.rotation(2 * math.pi), 1e-3, neighbours=2)
    assert found == plan.Smallest(1, (2, 3))


# --- the network ---


SMALL = tiny.spec(width=4, epochs=3, transition="output")


def walks(spec, granularities, rounds):
    data = tiny.data()
    functions = bridge.make_bridge(spec)
    training = bridge.Training(rounds)
    start = bridge.train_rounds(
        functions, functions.init(0, data), data, 0, 1.0, bridge.Training(2)
    )
    return (
        data,
        functions,
        start,
        {k: bridge.walk(functions, start, data, k, training) for k in granularities},
    )


@pytest.fixture(scope="module")
def small():
    with jax.enable_x64(False):
        return walks(SMALL, (1, 2), 2)


@pytest.mark.usefixtures("float32")
def test_a_bridge_measures_what_dense_algebra_says(small):
    data, functions, start, found = small
    environment = ENVIRONMENTS[SMALL.environment]()
    after = bridge.train_rounds(functions, start, data, 1, 1.0, bridge.Training(2))
    key = jax.random.key(0)
    plan_ = order.plan(environment, key, data, jnp.int32(1))
    batch = environment.examples(data, plan_.new, jnp.arange(len(data.x)))
    net = network.network(SMALL, environment, data)
    flat, unravel = ravel_pytree(after.params)
    before = ravel_pytree(start.params)[0]

    def loss(flat):
        return step_.mean_loss(environment, net.apply(unravel(flat), {}, batch.x, False)[0], batch)

    hessian, step = compiled(jax.hessian(loss))(flat), flat - before
    values, length = jnp.linalg.eigvalsh(hessian), jnp.linalg.norm(step)
    one = found[1][0]
    np.testing.assert_allclose(one.moved, length / jnp.linalg.norm(before), rtol=1e-5)
    np.testing.assert_allclose(one.epsilon / (1 - one.epsilon), one.moved, rtol=1e-5)
    np.testing.assert_allclose(
        [one.loss_before, one.loss], [compiled(loss)(before), compiled(loss)(flat)], rtol=1e-5
    )
    np.testing.assert_allclose(one.top, values[-1], rtol=1e-4)
    np.testing.assert_allclose(one.along, step @ hessian @ step / length**2, rtol=1e-3, atol=1e-6)
    slope = compiled(jax.grad(loss))(before)
    np.testing.assert_allclose(one.secant_convexity, -slope @ step / length**2, rtol=1e-3)
    np.testing.assert_allclose(one.secant_smoothness, jnp.linalg.norm(slope) / length, rtol=1e-3)
    # an upper bound on the smallest eigenvalue, and by the null space of the softmax never above
    # rounding
    assert values[0] - 1e-5 <= one.bottom <= 1e-6
    assert abs(one.null) < 1e-6


@pytest.mark.usefixtures("float32")
def test_a_walk_starts_each_micro_task_where_the_last_ended(small):
    _, _, _, found = small
    assert [float(one.alpha) for one in found[2]] == [0.5, 1.0]
    assert [len(steps) for steps in found.values()] == [1, 2]
    assert all(
        np.isfinite(value).all() for steps in found.values() for one in steps for value in one
    )
    # half way the target is uniform, whose entropy no loss goes below
    assert found[2][0].loss >= math.log(4) - 1e-5


@pytest.mark.usefixtures("float32")
def test_a_bridge_refuses_what_it_cannot_walk(small):
    data, functions, start, _ = small
    with pytest.raises(
        ValueError, match="granularity is 3: allowed are divisors of the number of rounds, 2"
    ):
        bridge.walk(functions, start, data, 3, bridge.Training(2))
    with pytest.raises(ValueError, match="norm"):
        bridge.make_bridge(tiny.spec(norm="batch"))


# --- the experiment ---


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        ([], 2, "workdir is not given"),
        (["--workdir=x", "--scale=big"], 2, "allowed are 'full', 'smoke'"),
        (["--workdri=x"], 2, "workdri"),
        (["--workdir=x", "stray"], 2, "'stray' is not a flag of this"),
        (["--workdir=/dev/null/x"], 1, "is not a directory"),
    ],
)
def test_faults_are_one_sentence_and_a_code(capsys, argv, code, words):
    assert experiment.main(argv) == code
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


@pytest.mark.usefixtures("float32")
def test_the_experiment_leaves_figure_and_tables(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(launcher, "prepare_jax", lambda *_: None)
    # the network of the tests above, so that nothing of it compiles again
    monkeypatch.setattr(program, "load_data", lambda spec: tiny.data())
    little = panels.Scale(draws=4, angles=(0.2,), spec=SMALL, rounds=2, granularities=(1, 2))
    monkeypatch.setitem(panels.SCALES, "smoke", little)
    assert experiment.main([f"--workdir={tmp_path / 'new'}", "--scale=smoke"]) == 0
    said = capsys.readouterr().out
    assert "two wells, turned in 1: ends in the other well" in said
    assert (
        "two wells: guaranteed from 88 on by the theorem, from 7 on by exact constants; 2 work"
        in said
    )
    names = {"theory.png", "theory.svg", "contraction.csv", "paths.csv", "plan.csv", "bridge.csv"}
    assert {path.name for path in (tmp_path / "new").iterdir()} == names
    with (tmp_path / "new" / "bridge.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["granularity"], row["micro_task"]) for row in rows] == [
        ("1", "1"),
        ("2", "1"),
        ("2", "2"),
    ]


def test_help_is_the_files_own_description(capsys):
    assert experiment.main(["--help"]) == 0
    assert "Not modeled by the theory" in capsys.readouterr().out
