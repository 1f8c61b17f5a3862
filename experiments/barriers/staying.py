"""Do clones of MLP, CNN, ResNet-18 and ViT stay clones, and does a certificate say so beforehand?

Question: exact clones are trained on by gradient descent, momentum, Adam and AdamW, by gradient
descent with noise, and with dropout. How far are they from the manifold of clones in the end? Does
the certificate of invariance tell, the share of the first change that is normal to the manifold?
Source: Joudaki et al., section 4, whose proposition is of gradient descent and whose remark expects
other optimizers to break it; the four networks at a small size, on scikit-learn's digits or the
images of --dataset, are ours.
Command: python -m experiments.barriers.staying --workdir=runs/staying [--scale=smoke]
    [--dataset=cifar10]
Cost: minutes on two cores, most of them to compile.
Rule: clones are foretold to part if the certificate is above 1e-4, and have parted if their
distance is above 1e-4 of the parameters' norm.
Writes: staying.csv, a row for each network, way of training and seed; .png.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import computation
from plasticity_jax import datasets, manifolds, models
from plasticity_jax.reporting import curves
from plasticity_jax.storage import writing
from plasticity_jax.surgery import clone
from plasticity_jax.types import Array, Key, PyTree, Recipient, TrainState

EDGE = 1e-4  # of the certificate, and of a distance
NOISE, DROPOUT, RATE = 0.01, 0.1, 0.01
DECAY = 0.01  # of AdamW


class Scale(NamedTuple):
    """How much is done.

    Attributes:
      networks: names of `made`.
      seeds: of each.
      steps: of training.
      examples: images in a batch; a new batch for every step.
    """

    networks: tuple[str, ...] = ("mlp", "cnn", "resnet18", "vit")
    seeds: int = 3
    steps: int = 50
    examples: int = 32


SCALES = {"full": Scale(), "smoke": Scale(("mlp",), 1, 3, 16)}


class Way(NamedTuple):
    """A way of training: an optimizer, the share of activations dropped."""

    optimizer: optax.GradientTransformation
    dropout: float = 0.0


def noise(scale: float) -> optax.GradientTransformation:
    """Returns what adds to each number of a gradient g noise of deviation `scale` |g|, |g| the norm
    of its tensor; the paper's noisy gradient descent.
    """

    def update(updates: Any, key: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        now, key = jax.random.split(key)
        leaves, structure = jax.tree.flatten(updates)
        drawn = []
        for leaf, own in zip(leaves, jax.random.split(now, len(leaves)), strict=True):
            size = scale * jnp.linalg.norm(leaf)
            drawn.append(leaf + size * jax.random.normal(own, leaf.shape, leaf.dtype))
        return jax.tree.unflatten(structure, drawn), key

    changed: Any = update
    return optax.GradientTransformation(lambda params: jax.random.key(0), changed)


WAYS = {
    "gradient descent": Way(optax.sgd(RATE)),
    "momentum": Way(optax.sgd(RATE, 0.9)),
    "Adam": Way(optax.adam(1e-3)),
    "AdamW": Way(optax.adamw(1e-3, weight_decay=DECAY)),
    "noise": Way(optax.chain(noise(NOISE), optax.sgd(RATE))),
    "dropout": Way(optax.sgd(RATE), DROPOUT),
}


def made(name: str) -> Any:
    """Returns a small network of ten outputs."""
    return {
        "mlp": models.MLP(10, width=16, depth=3, norm="batch"),
        "cnn": models.CNN(10, norm="batch", base=4, dense=16),
        "resnet18": models.ResNet18(10, norm="batch", base=4),
        "vit": models.ViT(10, "layer", patch=4, embedding=12, blocks=2, heads=3, dropout=0.0),
    }[name]


class Cloned(NamedTuple):
    """A cloned network: what is trained, other collections, and the manifold of its clones."""

    net: Any
    params: PyTree
    variables: PyTree
    manifold: manifolds.Clones


def cloned(name: str, key: Key, x: Array) -> Cloned:
    """Returns a network drawn with `key`, each of its units twice."""
    narrow, surgery = made(name), clone(factor=2)
    assert surgery.model is not None
    wide = surgery.model(narrow)
    state, into = _state(narrow, key, x), jax.eval_shape(lambda: _state(wide, key, x))
    after = surgery.operate(key, state, Recipient(wide, lambda: into))
    manifold = manifolds.of_widening(state.params, after.params, 2)
    return Cloned(wide, after.params, after.variables, manifold)


def _state(net: Any, key: Key, x: Array) -> TrainState:
    drawn = net.init(key, x)
    known = {name: drawn[name] for name in drawn if name in ("params", "batch_stats")}
    params = known.pop("params")
    return TrainState(params, known, params, ())


def stepping(net: Any, way: Way) -> Any:
    """Returns the compiled step: (params, other collections, optimizer's state, batch, key) ->
    (params, state, updates).
    """
    net = net.clone(dropout=way.dropout)

    def loss(params: PyTree, variables: PyTree, batch: tuple[Array, Array], key: Key) -> Array:
        x, y = batch
        collections = {"params": params, **variables}
        rngs = {"dropout": key} if way.dropout else {}
        logits, _ = net.apply(collections, x, True, mutable=[*variables, "hidden"], rngs=rngs)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    @jax.jit
    def step(params: PyTree, variables: PyTree, state: Any, batch: Any, key: Key) -> tuple:
        gradient = jax.grad(loss)(params, variables, batch, key)
        updates, state = way.optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, updates

    return step


def run(one: Cloned, way: Way, step: Any, batches: Sequence[Any], key: Key) -> tuple:
    """Returns the share of the first change that is normal to the manifold, and the distance from
    it after a step on each batch, over the norm of the parameters.
    """
    params, state, first = one.params, way.optimizer.init(one.params), None
    for number, batch in enumerate(batches):
        own = jax.random.fold_in(key, number)
        params, state, updates = step(params, one.variables, state, batch, own)
        first = updates if first is None else first
    certificate = manifolds.normal_fraction(one.manifold, first)
    away = manifolds.distance(one.manifold, params) / optax.tree.norm(params)
    return float(certificate), float(away)


def batches_of(dataset: str, count: int, examples: int) -> list[tuple[Array, Array]]:
    """Returns `count` batches of the first images [examples, H, W, C], normalized, and their
    classes. Raises DataError.
    """
    data = datasets.load(dataset)
    found = []
    for number in range(count):
        place = [(number * examples + i) % len(data.labels) for i in range(examples)]
        x = (data.images[place] - np.array(data.mean)) / np.array(data.std)
        found.append((jnp.asarray(x, jnp.float32), jnp.asarray(data.labels[place], jnp.int32)))
    return found


def compute(folder: Path, name: str, dataset: str) -> str:
    """Writes the table and the picture; returns the table over seeds. Raises DataError."""
    import pandas as pd

    scale, rows = SCALES[name], []
    batches = batches_of(dataset, scale.steps, scale.examples)
    folder.mkdir(parents=True, exist_ok=True)
    for network in scale.networks:
        keys = [jax.random.key(seed) for seed in range(scale.seeds)]
        clones = [cloned(network, key, batches[0][0]) for key in keys]
        for said, way in WAYS.items():
            step = stepping(clones[0].net, way)
            for seed, (one, key) in enumerate(zip(clones, keys, strict=True)):
                certificate, away = run(one, way, step, batches, key)
                own = {"network": network, "training": said, "seed": seed}
                rows.append({**own, "certificate": certificate, "distance": away})
    table: Any = pd.DataFrame(rows)
    table["foretold"] = table["certificate"] > EDGE
    table["parted"] = table["distance"] > EDGE
    writing.text(folder / "staying.csv", table.to_csv(index=False))
    picture(table, folder / "staying.png")
    right = int((table["foretold"] == table["parted"]).sum())
    most = table.groupby(["network", "training"], sort=False)[["certificate", "distance"]].max()
    return f"{most.to_string(float_format='{:.1e}'.format)}\n{right} of {len(table)} foretold."


def picture(table: Any, path: Path) -> None:
    """Draws distance against certificate."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for (network, rows), mark in zip(table.groupby("network", sort=False), "os^D", strict=False):
        ends = rows[["certificate", "distance"]].clip(lower=1e-9)
        axes.loglog(ends["certificate"], ends["distance"], mark, label=network, alpha=0.7)
    axes.axvline(EDGE, color="0.6", linewidth=1)
    axes.axhline(EDGE, color="0.6", linewidth=1)
    axes.set_xlabel("share of the first change that is normal to the manifold")
    axes.set_ylabel("distance from it in the end")
    axes.legend(frameon=False)
    curves.store_figure(figure, path)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs it from the command line and returns the exit code."""
    own, checks = {"dataset": "digits"}, {"dataset": datasets.check_name}
    return computation.main(__doc__ or "", SCALES, compute, argv, own, checks)


if __name__ == "__main__":
    sys.exit(main())
