"""The small convolutional network: PyTorch, sizes, unit groups, one task with the methods and
probes.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny
from helpers.networks import drawn, quickly

from plasticity_jax import lanes
from plasticity_jax.models import ACTIVATIONS, cnn
from plasticity_jax.spec import Spec
from plasticity_jax.training import supervised

DATA = jax.tree.map(jnp.asarray, tiny.data(samples=32, test=0, shape=(8, 8, 3)))
SMALL = {"cnn.base": 3, "cnn.dense": 6}


def made(norm, activation="relu", shape=(9, 9, 8, 2)):
    """(net, params with every one drawn, other collections, x)."""
    net, random = cnn(3, norm, activation, "torch", base=4, dense=6), np.random.default_rng(0)
    x = random.normal(size=shape).astype(np.float32)
    params, rest = drawn(net, x, random, centre=0.5)
    return net, params, rest, x


def torch_forward(torch, params, statistics, x, norm, train):
    """(logits, {group: activations}), images as [B, C, H, W]."""
    functional, hidden = torch.nn.functional, {}
    for i in range(4):
        layer = params[f"layer{i}"]
        if i == 3:
            x = functional.linear(
                x.permute(0, 2, 3, 1).flatten(1), layer["kernel"].T, layer["bias"]
            )
        else:
            x = functional.conv2d(x, layer["kernel"].permute(3, 2, 0, 1), layer["bias"], padding=1)
        if norm != "none":
            scale, offset = params[f"norm{i}"]["scale"], params[f"norm{i}"].get("bias")
        axes = tuple(range(1, x.ndim))
        if norm == "rms":
            wide = (1, -1, *[1] * (x.ndim - 2))
            x = x / (x.square().mean(axes, keepdim=True) + 1e-5).sqrt() * scale.reshape(wide)
        if norm.startswith("batch_mean"):
            wide, over = (1, -1, *[1] * (x.ndim - 2)), (0, *range(2, x.ndim))
            middle = x.mean(over) if train else statistics[f"norm{i}"]["mean"]
            spread = x.var(axes, correction=0, keepdim=True)
            x = (x - middle.reshape(wide)) / (spread + 1e-5).sqrt()
            x = x * scale.reshape(wide) + offset.reshape(wide)
        if norm == "batch":
            mean, var = statistics[f"norm{i}"]["mean"], statistics[f"norm{i}"]["var"]
            x = functional.batch_norm(x, mean, var, scale, offset, train, momentum=0.1, eps=1e-5)
        if norm == "layer":
            x = functional.group_norm(x, 1, scale, offset, eps=1e-5)
        if norm == "group":
            x = functional.group_norm(x, np.gcd(32, x.shape[1]), scale, offset, eps=1e-5)
        x = torch.relu(x)
        hidden[f"h{i}"] = x
        if i < 3:
            x = functional.max_pool2d(x, 2, ceil_mode=True)
    return functional.linear(x, params["head"]["kernel"].T, params["head"]["bias"]), hidden


def close(got, want, tolerance):
    got, want = np.asarray(got), want.detach().numpy()
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * np.abs(want).max())


@pytest.mark.oracle
@pytest.mark.parametrize(
    "norm", ["none", "layer", "batch", "group", "rms", "batch_mean+layer_deviation"]
)
def test_logits_activations_and_gradients_as_pytorch(torch, norm):
    net, params, rest, x = made(norm)
    y = np.arange(len(x)) % 3

    def step(params):
        def loss(p):
            logits, changed = net.apply({"params": p, **rest}, x, True, mutable=["hidden", *rest])
            return -jax.nn.log_softmax(logits)[jnp.arange(len(x)), y].mean(), (logits, changed)

        (_, aux), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        return gradient, *aux, net.apply({"params": params, **rest}, x)

    gradient, logits, changed, evaluated = jax.jit(step)(params)
    tensors = jax.tree.map(lambda p: torch.tensor(p, requires_grad=True), params)
    statistics = jax.tree.map(torch.tensor, rest.get("batch_stats"))
    images = torch.tensor(x.transpose(0, 3, 1, 2))
    close(evaluated, torch_forward(torch, tensors, statistics, images, norm, train=False)[0], 1e-5)
    want, hidden = torch_forward(torch, tensors, statistics, images, norm, train=True)
    torch.nn.functional.cross_entropy(want, torch.tensor(y)).backward()
    close(logits, want, 1e-5)
    assert net.groups() == list(hidden)
    for group, activations in hidden.items():
        close(
            changed["hidden"][group],
            activations.permute(0, 2, 3, 1) if activations.ndim == 4 else activations,
            1e-5,
        )
    largest = max(float(t.grad.abs().max()) for t in jax.tree.leaves(tensors))
    jax.tree.map(
        lambda g, t: np.testing.assert_allclose(g, t.grad.numpy(), rtol=1e-4, atol=1e-5 * largest),
        gradient,
        tensors,
    )


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_units_are_where_they_are_said_to_be(activation):
    net, params, rest, x = made("batch", activation)
    hidden = jax.eval_shape(
        lambda: net.apply({"params": params, **rest}, x, mutable=["hidden"])[1]["hidden"]
    )
    copies = 2 if activation == "crelu" else 1
    assert list(net.units()) == net.groups() == ["h0", "h1", "h2", "h3"]
    for (group, unit), width in zip(net.units().items(), (4, 8, 16, 6), strict=True):
        [made_by], [norm], [feeds] = unit.made_by, unit.norm, unit.feeds
        assert hidden[group].shape[-1] == copies * width
        assert params[made_by]["kernel"].shape[-1] == width
        assert params[norm]["scale"].shape == (width,)
        positions = 2 * 1 if group == "h2" else 1  # of the image that is flattened
        assert params[feeds]["kernel"].shape[-2] == positions * copies * width


@pytest.mark.parametrize("group", ["h0", "h2"])
def test_outgoing_weights_are_those_of_the_unit(group):
    """A unit whose outgoing weights are zero may have any incoming ones, as its activations are
    then read by nobody.
    """
    net, params, _, x = made("none", "crelu")
    unit, where = 1, net.units()[group]
    width = params[where.made_by[0]]["kernel"].shape[-1]
    params[where.feeds[0]]["kernel"][..., unit::width, :] = 0
    before = net.apply({"params": params}, x)
    params[where.made_by[0]]["kernel"][..., unit] += 1
    np.testing.assert_array_equal(net.apply({"params": params}, x), before)
    params[where.made_by[0]]["kernel"][..., unit + 1] += 1
    assert np.abs(net.apply({"params": params}, x) - before).max() > 1e-3


def test_parameter_count():
    # 9 * 32 + 32, 9 * 32 * 64 + 64, 9 * 64 * 128 + 128, 4 * 4 * 128 * 256 + 256, 256 * 10 + 10
    params = jax.eval_shape(
        lambda: cnn(10, "none", "relu", "torch").init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
    )
    assert (
        sum(p.size for p in jax.tree.leaves(params["params"]))
        == 320 + 18_496 + 73_856 + 524_544 + 2_570
    )


def test_refusals():
    with pytest.raises(ValueError, match=r"cnn.base is 0: allowed are whole numbers from 1\."):
        Spec(model="cnn", options={"cnn.base": 0})
    with pytest.raises(ValueError, match=r"'cnn.base' fits no part"):
        Spec(options={"cnn.base": 8})


def test_a_task_with_methods_and_probes():
    options = {"redo.period": 2, **SMALL}
    spec = tiny.spec(
        model="cnn", norm="batch", method="redo+spectral", epochs=1,
        probes=("hessian_top", "dormant_fraction"), probe_samples=16,
        options=options | {"hessian_top.iterations": 2},
    )  # fmt: skip
    run = supervised.make_run(spec)
    lane = jax.tree.map(
        lambda a: a[0], lanes.stack([lanes.complete(spec, {"redo.threshold": 0.9})])
    )
    state = quickly(run.init, lane, DATA)
    after, metrics = quickly(run.run_task, lane, state, DATA, jnp.int32(0))
    assert metrics["finite"]
    assert all(np.isfinite(value).all() for value in metrics.values())
    assert set(metrics) >= {f"dormant_fraction/h{i}" for i in range(4)}
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), state.variables, after.variables)
    assert all(jax.tree.leaves(moved))
