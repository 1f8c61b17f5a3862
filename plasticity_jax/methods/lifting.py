"""The two ways in which nearly every intervention joins an optimizer, and how interventions compose.

A method is a function optimizer -> optimizer, so it works in anyone's optax loop: pass `ctx=Context(...)` to `update`.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from plasticity_jax.types import Array, Context, Method, Number, Optimizer, PyTree


class Penalty(NamedTuple):
    """A term of the loss that depends on the parameters only: adds strength * gradient(value) ahead of the optimizer.

    Attributes:
      value: (params, memory) -> [] the term without its strength.
      strength: [] factor.
      init: params -> memory (an anchor, singular vectors, ...).
      advance: (memory, params) -> memory, once a step, before the gradient is taken.
    """

    value: Callable[[PyTree, Any], Array]
    strength: Number
    init: Callable[[PyTree], Any] = lambda params: ()
    advance: Callable[[Any, PyTree], Any] = lambda memory, params: memory

    def __call__(self, optimizer: optax.GradientTransformation) -> Optimizer:
        """Returns `optimizer` fed with the gradient of loss plus penalty; optimizer moments see the sum."""

        def update(updates, state, params=None, **_):
            memory = self.advance(state, params)
            gradient = jax.grad(self.value)(params, memory)
            return jax.tree.map(lambda u, g: u + self.strength * g, updates, gradient), memory

        return optax.chain(optax.GradientTransformationExtraArgs(lambda params: self.init(params), update), optimizer)


class RewriteState(NamedTuple):
    """State of a Rewrite: the wrapped optimizer's own, and what the method remembers."""

    inner: PyTree
    memory: Any


class Rewrite(NamedTuple):
    """A change of the parameters themselves, at some steps, right after the optimizer's update.

    Attributes:
      apply: (params, ctx, memory) -> (params, touched, memory). `touched` is a tree of bool arrays like params: the
        optimizer's moments there are set to zero (step counts are kept, so Adam's first step of a touched weight is
        about 3.2 x its learning rate).
      when: ctx -> [] bool. Must depend on the clock only, so that it stays one branch for all lanes.
      init: () -> memory.
      observe: (memory, ctx) -> memory, at every step.
    """

    apply: Callable[[PyTree, Context, Any], tuple[PyTree, PyTree, Any]]
    when: Callable[[Context], Array]
    init: Callable[[], Any] = lambda: ()
    observe: Callable[[Any, Context], Any] = lambda memory, ctx: memory

    def __call__(self, optimizer: optax.GradientTransformation) -> Optimizer:
        """Returns `optimizer` followed by the rewrite. Give it the bare optimizer: every params-shaped part of its state
        counts as a moment, so a penalty with an anchor belongs outside (`compose` sees to that).
        """

        optimizer = optax.with_extra_args_support(optimizer)

        def init(params):
            return RewriteState(optimizer.init(params), self.init())

        def update(updates, state, params=None, *, ctx=None, **extra):
            if ctx is None or params is None:
                raise ValueError("a method that rewrites parameters needs update(..., params, ctx=Context(...)).")
            updates, inner = optimizer.update(updates, state.inner, params, ctx=ctx, **extra)
            memory = self.observe(state.memory, ctx)

            def rewritten():
                stepped = optax.apply_updates(params, updates)
                after, touched, remembered = self.apply(stepped, ctx, memory)
                # what the rewrite left alone keeps its update to the bit
                moved = jax.tree.map(lambda u, p, s, a: jnp.where(a == s, u, a - p), updates, params, stepped, after)
                forgotten = optax.tree.map_params(optimizer, lambda m, t: jnp.where(t, 0, m), inner, touched)
                return moved, RewriteState(forgotten, remembered)

            return jax.lax.cond(self.when(ctx), rewritten, lambda: (updates, RewriteState(inner, memory)))

        return optax.GradientTransformationExtraArgs(init, update)


def compose(*methods: Method) -> Method:
    """Returns the methods as one: what wraps the bare optimizer innermost, then rewrites, then penalties, each as given."""

    def layer(method: Method) -> int:
        return (Rewrite, Penalty).index(type(method)) + 1 if isinstance(method, Rewrite | Penalty) else 0

    ordered = sorted(methods, key=layer)  # (stable)

    def composed(optimizer: optax.GradientTransformation) -> Optimizer:
        bare = optax.with_extra_args_support(optimizer)
        # named so that a profile tells the optimizer from what is around it
        start = optax.GradientTransformationExtraArgs(bare.init, jax.named_scope("optimizer")(bare.update))
        return functools.reduce(lambda wrapped, method: method(wrapped), ordered, start)

    return composed


def untouched(params: PyTree) -> PyTree:
    """Returns a mask like `params` that is False everywhere."""
    return jax.tree.map(lambda p: jnp.zeros(p.shape, bool), params)


def every(period: int, warmup: int = 0) -> Callable[[Context], Array]:
    """Returns a predicate, true at the step that makes the number of steps taken a multiple of `period` >= `warmup`."""
    return lambda ctx: ((ctx.step + 1) % period == 0) & (ctx.step + 1 >= warmup)


def at_boundary(ctx: Context) -> Array:
    """Returns whether this is the first step of a new task."""
    return ctx.boundary
