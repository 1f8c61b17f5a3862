"""Continual backpropagation: every now and then the least useful mature unit is started afresh."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from plasticity_jax import registry, trees
from plasticity_jax.methods import lifting, recycling
from plasticity_jax.types import Array, Context, Key, Number, PyTree, Share, UnitGroup

UTILITIES = ("contribution", "adaptable")
COUNTS = ("accumulated", "drawn", "at_least_one")
BIASES = ("own", "whole_layer")
_DRAW = 2  # apart from what other methods draw of the same key
_Named = dict[trees.Path, Array]


class _Rule(NamedTuple):
    """The settings, see `continual_backprop`."""

    replacement_rate: Number
    maturity: Number
    decay: Share
    utility: str
    count: str
    reset_bias: str


class _Memory(NamedTuple):
    """What is remembered of a group of H units.

    Attributes:
      age: [H] int32 steps since the unit was started.
      mean: [copies * H] running mean of its activations, not corrected for its start at 0.
      utility: [H] running utility, not corrected either.
      owed: [] the share of a unit that is to be replaced by now.
    """

    age: Array
    mean: Array
    utility: Array
    owed: Array

    def started(self, decay: Share) -> Array:
        """Returns what a running mean that started at 0 is divided by, [H]; 1 at an age of 0."""
        passed = 1 - jnp.float32(decay) ** self.age
        return jnp.where(passed > 0, passed, 1.0)


class _Group(NamedTuple):
    """Where the weights of a group are, by name, and how many units and copies of each it has."""

    layer: trees.Path
    reads: trees.Path
    units: int
    copies: int

    def of_copies(self, of_units: Array) -> Array:
        """Returns [copies * H] from [H]: the unit index runs fastest."""
        return jnp.tile(of_units, self.copies)

    def of_rows(self, of_copies: Array, kernel: Array) -> Array:
        """Returns [rows] of the kernel that reads the units, from [copies * H]."""
        return jnp.tile(of_copies, kernel.shape[-2] // len(of_copies))


@registry.checked
def continual_backprop(
    units: Mapping[str, UnitGroup],
    init: Callable[[Key], PyTree],
    *,
    replacement_rate: Share = 1e-4,
    maturity: Number = 100.0,
    decay: Share = 0.99,
    utility: str = "contribution",
    count: str = "accumulated",
    reset_bias: str = "own",
) -> lifting.Rewrite:
    """Continual backprop: of the units older than `maturity` steps, the share `replacement_rate`
    with least utility starts afresh at each step.

    After each step, of each unit i of a layer: age a + 1; f <- decay f + (1 - decay) mean h_i; u <-
    decay u + (1 - decay) y, y = mean|h_i| mean|W_out,i| over batch and weights. Shares of a unit
    add up over steps, and once they make a whole one, the unit with the smallest u / (1 - decay^a)
    among those with a > maturity is replaced: the layer that reads it gets W_out,i f / (1 -
    decay^a) on its bias (if it has one), then W_out,i becomes 0; W_in,i is drawn as at
    initialization, its bias, age, f and u become 0, and the optimizer forgets these weights.
    Source: Dohare et al. 2024.

    Options: `utility="adaptable"` has y = mean|h_i - f / (1 - decay^a)| mean|W_out,i| /
    mean|W_in,i| (0 without incoming weights); `count="drawn"` replaces less than a unit with that
    probability instead of adding up. Deviations of the public code of Joudaki et al. 2025:
    `count="at_least_one"`, max(1, the share of the whole layer) at every step, and
    `reset_bias="whole_layer"`, the bias of all units of a layer becomes 0 with that of a replaced
    one. Ours: a weight between two units that are replaced together is 0. Moments are forgotten as
    by every method; the optimizer `adam_per_weight` forgets step counts too, as the source's does.

    Convolutions: positions count as examples, and the bias gets the sum over the kernel. That is
    exact for a unit of constant activation, but for edges that are padded and pooling between. A
    norm after the unit or the bias is left as it is. `units`, `init` as of `redo`. Raises
    ValueError for an unknown option, or units that `init` has no layer for.
    """
    registry.one_of("continual_backprop.utility", utility, UTILITIES)
    registry.one_of("continual_backprop.count", count, COUNTS)
    registry.one_of("continual_backprop.reset_bias", reset_bias, BIASES)
    rule = _Rule(replacement_rate, maturity, decay, utility, count, reset_bias)
    shapes = trees.named(jax.eval_shape(init, jax.random.key(0)))
    groups = {name: _group(name, unit, shapes) for name, unit in units.items()}

    own = _Replacement(rule, init, groups)
    return lifting.Rewrite(own.apply, own.when, own.begin, own.look)


class _Replacement(NamedTuple):
    """Continual backprop of a network: its settings, how it is drawn, and its groups of units."""

    rule: _Rule
    init: Callable[[Key], PyTree]
    groups: Mapping[str, _Group]

    def begin(self, params: PyTree) -> lifting.Counted:
        """Returns what is remembered before the first step."""
        del params
        memory = {name: _started(group) for name, group in self.groups.items()}
        return lifting.Counted(jnp.int32(0), memory)

    def look(self, state: lifting.Counted, ctx: Context, params: PyTree) -> lifting.Counted:
        """Returns what is remembered after a step, whose new weights are `params`."""
        named, memory = trees.named(params), dict(state.memory)
        for name, group in self._here(params).items():
            hidden = _activations(name, group, ctx)
            memory[name] = _looked(self.rule, group, named, hidden, memory[name])
        return state._replace(memory=memory)

    def when(self, ctx: Context, state: lifting.Counted) -> Array:
        """Returns whether a unit is to be replaced now, [] bool."""
        due = list(self._due(ctx, state).values())
        return jnp.stack(due).max() > 0 if due else jnp.bool_(False)

    def apply(
        self, params: PyTree, ctx: Context, state: lifting.Counted
    ) -> tuple[PyTree, PyTree, lifting.Counted]:
        """Returns new parameters, which entries of them were touched, and what is remembered."""

        def draw(number: Array) -> PyTree:
            return self.init(jax.random.fold_in(ctx.key, _DRAW + number))

        old, due, memory = trees.named(params), self._due(ctx, state), dict(state.memory)
        if self.rule.count == "accumulated":
            for name, own in memory.items():
                memory[name] = own._replace(owed=own.owed - due[name])
        replace = _replacing(self.rule, self._here(params), due, draw)
        untouched = {name: jnp.zeros(p.shape, bool) for name, p in old.items()}
        # A loop in the branch: under vmap both sides of a branch are computed, but a loop is
        # entered only when some lane has a unit to replace.
        first = (self.when(ctx, state), old, untouched, memory, jnp.int32(0))
        last = jax.lax.while_loop(lambda carry: carry[0], replace, first)
        _, new, touched, memory, number = last
        structure = jax.tree.structure(params)
        after, mask = (jax.tree.unflatten(structure, [*part.values()]) for part in (new, touched))
        return after, mask, lifting.Counted(state.units + number, memory)

    def _here(self, params: PyTree) -> dict[str, _Group]:
        """Returns the groups whose weights are not masked."""
        for name, group in self.groups.items():
            what = f"continual_backprop's layer of units {name!r}"
            trees.check_layer(what, params, group.layer)
        there = trees.named(params).keys()
        return {
            name: group
            for name, group in self.groups.items()
            if {(*group.layer, "kernel"), (*group.reads, "kernel")} <= there
        }

    def _due(self, ctx: Context, state: lifting.Counted) -> dict[str, Array]:
        """Returns how many units of each group are to be replaced now, [] int32."""
        key = jax.random.fold_in(ctx.key, _DRAW)
        return {
            name: _due(self.rule, state.memory[name], jax.random.fold_in(key, place))
            for place, name in enumerate(self.groups)
        }


def _group(name: str, unit: UnitGroup, shapes: Mapping[trees.Path, Array]) -> _Group:
    kernel = recycling.kernel_of("continual_backprop", name, unit, shapes)
    layer, reads = trees.path_of(unit.made_by), trees.path_of(unit.feeds)
    return _Group(layer, reads, kernel.shape[-1], unit.copies)


def _started(group: _Group) -> _Memory:
    zero = jnp.zeros(group.units, jnp.float32)
    age = jnp.zeros(group.units, jnp.int32)
    return _Memory(age, group.of_copies(zero), zero, jnp.float32(0))


def _activations(name: str, group: _Group, ctx: Context) -> Array:
    """Returns the activations of a group, [N, copies * H] float32."""
    hidden = recycling.hidden_of("continual_backprop", name, ctx)
    channels = group.copies * group.units
    if hidden.shape[-1] != channels:
        raise ValueError(
            f"continual_backprop's units {name!r} have {hidden.shape[-1]} activations: allowed are "
            f"{channels}, or a UnitGroup that says how many copies there are of a unit."
        )
    return hidden.reshape(-1, channels).astype(jnp.float32)


def _looked(rule: _Rule, group: _Group, old: _Named, hidden: Array, memory: _Memory) -> _Memory:
    """Returns the memory after this step's activations [N, copies * H] and new weights."""
    age = memory.age + 1
    mean = rule.decay * memory.mean + (1 - rule.decay) * _mean(hidden)
    now = memory._replace(age=age, mean=mean)
    if rule.count == "accumulated":
        now = now._replace(owed=memory.owed + _share(rule, now))
    reads = jnp.abs(old[*group.reads, "kernel"]).astype(jnp.float32)
    outgoing = _mean(reads.reshape(-1, *reads.shape[-2:]).mean(axis=0).T)
    outgoing = outgoing.reshape(-1, group.units).mean(axis=0)
    if rule.utility == "contribution":
        fresh = _mean(jnp.abs(hidden).reshape(-1, group.units)) * outgoing
    else:
        usual = mean / group.of_copies(now.started(rule.decay))
        incoming = jnp.abs(old[*group.layer, "kernel"]).astype(jnp.float32)
        incoming = _mean(incoming.reshape(-1, group.units))
        per_weight = jnp.where(incoming > 0, outgoing / jnp.where(incoming > 0, incoming, 1.0), 0.0)
        fresh = _mean(jnp.abs(hidden - usual[None, :]).reshape(-1, group.units)) * per_weight
    return now._replace(utility=rule.decay * memory.utility + (1 - rule.decay) * fresh)


