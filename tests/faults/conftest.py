"""What all tests of faults share."""

import os
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """That of a process of this checkout, with a compilation cache of its own."""
    cache = tmp_path_factory.mktemp("cache")
    return {**os.environ, "PYTHONPATH": str(ROOT), "PLASTICITY_CACHE_DIR": str(cache)}
