"""The 2-D convolution of the convolutional models: PyTorch's padding, and gradients that stay fast
in loops on a CPU.

XLA:CPU runs a convolution through its fast kernel only if image and filters lie in memory in one
canonical order. Outside of loops it brings the two convolutions of a gradient into that order by
itself; in the body of a scan, map or while it does not, and they take a naive kernel, tens of times
slower. So on a CPU both gradients are spelled out here: as canonical convolutions of operands that
are transposed by hand, or, like the convolution itself, by Winograd's products where channels are
many (for a kernel's gradient, very many).
"""

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from plasticity_jax.models import layers
from plasticity_jax.models.cpu import winograd
from plasticity_jax.types import Array

LAYOUT = ("NHWC", "HWIO", "NHWC")
# A filter's gradient on a CPU is summed in pieces of at most this many outputs and bytes of images:
# what fits the caches. (At 32x32 and 64 channels, 3 times as fast as all at once; and transposing
# more than fits is several times slower.)
CHUNK, BYTES = 2048, 2**20
# Winograd's products are faster, two to one at best, from this many channels on either side: for
# outputs and an image's gradient, and for a kernel's gradient. About so many tiles are computed at
# a time: what lies between fits the caches.
CHANNELS, KERNEL_CHANNELS, TILES = 32, 128, 256


def convolve(x: Array, kernel: Array, stride: int = 1) -> Array:
    """Returns the convolution of `x` [B, H, W, in] with `kernel` [h, w, in, out], [B, H', W', out].

    Zero padding of h // 2 and w // 2 at either end, as PyTorch's `padding=k // 2`; so H' = (H + 2
    (h // 2) - h) // stride + 1. (At stride 2, XLA's "SAME" pads less at the start than at the end,
    and so reads other pixels.) On a CPU the gradients are custom: reverse mode and everything on
    top of it (Hessian-vector products, forward over reverse) works and stays fast; forward mode by
    itself, `jax.jvp` of the network, raises TypeError there.
    """
    # a product of matrices, of which the gradients are fast as they are
    if kernel.shape[:2] == (1, 1):
        x = x[:, ::stride, ::stride]
        return layers.of_rows(x, lambda rows: rows @ kernel[0, 0])
    if jax.default_backend() == "cpu":
        return _with_gradients(x, kernel, stride)
    return _plain(x, kernel, stride)


