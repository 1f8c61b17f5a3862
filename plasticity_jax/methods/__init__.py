"""Methods: interventions against loss of plasticity. A new one is one factory and one line in
METHODS.
"""

from collections.abc import Mapping
from typing import Any

from plasticity_jax import registry
from plasticity_jax.methods.constraints import weight_norm_constraint
from plasticity_jax.methods.features import feature_norm, gradient_penalty, infer
from plasticity_jax.methods.lifting import (
    Boundary,
    Penalty,
    Rewrite,
    Term,
    at_boundary,
    begin,
    compose,
    every,
    extended,
    objective,
)
from plasticity_jax.methods.noise import gradient_noise
from plasticity_jax.methods.penalties import l2, l2_init, spectral
from plasticity_jax.methods.recycling import redo
from plasticity_jax.methods.replacement import continual_backprop
from plasticity_jax.methods.resets import (
    clip,
    full_reset,
    head_reset,
    optimizer_reset,
    shrink_and_perturb,
)
from plasticity_jax.types import Method, Structure

__all__ = [
    "METHODS",
    "Boundary",
    "Penalty",
    "Rewrite",
    "Term",
    "at_boundary",
    "begin",
    "build",
    "clip",
    "compose",
    "continual_backprop",
    "every",
    "feature_norm",
    "full_reset",
    "gradient_noise",
    "gradient_penalty",
    "head_reset",
    "infer",
    "l2",
    "l2_init",
    "names",
    "none",
    "objective",
    "optimizer_reset",
    "parts",
    "redo",
    "shrink_and_perturb",
    "spectral",
    "weight_norm_constraint",
]


def none() -> Method:
    """No intervention: the optimizer as it is."""
    return extended


def names(method: str) -> tuple[str, ...]:
    """Returns the parts of a composition "a+b" in the order in which it is built.

    What wraps the bare optimizer comes first, then rewrites as written, then penalties in
    alphabetical order, because the order in which they are added is of no consequence. "none" drops
    out of a composition. Raises ValueError for an unknown part or one given twice.
    """
    if not isinstance(method, str):
        registry.lookup(METHODS, "method", method)
    parts = [part for part in method.split("+") if part != "none"] or ["none"]
    for part in parts:
        registry.lookup(METHODS, "method", part)
        if parts.count(part) > 1:
            raise ValueError(
                f"method {method!r} has {part!r} twice: each method may be given once."
            )
    kind = {part: registry.returned(METHODS[part]) for part in parts}
    penalties = sorted(part for part in parts if kind[part] is Penalty)
    rewrites = [part for part in parts if kind[part] in (Rewrite, Rewrite | Boundary)]
    others = [part for part in parts if part not in penalties and part not in rewrites]
    return (*others, *rewrites, *penalties)


def build(method: str, structure: Structure, settings: Mapping[str, Any]) -> Method:
    """Returns the composition `method` ("redo+l2") with the numbers and options in `settings`
    ("redo.threshold": 0.1).
    """
    return compose(*parts(method, structure, settings))


def parts(method: str, structure: Structure, settings: Mapping[str, Any]) -> list[Method]:
    """Returns the methods of a composition in the order of `names`, each with its settings.

    Those that are a `Boundary` also act through `begin`, and those that are a `Term` through
    `objective`: a loop of one's own calls these two.
    """
    given = structure._asdict()
    made = []
    for part in names(method):
        one = registry.make(METHODS, "method", part, settings, **given)
        if not callable(one):
            raise ValueError(
                f"method {part!r} makes {registry.shown(one)}: allowed is a Method, such as a "
                "Rewrite, a Penalty, a Term or a function of an optimizer."
            )
        made.append(one)
    return made


METHODS = {
    "none": none,
    "l2": l2,
    "l2_init": l2_init,
    "spectral": spectral,
    "shrink_and_perturb": shrink_and_perturb,
    "redo": redo,
    "continual_backprop": continual_backprop,
    "optimizer_reset": optimizer_reset,
    "clip": clip,
    "head_reset": head_reset,
    "full_reset": full_reset,
    "gradient_noise": gradient_noise,
    "feature_norm": feature_norm,
    "infer": infer,
    "gradient_penalty": gradient_penalty,
    "weight_norm_constraint": weight_norm_constraint,
}