def _mean(rows: Array) -> Array:
    """Returns the mean [H] of rows [N, H].

    As a product, which a CPU computes several numbers at a time; a sum over rows it does not.
    """
    ones = jnp.ones((1, len(rows)), rows.dtype)
    return jnp.matmul(ones, rows, precision="highest")[0] / len(rows)


def _eligible(rule: _Rule, memory: _Memory) -> Array:
    """Returns which units are mature, [H] bool."""
    return memory.age > rule.maturity


def _share(rule: _Rule, memory: _Memory) -> Array:
    """Returns how many of the mature units a step replaces on average, [] float32."""
    return jnp.float32(rule.replacement_rate) * _eligible(rule, memory).sum(dtype=jnp.int32)


def _due(rule: _Rule, memory: _Memory, key: Key) -> Array:
    """Returns how many units are to be replaced now, [] int32."""
    if rule.count == "at_least_one":
        share = jnp.floor(rule.replacement_rate * len(memory.age)).astype(jnp.int32)
        return jnp.minimum(jnp.maximum(share, 1), _eligible(rule, memory).sum(dtype=jnp.int32))
    if rule.count == "drawn":
        share = _share(rule, memory)
        one = (jax.random.uniform(key) < share).astype(jnp.int32)
        return jnp.where(share < 1, one, jnp.floor(share).astype(jnp.int32))
    return jnp.floor(memory.owed).astype(jnp.int32)


