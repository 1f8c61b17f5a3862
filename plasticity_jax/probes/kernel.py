"""The empirical neural tangent kernel of a network on a batch, and what is read off it.

K[(n, c), (m, d)] = <df_c(x_n)/dp, df_d(x_m)/dp> of outputs f, not of the loss. Source: Jacot et
al. 2018; Lyle et al. 2024, "Disentangling the Causes of Plasticity Loss", for its use.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from plasticity_jax.probes import numerics, taps
from plasticity_jax.types import Array, PyTree


def empirical_ntk(
    outputs: Callable[[PyTree], Array], params: PyTree, class_mean: bool = False
) -> Array:
    """Returns the empirical NTK of `outputs` (params -> [N, C]) at `params`, [N C, N C], example by
    example and within each output by output.

    With `class_mean` it is [N, N], the mean over outputs c of K[(n, c), (m, c)]. Any tree of
    parameters will do. Jacobians take N * C times the memory of the parameters, with `class_mean` N
    times; where a Flax network is made of dense layers and norms, `layerwise_ntk` gives the latter
    for a fraction of the work. NaN where an output or parameter is not finite. Raises ValueError
    for outputs that are not [N, C] or parameters that are no floating-point numbers.

    >>> x = jnp.array([[1.0, 0.0], [1.0, 2.0]])
    >>> pj.probes.empirical_ntk(lambda weights: x @ weights, jnp.ones((2, 1))).tolist()  # x @ x.T
    [[1.0, 1.0], [1.0, 5.0]]
    """
    params = numerics.floating("params", params)
    value, pullback = jax.vjp(outputs, params)
    _check_outputs(value)
    examples, classes = value.shape
    sound = numerics.finite(value, params)

    def rows(chosen: Array) -> list[Array]:
        """The Jacobian's rows of `chosen` [R] places in the outputs, a matrix for each leaf."""

        def one(place: Array) -> PyTree:
            unit = jnp.arange(examples * classes) == place
            return pullback(unit.reshape(value.shape).astype(value.dtype))[0]

        return [leaf.reshape(len(chosen), -1) for leaf in jax.tree.leaves(jax.vmap(one)(chosen))]

    if not class_mean:
        return numerics.known(sound, _gram(rows(jnp.arange(examples * classes))))

    def add(total: Array, output: Array) -> tuple[Array, None]:
        return total + _gram(rows(jnp.arange(examples) * classes + output)), None

    start = jnp.zeros((examples, examples), value.dtype)
    total, _ = jax.lax.scan(add, start, jnp.arange(classes))
    return numerics.known(sound, total / classes)


def layerwise_ntk(outputs: Callable[[PyTree], Array], params: PyTree) -> Array | None:
    """Returns the class-mean NTK [N, N] of a Flax network of dense layers and norms, None of
    another network.

    A dense layer's part is the product of two Gram matrices, of its inputs (and 1 for the bias) and
    of the outputs' derivatives with respect to what it gives, so no Jacobian is made: one forward
    pass and C backward passes without those for weights. A norm must act on each example by itself
    and end in a scale or an offset of each unit; its normalized input is found by division, so the
    kernel is NaN where a scale is 0. Raises as `empirical_ntk`.
    """
    params = numerics.floating("params", params)
    value, found = taps.shapes(outputs, params)
    _check_outputs(value)
    if not _is_layerwise(found, params, value.shape[0]):
        return None
    still = {path: jnp.zeros(tap.after.shape, tap.after.dtype) for path, tap in found.items()}

    def shifted(shifts: dict[taps.Path, Array]) -> tuple[Array, dict[taps.Path, Any]]:
        made, seen = taps.tapped(outputs, params, shifts=shifts)
        return made, {path: tuple(tap)[:3] for path, tap in seen.items()}

    made, pullback, seen = jax.vjp(shifted, still, has_aux=True)
    classes = made.shape[1]
    units = jnp.broadcast_to(jnp.eye(classes)[:, None], (classes, *made.shape))
    slopes = jax.vmap(lambda unit: pullback(unit.astype(made.dtype))[0])(units)
    total = jnp.zeros((len(made), len(made)), made.dtype)
    for path, (own, before, after) in seen.items():
        slope = jnp.moveaxis(slopes[path], 0, 1)  # [N, C, H]
        if "bias" in own:
            total += _gram([slope.reshape(len(made), -1)])
        if "kernel" in own:
            total += _gram([before]) * _gram([slope.reshape(len(made), -1)])
        if "scale" in own:
            offset = own.get("bias", jnp.zeros_like(own["scale"]))
            normal = (after - offset[None]) / own["scale"][None]
            total += _gram([(slope * normal[:, None]).reshape(len(made), -1)])
    return numerics.known(numerics.finite(made, params, total), total / classes)


