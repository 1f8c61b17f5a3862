"""The convolution and the pooling: values and gradients against autodiff and PyTorch; loops; second
derivatives.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity_jax.models.cpu import convolution, winograd
from plasticity_jax.models.layers import INITIALIZATIONS

pytestmark = pytest.mark.usefixtures("compiled_quickly")

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
    shape = (
        batch,
        *((side + 2 * (kernel // 2) - kernel) // stride + 1 for side in (height, width)),
        OUTPUTS,
    )
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


@pytest.mark.parametrize("channels", [3, 32, 128])
def test_no_examples(channels):
    x, kernel = jnp.zeros((0, 4, 4, channels)), jnp.ones((3, 3, channels, channels))
    y, pull = jax.vjp(convolution.convolve, x, kernel)
    assert y.shape == x.shape
    assert not pull(y)[1].any()


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
    """What keeps loops fast: image NHWC, filters HWIO, operands behind a barrier; in tangents of
    gradients as well.
    """
    x, kernel, _ = drawn(3, 2, 8, 8, 4)

    def loss(k):
        return (
            convolution.convolve(jnp.tanh(convolution.convolve(x, k, 2)), k[:, :, :1].repeat(4, 2))
            ** 2
        ).sum()

    for function in (jax.grad(loss), jax.linearize(jax.grad(loss), kernel)[1]):
        found = list(convolutions(jax.make_jaxpr(function)(kernel).jaxpr))
        assert len(found) >= 3
        for numbers in found:
            assert numbers == jax.lax.conv_dimension_numbers(
                x.shape, kernel.shape, convolution.LAYOUT
            )
    plain = jax.make_jaxpr(jax.grad(lambda k: (padded(x, k, 2) ** 2).sum()))(kernel).jaxpr
    assert any(
        n != jax.lax.conv_dimension_numbers(x.shape, kernel.shape, convolution.LAYOUT)
        for n in convolutions(plain)
    )


def convolutions(jaxpr):
    """The dimension numbers of every convolution in a program, those in loops too."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "conv_general_dilated":
            yield equation.params["dimension_numbers"]
        for inner in jax.tree.leaves(
            equation.params, is_leaf=lambda p: hasattr(p, "jaxpr") or hasattr(p, "eqns")
        ):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from convolutions(inner)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("chunk", [20, 10**6])
def test_hessian_vector_products(chunk, stride, monkeypatch, request):
    """Forward over reverse, as the curvature probe takes it, against the dense Hessian of the plain
    convolution.
    """
    monkeypatch.setattr(convolution, "CHUNK", chunk)
    if stride == 1:
        request.getfixturevalue("by_products")
        monkeypatch.setattr(convolution, "TILES", chunk)
    x, kernel, _ = drawn(3, stride, 4, 6, 3)
    second = jnp.asarray(np.random.default_rng(1).normal(size=(3, 3, OUTPUTS, 2)), jnp.float32)
    params = {"a": kernel[..., :2, :], "b": second}
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    v = jnp.asarray(np.random.default_rng(2).normal(size=flat.size), jnp.float32)

    def loss(flat, convolve):
        p = unravel(flat)
        return (
            jnp.tanh(convolve(jnp.tanh(convolve(x[..., :2], p["a"], stride)), p["b"], 1)) ** 2
        ).sum()

    def both(flat, v):
        product = jax.linearize(jax.grad(lambda f: loss(f, convolution.convolve)), flat)[1]
        return product(v), jax.hessian(lambda f: loss(f, padded))(flat) @ v

    close(*jax.jit(both)(flat, v), 1e-4)


# Winograd's products


@pytest.fixture
def by_products(monkeypatch):
    """Has every convolution computed by products that can be, however few its channels."""
    monkeypatch.setattr(convolution, "CHANNELS", 1)
    monkeypatch.setattr(convolution, "KERNEL_CHANNELS", 1)


@pytest.mark.parametrize("tiles", [1, 12, 10**6], ids=lambda tiles: f"tiles{tiles}")
@pytest.mark.parametrize("size", [(6, 6, 5), (2, 2, 3), (4, 10, 2)], ids=str)
@pytest.mark.usefixtures("by_products")
def test_products_as_autodiff(size, tiles, monkeypatch):
    monkeypatch.setattr(convolution, "TILES", tiles)
    x, kernel, g = drawn(3, 1, *size)
    got, pull = jax.vjp(convolution.convolve, x, kernel)
    want, expected = jax.vjp(lambda x, k: padded(x, k, 1), x, kernel)
    close(got, want)
    jax.tree.map(close, pull(g), expected(g))
    assert not [
        *convolutions(
            jax.make_jaxpr(lambda *a: jax.vjp(convolution.convolve, *a)[1](g))(x, kernel).jaxpr
        )
    ]


