"""Penalties on the parameters."""

import re
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import optax

from plasticity_jax import registry, trees
from plasticity_jax.methods.lifting import Penalty
from plasticity_jax.types import Array, Number, PyTree

ON = ("all", "matrices", "not_norms", "not_biases")


def _squares(params: PyTree, on: str) -> Array:
    if on == "all":
        kept = jax.tree.leaves(params)
    elif on == "matrices":
        kept = [p for p in jax.tree.leaves(params) if p.ndim >= 2]
    else:
        kept = _named_otherwise(params, on)
    return jnp.asarray(sum(jnp.sum(p**2) for p in kept)) if kept else jnp.zeros(())


def _named_otherwise(params: PyTree, on: str) -> list[Array]:
    """The parameters but those of norms (what lies beside a scale), or but those called a bias."""
    named = trees.named(params)
    scaled = {name[:-1] for name in named if name[-1] == "scale"}
    if on == "not_norms":
        return [p for name, p in named.items() if name[:-1] not in scaled]
    return [p for name, p in named.items() if name[-1] not in ("bias", "b")]


@registry.checked
def l2(*, strength: Number = 1e-3, on: str = "all") -> Penalty:
    """L2 regularization: loss + strength * sum p^2, of all parameters or (`on="matrices"`) of those
    with 2 or more axes.

    Also `on="not_norms"`, all but scale and offset of norms (what lies beside a parameter called
    scale), and `on="not_biases"`, all but what is called a bias, offsets of norms too. No factor
    1/2, as Liu & Mou's code has it: PyTorch's weight_decay is 2 * strength. Optimizer moments see
    the sum of both gradients. Source: Krogh & Hertz 1991; Liu & Mou 2026, section 5. Raises
    ValueError for another `on`.

    >>> optimizer = pj.methods.l2(strength=0.5)(optax.sgd(1.0))
    >>> params = jnp.array([1.0, -2.0])
    >>> updates, state = optimizer.update(jnp.zeros(2), optimizer.init(params), params)
    >>> updates.tolist()  # -2 * strength * params
    [-1.0, 2.0]
    """
    registry.one_of("l2.on", on, ON)

    def value(params, memory):
        del memory
        return _squares(params, on)

    return Penalty(value, strength)


@registry.checked
def l2_init(*, strength: Number = 1e-2, on: str = "all") -> Penalty:
    """L2 towards initialization (regenerative): loss + strength * sum (p - p_0)^2, p_0 the
    parameters at `init`.

    No factor 1/2. The anchor is part of the optimizer state. Source: Kumar et al. 2023. Raises
    ValueError for another `on` than "all" or "matrices".
    """
    registry.one_of("l2_init.on", on, ("all", "matrices"))

    def value(params, anchor):
        return _squares(jax.tree.map(jnp.subtract, params, anchor), on)

    return Penalty(value, strength, init=lambda params: jax.tree.map(jnp.array, params))


@registry.checked
def spectral(
    *, strength: Number = 1e-2, power: int = 2, target: str = "one", bias_power: int = 2
) -> Penalty:
    """Spectral regularization: loss + strength * [sum_W (sigma(W)^k - tau^k)^2 + sum_b
    (||b||^2)^m].

    sigma is a matrix's largest singular value (convolutions as [out, in * height * width]), from
    one power iteration a step with carried vectors u, v, and the gradient is taken through u' W v.
    k = `power`, m = `bias_power`; tau = 1, or with `target="initial"` each matrix's sigma at
    initialization. Biases of layers count, parameters of normalization layers do not. Source:
    Lewandowski et al. 2025 (tau = 1, k = m = 2); Liu & Mou's code for the MLP has target "initial"
    and m = 1.

    Any container will do. Matrices are parameters of 2 or more axes, kernels [..., in, out]. A bias
    lies beside a matrix and is called "bias" or "b", or is the one vector there that could be (in a
    sequence: the one right after its matrix); or it lies apart, where only a container called
    "bias" or "b" tells its path from that of its matrix. What else lies beside no matrix belongs to
    a normalization, but a bias by name without a scale only in a container that is called a norm.
    Where a bias cannot be told, `init` and `update` raise ValueError, as does another `target`, or
    a power < 1.
    """
    registry.one_of("spectral.target", target, ("one", "initial"))
    for name, given in (("power", power), ("bias_power", bias_power)):
        if given < 1:
            raise ValueError(f"spectral.{name} is {given}: allowed are 1 or more.")

    def init(params):
        matrices, _ = _layers(params)
        if not matrices:
            # (leaves, which optax.tree.map_params, whose placeholder has no matrix, takes for any
            # memory)
            return jnp.zeros(0), jnp.zeros(0)
        vectors = {
            path: _unit(
                jax.random.normal(
                    jax.random.fold_in(jax.random.key(0), i), (w.shape[1],), _float(w)
                )
            )
            for i, (path, w) in enumerate(matrices.items())
        }
        vectors = jax.lax.fori_loop(0, 20, lambda _, vectors: _advanced(vectors, matrices), vectors)
        if target == "one":
            return vectors, {path: jnp.ones((), v.dtype) for path, v in vectors.items()}
        return vectors, {path: jnp.linalg.norm(matrices[path] @ v) for path, v in vectors.items()}

    def advance(memory, params):
        vectors, targets = memory
        matrices, _ = _layers(params)
        return (_advanced(vectors, matrices), targets) if matrices else memory

    def value(params, memory):
        vectors, targets = memory
        matrices, biases = _layers(params)
        total = jnp.zeros(())
        for path, w in matrices.items():
            v = vectors[path]
            u = jax.lax.stop_gradient(_unit(w @ v))
            total += (jnp.dot(u, w @ v) ** power - targets[path] ** power) ** 2
        for bias in biases:
            total += jnp.sum(bias**2) ** bias_power
        return total

    return Penalty(value, strength, init, advance)


