"""Methods in and around what optax and its users have: whose memory is whose, other state trees,
other wrappers.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.core import FrozenDict
from helpers.loops import STRUCTURE, assert_bitwise, context, gradients, small_tree

from plasticity_jax import methods, registry
from plasticity_jax.optimizers import OPTIMIZERS
from plasticity_jax.types import Start

pytestmark = pytest.mark.usefixtures("compiled_quickly")

UNITS, INIT, HEAD = STRUCTURE
PARAMS = INIT(jax.random.key(1))
KERNELS = jax.tree.map(lambda p: p.ndim >= 2, PARAMS)


class Bound(NamedTuple):
    bound: dict


def clipping(optimizer):
    """Somebody's own: gradients are clipped at a running mean of their size, a bound for each
    parameter.
    """

    def init(params):
        return Bound(jax.tree.map(lambda p: jnp.full_like(p, 0.5), params))

    def update(updates, state, params=None):
        del params
        bound = jax.tree.map(lambda b, u: 0.9 * b + 0.1 * jnp.abs(u), state.bound, updates)
        return jax.tree.map(lambda u, b: jnp.clip(u, -b, b), updates, bound), Bound(bound)

    return optax.chain(optax.GradientTransformation(init, update), optimizer)


def redo(**settings):
    return methods.redo(UNITS, INIT, **{"period": 1, **settings})


def continual_backprop(maturity):
    return methods.continual_backprop(UNITS, INIT, count="at_least_one", maturity=maturity)


METHODS = {
    "none": methods.none(),
    "l2": methods.l2(),
    "l2_init": methods.l2_init(),
    "spectral": methods.spectral(),
    "shrink_and_perturb": methods.shrink_and_perturb(),
    "redo": redo(),
    "redo, running": redo(score="running"),
    "optimizer_reset": methods.optimizer_reset(),
    "clip": methods.clip(norm=0.5),
    "head_reset": methods.head_reset(HEAD, INIT),
    "feature_norm": methods.feature_norm(),
    "infer": methods.infer(),
    "gradient_penalty": methods.gradient_penalty(),
    "weight_norm_constraint": methods.weight_norm_constraint(),
    "continual_backprop": continual_backprop(maturity=1.0),
    "full_reset": methods.full_reset(INIT),
    "gradient_noise": methods.gradient_noise(),
}


def test_every_method_is_here():
    assert {name.partition(",")[0] for name in METHODS} == set(methods.METHODS)


def after(tx, steps, params=PARAMS, ctx=context):
    """(params, state) after some steps, operation by operation."""
    with jax.disable_jit():
        state = tx.init(params)
        for i in range(steps):
            updates, state = tx.update(gradients(params, i), state, params, ctx=ctx(i))
            params = optax.apply_updates(params, updates)
    return params, state


# ---------------------------------------------------------------------------------------------
# whose memory is whose

ACTING = {  # name -> (acts at step 1, never acts)
    "redo": (redo(period=2), redo(period=1000)),
    "redo, running": (redo(period=2, score="running"), redo(period=1000, score="running")),
    "shrink_and_perturb": (
        methods.shrink_and_perturb(period=2),
        methods.shrink_and_perturb(period=1000),
    ),
    "optimizer_reset": (methods.optimizer_reset(), methods.none()),
    "continual_backprop": (continual_backprop(maturity=1.0), continual_backprop(maturity=1e6)),
}
REMEMBERING = {
    "l2_init": methods.l2_init(),
    "spectral": methods.spectral(),
    "redo, running": redo(period=1000, score="running"),
    "clipping": clipping,
}
PAIRS = [(a, o) for a in ACTING for o in REMEMBERING if a.partition(",")[0] != o.partition(",")[0]]
PAIRS.remove(("continual_backprop", "redo, running"))  # whose memories have one name


HOWS = ["composed", "composed the other way", "around", "inside"]
# a function that is no method of ours, given as a part of the optimizer, is a part of the optimizer
CASES = [(*pair, how) for pair in PAIRS for how in HOWS if (pair[1], how) != ("clipping", "around")]
# for time
CASES = [case for case in CASES if case[1] != "spectral" or case[2] in ("composed", "around")]


@pytest.mark.parametrize(("acting", "other", "how"), CASES)
@pytest.mark.long
def test_no_method_touches_what_another_remembers(acting, other, how):
    """With and without its act, a step leaves the other's memory the same to the bit; only the
    optimizer's state changes.
    """
    remembering = REMEMBERING[other]
    build = {
        "composed": lambda a: methods.compose(a, remembering)(optax.adam(0.01)),
        "composed the other way": lambda a: methods.compose(remembering, a)(optax.adam(0.01)),
        "around": lambda a: a(remembering(optax.adam(0.01))),
        "inside": lambda a: remembering(a(optax.adam(0.01))),
    }[how]
    told = lambda step: context(step, boundary=step == 1)  # noqa: E731
    acted, still = (after(build(a), 2, ctx=told)[1] for a in ACTING[acting])
    own = [".mu", ".nu", ".count", ".memory.units"] + [".memory"] * (
        acting in ("redo, running", "continual_backprop")
    )
    if acting == "optimizer_reset":
        assert int(optax.tree.get(acted, "count")) == 1
    elif acting != "shrink_and_perturb":
        assert not np.any(optax.tree.get(acted, "mu")["layer0"]["kernel"][:, 0])
        assert np.all(optax.tree.get(acted, "mu")["layer0"]["kernel"][:, 1])
    assert jax.tree.structure(acted) == jax.tree.structure(still)
    for (path, a), s in zip(
        jax.tree_util.tree_leaves_with_path(acted), jax.tree.leaves(still), strict=True
    ):
        if not any(name in jax.tree_util.keystr(path) for name in own):
            np.testing.assert_array_equal(a, s, err_msg=jax.tree_util.keystr(path))


# all that remember something between steps; beside each every other method of the registry
MEMORIES = (
    "l2_init",
    "spectral",
    "redo, running",
    "continual_backprop",
    "weight_norm_constraint",
)
# those that act before a task and in no step
BEFORE = {
    "head_reset": METHODS["head_reset"],
    "head_reset, zero": methods.head_reset(HEAD, INIT, to="zero"),
    "full_reset": METHODS["full_reset"],
    "shrink_and_perturb, before": methods.shrink_and_perturb(moment="before"),
}
EVERY_PAIR = [
    (one, other)
    for one in MEMORIES
    for other in METHODS
    if other.partition(",")[0] != one.partition(",")[0] and other not in BEFORE
]
# the utility of continual backprop is of the weights as a rewrite before it left them; what these
# two then remember has tests of its own below
EVERY_PAIR.remove(("continual_backprop", "clip"))
EVERY_PAIR.remove(("redo, running", "continual_backprop"))


def remembered(state) -> list[np.ndarray]:
    """What methods keep: all of a state but the optimizer's moments and counts of units."""
    optimizers = (".mu", ".nu", ".count", ".memory.units")
    return [
        np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
        if not any(name in jax.tree_util.keystr(path) for name in optimizers)
    ]


