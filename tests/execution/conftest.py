"""What tests of workdirs share."""

import pytest

from plasticity_jax.execution import compiled


@pytest.fixture
def nothing_compiles(monkeypatch):
    """Fails a test in which something is compiled or trained."""

    def refuse(*_):
        raise AssertionError("nothing is to be compiled or trained")

    monkeypatch.setattr(compiled, "compile_program", refuse)