def _chosen(rule: _Rule, memory: _Memory, number: Array) -> Array:
    """Returns which units are replaced, [H] bool: mature, of least utility, ties by index."""
    eligible = _eligible(rule, memory)
    utility = jnp.where(eligible, memory.utility / memory.started(rule.decay), jnp.inf)
    return eligible & (recycling.place(utility) < number)


def _replacing(
    rule: _Rule,
    groups: Mapping[str, _Group],
    due: Mapping[str, Array],
    draw: Callable[[Array], PyTree],
) -> Callable:
    """Returns the body of the loop that replaces the units that are due.

    `draw` is given how many were replaced before: none, but the compiler cannot know. What depends
    on nothing that the loop changes it would move ahead of it, and draw a network at every step.
    """

    def replace(carry):
        _, old, touched, memory, before = carry
        fresh, new, touched = trees.named(draw(before)), dict(old), dict(touched)
        chosen = {name: _chosen(rule, memory[name], due[name]) for name in groups}
        for name, group in groups.items():
            _compensate(rule, group, old, new, memory[name], chosen[name])
        for name, group in groups.items():
            _incoming(rule, group, fresh, new, touched, chosen[name])
        # after all incoming weights, so that one between two replaced units ends at zero
        for name, group in groups.items():
            reads = (*group.reads, "kernel")
            rows = group.of_rows(group.of_copies(chosen[name]), new[reads])
            rows = jnp.broadcast_to(rows[:, None], new[reads].shape)
            new[reads] = jnp.where(rows, 0, new[reads])
            touched[reads] = touched[reads] | rows
        after = dict(memory)
        for name, group in groups.items():
            after[name] = _restarted(group, memory[name], chosen[name])
        number = sum((c.sum(dtype=jnp.int32) for c in chosen.values()), jnp.int32(0))
        return jnp.bool_(False), new, touched, after, number

    return replace