def test_products_err_like_sums_in_float32():
    random = np.random.default_rng(0)
    x, kernel = random.normal(size=(2, 8, 8, 64)), random.normal(size=(3, 3, 64, 64))
    framed = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(framed, (3, 3), (1, 2))
    want = np.einsum("bhwcij,ijco->bhwo", windows, kernel)
    got = convolution.convolve(jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32))
    np.testing.assert_allclose(got, want, atol=2e-6 * np.abs(want).max())


def test_adjoints():
    """<f(a), b> = <a, f'(b)> for each transform that goes forwards and its adjoint that goes
    back.
    """
    random = np.random.default_rng(0)
    kernel, image, entries, rows = (
        jnp.asarray(random.normal(size=shape), jnp.float32)
        for shape in [(3, 3, 2, 5), (3, 4, 6, 5), (16, 2, 5), (16, 18, 5)]
    )
    there, back = winograd.of_kernel(kernel), winograd.to_kernel(entries)
    assert jnp.vdot(there, entries) == pytest.approx(float(jnp.vdot(kernel, back)), rel=1e-5)
    there, back = winograd.of_outputs(image), winograd.to_outputs(rows, image.shape)
    assert jnp.vdot(there, rows) == pytest.approx(float(jnp.vdot(image, back)), rel=1e-5)


@pytest.mark.parametrize(
    ("shape", "kernel", "stride", "dtype", "count"),
    [
        ((2, 4, 4, 128), (3, 3, 128, 128), 1, jnp.float32, 0),
        # the gradient of a kernel of few channels
        ((2, 4, 4, 64), (3, 3, 64, 64), 1, jnp.float32, 1),
        ((2, 4, 4, 16), (3, 3, 16, 64), 1, jnp.float32, 3),
        ((2, 5, 4, 128), (3, 3, 128, 128), 1, jnp.float32, 3),
        ((2, 4, 4, 128), (5, 5, 128, 128), 1, jnp.float32, 3),
        ((2, 4, 4, 128), (3, 3, 128, 128), 2, jnp.float32, 6),  # an image's gradient in four phases
        ((2, 4, 4, 128), (3, 3, 128, 128), 1, jnp.bfloat16, 3),
    ],
)
def test_where_products_are_used(shape, kernel, stride, dtype, count):
    def gradients(x, kernel):
        y, pull = jax.vjp(lambda x, k: convolution.convolve(x, k, stride), x, kernel)
        return pull(y)

    program = jax.make_jaxpr(gradients)(jnp.zeros(shape, dtype), jnp.zeros(kernel, dtype))
    assert len(list(convolutions(program.jaxpr))) == count


@pytest.mark.usefixtures("by_products")
def test_products_inside_a_scan_and_under_vmap():
    x, kernel, _ = drawn(3, 1, 6, 6, 4)
    check_loops(x, kernel, 1)


def test_forward_mode_by_itself_says_no():
    x, kernel, _ = drawn(3, 1, 4, 4, 1)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda k: convolution.convolve(x, k), (kernel,), (kernel,))


def test_inside_a_scan_and_under_vmap_as_outside():
    x, kernel, _ = drawn(3, 2, 7, 6, 4)
    check_loops(x, kernel, 2)


def check_loops(x, kernel, stride):
    """Gradients are the same alone, inside a scan and under vmap."""
    gradient = jax.grad(lambda k, x: (convolution.convolve(x, k, stride) ** 3).sum())
    alone = [gradient(kernel * scale, x) for scale in (1.0, 2.0)]
    scales = jnp.asarray([1.0, 2.0])
    _, scanned = jax.lax.scan(
        lambda carry, scale: (carry, gradient(kernel * scale, x)), None, scales
    )
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
    variances = {"torch": 1 / (3 * fan_in), "lecun": 1 / fan_in}  # the others He's
    variance = variances.get(initialization, 2 / fan_in)
    assert kernel.var() == pytest.approx(variance, rel=0.03)
    bound = fan_in**-0.5 if initialization == "torch" else 0
    assert 0.9 * bound <= np.abs(params["bias"]).max() <= bound


def test_bias_is_added_to_every_position():
    x, _, _ = drawn(3, 2, 5, 6, 2)
    layer = convolution.Conv(OUTPUTS, 3, 2)
    params = layer.init(jax.random.key(1), x)["params"]
    without = convolution.Conv(OUTPUTS, 3, 2, bias=False).apply(
        {"params": {"kernel": params["kernel"]}}, x
    )
    close(
        layer.apply({"params": params}, x) - without, np.broadcast_to(params["bias"], without.shape)
    )


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
