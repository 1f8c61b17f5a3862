"""The networks of agents for games, against plain convolutions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity_jax.models.game_cnn import GameCNN, _Convolution

pytestmark = pytest.mark.usefixtures("compiled_quickly")


@pytest.mark.parametrize(("shape", "side", "stride"), [((21, 17, 3), 8, 4), ((9, 9, 2), 3, 1)])
@pytest.mark.long
def test_products_of_patches_are_a_convolution(shape, side, stride):
    random = np.random.default_rng(0)
    x = random.normal(size=(2, *shape)).astype(np.float32)
    layer = _Convolution(5, side, stride, "torch")
    variables = jax.jit(layer.init)(jax.random.key(0), x)
    kernel, bias = (variables["params"][name] for name in ("kernel", "bias"))
    layout = ("NHWC", "HWIO", "NHWC")
    wanted = jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), "VALID", dimension_numbers=layout
    )
    found = jax.jit(layer.apply)(variables, x)
    np.testing.assert_allclose(found, wanted + bias[None, None, None], atol=1e-5)
    bound = (side**2 * shape[-1]) ** -0.5
    assert 0.8 * bound < jnp.abs(kernel).max() <= bound


@pytest.mark.parametrize(
    ("of", "shape", "count"),
    [("minatar", (10, 10, 4), 132_179), ("atari", (84, 84, 4), 1_685_667)],
)
def test_sizes_are_those_of_the_sources(of, shape, count):
    model = GameCNN(3, norm="none", of=of)
    made = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, *shape))))
    assert sum(leaf.size for leaf in jax.tree.leaves(made["params"])) == count
