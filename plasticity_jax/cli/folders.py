"""Commands that read folders: their own flags, and the folders that they are given."""

from collections.abc import Mapping, Sequence

import jax

from plasticity_jax import own_parts
from plasticity_jax.cli import flags, launcher

Defaults = Mapping[str, str | bool | None]


def given(
    argv: Sequence[str], doc: str, defaults: Defaults
) -> tuple[flags.Values, list[str] | None]:
    """Returns what `plain` does, with the modules of --import loaded, for a command that runs
    nothing.
    """
    # what makes Specs computes a little, for which no accelerator shall be started: another process
    # may have all of its memory (where jax runs already, this changes nothing)
    jax.config.update("jax_platforms", "cpu")
    own, rest = plain(argv, doc, defaults)
    if rest is not None:
        load(own["import"])
    return own, rest


def plain(
    argv: Sequence[str], doc: str, defaults: Defaults
) -> tuple[flags.Values, list[str] | None]:
    """Returns a command's own flags and its folders; None in their place where help was asked for,
    and printed.

    Raises ValueError for an unknown flag.
    """
    own, rest = flags.own({**defaults, "import": None}, argv)
    if "--help" in rest:
        launcher.say(doc)
        return own, None
    for argument in rest:
        if argument.startswith("-"):
            known = ", ".join(f"--{name}" for name in own)
            raise ValueError(f"unknown flag {argument}: allowed are {known}.")
    return own, rest


def load(names: str | None) -> None:
    """Loads modules with parts of the user's own, apart by commas."""
    if names:
        own_parts.load(names.split(","))