def _plain(x: Array, kernel: Array, stride: int) -> Array:
    padding = [(size // 2, size // 2) for size in kernel.shape[:2]]
    return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=LAYOUT)


def _by_products(x: Array, kernel: Array, stride: int, channels: int) -> bool:
    """Whether Winograd's products take the place of a convolution: they are for 3x3, even sides,
    and worth it if many.
    """
    even = x.shape[1] % 2 == x.shape[2] % 2 == 0
    # in half precision their sums and differences would lose digits
    exact = x.dtype == kernel.dtype == jnp.float32
    return (
        stride == 1
        and kernel.shape[:2] == (3, 3)
        and even
        and exact
        and min(kernel.shape[2:]) >= channels
    )


def _outputs(x: Array, kernel: Array, stride: int) -> Array:
    if not _by_products(x, kernel, stride, CHANNELS):
        return _plain(x, kernel, stride)
    return _products(x, kernel, 2)


# (checkpoint: what a Hessian-vector product needs again, four times the image, is made again
# instead of kept)
@functools.partial(jax.checkpoint, static_argnums=2)
def _products(x: Array, kernel: Array, axis: int) -> Array:
    """Returns the 3x3 convolution of `x` with `kernel`, of which `axis` 2 or 3 counts the
    inputs.
    """
    # the barriers keep XLA from computing both again for every piece and entry
    x, factors = lax.optimization_barrier((x, winograd.of_kernel(kernel)))
    shape = (*x.shape[:3], kernel.shape[5 - axis])

    def add(pieces, first, outputs):
        (x,) = pieces
        entries = lax.dot_general(
            winograd.of_image(x), factors, (((2,), (axis - 1,)), ((0,), (0,)))
        )
        return lax.dynamic_update_slice_in_dim(
            outputs, winograd.to_outputs(entries, (len(x), *shape[1:])), first, 0
        )

    # every place is overwritten; a value of x, where zeros would be made, and hold memory, long
    # before they are needed
    start = jnp.broadcast_to(x[:1, 0, 0, 0].sum(), shape)
    return _over_pieces(add, (x,), _few_tiles(x), start)


def _few_tiles(x: Array) -> int:
    return max(1, TILES // (x.shape[1] * x.shape[2] // winograd.TILE**2))


def _over_pieces(add: Callable, arrays: tuple[Array, ...], size: int, carry: Any) -> Any:
    """Returns `carry` after carry = add(pieces, first, carry) for pieces of at most `size` examples
    of the `arrays`.
    """
    # pieces are sliced out of the whole in a loop: as operands of a scan they would be made anew by
    # all that makes the whole
    whole = len(arrays[0])
    count = whole // size if whole // size > 1 else 0

    def body(number, carry):
        first = number * size
        return add(tuple(lax.dynamic_slice_in_dim(a, first, size) for a in arrays), first, carry)

    if count:
        carry = lax.fori_loop(0, count, body, carry)
    first = count * size
    return add(tuple(a[first:] for a in arrays), first, carry) if first < whole else carry


# Forward over reverse differentiates what `_forward` and `_backward` compute, never
# `_with_gradients` itself; both are made of canonical convolutions and of products, whose tangents
# are of the same kind again.
@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _with_gradients(x: Array, kernel: Array, stride: int) -> Array:
    return _outputs(x, kernel, stride)


def _forward(x, kernel, stride):
    return _outputs(x, kernel, stride), (x, kernel)


def _backward(stride, saved, g):
    # else a piece's producers are computed again to make the pieces
    x, kernel = lax.optimization_barrier(saved)
    g = lax.optimization_barrier(g)
    if _by_products(x, kernel, stride, KERNEL_CHANNELS):
        into_kernel = _into_kernel_by_products(x, g)
    else:
        into_kernel = _into_kernel(x, kernel.shape, stride, g)
    return _into_image(x.shape, kernel, stride, g), into_kernel


@jax.checkpoint
def _into_kernel_by_products(x: Array, g: Array) -> Array:
    def add(pieces, _, total):
        x, g = pieces
        return total + lax.dot_general(
            winograd.of_image(x), winograd.of_outputs(g), (((1,), (1,)), ((0,), (0,)))
        )

    start = jnp.zeros((16, x.shape[3], g.shape[3]), g.dtype)
    return winograd.to_kernel(_over_pieces(add, (x, g), _few_tiles(x), start))


def _into_kernel(x: Array, shape: tuple[int, ...], stride: int, g: Array) -> Array:
    """Returns the gradient with respect to the kernel, of `shape` [h, w, in, out], from that of the
    output, `g`.
    """
    padding = []  # (low, high) along height and width
    for size, width, out in zip(x.shape[1:3], shape[:2], g.shape[1:3], strict=True):
        # spread: places from the first output to the last
        pad, spread = width // 2, (out - 1) * stride + 1
        padding.append((pad, spread + width - 1 - size - pad))

    def add(pieces, _, total):
        x, g = pieces
        # examples are summed over, so they stand where input channels do, and input channels where
        # examples do
        images, filters = lax.optimization_barrier(
            (x.transpose(3, 1, 2, 0), g.transpose(1, 2, 0, 3))
        )
        return total + lax.conv_general_dilated(
            images,
            filters,
            (1, 1),
            padding,
            rhs_dilation=(stride, stride),
            dimension_numbers=LAYOUT,
        )

    examples = max(
        1,
        min(
            CHUNK // (g.shape[1] * g.shape[2]), BYTES // (math.prod(x.shape[1:]) * x.dtype.itemsize)
        ),
    )
    start = jnp.zeros((shape[2], *shape[:2], shape[3]), g.dtype)
    return _over_pieces(add, (x, g), examples, start).transpose(1, 2, 0, 3)


def _into_image(shape: tuple[int, ...], kernel: Array, stride: int, g: Array) -> Array:
    """Returns the gradient with respect to the image, of `shape` [B, H, W, in], from that of the
    output, `g`.

    The pixels of one phase, those at s i + a for stride s, are reached by every s-th row of the
    kernel alone, so a phase is a convolution of g by itself: no zeros are multiplied, as they would
    be between the rows of a dilated g.
    """
    rows, columns = (_phases(shape[i + 1], kernel.shape[i], stride, g.shape[i + 1]) for i in (0, 1))

    if _by_products(g, kernel, stride, CHANNELS):
        return _products(g, kernel[::-1, ::-1], 3)

    def of_phase(row, column):
        (above, up_down), (left, left_right) = row, column
        # the barrier keeps XLA from folding the transposition into the convolution, which would
        # undo the canonical order
        flipped = lax.optimization_barrier(kernel[above, left].swapaxes(2, 3))
        return lax.conv_general_dilated(
            g, flipped, (1, 1), (up_down, left_right), dimension_numbers=LAYOUT
        )

    if stride == 1:
        return of_phase(rows[0], columns[0])
    by_row = []
    for row in rows:
        by_row.append(jnp.stack([of_phase(row, column) for column in columns], axis=3))
    phases = jnp.stack(by_row, axis=2)
    whole = phases.reshape(shape[0], stride * phases.shape[1], stride * phases.shape[3], shape[3])
    return whole[:, : shape[1], : shape[2]]


def _phases(size: int, width: int, stride: int, out: int) -> list[tuple[slice, tuple[int, int]]]:
    """`_phase` of every phase along one axis."""
    return [_phase(a, width, stride, -(-size // stride), out) for a in range(stride)]


def _phase(a: int, width: int, stride: int, count: int, out: int) -> tuple[slice, tuple[int, int]]:
    """Returns the kernel's rows that reach the pixels s i + a, 0 <= i < count, last one first, and
    g's (low, high) padding.

    Output o takes pixel s o + u - pad by kernel row u, so pixel s i + a is reached by the rows u =
    first + s m, with first = (a + pad) mod s, of the outputs i + shift - m.
    """
    shift, first = divmod(a + width // 2, stride)
    number = len(range(first, width, stride))
    last = first + stride * (number - 1)
    return slice(last, first - 1 if first else None, -stride), (
        number - 1 - shift,
        count + shift - out,
    )


_with_gradients.defvjp(_forward, _backward)


def max_pool(
    x: Array, size: int = 2, stride: int = 2, padding: int = 0, whole: bool = True
) -> Array:
    """Returns the largest value in each window, [B, H, W, C] -> [B, H', W', C].

    H' = (H + 2 padding - size) / stride + 1, rounded down if only whole windows count and up if
    not, as PyTorch's MaxPool2d with ceil_mode False and True. The gradient is shared between equal
    values, where PyTorch's goes to the first. Written with slices, because the gradient of XLA's
    own windows is slow on a CPU.
    """
    beyond = [0 if whole else (size - side - 2 * padding) % stride for side in x.shape[1:3]]
    around = ((0, 0), *((padding, padding + more) for more in beyond), (0, 0))
    x = jnp.pad(x, around, constant_values=-jnp.inf)
    height, width = ((side - size) // stride * stride + 1 for side in x.shape[1:3])
    parts = []
    for i, j in itertools.product(range(size), repeat=2):
        parts.append(x[:, i : i + height : stride, j : j + width : stride])
    return functools.reduce(jnp.maximum, parts)


class Conv(nn.Module):
    """A convolution layer: `features` filters, square, initialized like the other layers;
    parameters `kernel`, `bias`.

    Inputs [B, H, W, in] -> [B, H', W', features] as in `convolve`; an input's fan-in is kernel *
    kernel * in.
    """

    features: int
    kernel: int = 3
    stride: int = 1
    bias: bool = True
    initialization: str = "torch"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns the convolution of `x`."""
        shape = (self.kernel, self.kernel, x.shape[-1], self.features)
        kernel, bias = layers.INITIALIZATIONS[self.initialization]
        y = convolve(x, self.param("kernel", kernel, shape, jnp.float32), self.stride)
        if not self.bias:
            return y
        offset = self.param("bias", bias(math.prod(shape[:3])), (self.features,), jnp.float32)
        return y + jnp.broadcast_to(offset, y.shape)
