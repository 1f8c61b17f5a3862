"""Probes: what is measured at the end of a task. A new one is one function of a Snapshot and one
line in PROBES.

The functions imported here take plain arguments (a loss, parameters, activations) and work on any
Flax model; the entries of PROBES apply them to a Snapshot and add the per-layer details.
Keyword-only parameters are options.

A number that depends on anything not finite is NaN: of a network that diverged nothing was
measured. Arguments that are none are refused with one sentence (ValueError).
"""

from collections.abc import Callable
from typing import Annotated

import jax
import jax.numpy as jnp
import optax

from plasticity_jax import registry
from plasticity_jax.probes import numerics, taps, traps
from plasticity_jax.probes.curvature import (
    Ritz,
    hessian_ritz,
    hessian_top,
    hessian_vector_product,
    top_eigenvalue,
)
from plasticity_jax.probes.kernel import (
    empirical_ntk,
    kernel_change,
    kernel_summary,
    layerwise_ntk,
)
from plasticity_jax.probes.pairs import Pair, nearest_pair
from plasticity_jax.probes.parameters import distance_from_init, gradient_norm, parameter_norm
from plasticity_jax.probes.preactivations import (
    gradient_alignment,
    histogram,
    linear_fraction,
    moments,
)
from plasticity_jax.probes.representation import (
    clone_r2,
    clone_score,
    effective_rank,
    feature_spectrum,
    hard_rank,
    largest_singular_value,
    output_shares,
    participation_ratio,
    representation_change,
    stable_rank,
)
from plasticity_jax.probes.units import (
    dead_fraction,
    dormant_fraction,
    duplicate_fraction,
    frozen_fraction,
    linearized_fraction,
    never_active_fraction,
    saturated_fraction,
    tau_dormant_fraction,
)
from plasticity_jax.types import Array, Metric, PyTree, Snapshot, View

__all__ = [
    "PROBES",
    "Pair",
    "Ritz",
    "clone_r2",
    "clone_score",
    "dead_fraction",
    "distance_from_init",
    "dormant_fraction",
    "duplicate_fraction",
    "effective_rank",
    "empirical_ntk",
    "feature_spectrum",
    "frozen_fraction",
    "gradient_alignment",
    "gradient_norm",
    "hard_rank",
    "hessian_ritz",
    "hessian_top",
    "hessian_vector_product",
    "histogram",
    "kernel_change",
    "kernel_summary",
    "largest_singular_value",
    "layerwise_ntk",
    "linear_fraction",
    "linearized_fraction",
    "moments",
    "nearest_pair",
    "never_active_fraction",
    "output_shares",
    "parameter_norm",
    "participation_ratio",
    "representation_change",
    "saturated_fraction",
    "stable_rank",
    "tau_dormant_fraction",
    "top_eigenvalue",
]

Measured = dict[str, Array]


def _units(snapshot: Snapshot) -> dict[str, Array]:
    return {group: h for group, h in snapshot.hidden.items() if group not in snapshot.linear}


def _hessian_top(
    snapshot: Snapshot, *, iterations: int = 12, tolerance: float = 1e-3
) -> Annotated[Measured, Metric(label="largest Hessian eigenvalue")]:
    """Largest eigenvalue of the loss Hessian by Lanczos; detail: residual bound.

    max over v of v'Hv / v'v, H the second derivatives of the mean loss of the probe batch.
    """
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


def _layers(params: PyTree) -> dict[str, PyTree]:
    """The first level of a parameter tree, by name; by place where it is a sequence."""
    children = params.items() if hasattr(params, "items") else enumerate(params)
    return {str(name): child for name, child in children}


def _distance_from_init(
    snapshot: Snapshot,
) -> Annotated[Measured, Metric(label="distance from initial weights")]:
    """Euclidean distance of the parameters from their initial values; per layer, and relative to
    the initial norm.
    """
    initial = _layers(snapshot.initial)
    layers = {k: distance_from_init(p, initial[k]) for k, p in _layers(snapshot.params).items()}
    total = distance_from_init(snapshot.params, snapshot.initial)
    difference = jax.tree.map(jnp.subtract, snapshot.params, snapshot.initial)
    relative = optax.tree.norm(difference) / optax.tree.norm(snapshot.initial)
    return {"": total, "relative": numerics.if_finite(relative), **layers}


