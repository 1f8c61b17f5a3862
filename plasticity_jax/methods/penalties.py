"""Penalties on the parameters."""

import jax
import jax.numpy as jnp

from plasticity_jax import registry
from plasticity_jax.methods.lifting import Penalty
from plasticity_jax.types import Array, Number, PyTree


def _squares(params: PyTree, on: str) -> Array:
    kept = [p for p in jax.tree.leaves(params) if on == "all" or p.ndim >= 2]
    return jnp.asarray(sum(jnp.sum(p**2) for p in kept))


def l2(*, strength: Number = 1e-3, on: str = "all") -> Penalty:
    """L2 regularization: loss + strength * sum p^2, of all parameters or (`on="matrices"`) of those with 2 or more axes.

    No factor 1/2, as Liu & Mou's code has it: PyTorch's weight_decay is 2 * strength. Optimizer moments see the sum of
    both gradients. Source: Krogh & Hertz 1991; Liu & Mou, section 5. Raises ValueError for another `on`.
    """
    registry.one_of("l2.on", on, ("all", "matrices"))

    def value(params, memory):
        del memory
        return _squares(params, on)

    return Penalty(value, strength)


def l2_init(*, strength: Number = 1e-2, on: str = "all") -> Penalty:
    """L2 towards initialization (regenerative): loss + strength * sum (p - p_0)^2, p_0 the parameters at `init`.

    No factor 1/2. The anchor is part of the optimizer state. Source: Kumar et al. 2023. Raises ValueError for another
    `on` than "all" or "matrices".
    """
    registry.one_of("l2_init.on", on, ("all", "matrices"))

    def value(params, anchor):
        return _squares(jax.tree.map(jnp.subtract, params, anchor), on)

    return Penalty(value, strength, init=lambda params: jax.tree.map(jnp.array, params))


def spectral(*, strength: Number = 1e-2, power: int = 2, target: str = "one", bias_power: int = 2) -> Penalty:
    """Spectral regularization: loss + strength * [sum_W (sigma(W)^k - tau^k)^2 + sum_b (||b||^2)^m].

    sigma is a matrix's largest singular value (convolutions as [out, in * height * width]), from one power iteration a
    step with carried vectors u, v, and the gradient is taken through u' W v. k = `power`, m = `bias_power`; tau = 1, or
    with `target="initial"` each matrix's sigma at initialization. Biases of layers count, parameters of normalisation
    layers do not. Source: Lewandowski et al. 2025 (tau = 1, k = m = 2); Liu & Mou's code for the MLP has target
    "initial" and m = 1. Raises ValueError for another `target`.
    """
    registry.one_of("spectral.target", target, ("one", "initial"))

    def init(params):
        matrices = _matrices(params)
        vectors = {
            path: _unit(jax.random.normal(jax.random.fold_in(jax.random.key(0), i), (w.shape[1],)))
            for i, (path, w) in enumerate(matrices.items())
        }
        vectors = jax.lax.fori_loop(0, 20, lambda _, vectors: _advanced(vectors, matrices), vectors)
        if target == "one":
            return vectors, {path: jnp.ones(()) for path in vectors}
        return vectors, {path: jnp.linalg.norm(matrices[path] @ v) for path, v in vectors.items()}

    def advance(memory, params):
        vectors, targets = memory
        return _advanced(vectors, _matrices(params)), targets

    def value(params, memory):
        vectors, targets = memory
        total = jnp.zeros(())
        for path, w in _matrices(params).items():
            v = vectors[path]
            u = jax.lax.stop_gradient(_unit(w @ v))
            total += (jnp.dot(u, w @ v) ** power - targets[path] ** power) ** 2
        for bias in _biases(params):
            total += jnp.sum(bias**2) ** bias_power
        return total

    return Penalty(value, strength, init, advance)


def _unit(v: Array) -> Array:
    return v / jnp.maximum(jnp.linalg.norm(v), 1e-12)


def _advanced(vectors: dict[str, Array], matrices: dict[str, Array]) -> dict[str, Array]:
    return {path: _unit(w.T @ _unit(w @ vectors[path])) for path, w in matrices.items()}


def _matrices(params: PyTree) -> dict[str, Array]:
    # a kernel [..., in, out] is the matrix [... * in, out]; singular values do not mind the transposition
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(path): p.reshape(-1, p.shape[-1]) for path, p in leaves if p.ndim >= 2}


def _biases(params: PyTree) -> list[Array]:
    """Returns the biases that sit beside a kernel; a normalisation's bias sits beside a scale."""
    if not isinstance(params, dict):
        return []
    own = [params["bias"]] if "kernel" in params and "bias" in params else []
    return own + [b for child in params.values() for b in _biases(child)]
