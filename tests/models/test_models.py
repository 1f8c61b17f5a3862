"""The MLP against PyTorch; initialization, unit groups, sizes."""

import dataclasses
import inspect
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity_jax.models import (
    ACTIVATIONS,
    INITIALIZATIONS,
    MLP,
    MODELS,
    NORMS,
    T5,
    ResNet18,
    cnn,
    mlp,
    resnet18,
    vit,
)
from plasticity_jax.models.norms import OF_BATCH

pytestmark = pytest.mark.usefixtures("compiled_quickly")

WIDTH, DEPTH, INPUTS, OUTPUTS, BATCH = 6, 2, 5, 3, 9

# every activation under some norms, one under the others
PLAIN = ("none", "layer", "batch", "group")
OTHERS = [(norm, "tanh") for norm in NORMS if norm not in PLAIN]
PAIRS = [*itertools.product(PLAIN, ACTIVATIONS), *OTHERS]


def inputs(seed=0):
    return np.random.default_rng(seed).normal(1, 2, size=(BATCH, INPUTS)).astype(np.float32)


def made(norm, activation, initialization="torch"):
    """(net, variables) with every parameter drawn, scales and offsets of norms too."""
    net = mlp(OUTPUTS, WIDTH, DEPTH, norm, activation, initialization)
    variables = jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros((1, INPUTS)), False))
    random = np.random.default_rng(1)
    params = jax.tree.map(
        lambda p: random.normal(0.3, 0.5, p.shape).astype(np.float32), variables["params"]
    )
    statistics = jax.tree.map(
        lambda p: np.float32(0.5) + random.random(p.shape, np.float32), variables.get("batch_stats")
    )
    return net, {"params": params} | ({"batch_stats": statistics} if norm in OF_BATCH else {})


def torch_forward(torch, params, statistics, x, norm, activation, train):
    """(logits, {group: activations}) of the same network in PyTorch; running statistics are updated
    in place.
    """
    functional, hidden = torch.nn.functional, {}
    for i in range(DEPTH):
        x = functional.linear(x, params[f"layer{i}"]["kernel"].T, params[f"layer{i}"]["bias"])
        if norm != "none":
            scale, offset = params[f"norm{i}"]["scale"], params[f"norm{i}"].get("bias")
        if norm == "rms":
            x = x / (x.square().mean(1, keepdim=True) + 1e-5).sqrt() * scale
        if norm.startswith("batch_mean"):
            middle = x.mean(0) if train else statistics[f"norm{i}"]["mean"]
            spread = x.var(1, correction=0, keepdim=True)
            x = (x - middle) / (spread + 1e-5).sqrt() * scale + offset
        if norm.startswith("layer_mean"):
            spread = x.var(0, correction=0) if train else statistics[f"norm{i}"]["var"]
            x = (x - x.mean(1, keepdim=True)) / (spread + 1e-5).sqrt() * scale + offset
        if norm == "batch+layer":
            x = functional.layer_norm(x, (WIDTH,), eps=1e-5)
        if norm == "layer":
            x = functional.layer_norm(x, (WIDTH,), scale, offset, eps=1e-5)
        if norm == "group":  # the most groups that divide both 32 and the width: 2
            x = functional.group_norm(x, 2, scale, offset, eps=1e-5)
        if norm in ("batch", "batch+layer"):
            mean, var = statistics[f"norm{i}"]["mean"], statistics[f"norm{i}"]["var"]
            x = functional.batch_norm(x, mean, var, scale, offset, train, momentum=0.1, eps=1e-5)
        x = {
            "relu": torch.relu,
            "leaky_relu": functional.leaky_relu,
            "tanh": torch.tanh,
            "gelu": functional.gelu,
            "selu": functional.selu,
            "elu": functional.elu,
            "sigmoid": torch.sigmoid,
            "silu": functional.silu,
            "identity": lambda v: v,
            "crelu": lambda v: torch.relu(torch.cat([v, -v], dim=1)),
        }[activation](x)
        hidden[f"h{i}"] = x
    return functional.linear(x, params["head"]["kernel"].T, params["head"]["bias"]), hidden