def boundary(step):
    return context(step, boundary=True)


def after_a_boundary(*names: str) -> list[np.ndarray]:
    """What methods remember after one step, in which those that can act."""
    method = methods.compose(*(METHODS[name] for name in names))
    state = after(method(optax.adam(0.01)), 1, ctx=boundary)[1]
    return remembered(state)


alone_after_a_boundary = functools.cache(after_a_boundary)


@pytest.mark.long
@pytest.mark.parametrize(("one", "other"), EVERY_PAIR)
def test_a_method_remembers_the_same_in_company(one, other):
    """After a step at a boundary, in which the other acts, to the bit; and the other as well."""
    together = after_a_boundary(one, other)
    for name in (one, other):
        alone = alone_after_a_boundary(name)
        assert len(alone) > 0 or name not in MEMORIES
        for leaf in alone:
            assert any(np.array_equal(leaf, own) for own in together), (name, leaf.shape)


def test_continual_backprop_beside_clip_remembers_what_it_would_of_clipped_gradients():
    both = methods.compose(METHODS["continual_backprop"], METHODS["clip"])(optax.adam(0.01))
    alone = METHODS["continual_backprop"](optax.adam(0.01))
    clipped, _ = optax.clip_by_global_norm(0.5).update(gradients(PARAMS, 0), optax.EmptyState())
    states = [
        stepped(tx, given, PARAMS, tx.init(PARAMS))[1]
        for tx, given in (
            (both, gradients(PARAMS, 0)),
            (alone, clipped),
            (alone, gradients(PARAMS, 0)),
        )
    ]
    together, want, unclipped = map(remembered, states)
    assert_bitwise(together, want)
    assert not all(map(np.array_equal, want, unclipped))


def test_continual_backprop_after_redo_remembers_what_it_would_of_weights_that_redo_left():
    redo_, backprop = METHODS["redo, running"], METHODS["continual_backprop"]
    tx = methods.compose(redo_, backprop)(optax.adam(0.01))
    _, together = stepped(tx, gradients(PARAMS, 0), PARAMS, tx.init(PARAMS))
    tx = redo_(optax.adam(0.01))
    left, inner = stepped(tx, gradients(PARAMS, 0), PARAMS, tx.init(PARAMS))
    tx = backprop(optax.sgd(0.0))
    _, outer = stepped(tx, jax.tree.map(jnp.zeros_like, PARAMS), left, tx.init(PARAMS))
    assert_bitwise(together.inner.memory, inner.memory)
    assert_bitwise(together.memory, outer.memory)


def stepped(tx, gradient, params, state):
    """(params, state) after one step at a boundary."""
    with jax.disable_jit():
        updates, state = tx.update(gradient, state, params, ctx=boundary(0))
        return optax.apply_updates(params, updates), state


