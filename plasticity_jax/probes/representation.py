"""Probes of a representation: one array of activations [N, ..., H] on a fixed batch.

Each is NaN where an activation is not finite. Results are float32, or float64 from float64.
"""

import jax
import jax.numpy as jnp

from plasticity_jax import registry
from plasticity_jax.probes import numerics
from plasticity_jax.types import Array


def representation_change(now: Array, before: Array) -> Array:
    """Returns the mean over inputs of ||h_now(x) - h_before(x)||_2 / ||h_before(x)||_2, [] >= 0.

    Inputs whose old representation is exactly zero (all units silent) have no ratio and are left
    out; NaN if none is left. Source: Liu & Mou 2026, appendix C (formula re-derived); deviation:
    the exclusion. Raises ValueError for arrays of different shapes.

    >>> before = jnp.array([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0]])
    >>> now = jnp.array([[3.0, 4.0], [1.0, 2.0], [5.0, 5.0]])
    >>> float(pj.probes.representation_change(now, before))  # of 0 and 2, the third is left out
    1.0
    """
    now, before = numerics.activations("now", now), numerics.activations("before", before)
    if now.shape != before.shape:
        raise ValueError(
            f"now has shape {now.shape}, before {before.shape}: allowed are two arrays of the same "
            "shape."
        )
    now, before = now.reshape(len(now), -1), before.reshape(len(before), -1)
    size = jnp.linalg.norm(before, axis=1)
    silent = size == 0
    ratio = jnp.linalg.norm(now - before, axis=1) / jnp.where(silent, 1.0, size)
    # (what is left out counts as 0 times itself, which is not 0 if it is not finite)
    mean = jnp.where(silent, 0.0 * ratio, ratio).sum() / (~silent).sum()
    return numerics.if_finite(mean)


@jax.custom_batching.sequential_vmap
def _singular_values(matrix: Array) -> Array:
    """Singular values of one matrix [N, H]; of several one after another, also under vmap.

    LAPACK's routine for many matrices at once shares them out over the threads of the process. On a
    CPU with several devices each of them waited for threads that the others held, and a run stood
    still.
    """
    # (else [N, N] is set aside for vectors that nobody asked for: 262 GB for 250 images of 32x32)
    return jnp.linalg.svd(matrix, full_matrices=False, compute_uv=False)


def _shares(activations: Array, centred: bool = False) -> tuple[Array, Array]:
    """Singular values of [N, ..., H] as rows over their sum, 0 of zeros, and whether all is finite;
    if `centred` of what is left when each unit's mean is taken away.
    """
    activations = numerics.activations("activations", activations)
    matrix = activations.reshape(-1, activations.shape[-1])
    finite = numerics.finite(matrix)
    matrix = jnp.where(finite, matrix, 0.0)
    matrix = matrix / numerics.scale_of(matrix)
    if centred:
        matrix = matrix - matrix.mean(axis=0, keepdims=True)
    sigma = _singular_values(matrix)
    return sigma / jnp.maximum(sigma.sum(), jnp.finfo(sigma.dtype).tiny), finite


def largest_singular_value(activations: Array) -> Array:
    """Returns the largest singular value of [N, ..., H] as rows, [] >= 0. Not centered."""
    activations = numerics.activations("activations", activations)
    matrix = activations.reshape(-1, activations.shape[-1])
    finite = numerics.finite(matrix)
    scale = numerics.scale_of(matrix)
    sigma = _singular_values(jnp.where(finite, matrix, 0.0) / scale)
    return numerics.known(finite, sigma[0] * scale)


def feature_spectrum(activations: Array, count: int = 32) -> Array:
    """Returns [count] the largest singular values of [N, H] over their sum, in falling order.

    p_i = sigma_i / sum_j sigma_j.
    0 where there are fewer, or all activations are zero. Not centered; positions count as inputs.
    The numbers p of `effective_rank`. Source: Roy & Vetterli 2007.
    """
    shares, finite = _shares(activations)
    return numerics.known(finite, jnp.pad(shares, (0, max(0, count - len(shares))))[:count])


def output_shares(
    features: Array, kernel: Array, bias: Array | None, outputs: Array
) -> tuple[Array, Array]:
    """Returns the shares of the outputs' squared size that the features' top singular direction and
    the bias carry, [] and [].

    Outputs f [N, C] are features [N, H] times `kernel` [H, C], plus `bias` [C]. With u, v the first
    singular vectors of the features, the first is |u u' features kernel|^2 / |f|^2, the second
    N |bias|^2 / |f|^2; they need not add up to 1. 0 where all outputs are zero. Source: Lyle et
    al. 2024, "Disentangling the Causes of Plasticity Loss", appendix (singular values); the share
    is ours.
    """
    sound = numerics.finite(features, kernel, outputs, () if bias is None else bias)
    scale = numerics.scale_of(features)
    matrix = jnp.where(sound, features, 0.0) / scale
    direction = _first_direction(matrix)  # [H]
    along = matrix @ direction
    top = scale * (along[:, None] * (direction @ kernel)[None])
    total = (outputs**2).sum()
    whole = jnp.where(total > 0, total, 1.0)
    size = jnp.zeros(()) if bias is None else len(outputs) * (bias**2).sum()
    return numerics.known(sound, ((top**2).sum() / whole, size / whole))