def close(got, want, tolerance):
    got, want = np.asarray(got), want.detach().numpy()
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * np.abs(want).max())


@pytest.mark.oracle
@pytest.mark.parametrize(("norm", "activation"), PAIRS)
def test_logits_activations_and_gradients_as_pytorch(torch, norm, activation):
    net, variables = made(norm, activation)
    x, y = inputs(), np.arange(BATCH) % OUTPUTS
    rest = {k: v for k, v in variables.items() if k != "params"}

    def step(params):
        def loss(p):
            logits, changed = net.apply({"params": p, **rest}, x, True, mutable=["hidden", *rest])
            return -jax.nn.log_softmax(logits)[jnp.arange(BATCH), y].mean(), (logits, changed)

        (_, aux), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        return gradient, *aux, net.apply({"params": params, **rest}, x, False)

    gradient, logits, changed, evaluated = jax.jit(step)(variables["params"])
    tensors = jax.tree.map(lambda p: torch.tensor(p, requires_grad=True), variables["params"])
    statistics = jax.tree.map(torch.tensor, rest.get("batch_stats"))
    frozen = torch_forward(
        torch, tensors, statistics, torch.tensor(x), norm, activation, train=False
    )
    want, hidden = torch_forward(
        torch, tensors, statistics, torch.tensor(x), norm, activation, train=True
    )
    torch.nn.functional.cross_entropy(want, torch.tensor(y)).backward()

    close(logits, want, 1e-5)
    close(evaluated, frozen[0], 1e-5)
    assert list(changed["hidden"]) == list(hidden) == list(net.units())
    for group, activations in hidden.items():
        close(changed["hidden"][group], activations, 1e-5)
    largest = max(float(t.grad.abs().max()) for t in jax.tree.leaves(tensors))
    # a bias ahead of batch norm has no gradient but rounding, hence the absolute part
    jax.tree.map(
        lambda g, t: np.testing.assert_allclose(g, t.grad.numpy(), rtol=1e-4, atol=1e-5 * largest),
        gradient,
        tensors,
    )