def disturbed(state):
    """A state in which nothing is as at the start, so that what is set back is seen."""
    return jax.tree.map(lambda a: a + 1 if jnp.issubdtype(a.dtype, jnp.inexact) else a, state)


@pytest.mark.parametrize("one", MEMORIES)
@pytest.mark.parametrize("other", BEFORE)
def test_what_acts_before_a_task_leaves_what_another_remembers(one, other):
    """To the bit, before the step and after it: that of the method alone, from the weights that the
    other left, with the moments that it left.
    """
    act, tx = BEFORE[other], methods.compose(METHODS[one], BEFORE[other])(optax.adam(0.01))
    state = disturbed(tx.init(PARAMS))
    start = Start(jax.random.key(5), jnp.int32(1), PARAMS, lambda params: params, STRUCTURE)
    with jax.disable_jit():
        params, begun = methods.begin([act], tx, PARAMS, state, start)
    assert_bitwise(remembered(begun), remembered(state))
    assert np.any(np.asarray(params["head"]["kernel"]) != PARAMS["head"]["kernel"])
    forgets = other in ("head_reset", "full_reset")
    assert np.any(optax.tree.get(begun, "mu")["head"]["kernel"]) != forgets
    assert np.any(optax.tree.get(begun, "mu")["layer0"]["kernel"]) != (other == "full_reset")
    alone = METHODS[one](optax.adam(0.01))
    same = jax.tree.unflatten(jax.tree.structure(alone.init(PARAMS)), jax.tree.leaves(begun))
    got, want = (
        stepped(t, gradients(PARAMS, 0), params, s)[1] for t, s in ((tx, begun), (alone, same))
    )
    assert_bitwise(remembered(got), remembered(want))


@pytest.mark.long
def test_a_bound_given_as_a_part_of_the_optimizer_starts_afresh_where_weights_do():
    bound = optax.tree.get(after(redo(period=3)(clipping(optax.adam(0.01))), 3)[1], "bound")[
        "layer0"
    ]["kernel"]
    want = optax.tree.get(after(clipping(optax.adam(0.01)), 3)[1], "bound")["layer0"]["kernel"]
    np.testing.assert_array_equal(bound[:, 0], 0.5)
    np.testing.assert_array_equal(bound[:, 1:], want[:, 1:])


def test_compositions_inside_wrappers_and_compositions():
    """Parts of a partition with and without a composition: in each, the optimizer's moments are
    forgotten and no more.
    """
    inner = methods.compose(clipping, methods.l2_init())(optax.adam(0.01))
    groups = optax.partition({True: inner, False: optax.adam(0.01)}, KERNELS)
    _, state = after(redo(period=3)(optax.chain(optax.identity(), groups)), 3)
    kernels, others = (state.inner[1].inner_states[group].inner_state for group in (True, False))
    assert not np.any(optax.tree.get(kernels, "mu")["layer0"]["kernel"][:, 0])
    assert not np.any(optax.tree.get(others, "mu")["layer0"]["bias"][0])
    assert not np.any(optax.tree.get(kernels, "bound")["layer0"]["kernel"][:, 0] == 0.5)
    assert_bitwise(kernels[0]["layer0"]["kernel"], PARAMS["layer0"]["kernel"])  # the anchor
    _, outer = after(methods.compose(redo(period=3))(inner), 3)
    assert_bitwise(outer.inner[0], PARAMS)
    assert not np.any(optax.tree.get(outer, "bound")["layer0"]["kernel"][:, 0] == 0.5)
    assert not np.any(optax.tree.get(outer, "mu")["layer0"]["kernel"][:, 0])


def test_what_an_optimizer_remembers_of_a_reborn_weight_is_as_at_birth():
    """Not always zero: Rprop's step sizes start at the learning rate, schedule-free's z at the
    parameters.
    """
    _, state = after(redo(period=3)(optax.rprop(0.02)), 3)
    sizes = optax.tree.get(state, "step_sizes")["layer0"]["kernel"]
    np.testing.assert_allclose(sizes[:, 0], 0.02, rtol=1e-6)
    assert not np.any(np.isclose(sizes[:, 1:], 0.02).all(axis=0))
    params, state = after(redo(period=3)(optax.contrib.schedule_free(optax.sgd(0.1), 0.1)), 3)
    z = state.inner.z["layer0"]["kernel"]
    np.testing.assert_allclose(z[:, 0], params["layer0"]["kernel"][:, 0], rtol=1e-6)
    assert np.all(z[:, 1:] != params["layer0"]["kernel"][:, 1:])


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.contrib.muon(0.01, beta=0.8),
        optax.masked(optax.adam(0.01), KERNELS),
        optax.masked(optax.adam(0.01), {name: name != "head" for name in PARAMS}),
        optax.partition({True: optax.adam(0.01), False: optax.sgd(0.1)}, KERNELS),
        optax.apply_if_finite(optax.adam(0.01), 3),
        optax.inject_hyperparams(optax.adam)(0.01),
        optax.MultiSteps(optax.adam(0.01), 3),
    ],
    ids=["muon", "masked", "prefix of a mask", "partition", "finite", "inject", "MultiSteps"],
)
def test_moments_are_found_in_state_trees_of_any_form(optimizer):
    _, state = after(redo(period=3)(optimizer), 3)
    found = [
        moments["layer0"]["kernel"] for _, moments in optax.tree.get_all_with_path(state, "mu")
    ]
    (moment,) = (m for m in found if not isinstance(m, optax.MaskedNode))
    assert not np.any(moment[:, 0])
    assert np.all(moment[:, 1:])