def _parameter_norm(snapshot: Snapshot) -> Measured:
    """Euclidean norm of the parameters, ||p||_2 = sqrt(sum p^2); per layer."""
    return {
        "": parameter_norm(snapshot.params),
        **{k: parameter_norm(p) for k, p in _layers(snapshot.params).items()},
    }


def _gradient_norm(snapshot: Snapshot) -> Measured:
    """Euclidean norm of the gradient of the loss on the probe batch; per layer.

    ||dL/dp||_2 = sqrt(sum (dL/dp)^2), L the mean loss of the batch.
    """
    value, gradient = jax.value_and_grad(snapshot.loss)(snapshot.params)
    layers = {k: parameter_norm(g) for k, g in _layers(gradient).items()}
    norms = {"": parameter_norm(gradient), **layers}
    return numerics.known(numerics.finite(snapshot.params, value), norms)


def _effective_rank(snapshot: Snapshot) -> Measured:
    """Effective rank of the last hidden layer's activations; per layer."""
    layers = {g: effective_rank(h) for g, h in snapshot.hidden.items()}
    return {"": list(layers.values())[-1], **layers}


def _linearized_fraction(
    snapshot: Snapshot, *, share: float = 0.99
) -> Annotated[Measured, Metric(label="linearized units", share=True)]:
    """Fraction of units whose preactivation is positive on at least 99 % of the inputs; per layer.

    The detail `line` is of units that a straight line fits, whatever their activation and on
    whichever side of 0 they are, also per layer.
    """
    view = _view(snapshot, "linearized_fraction")(snapshot.params)
    found = view.preactivations
    layers = {group: linearized_fraction(before, share) for group, before in found.items()}
    hidden = {group: view.hidden[group] for group in found}
    lines = {f"line/{g}": linear_fraction(hidden[g], before) for g, before in found.items()}
    return {
        "": linearized_fraction(found, share),
        "line": linear_fraction(hidden, found),
        **layers,
        **lines,
    }


def _view(snapshot: Snapshot, probe: str) -> Callable[..., View]:
    if snapshot.view is None:
        raise ValueError(f"{probe} needs a Snapshot with a view: allowed is any function.")
    return snapshot.view


def _feature_spectrum(snapshot: Snapshot, *, count: int = 32) -> Measured:
    """Largest singular values of the last hidden layer over their sum: several numbers, kept apart.

    Details: the largest itself; of networks that end in a dense layer, the shares of the outputs
    that the first singular direction of its inputs and the bias carry.
    """
    last = list(snapshot.hidden.values())[-1]
    found = {"": feature_spectrum(last, count), "largest": largest_singular_value(last)}
    if snapshot.view is None:
        return found
    view = snapshot.view

    def outputs(params: PyTree) -> Array:
        return view(params).outputs

    made, seen = taps.tapped(outputs, snapshot.params)
    layers = [tap for tap in seen.values() if "kernel" in tap.parameters]
    if not layers or not layers[-1].dense or layers[-1].after.shape != made.shape or made.ndim != 2:
        return found
    head = layers[-1]
    bias = head.parameters.get("bias")
    direction, offset = output_shares(head.before, head.parameters["kernel"], bias, made)
    return {**found, "top_direction": direction, "bias": offset}


def _preactivation(snapshot: Snapshot, *, bins: int = 40, edge: float = 10.0) -> Measured:
    """Mean over units of the mean preactivation on the inputs; its deviations, histogram, layers.

    mean_i m_i, m_i = mean_x z_i(x), with z_i(x) what goes into unit i's activation function on
    input x. Details: `size` = mean_i |m_i|; `deviation` = mean_i sqrt(mean_x (z_i(x) - m_i)^2);
    `histogram` [bins], the shares of units by their m_i, from -edge to edge. Source: Lyle et al.
    2024.
    """
    found = _view(snapshot, "preactivation")(snapshot.params).preactivations
    means, deviations = moments(found)
    layers = {group: moments(before)[0].mean() for group, before in found.items()}
    return {
        "": means.mean(),
        "size": jnp.abs(means).mean(),
        "deviation": deviations.mean(),
        "histogram": histogram(means, bins, edge),
        **layers,
    }


