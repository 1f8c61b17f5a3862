"""Probes of hidden units: shares of units that do little, [] in [0, 1]. Positions count as inputs.

`activations` is one array [N, ..., H] or a tree of them, a leaf for each group of units, such as
{group: array} or what Flax's `sow` leaves. Each probe is NaN where an activation is not finite, and
raises ValueError where there is none, one is no array of floating-point numbers with at least one
input and one unit, or a threshold is no number it may be.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from plasticity_jax.probes import numerics
from plasticity_jax.types import Array, PyTree


def _share(activations: PyTree, mark: Callable[[Array], Array]) -> Array:
    """Returns the share of units of all groups together that `mark` ([N, H] -> [H] bool) marks."""
    groups = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(activations):
        array = numerics.activations(f"activations{jax.tree_util.keystr(path)}", leaf)
        groups.append(array.reshape(-1, array.shape[-1]))
    if not groups:
        raise ValueError("activations has no arrays: allowed is at least one array [N, ..., H].")
    marks = jnp.concatenate([mark(group) for group in groups])
    return numerics.known(numerics.finite(groups), marks.mean(dtype=jnp.result_type(*groups)))


def _active(group: Array) -> Array:
    """Returns the number of inputs [H] on which each unit of [N, H] is positive."""
    return (group > 0).sum(axis=0, dtype=jnp.int32)


# Counts are whole, share * N is rounded: what is equal but for rounding is meant to be equal.
_ROUNDING = 1e-6


def dormant_fraction(activations: PyTree, share: float = 0.01) -> Array:
    """Returns the fraction of units that are positive on less than `share` of the inputs.

    Unit i counts if #{n: h_i(x_n) > 0} < share N, of N inputs.

    For activations after a ReLU; other activations are judged by their sign all the same.
    Source: Liu & Mou 2026, appendix C, with the threshold of Dohare et al. 2024; their own is that
    of `never_active_fraction`.

    >>> activations = jnp.array([[0.0, 1.0, 0.0, 2.0], [0.0, 0.0, 3.0, 1.0]])
    >>> float(pj.probes.dormant_fraction(activations))  # the first of four
    0.25
    """
    numerics.check_number("share", share, high=1)
    return _share(activations, lambda group: _active(group) < share * len(group) * (1 - _ROUNDING))


def linearized_fraction(preactivations: PyTree, share: float = 0.99) -> Array:
    """Returns the fraction of units whose preactivation is positive on at least `share` of the
    inputs, all groups pooled.

    Unit i counts if #{n: z_i(x_n) > 0} >= share N, z_i what goes into its activation function.
    A ReLU or leaky ReLU with such a unit is linear in it nearly everywhere, so the unit passes
    gradients and adds no nonlinearity. For preactivations, after a norm where there is one.
    Source: Lyle et al. 2024, "Disentangling the Causes of Plasticity Loss", who call such units
    linearized; the threshold is ours.
    """
    numerics.check_number("share", share, high=1)
    return _share(
        preactivations, lambda group: _active(group) >= share * len(group) * (1 - _ROUNDING)
    )


def never_active_fraction(activations: PyTree, share: float = 1e-4) -> Array:
    """Returns the fraction of units that are positive on at most `share` of the inputs, all groups
    pooled.

    Unit i counts if #{n: h_i(x_n) > 0} <= share N, of N inputs.
    With fewer than 1 / share inputs (positions count), 10,000 by default, these are the units that
    are never positive: the fewer the inputs, the more units are among them. For activations after a
      ReLU, as `dormant_fraction`.
    Source: Liu & Mou 2026, the public code's description of dormancy: a unit that fires on at most
    0.01 % of the inputs.
    """
    numerics.check_number("share", share, high=1)
    return _share(activations, lambda group: _active(group) <= share * len(group) * (1 + _ROUNDING))


def tau_dormant_fraction(activations: PyTree, tau: float = 0.1) -> Array:
    """Returns the fraction of units with s_i <= tau, s_i = E|h_i| / mean_k E|h_k| within their
    group.

    A group that is silent altogether counts as dormant. Source: Sokar et al. 2023, definition 3.1.
    """
    numerics.check_number("tau", tau)

    def mark(group):
        magnitude = jnp.abs(group / numerics.scale_of(group)).mean(axis=0)
        return magnitude <= tau * magnitude.mean()

    return _share(activations, mark)


def dead_fraction(activations: PyTree, share: float = 0.95, zero: float = 1e-7) -> Array:
    """Returns the fraction of units whose magnitude is below `zero` on more than `share` of the
    inputs, all groups pooled.

    Unit i counts if #{n: |h_i(x_n)| < zero} > share N, of N inputs. Source: Joudaki et al. 2025,
    public code.
    """
    numerics.check_number("share", share, high=1)
    numerics.check_number("zero", zero)

    def mark(group):
        silent = (jnp.abs(group) < zero).sum(axis=0, dtype=jnp.int32)
        return silent > share * len(group) * (1 + _ROUNDING)

    return _share(activations, mark)


def duplicate_fraction(activations: PyTree, cosine: float = 0.95) -> Array:
    """Returns the fraction of units that a later unit of their group resembles: the cosine of their
    activations over the inputs is above `cosine`.

    Unit i counts if h_i . h_j / (||h_i||_2 ||h_j||_2) > cosine for a j > i, h_i its activations on
    all inputs.
    Of two equal units one counts, of H equal ones H - 1. A unit that is zero on all inputs
    resembles none. Source: Joudaki et al. 2025, public code (0.95; bit flip 0.98).
    """
    numerics.check_number("cosine", cosine, high=1)

    def mark(group):
        sound = jnp.where(jnp.isfinite(group), group, 0.0)
        columns = sound / jax.vmap(numerics.scale_of, in_axes=1)(sound)[None]
        size = jnp.linalg.norm(columns, axis=0, keepdims=True)
        unit = columns / jnp.where(size > 0, size, 1)
        alike = jnp.matmul(unit.T, unit, precision="highest") > cosine
        return jnp.triu(alike, 1).any(axis=1)

    return _share(activations, mark)


def saturated_fraction(
    activations: PyTree, gradients: PyTree, share: float = 0.99, size: float = 1e-4
) -> Array:
    """Returns the fraction of units with |g| / max(E|h|, 1e-12) < `size` on more than `share` of
    the inputs, all groups pooled.

    `gradients` g are of a loss by each activation, a tree like `activations` h; E|h| is a unit's
    mean over the inputs. Source: Joudaki et al. 2025, public code (1e-4 and 0.99; bit flip 0.05 and
    0.8), where g is of the mean loss of a batch and so the smaller the larger the batch: times the
    number of examples it is that of each example's own loss. Raises ValueError for trees of
    different structure or shapes.
    """
    numerics.check_number("share", share, high=1)
    numerics.check_number("size", size)
    shapes = [_shapes(activations), _shapes(gradients)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"gradients have shapes {shapes[1]}, activations {shapes[0]}: allowed are trees of the "
            "same shapes."
        )
    both = jax.tree.map(lambda h, g: jnp.stack([h, g], axis=-2), activations, gradients)

    def mark(group):
        hidden, gradient = (group.reshape(-1, 2, group.shape[-1])[:, part] for part in (0, 1))
        usual = jnp.maximum(jnp.abs(hidden).mean(axis=0, keepdims=True), 1e-12)
        small = (jnp.abs(gradient) < size * usual).sum(axis=0, dtype=jnp.int32)
        return small > share * len(gradient) * (1 + _ROUNDING)

    return _share(both, mark)


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): jnp.shape(leaf) for path, leaf in leaves}


def frozen_fraction(
    preactivations: PyTree,
    activation: Callable[[Array], Array],
    share: float = 0.95,
    slope: float = 1e-3,
) -> Array:
    """Returns the fraction of units whose activation function has a derivative of magnitude below
    `slope` on at least `share` of the inputs, all groups pooled.

    Unit i counts if #{n: |phi'(z_i(x_n))| < slope} >= share N, z_i what goes into its activation
    function phi.
    Of such a unit next to nothing reaches the incoming weights. `activation` acts number by number;
    where it makes several numbers of one, as CReLU does, the largest derivative counts. Source:
    Joudaki et al. 2025, definition 4.1 with the thresholds of their public code for tanh and
    sigmoid; theirs for ReLU, a preactivation of at most 1e-6, is the same but for those 1e-6.
    """
    numerics.check_number("share", share, high=1)
    numerics.check_number("slope", slope)

    def mark(group):
        flat = (steepness(activation, group) < slope).sum(axis=0, dtype=jnp.int32)
        return flat >= share * len(group) * (1 - _ROUNDING)

    return _share(preactivations, mark)


def steepness(activation: Callable[[Array], Array], preactivations: Array) -> Array:
    """Returns |phi'(z)| of each number z of [N, H], the largest where phi makes several numbers of
    one, as CReLU does.
    """
    _, slopes = jax.jvp(activation, (preactivations,), (jnp.ones_like(preactivations),))
    count, units = preactivations.shape
    return jnp.abs(slopes).reshape(count, -1, units).max(axis=1)