# -------------------------------------------------------------------------------- any optimizer
# inside, any wrapper around

INSIDE = {
    "adafactor": optax.adafactor(0.01, min_dim_size_to_factor=2),
    "muon": optax.contrib.muon(0.1),
    "schedule_free": optax.contrib.schedule_free(optax.sgd(0.1), 0.1),
    "prodigy": optax.contrib.prodigy(0.1),
    "mechanize": optax.contrib.mechanize(optax.adam(1.0)),
    "sm3": optax.sm3(0.1),
    "noisy_sgd": optax.noisy_sgd(0.1, key=0),
    "sam": optax.contrib.sam(optax.sgd(0.1), optax.sgd(0.1)),  # (takes no extra argument)
    "MultiSteps": optax.MultiSteps(optax.adam(0.1), 2),
    "masked": optax.masked(optax.adam(0.1), KERNELS),
    "chain": optax.chain(
        optax.clip(1.0), optax.adaptive_grad_clip(0.1), optax.adam(0.1), optax.ema(0.9)
    ),
    "moments of half precision": optax.adam(0.1, mu_dtype="bfloat16"),
}
AROUND = {
    "MultiSteps": lambda tx: optax.MultiSteps(tx, 2).gradient_transformation(),
    "skipping MultiSteps": lambda tx: optax.MultiSteps(
        tx, 2, should_skip_update_fn=optax.skip_not_finite
    ).gradient_transformation(),
    "masked": lambda tx: optax.masked(tx, KERNELS),
    "masked, biases": lambda tx: optax.masked(tx, jax.tree.map(lambda kernel: not kernel, KERNELS)),
    "masked, prefix": lambda tx: optax.masked(tx, {name: name != "layer0" for name in PARAMS}),
    "partition": lambda tx: optax.partition({True: tx, False: tx}, KERNELS),
    "partition, one part empty": lambda tx: optax.partition(
        {0: tx, 1: tx}, jax.tree.map(lambda p: 0, PARAMS)
    ),
    "apply_if_finite": lambda tx: optax.apply_if_finite(tx, 3),
    "chain": lambda tx: optax.named_chain(
        ("before", optax.clip(1.0)), ("ours", tx), ("after", optax.scale(0.5))
    ),
    "schedule_free": lambda tx: optax.contrib.schedule_free(tx, 0.1),
    "mechanize": optax.contrib.mechanize,
}


def assert_holds_its_form(tx, params=PARAMS):
    """A step keeps structure, shapes and dtypes of state and updates; optax's tools take the
    state.
    """
    state = tx.init(params)
    updates, next_state = jax.eval_shape(tx.update, params, state, params, ctx=context())

    def form(tree):
        return jax.tree.structure(tree), [
            (jnp.shape(a), jnp.result_type(a)) for a in jax.tree.leaves(tree)
        ]

    assert form(next_state) == form(state)
    assert form(updates) == form(params)
    plain = optax.tree.unwrap_random_key_data
    assert_bitwise(plain(optax.tree.map_params(tx, lambda p: p, state)), plain(state))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("inside", INSIDE)
def test_a_method_takes_any_optimizer(name, inside):
    assert_holds_its_form(METHODS[name](INSIDE[inside]))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("around", AROUND)
def test_a_method_goes_into_any_wrapper(name, around):
    assert_holds_its_form(AROUND[around](METHODS[name](optax.adam(0.01))))


@pytest.mark.parametrize("name", METHODS)
def test_states_are_open_to_optax(name):
    """optax.tree.get, set and map_params, as programs that distribute or change states use them."""
    tx = METHODS[name](optax.adam(0.01))
    state = tx.init(PARAMS)
    assert_bitwise(optax.tree.get(state, "mu"), jax.tree.map(jnp.zeros_like, PARAMS))
    assert int(optax.tree.get(optax.tree.set(state, count=7), "count")) == 7
    doubled = optax.tree.map_params(
        tx, lambda p, q: p + q, state, PARAMS, transform_non_params=lambda _: None
    )
    assert_bitwise(optax.tree.get(doubled, "nu"), PARAMS)
    if name == "l2_init":
        assert_bitwise(doubled[0], jax.tree.map(lambda p: 2 * p, PARAMS))


