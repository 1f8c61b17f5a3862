import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from helpers import tiny

from plasticity_jax import environments, lanes, registry
from plasticity_jax.environments import permuted_pixels, random_labels
from plasticity_jax.stream import keys, transitions
from plasticity_jax.stream import order as order_
from plasticity_jax.training import network, supervised
from plasticity_jax.training import step as step_

pytestmark = pytest.mark.usefixtures("compiled_quickly")

DATA = jax.tree.map(jnp.asarray, tiny.data())
KEY = jax.random.key(5)
ENVIRONMENTS = {"random_labels": random_labels(), "permuted_pixels": permuted_pixels()}
FITTING = {
    "random_labels": ("output", "smoothing", "annealing", "sampling"),
    "permuted_pixels": ("input", "sampling"),
}
EPOCHS, BATCH = 6, 16
STEPS = EPOCHS * len(DATA.x) // BATCH


compiled_epoch = jax.jit(order_.epoch, static_argnums=(1, 2))


def order(seed=0, samples=64, batch_size=16, task=0, number=0) -> np.ndarray:
    return np.asarray(compiled_epoch(jax.random.key(seed), samples, batch_size, task, number))


@functools.cache
def made(environment: str, transition: str):
    """Batches of the public stream as a compiled function of (key, task, step, granularity)."""
    at = order_.make_stream(ENVIRONMENTS[environment], transition, BATCH, EPOCHS)
    return jax.jit(lambda key, task, step, granularity: at(key, DATA, task, step, granularity))


