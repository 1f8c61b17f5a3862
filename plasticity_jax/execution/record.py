"""What is written down about how a run was made: versions, commit, device, source of the data."""

import datetime
import shlex
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax

from plasticity_jax import datasets, own_parts


class Checkout(NamedTuple):
    """The git checkout of the package; both are None where there is none, as where it is installed.

    Attributes:
      dirty: whether its files differ from those of the commit.
    """

    commit: str | None
    dirty: bool | None


def code_version(folder: Path = Path(__file__).parent) -> str:
    """Returns the first 12 digits of the commit of `checkout`, with "+" if its files differ from
    that commit; "not recorded" where there is none.
    """
    found = checkout(folder)
    if found.commit is None:
        return "not recorded"
    return found.commit[:12] + ("+" if found.dirty else "")


def checkout(folder: Path = Path(__file__).parent) -> Checkout:
    """Returns the git checkout of the package that `folder` lies in, wherever it is run from."""
    import subprocess

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=folder, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        # a checkout of something else
        if not Path(git("rev-parse", "--show-toplevel"), "plasticity_jax").is_dir():
            return Checkout(None, None)
        return Checkout(git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "-uno")))
    except (OSError, subprocess.CalledProcessError):
        return Checkout(None, None)


def now() -> str:
    """Returns the time, such as "2026-01-31T12:00:00+00:00"."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def call() -> dict[str, Any]:
    """Returns what is written down of a command that begins to run something, or to go on: `ended`
    stays None where its process is killed.
    """
    import platform
    import socket

    found = checkout()
    return {
        "command": shlex.join(sys.orig_argv),
        "commit": found.commit,
        "dirty": found.dirty,
        "started": now(),
        "ended": None,
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "device": _devices(),
        "versions": {package: version(package) for package in ("jax", "jaxlib")},
    }


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
        "versions": {"python": platform.python_version(), **{p: version(p) for p in packages}},
        "code_version": code_version(),
        "device": _devices(),
        "imports": dict(own_parts.LOADED),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "data_source": dataset.source,
        "data_shape": list(dataset.images.shape),
    }


def version(package: str) -> str:
    """The version of an installed package, or what one that is only on the path says of itself; our
    own is always what runs, since another one may be installed.
    """
    import importlib
    import importlib.metadata

    import plasticity_jax

    if package == plasticity_jax.__name__:
        return plasticity_jax.__version__
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        module = package.replace("orbax-checkpoint", "orbax.checkpoint")
        return getattr(importlib.import_module(module), "__version__", "unknown")