@jax.custom_batching.sequential_vmap
def _first_direction(matrix: Array) -> Array:
    """The first right singular vector of one matrix [N, H]; of several one after another."""
    return jnp.linalg.eigh(matrix.T @ matrix)[1][:, -1]


def effective_rank(activations: Array) -> Array:
    """Returns exp(-sum p ln p), p = sigma / sum sigma over the singular values of [N, H], [] in [1,
    min(N, H)].

    0 if all activations are zero. Not centered; positions count as inputs. Source: Roy & Vetterli
    2007.

    >>> rank = jax.jit(pj.probes.effective_rank)
    >>> round(float(rank(jnp.eye(4, 3))), 2), round(float(rank(jnp.ones((4, 3)))), 2)
    (3.0, 1.0)
    """
    p, finite = _shares(activations)
    entropy = -jnp.where(p > 0, p * jnp.log(jnp.where(p > 0, p, 1.0)), 0.0).sum()
    return numerics.known(finite, jnp.where(p.max() > 0, jnp.exp(entropy), 0.0))


def participation_ratio(activations: Array) -> Array:
    """Returns (tr C)^2 / tr C^2 of the covariance C of the units over [N, H], [] in [1, min(N, H)].

    0 if no unit varies. Positions count as inputs. The same number is called stable rank by Joudaki
    et al. 2025, who write it ||H||_F^4 / tr((H'H)^2) of centered H. Source: Gao et al. 2017.
    """
    p, finite = _shares(activations, centred=True)
    squares = p**2
    largest = jnp.maximum((squares**2).sum(), jnp.finfo(p.dtype).tiny)
    return numerics.known(finite, squares.sum() ** 2 / largest)


def stable_rank(activations: Array) -> Array:
    """Returns ||A||_F^2 / ||A||_2^2 of [N, H], [] in [1, min(N, H)].

    0 if all activations are zero. Not centered; positions count as inputs. Source: Rudelson &
    Vershynin 2007; some papers call other numbers so, see `participation_ratio`.
    """
    p, finite = _shares(activations)
    largest = jnp.maximum(p.max() ** 2, jnp.finfo(p.dtype).tiny)
    return numerics.known(finite, (p**2).sum() / largest)


def hard_rank(activations: Array, cutoff: float = 1e-5) -> Array:
    """Returns how many singular values of [N, H] are above `cutoff` times the largest, [] float.

    #{i: sigma_i > cutoff sigma_1}.
    0 if all activations are zero. Not centered; positions count as inputs. Source: Joudaki et al.
    2025, figure A.1, with a cutoff of 1e-6, which needs float64: what float32 leaves of a zero is
    about as large.
    """
    numerics.check_number("cutoff", cutoff, high=1)
    p, finite = _shares(activations)
    return numerics.known(finite, (p > cutoff * p.max()).sum(dtype=p.dtype))


def clone_r2(activations: Array, factor: int = 2) -> Array:
    """Returns how much of the variance between units is that between groups of clones, [] <= 1.

    R2 = 1 - sum (h - mean of its group)^2 / sum (h - mean of all units)^2, sums over inputs and
    units; 1 where no two units differ. Groups are `factor` units next to each other. Positions
    count as inputs. Source: Joudaki et al. 2025, section 4; what the total is about, the mean of
    all units on the same input, is ours. Raises ValueError for a `factor` that does not divide the
    number of units or is below 2.
    """
    groups, finite = _groups(activations, factor)
    within = ((groups - groups.mean(axis=2, keepdims=True)) ** 2).sum()
    total = ((groups - groups.mean(axis=(1, 2), keepdims=True)) ** 2).sum()
    return numerics.known(finite, 1 - within / jnp.where(total > 0, total, 1))


def clone_score(activations: Array, factor: int = 2) -> Array:
    """Returns 1 - mean of (deviation within a group of clones / deviation between all units), [].

    Means are over inputs and groups; deviations, not variances, as in the public code of Joudaki et
    al. 2025. 1 where no two units differ. Raises ValueError as `clone_r2` does.
    """
    groups, finite = _groups(activations, factor)
    total = groups.std(axis=(1, 2))[:, None]
    ratio = groups.std(axis=2) / jnp.where(total > 0, total, 1)
    return numerics.known(finite, 1 - ratio.mean())


def _groups(activations: Array, factor: int) -> tuple[Array, Array]:
    """Activations as [N, groups, factor], zeros if not all are finite, and whether they are."""
    activations = numerics.activations("activations", activations)
    units = activations.shape[-1]
    number = registry.whole("factor", factor, 2)
    if units % number:
        raise ValueError(
            f"factor is {number}: allowed are whole numbers from 2 that divide the {units} units."
        )
    finite = numerics.finite(activations)
    activations = jnp.where(finite, activations, 0.0)
    scaled = activations / numerics.scale_of(activations)
    return scaled.reshape(-1, units // number, number), finite