def assert_equal(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


# Batches


@pytest.mark.parametrize(
    ("samples", "batch_size"), [(64, 16), (64, 1), (64, 64), (67, 16), (70, 64), (5, 3)]
)
def test_an_epoch_visits_no_example_twice(samples, batch_size):
    for number in range(4):
        places = order(0, samples, batch_size, 1, number)
        assert places.shape == (samples // batch_size, batch_size)
        assert places.dtype == np.int32
        assert len(np.unique(places)) == places.size
        assert places.min() >= 0
        assert places.max() < samples


def test_a_remainder_sits_out_as_often_as_it_says():
    """127 examples in batches of 64: one in every epoch, the others in half of them; s / (s + 1)
    with s steps.
    """
    seen = np.concatenate([order(0, 127, 64, 0, number).reshape(-1) for number in range(200)])
    times = np.sort(np.bincount(seen, minlength=127))
    assert times[-1] == 200
    assert 70 < times[0] <= times[-2] < 130  # half of 200, six deviations to each side at most
    seen = np.concatenate([order(0, 190, 64, 0, number).reshape(-1) for number in range(200)])
    # two steps: 62 slices of three examples, 2 of two
    times = np.sort(np.bincount(seen, minlength=190))
    assert (times == 200).sum() == 4
    assert 100 < times[0] <= times[-5] < 165


def test_a_remainder_sits_out_in_turn():
    seen = np.concatenate([order(0, 67, 16, 0, number).reshape(-1) for number in range(40)])
    times = np.bincount(seen, minlength=67)
    assert times.sum() == 40 * 64
    assert times.min() > 25  # each sits out in about 2 of 40
    assert times.max() <= 40


def test_epochs_tasks_and_seeds_have_orders_of_their_own():
    points = [(seed, task, number) for seed in range(3) for task in range(3) for number in range(3)]
    orders = [order(seed, task=task, number=number).tobytes() for seed, task, number in points]
    assert len(set(orders)) == len(points)
    assert orders == [
        order(seed, task=task, number=number).tobytes() for seed, task, number in points
    ]


def test_over_many_epochs_any_example_comes_at_any_step():
    steps = np.zeros((64, 4), int)
    for number in range(200):
        places = order(1, number=number)
        steps[places, np.arange(4)[:, None]] += 1
    expected = np.full(steps.shape, 50.0)
    assert scipy.stats.chi2.sf(((steps - expected) ** 2 / expected).sum(), 64 * 3) > 1e-3
    assert (steps > 20).all()


def test_who_shares_a_batch_changes():
    together = np.zeros((4, 4), int)
    for number in range(200):
        places = order(2, number=number)
        # of two slices of four examples
        np.add.at(together, (places[:, 3] % 4, places[:, 9] % 4), 1)
    assert scipy.stats.chisquare(together.reshape(-1), ddof=6).pvalue > 1e-3


# Plans


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_old_task_is_the_new_one_of_the_task_before(environment):
    plan = jax.jit(lambda key, task: order_.plan(ENVIRONMENTS[environment], key, DATA, task))
    plans = {task: plan(KEY, task) for task in (3, 0, 2, 1)}  # in any order
    for task in (1, 2, 3):
        assert_equal([plans[task].old], [plans[task - 1].new])
        assert np.asarray(plans[task].new).tobytes() != np.asarray(plans[task].old).tobytes()
    assert_equal([plans[0].old], [plans[0].new])
    assert [bool(plans[task].first) for task in range(4)] == [True, False, False, False]
    assert len({np.asarray(p.who).tobytes() for p in plans.values()}) == 4
    for p in plans.values():
        assert sorted(p.who.tolist()) == list(range(64))
    assert (
        np.asarray(plan(jax.random.key(6), 1).new).tobytes() != np.asarray(plans[1].new).tobytes()
    )


# The stream as a user sees it


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_abrupt_change_is_the_new_task_alone(environment):
    """Against a stream that knows no transition: only the new task's examples, in the order of the
    changeover.
    """
    env = ENVIRONMENTS[environment]

    @jax.jit
    def abrupt(task, step):
        new = env.task(jax.random.fold_in(KEY, keys.TASK), DATA, task)
        who = jax.random.permutation(
            jax.random.fold_in(jax.random.fold_in(KEY, keys.RANK), task), 64
        )
        return env.examples(DATA, new, who[order_.epoch(KEY, 64, BATCH, task, step // 4)[step % 4]])

    for transition in FITTING[environment]:
        at = made(environment, transition)
        for task in (0, 1, 4):
            for step in (0, 1, 7, STEPS - 1):
                assert_equal(at(KEY, task, step, 1), abrupt(task, step))


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_first_task_arrives_whole_and_stable_phases_are_shared(environment):
    every = [made(environment, transition) for transition in FITTING[environment]]
    first, length = every[0], round(2 / 3 * STEPS)
    for granularity in (2, 5, length):
        for at in every:
            for step in (0, length // 2, STEPS - 1):
                assert_equal(at(KEY, 0, step, granularity), first(KEY, 0, step, 1))
            for step in (length, STEPS - 1):
                assert_equal(at(KEY, 2, step, granularity), first(KEY, 2, step, 1))
            # and before that they do differ from an abrupt change
            mixed, whole = (jax.tree.leaves(at(KEY, 2, 0, k)) for k in (granularity, 1))
            assert any(np.any(a != b) for a, b in zip(mixed, whole, strict=True))


def test_tasks_can_be_visited_in_any_order():
    at = made("random_labels", "output")
    points = [(task, step) for task in (0, 3, 7) for step in (0, 5, STEPS - 1)]
    forward = [at(KEY, task, step, 4) for task, step in points]
    for (task, step), batch in zip(reversed(points), reversed(forward), strict=True):
        assert_equal(at(KEY, task, step, 4), batch)


@pytest.mark.parametrize("shape", [(1, 7), (16, 4), (3, 1), (64, 33)])
def test_an_epoch_is_shuffled_as_jax_shuffles_rows(shape):
    rows = jnp.arange(np.prod(shape), dtype=jnp.int32).reshape(shape)
    expected = jax.random.permutation(KEY, rows, axis=1, independent=True)
    np.testing.assert_array_equal(order_._shuffled(KEY, rows), expected)


def test_inputs_and_order_are_the_same_for_all_transitions_and_granularities():
    output, sampling = (made("random_labels", transition) for transition in ("output", "sampling"))
    for step in range(0, STEPS, 5):
        want = output(KEY, 3, step, 1).x
        for at in (output, sampling):
            for granularity in (2, 7):
                assert_equal([at(KEY, 3, step, granularity).x], [want])


@pytest.mark.parametrize(
    ("environment", "transition", "changes"),
    [
        ("random_labels", "output", {"method": "shrink_and_perturb"}),
        ("permuted_pixels", "input", {"optimizer": "momentum"}),
    ],
)
def test_training_sees_what_the_stream_shows(environment, transition, changes):
    """Replays a task step by step over the public stream's batches, which must lead to the same
    parameters.
    """
    spec = tiny.spec(environment=environment, transition=transition, epochs=3, **changes)
    lane = lanes.stack([lanes.complete(spec, {"seed": 5, "granularity": 3, "learning_rate": 0.1})])
    lane = {name: jnp.asarray(value[0]) for name, value in lane.items()}
    run, task, steps = supervised.make_run(spec), jnp.int32(1), 12
    env = ENVIRONMENTS[environment]
    at = order_.make_stream(env, transition, BATCH, 3)

    @jax.jit
    def replayed(state, step):
        net, key = network.network(spec, env, DATA), jax.random.key(lane["seed"])
        tx = step_.optimizer(spec, lane, net.structure)
        batch = at(key, DATA, task, step, lane["granularity"], lane["transition_fraction"])
        clock = task * steps + step
        noise = jax.random.fold_in(jax.random.fold_in(key, keys.NOISE), clock)
        return step_.train_step(step_.Learner(env, net, tx), state, batch, noise, clock, step == 0)

    start = jax.jit(run.init)(lane, DATA)
    trained, metrics = jax.jit(run.run_task)(lane, start, DATA, task)
    state, scores = start, []
    for step in range(steps):
        state, score = replayed(state, step)
        scores.append(score)
    moved = [
        np.abs(a - b).max()
        for a, b in zip(*map(jax.tree.leaves, (state.params, start.params)), strict=True)
    ]
    assert min(moved) > 1e-3
    for left, right in zip(*map(jax.tree.leaves, (trained, state)), strict=True):
        # not always to the bit, as XLA fuses a step in a loop otherwise; one wrong example moves a
        # weight by 1e-3
        np.testing.assert_allclose(left, right, rtol=0, atol=1e-6)
    for name, part in (("online_accuracy", "metric"), ("online_loss", "loss")):
        each = [getattr(score, part) for score in scores]
        assert np.isclose(metrics[name], np.mean(each[-4:]), rtol=1e-6)
        assert np.isclose(metrics[f"{name}_mean"], np.mean(each), rtol=1e-6)


# Environments


UNCHANGING = {name: {f"{name}.change": False} for name in environments.ENVIRONMENTS} | {
    # tasks that flip no bit and tasks of the same classes are no control of anything
    "bit_flip": None,
    "class_split": None,
    # these always change: what they do is switched by options of their own
    "target_offset": None,
    "composite": None,
    "phased_shift": None,
    "bandit": None,
    "minatar": None,
    "atari": None,
}


@pytest.mark.parametrize("name", [name for name, options in UNCHANGING.items() if options])
def test_a_task_that_does_not_change_is_the_first_one_again_and_differs_between_seeds(name):
    env, usual = (
        registry.make(environments.ENVIRONMENTS, "environment", name, options)
        for options in (UNCHANGING[name], {})
    )
    data = tiny.data()

    def content(environment, seed, task):
        plan = order_.plan(environment, jax.random.key(seed), data, jnp.int32(task))
        return [
            [np.asarray(leaf) for leaf in jax.tree.leaves(part)] for part in (plan.new, plan.old)
        ]

    first, _ = content(env, 0, 0)
    for task in (0, 1, 5):
        for same in content(env, 0, task):
            jax.tree.map(np.testing.assert_array_equal, same, first)
    jax.tree.map(np.testing.assert_array_equal, content(usual, 0, 0)[0], first)
    for other, _ in (content(env, 1, 0), content(usual, 0, 1)):
        assert any((a != b).any() for a, b in zip(other, first, strict=True))


def test_random_labels_keep_inputs_and_redraw_labels():
    env = random_labels()
    tasks = [np.asarray(env.task(jax.random.key(k), DATA, 0)) for k in range(30)]
    assert len({task.tobytes() for task in tasks}) == 30
    index = jnp.array([3, 60, 3])
    pixels = (np.float64(DATA.x)[index] - np.float64(DATA.mean)) / np.float64(DATA.std)
    for task in tasks:
        np.testing.assert_array_equal(
            np.bincount(task, minlength=4), np.bincount(DATA.y, minlength=4)
        )
        batch = env.examples(DATA, task, index)
        np.testing.assert_allclose(batch.x, pixels, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(batch.y, np.eye(4)[task[np.asarray(index)]])
        np.testing.assert_array_equal(batch.weight, 1)
    assert (env.test, env.shared) == (None, "inputs")


@pytest.mark.parametrize("draw", ["shuffle", "iid"])
def test_random_labels_are_fair(draw):
    uneven = tiny.data(64)
    # iid must not mind the dataset's own counts
    uneven.y[:] = np.minimum(uneven.y, 2) if draw == "iid" else uneven.y
    draws = jax.vmap(lambda key: random_labels(draw=draw).task(key, uneven, 0))(
        jax.random.split(KEY, 500)
    )
    draws = np.asarray(draws)
    assert (draws.dtype, draws.min(), draws.max()) == (np.int32, 0, 3)
    at_places = np.stack([np.bincount(column, minlength=4) for column in draws.T])
    statistic = ((at_places - 125) ** 2 / 125).sum()
    assert 1e-3 < scipy.stats.chi2.sf(statistic, at_places.size - 64) < 1 - 1e-3
    if draw == "iid":
        counts = [np.bincount(row, minlength=4) for row in draws]
        assert scipy.stats.chisquare(np.sum(counts, axis=0)).pvalue > 1e-3
        pairs = np.bincount((4 * draws[:, :-1:2] + draws[:, 1::2]).reshape(-1), minlength=16)
        assert scipy.stats.chisquare(pairs).pvalue > 1e-3
        assert len({tuple(row) for row in counts}) > 100


def test_permuted_pixels_move_positions_and_nothing_else():
    shaped = tiny.data(10, test=4, shape=(4, 5, 3))
    place = np.arange(20, dtype=np.uint8).reshape(1, 4, 5, 1)
    # which position and channel each value came from
    code = place + np.arange(3, dtype=np.uint8) * 20
    shaped.x[:], shaped.test_x[:] = code, code
    shaped.mean[:], shaped.std[:] = 0, 1
    env = permuted_pixels()
    tasks = [env.task(jax.random.key(k), shaped, 0) for k in range(20)]
    sources = []
    for task in tasks:
        train_batch = env.examples(shaped, task, jnp.arange(10))
        assert env.test is not None
        test_batch = env.test(shaped, task, jnp.arange(4))
        moved = np.asarray(train_batch.x)
        assert moved.shape == (10, 4, 5, 3)
        source = moved[0, ..., 0].reshape(-1)
        assert sorted(source) == list(range(20))
        np.testing.assert_array_equal(
            moved - np.arange(3) * 20, np.broadcast_to(moved[:1, ..., :1], moved.shape)
        )
        np.testing.assert_array_equal(test_batch.x, moved[:4])
        np.testing.assert_array_equal(train_batch.y.argmax(1), shaped.y)
        np.testing.assert_array_equal(test_batch.y.argmax(1), shaped.test_y)
        sources.append(source)
    assert len({source.tobytes() for source in sources}) == 20
    first = np.bincount(np.int64([source[0] for source in sources]), minlength=20)
    assert first.max() <= 6
    assert env.shared == "targets"


def test_other_draws_are_refused():
    with pytest.raises(
        ValueError,
        match=r"^random_labels\.draw is 'both': allowed are 'shuffle', 'iid', 'classes'\.$",
    ):
        random_labels(draw="both")


# What is asked for that there is not


@pytest.mark.long
def test_streams_refuse_in_a_sentence():
    for arguments, told in [
        (
            (permuted_pixels(), "output", 16, 2),
            "transition 'output' needs tasks that share inputs, but those of this env",
        ),
        (
            (permuted_pixels, "input", 16, 2),
            "allowed is an Environment, such as environments.random_labels().",
        ),
        ((random_labels(), "outputs", 16, 2), "unknown transition 'outputs': known are output, "),
        (
            (random_labels(), transitions.TRANSITIONS["input"], 16, 2),
            "transition 'interpolate_inputs' needs tasks that",
        ),
        ((random_labels(), "output", 0, 2), "batch_size is 0: allowed are whole numbers from 1."),
        ((random_labels(), "output", 16, 1.5), "epochs is 1.5: allowed are whole numbers from 1."),
    ]:
        with pytest.raises(ValueError) as error:
            order_.make_stream(*arguments)
        assert told in str(error.value)
    at = order_.make_stream(random_labels(), "output", 16, 2)
    for changes, told in [
        ({"key": 0}, "key is 0: allowed is a key, such as jax.random.key(0)."),
        ({"data": None}, "data is a NoneType: allowed is a Data, as load_data gives it."),
        ({"step": -1}, "step is -1: allowed are whole numbers from 0."),
        ({"step": 8}, "step is 8: allowed are whole numbers from 0 to 7."),
        ({"step": np.int64(8)}, "step is 8: allowed are whole numbers from 0 to 7."),
        ({"granularity": 0}, "granularity is 0: allowed are whole numbers from 1."),
        (
            {"granularity": jnp.int32(6)},
            "granularity is 6, but the transition has 5 steps (0.666667 of 8): allowed are as many "
            "plateaus as steps.",
        ),
        ({"transition_fraction": 1.5}, "transition_fraction is 1.5: allowed is 0 to 1."),
        ({"data": tiny.data(8)}, "batch_size is 16: allowed is at most the number of samples, 8."),
    ]:
        with pytest.raises(ValueError) as error:
            at(**{"key": KEY, "data": DATA, "task": 0, "step": 0, **changes})
        assert str(error.value) == told
    at(KEY, DATA, 1, 7, granularity=5)
    # (traced, so not known)
    jax.eval_shape(lambda granularity: at(KEY, DATA, 1, 7, granularity), 6)


@pytest.mark.long
def test_runs_refuse_lanes_in_a_sentence():
    run = supervised.make_run(tiny.spec())
    state = supervised.TrainState({}, {}, {}, {})
    for lane, told in [
        (
            {"learning_rat": 1},
            "number 'learning_rat' fits no part of this run: known are seed, granularity, "
            "learning_rate, ",
        ),
        ({"learning_rate": -1}, "learning_rate is -1.0: allowed is 0 or more."),
        ({"seed": 1.5}, "seed is 1.5: allowed are whole numbers."),
        (5, "a lane is 5: allowed are mappings of names to numbers, as grid() makes."),
        (
            lanes.stack(lanes.grid(seed=range(3))),
            "seed has shape [3]: allowed is one number, or what stack() makes inside",
        ),
        (
            {"granularity": 7},
            "granularity is 7, but the transition has 5 steps (0.666667 of 8): allowed are as many "
            "plateaus",
        ),
    ]:
        with pytest.raises(ValueError) as error:
            run.run_task(lane, state, DATA, 0)
        assert str(error.value).startswith(told)
        if "granularity" not in told[:12]:
            with pytest.raises(ValueError, match=re.escape(told)):
                run.init(lane, DATA)
    with pytest.raises(ValueError, match=r"^number 'learning_rat' fits no part"):  # traced, too
        jax.eval_shape(run.init, {"learning_rat": 1.0}, DATA)
    with pytest.raises(ValueError, match=r"^task is -1: allowed are whole numbers from 0\.$"):
        run.run_task({}, state, DATA, -1)
