"""ResNet-18: PyTorch and transformers, sizes, unit groups, Hessian-vector products, one task with
methods and probes.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny
from helpers.networks import drawn, quickly

from plasticity_jax import lanes, methods, probes
from plasticity_jax.execution import placement
from plasticity_jax.execution.placement import Execution
from plasticity_jax.models import resnet18
from plasticity_jax.spec import Spec
from plasticity_jax.training import supervised
from plasticity_jax.types import Context

pytestmark = pytest.mark.usefixtures("compiled_quickly")

DATA = jax.tree.map(jnp.asarray, tiny.data(samples=32, test=0, shape=(8, 8, 3)))
WIDTHS = [1, 1, 2, 2, 4, 4, 8, 8]  # channels of each block, in units of base


def made(norm="batch", stem="3x3", base=4, shape=(6, 9, 8, 3)):
    """(net, params with every one drawn, other collections, x); weights of a size that keeps
    activations of order 1.
    """
    net, random = resnet18(5, norm, "relu", "torch", base=base, stem=stem), np.random.default_rng(0)
    x = random.normal(0.3, 1, size=shape).astype(np.float32)
    params, rest = drawn(net, x, random, centre=0.7)
    return net, params, rest, x


def plain(torch, base, norm):
    """The network with the 3x3 stem in torch.nn, its modules named as our layers."""
    nn = torch.nn

    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleDict()
            self.add("stem", 3, base, 3, 1)
            before = base
            for i, width in enumerate(WIDTHS):
                features, stride = base * width, 2 if base * width != before else 1
                self.add(f"block{i}_first", before, features, 3, stride)
                self.add(f"block{i}_second", features, features, 3, 1)
                if stride == 2:
                    self.add(f"block{i}_shortcut", before, features, 1, 2)
                before = features
            self.layers["head"] = nn.Linear(before, 5)

        def add(self, name, inputs, features, size, stride):
            self.layers[name] = nn.Conv2d(
                inputs, features, size, stride, size // 2, bias=norm == "none"
            )
            groups = {"group": int(np.gcd(32, features)), "layer": 1}
            if norm == "batch":
                self.layers[f"{name}_norm"] = nn.BatchNorm2d(features)
            elif norm in groups:
                self.layers[f"{name}_norm"] = nn.GroupNorm(groups[norm], features)

        def normalised(self, x, name):
            x = self.layers[name](x)
            return x if norm == "none" else self.layers[f"{name}_norm"](x)

        def forward(self, x):
            x = torch.relu(self.normalised(x, "stem"))
            for i in range(len(WIDTHS)):
                inner = torch.relu(self.normalised(x, f"block{i}_first"))
                shortcut = (
                    self.normalised(x, f"block{i}_shortcut")
                    if f"block{i}_shortcut" in self.layers
                    else x
                )
                x = torch.relu(self.normalised(inner, f"block{i}_second") + shortcut)
            return self.layers["head"](x.mean(dim=(2, 3)))

    net = Plain()
    return net, dict(net.layers.items())


def from_transformers(base):
    """(the network of transformers, its modules by our layers' names)."""
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(
        num_channels=3, embedding_size=base, hidden_sizes=[base, 2 * base, 4 * base, 8 * base],
        depths=[2, 2, 2, 2], layer_type="basic", num_labels=5,
    )  # fmt: skip
    net = transformers.ResNetForImageClassification(config)
    named = {"stem": net.resnet.embedder.embedder, "head": net.classifier[1]}
    for stage in range(4):
        for block, layer in enumerate(net.resnet.encoder.stages[stage].layers):
            name = f"block{2 * stage + block}"
            named |= {f"{name}_first": layer.layer[0], f"{name}_second": layer.layer[1]}
            if hasattr(layer.shortcut, "convolution"):
                named[f"{name}_shortcut"] = layer.shortcut
    modules = {"head": named.pop("head")}
    for name, layer in named.items():
        modules |= {name: layer.convolution, f"{name}_norm": layer.normalization}
    return net, modules


def as_torch(kernel):
    return kernel.transpose(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T


def fill(torch, modules, params, statistics):
    """Copies our parameters and running statistics into PyTorch's modules, all of them."""
    assert set(modules) == set(params)
    with torch.no_grad():
        for name, layer in params.items():
            weight = layer["scale"] if "scale" in layer else as_torch(layer["kernel"])
            modules[name].weight.copy_(torch.tensor(weight.copy()))
            assert ("bias" in layer) == (modules[name].bias is not None)
            if "bias" in layer:
                modules[name].bias.copy_(torch.tensor(layer["bias"]))
        for name, kept in statistics.items():
            modules[name].running_mean.copy_(torch.tensor(kept["mean"]))
            modules[name].running_var.copy_(torch.tensor(kept["var"]))


def close(got, want, tolerance):
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * np.abs(want).max())


def positions(shape, stem):
    """{norm: examples times positions that its batch statistics are over}."""
    count, halved = {}, lambda sides: [-(-side // 2) for side in sides]
    sides = halved(shape[1:3]) if stem == "7x7" else shape[1:3]
    count["stem_norm"] = shape[0] * np.prod(sides)
    sides = halved(sides) if stem == "7x7" else sides
    for i in range(8):
        sides = halved(sides) if i in (2, 4, 6) else sides
        count |= {
            f"block{i}_{part}_norm": shape[0] * np.prod(sides)
            for part in ("first", "second", "shortcut")
        }
    return count


def check_parity(torch, ours, net, modules, stem):
    model, params, rest, x = ours
    y, start = np.arange(len(x)) % 5, jax.tree.map(np.copy, rest.get("batch_stats", {}))
    fill(torch, modules, params, start)
    images = torch.tensor(x.transpose(0, 3, 1, 2)).to(modules["head"].weight.dtype)

    def logits_of(net):
        found = net(images)
        return getattr(found, "logits", found)

    net.eval()
    with torch.no_grad():
        frozen = logits_of(net)
    net.train()
    logits = logits_of(net)
    torch.nn.functional.cross_entropy(logits, torch.tensor(y)).backward()

    def step(params):
        def loss(p):
            logits, changed = model.apply({"params": p, **rest}, x, True, mutable=[*rest])
            return -jax.nn.log_softmax(logits)[jnp.arange(len(x)), y].mean(), (logits, changed)

        (_, aux), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        return gradient, *aux, model.apply({"params": params, **rest}, x)

    gradient, trained, changed, evaluated = jax.jit(step)(params)
    close(evaluated, frozen, 1e-5)
    close(trained, logits.detach(), 1e-5)
    for name, layer in gradient.items():
        weight = layer["scale"] if "scale" in layer else as_torch(layer["kernel"])
        close(weight, modules[name].weight.grad, 1e-4)
        if "bias" in layer:
            close(layer["bias"], modules[name].bias.grad, 1e-4)
    counts = positions(x.shape, stem)
    for name, kept in changed.get("batch_stats", {}).items():
        close(kept["mean"], modules[name].running_mean, 1e-5)
        count, before = counts[name], 0.9 * start[name]["var"]
        close(
            kept["var"],
            before + (modules[name].running_var.numpy() - before) * (count - 1) / count,
            1e-5,
        )


@pytest.mark.oracle
def test_large_stem_as_transformers(torch):
    check_parity(
        torch, made(stem="7x7", base=8, shape=(6, 40, 33, 3)), *from_transformers(8), "7x7"
    )


@pytest.mark.oracle
@pytest.mark.parametrize("norm", ["batch", "group", "layer", "none"])
def test_small_stem_as_pytorch(torch, norm):
    base = 12 if norm == "group" else 4  # three channels to a group
    check_parity(torch, made(norm, base=base), *plain(torch, base, norm), "3x3")


@pytest.mark.oracle
@pytest.mark.parametrize("norm", ["group", "none"])
def test_many_channels_as_pytorch(torch, norm):
    """Where Winograd's products are used: 32 to 256 channels, even sides down to 2x2."""
    check_parity(torch, made(norm, base=32, shape=(6, 16, 16, 3)), *plain(torch, 32, norm), "3x3")


@pytest.mark.oracle
def test_full_width_as_pytorch_in_double_precision(torch):
    """Base 64, batch norm. PyTorch's own float32 is 1e-3 off here, where a ReLU's input is almost
    zero; ours is 4e-6 off.
    """
    net, modules = plain(torch, 64, "batch")
    check_parity(torch, made("batch", base=64, shape=(8, 32, 32, 3)), net.double(), modules, "3x3")


@pytest.mark.parametrize(
    ("norm", "stem", "count"),
    [("batch", "3x3", 11_173_962), ("batch", "7x7", 11_181_642), ("none", "3x3", 11_169_162)],
)
def test_parameter_count(norm, stem, count):
    # 11,181,642 is what the network of transformers has for 10 classes; the 3x3 stem has 3 * 64 *
    # (49 - 9) fewer
    net = resnet18(10, norm, "relu", "torch", stem=stem)
    params = jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3))))[
        "params"
    ]
    assert sum(p.size for p in jax.tree.leaves(params)) == count