@pytest.mark.long
def test_lookahead():
    """Its parameters are pairs, of which the optimizer in it sees one: a penalty goes in there, a
    rewrite around it.
    """
    pair = optax.LookaheadParams.init_synced(PARAMS)
    inside = optax.lookahead(methods.l2(strength=0.5)(optax.sgd(0.1)), 5, 0.5)
    updates, _ = inside.update(jax.tree.map(jnp.zeros_like, PARAMS), inside.init(pair), pair)
    jax.tree.map(
        lambda u, p: np.testing.assert_allclose(u, -0.1 * p, rtol=1e-6), updates.fast, PARAMS
    )
    tx = methods.shrink_and_perturb(shrink=0.5, noise=0.0, period=1)(
        optax.lookahead(optax.sgd(0.0), 5, 0.5)
    )
    with jax.disable_jit():
        updates, _ = tx.update(PARAMS, tx.init(pair), pair, ctx=context())
    jax.tree.map(lambda u, p: np.testing.assert_allclose(u, -0.5 * p, rtol=1e-6), updates, pair)
    tx = methods.l2()(optax.lookahead(optax.sgd(0.1), 5, 0.5))
    with pytest.raises(
        ValueError, match=r"a gradient in the structure of its parameters; .* optax\.lookahead"
    ):
        tx.update(PARAMS, tx.init(pair), pair)


@pytest.mark.long
def test_a_line_search_gets_what_it_needs():
    """Extra arguments other than `ctx` pass through every method."""
    tx = methods.compose(*METHODS.values())(optax.polyak_sgd(1.0))
    updates, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS, value=jnp.float32(0.1), ctx=context())
    assert all(np.isfinite(u).all() for u in jax.tree.leaves(updates))


def test_flattened_parameters():
    """optax.flatten hides which moment is whose: ReDo says so, what touches no moment acts."""
    shrunk, _ = after(methods.shrink_and_perturb(period=1)(optax.flatten(optax.adam(0.01))), 1)
    want, _ = after(methods.shrink_and_perturb(period=1)(optax.adam(0.01)), 1)
    assert_bitwise(shrunk, want)
    with pytest.raises(
        ValueError, match=r"moments of touched weights cannot be told: .* optax\.flatten does not"
    ):
        after(redo()(optax.flatten(optax.adam(0.01))), 1)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.long
def test_dtypes_are_kept(name, dtype):
    with jax.enable_x64(True):  # with float32 parameters too: nothing may become float64 by itself
        params = jax.tree.map(lambda p: p.astype(dtype), PARAMS)
        # numbers as lanes and injected hyperparameters have them
        settings = jnp.float32(0.5), jnp.float64(0.5)
        method = METHODS[name]
        for number in settings:
            if name in ("l2", "l2_init", "spectral"):
                method = getattr(methods, name)(strength=number)
            elif name == "shrink_and_perturb":
                method = methods.shrink_and_perturb(shrink=number, noise=number)
            assert_holds_its_form(method(optax.adam(0.01)), params)
        state = jax.tree.leaves(METHODS[name](optax.identity()).init(params))
        assert dtype == "float64" or all(a.dtype != "float64" for a in state)


# ----------------------------------------------------------------------------------------------
# MultiSteps and the clock

FIRST, CALLS = 3, 8  # the first call of the second task, which is no call that MultiSteps applies


