"""Each optimizer: first steps by hand, and several steps against torch.optim."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from plasticity_jax import registry
from plasticity_jax.optimizers import OPTIMIZERS

START = np.array([2.0, -3.0, 0.5], np.float32)
GRADIENTS = np.random.default_rng(0).normal(size=(25, 3)).astype(np.float32)
NUMBERS = {
    "adam": [{}, {"b1": 0.5, "b2": 0.9, "eps": 0.1}],
    "adamw": [{}, {"b1": 0.5, "b2": 0.9, "eps": 0.1, "weight_decay": 0.3}],
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
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}.get(name, torch.optim.SGD)
    theirs = kind([params], lr=0.03, **given)
    for gradient, ours in zip(GRADIENTS, path(name, 0.03, numbers, GRADIENTS), strict=True):
        params.grad = torch.tensor(gradient)
        theirs.step()
        np.testing.assert_allclose(ours, params.detach().numpy(), rtol=1e-5, atol=1e-6)
