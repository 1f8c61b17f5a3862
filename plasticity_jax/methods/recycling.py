"""Methods that find unused units and start them afresh."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from plasticity_jax import registry
from plasticity_jax.methods import lifting, trees
from plasticity_jax.types import Array, Key, Number, Period, PyTree, Share, UnitGroup


@registry.checked
def redo(
    units: Mapping[str, UnitGroup],
    init: Callable[[Key], PyTree],
    *,
    threshold: Number = 0.1,
    max_fraction: Share = 1.0,
    period: Period = 1000,
    warmup: Period = 0,
    score: str = "batch",
    relative: bool = True,
    outgoing: str = "zero",
    reset_norm: bool = False,
) -> lifting.Rewrite:
    """ReDo: every `period` steps dormant units get fresh incoming weights, zero bias, zero outgoing
    weights and moments.

    Unit i of a layer is dormant iff s_i <= threshold, s_i = E|h_i| / mean_k E|h_k| over this step's
    batch. Source: Sokar et al. 2023. Options for the variant in Liu & Mou's code: `score="running"`
    averages over all batches since the last check; `max_fraction` of a layer at most, lowest scores
    first; nothing before `warmup` steps; `relative=False` compares E|h_i| itself; `outgoing="keep"`
    leaves outgoing weights, `"redraw"` draws them afresh. `reset_norm` also resets scale and offset
    of the units' normalisation, which neither source does.

    What is masked (`optax.masked`, `optax.partition`) is left alone.

    Args:
      units, init: where the units are and how weights are drawn, as `model.units()` and key ->
        params give them.
    `period` and `warmup` may be "never". Raises ValueError for an unknown `score` or `outgoing`, a
    `period` < 1, or units that `init` has no layer for.
    """
    registry.one_of("redo.score", score, ("batch", "running"))
    registry.one_of("redo.outgoing", outgoing, ("zero", "keep", "redraw"))
    registry.whole("redo.period", period, 1, never=True)
    shapes = trees.named(jax.eval_shape(init, jax.random.key(0)))
    kernels = {group: _kernel(group, unit, shapes) for group, unit in units.items()}
    width = {group: kernel.shape[-1] for group, kernel in kernels.items()}
    dtype = {
        group: jnp.promote_types(kernel.dtype, jnp.float32) for group, kernel in kernels.items()
    }

    def start():
        # sums over the batches since the last check, and how many they are
        return {group: jnp.zeros(h, dtype[group]) for group, h in width.items()}, jnp.zeros(
            (), jnp.float32
        )

    def observe(memory, ctx):
        total, count = memory
        return {
            group: t + batch_mean(group, ctx).astype(t.dtype) for group, t in total.items()
        }, count + 1

    def batch_mean(group, ctx):
        if group not in ctx.hidden:
            known = ", ".join(map(repr, ctx.hidden)) or "none"
            raise ValueError(
                f"redo needs the activations {group!r} in ctx.hidden, which has {known}."
            )
        return magnitude(ctx.hidden[group], width[group])

    def dormant_units(group, ctx, memory):
        if score == "running":
            total, count = memory
            activity = total[group] / count
        else:
            activity = batch_mean(group, ctx)
        few = _place(activity) < jnp.floor(max_fraction * width[group] + 1e-4)
        return few & (activity <= threshold * (activity.mean() if relative else 1.0))

    def apply(params, ctx, state):
        old, fresh = trees.named(params), trees.named(init(ctx.key))
        new, touched = dict(old), {name: jnp.zeros(p.shape, bool) for name, p in old.items()}
        dormant = {group: dormant_units(group, ctx, state.memory) for group in units}
        for group, unit in units.items():
            for path in (unit.made_by, *([unit.norm] if reset_norm and unit.norm else [])):
                for name in _layer(old, path):
                    zero = path == unit.made_by and name[-1] == "bias"
                    drawn = jnp.zeros_like(fresh[name]) if zero else fresh[name]
                    ours = jnp.broadcast_to(dormant[group], old[name].shape)
                    new[name] = jnp.where(ours, drawn, new[name])
                    touched[name] = touched[name] | ours
        # after all incoming weights, so that a weight between two recycled units ends at zero
        for group, unit in units.items() if outgoing != "keep" else ():
            name = (*trees.path_of(unit.feeds), "kernel")
            if name not in old:
                continue
            # the unit index runs fastest over the inputs of the layer that reads the units
            inputs = jnp.tile(dormant[group], old[name].shape[-2] // width[group])[:, None]
            rows = jnp.broadcast_to(inputs, old[name].shape)
            new[name] = jnp.where(rows, 0 if outgoing == "zero" else fresh[name], new[name])
            touched[name] = touched[name] | rows
        structure = jax.tree.structure(params)
        after, mask = (
            jax.tree.unflatten(structure, list(part.values())) for part in (new, touched)
        )
        number = sum((d.sum(dtype=jnp.int32) for d in dormant.values()), jnp.int32(0))
        return after, mask, lifting.Counted(state.units + number, remembered())

    def remembered():
        return start() if score == "running" else ()

    def begin(params):
        del params
        return lifting.Counted(jnp.int32(0), remembered())

    def look(state, ctx):
        return state._replace(memory=observe(state.memory, ctx)) if score == "running" else state

    return lifting.Rewrite(apply, lifting.every(period, warmup), begin, look)


def magnitude(hidden: Array, units: int) -> Array:
    """Returns E|h| of each unit, [units], from activations [B, ..., m * units]; copies and
    positions are averaged.
    """
    return jnp.abs(hidden).reshape(-1, units).mean(axis=0)


def _place(values: Array) -> Array:
    """Returns each value's place in ascending order, 0 for the lowest; ties in order of index."""
    return jnp.argsort(jnp.argsort(values))


def _layer(params: Mapping[trees.Path, Array], path: tuple) -> list[trees.Path]:
    """Returns the names of what lies directly in the layer at `path`."""
    return [name for name in params if name[:-1] == trees.path_of(path)]


def _kernel(group: str, unit: UnitGroup, shapes: Mapping[trees.Path, Array]) -> Array:
    """Returns the shape of the kernel that makes the units; raises ValueError where a layer is
    missing.
    """
    for path in (unit.made_by, unit.feeds):
        if (*trees.path_of(path), "kernel") not in shapes:
            layer = "/".join(map(str, path))
            raise ValueError(
                f"redo's units {group!r} are of a layer {layer!r}, of which init draws no kernel."
            )
    return shapes[(*trees.path_of(unit.made_by), "kernel")]