@pytest.mark.oracle
def test_running_statistics_of_batch_norm(torch):
    """As PyTorch's after some steps, but with the biased variance; PyTorch keeps n / (n - 1) times
    as much of a batch.
    """
    net, variables = made("batch", "relu")
    tensors, statistics = (
        jax.tree.map(torch.tensor, variables[k]) for k in ("params", "batch_stats")
    )
    start, ours = jax.tree.map(np.copy, variables["batch_stats"]), variables["batch_stats"]
    apply = jax.jit(
        lambda s, x: net.apply(
            {"params": variables["params"], "batch_stats": s}, x, True, mutable=["batch_stats"]
        )
    )
    for step in range(4):
        ours = apply(ours, inputs(step))[1]["batch_stats"]
        torch_forward(
            torch, tensors, statistics, torch.tensor(inputs(step)), "batch", "relu", train=True
        )
    for name, found in ours.items():
        kept = 0.9**4 * start[name]["var"]
        biased = kept + (statistics[name]["var"].numpy() - kept) * (BATCH - 1) / BATCH
        np.testing.assert_allclose(found["mean"], statistics[name]["mean"], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(found["var"], biased, rtol=1e-4)
        assert np.abs(found["var"] / statistics[name]["var"].numpy() - 1).max() > 0.01


def test_batch_norm_statistics_by_hand():
    """One layer whose inputs to the norm are known: running <- 0.9 running + 0.1 batch, only in
    training.
    """
    net = mlp(2, 1, 1, "batch", "relu", "torch")
    x = jnp.asarray([[1.0], [2.0], [6.0]])  # mean 3, biased variance 14/3
    variables = net.init(jax.random.key(0), x, False)
    variables["params"]["layer0"] = {"kernel": jnp.ones((1, 1)), "bias": jnp.zeros(1)}
    _, changed = net.apply(variables, x, True, mutable=["batch_stats"])
    assert float(changed["batch_stats"]["norm0"]["mean"][0]) == pytest.approx(0.3)
    assert float(changed["batch_stats"]["norm0"]["var"][0]) == pytest.approx(0.9 + 0.1 * 14 / 3)
    _, changed = net.apply(variables, x, False, mutable=["batch_stats"])
    assert float(changed["batch_stats"]["norm0"]["mean"][0]) == 0


@pytest.mark.parametrize(
    ("norm", "name"),
    [("batch_mean+layer_deviation", "mean"), ("layer_mean+batch_deviation", "var")],
)
@pytest.mark.long
def test_hybrids_keep_running_means_of_what_is_over_examples(norm, name):
    """As batch norm keeps the same statistic of the same inputs."""
    x = jnp.asarray(inputs())
    kept = {}
    for one in ("batch", norm):
        net = mlp(2, WIDTH, 1, one, "relu", "torch")
        variables = net.init(jax.random.key(0), x, False)
        start = variables["batch_stats"]["norm0"]
        _, changed = net.apply(variables, x, True, mutable=["batch_stats"])
        kept[one] = start[name], changed["batch_stats"]["norm0"]
    assert list(kept[norm][1]) == [name]
    np.testing.assert_array_equal(kept[norm][0], kept["batch"][0])
    np.testing.assert_allclose(kept[norm][1][name], kept["batch"][1][name], rtol=1e-5)


@pytest.mark.parametrize("initialization", INITIALIZATIONS)
def test_initial_distribution(initialization):
    fan_in, width = 300, 400
    net = mlp(10, width, 2, "layer", "crelu", initialization)
    params = jax.jit(lambda k: net.init(k, jnp.zeros((1, fan_in))))(jax.random.key(0))["params"]
    for name, inside in (("layer0", fan_in), ("layer1", 2 * width), ("head", 2 * width)):
        kernel, bias = np.asarray(params[name]["kernel"]), np.asarray(params[name]["bias"])
        assert kernel.shape[0] == inside
        # six relative standard errors of a variance of normal draws
        error = 6 * np.sqrt(2 / kernel.size)
        variances = {"torch": 1 / (3 * inside), "lecun": 1 / inside}  # the others He's
        variance = variances.get(initialization, 2 / inside)
        assert kernel.var() == pytest.approx(variance, rel=error)
        assert abs(kernel.mean()) < 6 * np.sqrt(variance / kernel.size)
        if initialization == "torch":
            bound = inside**-0.5
            assert 0.99 * bound < np.abs(kernel).max() <= bound
            assert 0.7 * bound < np.abs(bias).max() <= bound
            # uniform: the fourth moment is 9/5 of the variance squared, that of a normal 3
            assert (kernel**4).mean() == pytest.approx(1.8 * variance**2, rel=0.1)
            if name != "head":
                assert bias.var() == pytest.approx(variance, rel=6 * np.sqrt(2 / width))
        elif initialization == "he_uniform":
            bound = (6 / inside) ** 0.5
            assert 0.99 * bound < np.abs(kernel).max() <= bound
            assert (kernel**4).mean() == pytest.approx(1.8 * variance**2, rel=0.1)
            assert not bias.any()
        else:
            # normal, cut off at 2 of its own deviations
            assert np.abs(kernel).max() > 2 * np.sqrt(variance)
            assert not bias.any()
    for name in ("norm0", "norm1"):
        np.testing.assert_array_equal(params[name]["scale"], 1)
        np.testing.assert_array_equal(params[name]["bias"], 0)
    assert not np.array_equal(
        params["layer0"]["kernel"][0, :10], params["layer1"]["kernel"][0, :10]
    )


@pytest.mark.parametrize(("norm", "activation"), PAIRS)
def test_units_are_where_they_are_said_to_be(norm, activation):
    net, variables = made(norm, activation)
    _, changed = jax.eval_shape(
        lambda: net.apply(variables, inputs(), True, mutable=["hidden", "batch_stats"])
    )
    copies = 2 if activation == "crelu" else 1

    def at(path):
        assert len(path) == 1
        return variables["params"][path[0]]

    assert list(net.units()) == [f"h{i}" for i in range(DEPTH)]
    for group, unit in net.units().items():
        assert changed["hidden"][group].shape == (BATCH, copies * WIDTH)
        assert at(unit.made_by)["kernel"].shape[-1] == WIDTH
        assert at(unit.made_by)["bias"].shape == (WIDTH,)
        assert at(unit.feeds)["kernel"].shape[-2] == copies * WIDTH
        if norm == "none":
            assert unit.norm is None
        else:
            assert at(unit.norm)["scale"].shape == (WIDTH,)


@pytest.mark.parametrize("path", ["made_by", "norm"])
def test_incoming_weights_are_those_of_the_unit(path):
    """Changing a unit's incoming weights, or its scale, changes its own activation and no other of
    its group.
    """
    net, variables = made("batch" if path == "norm" else "none", "tanh")
    hidden = jax.jit(
        lambda p: net.apply({**variables, "params": p}, inputs(), mutable=["hidden"])[1]["hidden"]
    )
    before, unit = hidden(variables["params"]), 2
    for group, where in net.units().items():
        params = jax.tree.map(np.copy, variables["params"])
        (layer,) = getattr(where, path)
        for leaf in params[layer].values():
            leaf[..., unit] += 1
        changed = np.any(np.asarray(hidden(params)[group]) != np.asarray(before[group]), axis=0)
        np.testing.assert_array_equal(changed, np.arange(WIDTH) == unit)


def test_outgoing_weights_are_those_of_the_unit():
    """Silencing a unit by its rows of `feeds` is the same as silencing its activation, copies
    included.
    """
    net, variables = made("layer", "crelu")
    x, unit = jnp.asarray(inputs()), 2
    params = jax.tree.map(np.copy, variables["params"])
    params["layer1"]["kernel"][unit::WIDTH] = 0
    logits = net.apply({"params": params}, x)
    _, sown = net.apply(variables, x, mutable=["hidden"])
    hidden = np.asarray(sown["hidden"]["h0"]).copy()
    hidden[:, unit::WIDTH] = 0
    rest = MODELS["mlp"](OUTPUTS, WIDTH, 1, "layer", "crelu", "torch")
    renamed = {"layer0": "layer1", "norm0": "norm1", "head": "head"}
    tail = {"params": {new: variables["params"][old] for new, old in renamed.items()}}
    np.testing.assert_allclose(logits, rest.apply(tail, hidden), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("norm", "count"), [("none", 400_906), ("layer", 400_906 + 4 * 2 * 256)])
def test_parameter_count_of_the_mnist_network(norm, count):
    # 784 * 256 + 256, three times 256 * 256 + 256, 256 * 10 + 10
    net = mlp(10, 256, 4, norm, "relu", "torch")
    params = jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros((1, 28, 28, 1))))[
        "params"
    ]
    assert sum(p.size for p in jax.tree.leaves(params)) == count


