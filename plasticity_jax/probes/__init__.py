"""Probes: what is measured at the end of a task. A new one is one function of a Snapshot and one
line in PROBES.

The functions imported here take plain arguments (a loss, parameters, activations) and work on any
Flax model; the entries of PROBES apply them to a Snapshot and add the per-layer details.
Keyword-only parameters are options.

A number that depends on anything not finite is NaN: of a network that diverged nothing was
measured. Arguments that are none are refused with one sentence (ValueError).
"""

from typing import Annotated

import jax
import jax.numpy as jnp
import optax

from plasticity_jax.probes import numerics
from plasticity_jax.probes.curvature import (
    Ritz,
    hessian_ritz,
    hessian_top,
    hessian_vector_product,
    top_eigenvalue,
)
from plasticity_jax.probes.parameters import distance_from_init, gradient_norm, parameter_norm
from plasticity_jax.probes.representation import (
    effective_rank,
    feature_spectrum,
    representation_change,
)
from plasticity_jax.probes.units import (
    dormant_fraction,
    linearized_fraction,
    never_active_fraction,
    tau_dormant_fraction,
)
from plasticity_jax.types import Array, Metric, Snapshot

__all__ = [
    "PROBES",
    "Ritz",
    "distance_from_init",
    "dormant_fraction",
    "effective_rank",
    "feature_spectrum",
    "gradient_norm",
    "hessian_ritz",
    "hessian_top",
    "hessian_vector_product",
    "linearized_fraction",
    "never_active_fraction",
    "parameter_norm",
    "representation_change",
    "tau_dormant_fraction",
    "top_eigenvalue",
]

Measured = dict[str, Array]


def _units(snapshot: Snapshot) -> dict[str, Array]:
    return {group: h for group, h in snapshot.hidden.items() if group not in snapshot.linear}


def _hessian_top(
    snapshot: Snapshot, *, iterations: int = 12, tolerance: float = 1e-3
) -> Annotated[Measured, Metric(label="largest Hessian eigenvalue")]:
    """Largest eigenvalue of the loss Hessian by Lanczos; detail: residual bound."""
    ritz = hessian_ritz(snapshot.loss, snapshot.params, snapshot.key, iterations, tolerance)
    return {"": ritz.value, "residual": ritz.residual}


def _representation_change(snapshot: Snapshot) -> Measured:
    """Relative change of the last hidden layer since the end of the task before; per layer."""
    layers = {
        g: representation_change(h, snapshot.previous_hidden[g]) for g, h in snapshot.hidden.items()
    }
    return {"": list(layers.values())[-1], **layers}


def _dormant_fraction(
    snapshot: Snapshot, *, share: float = 0.01
) -> Annotated[Measured, Metric(label="dormant units", share=True)]:
    """Fraction of units positive on less than 1 % of the inputs; per layer."""
    units = _units(snapshot)
    return {
        "": dormant_fraction(units, share),
        **{g: dormant_fraction(h, share) for g, h in units.items()},
    }


def _never_active_fraction(
    snapshot: Snapshot, *, share: float = 1e-4
) -> Annotated[Measured, Metric(label="units that are never active", share=True)]:
    """Fraction of units positive on at most 0.01 % of the inputs, with fewer than 10,000 on none;
    per layer.
    """
    units = _units(snapshot)
    layers = {g: never_active_fraction(h, share) for g, h in units.items()}
    return {"": never_active_fraction(units, share), **layers}


def _tau_dormant_fraction(
    snapshot: Snapshot, *, tau: float = 0.1
) -> Annotated[Measured, Metric(label="τ-dormant units", share=True)]:
    """Fraction of units whose mean magnitude is at most tau of their layer's (Sokar et al.); per
    layer.
    """
    units = _units(snapshot)
    return {
        "": tau_dormant_fraction(units, tau),
        **{g: tau_dormant_fraction(h, tau) for g, h in units.items()},
    }


def _distance_from_init(
    snapshot: Snapshot,
) -> Annotated[Measured, Metric(label="distance from initial weights")]:
    """Euclidean distance of the parameters from their initial values; per layer, and relative to
    the initial norm.
    """
    layers = {k: distance_from_init(p, snapshot.initial[k]) for k, p in snapshot.params.items()}
    total = distance_from_init(snapshot.params, snapshot.initial)
    difference = jax.tree.map(jnp.subtract, snapshot.params, snapshot.initial)
    relative = optax.tree.norm(difference) / optax.tree.norm(snapshot.initial)
    return {"": total, "relative": numerics.if_finite(relative), **layers}


def _parameter_norm(snapshot: Snapshot) -> Measured:
    """Euclidean norm of the parameters; per layer."""
    return {
        "": parameter_norm(snapshot.params),
        **{k: parameter_norm(p) for k, p in snapshot.params.items()},
    }


def _gradient_norm(snapshot: Snapshot) -> Measured:
    """Euclidean norm of the gradient of the loss on the probe batch; per layer."""
    value, gradient = jax.value_and_grad(snapshot.loss)(snapshot.params)
    norms = {"": parameter_norm(gradient), **{k: parameter_norm(g) for k, g in gradient.items()}}
    return numerics.known(numerics.finite(snapshot.params, value), norms)


def _effective_rank(snapshot: Snapshot) -> Measured:
    """Effective rank of the last hidden layer's activations; per layer."""
    layers = {g: effective_rank(h) for g, h in snapshot.hidden.items()}
    return {"": list(layers.values())[-1], **layers}


def _linearized_fraction(
    snapshot: Snapshot, *, share: float = 0.99
) -> Annotated[Measured, Metric(label="linearized units", share=True)]:
    """Fraction of units whose preactivation is positive on at least 99 % of the inputs; per layer."""
    if snapshot.view is None:
        raise ValueError(
            "linearized_fraction needs a Snapshot with a view: allowed is any function."
        )
    found = snapshot.view(snapshot.params).preactivations
    layers = {group: linearized_fraction(before, share) for group, before in found.items()}
    return {"": linearized_fraction(found, share), **layers}


def _feature_spectrum(snapshot: Snapshot, *, count: int = 32) -> Measured:
    """Largest singular values of the last hidden layer over their sum: several numbers, kept apart."""
    return {"": feature_spectrum(list(snapshot.hidden.values())[-1], count)}


PROBES = {
    "hessian_top": _hessian_top,
    "representation_change": _representation_change,
    "dormant_fraction": _dormant_fraction,
    "never_active_fraction": _never_active_fraction,
    "tau_dormant_fraction": _tau_dormant_fraction,
    "distance_from_init": _distance_from_init,
    "parameter_norm": _parameter_norm,
    "gradient_norm": _gradient_norm,
    "effective_rank": _effective_rank,
    "linearized_fraction": _linearized_fraction,
    "feature_spectrum": _feature_spectrum,
}
# those that differentiate the gradient, which takes most memory
CURVATURE = frozenset({"hessian_top"})
