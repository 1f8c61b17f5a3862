"""Settings of JAX for every test, which must be made before any backend starts; PyTorch for the
tests marked oracle.
"""

import atexit
import gc
import os
import signal
import tempfile

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_num_cpu_devices", 2)
# what one test compiled, another of the same process need not compile again; a folder for each
# process, as two that write the same file could read it half written
COMPILED = tempfile.TemporaryDirectory(prefix="plasticity_jax_tests_")
atexit.register(COMPILED.cleanup)
if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):  # as a test's own process is given
    jax.config.update("jax_compilation_cache_dir", COMPILED.name)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
# a suite that nohup began has this signal ignored, as have the runs that it starts; the tests of
# stops send it
signal.signal(signal.SIGHUP, signal.SIG_DFL)


# files that take a minute, which begin first, so that workers end at about the same time
FIRST = (
    "test_contracts",
    "test_lanes",
    "test_launcher",
    "test_precision",
    "test_theory",
    "test_optax",
)


def pytest_ignore_collect(collection_path, config):
    """Files of nothing but oracles are not read where no oracle is asked for: importing PyTorch and
    transformers takes seconds, in every worker.
    """
    unasked = "not oracle" in config.option.markexpr
    return True if unasked and collection_path.name.startswith("test_oracle_") else None


def pytest_collection_modifyitems(items):
    """The longest files first, each as a whole."""
    place = {name: number for number, name in enumerate(FIRST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(FIRST)))


def pytest_collection_finish():
    """What is imported and collected stays to the end: full garbage collections, a twentieth of
    the time, need not look at it.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000)


@pytest.fixture
def torch():
    """PyTorch on one thread; skips the test where it is not installed."""
    module = pytest.importorskip("torch")
    module.set_num_threads(1)
    return module


@pytest.fixture
def cache_root(tmp_path, monkeypatch):
    """A cache of datasets of the test's own, and no data folder by default."""
    root = tmp_path / "cache"
    monkeypatch.setenv("PLASTICITY_CACHE_DIR", str(root))
    monkeypatch.delenv("PLASTICITY_DATA_DIR", raising=False)
    return root


@pytest.fixture(scope="module")
def compiled_quickly():
    """Programs compiled without most optimizations, for tests that compile much, compute little and
    mind no bits.
    """
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
    jax.clear_caches()  # else other tests would meet such programs
