"""What methods do before a task, terms that see the network, and what a rewrite may look at."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import tiny
from helpers.loops import STRUCTURE, assert_bitwise, context, drive, small_tree

from plasticity_jax import lanes, methods
from plasticity_jax.models import MLP
from plasticity_jax.spec import Spec
from plasticity_jax.stream import keys
from plasticity_jax.training import network, step, supervised
from plasticity_jax.types import Context, Start, Structure, View

pytestmark = pytest.mark.usefixtures("compiled_quickly")

DATA = jax.tree.map(jnp.asarray, tiny.data())
KEY = jax.random.key(5)


def start(params, structure=STRUCTURE, gradient=None):
    return Start(KEY, jnp.int32(1), params, gradient or (lambda p: p), structure)


def begun(method, optimizer, params, state, **changes):
    found = [method] if isinstance(method, methods.Boundary) else []
    return methods.begin(found, optimizer, params, state, start(params, **changes))


@pytest.mark.long
def test_shrink_and_perturb_before_the_first_step():
    params = small_tree()
    method = methods.shrink_and_perturb(shrink=0.8, noise=0.05, moment="before")
    tx = method(optax.adam(0.01))
    assert_bitwise(drive(tx, params, 2)[-1][0], drive(optax.adam(0.01), params, 2)[-1][0])
    state = tx.init(params)
    after, kept = begun(method, tx, params, state)
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    noise = jax.random.normal(jax.random.fold_in(KEY, 0), flat.shape)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
        after,
        unravel(0.8 * flat + 0.05 * noise),
    )
    assert_bitwise(kept, state)


def test_the_moment_of_shrink_and_perturb():
    assert isinstance(methods.shrink_and_perturb(), methods.Rewrite)
    assert isinstance(methods.shrink_and_perturb(period=3), methods.Rewrite)
    with pytest.raises(ValueError, match="moment is 'now': allowed are 'before', 'after_first"):
        methods.shrink_and_perturb(moment="now")
    with pytest.raises(ValueError, match=r"moment is .before. and .*period 3: allowed is one of"):
        methods.shrink_and_perturb(moment="before", period=3)


@pytest.mark.long
def test_a_head_reset_draws_the_head_and_forgets_its_moments():
    model = MLP(4, width=4, depth=2)
    structure = Structure(model.units(), STRUCTURE.init, model.output_layer())
    method = methods.head_reset(structure.head, structure.init)
    params = structure.init(jax.random.key(1))
    tx = method(optax.adam(0.1))
    params, state = drive(tx, params, 3)[-1]
    after, fresh = begun(method, tx, params, state, structure=structure)
    drawn = structure.init(jax.random.fold_in(KEY, 0))
    assert_bitwise(after["head"], drawn["head"])
    assert_bitwise({**after, "head": 0}, {**params, "head": 0})
    moments = fresh[0].mu
    assert not np.any(jax.tree.leaves(moments["head"])[0])
    assert_bitwise(moments["layer0"], state[0].mu["layer0"])
    assert fresh[0].count == 3


def test_a_full_reset_draws_everything_and_forgets_all_moments():
    method = methods.full_reset(STRUCTURE.init)
    tx = method(optax.adam(0.1))
    params, state = drive(tx, STRUCTURE.init(jax.random.key(1)), 3)[-1]
    after, fresh = begun(method, tx, params, state)
    assert_bitwise(after, STRUCTURE.init(jax.random.fold_in(KEY, 0)))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves((fresh[0].mu, fresh[0].nu)))
    assert fresh[0].count == 3


def test_a_full_reset_with_a_new_optimizer_is_a_new_network():
    given = (STRUCTURE, {})
    parts = methods.parts("full_reset+optimizer_reset", *given)
    boundaries = [part for part in parts if isinstance(part, methods.Boundary)]
    tx = methods.compose(*parts)(optax.adam(0.1))
    params, state = drive(tx, STRUCTURE.init(jax.random.key(1)), 3)[-1]
    params, state = methods.begin(boundaries, tx, params, state, start(params))

    def four(optimizer, params, state, told):
        for number in range(4):
            given = jax.tree.map(lambda p, n=number: jnp.sin(p + n), params)
            ctx = context(number, boundary=told and number == 0)
            updates, state = optimizer.update(given, state, params, ctx=ctx)
            params = optax.apply_updates(params, updates)
        return params

    bare = methods.none()(optax.adam(0.1))
    drawn = STRUCTURE.init(jax.random.fold_in(KEY, 0))
    with jax.disable_jit():
        got, want = four(tx, params, state, True), four(bare, drawn, bare.init(drawn), False)
    assert_bitwise(got, want)


def test_a_head_may_become_zero_with_its_moments_kept():
    model = MLP(4, width=4, depth=2)
    structure = Structure(model.units(), STRUCTURE.init, model.output_layer())
    method = methods.head_reset(structure.head, structure.init, to="zero")
    tx = method(optax.adam(0.1))
    params, state = drive(tx, structure.init(jax.random.key(1)), 3)[-1]
    after, kept = begun(method, tx, params, state, structure=structure)
    assert_bitwise(after["head"], jax.tree.map(jnp.zeros_like, params["head"]))
    assert_bitwise({**after, "head": 0}, {**params, "head": 0})
    assert_bitwise(kept, state)
    with pytest.raises(ValueError, match=r"head_reset.to is 'one': allowed are 'drawn', 'zero'"):
        methods.head_reset(structure.head, structure.init, to="one")


def test_a_head_reset_needs_a_head():
    with pytest.raises(ValueError, match="head_reset needs a network with an output layer of its"):
        Spec(environment="random_seq2seq", model="t5", method="head_reset")
    Spec(environment="random_seq2seq", model="t5", method="head_reset", options={"t5.head": "own"})


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("shrink_and_perturb", {"shrink_and_perturb.moment": "before"}),
        ("head_reset", {}),
        ("full_reset", {}),
    ],
)
@pytest.mark.long
def test_a_run_acts_before_each_task_but_the_first(method, options):
    """The first task is that of no method; the second begins where `begin` leaves parameters."""
    spec, plain = tiny.spec(method=method, options=options), tiny.spec()
    lane = {name: jnp.asarray(v) for name, v in lanes.complete(spec, {"seed": 3}).items()}
    bare = {name: value for name, value in lane.items() if "." not in name or "labels" in name}
    run, other = supervised.make_run(spec), supervised.make_run(plain)
    task = jax.jit(run.run_task)
    first, _ = task(lane, jax.jit(run.init)(lane, DATA), DATA, 0)
    same, _ = jax.jit(other.run_task)(bare, jax.jit(other.init)(bare, DATA), DATA, 0)
    assert_bitwise(first.params, same.params)
    environment = spec.make_environment(lane)
    net = network.network(spec, environment, DATA)
    boundaries = step.parts(spec, lane, net.structure)
    tx = step.optimizer(spec, lane, net.structure)
    key = keys.role(jax.random.key(3), keys.START, 1)
    told = Start(key, jnp.int32(1), first.initial, lambda p: p, net.structure)
    params, opt = methods.begin(boundaries, tx, first.params, first.opt, told)
    want, _ = jax.jit(other.run_task)(bare, first._replace(params=params, opt=opt), DATA, 1)
    got, _ = task(lane, first, DATA, 1)
    for left, right in zip(*map(jax.tree.leaves, (got.params, want.params)), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6)
    moved = [np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (got, first)), strict=True)]
    assert max(moved) > 1e-3


def test_a_boundary_may_use_the_gradient_of_the_new_task():
    """One that steps down the new task's gradient: zero where the loss is flat, else not."""
    params = {"w": jnp.array([1.0, -2.0])}

    def stepped(params, told):
        moved = jax.tree.map(lambda p, g: p - 0.1 * g, params, told.gradient(params))
        return moved, None

    method = methods.Boundary(stepped)
    gradient = jax.grad(lambda p: (p["w"] ** 2).sum())
    after, _ = begun(method, method(optax.sgd(1.0)), params, (), gradient=gradient)
    np.testing.assert_allclose(after["w"], [0.8, -1.6], rtol=1e-6)


