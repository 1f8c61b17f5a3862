"""Reading a registry entry's settings off its signature, so that a new entry is one function and one line.

A registry is a literal dict name -> factory. Of a factory's keyword-only parameters, those annotated `Number` or
`Share` are traced numbers, the others static options; the first line of its docstring is its description.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from plasticity_jax.types import Number, Share


def lookup(registry: Mapping[str, Any], kind: str, name: str) -> Any:
    """Returns `registry[name]`. Raises ValueError that names what was given and what is known."""
    if name not in registry:
        raise ValueError(f"unknown {kind} {name!r}: known are {', '.join(registry)}.")
    return registry[name]


def numbers(factory: Callable) -> dict[str, float]:
    """Returns the traced numbers of a factory with their defaults."""
    return {p.name: p.default for p in _keyword_only(factory) if p.annotation in (Number, Share)}


def largest(factory: Callable) -> dict[str, int | None]:
    """Returns the largest value allowed of each traced number, None for any; the smallest is 0."""
    kinds = {p.name: p.annotation for p in _keyword_only(factory)}
    return {name: 1 if kinds[name] is Share else None for name in numbers(factory)}


def options(factory: Callable) -> dict[str, Any]:
    """Returns the static options of a factory with their defaults."""
    return {p.name: p.default for p in _keyword_only(factory) if p.annotation not in (Number, Share)}


def positional(factory: Callable) -> list[str]:
    """Returns the names of a factory's positional parameters: what it must be given."""
    return [p.name for p in inspect.signature(factory).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]


def describe(factory: Callable) -> str:
    """Returns the first line of a factory's docstring."""
    return (inspect.getdoc(factory) or "").partition("\n")[0]


def one_of(name: str, value: Any, allowed: Iterable[Any]) -> Any:
    """Returns `value`. Raises ValueError that names the setting, the value and what is allowed, if it is not allowed."""
    allowed = list(allowed)
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}: allowed are {', '.join(map(repr, allowed))}.")
    return value


def _keyword_only(factory: Callable) -> list[inspect.Parameter]:
    return [p for p in inspect.signature(factory).parameters.values() if p.kind is p.KEYWORD_ONLY]


def make(registry: Mapping[str, Callable], kind: str, name: str, settings: Mapping[str, Any], **given: Any) -> Any:
    """Returns the registry's entry `name` built with its settings.

    `settings` holds numbers and options as "<name>.<setting>", defaults fill the rest; positional parameters are taken
    from `given` by their names.
    """
    factory = lookup(registry, kind, name)
    keyword = {p.name: settings.get(f"{name}.{p.name}", p.default) for p in _keyword_only(factory)}
    return factory(*(given[p] for p in positional(factory)), **keyword)
