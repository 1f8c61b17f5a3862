"""Probes of a representation: one array of activations [N, ..., H] on a fixed batch."""

import jax.numpy as jnp

from plasticity_jax.types import Array


def representation_change(now: Array, before: Array) -> Array:
    """Returns the mean over inputs of ||h_now(x) - h_before(x)||_2 / ||h_before(x)||_2, [] >= 0.

    Inputs whose old representation is exactly zero (all units silent) have no ratio and are left out; NaN if none is
    left. Source: Liu & Mou, appendix C (formula re-derived); deviation: the exclusion.
    """
    now, before = now.reshape(len(now), -1), before.reshape(len(before), -1)
    size = jnp.linalg.norm(before, axis=1)
    ratio = jnp.linalg.norm(now - before, axis=1) / jnp.where(size > 0, size, 1.0)
    return jnp.where(size > 0, ratio, 0.0).sum() / (size > 0).sum()


def effective_rank(activations: Array) -> Array:
    """Returns exp(-sum p ln p), p = sigma / sum sigma over the singular values of [N, H], [] in [1, min(N, H)].

    0 if all activations are zero. Not centred; positions count as inputs. Source: Roy & Vetterli 2007.
    """
    matrix = activations.reshape(-1, activations.shape[-1])
    finite = jnp.isfinite(matrix).all()
    sigma = jnp.linalg.svd(jnp.where(finite, matrix, 0.0), compute_uv=False)
    p = sigma / jnp.maximum(sigma.sum(), jnp.finfo(sigma.dtype).tiny)
    entropy = -jnp.where(p > 0, p * jnp.log(jnp.where(p > 0, p, 1.0)), 0.0).sum()
    return jnp.where(finite, jnp.where(sigma.sum() > 0, jnp.exp(entropy), 0.0), jnp.nan)
