"""A Spec's model as pure functions, bound to the shape of its data."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from plasticity_jax import models
from plasticity_jax.models import layers
from plasticity_jax.precision import PRECISIONS, cast
from plasticity_jax.spec import Spec
from plasticity_jax.text import decoding
from plasticity_jax.types import (
    Array,
    Batch,
    Data,
    Decoding,
    Environment,
    Key,
    PyTree,
    Structure,
    View,
)

SOWN = ["hidden", "preactivations"]  # collections that are read and not kept


class Network(NamedTuple):
    """A model bound to the shape of its data.

    Attributes:
      init: key -> {"params": .., other collections}, as the model starts: drawn, or a checkpoint's.
      apply: (params, other collections, x, train, key of what is dropped and of weights' noise, or
        None) -> (logits, {group:
        activations in the order of the layers}, other collections), all float32; computed in the
        Spec's precision if `train`.
      structure: what methods may know of it.
      view: (params, other collections, batch, initial params) -> View in evaluation mode.
      linear: groups of activations that no activation function made.
      generate: (params, other collections, source [B, S], Decoding) -> ids [B, length], of sequence
        models.
      products: precision of matrix products in a training step, as in `Precision`.
      activation: the activation function; None of a model that does not say.
      unit_gradients: (loss of logits, params, other collections, x) -> {group: [B, ..., H] gradient
        by the activations}, of groups that an activation function made, in evaluation mode.
    """

    init: Callable[[Key], PyTree]
    apply: Callable[..., tuple[Array, Mapping[str, Array], PyTree]]
    view: Callable[[PyTree, PyTree, Batch, PyTree], View]
    structure: Structure
    linear: frozenset[str]
    generate: Callable[[PyTree, PyTree, Array, Decoding], Array]
    products: str
    activation: Callable[[Array], Array] | None = None
    unit_gradients: Callable[..., Mapping[str, Array]] | None = None


def network(spec: Spec, environment: Environment, data: Data) -> Network:
    """Returns the Spec's model for the examples that `environment` makes of `data`, as pure
    functions.
    """
    model = spec.make_model(environment.outputs(data))
    groups, precision = model.groups(), PRECISIONS[spec.precision]

    def example():
        task = environment.task(jax.random.key(0), data, jnp.int32(0))
        return environment.examples(data, task, jnp.zeros(1, jnp.int32))

    def drawn(key):
        x = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(example).x)
        return {k: v for k, v in model.init(key, x, False).items() if k not in SOWN}

    drops, noisy = getattr(model, "dropout", 0.0) > 0, getattr(model, "noisy", False)

    def apply(params, variables, x, train, key=None):
        mutable = ["hidden", *(variables if train else ())]
        params, x = cast((params, x), precision.dtype if train else jnp.float32)
        noise = {"dropout": key} if drops and train else {}
        if noisy and key is not None:
            noise[layers.NOISE] = key
        collections = {"params": params, **variables}
        logits, changed = model.apply(collections, x, train, mutable=mutable, rngs=noise)
        # (one by one: jax.tree.map would sort the groups by name, and the last one is the last
        # hidden layer)
        hidden = {group: cast(changed["hidden"][group], jnp.float32) for group in groups}
        return (
            cast(logits, jnp.float32),
            hidden,
            {k: changed.get(k, v) for k, v in variables.items()},
        )

    def view(params, variables, batch, initial):
        logits, changed = model.apply({"params": params, **variables}, batch.x, False, mutable=SOWN)
        found = changed.get("preactivations", {})
        before = {group: found[group] for group in groups if group in found}
        hidden = {group: changed["hidden"][group] for group in groups}
        return View(batch, logits, hidden, before, params, initial)

    def generate(params, variables, source, how):
        collections = {"params": params, **variables}
        cache = model.apply(collections, source, how.length, method="start")

        def step(cache, ids, position):
            return model.apply(collections, cache, ids, position, method="step")

        settings = {"count": len(source), "start": how.start, "end": how.end, "length": how.length}
        if how.beams == 1:
            return decoding.greedy(step, cache, **settings)
        return decoding.beam(step, cache, **settings, beams=how.beams)

    def init(key):
        return model.load(drawn(key)) if getattr(model, "pretrained", "") else drawn(key)

    structure = Structure(model.units(), lambda key: drawn(key)["params"], models.head(model))
    linear = frozenset(getattr(model, "LINEAR_GROUPS", ()))
    activation = models.ACTIVATIONS.get(getattr(model, "activation", ""))
    products = precision.products
    by_units = functools.partial(_unit_gradients, model)
    return Network(init, apply, view, structure, linear, generate, products, activation, by_units)


def _unit_gradients(
    model: Any, loss: Callable[[Array], Array], params: PyTree, variables: PyTree, x: Any
) -> dict[str, Array]:
    """What `Network.unit_gradients` returns."""
    collections = {"params": params, **variables}
    sown = jax.eval_shape(lambda: model.apply(collections, x, False, mutable=SOWN)[1])
    hidden, before = sown["hidden"], sown.get("preactivations", {})
    # (activations that are pooled before they are read are not those that the function made)
    made = [g for g in before if hidden[g].shape[:-1] == before[g].shape[:-1]]

    def of_shifts(shifts: PyTree) -> Array:
        return loss(model.apply({**collections, "shifts": shifts}, x, False))

    found = jax.grad(of_shifts)({g: jnp.zeros(hidden[g].shape) for g in made})
    return {group: found[group] for group in model.groups() if group in made}