AFFINE = {
    mlp: {"initialization": "torch", "width": 64, "depth": 2},
    cnn: {"initialization": "torch", "base": 4, "dense": 8},
    resnet18: {"initialization": "torch", "base": 2},
    vit: {"patch": 2, "embedding": 8, "blocks": 2, "heads": 2, "ratio": 1, "dropout": 0.0},
}


@pytest.mark.parametrize(
    ("norm", "make"), [*itertools.product(PLAIN, AFFINE), *((norm, mlp) for norm, _ in OTHERS)]
)
@pytest.mark.long
def test_a_norm_without_scale_and_offset_is_one_whose_scale_is_1_and_offset_0(norm, make):
    """Also in its running statistics; and the network has no parameters that it does not use."""
    settings = {"norm": norm, "activation": "tanh", **AFFINE[make]}
    plain, learned = make(3, **settings, norm_affine=False), make(3, **settings)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 4, 4, 2)), jnp.float32)
    variables = learned.init(jax.random.key(0), x)
    params = variables.pop("params")
    fewer = {name: layer for name, layer in params.items() if "norm" not in name}
    own = plain.init(jax.random.key(0), x)
    assert jax.tree.structure(own) == jax.tree.structure({"params": fewer, **variables})
    mutable = ["hidden", *variables]
    want = learned.apply({"params": params, **variables}, x, True, mutable=mutable)
    got = plain.apply({"params": fewer, **variables}, x, True, mutable=mutable)
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, rtol=1e-6, atol=1e-6), got, want)
    assert all(unit.norm is None for unit in plain.units().values())