def _gradient_alignment(
    snapshot: Snapshot,
) -> Annotated[Measured, Metric(label="alignment of gradients with inputs")]:
    """How uniformly a gradient step moves first-layer units over the inputs, mean over units: 1 if
    all inputs of a unit move one way; detail: mean size of the cosine.
    """
    view = _view(snapshot, "gradient_alignment")

    def outputs(params: PyTree) -> Array:
        return view(params).outputs

    uniform, cosine = gradient_alignment(snapshot.loss, outputs, snapshot.params)
    return {"": uniform.mean(), "cosine": jnp.abs(cosine).mean()}


def _ntk(
    snapshot: Snapshot, *, samples: int = 64, churn: bool = False
) -> Annotated[Measured, Metric(label="effective rank of the tangent kernel")]:
    """Effective rank of the empirical tangent kernel of the first `samples` inputs, mean of
    classes.

    K_nm = mean_c <df_c(x_n)/dp, df_c(x_m)/dp> of outputs f_c and parameters p, and its rank is
    exp(-sum_i q_i ln q_i), q_i = l_i / sum_j l_j over its eigenvalues l. Details: `normalised_rank`
    of the kernel of unit diagonal, K_nm / sqrt(K_nn K_mm), `cosine` the mean of that off the
    diagonal, `top_share` = max l / sum l, `condition` = max l / min l; with `churn` the relative
    change of the kernel since the end of the task before, ||K - K_before||_F / ||K_before||_F, for
    twice the work. Source: Jacot et al. 2018; Lyle et al. 2024.
    """
    view = _view(snapshot, "ntk")

    def outputs(params: PyTree) -> Array:
        return view(params, samples).outputs

    def kernel(params: PyTree) -> Array:
        fast = layerwise_ntk(outputs, params)
        return empirical_ntk(outputs, params, class_mean=True) if fast is None else fast

    now = kernel(snapshot.params)
    sound = numerics.finite(now)
    found = kernel_summary(jnp.where(sound, now, 0.0))
    if churn:
        before = kernel(snapshot.previous)
        found["churn"] = kernel_change(now, before)
    found = numerics.known(sound, found)
    return {"": found.pop("rank"), **found}


def _dead_fraction(
    snapshot: Snapshot, *, share: float = 0.95, zero: float = 1e-7
) -> Annotated[Measured, Metric(label="dead units", share=True)]:
    """Fraction of units below 1e-7 in magnitude on more than 95 % of the inputs; per layer."""
    units = _units(snapshot)
    layers = {g: dead_fraction(h, share, zero) for g, h in units.items()}
    return {"": dead_fraction(units, share, zero), **layers}


def _duplicate_fraction(
    snapshot: Snapshot, *, cosine: float = 0.95
) -> Annotated[Measured, Metric(label="duplicate units", share=True)]:
    """Fraction of units that a later one of their layer resembles by a cosine above 0.95; per
    layer.
    """
    units = _units(snapshot)
    layers = {g: duplicate_fraction(h, cosine) for g, h in units.items()}
    return {"": duplicate_fraction(units, cosine), **layers}


def _frozen_fraction(
    snapshot: Snapshot, *, share: float = 0.95, slope: float = 1e-3
) -> Annotated[Measured, Metric(label="frozen units", share=True)]:
    """Fraction of units whose activation has almost no slope on 95 % of the inputs; per layer."""
    function = snapshot.activation
    if function is None:
        raise ValueError(
            "frozen_fraction needs a Snapshot with an activation: allowed is any function."
        )
    found = _view(snapshot, "frozen_fraction")(snapshot.params).preactivations
    layers = {g: frozen_fraction(before, function, share, slope) for g, before in found.items()}
    return {"": frozen_fraction(found, function, share, slope), **layers}