# Terms


def view_of(params, h):
    return View(None, h, {"h": h}, {}, params, params)


def test_feature_norm_by_hand():
    term = methods.feature_norm(strength=0.5)
    h = jnp.array([[3.0, 4.0], [0.0, 1.0]])
    tx = term(optax.sgd(1.0))
    state = tx.init({"w": h})
    assert methods.objective([term], state, view_of({"w": h}, h)) == pytest.approx(0.5 * 26 / 2)


def test_terms_have_their_own_memory_in_the_order_of_the_composition():
    """Two terms that remember the parameters of the step before, each with a factor of its own."""

    def pull(factor):
        return methods.Term(
            lambda view, memory: ((view.params["w"] - factor * memory["w"]) ** 2).sum(),
            1.0,
            init=lambda params: params,
            advance=lambda memory, params: params,
        )

    terms = [pull(1.0), pull(3.0)]
    tx = methods.compose(methods.l2(strength=0.0), *terms, methods.clip(norm=1e9))(optax.sgd(0.1))
    params = {"w": jnp.array([2.0])}
    state = tx.init(params)
    gradient = {"w": jnp.array([1.0])}
    updates, state = tx.update(gradient, state, params, ctx=context(0))
    after = optax.apply_updates(params, updates)
    np.testing.assert_allclose(after["w"], 1.9)
    got = methods.objective(terms, state, view_of(after, None))
    assert got == pytest.approx((1.9 - 2.0) ** 2 + (1.9 - 6.0) ** 2)


