"""The examples in the docstrings of what users call first: each prints what it says."""

import doctest
import inspect
import operator

import jax
import jax.numpy as jnp
import optax
import pytest

import plasticity_jax as pj
from plasticity_jax.cli import help

FIRST = (
    "Spec",
    "batches",
    "grid",
    "load",
    "load_data",
    "load_state",
    "make_run",
    "make_stream",
    "methods.compose",
    "methods.l2",
    "methods.redo",
    "methods.shrink_and_perturb",
    "probes.dormant_fraction",
    "probes.effective_rank",
    "probes.empirical_ntk",
    "probes.hessian_top",
    "probes.representation_change",
    "run",
    "stack",
    "task_set",
)
# what docs/python.md calls them
KNOWN = {"jax": jax, "jnp": jnp, "optax": optax, "pj": pj}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where all examples run, so that those with the same workdir run it once; what they compile is
    not optimized, which takes half the time and changes nothing that they print.
    """
    optimized = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield tmp_path_factory.mktemp("examples")
    jax.config.update("jax_disable_most_optimizations", optimized)


def outcome(name: str, text: str) -> tuple[doctest.TestResults, str]:
    """How many examples of a text were tried and failed, and what was said of those that failed."""
    said: list[str] = []
    test = doctest.DocTestParser().get_doctest(text, dict(KNOWN), name, None, None)
    results = doctest.DocTestRunner(verbose=False).run(test, out=said.append)
    return results, "".join(said)


@pytest.mark.parametrize("name", FIRST)
def test_an_example_prints_what_it_says(name, folder, monkeypatch):
    monkeypatch.chdir(folder)
    thing = operator.attrgetter(name)(pj)
    results, said = outcome(name, inspect.getdoc(inspect.unwrap(thing)) or "")
    assert results.failed == 0, said
    assert results.attempted >= 2


def test_an_example_that_prints_something_else_fails():
    results, said = outcome("wrong", ">>> float(jnp.ones(()))\n2.0\n")
    assert (results.failed, results.attempted) == (1, 1)
    assert "Expected:\n    2.0\nGot:\n    1.0\n" in said


def test_help_shows_no_examples():
    assert ">>>" not in help.usage("") + help.listing()