# --- what is made by hand ---

MADE = {
    "mlp": {
        "outputs": 3,
        "width": 4,
        "depth": 1,
        "norm": "layer",
        "activation": "relu",
        "initialization": "torch",
    },
    "cnn": {
        "outputs": 3,
        "norm": "batch",
        "activation": "relu",
        "initialization": "he",
        "base": 2,
        "dense": 4,
    },
    "resnet18": {
        "outputs": 3,
        "norm": "none",
        "activation": "relu",
        "initialization": "lecun",
        "base": 2,
        "stem": "7x7",
    },
    "t5": {"outputs": 5, "width": 4, "depth": 1, "activation": "gelu", "heads": 2, "head": "own"},
    "vit": {"outputs": 3, "norm": "layer", "embedding": 8, "blocks": 1, "heads": 2},
    "game_cnn": {"outputs": 3, "norm": "layer", "activation": "relu", "initialization": "torch"},
}


@pytest.mark.parametrize("name", MODELS)
def test_models_refuse_in_a_sentence(name):
    """The module and its factory, whatever they are given for each of their settings; nothing is
    compiled.
    """
    factory = MODELS[name]
    made = factory(**MADE[name])
    assert type(made)(**MADE[name]) == made
    fields = {
        f.name: f.type
        for f in dataclasses.fields(made)
        if f.name not in ("parent", "name", "pretrained")
    }
    for field, kind in fields.items():
        numbers = [-1, 0, 10**20, 2**31, 1.5, 2.0, True, None, "4", float("nan"), np.zeros(2)]
        wrong = {int: numbers, bool: [0, 1.0, None, "yes"], float: [-0.1, 1, 1.5, None, "a", True]}
        for value in wrong.get(kind, ["rel", "", None, 1, ["relu"]]):
            told = (
                f"{name}.{field} is "
                if kind is not str or field in ("stem", "head", "of")
                else f"unknown {field} "
            )
            for make in [
                type(made),
                *([factory] if field in inspect.signature(factory).parameters else []),
            ]:
                with pytest.raises(
                    ValueError, match=rf"^{re.escape(told)}.*: (allowed|known) are [^\n]*\.$"
                ):
                    make(**{**MADE[name], field: value})
        if kind is int:
            for value in (np.int64(8), jnp.int32(8)):
                found = getattr(type(made)(**{**MADE[name], field: value}), field)
                assert (type(found), found) == (int, 8)


def test_a_depth_that_no_compiler_ends_and_crelu_where_it_does_not_fit_are_refused():
    with pytest.raises(
        ValueError, match=r"^mlp\.depth is 1001: allowed are whole numbers from 1 to 1000\.$"
    ):
        MLP(3, depth=1001)
    for module, given in ((ResNet18, {"outputs": 3}), (T5, {"outputs": 3, "width": 4, "depth": 1})):
        with pytest.raises(
            ValueError, match=r"^activation of \w+ is 'crelu': allowed are 'relu', .*\.$"
        ):
            module(**given, activation="crelu")
