"""A yardstick: the same training as a bare script in JAX, of the library only the precisions; one
lane, steps in a scan.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.worker import CLASSES, SAMPLES, Go, images_and_labels, precision, set_up_jax
from plasticity_jax.precision import PRECISIONS, cast


def training(batch_size: int, epochs: int, width: int = 256, depth: int = 4) -> Go:
    """Trains one lane for `epochs` epochs a call. Work: steps.

    Images are normalised in advance and targets fixed; the accuracy of each batch is computed,
    nothing is evaluated.
    """
    set_up_jax()
    images, labels = images_and_labels()
    pixels = images.reshape(SAMPLES, -1).astype(np.float32)
    x = jnp.asarray((pixels - pixels.mean()) / pixels.std())
    y = jnp.asarray(0.9 * np.eye(CLASSES, dtype=np.float32)[labels] + 0.1 / CLASSES)
    sizes = [x.shape[1], *[width] * depth, CLASSES]
    random, adam, steps = np.random.default_rng(0), optax.adam(1e-3), SAMPLES // batch_size
    params = [
        {
            "w": jnp.asarray(random.uniform(-1, 1, (before, after)) * before**-0.5, jnp.float32),
            "b": jnp.zeros(after),
            "scale": jnp.ones(after),
            "offset": jnp.zeros(after),
        }
        for before, after in itertools.pairwise(sizes)
    ]

    arithmetic = PRECISIONS[precision()]

    def logits(params, x):
        for layer in params[:-1]:
            x = x @ layer["w"] + layer["b"]
            centred = x - x.mean(-1, keepdims=True)
            x = centred * jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
            x = jax.nn.relu(x * layer["scale"] + layer["offset"])
        return x @ params[-1]["w"] + params[-1]["b"]

    def loss(params, x, y):
        with jax.default_matmul_precision(arithmetic.products):
            out = logits(cast(params, arithmetic.dtype), x.astype(arithmetic.dtype)).astype(
                jnp.float32
            )
        return optax.softmax_cross_entropy(out, y).mean(), (out.argmax(-1) == y.argmax(-1)).mean()

    def step(carry, index):
        params, state = carry
        (_, accuracy), gradient = jax.value_and_grad(loss, has_aux=True)(params, x[index], y[index])
        updates, state = adam.update(gradient, state)
        return (optax.apply_updates(params, updates), state), accuracy

    def epoch(carry, key):
        order = jax.random.permutation(key, SAMPLES)[: steps * batch_size].reshape(
            steps, batch_size
        )
        carry, accuracy = jax.lax.scan(step, carry, order)
        return carry, accuracy.mean()

    train = jax.jit(
        lambda carry, key: jax.lax.scan(epoch, carry, jax.random.split(key, epochs)),
        donate_argnums=0,
    )
    carry, key = (params, adam.init(params)), jax.random.key(0)

    def go():
        nonlocal carry, key
        key, used = jax.random.split(key)
        carry, accuracy = train(carry, used)
        accuracy.block_until_ready()
        return float(steps * epochs)

    return go