def _saturated_fraction(
    snapshot: Snapshot, *, share: float = 0.99, size: float = 1e-4, gradient: str = "mean"
) -> Annotated[Measured, Metric(label="saturated units", share=True)]:
    """Fraction of units of which the loss hardly depends, relative to their mean magnitude; per
    layer.

    `gradient` is that of the "mean" loss of the probe batch, or of each "example"'s own loss.
    """
    registry.one_of("saturated_fraction.gradient", gradient, ("mean", "example"))
    if snapshot.unit_gradients is None:
        raise ValueError(
            "saturated_fraction needs a Snapshot with unit_gradients: allowed is any function."
        )
    found = dict(snapshot.unit_gradients(snapshot.params))
    hidden = {group: snapshot.hidden[group] for group in found}
    if gradient == "example":
        found = {group: len(hidden[group]) * g for group, g in found.items()}
    layers = {g: saturated_fraction(h, found[g], share, size) for g, h in hidden.items()}
    return {"": saturated_fraction(hidden, found, share, size), **layers}


def _trap(snapshot: Snapshot) -> Annotated[Measured, Metric(label="distance from a trap")]:
    """Relative distance of the nearest two units of a layer from being clones; per layer.

    min over layers of ||w_a - w_b||_2 / (||w_a||_2 + ||w_b||_2), w_i all numbers of unit i (weights
    into it, bias, scale and offset of its norm, weights that read it), a and b the two units of a
    layer with the least ||w_a - w_b||_2.

    Details: `layer`, the place of the nearest layer among the unit groups, from 0; `relative`, the
    least ||w_a - w_b||_2 / (||w_a||_2 + ||w_b||_2) of any two units of a layer, which may be others
    than the nearest in parameters, as small units are near each other; `curvature` of
    the loss L along what parts these two, v'Hv / v'v with H = d^2 L / dp^2, v = (w_a - w_b) / 2 at
    unit a and -v at b, above 0 where gradient descent brings them together; `frozen` = min over
    units i of the share of inputs x with |phi'(z_i(x))| >= 1e-3, z_i what goes into the activation
    function phi, 0 where a unit is flat on all; and `frozen_layer`; `frozen_distance` = min over i
    of s_i / ||w_i||_2, s_i by how much the bias of unit i has to move until it is flat on all
    inputs, also per layer, NaN of a phi that has no flat end; and `manifold`, which of the two is
    nearer: 0 clones, whose distance is likewise how far each of the two has to move over its own
    size, 1 a frozen unit; and `nearest_layer`, the layer on which that one is.

    Across the manifold of a frozen unit there is no curvature to tell: where phi' is 0 around
    z_i(x) for all x, L is constant in the weights into unit i, and v'Hv = 0. Since which task a
    layer is the nearest is known of a finished run: `python -m experiments.barriers.trapped` tells
    it. Source: ours, from the traps of Joudaki et al. 2025.
    """
    view, function = _view(snapshot, "trap"), snapshot.activation
    if not snapshot.units or function is None:
        raise ValueError(
            "trap needs a Snapshot with units and an activation: allowed are unit groups and a "
            "function."
        )
    found = traps.clone_pairs(snapshot.units, snapshot.params)
    layers = {group: pair.relative for group, pair in found.items()}
    near = jnp.stack([*layers.values()])
    nearest = jnp.argmin(near)
    groups = [*snapshot.units]
    places = jnp.array([*map(groups.index, found)])  # (of groups of several units)
    chosen = {group: (found[group], nearest == place) for place, group in enumerate(found)}
    before = view(snapshot.params).preactivations
    before = {group: z for group, z in before.items() if group in snapshot.units}
    shares = jnp.stack([traps.unfrozen_share(z, function) for z in before.values()])
    sizes = traps.sizes(snapshot.units, snapshot.params)
    to_frozen = {g: traps.frozen_distance(z, function, sizes[g]) for g, z in before.items()}
    frozen = jnp.stack([*to_frozen.values()])
    frozen_places = jnp.array([*map(groups.index, to_frozen)])
    nearest_frozen = jnp.nanmin(frozen)
    is_frozen = nearest_frozen < near.min()
    where = jnp.where(is_frozen, frozen_places[jnp.nanargmin(frozen)], places[nearest])
    columns = {
        "": near.min(),
        "layer": places[nearest].astype(jnp.float32),
        "relative": jnp.stack([pair.least for pair in found.values()]).min(),
        "curvature": traps.pull_of_clones(snapshot.loss, snapshot.params, snapshot.units, chosen),
        "manifold": is_frozen.astype(jnp.float32),
        "nearest_layer": where.astype(jnp.float32),
        "frozen": shares.min(),
        "frozen_layer": jnp.argmin(shares).astype(jnp.float32),
        "frozen_distance": nearest_frozen,
        **{f"frozen_distance/{group}": distance for group, distance in to_frozen.items()},
        **layers,
    }
    return traps.known(snapshot.params, columns)


