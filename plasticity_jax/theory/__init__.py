"""Theories of loss of plasticity, run."""