def calls(tx, ctx, count=CALLS):
    """Whether anything is applied at each call, and what, all gradients being zero: only methods
    move anything.
    """
    params, state, moved = small_tree(), tx.init(small_tree()), []
    update = jax.jit(
        lambda state, params, ctx: tx.update(
            jax.tree.map(jnp.zeros_like, params), state, params, ctx=ctx
        )
    )
    for i in range(count):
        updates, state = update(state, params, ctx(i))
        moved.append(any(np.any(u) for u in jax.tree.leaves(updates)))
        params = optax.apply_updates(params, updates)
    return [i for i in range(count) if moved[i]], state


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.long
def test_task_changes_are_not_lost_in_multi_steps(k):
    method = methods.shrink_and_perturb()
    # around MultiSteps a method sees every call, and acts at the very one
    acted, _ = calls(
        method(optax.MultiSteps(optax.sgd(0.1), k)), lambda i: context(i, boundary=i == FIRST)
    )
    assert acted == [FIRST]
    # inside, a step is what k calls make: it acts at the next update
    inside = optax.MultiSteps(method(optax.sgd(0.1)), k)
    acted, _ = calls(inside, lambda i: context(i // k, boundary=i // k == FIRST // k))
    assert acted == [FIRST // k * k + k - 1]


@pytest.mark.long
def test_periods_are_not_lost_in_multi_steps():
    method = methods.shrink_and_perturb(period=3)
    acted, _ = calls(method(optax.MultiSteps(optax.sgd(0.1), 2)), context, 12)
    assert acted == [2, 5, 8, 11]  # periods of calls
    acted, _ = calls(optax.MultiSteps(method(optax.sgd(0.1)), 2), lambda i: context(i // 2), 12)
    assert acted == [5, 11]  # periods of updates


def test_an_optimizer_reset_is_not_lost_in_multi_steps():
    method = methods.optimizer_reset()
    _, state = calls(
        method(optax.MultiSteps(optax.adam(0.1), 2)), lambda i: context(i, boundary=i == 4)
    )
    assert int(optax.tree.get(state, "count")) == 2  # updates since, of 4
    inside = optax.MultiSteps(method(optax.adam(0.1)), 2)
    _, state = calls(inside, lambda i: context(i // 2, boundary=i // 2 == FIRST // 2))
    assert int(optax.tree.get(state, "count")) == 3


@pytest.mark.long
def test_a_method_acts_though_the_gradient_is_not_finite():
    """Around apply_if_finite; the update that is thrown away is the optimizer's."""
    params = small_tree()
    tx = methods.shrink_and_perturb(shrink=0.5, noise=0.0)(optax.apply_if_finite(optax.sgd(0.1), 3))
    wrong = jax.tree.map(lambda p: jnp.full_like(p, jnp.nan), params)
    with jax.disable_jit():
        updates, _ = tx.update(wrong, tx.init(params), params, ctx=context(boundary=True))
    jax.tree.map(lambda u, p: np.testing.assert_allclose(u, -0.5 * p, rtol=1e-6), updates, params)


# --------------------------------------------------------------------------------------------------
# other containers


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Layer:
    weight: jax.Array
    bias: jax.Array


class Pair(NamedTuple):
    w: jax.Array
    b: jax.Array


def layers():
    random = np.random.default_rng(0)
    return [
        jnp.asarray(random.normal(size=shape), jnp.float32)
        for shape in ((3, 2), (2,), (2, 4), (4,))
    ]


def variables(w0, b0, w1, b1):
    state = {
        "one": {"kernel": nnx.Param(w0), "bias": nnx.Param(b0)},
        "two": {"kernel": nnx.Param(w1), "bias": nnx.Param(b1)},
    }
    return nnx.State(state)


CONTAINERS = {
    "dict": lambda w0, b0, w1, b1: {
        "one": {"kernel": w0, "bias": b0},
        "two": {"kernel": w1, "bias": b1},
    },
    "FrozenDict": lambda w0, b0, w1, b1: FrozenDict(
        {"one": {"kernel": w0, "bias": b0}, "two": {"kernel": w1, "bias": b1}}
    ),
    "nnx.State": variables,
    "dataclasses": lambda w0, b0, w1, b1: [Layer(w0, b0), Layer(w1, b1)],
    "named tuples": lambda w0, b0, w1, b1: {"layers": (Pair(w0, b0), Pair(w1, b1))},
    "list of tuples": lambda w0, b0, w1, b1: [(w0, b0), (), (w1, b1)],
    "tuple": lambda w0, b0, w1, b1: (w0, b0, w1, b1),
    "flat names": lambda w0, b0, w1, b1: {
        "one/kernel": w0,
        "one/bias": b0,
        "two/kernel": w1,
        "two/bias": b1,
    },
    "names of two": lambda w0, b0, w1, b1: {
        ("one", "w"): w0,
        ("one", "b"): b0,
        ("two", "w"): w1,
        ("two", "b"): b1,
    },
    "numbered": lambda w0, b0, w1, b1: {"w1": w0, "b1": b0, "w2": w1, "b2": b1},
    "other names": lambda w0, b0, w1, b1: {
        "one": {"matrix": w0, "shift": b0},
        "two": {"matrix": w1, "shift": b1},
    },
    "sorts": lambda w0, b0, w1, b1: {"weights": [w0, w1], "biases": [b0, b1]},
    "sorts by name": lambda w0, b0, w1, b1: {
        "kernels": {"one": w0, "d": w1},
        "biases": {"one": b0, "d": b1},
    },
    "sorts, one word": lambda w0, b0, w1, b1: {
        "weights": {"one": w0, "d": w1},
        "bias": {"one": b0, "d": b1},
    },
    "sorts of lists": lambda w0, b0, w1, b1: {"w": {"net": [w0, w1]}, "b": {"net": [b0, b1]}},
    "layerBias": lambda w0, b0, w1, b1: {
        "layer": {"one": w0, "d": w1},
        "layerBias": {"one": b0, "d": b1},
    },
    "values": lambda w0, b0, w1, b1: {
        "one": {"kernel": {"value": w0}, "bias": {"value": b0}},
        "two": {"kernel": {"value": w1}, "bias": {"value": b1}},
    },
}


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.long
def test_spectral_in_any_container(container):
    """Every matrix and every bias counts, whatever holds them: the updates are those of one layer
    alone.
    """
    tx, parts = methods.spectral(strength=1.0)(optax.sgd(1.0)), layers()
    params = CONTAINERS[container](*parts)
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    by_size = {u.size: u for u in jax.tree.leaves(updates)}
    for part in parts:
        if part.ndim == 1:  # d/db (b'b)^2 = 4 b'b b
            want = -4 * (part @ part) * part
        else:
            left, sizes, right = np.linalg.svd(part)
            want = -4 * (sizes[0] ** 2 - 1) * sizes[0] * np.outer(left[:, 0], right[0])
        np.testing.assert_allclose(by_size[part.size], want, rtol=1e-3, atol=1e-3)
    assert len(by_size) == 4


@pytest.mark.parametrize(
    "params",
    [
        {"kernel": jnp.ones((2, 3)), "shift": jnp.ones(3), "slope": jnp.ones(3)},
        {"matrix0": jnp.ones((2, 3)), "matrix1": jnp.ones((3, 3)), "shift": jnp.ones(3)},
        {"w1": jnp.ones((2, 3)), "b1": jnp.ones(3), "scale": jnp.ones(3), "bias": jnp.ones(3)},
        [jnp.ones((2, 3)), jnp.ones(3), jnp.ones(3), jnp.ones(3)],
        [[jnp.ones((2, 3)), jnp.ones((3, 3))], [jnp.ones(3), jnp.ones(3)]],
        (optax.MaskedNode(), jnp.ones(3)),
        {"weight": optax.MaskedNode(), "bias": jnp.ones(3)},
        {"Dense_0": {"kernel": jnp.ones((2, 3))}, "Bias_0": {"bias": jnp.ones(3)}},
        {"Dense_0": {"kernel": jnp.ones((2, 3))}, "layer_bias": {"offset": jnp.ones(3)}},
        {"layer": {"inner": {"kernel": jnp.ones((2, 3))}, "bias": jnp.ones(3)}},
        {"kernels": {"one": jnp.ones((2, 3))}, "one_bias": jnp.ones(3)},
        {"weights": {"one": optax.MaskedNode()}, "biases": {"one": jnp.ones(3)}},
        {"kernels": {"one": {"w": jnp.ones((2, 3))}}, "biases": {"one": {"b": jnp.ones(3)}}},
    ],
)
def test_spectral_says_where_it_cannot_tell_a_bias(params):
    with pytest.raises(
        ValueError,
        match=r"cannot tell whether .* is a bias of a layer: call it 'bias' beside its 'kernel'",
    ):
        methods.spectral()(optax.sgd(0.1)).init(params)


@pytest.mark.parametrize(
    "params",
    [
        {"scale": jnp.ones(3), "bias": jnp.ones(3)},
        {
            "layer": {"kernel": jnp.ones((2, 3)) / 6**0.5, "slope": jnp.ones(2)},
            "norm": {"scale": jnp.ones(3), "bias": jnp.ones(3)},
        },
        {"kernel": jnp.ones((2, 3)) / 6**0.5, "scale": jnp.ones(3)},
        {"norm": {"scale": optax.MaskedNode(), "bias": jnp.ones(3)}},
        (jnp.ones(3), jnp.ones((2, 2)) / 2),
        jnp.ones(3),
        {},
        {"layer": optax.MaskedNode()},
        {
            "weights": {"one": jnp.ones((2, 3)) / 6**0.5, "n": jnp.ones(3)},
            "biases": {"n": jnp.ones(3)},
        },
        {"scales": {"n": optax.MaskedNode()}, "biases": {"n": jnp.ones(3)}},
        {"layer_norm": {"bias": jnp.ones(3)}, "kernel": jnp.ones((2, 3)) / 6**0.5},
        {"norm": {"scale": {"value": jnp.ones(3)}, "bias": {"value": jnp.ones(3)}}},
        {"b": {"slope": jnp.ones(3)}, "a": {"kernel": jnp.ones((2, 3)) / 6**0.5}},
    ],
)
def test_spectral_leaves_normalisations_alone(params):
    tx = methods.spectral(strength=1.0)(optax.sgd(1.0))
    state = tx.init(params)
    for _ in range(2):
        updates, state = tx.update(jax.tree.map(jnp.zeros_like, params), state, params)
    assert not any(np.any(np.abs(u) > 1e-5) for u in jax.tree.leaves(updates))


@pytest.mark.long
def test_spectral_tells_a_bias_of_several_axes_and_a_bias_under_a_mask():
    tx = methods.spectral(strength=1.0)(optax.sgd(1.0))
    bias, kernel = jnp.full((2, 3), 0.5), jnp.ones((4, 2, 3)) / 24**0.5
    for params in (
        {"kernels": {"query": kernel}, "biases": {"query": bias}},
        {"kernels": {"query": optax.MaskedNode()}, "biases": {"query": bias[0]}},
    ):
        updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
        b = params["biases"]["query"]
        np.testing.assert_allclose(updates["biases"]["query"], -4 * jnp.sum(b**2) * b, rtol=1e-5)


@pytest.mark.parametrize("name", ["l2", "l2_init", "spectral"])
def test_a_penalty_in_parts_is_the_penalty(name):
    """Over any partition of the parameters, kernels from biases and one part empty."""
    params, moved = small_tree(), small_tree(seed=1)
    kind = {"kernel": 0, "bias": 1, "scale": 1}
    labels = {layer: {leaf: kind[leaf] for leaf in beside} for layer, beside in params.items()}
    tx = getattr(methods, name)(strength=0.3)(optax.sgd(1.0))
    parts = optax.partition({0: tx, 1: tx, 2: tx}, labels)
    got, want = (
        t.update(jax.tree.map(jnp.zeros_like, params), t.init(params), moved)[0]
        for t in (parts, tx)
    )
    # vectors of singular values start elsewhere where another matrix is the first
    tolerance = 1e-3 if name == "spectral" else 0
    jax.tree.map(
        lambda g, w: np.testing.assert_allclose(g, w, rtol=tolerance, atol=tolerance), got, want
    )
    assert all(np.any(u) for u in jax.tree.leaves((got["layer0"], got["conv"])))


@pytest.mark.parametrize(
    "make", [FrozenDict, lambda tree: nnx.State(jax.tree.map(nnx.Param, tree))]
)
def test_redo_in_other_containers(make):
    got, _ = after(redo()(optax.adam(0.01)), 1, make(PARAMS))
    want, _ = after(redo()(optax.adam(0.01)), 1)
    assert type(got) is type(make(PARAMS))
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_array_equal(g, w)


def test_redo_in_parts_is_redo():
    """Each part recycles what it has of a dormant unit."""
    tx = redo()(optax.adam(0.01))
    got, _ = after(optax.partition({True: tx, False: tx}, KERNELS), 1)
    want, _ = after(tx, 1)
    assert_bitwise(got, want)


# --------------------------------------------------------------------------------------------------
# wrong calls


@pytest.mark.parametrize("name", ["l2", "l2_init", "spectral"])
def test_a_penalty_needs_parameters(name):
    tx = METHODS[name](optax.sgd(0.1))
    with pytest.raises(
        ValueError, match=r"^a penalty on the parameters needs update\(gradient, state, params\)\.$"
    ):
        tx.update(PARAMS, tx.init(PARAMS))


def test_redo_says_what_it_lacks():
    tx = redo()(optax.sgd(0.1))
    with pytest.raises(
        ValueError, match=r"^redo needs the activations 'h0' in ctx\.hidden, which has 'a', 'b'\."
    ):
        tx.update(
            PARAMS,
            tx.init(PARAMS),
            PARAMS,
            ctx=context(hidden={"a": jnp.ones(1), "b": jnp.ones(1)}),
        )
    unit = UNITS["h0"]._replace(made_by=("layer9",))
    with pytest.raises(
        ValueError, match=r"redo's units 'h' are of a layer 'layer9', of which init draws no kernel"
    ):
        methods.redo({"h": unit}, INIT)


def wrong_settings():
    optimizers = {name: {"learning_rate": 0.1} for name in OPTIMIZERS}
    recycling = {"units": UNITS, "init": INIT}
    needed = {"redo": recycling, "continual_backprop": recycling}
    needed["head_reset"] = {"head": ("head",), "init": INIT}
    for registered in (methods.METHODS, OPTIMIZERS):
        for name, factory in registered.items():
            given = needed.get(name, optimizers.get(name, {}))
            for setting in [
                *registry.numbers(factory),
                *(["learning_rate"] if name in OPTIMIZERS else []),
            ]:
                low, high = registry.bounds(factory).get(setting, (0, None))
                for value in (
                    "1e-3",
                    None,
                    float("nan"),
                    [0.1],
                    True,
                    *([] if low is None else [-1.0]),
                    *([1.5] if high == 1 else []),
                ):
                    yield factory, given, setting, value
            for setting, default in registry.options(factory).items():
                wrong = {bool: ("no", 1), int: ("5", 2.5, True, 2**31), str: ("x", None)}[
                    type(default)
                ]
                for value in wrong:
                    yield factory, given, setting, value


@pytest.mark.long
def test_settings_are_refused_as_on_the_command_line():
    """One sentence for each; numbers that may be tracers, arrays of JAX and numpy's are taken as
    they are.
    """
    count = 0
    for factory, given, setting, value in wrong_settings():
        with pytest.raises(
            ValueError, match=rf"^{factory.__name__}\.{setting} is .*: allowed are .*\.$"
        ):
            factory(**{**given, setting: value})
        count += 1
    assert count > 100
    for number in (1, np.float32(0.5), np.int64(1), np.array(0.5), jnp.float32(-1.0)):
        methods.l2(strength=number)(optax.sgd(0.1))
        jax.eval_shape(
            lambda n: methods.shrink_and_perturb(noise=n)(optax.sgd(n)).init(PARAMS), number
        )
        OPTIMIZERS["adam"](number)
    OPTIMIZERS["adamw"](optax.linear_schedule(0.1, 0.0, 10))
    assert methods.redo(UNITS, INIT, period=np.int64(3)).when(context(2))
