"""What is written down about how a run was made: versions, commit, device, source of the data."""

from pathlib import Path
from typing import Any

import jax

from plasticity_jax import datasets, own_parts


def code_version(folder: Path = Path(__file__).parent) -> str:
    """Returns the commit of the git checkout that `folder` lies in, with "+" if its files differ
    from that commit.

    "not recorded" where there is none, as in an installed package.
    """
    import subprocess

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=folder, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        # a checkout of something else
        if not Path(git("rev-parse", "--show-toplevel"), "plasticity_jax").is_dir():
            return "not recorded"
        return git("rev-parse", "--short=12", "HEAD") + (
            "+" if git("status", "--porcelain", "-uno") else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return "not recorded"


def _devices() -> str:
    kind = jax.devices()[0].device_kind
    return f"{jax.local_device_count()} x {kind} ({jax.default_backend()})"


def environment_record(dataset: datasets.Dataset) -> dict[str, Any]:
    """Returns what is worth knowing about where a run was made: versions, commit, device, source of
    the data.
    """
    import os
    import platform

    packages = ("plasticity_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    return {
        "versions": {"python": platform.python_version(), **{p: _version(p) for p in packages}},
        "code_version": code_version(),
        "device": _devices(),
        "imports": dict(own_parts.LOADED),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "data_source": dataset.source,
        "data_shape": list(dataset.images.shape),
    }


def _version(package: str) -> str:
    """The version of an installed package, or what one that is only on the path says of itself."""
    import importlib
    import importlib.metadata

    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        module = package.replace("orbax-checkpoint", "orbax.checkpoint")
        return getattr(importlib.import_module(module), "__version__", "unknown")
