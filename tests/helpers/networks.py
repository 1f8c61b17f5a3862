"""What the tests of convolutional networks share: parameters that are all drawn, and quick
compilation.
"""

import jax
import numpy as np


def drawn(net, x, random, centre):
    """(params, other collections) of `net` with every value drawn by `random`, of a size that keeps
    activations of order 1.

    Kernels are centred at 0, so that no norm has to take the difference of large numbers, vectors
    at `centre`.
    """
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), x))

    def draw(p):
        middle, spread = (
            (0.0, np.sqrt(2 / np.prod(p.shape[:-1]))) if len(p.shape) > 1 else (centre, 0.3)
        )
        return random.normal(middle, spread, p.shape).astype(np.float32)

    params = jax.tree.map(draw, shapes["params"])
    statistics = jax.tree.map(
        lambda p: np.float32(0.5) + random.random(p.shape, np.float32),
        shapes.get("batch_stats", {}),
    )
    return params, {"batch_stats": statistics} if statistics else {}


def quickly(function, *arguments):
    """The function's result, compiled without optimization, which takes a fraction of the time."""
    lowered = jax.jit(function).lower(*arguments)
    return lowered.compile(compiler_options={"xla_backend_optimization_level": 0})(*arguments)