def _normal_gradient_fraction(snapshot: Snapshot) -> Measured:
    """Share of the gradient's norm that parts the two units nearest to being clones; per layer.

    ||g_a - g_b||_2 / (sqrt(2) ||g||_2), g the gradient of the loss by all parameters, g_i its
    numbers of unit i (as w_i of the probe `trap`), a and b the pair of `trap`: the part of g that
    is normal to the parameters in which these two are clones. 0 of a gradient that is 0.

    Source: ours, from the manifolds of Joudaki et al. 2025, section 4.
    """
    if not snapshot.units:
        raise ValueError(
            "normal_gradient_fraction needs a Snapshot with units: allowed are unit groups."
        )
    found = traps.clone_pairs(snapshot.units, snapshot.params)
    value, gradient = jax.value_and_grad(snapshot.loss)(snapshot.params)
    layers = traps.normal_shares(snapshot.units, gradient, found)
    nearest = jnp.argmin(jnp.stack([pair.relative for pair in found.values()]))
    columns = {"": jnp.stack([*layers.values()])[nearest], **layers}
    return numerics.known(numerics.finite(snapshot.params, value), columns)


def _participation_ratio(snapshot: Snapshot) -> Measured:
    """Participation ratio of the last hidden layer's covariance; per layer."""
    layers = {g: participation_ratio(h) for g, h in snapshot.hidden.items()}
    return {"": list(layers.values())[-1], **layers}


def _stable_rank(snapshot: Snapshot) -> Measured:
    """Stable rank, ||A||_F^2 / ||A||_2^2, of the last hidden layer's activations; per layer."""
    layers = {g: stable_rank(h) for g, h in snapshot.hidden.items()}
    return {"": list(layers.values())[-1], **layers}


def _hard_rank(snapshot: Snapshot, *, cutoff: float = 1e-5) -> Measured:
    """Number of singular values of the last hidden layer above 1e-5 of the largest; per layer."""
    layers = {g: hard_rank(h, cutoff) for g, h in snapshot.hidden.items()}
    return {"": list(layers.values())[-1], **layers}


def _clone_r2(
    snapshot: Snapshot, *, factor: int = 2
) -> Annotated[Measured, Metric(label="clone R2")]:
    """Share of the variance between units that is between groups of `factor` neighbors, mean of
    layers; per layer, and `as_published` the form of the paper's code.

    `backward` is the same of the backward signals, the gradient of the loss by the activations, and
    `both` the mean of forward and backward, as the paper has it.
    """
    units = _units(snapshot)
    layers = {g: clone_r2(h, factor) for g, h in units.items()}
    scores = [clone_score(h, factor) for h in units.values()]
    forward = jnp.stack([*layers.values()]).mean()
    columns = {"": forward, "as_published": jnp.stack(scores).mean(), **layers}
    if snapshot.unit_gradients is None:
        return columns
    signals = dict(snapshot.unit_gradients(snapshot.params))
    back = [clone_r2(signals[group], factor) for group in units if group in signals]
    backward = jnp.stack(back).mean()
    return {**columns, "backward": backward, "both": (forward + backward) / 2}


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
    "preactivation": _preactivation,
    "gradient_alignment": _gradient_alignment,
    "ntk": _ntk,
    "dead_fraction": _dead_fraction,
    "duplicate_fraction": _duplicate_fraction,
    "frozen_fraction": _frozen_fraction,
    "saturated_fraction": _saturated_fraction,
    "trap": _trap,
    "normal_gradient_fraction": _normal_gradient_fraction,
    "participation_ratio": _participation_ratio,
    "stable_rank": _stable_rank,
    "hard_rank": _hard_rank,
    "clone_r2": _clone_r2,
}
# those that read a row of outputs for each example, which texts do not have
OF_ROWS = frozenset({"gradient_alignment", "ntk"})
# those that differentiate the gradient, which takes most memory
CURVATURE = frozenset({"hessian_top", "trap"})