def _compensate(
    rule: _Rule, group: _Group, old: _Named, new: _Named, memory: _Memory, chosen: Array
) -> None:
    """Adds to the bias of the reading layer what the replaced units gave it on average."""
    bias = (*group.reads, "bias")
    if bias not in new:
        return
    kernel = old[*group.reads, "kernel"].astype(jnp.float32)
    usual = memory.mean / group.of_copies(memory.started(rule.decay))
    given = group.of_rows(jnp.where(group.of_copies(chosen), usual, 0), kernel)
    added = given @ kernel.reshape(-1, *kernel.shape[-2:]).sum(axis=0)
    new[bias] = new[bias] + added.astype(new[bias].dtype)


def _incoming(
    rule: _Rule, group: _Group, fresh: _Named, new: _Named, touched: _Named, chosen: Array
) -> None:
    """Draws the incoming weights of the replaced units, and sets their bias to 0."""
    kernel, bias = (*group.layer, "kernel"), (*group.layer, "bias")
    ours = jnp.broadcast_to(chosen, new[kernel].shape)
    new[kernel] = jnp.where(ours, fresh[kernel].astype(new[kernel].dtype), new[kernel])
    touched[kernel] = touched[kernel] | ours
    if bias in new:
        which = chosen if rule.reset_bias == "own" else jnp.broadcast_to(chosen.any(), chosen.shape)
        new[bias] = jnp.where(which, 0, new[bias])
        touched[bias] = touched[bias] | chosen


def _restarted(group: _Group, memory: _Memory, chosen: Array) -> _Memory:
    return memory._replace(
        age=jnp.where(chosen, 0, memory.age),
        mean=jnp.where(group.of_copies(chosen), 0, memory.mean),
        utility=jnp.where(chosen, 0, memory.utility),
    )
