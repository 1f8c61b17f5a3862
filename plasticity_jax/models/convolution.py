"""The 2-D convolution of the convolutional models: PyTorch's padding, and gradients that stay fast in loops on a CPU.

XLA:CPU runs a convolution through its fast kernel only if image and filters lie in memory in one canonical order. Outside
of loops it brings the two convolutions of a gradient into that order by itself; in the body of a scan, map or while it
does not, and they take a naive kernel, tens of times slower. So on a CPU both gradients are spelled out here as canonical
convolutions of operands that are transposed by hand.
"""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from plasticity_jax.models import layers
from plasticity_jax.types import Array

LAYOUT = ("NHWC", "HWIO", "NHWC")
CHUNK = 2048  # outputs that a filter's gradient sums in one piece on a CPU: what fits the cache, 3 x faster than all at once


def convolve(x: Array, kernel: Array, stride: int = 1) -> Array:
    """Returns the convolution of `x` [B, H, W, in] with `kernel` [h, w, in, out], [B, H', W', out].

    Zero padding of h // 2 and w // 2 at either end, as PyTorch's `padding=k // 2`; so H' = (H + 2 (h // 2) - h) // stride
    + 1. (At stride 2, XLA's "SAME" pads less at the start than at the end, and so reads other pixels.)
    On a CPU the gradients are custom: reverse mode and everything on top of it (Hessian-vector products, forward over
    reverse) works and stays fast; forward mode by itself, `jax.jvp` of the network, raises TypeError there.
    """
    if kernel.shape[:2] == (1, 1):  # a product of matrices, of which the gradients are fast as they are
        return jnp.tensordot(x[:, ::stride, ::stride], kernel[0, 0], axes=1)
    if jax.default_backend() == "cpu":
        return _with_gradients(x, kernel, stride)
    return _plain(x, kernel, stride)


def _plain(x: Array, kernel: Array, stride: int) -> Array:
    padding = [(size // 2, size // 2) for size in kernel.shape[:2]]
    return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=LAYOUT)


# Forward over reverse differentiates what `_forward` and `_backward` compute, never `_with_gradients` itself; both are
# made of canonical convolutions, whose tangents are canonical convolutions again.
@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _with_gradients(x: Array, kernel: Array, stride: int) -> Array:
    return _plain(x, kernel, stride)


def _forward(x, kernel, stride):
    return _plain(x, kernel, stride), (x, kernel)


def _backward(stride, saved, g):
    x, kernel = saved
    into_x, into_kernel = [], []  # (low, high) padding along height and width
    for size, width, out in zip(x.shape[1:3], kernel.shape[:2], g.shape[1:3], strict=True):
        pad, spread = width // 2, (out - 1) * stride + 1  # spread: places from the first output to the last
        into_x.append((width - 1 - pad, size + pad - spread))
        into_kernel.append((pad, spread + width - 1 - size - pad))

    # the barriers keep XLA from folding the transpositions into the convolutions, which would undo the canonical order
    flipped = lax.optimization_barrier(kernel[::-1, ::-1].swapaxes(2, 3))
    dilation = (stride, stride)
    dx = lax.conv_general_dilated(g, flipped, (1, 1), into_x, lhs_dilation=dilation, dimension_numbers=LAYOUT)

    def of_chunk(x, g):
        # examples are summed over, so they stand where input channels do, and input channels where examples do
        images, filters = lax.optimization_barrier((x.transpose(3, 1, 2, 0), g.transpose(1, 2, 0, 3)))
        return lax.conv_general_dilated(
            images, filters, (1, 1), into_kernel, rhs_dilation=dilation, dimension_numbers=LAYOUT
        )

    count = -(-len(x) // max(1, CHUNK // (g.shape[1] * g.shape[2])))
    if count == 1:
        total = of_chunk(x, g)
    else:
        start = jnp.zeros((kernel.shape[2], *kernel.shape[:2], kernel.shape[3]), g.dtype)
        chunks = _chunks(x, count), _chunks(g, count)
        total, _ = lax.scan(lambda total, chunk: (total + of_chunk(*chunk), None), start, chunks)
    return dx, total.transpose(1, 2, 0, 3)


def _chunks(a: Array, count: int) -> Array:
    """Returns `a` [B, ...] as [count, examples, ...], with zeros at the end where that does not come out even."""
    examples = -(-len(a) // count)
    padded = jnp.pad(a, ((0, count * examples - len(a)), *((0, 0),) * (a.ndim - 1)))
    return padded.reshape(count, examples, *a.shape[1:])


_with_gradients.defvjp(_forward, _backward)


def max_pool(x: Array, size: int = 2, stride: int = 2, padding: int = 0, whole: bool = True) -> Array:
    """Returns the largest value in each window, [B, H, W, C] -> [B, H', W', C].

    H' = (H + 2 padding - size) / stride + 1, rounded down if only whole windows count and up if not, as PyTorch's
    MaxPool2d with ceil_mode False and True. The gradient is shared between equal values, where PyTorch's goes to the
    first. Written with slices, because the gradient of XLA's own windows is slow on a CPU.
    """
    beyond = [0 if whole else (size - side - 2 * padding) % stride for side in x.shape[1:3]]
    around = ((0, 0), *((padding, padding + more) for more in beyond), (0, 0))
    x = jnp.pad(x, around, constant_values=-jnp.inf)
    height, width = ((side - size) // stride * stride + 1 for side in x.shape[1:3])
    parts = [x[:, i : i + height : stride, j : j + width : stride] for i in range(size) for j in range(size)]
    return functools.reduce(jnp.maximum, parts)


def _layer_norm(x: Array, train: bool, name: str) -> Array:
    del train
    return nn.GroupNorm(num_groups=1, epsilon=1e-5, use_fast_variance=False, name=name)(x)


NORMS = {**layers.NORMS, "layer": _layer_norm}
"""As `layers.NORMS` for images, but "layer" is over positions and channels together, as GroupNorm with one group."""


class Conv(nn.Module):
    """A convolution layer: `features` filters, square, initialized like the other layers; parameters `kernel`, `bias`.

    Inputs [B, H, W, in] -> [B, H', W', features] as in `convolve`; an input's fan-in is kernel * kernel * in.
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
        y = convolve(x, self.param("kernel", kernel, shape), self.stride)
        if not self.bias:
            return y
        offset = self.param("bias", bias(math.prod(shape[:3])), (self.features,))
        return y + jnp.broadcast_to(offset, y.shape)