@pytest.mark.long
def test_a_term_trains_with_the_gradient_of_loss_and_term():
    """One step of SGD: the parameters move by the learning rate times the gradient of the sum."""
    spec = tiny.spec(method="feature_norm")
    lane = {"seed": 3, "learning_rate": 0.1, "feature_norm.strength": 0.3}
    lane = lanes.arrays(spec, lanes.complete(spec, lane))
    state = supervised.make_run(spec).init(lane, DATA)
    environment = spec.make_environment(lane)
    net = network.network(spec, environment, DATA)
    learner = step.learner(spec, lane, environment, net)
    task = environment.task(KEY, DATA, 0)
    batch = environment.examples(DATA, task, jnp.arange(16))
    after, online = step.train_step(learner, state, batch, KEY, jnp.int32(0), jnp.bool_(False))

    def whole(params):
        logits, hidden, _ = net.apply(params, state.variables, batch.x, True)
        norm = (hidden["h0"] ** 2).sum(-1).mean()
        return step.mean_loss(environment, logits, batch) + 0.3 * norm

    gradient = jax.grad(whole)(state.params)
    want = jax.tree.map(lambda p, g: p - 0.1 * g, state.params, gradient)
    for left, right in zip(*map(jax.tree.leaves, (after.params, want)), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6)
    loss = step.mean_loss(environment, net.apply(state.params, {}, batch.x, True)[0], batch)
    assert online.loss == pytest.approx(float(loss), rel=1e-6)


def stepped(method, numbers):
    """The parameters before and after one step of SGD with a Term, the network's functions, and the
    minibatch; what is initial are other parameters than those before.
    """
    spec = tiny.spec(method=method, activation="tanh")
    lane = {"seed": 3, "learning_rate": 0.1, **numbers}
    lane = lanes.arrays(spec, lanes.complete(spec, lane))
    state = supervised.make_run(spec).init(lane, DATA)
    other = jax.tree.map(lambda p: 1.5 * p + 0.1, state.params)
    state = state._replace(params=other)
    environment = spec.make_environment(lane)
    net = network.network(spec, environment, DATA)
    learner = step.learner(spec, lane, environment, net)
    task = environment.task(KEY, DATA, 0)
    batch = environment.examples(DATA, task, jnp.arange(16))
    after, _ = step.train_step(learner, state, batch, KEY, jnp.int32(0), jnp.bool_(False))
    return state, after.params, batch


def torch_loss(torch, params, batch):
    """(mean cross-entropy, activations) of the same network in PyTorch."""
    x = torch.tensor(np.asarray(batch.x)).flatten(1)
    h = torch.tanh(x @ params["layer0"]["kernel"] + params["layer0"]["bias"])
    logits = h @ params["head"]["kernel"] + params["head"]["bias"]
    wanted = torch.tensor(np.asarray(batch.y)).argmax(1)
    return torch.nn.functional.cross_entropy(logits, wanted), h


def as_tensors(torch, params):
    return jax.tree.map(lambda p: torch.tensor(np.asarray(p), requires_grad=True), params)


