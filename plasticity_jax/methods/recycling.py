"""Methods that find unused units and start them afresh."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from plasticity_jax import registry, trees
from plasticity_jax.methods import lifting
from plasticity_jax.types import Array, Context, Key, Number, Period, PyTree, Share, UnitGroup


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
    of the units' normalization, which neither source does.

    What is masked (`optax.masked`, `optax.partition`) is left alone.

    Args:
      units, init: where the units are and how weights are drawn, as `model.units()` and key ->
        params give them.
    `period` and `warmup` may be "never". Raises ValueError for an unknown `score` or `outgoing`, a
    `period` < 1, or units that `init` has no layer for.

    >>> params = {"in": {"kernel": jnp.ones((3, 2))}, "out": {"kernel": jnp.ones((2, 1))}}
    >>> units = {"h": pj.UnitGroup(made_by=("in",), norm=None, feeds=("out",))}
    >>> optimizer = pj.methods.redo(units, lambda key: params, period=1)(optax.sgd(0.0))
    >>> hidden = {"h": jnp.array([[0.0, 5.0]])}
    >>> ctx = pj.Context(jax.random.key(0), step=8, boundary=False, hidden=hidden)
    >>> updates, state = optimizer.update(params, optimizer.init(params), params, ctx=ctx)
    >>> optax.apply_updates(params, updates)["out"]["kernel"].tolist()  # the first is dormant
    [[0.0], [1.0]]
    """
    registry.one_of("redo.score", score, ("batch", "running"))
    registry.one_of("redo.outgoing", outgoing, ("zero", "keep", "redraw"))
    registry.whole("redo.period", period, 1, never=True)
    shapes = trees.named(jax.eval_shape(init, jax.random.key(0)))
    kernels = {group: kernel_of("redo", group, unit, shapes) for group, unit in units.items()}
    width = {group: kernel.shape[-1] for group, kernel in kernels.items()}
    dtype = {
        group: jnp.promote_types(kernel.dtype, jnp.float32) for group, kernel in kernels.items()
    }
    rule = _Redo(
        units=units,
        init=init,
        width=width,
        dtype=dtype,
        threshold=threshold,
        max_fraction=max_fraction,
        running=score == "running",
        relative=relative,
        outgoing=outgoing,
        reset_norm=reset_norm,
    )
    return lifting.Rewrite(rule.apply, lifting.every(period, warmup), rule.begin, rule.look)


