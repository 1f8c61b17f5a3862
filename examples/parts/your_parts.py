"""Your parts on the command line: a file that enters one of each kind in its registry.

Run: python -m experiments.run --import=examples/parts/your_parts.py --dataset=blobs \
--environment=swapped_classes --transition=late --model=one_layer --method=sign_noise \
--optimizer=rms --probes=largest_weight --tasks=2 --epochs=4 --seeds=2 --workdir=runs/own (seconds)

Names and settings are flags like all others, and settings that are numbers are axes of a sweep:
--sign_noise.scale=0,1e-3.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import plasticity_jax as pj
from plasticity_jax.environments import classification
from plasticity_jax.types import Number, Share


def blobs(name, data_dir=None, download=False):
    """Two clouds of 8x8 pictures, one brighter than the other."""
    draw = np.random.default_rng(0)
    labels = np.arange(300, dtype=np.int32) % 2
    images = draw.integers(0, 128, (300, 8, 8, 1)) + 64 * labels[:, None, None, None]
    parts = (
        images[:256].astype(np.uint8),
        labels[:256],
        images[256:].astype(np.uint8),
        labels[256:],
    )
    found = pj.datasets.contract.fingerprint(parts)
    return pj.datasets.Dataset(name, "drawn", found, 2, *parts, mean=(96.0,), std=(48.0,))


def swapped_classes(*, chance: Share = 0.5) -> pj.Environment:
    """In every task the two classes change places or not."""

    def task(key, data, t):
        return jax.random.bernoulli(jax.random.fold_in(key, t), chance)

    def examples(data, swapped, index):
        x = classification.normalise(data.x[index], data.mean, data.std)
        return classification.batch(x, data.y[index] ^ swapped, data.classes)

    accuracy = (classification.ACCURACY,)
    return pj.Environment(
        task, examples, None, "inputs", loss=classification.cross_entropy, metrics=accuracy
    )


def late(old, new, alpha, rank):
    """The old targets up to the middle of the transition, then the new ones."""
    return new._replace(y=jnp.where(alpha < 0.5, old.y, new.y))


class Linear(nn.Module):
    """Logits that are linear in the picture."""

    outputs: int

    @nn.compact
    def __call__(self, x, train=False):
        """Returns logits [B, outputs]."""
        x = x.reshape(len(x), -1)
        self.sow("hidden", "inputs", x)
        return nn.Dense(self.outputs, name="head")(x)

    def groups(self):
        """Returns the names of the groups of activations."""
        return ["inputs"]

    def units(self):
        """Returns no units that a method could recycle."""
        return {}


def one_layer(outputs: int) -> Linear:
    """A single dense layer."""
    return Linear(outputs)


def sign_noise(*, scale: Number = 1e-3) -> pj.methods.Rewrite:
    """Adds scale times a random sign to every parameter at the start of a task."""

    def apply(params, ctx, memory):
        leaves, tree = jax.tree.flatten(params)
        keys = jax.random.split(ctx.key, len(leaves))
        signs = [
            jax.random.rademacher(k, p.shape, p.dtype) for k, p in zip(keys, leaves, strict=True)
        ]
        moved = [p + scale * sign for p, sign in zip(leaves, signs, strict=True)]
        return jax.tree.unflatten(tree, moved), None, memory

    return pj.methods.Rewrite(apply, when=lambda ctx, memory: ctx.boundary)


def rms(learning_rate: Number, *, decay: Share = 0.9):
    """RMSProp. Source: Tieleman & Hinton 2012."""
    return optax.rmsprop(learning_rate, decay)


def largest_weight(snapshot: pj.Snapshot) -> jax.Array:
    """Largest absolute parameter."""
    return jnp.stack([jnp.abs(leaf).max() for leaf in jax.tree.leaves(snapshot.params)]).max()


pj.datasets.DATASETS["blobs"] = blobs
pj.environments.ENVIRONMENTS["swapped_classes"] = swapped_classes
pj.transitions.TRANSITIONS["late"] = pj.Transition(late, needs="inputs", targets="distributions")
pj.models.MODELS["one_layer"] = one_layer
pj.methods.METHODS["sign_noise"] = sign_noise
pj.optimizers.OPTIMIZERS["rms"] = rms
pj.probes.PROBES["largest_weight"] = largest_weight
