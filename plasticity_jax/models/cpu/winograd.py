"""Winograd's minimal filtering for 3x3 convolutions: 2x2 outputs from 4x4 pixels by 16 products
instead of 36.

With the matrices of F(2, 3), for one tile and one pair of channels, y = A^T [(G k G^T) * (B^T d B)]
A: d are 4x4 pixels, two apart from tile to tile, k is the kernel, y the tile's 2x2 outputs. Over
all tiles and channels each of the 16 entries is a product of matrices, so that the convolution of
`x` [B, H, W, in] with `kernel` [3, 3, in, out], zero padding 1, stride 1, H and W even, is
`to_outputs(of_image(x) @ of_kernel(kernel), (B, H, W, out))`. Exact but for rounding: about 1e-6 of
the largest output in float32. Source: Lavin & Gray 2016, section 4.1.
"""

import jax.numpy as jnp
import numpy as np

from plasticity_jax.types import Array

G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], np.float32)
BOTH_WAYS = np.kron(G, G)  # [16, 9]
TILE = 2  # outputs along one side of a tile; tiles of the image are larger by 2 and overlap


def of_kernel(kernel: Array) -> Array:
    """Returns G k G^T, [16, in, out], of `kernel` [3, 3, in, out]."""
    return (jnp.asarray(BOTH_WAYS) @ kernel.reshape(9, -1)).reshape(16, *kernel.shape[2:])


def to_kernel(entries: Array) -> Array:
    """Returns G^T u G, [3, 3, in, out], of `entries` u [16, in, out]: the adjoint of
    `of_kernel`.
    """
    return (jnp.asarray(BOTH_WAYS.T) @ entries.reshape(16, -1)).reshape(3, 3, *entries.shape[1:])


def of_image(x: Array) -> Array:
    """Returns B^T d B of all tiles, [16, B H/2 W/2, in], of `x` [B, H, W, in]."""

    def along(d):
        return d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]

    framed = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows = jnp.stack(along([framed[:, i : i + x.shape[1] : TILE] for i in range(4)]))
    entries = jnp.stack(along([rows[:, :, :, j : j + x.shape[2] : TILE] for j in range(4)]), axis=1)
    return entries.reshape(16, -1, x.shape[3])


def to_outputs(entries: Array, shape: tuple[int, ...]) -> Array:
    """Returns A^T m A, of `shape` (B, H, W, out), of `entries` m [16, B H/2 W/2, out]."""

    def along(m):
        return m[0] + m[1] + m[2], m[1] - m[2] - m[3]

    count, height, width, channels = shape
    grid = entries.reshape(4, 4, count, height // TILE, width // TILE, channels)
    half = [along(row) for row in grid]
    tiles = [jnp.stack(along(column), axis=2) for column in zip(*half, strict=True)]
    return jnp.stack(tiles, axis=4).reshape(shape)


def of_outputs(y: Array) -> Array:
    """Returns A y A^T, [16, B H/2 W/2, out], of `y` [B, H, W, out]: the adjoint of `to_outputs`."""

    def along(y):
        return y[0], y[0] + y[1], y[0] - y[1], -y[1]

    rows = jnp.stack(along([y[:, i::TILE] for i in range(TILE)]))
    entries = jnp.stack(along([rows[:, :, :, j::TILE] for j in range(TILE)]), axis=1)
    return entries.reshape(16, -1, y.shape[3])
