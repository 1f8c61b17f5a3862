"""The convolution and the pooling: values and gradients against autodiff and PyTorch; loops; second derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity_jax.models import convolution
from plasticity_jax.models.layers import INITIALIZATIONS

# kernel, stride, height, width, batch
CASES = [
    (1, 1, 4, 5, 3),
    (1, 2, 5, 6, 3),
    (3, 1, 7, 6, 3),
    (3, 2, 8, 8, 2),
    (3, 2, 7, 4, 3),
    (3, 1, 1, 1, 2),
    (5, 3, 9, 11, 2),
    (7, 2, 9, 12, 2),
    (7, 2, 3, 3, 2),
]
INPUTS, OUTPUTS = 3, 4


def drawn(kernel, stride, height, width, batch):
    """(x, kernel, cotangent) as float32 arrays."""
    random = np.random.default_rng(kernel + 10 * stride + 100 * height)
    shape = batch, *((side + 2 * (kernel // 2) - kernel) // stride + 1 for side in (height, width)), OUTPUTS
    shapes = (batch, height, width, INPUTS), (kernel, kernel, INPUTS, OUTPUTS), shape
    return [jnp.asarray(random.normal(size=shape), jnp.float32) for shape in shapes]


def padded(x, kernel, stride):
    """The same convolution left to autodiff, by another route: zeros are added first."""
    around = [(0, 0), *((side // 2, side // 2) for side in kernel.shape[:2]), (0, 0)]
    return jax.lax.conv_general_dilated(
        jnp.pad(x, around), kernel, (stride, stride), "VALID", dimension_numbers=convolution.LAYOUT
    )


def close(got, want, tolerance=1e-5):
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * np.abs(want).max())


@pytest.mark.parametrize("chunk", [1, 40, 10**6], ids=lambda chunk: f"chunk{chunk}")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_value_and_gradients_as_autodiff(case, chunk, monkeypatch):
    monkeypatch.setattr(convolution, "CHUNK", chunk)
    x, kernel, g = drawn(*case)
    got, pull = jax.vjp(lambda x, k: convolution.convolve(x, k, case[1]), x, kernel)
    want, expected = jax.vjp(lambda x, k: padded(x, k, case[1]), x, kernel)
    close(got, want)
    jax.tree.map(close, pull(g), expected(g))


def test_kernels_that_are_not_square():
    x, _, _ = drawn(3, 1, 6, 7, 2)
    kernel = jnp.asarray(np.random.default_rng(0).normal(size=(3, 5, INPUTS, OUTPUTS)), jnp.float32)
    got, pull = jax.vjp(lambda x, k: convolution.convolve(x, k, 2), x, kernel)
    want, expected = jax.vjp(lambda x, k: padded(x, k, 2), x, kernel)
    close(got, want)
    jax.tree.map(close, pull(want), expected(want))


@pytest.mark.oracle
@pytest.mark.parametrize("case", CASES, ids=str)
def test_value_and_gradients_as_pytorch(torch, case):
    x, kernel, g = drawn(*case)
    images = torch.tensor(np.array(x.transpose(0, 3, 1, 2)), requires_grad=True)
    filters = torch.tensor(np.array(kernel.transpose(3, 2, 0, 1)), requires_grad=True)
    want = torch.nn.functional.conv2d(images, filters, stride=case[1], padding=case[0] // 2)
    want.backward(torch.tensor(np.array(g.transpose(0, 3, 1, 2))))
    got, pull = jax.vjp(lambda x, k: convolution.convolve(x, k, case[1]), x, kernel)
    dx, dkernel = pull(g)
    close(got.transpose(0, 3, 1, 2), want.detach())
    close(dx.transpose(0, 3, 1, 2), images.grad)
    close(dkernel.transpose(3, 2, 0, 1), filters.grad)


def test_the_fast_gradients_are_used_on_a_cpu_only(monkeypatch):
    x, kernel, _ = drawn(3, 1, 6, 6, 2)
    assert "custom_vjp" in str(jax.make_jaxpr(lambda x: convolution.convolve(x, kernel))(x))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert "custom_vjp" not in str(jax.make_jaxpr(lambda x: convolution.convolve(x, kernel))(x))


def test_gradients_are_canonical_convolutions():
    """What keeps loops fast: image NHWC, filters HWIO, operands behind a barrier; in tangents of gradients as well."""
    x, kernel, _ = drawn(3, 2, 8, 8, 4)

    def loss(k):
        return (convolution.convolve(jnp.tanh(convolution.convolve(x, k, 2)), k[:, :, :1].repeat(4, 2)) ** 2).sum()

    for function in (jax.grad(loss), jax.linearize(jax.grad(loss), kernel)[1]):
        found = list(convolutions(jax.make_jaxpr(function)(kernel).jaxpr))
        assert len(found) >= 3
        for numbers in found:
            assert numbers == jax.lax.conv_dimension_numbers(x.shape, kernel.shape, convolution.LAYOUT)
    plain = jax.make_jaxpr(jax.grad(lambda k: (padded(x, k, 2) ** 2).sum()))(kernel).jaxpr
    assert any(
        n != jax.lax.conv_dimension_numbers(x.shape, kernel.shape, convolution.LAYOUT) for n in convolutions(plain)
    )


def convolutions(jaxpr):
    """The dimension numbers of every convolution in a program, those in loops too."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "conv_general_dilated":
            yield equation.params["dimension_numbers"]
        for inner in jax.tree.leaves(equation.params, is_leaf=lambda p: hasattr(p, "jaxpr") or hasattr(p, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from convolutions(inner)


@pytest.mark.parametrize("chunk", [20, 10**6])
def test_hessian_vector_products(chunk, monkeypatch):
    """Forward over reverse, as the curvature probe takes it, against the dense Hessian of the plain convolution."""
    monkeypatch.setattr(convolution, "CHUNK", chunk)
    x, kernel, _ = drawn(3, 2, 5, 6, 3)
    second = jnp.asarray(np.random.default_rng(1).normal(size=(3, 3, OUTPUTS, 2)), jnp.float32)
    params = {"a": kernel[..., :2, :], "b": second}
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    v = jnp.asarray(np.random.default_rng(2).normal(size=flat.size), jnp.float32)

    def loss(flat, convolve):
        p = unravel(flat)
        return (jnp.tanh(convolve(jnp.tanh(convolve(x[..., :2], p["a"], 2)), p["b"], 1)) ** 2).sum()

    def both(flat, v):
        product = jax.linearize(jax.grad(lambda f: loss(f, convolution.convolve)), flat)[1]
        return product(v), jax.hessian(lambda f: loss(f, padded))(flat) @ v

    close(*jax.jit(both)(flat, v), 1e-4)


def test_forward_mode_by_itself_says_no():
    x, kernel, _ = drawn(3, 1, 4, 4, 1)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda k: convolution.convolve(x, k), (kernel,), (kernel,))


def test_inside_a_scan_and_under_vmap_as_outside():
    x, kernel, _ = drawn(3, 2, 7, 6, 4)
    gradient = jax.grad(lambda k, x: (convolution.convolve(x, k, 2) ** 3).sum())
    alone = [gradient(kernel * scale, x) for scale in (1.0, 2.0)]
    scales = jnp.asarray([1.0, 2.0])
    _, scanned = jax.lax.scan(lambda carry, scale: (carry, gradient(kernel * scale, x)), None, scales)
    mapped = jax.vmap(lambda scale: gradient(kernel * scale, x))(scales)
    for together in (scanned, mapped):
        close(together, jnp.stack(alone))


# The layer


@pytest.mark.parametrize("initialization", INITIALIZATIONS)
def test_initial_weights(initialization):
    layer = convolution.Conv(200, 3, initialization=initialization)
    params = layer.init(jax.random.key(0), jnp.zeros((1, 4, 4, 50)))["params"]
    fan_in, kernel = 450, np.asarray(params["kernel"])
    assert kernel.shape == (3, 3, 50, 200)
    variance = {"torch": 1 / (3 * fan_in), "he": 2 / fan_in, "lecun": 1 / fan_in}[initialization]
    assert kernel.var() == pytest.approx(variance, rel=0.03)
    bound = fan_in**-0.5 if initialization == "torch" else 0
    assert 0.9 * bound <= np.abs(params["bias"]).max() <= bound


def test_bias_is_added_to_every_position():
    x, _, _ = drawn(3, 2, 5, 6, 2)
    layer = convolution.Conv(OUTPUTS, 3, 2)
    params = layer.init(jax.random.key(1), x)["params"]
    without = convolution.Conv(OUTPUTS, 3, 2, bias=False).apply({"params": {"kernel": params["kernel"]}}, x)
    close(layer.apply({"params": params}, x) - without, np.broadcast_to(params["bias"], without.shape))


# Pooling

POOLS = [(2, 2, 0, True), (2, 2, 0, False), (3, 2, 1, True), (3, 2, 0, False)]


@pytest.mark.oracle
@pytest.mark.parametrize("pool", POOLS, ids=str)
@pytest.mark.parametrize(("height", "width"), [(8, 7), (5, 6), (3, 3)])
def test_pooling_as_pytorch(torch, pool, height, width):
    size, stride, padding, whole = pool
    x, _, _ = drawn(1, 1, height, width, 3)
    images = torch.tensor(np.array(x.transpose(0, 3, 1, 2)), requires_grad=True)
    want = torch.nn.functional.max_pool2d(images, size, stride, padding, ceil_mode=not whole)
    (want**2).sum().backward()
    close(convolution.max_pool(x, *pool).transpose(0, 3, 1, 2), want.detach())
    gradient = jax.grad(lambda x: (convolution.max_pool(x, *pool) ** 2).sum())(x)
    close(gradient.transpose(0, 3, 1, 2), images.grad)


def test_pooling_by_hand():
    x = jnp.arange(9.0).reshape(1, 3, 3, 1)
    assert convolution.max_pool(x).tolist() == [[[[4.0]]]]
    assert convolution.max_pool(x, whole=False)[0, ..., 0].tolist() == [[4.0, 5.0], [7.0, 8.0]]
    assert convolution.max_pool(-x, 3, 2, 1)[0, ..., 0].tolist() == [[0.0, -1.0], [-3.0, -4.0]]
