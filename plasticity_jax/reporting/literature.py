"""What to cite: the papers that docstrings name, as entries of `references.bib`.

A docstring names a paper by its first author and year ("Source: Sokar et al. 2023."), whose entry
has a key that begins with the two ("sokar2023dormant").
"""

import functools
import importlib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from plasticity_jax import datasets
from plasticity_jax.spec import Spec
from plasticity_jax.stream import transitions

FILE = Path(__file__).with_name("references.bib")
_AUTHOR = r"(?:van )?[A-Z][\w'-]+"
_OTHERS = rf"(?: et al\.|(?:, {_AUTHOR})*,? (?:&|and) {_AUTHOR})?"
NAMED = re.compile(rf"({_AUTHOR}){_OTHERS},? \(?((?:19|20)\d\d)\b")
"""A paper as docstrings name it: its first author, and its year."""

OURS = """@software{plasticity_jax,
  title   = {plasticity_jax: research on loss of plasticity in {JAX}},
  author  = {{The plasticity\\_jax authors}},
  year    = {2026},
  version = {VERSION}
}"""


@functools.cache
def entries() -> Mapping[str, str]:
    """Returns {key: BibTeX entry} of all references."""
    text = FILE.read_text(encoding="utf-8")
    found = re.findall(r"^@\w+\{(\w+),.*?^\}", text, re.DOTALL | re.MULTILINE)
    bodies = re.findall(r"^@\w+\{\w+,.*?^\}", text, re.DOTALL | re.MULTILINE)
    return dict(zip(found, bodies, strict=True))


def named(words: str) -> list[tuple[str, str]]:
    """Returns (first author, year) of the papers that words name, in their order."""
    found = NAMED.findall(" ".join(words.split()))
    return [(author.removesuffix("'s"), year) for author, year in found]


def key(author: str, year: str) -> str | None:
    """Returns the key of the entry of a paper, None where there is none."""
    start = re.sub(r"\W", "", author).lower() + year
    return next((name for name in entries() if name.startswith(start)), None)


def cited(words: str) -> list[str]:
    """Returns the keys of the papers that words name and that have an entry, each once."""
    keys = [key(author, year) for author, year in named(words)]
    return list(dict.fromkeys(name for name in keys if name))


def things(name: str, factory: Callable) -> dict[str, Callable]:
    """Returns a part's factory and what else has its name in the same module, as the class of a
    network or the plain function of a probe, each by its own name; those with a docstring.
    """
    factory = plain(factory)
    module = importlib.import_module(factory.__module__)
    same = name.replace("_", "").lower()
    found = {factory.__name__: factory}
    for other, thing in vars(module).items():
        if other.replace("_", "").lower() == same and callable(thing):
            found.setdefault(other, thing)
    return {other: thing for other, thing in found.items() if inspect.getdoc(plain(thing))}


def plain(factory: Callable) -> Callable:
    """Returns a function without what was wrapped around it."""
    while isinstance(factory, functools.partial):
        factory = factory.func
    return inspect.unwrap(factory)


def of_part(name: str, factory: Callable) -> list[str]:
    """Returns the keys of the papers that a part's docstrings name."""
    docs = [inspect.getdoc(plain(thing)) or "" for thing in things(name, factory).values()]
    return cited("\n\n".join(docs))


def of_specs(specs: Iterable[Spec]) -> dict[str, list[str]]:
    """Returns {key of a paper: the parts of these Specs that name it}, as the parts come."""
    parts: dict[str, Callable] = {}
    for spec in specs:
        parts |= spec.parts()
        parts[str(spec.transition)] = transitions.TRANSITIONS[str(spec.transition)].mix
        parts[str(spec.dataset)] = datasets.DATASETS.get(
            str(spec.dataset), datasets.DATASETS["generated"]
        )
    found: dict[str, list[str]] = {}
    for name, factory in parts.items():
        for paper in of_part(name, factory):
            found.setdefault(paper, []).append(name)
    return found


def bibtex(papers: Mapping[str, Any]) -> str:
    """Returns BibTeX of this software and of papers, each below a line that says what names it."""
    from plasticity_jax import __version__

    pieces = ["% the framework\n" + OURS.replace("VERSION", __version__)]
    for name, parts in papers.items():
        pieces.append(f"% {', '.join(parts)}\n{entries()[name]}")
    return "\n\n".join(pieces) + "\n"
