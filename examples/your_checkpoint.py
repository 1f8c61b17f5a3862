"""Your checkpoints: probes on a network that was trained elsewhere.

Run: python examples/your_checkpoint.py (seconds)

The functions in `pj.probes` take plain arguments: a loss, a tree of parameters, activations. So a
network needs no more than to be read into arrays and a function that applies it. Here five
checkpoints are written by a loop without this package, as .npz files, and looked at afterwards.
"""

import itertools
import pathlib
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
from sklearn.datasets import load_digits

import plasticity_jax as pj

SIZES = (64, 100, 100, 10)
images, labels = load_digits(return_X_y=True)
x, y = jnp.asarray(images[:512] / 16, jnp.float32), jnp.asarray(labels[:512])


def apply(params, x):
    """Returns logits and the activations of every hidden layer."""
    hidden = {}
    for layer in range(len(SIZES) - 2):
        x = jax.nn.relu(x @ params[f"kernel{layer}"] + params[f"bias{layer}"])
        hidden[f"layer{layer}"] = x
    return x @ params["kernel2"] + params["bias2"], hidden


def loss(params):
    """Mean cross-entropy in nats on a fixed batch."""
    logits, _ = apply(params, x)
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def train_and_save(folder):
    """Stands for your own training: gradient descent, with a file before every 50th step."""
    random, params = np.random.default_rng(0), {}
    for layer, (inputs, outputs) in enumerate(itertools.pairwise(SIZES)):
        params[f"kernel{layer}"] = random.normal(0, (2 / inputs) ** 0.5, (inputs, outputs))
        params[f"bias{layer}"] = np.zeros(outputs)
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)
    gradient = jax.jit(jax.grad(loss))
    for step in range(201):
        if step % 50 == 0:
            np.savez(folder / f"step_{step:04}.npz", **params)
        params = jax.tree.map(lambda p, g: p - 0.5 * g, params, gradient(params))


@jax.jit
def measured(params, initial):
    """Returns the probes of one checkpoint; `initial` is the first one."""
    _, hidden = apply(params, x)
    return {
        "loss": loss(params),
        "largest Hessian eigenvalue": pj.probes.hessian_top(loss, params, jax.random.key(0)),
        "dormant units": pj.probes.dormant_fraction(hidden),
        "effective rank": pj.probes.effective_rank(hidden["layer1"]),
        "distance from start": pj.probes.distance_from_init(params, initial),
    }


with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    train_and_save(folder)
    checkpoints = {path.stem: dict(np.load(path)) for path in sorted(folder.glob("*.npz"))}

first = checkpoints["step_0000"]
table = {name: measured(params, first) for name, params in checkpoints.items()}
print(pd.DataFrame(table).astype(float).to_string(float_format="%.3f"))