@pytest.mark.parametrize("stem", ["3x3", "7x7"])
def test_groups_and_units_are_where_they_are_said_to_be(stem):
    net, params, rest, x = made(stem=stem)
    hidden = jax.eval_shape(
        lambda: net.apply({"params": params, **rest}, x, mutable=["hidden"])[1]["hidden"]
    )
    assert sorted(hidden) == sorted(net.groups())
    assert net.groups()[:3] == ["stream0", "inner0", "stream1"]
    assert net.groups()[-1] == "stream8"
    sides = {"3x3": [(9, 8), (5, 4), (3, 2), (2, 1)], "7x7": [(3, 2), (2, 1), (1, 1), (1, 1)]}[stem]
    for i in range(8):
        assert (
            hidden[f"inner{i}"].shape
            == hidden[f"stream{i + 1}"].shape
            == (6, *sides[i // 2], 4 * WIDTHS[i])
        )
    assert list(net.units()) == [f"inner{i}" for i in range(8)]
    for group, unit in net.units().items():
        width = hidden[group].shape[-1]
        [made_by], [norm], [feeds] = unit.made_by, unit.norm, unit.feeds
        assert params[made_by]["kernel"].shape[-1] == params[feeds]["kernel"].shape[-2] == width
        assert params[norm]["scale"].shape == (width,)


def test_refusals():
    with pytest.raises(ValueError, match=r"resnet18.stem is '5x5': allowed are '3x3', '7x7'\."):
        Spec(model="resnet18", options={"resnet18.stem": "5x5"})
    with pytest.raises(ValueError, match=r"resnet18.base is 0: allowed are whole numbers from 1\."):
        Spec(model="resnet18", options={"resnet18.base": 0})
    with pytest.raises(
        ValueError,
        match=r"activation of resnet18 is 'crelu': allowed are 'relu', .*'gelu', .*'identity'\.",
    ):
        Spec(model="resnet18", activation="crelu")


def test_hessian_vector_product_against_differences():
    """What the curvature probe takes: in evaluation mode, smooth activation, along one
    direction.
    """
    net, params, rest, x = made(base=1, shape=(3, 5, 4, 3))
    net = resnet18(5, "batch", "tanh", "torch", base=1)

    def loss(p):
        return -jax.nn.log_softmax(net.apply({"params": p, **rest}, x))[:, 0].mean()

    random = np.random.default_rng(3)
    v = jax.tree.map(lambda p: random.normal(size=p.shape).astype(np.float32), params)

    def both(p, v):
        def gradient_at(shift):  # mapped, so that it is compiled once
            return jax.grad(loss)(jax.tree.map(lambda a, b: a + shift * b, p, v))

        near = jax.lax.map(gradient_at, jnp.asarray([1e-2, -1e-2]))
        return probes.hessian_vector_product(loss, p)(v), jax.tree.map(
            lambda a: (a[0] - a[1]) / 2e-2, near
        )

    flat = [jax.flatten_util.ravel_pytree(tree)[0] for tree in quickly(both, params, v)]
    assert float(jnp.linalg.norm(flat[0] - flat[1]) / jnp.linalg.norm(flat[1])) < 1e-2


def test_redo_of_filters():
    """A dormant filter is drawn afresh, its inputs to the next convolution are zero; all else stays
    to the bit.
    """
    net, params, _, _ = made("batch")
    fresh = jax.tree.map(jnp.ones_like, params)
    hidden = {
        group: jnp.ones((2, 3, 3, 4 * w)) for group, w in zip(net.units(), WIDTHS, strict=True)
    }
    hidden["inner2"] = hidden["inner2"].at[..., 5].set(0)
    rewrite = methods.redo(net.units(), lambda key: fresh)
    ctx = Context(jax.random.key(0), jnp.int32(0), jnp.bool_(False), hidden)
    after, touched = quickly(
        lambda params, ctx: rewrite.apply(params, ctx, rewrite.init(params))[:2], params, ctx
    )
    want = jax.tree.map(np.copy, params)
    want["block2_first"]["kernel"][..., 5] = 1
    want["block2_second"]["kernel"][:, :, 5, :] = 0
    jax.tree.map(np.testing.assert_array_equal, after, want)
    assert sum(int(t.sum()) for t in jax.tree.leaves(touched)) == 9 * 4 + 9 * 8


def test_a_task_over_lanes_with_methods_and_probes():
    """Two lanes in one program, one after the other, with what there is: statistics carried, ReDo,
    spectral, probes.
    """
    options = {"resnet18.base": 2, "redo.period": 2}
    spec = tiny.spec(
        model="resnet18", norm="batch", method="redo+spectral", epochs=1, probe_samples=8,
        options=options, probes=("representation_change", "dormant_fraction"),
    )  # fmt: skip
    run, how = supervised.make_run(spec), Execution("map", 1, 1)
    numbers = lanes.stack(lanes.check(spec, lanes.grid(seed=[0, 1]), len(DATA.x)))
    states = quickly(placement.over_lanes(run.init, how, split=1), numbers, DATA)
    lowered = jax.jit(placement.over_lanes(run.run_task, how, split=2)).lower(
        numbers, states, DATA, jnp.int32(0)
    )
    task = lowered.compile(compiler_options={"xla_backend_optimization_level": 0})
    after, metrics = task(numbers, states, DATA, jnp.int32(0))
    assert metrics["finite"].all()
    assert all(np.isfinite(value).all() for value in metrics.values())
    assert {
        "dormant_fraction/stream0",
        "dormant_fraction/inner7",
        "representation_change/stream8",
    } <= set(metrics)
    np.testing.assert_array_equal(
        metrics["representation_change"], metrics["representation_change/stream8"]
    )
    moved = jax.tree.map(lambda a, b: (a != b).any(axis=1).all(), states.variables, after.variables)
    assert all(jax.tree.leaves(moved))
    again, _ = task(numbers, after, DATA, jnp.int32(1))
    carried = jax.tree.map(lambda a, b: bool((a != b).any()), after.variables, again.variables)
    assert all(jax.tree.leaves(carried))
