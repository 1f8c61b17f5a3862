"""The ways in which nearly every intervention joins an optimizer, and how interventions
compose.

A method is a function optimizer -> optimizer, so it works in anyone's optax loop: pass
`ctx=Context(...)` to `update`. What may throw an update away (`optax.MultiSteps`,
`optax.apply_if_finite`) belongs inside a method; see `Context`.
"""

import contextlib
import contextvars
import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from plasticity_jax import registry
from plasticity_jax.types import Array, Context, Method, Number, Optimizer, PyTree, Start, View


class Penalty(NamedTuple):
    """A term of the loss that depends on the parameters only: adds strength * gradient(value) ahead
    of the optimizer.

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
        """Returns `optimizer` fed with the gradient of loss plus penalty; optimizer moments see the
        sum.

        What else `update` is given (a line search's `value`, `grad`, `value_fn`) is passed on as it
        is, without the penalty. Updates keep their dtype.
        """

        def init(params):
            return KEPT if _asked.get() else self.init(params)

        def update(updates, state, params=None, **_):
            if params is None:
                raise ValueError(
                    "a penalty on the parameters needs update(gradient, state, params)."
                )
            if jax.tree.structure(updates) != jax.tree.structure(params):
                raise ValueError(
                    "a penalty needs a gradient in the structure of its parameters; it belongs "
                    "inside what changes that, as "
                    "in optax.lookahead(penalty(optimizer), ...)."
                )
            memory = self.advance(state, params)
            gradient = jax.grad(self.value)(params, memory)

            def with_penalty(u, g):
                return u + jnp.asarray(self.strength * g, u.dtype)

            return jax.tree.map(with_penalty, updates, gradient), memory

        return optax.chain(optax.GradientTransformationExtraArgs(init, update), extended(optimizer))


class Term(NamedTuple):
    """A term of the loss that depends on the network's activations or outputs on the batch.

    It is added inside the objective, so that its forward pass is the training step's own.

    Attributes:
      value: (View of the batch in training mode, memory) -> [] the term without its strength.
      strength: [] factor.
      init: params -> memory (an older network, ...).
      advance: (memory, params) -> memory, once a step, with the parameters before the step.
    """

    value: Callable[[View, Any], Array]
    strength: Number
    init: Callable[[PyTree], Any] = lambda params: ()
    advance: Callable[[Any, PyTree], Any] = lambda memory, params: memory

    def __call__(self, optimizer: optax.GradientTransformation) -> Optimizer:
        """Returns `optimizer`, which also keeps what the term remembers.

        The term itself belongs in the loss: in a loop of one's own, add `objective(terms, state,
        view)`.
        """
        inner = extended(optimizer)

        def init(params):
            return TermState(inner.init(params), Held(KEPT if _asked.get() else self.init(params)))

        def update(updates, state, params=None, **extra):
            updates, rest = inner.update(updates, state.inner, params, **extra)
            return updates, TermState(rest, Held(self.advance(state.held.memory, params)))

        return optax.GradientTransformationExtraArgs(init, update)


class Held(NamedTuple):
    """What a Term remembers."""

    memory: Any


class TermState(NamedTuple):
    """State of a Term: the wrapped optimizer's own, and what the term remembers."""

    inner: PyTree
    held: Held


def objective(terms: Sequence[Term], state: PyTree, view: View) -> Array:
    """Returns the sum of the terms, [], each times its strength; `state` is the optimizer's.

    `terms` are in the order of the composition that `state` belongs to.
    """

    def holds(node: Any) -> bool:
        return isinstance(node, Held)

    held = [node.memory for node in jax.tree.leaves(state, is_leaf=holds) if holds(node)]
    values = [
        term.strength * term.value(view, memory) for term, memory in zip(terms, held, strict=True)
    ]
    return jnp.stack(values).sum()


class Boundary(NamedTuple):
    """A change of the parameters between two tasks, before the first step of the new one.

    Attributes:
      apply: (params, Start) -> (params, touched). `touched` is a tree of bool arrays like params,
        or None for nothing: what the optimizer remembers of a weight that is touched is forgotten,
        as in a Rewrite.
    """

    apply: Callable[[PyTree, Start], tuple[PyTree, PyTree]]

    def __call__(self, optimizer: optax.GradientTransformation) -> Optimizer:
        """Returns `optimizer` as it is. In a loop of one's own call `begin` between two tasks."""
        return extended(optimizer)


def begin(
    boundaries: Sequence[Boundary],
    optimizer: Optimizer,
    params: PyTree,
    state: PyTree,
    start: Start,
) -> tuple[PyTree, PyTree]:
    """Returns parameters and state of `optimizer` after what `boundaries` do before a task."""
    for number, boundary in enumerate(boundaries):
        own = start._replace(key=jax.random.fold_in(start.key, number))
        params, touched = boundary.apply(params, own)
        if touched is not None:
            state = _forgotten(optimizer, state, params, touched)
    return params, state


class RewriteState(NamedTuple):
    """State of a Rewrite: the wrapped optimizer's own, and what the method remembers."""

    inner: PyTree
    memory: Any


class Counted(NamedTuple):
    """What a method that recycles units remembers: how many it has recycled since the start, []
    int32, and the rest.
    """

    units: Array
    memory: Any


def recycled(state: PyTree) -> dict[str, Array]:
    """Returns {"units_reset": [] int32}, how many units methods have recycled since the start, from
    an optimizer's state.

    Empty if none of its methods acts on units.
    """

    def counts(node: Any) -> bool:
        return isinstance(node, Counted)

    found = [node.units for node in jax.tree.leaves(state, is_leaf=counts) if counts(node)]
    return {"units_reset": jnp.stack(found).sum()} if found else {}


class Rewrite(NamedTuple):
    """A change of the parameters themselves, at some steps, right after the optimizer's update.

    Attributes:
      apply: (params, ctx, memory) -> (params, touched, memory). `touched` is a tree of bool arrays
        like params, or None for nothing: what the optimizer remembers of a weight that is touched
        becomes what its `init` gives for the weight's new value, so moments become zero. Step
        counts are kept, so Adam's first step of a touched weight is about 3.2 x its learning rate.
        What has another shape than the weight (adafactor's factors) is left alone.
      when: (ctx, memory) -> [] bool. One that depends on the clock only stays one branch for all
        lanes; where it depends on data, vmapped lanes compute both sides.
      init: params -> memory.
      observe: (memory, ctx, params) -> memory, at every step, with the parameters after the
        optimizer's update.
    """

    apply: Callable[[PyTree, Context, Any], tuple[PyTree, PyTree, Any]]
    when: Callable[..., Array]
    init: Callable[[PyTree], Any] = lambda params: ()
    observe: Callable[[Any, Context, PyTree], Any] = lambda memory, ctx, params: memory

    def __call__(self, optimizer: optax.GradientTransformation) -> Optimizer:
        """Returns `optimizer` followed by the rewrite.

        Everything params-shaped in the optimizer's state counts as a moment, except what other
        methods of this package remember. A function of your own that remembers something of each
        parameter, such as a bound for its gradient, is told from the optimizer by `compose`.
        """

        optimizer = extended(optimizer)

        def init(params):
            return RewriteState(optimizer.init(params), KEPT if _asked.get() else self.init(params))

        def update(updates, state, params=None, *, ctx=None, **extra):
            if ctx is None or params is None:
                raise ValueError(
                    "a method that rewrites parameters needs update(..., params, ctx=Context(...))."
                )
            updates, inner = optimizer.update(updates, state.inner, params, ctx=ctx, **extra)
            memory = self.observe(state.memory, ctx, optax.apply_updates(params, updates))

            def rewritten():
                # computed again where it is needed, rather than kept at every step
                stepped = optax.apply_updates(params, updates)
                after, touched, remembered = self.apply(stepped, ctx, memory)

                def move(u, p, s, a):
                    # what the rewrite left alone keeps its update to the bit
                    return jnp.where(a == s, u, a - p).astype(u.dtype)

                moved = jax.tree.map(move, updates, params, stepped, after)
                kept = inner if touched is None else _forgotten(optimizer, inner, after, touched)
                return moved, RewriteState(kept, remembered)

            return jax.lax.cond(
                self.when(ctx, memory), rewritten, lambda: (updates, RewriteState(inner, memory))
            )

        return optax.GradientTransformationExtraArgs(init, update)


def compose(*methods: Method) -> Method:
    """Returns the methods as one: what wraps the bare optimizer innermost, then rewrites, then
    penalties, each as given.

    What any of them remembers is its own: rewrites and resets act on the state of the bare
    optimizer alone.

    >>> shrink = pj.methods.shrink_and_perturb(shrink=0.5, noise=0.0)
    >>> optimizer = pj.methods.compose(shrink, pj.methods.l2(strength=0.25))(optax.sgd(1.0))
    >>> params = jnp.array([4.0, -8.0])
    >>> ctx = pj.Context(jax.random.key(0), step=8, boundary=True, hidden={})
    >>> updates, state = optimizer.update(jnp.zeros(2), optimizer.init(params), params, ctx=ctx)
    >>> (params + updates).tolist()  # half by the penalty's gradient, half of that by shrinking
    [1.0, -2.0]
    """

    def layer(method: Method) -> int:
        return (
            (Rewrite, Penalty).index(type(method)) + 1
            if isinstance(method, Rewrite | Penalty)
            else 0
        )

    ordered = sorted(methods, key=layer)  # (stable)

    def composed(optimizer: optax.GradientTransformation) -> Optimizer:
        bare = extended(optimizer)

        def start(params):
            return _Bare(bare.init(params)) if _asked.get() else bare.init(params)

        # named so that a profile tells the optimizer from what is around it
        first = optax.GradientTransformationExtraArgs(
            start, jax.named_scope("optimizer")(bare.update)
        )
        whole = functools.reduce(lambda wrapped, method: method(wrapped), ordered, first)

        def init(params):
            return _unmarked(whole.init(params)) if _asked.get() else whole.init(params)

        return optax.GradientTransformationExtraArgs(init, whole.update)

    return composed


def extended(optimizer: optax.GradientTransformation | optax.MultiSteps) -> Optimizer:
    """Returns `optimizer` as one that takes any extra arguments, of which it is given those that it
    can take.
    """
    if isinstance(optimizer, optax.MultiSteps):
        optimizer = optimizer.gradient_transformation()
    update = optax.with_extra_args_support(optimizer).update
    takes = inspect.signature(update).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in takes.values()):
        return optax.GradientTransformationExtraArgs(optimizer.init, update)

    # (optax.contrib.sam says that it takes any, and does not)
    def given_its_own(updates, state, params=None, **extra):
        return update(
            updates, state, params, **{name: extra[name] for name in extra if name in takes}
        )

    return optax.GradientTransformationExtraArgs(optimizer.init, given_its_own)


# Which part of a state is the optimizer's? The state itself does not say, and what is around a
# method may be anyone's. So `init` is asked: while `_asked` is set, methods give KEPT in place of
# what they remember, and `compose` marks the state of the bare optimizer, outside of which all is
# kept.


class _Kept:
    """A leaf that stands for what a method remembers."""


class _Bare(NamedTuple):
    """The state of the bare optimizer of a composition."""

    state: PyTree


KEPT: Any = _Kept()
_asked = contextvars.ContextVar("asked", default=False)


@contextlib.contextmanager
def _asking() -> Iterator[None]:
    token = _asked.set(True)
    try:
        yield
    finally:
        _asked.reset(token)


def own_state(optimizer: Optimizer, params: PyTree) -> PyTree:
    """Returns `optimizer.init(params)` with a KEPT in place of each part that is no optimizer's but
    a method's memory.
    """
    with _asking():
        return _unmarked(optimizer.init(params))


def replaced(where: Array, new: Array, old: Array) -> Array:
    """Returns `new` where `where` and `old` elsewhere, in the dtype of `old`."""
    chosen = jnp.where(where, new, old)
    return chosen if chosen.dtype == jnp.result_type(old) else chosen.astype(jnp.result_type(old))


def _unmarked(state: PyTree) -> PyTree:
    """Returns the marked parts as they are and KEPT in place of all others; the state itself if
    nothing is marked.
    """

    def ends(node):
        return isinstance(node, _Bare | _PLACEHOLDER)

    if not any(isinstance(node, _Bare) for node in jax.tree.leaves(state, is_leaf=ends)):
        return state
    return jax.tree.map(
        lambda node: node.state if isinstance(node, _Bare) else KEPT, state, is_leaf=ends
    )


def _placeholder() -> PyTree:
    """Returns what optax.tree.map_params gives to `init` in place of parameters."""
    seen = []

    def init(params):
        seen.append(params)
        return params

    optax.tree.map_params(init, lambda part: part, ())
    return seen[0]


_PLACEHOLDER = type(_placeholder())


def _forgotten(optimizer: Optimizer, state: PyTree, params: PyTree, touched: PyTree) -> PyTree:
    """Returns `state` in which all that belongs to a touched weight is as `optimizer.init(params)`
    has it.
    """
    masks = dict(jax.tree_util.tree_leaves_with_path(touched))
    try:
        moments = own_state(optimizer, _placeholder())
    except Exception as error:  # (anyone's code)
        raise ValueError(
            "the moments of touched weights cannot be told: the init of the optimizer does not "
            "take what "
            "optax.tree.map_params gives it (that of optax.flatten does not)."
        ) from error

    def one(path, old, new):
        if path not in masks or not jnp.shape(old) == jnp.shape(new) == masks[path].shape:
            return old
        return replaced(masks[path], new, old)

    def part(found, old, new):
        return (
            jax.tree_util.tree_map_with_path(one, old, new)
            if isinstance(found, _PLACEHOLDER)
            else old
        )

    fresh = own_state(optimizer, params)
    return jax.tree.map(
        part, moments, state, fresh, is_leaf=lambda node: isinstance(node, _PLACEHOLDER)
    )


def untouched(params: PyTree) -> PyTree:
    """Returns a mask like `params` that is False everywhere."""
    return jax.tree.map(lambda p: jnp.zeros(p.shape, bool), params)


def every(period: int | str, warmup: int | str = 0) -> Callable[..., Array]:
    """Returns a predicate, true at the step that makes the number of steps taken a multiple of
    `period` >= `warmup`; both may be "never".

    Raises ValueError for a `period` < 1, and for what is no whole number.
    """
    steps = registry.whole("period", period, 1, never=True)
    first = registry.whole("warmup", warmup, 0, never=True)

    def due(ctx: Context, memory: Any = None) -> Array:
        del memory
        return ((ctx.step + 1) % steps == 0) & (ctx.step + 1 >= first)

    return due


def at_boundary(ctx: Context, memory: Any = None) -> Array:
    """Returns whether this is the first step of a new task."""
    del memory
    return ctx.boundary
