"""States to save, and whether two are the same."""

import jax
import numpy as np


def small(step: int) -> dict:
    """A tree that differs in every step, with leaves large enough to be found in the files."""
    random = np.random.default_rng(step)
    return {
        "state": {"w": random.normal(size=(12, 40)).astype(np.float32), "count": np.uint32(step)},
        "history": {"loss": random.normal(size=(step, 3)).astype(np.float32)},
    }


def like(step: int = 0) -> dict:
    """What to restore a `small` tree with: the state must fit, the history comes as it was
    saved.
    """
    return small(step) | {"history": {}}


def assert_same(got, want):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for left, right in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        right = np.asarray(right)
        assert isinstance(left, np.ndarray)
        assert (left.dtype, left.shape) == (right.dtype, right.shape)
        assert left.tobytes() == right.tobytes()