def _unit(v: Array) -> Array:
    return v / _length(v)


def _length(v: Array) -> Array:
    return jnp.maximum(jnp.linalg.norm(v), 1e-12)


def _advanced(vectors: dict[str, Array], matrices: dict[str, Array]) -> dict[str, Array]:
    """The right singular vectors v after an iteration: W' u with u = W v / |W v|."""

    def advanced(w: Array, v: Array) -> Array:
        image = w @ v
        # (divided after the product: XLA would draw the division into it, and make of both a loop
        # that reads columns instead of a call of its fast product)
        return _unit((image @ w) / _length(image))

    return {path: advanced(w, vectors[path]) for path, w in matrices.items()}


def _float(w: Array) -> Any:
    # half precision would make of one power iteration a step a vector that no longer moves
    return jnp.promote_types(w.dtype, jnp.float32)


# names of biases, of scales that are no biases, of what is a kernel though a mask hides it, and of
# normalizations
WORD = r"(.*[_\W])?bias(es)?\d*([_\W].*)?|(?-i:.*[a-z0-9]Bias(es)?\d*)"
BIAS_WORD = re.compile(WORD, re.IGNORECASE)
BIAS = re.compile(rf"{WORD}|b_?\d*", re.IGNORECASE)
SCALE = re.compile(r"scales?|gains?|gammas?|g", re.IGNORECASE)
KERNEL = re.compile(r"kernels?|w_?\d*", re.IGNORECASE)
NORM = re.compile(r".*norm.*|[blg]n(_?\d+)?", re.IGNORECASE)


class _Container(NamedTuple):
    """The parameters that lie side by side.

    Attributes:
      path: where.
      beside: {name: parameter, or optax.MaskedNode where a mask hides one}.
    """

    path: trees.Path
    beside: dict[str, Any]

    def __str__(self):
        return "/".join(self.path) or "the tree"


def _layers(params: PyTree) -> tuple[dict[str, Array], list[Array]]:
    """Returns ({jax's path: matrix [... * in, out]}, biases); singular values do not mind the
    transposition.
    """
    leaves = trees.named(params, masked=True)
    containers: dict[trees.Path, dict[str, Any]] = {}
    for path, leaf in leaves.items():
        containers.setdefault(path[:-1], {})[path[-1]] = leaf
    widths = {leaf.shape[-1] for leaf in leaves.values() if _is_matrix(leaf)}
    apart = [path for path in leaves if _is_named_apart(path, containers[path[:-1]])]
    partners = {path: _partners(path, leaves) for path in apart}
    told = {path: _is_bias_apart(path, leaves[path], partners[path]) for path in apart}
    scales: set[trees.Path] = set()
    for found in partners.values():
        scales |= {path for path, (_, partner) in found.items() if _is_vector(partner)}
    ours = {path for path in apart if told[path]}
    for path, beside in containers.items():
        known = [
            name
            for name in beside
            if (*path, name) in scales or told.get((*path, name)) is not None
        ]
        left = {name: p for name, p in beside.items() if name not in known}
        ours |= {(*path, name) for name in _bias_names(_Container(path, left), widths)}
    for path in apart:
        by_name = BIAS.fullmatch(path[-1]) or any(map(BIAS_WORD.fullmatch, path))
        if told[path] is None and path not in ours and by_name:
            _refused(_Container(path[:-1], {}), [path[-1]])
    matrices = {}
    for (path, leaf), key in zip(leaves.items(), trees.keys(params, masked=True), strict=True):
        if _is_matrix(leaf) and path not in ours:
            matrices[key] = leaf.reshape(-1, leaf.shape[-1])
    return matrices, [leaf for path, leaf in leaves.items() if path in ours]