def check_moved(params, after):
    for p, a in zip(jax.tree.leaves(params), jax.tree.leaves(after), strict=True):
        np.testing.assert_allclose(a, (p - 0.1 * p.grad).detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.oracle
def test_gradient_penalty_is_pytorchs_double_backward(torch):
    state, after, batch = stepped("gradient_penalty", {"gradient_penalty.strength": 0.7})
    params = as_tensors(torch, state.params)
    loss, _ = torch_loss(torch, params, batch)
    slopes = torch.autograd.grad(loss, jax.tree.leaves(params), create_graph=True)
    penalty = sum((slope**2).sum() for slope in slopes)
    (loss + 0.7 * penalty).backward()
    check_moved(params, after)


@pytest.mark.oracle
def test_infer_is_the_formula_in_pytorch(torch):
    state, after, batch = stepped("infer", {"infer.strength": 0.7, "infer.scale": 2.0})
    params, first = as_tensors(torch, state.params), as_tensors(torch, state.initial)
    loss, h = torch_loss(torch, params, batch)
    _, before = torch_loss(torch, first, batch)
    heads = torch.tensor(np.asarray(jax.random.normal(jax.random.key(0), (8, 10)))) / 8**0.5
    apart = (h @ heads - 2.0 * (before @ heads).detach()) ** 2
    (loss + 0.7 * apart.sum() / 16).backward()
    check_moved(params, after)


def test_terms_that_need_a_training_step_say_so():
    h = jnp.ones((2, 2))
    for term, lacking in ((methods.infer(), "features"), (methods.gradient_penalty(), "a loss")):
        with pytest.raises(ValueError, match=f"needs a View with {lacking}: allowed is any"):
            term.value(view_of({"w": h}, h), ())
    with pytest.raises(ValueError, match=r"^infer.heads is 0: allowed"):
        methods.infer(heads=0)


# Rewrites that look at more


def test_a_rewrite_may_remember_parameters_and_look_at_gradient_and_memory():
    """Takes back a step whose gradient was large: to the parameters remembered from the start."""

    def apply(params, ctx, memory):
        return memory, jax.tree.map(lambda p: jnp.ones(p.shape, bool), params), memory

    def large(ctx, memory):
        return jnp.abs(ctx.gradient["w"]).max() > 1.5

    method = methods.Rewrite(apply, large, init=lambda params: params)
    tx, params = method(optax.sgd(0.1)), {"w": jnp.array([1.0])}
    state = tx.init(params)
    for size, want in ((1.0, 0.9), (2.0, 1.0), (-1.0, 1.1)):
        gradient = {"w": jnp.array([size])}
        told = Context(KEY, jnp.int32(0), jnp.bool_(False), {}, gradient)
        updates, state = tx.update(gradient, state, params, ctx=told)
        params = optax.apply_updates(params, updates)
        np.testing.assert_allclose(params["w"], want, rtol=1e-6)


def test_a_fresh_unit_is_that_of_a_fresh_network():
    for unit in range(4):
        drawn = jax.jit(STRUCTURE.fresh, static_argnums=1)(KEY, "h1", jnp.int32(unit))
        layer = STRUCTURE.init(KEY)["layer1"]
        np.testing.assert_array_equal(drawn["kernel"], layer["kernel"][:, unit])
        np.testing.assert_array_equal(drawn["bias"], layer["bias"][unit])


@pytest.mark.long
def test_gradients_are_what_a_step_gives_its_methods():
    spec, seen = tiny.spec(), []
    lane = lanes.arrays(spec, lanes.complete(spec, {}))
    environment = spec.make_environment(lane)
    net = network.network(spec, environment, DATA)

    def update(updates, state, params=None, *, ctx):
        seen.append(jax.tree.map(jnp.subtract, ctx.gradient, updates))
        return updates, state

    tx = optax.GradientTransformationExtraArgs(optax.sgd(0.1).init, update)
    state = supervised.make_run(spec).init(lane, DATA)
    batch = environment.examples(DATA, environment.task(KEY, DATA, 0), jnp.arange(16))
    learner = step.Learner(environment, net, tx)
    step.train_step(learner, state, batch, KEY, jnp.int32(0), jnp.bool_(False))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(seen[0]))
