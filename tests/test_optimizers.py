"""Each optimizer: first steps by hand, and several steps against torch.optim."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.loops import context

from plasticity_jax import methods, registry
from plasticity_jax.optimizers import OPTIMIZERS, cosine, scheduled

START = np.array([2.0, -3.0, 0.5], np.float32)
GRADIENTS = np.random.default_rng(0).normal(size=(25, 3)).astype(np.float32)
NUMBERS = {
    "adam": [{}, {"b1": 0.5, "b2": 0.9, "eps": 0.1}],
    "adamw": [{}, {"b1": 0.5, "b2": 0.9, "eps": 0.1, "weight_decay": 0.3}],
    "adam_per_weight": [{}, {"b1": 0.5, "b2": 0.9, "eps": 0.1}],
    "sgd": [{}],
    "momentum": [{}, {"decay": 0.5}],
}


def built(name, rate, numbers):
    settings = {f"{name}.{k}": v for k, v in numbers.items()}
    return optax.with_extra_args_support(
        registry.make(OPTIMIZERS, "optimizer", name, settings, learning_rate=rate)
    )


def path(name, rate, numbers, gradients):
    tx, params, found = built(name, rate, numbers), jnp.asarray(START), []
    state = tx.init(params)
    for gradient in gradients:
        updates, state = tx.update(
            jnp.asarray(gradient), state, params, ctx="methods read this, optimizers do not"
        )
        params = optax.apply_updates(params, updates)
        found.append(np.asarray(params))
    return found


def test_first_steps_by_hand():
    first, second = np.array([0.3, -0.2, 4.0]), np.array([1.0, 0.0, -4.0])
    # Adam: m / (1 - b1) is g, v / (1 - b2) is g^2, so the first step is the learning rate times the
    # sign; to 1e-5, because 1 - 0.999 has no more digits than that in float32
    np.testing.assert_allclose(
        path("adam", 0.1, {}, [first])[0], START - 0.1 * np.sign(first), rtol=1e-5
    )
    got = path("adam", 0.1, {"eps": 0.3}, [first])[0]
    np.testing.assert_allclose(got, START - 0.1 * first / (np.abs(first) + 0.3), rtol=1e-5)
    # AdamW: besides, every parameter shrinks by the learning rate times the decay, 0.01 by default
    for numbers, decay in (({}, 0.01), ({"weight_decay": 0.5}, 0.5)):
        want = START * (1 - 0.1 * decay) - 0.1 * np.sign(first)
        np.testing.assert_allclose(path("adamw", 0.1, numbers, [first])[0], want, rtol=1e-5)
    one, two = path("sgd", 0.1, {}, [first, second])
    np.testing.assert_allclose(one, START - 0.1 * first, rtol=1e-6)
    np.testing.assert_allclose(two, START - 0.1 * first - 0.1 * second, rtol=1e-6)
    one, two = path("momentum", 0.1, {}, [first, second])
    np.testing.assert_allclose(one, START - 0.1 * first, rtol=1e-6)
    np.testing.assert_allclose(two, START - 0.1 * first - 0.1 * (0.9 * first + second), rtol=1e-6)


def test_every_optimizer_is_here():
    assert set(NUMBERS) == set(OPTIMIZERS)
    for name, sets in NUMBERS.items():
        assert {k for numbers in sets for k in numbers} == set(registry.numbers(OPTIMIZERS[name]))


@pytest.mark.oracle
@pytest.mark.parametrize(
    ("name", "numbers"), [(name, numbers) for name, sets in NUMBERS.items() for numbers in sets]
)
def test_as_pytorch(torch, name, numbers):
    """With defaults, PyTorch's own defaults are taken, so that these are compared too."""
    given = {k: v for k, v in numbers.items() if k in ("eps", "weight_decay")}
    if "b1" in numbers:
        given["betas"] = numbers["b1"], numbers["b2"]
    if name == "momentum":
        given["momentum"] = numbers.get("decay", 0.9)
    params = torch.tensor(START, requires_grad=True)
    adams = {
        "adam": torch.optim.Adam,
        "adam_per_weight": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
    }
    kind = adams.get(name, torch.optim.SGD)
    theirs = kind([params], lr=0.03, **given)
    for gradient, ours in zip(GRADIENTS, path(name, 0.03, numbers, GRADIENTS), strict=True):
        params.grad = torch.tensor(gradient)
        theirs.step()
        np.testing.assert_allclose(ours, params.detach().numpy(), rtol=1e-5, atol=1e-6)


# Learning rates that change


@pytest.mark.parametrize(("warmup", "final"), [(0.2, 0.0), (0.5, 0.1), (0.0, 0.3)])
@pytest.mark.parametrize("over", ["task", "run"])
def test_cosine_is_optaxs(over, warmup, final):
    task, run = 10, 40
    total = task if over == "task" else run
    wanted = optax.warmup_cosine_decay_schedule(0.0, 1.0, round(warmup * total), total, final)
    factor = cosine(over=over, warmup=warmup, final=final)
    got = [factor(jnp.int32(step), task, run) for step in range(run)]
    place = [step % task if over == "task" else step for step in range(run)]
    # (optax's warmup of no steps starts at the top, as ours does)
    np.testing.assert_allclose(got, [wanted(step) for step in place], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_scheduled_optimizer_is_the_one_with_that_learning_rate(name):
    factor = cosine(warmup=0.3, final=0.1)

    def rate(step):
        return 0.1 * factor(jnp.asarray(step), 10, 10)

    ours = scheduled(built(name, 0.1, {}), lambda step: factor(step, 10, 10))
    theirs = built(name, rate, {})
    params = {"ours": jnp.asarray(START), "theirs": jnp.asarray(START)}
    states = {"ours": ours.init(params["ours"]), "theirs": theirs.init(params["theirs"])}
    shapes = [jax.tree.structure(built(name, 0.1, {}).init(jnp.asarray(START)))]
    assert jax.tree.structure(states["ours"]) == shapes[0]  # it remembers nothing more
    for step, gradient in enumerate(GRADIENTS[:10]):
        for which, tx in {"ours": ours, "theirs": theirs}.items():
            updates, states[which] = tx.update(
                jnp.asarray(gradient), states[which], params[which], ctx=context(step)
            )
            params[which] = optax.apply_updates(params[which], updates)
        np.testing.assert_allclose(params["ours"], params["theirs"], rtol=2e-6, atol=1e-6)


def test_a_gradient_is_clipped_with_its_penalties():
    params = {"w": jnp.array([3.0, 4.0])}
    clipped = methods.compose(methods.clip(norm=1.0), methods.l2(strength=0.5))(optax.sgd(1.0))
    zero = {"w": jnp.zeros(2)}
    updates, _ = clipped.update(zero, clipped.init(params), params, ctx=context(0))
    # l2's gradient is strength * 2 * w or strength * w: either way of norm above 1, so its
    # direction
    np.testing.assert_allclose(updates["w"], [-0.6, -0.8], rtol=1e-6)
    small = methods.clip(norm=100.0)(optax.sgd(1.0))
    updates, _ = small.update({"w": jnp.array([3.0, 4.0])}, small.init(params), params)
    np.testing.assert_array_equal(updates["w"], [-3.0, -4.0])


def test_the_library_has_no_shampoo_and_no_soap():
    """As docs/parts.md says; a version that has one is offered."""
    names = {name.lower() for name in (*dir(optax), *dir(optax.contrib))}
    assert not [name for name in names if "shampoo" in name or name.startswith("soap")]
