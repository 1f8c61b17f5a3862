"""Reading a registry entry's settings off its signature, so that a new entry is one function and one line.

A registry is a literal dict name -> factory. Of a factory's keyword-only parameters, those annotated `Number` or
`Share` are traced numbers, the others static options; the first line of its docstring is its description.
"""

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ParamSpec, TypeVar

import jax
import numpy as np

from plasticity_jax.types import Number, Share

LARGEST_INT = 2**31 - 1  # what a counter of steps can hold

P = ParamSpec("P")
R = TypeVar("R")


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


def checked(factory: Callable[P, R]) -> Callable[P, R]:
    """Returns `factory` with its settings checked at each call, so that a library call is refused as a flag is.

    Checked are parameters annotated Number, Share, int or bool. A number may be a jax array or a tracer, whose value is not
    looked at, and `learning_rate` a schedule. Raises ValueError that names the setting, the value and what is allowed.
    """
    signature = inspect.signature(factory)

    @functools.wraps(factory)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        given = signature.bind(*args, **kwargs)
        for name, value in given.arguments.items():
            kind = signature.parameters[name].annotation
            given.arguments[name] = _setting(f"{factory.__name__}.{name}", kind, value)
        return factory(*given.args, **given.kwargs)

    return call


def _setting(name: str, kind: Any, value: Any) -> Any:
    """Returns `value` as what a parameter annotated `kind` takes; raises ValueError."""
    if kind in (Number, Share):
        return _number(name, value, 1.0 if kind is Share else np.inf)
    if kind is int:
        return _whole(name, value)
    if kind is bool and not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} is {value!r}: allowed are True and False.")
    return value


def _number(name: str, value: Any, most: float) -> Any:
    if isinstance(value, jax.Array) or (name.endswith(".learning_rate") and callable(value)):
        return value  # (a tracer is a jax.Array too)
    scalar = np.asarray(value)
    real = scalar.dtype.kind in "iuf" and scalar.shape == ()
    if not real or not 0 <= float(scalar) <= most:
        allowed = "numbers from 0 on" if most == np.inf else f"0 to {most:g}"
        raise ValueError(f"{name} is {value!r}: allowed are {allowed}.")
    return value


def _whole(name: str, value: Any) -> int:
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value > LARGEST_INT:
        raise ValueError(f"{name} is {value!r}: allowed are whole numbers up to {LARGEST_INT}.")
    return int(value)