class _Redo(NamedTuple):
    """ReDo of a network: its settings, and of each group of units their number and the dtype of
    what is remembered of them.
    """

    units: Mapping[str, UnitGroup]
    init: Callable[[Key], PyTree]
    width: Mapping[str, int]
    dtype: Mapping[str, Any]
    threshold: float | Array
    max_fraction: float | Array
    running: bool
    relative: bool
    outgoing: str
    reset_norm: bool

    def begin(self, params: PyTree) -> lifting.Counted:
        """Returns what is remembered before the first step."""
        del params
        return lifting.Counted(jnp.int32(0), self._nothing_seen())

    def _nothing_seen(self) -> tuple:
        """Sums over the batches since the last check, and how many they are."""
        if not self.running:
            return ()
        sums = {group: jnp.zeros(h, self.dtype[group]) for group, h in self.width.items()}
        return sums, jnp.zeros((), jnp.float32)

    def look(self, state: lifting.Counted, ctx: Context, params: PyTree) -> lifting.Counted:
        """Returns what is remembered after a step's batch."""
        del params
        if not self.running:
            return state
        sums, count = state.memory
        seen = {}
        for group, total in sums.items():
            seen[group] = total + self._batch_mean(group, ctx).astype(total.dtype)
        return state._replace(memory=(seen, count + 1))

    def _batch_mean(self, group: str, ctx: Context) -> Array:
        hidden, units = hidden_of("redo", group, ctx), self.width[group]
        if hidden.shape[-1] % units:
            raise ValueError(
                f"redo's units {group!r} have {hidden.shape[-1]} activations: allowed are {units}, "
                "or a multiple where units are copied."
            )
        return magnitude(hidden, units)

    def _dormant(self, group: str, ctx: Context, memory: tuple) -> Array:
        """Which units of a group are to be recycled, [units] bool."""
        if self.running:
            sums, count = memory
            activity = sums[group] / count
        else:
            activity = self._batch_mean(group, ctx)
        few = place(activity) < jnp.floor(self.max_fraction * self.width[group] + 1e-4)
        usual = activity.mean() if self.relative else 1.0
        return few & (activity <= self.threshold * usual)

    def apply(
        self, params: PyTree, ctx: Context, state: lifting.Counted
    ) -> tuple[PyTree, PyTree, lifting.Counted]:
        """Returns new parameters, which entries of them were touched, and what is remembered."""
        for group, unit in self.units.items():
            trees.check_layer(f"redo's layer of units {group!r}", params, unit.made_by)
        old, fresh = trees.named(params), trees.named(self.init(ctx.key))
        change = _Change(old, fresh, dict(old), {})
        for name, leaf in old.items():
            change.touched[name] = jnp.zeros(leaf.shape, bool)
        dormant = {group: self._dormant(group, ctx, state.memory) for group in self.units}
        for group, unit in self.units.items():
            self._redraw_incoming(change, unit, dormant[group])
        # after all incoming weights, so that a weight between two recycled units ends at zero
        if self.outgoing != "keep":
            for group, unit in self.units.items():
                self._rewrite_outgoing(change, unit, dormant[group])
        structure = jax.tree.structure(params)
        after = jax.tree.unflatten(structure, list(change.new.values()))
        mask = jax.tree.unflatten(structure, list(change.touched.values()))
        number = sum((d.sum(dtype=jnp.int32) for d in dormant.values()), jnp.int32(0))
        return after, mask, lifting.Counted(state.units + number, self._nothing_seen())

    def _redraw_incoming(self, change: "_Change", unit: UnitGroup, dormant: Array) -> None:
        paths = [unit.made_by]
        if self.reset_norm and unit.norm:
            paths.append(unit.norm)
        for path in paths:
            for name in _layer(change.old, path):
                drawn = change.fresh[name]
                if path == unit.made_by and name[-1] == "bias":
                    drawn = jnp.zeros_like(drawn)
                ours = jnp.broadcast_to(dormant, change.old[name].shape)
                change.put(name, ours, drawn)

    def _rewrite_outgoing(self, change: "_Change", unit: UnitGroup, dormant: Array) -> None:
        name = (*trees.path_of(unit.feeds), "kernel")
        if name not in change.old:
            return
        # the unit index runs fastest over the inputs of the layer that reads the units
        shape = change.old[name].shape
        inputs = jnp.tile(dormant, shape[-2] // len(dormant))[:, None]
        rows = jnp.broadcast_to(inputs, shape)
        change.put(name, rows, 0 if self.outgoing == "zero" else change.fresh[name])


class _Change(NamedTuple):
    """Parameters by name: as they were, drawn afresh, as they become, and which entries change."""

    old: Mapping[trees.Path, Array]
    fresh: Mapping[trees.Path, Array]
    new: dict[trees.Path, Array]
    touched: dict[trees.Path, Array]

    def put(self, name: trees.Path, where: Array, values: Any) -> None:
        """Puts `values` where a mask says so."""
        self.new[name] = jnp.where(where, values, self.new[name])
        self.touched[name] = self.touched[name] | where


def hidden_of(method: str, group: str, ctx: Context) -> Array:
    """Returns the activations of a group; raises ValueError where a loop gives none."""
    if group not in ctx.hidden:
        known = ", ".join(map(repr, ctx.hidden)) or "none"
        raise ValueError(
            f"{method} needs the activations {group!r} in ctx.hidden, which has {known}."
        )
    return trees.activations(f"{method}'s ctx.hidden[{group!r}]", ctx.hidden[group])


def magnitude(hidden: Array, units: int) -> Array:
    """Returns E|h| of each unit, [units], from activations [B, ..., m * units]; copies and
    positions are averaged.
    """
    return jnp.abs(hidden).reshape(-1, units).mean(axis=0)


def place(values: Array) -> Array:
    """Returns each value's place in ascending order, 0 for the lowest; ties in order of index."""
    return jnp.argsort(jnp.argsort(values))


def _layer(params: Mapping[trees.Path, Array], path: tuple) -> list[trees.Path]:
    """Returns the names of what lies directly in the layer at `path`."""
    return [name for name in params if name[:-1] == trees.path_of(path)]


def kernel_of(
    method: str, group: str, unit: UnitGroup, shapes: Mapping[trees.Path, Array]
) -> Array:
    """Returns the shape of the kernel that makes the units; raises ValueError where a layer is
    missing.
    """
    for path in (unit.made_by, unit.feeds):
        if (*trees.path_of(path), "kernel") not in shapes:
            layer = "/".join(map(str, path))
            raise ValueError(
                f"{method}'s units {group!r} are of a layer {layer!r}, of which init draws no "
                "kernel."
            )
    return shapes[(*trees.path_of(unit.made_by), "kernel")]
