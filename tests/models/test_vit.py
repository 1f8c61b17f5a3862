"""The vision transformer against PyTorch's own encoder layers; patches, sizes, unit groups."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.networks import drawn

from plasticity_jax.models import ViT, vit

SMALL = {"patch": 4, "embedding": 12, "blocks": 2, "heads": 3, "ratio": 2, "dropout": 0.0}
SIDE = 8
THEIRS = {"scale": "weight", "bias": "bias"}


def made(**changes):
    """(net, params with every one drawn, other collections, x)."""
    net, random = vit(3, **{"norm": "layer", **SMALL, **changes}), np.random.default_rng(0)
    x = random.normal(size=(5, SIDE, SIDE, 2)).astype(np.float32)
    params, rest = drawn(net, x, random, centre=0.5)
    return net, params, rest, x


def torch_norm(torch, name):
    """A norm of PyTorch of tokens [B, tokens, 12]."""

    class OfTokens(torch.nn.BatchNorm1d):
        """Batch norm over examples and tokens."""

        def forward(self, x):
            return super().forward(x.reshape(-1, 12)).reshape(x.shape)

    class OfGroups(torch.nn.GroupNorm):
        """Group norm over tokens and the channels of a group."""

        def forward(self, x):
            return super().forward(x.transpose(1, 2)).transpose(1, 2)

    return {
        "none": torch.nn.Identity,
        "layer": lambda: torch.nn.LayerNorm(12),
        "batch": lambda: OfTokens(12),
        "group": lambda: OfGroups(4, 12),
        "rms": lambda: torch.nn.RMSNorm(12, eps=1e-5),
    }[name]()


def torch_network(torch, params, norm):
    """An encoder of PyTorch with our parameters, as a function of images [B, C, H, W], and its
    tensors that have gradients.
    """
    tensors = jax.tree.map(lambda p: torch.tensor(np.asarray(p), requires_grad=True), params)
    functional = torch.nn.functional

    def state(i):
        """The parameters of a torch.nn.TransformerEncoderLayer, by its names."""
        ours = {
            "self_attn.out_proj": "out",
            "linear1": "first",
            "linear2": "second",
        }
        parts = [tensors[f"block{i}_{name}"] for name in ("query", "key", "value")]
        found = {
            "self_attn.in_proj_weight": torch.cat([part["kernel"].T for part in parts]),
            "self_attn.in_proj_bias": torch.cat([part["bias"] for part in parts]),
        }
        for theirs, name in ours.items():
            found[f"{theirs}.weight"] = tensors[f"block{i}_{name}"]["kernel"].T
            found[f"{theirs}.bias"] = tensors[f"block{i}_{name}"]["bias"]
        for number in (0, 1):
            own = of_norm(f"block{i}_norm{number}").items()
            found |= {f"norm{number + 1}.{name}": tensor for name, tensor in own}
        return found

    def of_norm(name):
        """The parameters of a norm, by PyTorch's names."""
        return {THEIRS[ours]: tensor for ours, tensor in tensors.get(name, {}).items()}

    layer = torch.nn.TransformerEncoderLayer(
        12, 3, 24, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )

    layer.norm1, layer.norm2, last_norm = (torch_norm(torch, norm) for _ in range(3))

    def logits(images):
        kernel = tensors["patches"]["kernel"].reshape(4, 4, 2, 12).permute(3, 2, 0, 1)
        x = functional.conv2d(images, kernel, tensors["patches"]["bias"], stride=4)
        x = x.flatten(2).transpose(1, 2)
        token = tensors["token"].expand(len(x), 1, 12)
        x = torch.cat([token, x], dim=1) + tensors["places"]
        for i in range(2):
            x = torch.func.functional_call(layer, state(i), (x,))
        x = torch.func.functional_call(last_norm, of_norm("last_norm"), (x,))[:, 0]
        return functional.linear(x, tensors["head"]["kernel"].T, tensors["head"]["bias"])

    return logits, tensors


@pytest.mark.parametrize("norm", ["none", "layer", "batch", "group", "rms"])
@pytest.mark.oracle
def test_logits_and_gradients_as_pytorch(torch, norm):
    net, params, rest, x = made(norm=norm)
    y = np.arange(len(x)) % 3

    def loss(p):
        logits, _ = net.apply({"params": p, **rest}, x, True, mutable=["hidden", "batch_stats"])
        return -jax.nn.log_softmax(logits)[jnp.arange(len(x)), y].mean(), logits

    (_, logits), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    forward, tensors = torch_network(torch, params, norm)
    want = forward(torch.tensor(x.transpose(0, 3, 1, 2)))
    torch.nn.functional.cross_entropy(want, torch.tensor(y)).backward()
    np.testing.assert_allclose(logits, want.detach().numpy(), rtol=1e-4, atol=1e-5)
    largest = max(float(t.grad.abs().max()) for t in jax.tree.leaves(tensors))
    jax.tree.map(
        lambda g, t: np.testing.assert_allclose(g, t.grad.numpy(), rtol=1e-3, atol=1e-5 * largest),
        gradient,
        tensors,
    )


def test_parameter_count_of_the_published_sizes():
    """Of Tiny-ImageNet: 64 patches of 192 numbers, 6 blocks, 200 classes."""
    net = vit(200, "layer")
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3))))
    block = 4 * (384 * 384 + 384) + 384 * 1536 + 1536 + 1536 * 384 + 384 + 4 * 384
    whole = 192 * 384 + 384 + 384 + 65 * 384 + 6 * block + 2 * 384 + 384 * 200 + 200
    assert sum(p.size for p in jax.tree.leaves(shapes["params"])) == whole


def test_groups_are_the_units_inside_blocks_and_what_the_head_reads():
    net, params, rest, x = made(norm="batch")
    logits, found = jax.jit(
        lambda p: net.apply({"params": p, **rest}, x, False, mutable=["hidden", "preactivations"])
    )(params)
    assert net.groups() == ["inner0", "inner1", "features"]
    assert found["hidden"].keys() == set(net.groups())
    assert list(found["preactivations"]) == list(net.units())
    assert found["hidden"]["inner0"].shape == (5, 5, 24)
    head = params["head"]
    want = np.asarray(found["hidden"]["features"]) @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(logits, want, rtol=1e-4, atol=1e-5)
    for unit in net.units().values():
        assert params[unit.made_by[0]]["kernel"].shape == (12, 24)
        assert params[unit.feeds[0]]["kernel"].shape == (24, 12)


@pytest.mark.long
def test_images_are_padded_to_whole_patches():
    net, params, _, x = made()
    small = x[:, :7, :6]
    whole = np.pad(small, ((0, 0), (0, 1), (0, 2), (0, 0)))
    apply = jax.jit(lambda x: net.apply({"params": params}, x))
    np.testing.assert_array_equal(apply(small), apply(whole))


def test_heads_share_out_the_embedding():
    for make in (lambda **given: ViT(3, **given), lambda **given: vit(3, "layer", **given)):
        with pytest.raises(
            ValueError, match=r"^vit\.heads is 5: .* divide the embedding of 384\.$"
        ):
            make(heads=5)
