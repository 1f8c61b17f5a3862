"""A Spec's model as pure functions, bound to the shape of its data."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from plasticity_jax import models
from plasticity_jax.models import layers
from plasticity_jax.precision import PRECISIONS, Precision, cast
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
    bound = _Bound(model, PRECISIONS[spec.precision], environment, data)
    return Network(
        init=bound.init,
        apply=bound.apply,
        view=bound.view,
        structure=Structure(model.units(), bound.fresh, models.head(model)),
        linear=frozenset(getattr(model, "LINEAR_GROUPS", ())),
        generate=bound.generate,
        products=bound.precision.products,
        activation=models.ACTIVATIONS.get(getattr(model, "activation", "")),
        unit_gradients=bound.unit_gradients,
    )


class _Bound(NamedTuple):
    """A model and what it is bound to, with the functions of its `Network`."""

    model: Any
    precision: Precision
    environment: Environment
    data: Data

    def init(self, key: Key) -> PyTree:
        drawn = self.drawn(key)
        return self.model.load(drawn) if getattr(self.model, "pretrained", "") else drawn

    def fresh(self, key: Key) -> PyTree:
        """Parameters that are drawn anew."""
        return self.drawn(key)["params"]

    def drawn(self, key: Key) -> PyTree:
        """Parameters and other collections as they are drawn, for inputs of the data's shape."""
        shapes = jax.eval_shape(self.example).x
        x = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)
        made = self.model.init(key, x, False)
        return {name: values for name, values in made.items() if name not in SOWN}

    def example(self) -> Batch:
        """Some example."""
        task = self.environment.task(jax.random.key(0), self.data, jnp.int32(0))
        return self.environment.examples(self.data, task, jnp.zeros(1, jnp.int32))

    def apply(
        self, params: PyTree, variables: PyTree, x: Any, train: bool, key: Key | None = None
    ) -> tuple[Array, Mapping[str, Array], PyTree]:
        mutable = ["hidden", *(variables if train else ())]
        params, x = cast((params, x), self.precision.dtype if train else jnp.float32)
        collections, noise = {"params": params, **variables}, self.noise(train, key)
        logits, changed = self.model.apply(collections, x, train, mutable=mutable, rngs=noise)
        # (one by one: jax.tree.map would sort the groups by name, and the last one is the last
        # hidden layer)
        hidden = {name: cast(changed["hidden"][name], jnp.float32) for name in self.model.groups()}
        kept = {name: changed.get(name, old) for name, old in variables.items()}
        return cast(logits, jnp.float32), hidden, kept

    def noise(self, train: bool, key: Key | None) -> dict[str, Key | None]:
        """The keys that the model draws from: of what is dropped, and of weights' noise."""
        drops, noisy = getattr(self.model, "dropout", 0.0) > 0, getattr(self.model, "noisy", False)
        keys = {"dropout": key} if drops and train else {}
        if noisy and key is not None:
            keys[layers.NOISE] = key
        return keys

    def view(self, params: PyTree, variables: PyTree, batch: Batch, initial: PyTree) -> View:
        collections = {"params": params, **variables}
        logits, changed = self.model.apply(collections, batch.x, False, mutable=SOWN)
        found, groups = changed.get("preactivations", {}), self.model.groups()
        hidden = {group: changed["hidden"][group] for group in groups}
        before = {group: found[group] for group in groups if group in found}
        return View(batch, logits, hidden, before, params, initial)

    def generate(self, params: PyTree, variables: PyTree, source: Array, how: Decoding) -> Array:
        collections = {"params": params, **variables}
        cache = self.model.apply(collections, source, how.length, method="start")

        def step(cache: PyTree, ids: Array, position: Array) -> Any:
            return self.model.apply(collections, cache, ids, position, method="step")

        settings = {"count": len(source), "start": how.start, "end": how.end, "length": how.length}
        if how.beams == 1:
            return decoding.greedy(step, cache, **settings)
        return decoding.beam(step, cache, **settings, beams=how.beams)

    def unit_gradients(
        self, loss: Callable[[Array], Array], params: PyTree, variables: PyTree, x: Any
    ) -> dict[str, Array]:
        collections = {"params": params, **variables}
        sown = jax.eval_shape(lambda: self.model.apply(collections, x, False, mutable=SOWN)[1])
        hidden, before = sown["hidden"], sown.get("preactivations", {})
        # (activations that are pooled before they are read are not those that the function made)
        made = [g for g in before if hidden[g].shape[:-1] == before[g].shape[:-1]]

        def of_shifts(shifts: PyTree) -> Array:
            return loss(self.model.apply({**collections, "shifts": shifts}, x, False))

        found = jax.grad(of_shifts)({g: jnp.zeros(hidden[g].shape) for g in made})
        return {group: found[group] for group in self.model.groups() if group in made}