def _is_named_apart(path: trees.Path, beside: dict[str, Any]) -> bool:
    """Whether a leaf is called a bias by some name of its path, but lies beside no kernel and no
    scale.
    """
    p = beside[path[-1]]
    if _is_masked(p) or not p.ndim:
        return False
    # (a matrix is one if it can be told: {"bias": {"embedding": [buckets, heads]}} is none)
    if any(
        (_is_matrix(q) and q is not p) or SCALE.fullmatch(n) or KERNEL.fullmatch(n)
        for n, q in beside.items()
    ):
        return False
    return any(map(BIAS.fullmatch, path[:-1])) or (
        _is_vector(p) and all(map(BIAS.fullmatch, beside))
    )


def _partners(path: trees.Path, leaves: dict[trees.Path, Any]) -> dict[trees.Path, tuple[str, Any]]:
    """What has the path of a bias but for the name of a bias in it: {path: (that name, leaf)}.

    So {"kernels": {"one": matrix}} is to {"biases": {"one": b}}.
    """
    found = {}
    for i, name in enumerate(path[:-1]):
        if BIAS.fullmatch(name):
            rest = path[:i], path[i + 1 :]
            beside = [k for k in leaves if (k[:i], k[i + 1 :]) == rest and not BIAS.fullmatch(k[i])]
            found |= {k: (k[i], leaves[k]) for k in beside}
    return found


def _is_bias_apart(
    path: trees.Path, p: Array, partners: dict[trees.Path, tuple[str, Any]]
) -> bool | None:
    """Whether a leaf that lies apart is a bias of a layer, None if it cannot be told."""
    others = list(partners.values())
    if _is_matrix(p):
        return any(
            _is_matrix(q) and q.ndim > p.ndim and q.shape[-p.ndim :] == p.shape for _, q in others
        )
    if any(KERNEL.fullmatch(name) if _is_masked(q) else _is_matrix(q) for name, q in others):
        return True
    scales = any(SCALE.fullmatch(name) or not _is_masked(q) for name, q in others)
    return False if scales or any(map(NORM.fullmatch, path[:-1])) else None


def _bias_names(container: _Container, widths: set[int]) -> list[str]:
    """Returns which of what lies in one container are biases; `widths` are the outputs of all
    matrices of the tree.
    """
    beside = container.beside
    called = [name for name, p in beside.items() if BIAS.fullmatch(name) and not _is_masked(p)]
    scales = [name for name in beside if SCALE.fullmatch(name)]
    others = {name: p for name, p in beside.items() if name not in called and name not in scales}
    matrices = {name: p for name, p in others.items() if _is_matrix(p)}
    hidden = [name for name, p in others.items() if _is_masked(p) and not BIAS.fullmatch(name)]
    if called and (matrices or hidden):
        several = scales and len(matrices) + len(hidden) + len(called) > 2
        unsure = not matrices and not any(KERNEL.fullmatch(name) for name in hidden)
        return _refused(container, called) if several or unsure else called
    if all(name.isdecimal() for name in beside):
        return _biases_of_a_sequence(container, widths)
    vectors = {name: p for name, p in others.items() if _is_vector(p)}
    fitting = [name for name, p in vectors.items() if hidden or _fits(p, matrices)]
    if fitting and (hidden or len(fitting) > 1 or len(matrices) > 1):
        return _refused(container, fitting)
    return fitting


def _biases_of_a_sequence(container: _Container, widths: set[int]) -> list[str]:
    path, beside = container
    matrices = {name: p for name, p in beside.items() if _is_matrix(p)}
    vectors = {name: p for name, p in beside.items() if _is_vector(p)}
    if not matrices and path and BIAS.fullmatch(path[-1]):
        return list(vectors)
    hidden = any(_is_masked(p) for p in beside.values())
    if not hidden and len(matrices) == len(vectors) == 1:
        return [name for name, p in vectors.items() if _fits(p, matrices)]
    found = []
    for name, p in vectors.items():
        before = str(int(name) - 1)
        if before in matrices and _fits(p, {before: matrices[before]}):
            found.append(name)
        elif _is_masked(beside.get(before)) or p.shape[0] in widths:
            _refused(container, [name])
    return found


def _refused(container: _Container, names: list[str]) -> NoReturn:
    raise ValueError(
        f"spectral cannot tell whether {', '.join(names)} in {container} is a bias of a layer: "
        "call it 'bias' beside its "
        "'kernel', in a container of that layer alone."
    )


def _fits(vector: Array, matrices: dict[str, Array]) -> bool:
    return any(vector.shape[0] == matrix.shape[-1] for matrix in matrices.values())


def _is_matrix(p: Any) -> bool:
    return not _is_masked(p) and p.ndim >= 2


def _is_vector(p: Any) -> bool:
    return not _is_masked(p) and p.ndim == 1


def _is_masked(p: Any) -> bool:
    return isinstance(p, optax.MaskedNode)