def _is_layerwise(found: dict[taps.Path, taps.Tap], params: PyTree, examples: int) -> bool:
    """Whether the layers are dense or norms of rows, and have all parameters among them."""
    known = 0
    for tap in found.values():
        names = set(tap.parameters)
        norm = bool(names) and names <= {"scale", "bias"} and "scale" in names
        vectors = all(leaf.ndim == 1 for name, leaf in tap.parameters.items() if name != "kernel")
        rows = tap.before.ndim == 2 and tap.after.ndim == 2 and len(tap.before) == examples
        if not (vectors and rows and (norm or (tap.dense and names <= {"kernel", "bias"}))):
            return False
        known += len(names)
    return known == len(jax.tree.leaves(params))


def _check_outputs(value: Array) -> None:
    if value.ndim != 2 or 0 in value.shape:
        raise ValueError(
            f"outputs have shape {list(value.shape)}: allowed are [N, C] with at least one example "
            "and one output."
        )


def _gram(rows: list[Array]) -> Array:
    """The sum of R R' of matrices [N, ..] in full precision."""
    return sum(
        (jnp.matmul(r, r.T, precision=jax.lax.Precision.HIGHEST) for r in rows[1:]),
        jnp.matmul(rows[0], rows[0].T, precision=jax.lax.Precision.HIGHEST),
    )


def kernel_summary(kernel: Array) -> dict[str, Array]:
    """Returns ranks, shares and angles that are read off a kernel [N, N], each [].

    `rank` is the effective rank exp(-sum p ln p) of its eigenvalues' shares p; `normalised_rank`
    the same of the kernel with unit diagonal, K_nm / sqrt(K_nn K_mm); `top_share` largest
    eigenvalue over trace; `cosine` mean of the latter kernel off the diagonal; `condition` largest
    over smallest eigenvalue, at most 1 / eps of float32. A kernel of zeros has 0 of all but
    `condition`, which is 1. Source: Roy & Vetterli 2007 for the rank; the choice is ours, as Lyle
    et al. give pictures only.
    """
    count = len(kernel)
    diagonal = jnp.diagonal(kernel)
    silent = diagonal <= 0
    size = jnp.where(silent, 1.0, jnp.sqrt(jnp.where(silent, 1.0, diagonal)))
    unit = jnp.where(silent[:, None] | silent[None, :], 0.0, kernel / (size[:, None] * size[None]))
    values, cosines = _eigenvalues(kernel / numerics.scale_of(kernel)), _eigenvalues(unit)
    largest = values[-1]
    least = jnp.maximum(values[0], jnp.finfo(values.dtype).eps * largest)
    off = (unit.sum() - jnp.diagonal(unit).sum()) / max(1, count * (count - 1))
    return {
        "rank": _rank(values),
        "normalised_rank": _rank(cosines),
        "top_share": jnp.where(largest > 0, largest / jnp.maximum(values.sum(), largest), 0.0),
        "cosine": off,
        "condition": jnp.where(largest > 0, largest / jnp.where(largest > 0, least, 1.0), 1.0),
    }


def kernel_change(now: Array, before: Array) -> Array:
    """Returns ||K - K_before||_F / ||K_before||_F, [] >= 0; 0 where both are zero."""
    scale = numerics.scale_of(before)
    size = jnp.linalg.norm(before / scale)
    change = jnp.linalg.norm((now - before) / scale)
    return numerics.if_finite(jnp.where(change > 0, change / size, 0.0))


def _rank(values: Array) -> Array:
    positive = jnp.maximum(values, 0)
    total = positive.sum()
    p = positive / jnp.where(total > 0, total, 1.0)
    entropy = -jnp.where(p > 0, p * jnp.log(jnp.where(p > 0, p, 1.0)), 0.0).sum()
    return jnp.where(total > 0, jnp.exp(entropy), 0.0)


@jax.custom_batching.sequential_vmap
def _eigenvalues(matrix: Array) -> Array:
    """Eigenvalues of one symmetric matrix, rising; of several one after another, also under vmap.

    As for singular values: LAPACK's threads for many matrices at once could wait for each other.
    """
    return jnp.linalg.eigvalsh(matrix)
