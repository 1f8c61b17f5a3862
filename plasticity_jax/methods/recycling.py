"""Methods that find unused units and start them afresh."""

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from plasticity_jax import registry
from plasticity_jax.methods import lifting
from plasticity_jax.types import Array, Key, Number, PyTree, Share, UnitGroup


def redo(
    units: Mapping[str, UnitGroup],
    init: Callable[[Key], PyTree],
    *,
    threshold: Number = 0.1,
    max_fraction: Share = 1.0,
    period: int = 1000,
    warmup: int = 0,
    score: str = "batch",
    relative: bool = True,
    outgoing: str = "zero",
    reset_norm: bool = False,
) -> lifting.Rewrite:
    """ReDo: every `period` steps dormant units get fresh incoming weights, zero bias, zero outgoing weights and moments.

    Unit i of a layer is dormant iff s_i <= threshold, s_i = E|h_i| / mean_k E|h_k| over this step's batch.
    Source: Sokar et al. 2023. Options for the variant in Liu & Mou's code: `score="running"` averages over all batches
    since the last check; `max_fraction` of a layer at most, lowest scores first; nothing before `warmup` steps;
    `relative=False` compares E|h_i| itself; `outgoing="keep"` leaves outgoing weights, `"redraw"` draws them afresh.
    `reset_norm` also resets scale and offset of the units' normalisation, which neither source does.

    Args:
      units, init: where the units are and how weights are drawn, as `model.units()` and key -> params give them.
    Raises ValueError for an unknown `score` or `outgoing`, or a `period` < 1.
    """
    registry.one_of("redo.score", score, ("batch", "running"))
    registry.one_of("redo.outgoing", outgoing, ("zero", "keep", "redraw"))
    if period < 1:
        raise ValueError(f"redo.period is {period}: allowed are 1 or more steps.")
    shapes = jax.eval_shape(init, jax.random.key(0))
    width = {group: _at(shapes, unit.made_by)["kernel"].shape[-1] for group, unit in units.items()}

    def start():
        # sums over the batches since the last check, and how many they are
        return {group: jnp.zeros(h) for group, h in width.items()}, jnp.zeros(())

    def observe(memory, ctx):
        total, count = memory
        return {group: total[group] + magnitude(ctx.hidden[group], h) for group, h in width.items()}, count + 1

    def dormant_units(group, ctx, memory):
        if score == "running":
            total, count = memory
            activity = total[group] / count
        else:
            activity = magnitude(ctx.hidden[group], width[group])
        few = _place(activity) < jnp.floor(max_fraction * width[group] + 1e-4)
        return few & (activity <= threshold * (activity.mean() if relative else 1.0))

    def apply(params, ctx, memory):
        fresh, touched = init(ctx.key), lifting.untouched(params)
        dormant = {group: dormant_units(group, ctx, memory) for group in units}
        for group, unit in units.items():
            for path in (unit.made_by, *([unit.norm] if reset_norm and unit.norm else [])):
                layer, mask, drawn = _at(params, path), _at(touched, path), _at(fresh, path)
                if path == unit.made_by and "bias" in drawn:
                    drawn = {**drawn, "bias": jnp.zeros_like(drawn["bias"])}
                ours = {k: jnp.broadcast_to(dormant[group], p.shape) for k, p in layer.items()}
                params = _replace(params, path, {k: jnp.where(ours[k], drawn[k], p) for k, p in layer.items()})
                touched = _replace(touched, path, {k: m | ours[k] for k, m in mask.items()})
        # after all incoming weights, so that a weight between two recycled units ends at zero
        for group, unit in units.items() if outgoing != "keep" else ():
            layer, mask = _at(params, unit.feeds), _at(touched, unit.feeds)
            # the unit index runs fastest over the inputs of the layer that reads the units
            inputs = jnp.tile(dormant[group], layer["kernel"].shape[-2] // width[group])[:, None]
            rows = jnp.broadcast_to(inputs, layer["kernel"].shape)
            after = 0 if outgoing == "zero" else _at(fresh, unit.feeds)["kernel"]
            params = _replace(params, unit.feeds, {**layer, "kernel": jnp.where(rows, after, layer["kernel"])})
            touched = _replace(touched, unit.feeds, {**mask, "kernel": mask["kernel"] | rows})
        return params, touched, start() if score == "running" else memory

    remembers = {"init": start, "observe": observe} if score == "running" else {}
    return lifting.Rewrite(apply, lifting.every(period, warmup), **remembers)


def magnitude(hidden: Array, units: int) -> Array:
    """Returns E|h| of each unit, [units], from activations [B, ..., m * units]; copies and positions are averaged."""
    return jnp.abs(hidden).reshape(-1, units).mean(axis=0)


def _place(values: Array) -> Array:
    """Returns each value's place in ascending order, 0 for the lowest; ties in order of index."""
    return jnp.argsort(jnp.argsort(values))


def _at(tree: PyTree, path: tuple[str, ...]) -> PyTree:
    return functools.reduce(lambda node, key: node[key], path, tree)


def _replace(tree: PyTree, path: tuple[str, ...], value: PyTree) -> PyTree:
    if not path:
        return value
    return {**tree, path[0]: _replace(tree[path[0]], path[1:], value)}
