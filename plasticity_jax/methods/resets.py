"""Methods that act on whole networks or optimizers at once."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from plasticity_jax import registry, trees
from plasticity_jax.methods import lifting
from plasticity_jax.types import Key, Method, Number, Period, PyTree, Share


@registry.checked
def shrink_and_perturb(
    *,
    shrink: Share = 0.9,
    noise: Number = 0.01,
    period: Period = 0,
    moment: str = "after_first_step",
) -> lifting.Rewrite | lifting.Boundary:
    """Shrink and perturb: p <- shrink * p + noise * N(0, 1), every parameter, at task changes or
    every `period` steps.

    With `period=0` it is told task boundaries and acts once a task: right after the new task's
    first step, or with `moment` "before" ahead of it, which a loop of one's own must ask for by
    `begin`; with "never" it never acts. Optimizer moments are kept. Source: Ash & Adams 2020;
    values Liu & Mou's for the MLP, whose code acts ahead of the first step. Raises ValueError for a
    `period` that is no number of steps, or a `moment` where there is a period.

    >>> optimizer = pj.methods.shrink_and_perturb(shrink=0.5, noise=0.0)(optax.sgd(1.0))
    >>> params = jnp.array([1.0, -2.0])
    >>> ctx = pj.Context(jax.random.key(0), step=8, boundary=True, hidden={})
    >>> updates, state = optimizer.update(jnp.zeros(2), optimizer.init(params), params, ctx=ctx)
    >>> (params + updates).tolist()
    [0.5, -1.0]
    """
    registry.one_of("shrink_and_perturb.moment", moment, ("before", "after_first_step"))

    if period and moment == "before":
        raise ValueError(
            f"shrink_and_perturb.moment is 'before' and shrink_and_perturb.period {period}: "
            "allowed "
            "is one of the two, as a period counts steps."
        )

    def changed(params, key):
        flat, unravel = ravel_pytree(params)
        drawn = jax.random.normal(key, flat.shape, flat.dtype)
        return unravel(jnp.asarray(shrink * flat + noise * drawn, flat.dtype))

    if moment == "before":
        return lifting.Boundary(lambda params, start: (changed(params, start.key), None))

    def apply(params, ctx, memory):
        return changed(params, ctx.key), None, memory

    return lifting.Rewrite(apply, lifting.every(period) if period else lifting.at_boundary)


@registry.checked
def head_reset(
    head: tuple[str, ...] | None, init: Callable[[Key], PyTree], *, to: str = "drawn"
) -> lifting.Boundary:
    """Head reset: the output layer is drawn afresh before every new task, and its moments
    forgotten.

    W_out, b_out <- a new draw of what they were initialized from, all other parameters p <- p.
    With `to` "zero" its weights and biases become 0 instead and the optimizer's memory is kept, as
    in the public code of Joudaki et al. 2025. It is told task boundaries. Source: Nikishin et al.
    2022, who reset the last layers of an agent periodically. Raises ValueError for a network whose
    output layer shares its weights, or another `to`.
    """
    registry.one_of("head_reset.to", to, ("drawn", "zero"))
    if head is None:
        raise ValueError(
            "head_reset needs a network with an output layer of its own: allowed are all but those "
            "that read and write with one embedding, as t5 with t5.head=tied."
        )

    def apply(params, start):
        trees.check_layer("head_reset's head", params, head)
        old, fresh = trees.named(params), trees.named(init(start.key))
        ours = {name: name[: len(head)] == trees.path_of(head) for name in old}
        if to == "zero":
            zeroed = [jnp.zeros_like(v) if ours[name] else v for name, v in old.items()]
            return jax.tree.unflatten(jax.tree.structure(params), zeroed), None
        new = [fresh[name] if ours[name] else value for name, value in old.items()]
        touched = [jnp.full(value.shape, ours[name]) for name, value in old.items()]
        structure = jax.tree.structure(params)
        return jax.tree.unflatten(structure, new), jax.tree.unflatten(structure, touched)

    return lifting.Boundary(apply)


def full_reset(init: Callable[[Key], PyTree]) -> lifting.Boundary:
    """Full reset: all parameters are drawn afresh before every new task, and all moments forgotten.

    p <- a new draw of what p was initialized from, every parameter.
    It is told task boundaries. What else a network keeps stays: running statistics of batch norm,
    and Adam's step count, which `full_reset+optimizer_reset` sets back too: each task is then
    learned as by a new network. Anchors (`l2_init`) and distances (`distance_from_init`) remain
    those of the first network. Source: the usual upper control, as in Dohare et al. 2024.
    """

    def apply(params, start):
        old, fresh = trees.named(params), trees.named(init(start.key))
        if missing := ["/".join(name) for name in old if name not in fresh]:
            raise ValueError(
                f"full_reset's init draws no {', '.join(map(repr, missing))}: allowed is one that "
                "draws all parameters."
            )
        new = [fresh[name].astype(value.dtype) for name, value in old.items()]
        after = jax.tree.unflatten(jax.tree.structure(params), new)
        return after, jax.tree.map(lambda p: jnp.ones(p.shape, bool), params)

    return lifting.Boundary(apply)


@registry.checked
def clip(*, norm: Number = 1.0) -> Method:
    """Gradient clipping: the whole gradient, penalties included, scaled down to at most `norm`.

    g <- g min(1, norm / ||g||_2). Source: Pascanu et al. 2013.
    """

    def method(optimizer: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
        inner = lifting.extended(optimizer)
        clipping = optax.clip_by_global_norm(norm)

        def update(updates, state, params=None, **extra):
            clipped, _ = clipping.update(updates, optax.EmptyState())
            return inner.update(clipped, state, params, **extra)

        return optax.GradientTransformationExtraArgs(inner.init, update)

    return method


def optimizer_reset() -> Method:
    """Optimizer reset: the optimizer starts afresh (moments and step counts) at every task change;
    weights are kept.

    p <- p, s <- init(p) for the state s of the optimizer.
    It is told task boundaries. Acts before the first update of the new task; what other methods
    remember is kept, numbers that were changed in the state of optax.inject_hyperparams are not.
    Source: Liu & Mou's public code re-creates AdamW every task in some arms; Asadi et al. 2023 for
    reinforcement learning.
    """

    def method(optimizer: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
        inner = lifting.extended(optimizer)

        def update(updates, state, params=None, *, ctx=None, **extra):
            if ctx is None or params is None:
                raise ValueError("optimizer_reset needs update(..., params, ctx=Context(...)).")

            def afresh(new, old):
                return old if new is lifting.KEPT else lifting.replaced(ctx.boundary, new, old)

            fresh = jax.tree.map(afresh, lifting.own_state(inner, params), state)
            return inner.update(updates, fresh, params, ctx=ctx, **extra)

        return optax.GradientTransformationExtraArgs(inner.init, update)

    return method
