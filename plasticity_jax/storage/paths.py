"""Paths as users give them."""

import os

from plasticity_jax import registry


def expanded(path: str | os.PathLike, what: str = "path") -> str:
    """Returns a path that a user gave as text, `~` and `~user` at its start replaced as a shell
    does.

    A shell leaves `~` alone inside an argument such as --workdir=~/x. Other paths stay as they are.

    Args:
      path: text or an object with a path; not bytes.
      what: what the path is for, in the message.
    Raises ValueError for what is no path: empty, not text, text that UTF-8 has no bytes for or with
    a null character, or a home folder that is not known.
    """
    text = path if isinstance(path, str) else getattr(path, "__fspath__", str)()
    if not isinstance(text, str) or not text or "\0" in text or not registry.is_utf8(text):
        raise ValueError(f"{what} is {registry.shown(path)}: allowed are paths, as text in UTF-8.")
    found = os.path.expanduser(text)
    if found == text and text.startswith("~"):
        raise ValueError(
            f"{what} is {text!r}: allowed are other paths, as that home folder is not known."
        )
    return found
