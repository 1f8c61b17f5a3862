"""Reading a registry entry's settings off its signature, so that a new entry is one function and
one line.

A registry is a literal dict name -> factory. Of a factory's keyword-only parameters, those
annotated `Number`, `Share`, `Real` or `Whole` are traced numbers, the others static options; the
first paragraph of its docstring is its description.
"""

import functools
import inspect
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ParamSpec, TypeVar

import jax.core
import numpy as np

from plasticity_jax.types import Number, Period, Real, Share, Whole

LARGEST_WHOLE = 2**31 - 1  # whole numbers have 32 bits in a program
NEVER = "never"  # how a period is written that no run reaches: LARGEST_WHOLE steps or tasks
LARGEST = float(np.finfo(np.float32).max)  # of other numbers, there
_SHOWN = 80  # characters of a value that a sentence quotes

# annotation of a traced number -> the smallest and the largest value allowed, None for any
BOUNDS: dict[Any, tuple[float | None, float | None]] = {
    Number: (0, None),
    Share: (0, 1),
    Real: (None, None),
    Whole: (1, LARGEST_WHOLE),
}


P = ParamSpec("P")
R = TypeVar("R")


def lookup(registry: Mapping[str, Any], kind: str, name: str) -> Any:
    """Returns `registry[name]`. Raises ValueError that names what was given and what is known."""
    if not isinstance(name, str) or name not in registry:
        raise ValueError(f"unknown {kind} {shown(name)}: known are {', '.join(registry)}.")
    return registry[name]


def signature_of(factory: Callable) -> inspect.Signature:
    """Returns a factory's signature with annotations as objects, also where its module has them as
    text (`from __future__ import annotations`).
    """
    return inspect.signature(factory, eval_str=True)


def returned(factory: Callable) -> Any:
    """Returns what a factory is annotated to return, None where it does not say."""
    annotation = signature_of(factory).return_annotation
    return None if annotation is inspect.Signature.empty else annotation


def numbers(factory: Callable) -> dict[str, float]:
    """Returns the traced numbers of a factory with their defaults."""
    return {p.name: p.default for p in _keyword_only(factory) if p.annotation in BOUNDS}


def bounds(factory: Callable) -> dict[str, tuple[float | None, float | None]]:
    """Returns the smallest and the largest value allowed of each traced number, None for any."""
    kinds = {p.name: p.annotation for p in _keyword_only(factory)}
    return {name: BOUNDS[kinds[name]] for name in numbers(factory)}


def whole_numbers(factory: Callable) -> set[str]:
    """Returns the names of the traced numbers that are whole."""
    return {p.name for p in _keyword_only(factory) if p.annotation is Whole}


def periods(factory: Callable) -> set[str]:
    """Returns the names of the settings that say how often, which may be "never"."""
    return {p.name for p in _keyword_only(factory) if p.annotation in (Whole, Period)}


def options(factory: Callable) -> dict[str, Any]:
    """Returns the static options of a factory with their defaults."""
    return {p.name: p.default for p in _keyword_only(factory) if p.annotation not in BOUNDS}


def positional(factory: Callable) -> list[str]:
    """Returns the names of a factory's positional parameters: what it must be given."""
    return [
        p.name
        for p in signature_of(factory).parameters.values()
        if p.kind is p.POSITIONAL_OR_KEYWORD
    ]


def describe(factory: Callable) -> str:
    """Returns the first paragraph of a factory's docstring, on one line."""
    return " ".join((inspect.getdoc(factory) or "").partition("\n\n")[0].split())


def one_of(name: str, value: Any, allowed: Iterable[Any]) -> Any:
    """Returns `value`. Raises ValueError that names the setting, the value and what is allowed, if
    it is not allowed.
    """
    allowed = list(allowed)
    if not any(isinstance(value, type(known)) and value == known for known in allowed):
        raise ValueError(f"{name} is {shown(value)}: allowed are {', '.join(map(repr, allowed))}.")
    return value


def whole(
    name: str, value: Any, low: int, high: int = LARGEST_WHOLE, *, never: bool = False
) -> int:
    """Returns a whole number as an int, also one of numpy or jax.

    With `never` the text "never" is LARGEST_WHOLE, more steps and tasks than a run can have. Raises
    ValueError that names the setting, the value and what is allowed: for what is none, such as 2.0
    or True, or is outside of `low` to `high`.
    """
    if never and isinstance(value, str) and value == NEVER:
        return LARGEST_WHOLE
    found = index(value)
    if found is not None and low <= found <= high:
        return found
    upper = f" to {high}" if found is not None and found > high else ""
    word = f", or {NEVER!r}" if never else ""
    raise ValueError(
        f"{name} is {shown(value)}: allowed are whole numbers from {low}{upper}{word}."
    )


def index(value: Any) -> int | None:
    """Returns a whole number as an int, also one of numpy or jax, or None if `value` is none."""
    try:
        return None if is_logical(value) else operator.index(value)
    except TypeError:
        return None


def number(name: str, value: Any, allowed: str = "finite numbers") -> float:
    """Returns a number as a float, also one of numpy or jax.

    Raises ValueError, whose sentence ends with what is `allowed`: for what is none, such as text or
    True, or not within what float32 holds.
    """
    kind = getattr(getattr(value, "dtype", None), "kind", "f")
    try:
        is_other = is_logical(value) or isinstance(value, str | bytes) or kind in "SUOMmc"
        found = float("nan") if is_other or getattr(value, "ndim", 0) else float(value)
    except (TypeError, ValueError, OverflowError):
        found = float("nan")
    if not abs(found) <= LARGEST:
        raise ValueError(f"{name} is {shown(value)}: allowed are {allowed}.")
    return found


def is_logical(value: Any) -> bool:
    """Returns whether `value` is true or false, which Python and numpy otherwise take for 1 or
    0.
    """
    return isinstance(value, bool) or getattr(getattr(value, "dtype", None), "kind", "") == "b"


def is_traced(value: Any) -> bool:
    """Returns whether `value` stands for one that only a compiled program will have."""
    return isinstance(value, jax.core.Tracer)


def _is_number(array: jax.Array) -> bool:
    return array.ndim == 0 and not jax.numpy.issubdtype(array.dtype, jax.dtypes.prng_key)


def several(value: Any) -> bool:
    """Returns whether `value` holds several things: it is iterable, but no text, mapping or array
    of one number.
    """
    one = isinstance(value, str | bytes | Mapping) or getattr(value, "ndim", None) == 0
    return isinstance(value, Iterable) and not one


def is_utf8(text: str) -> bool:
    """Returns whether `text` can be written as UTF-8: Python reads other bytes of a command line as
    characters that cannot.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def shown(value: Any) -> str:
    """Returns a value as a sentence quotes it: on one line, and only the start of a long one."""
    if isinstance(value, np.generic) or (
        isinstance(value, jax.Array) and not is_traced(value) and _is_number(value)
    ):
        value = value.item()
    try:
        text = repr(value)
    except ValueError:  # a whole number with more digits than Python writes
        return f"of {type(value).__name__} with too many digits"
    text = " ".join(text.split("\n"))
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 20]}... ({len(text)} characters)"


@functools.lru_cache(maxsize=4096)  # (read for every lane)
def _keyword_only(factory: Callable) -> list[inspect.Parameter]:
    return [p for p in signature_of(factory).parameters.values() if p.kind is p.KEYWORD_ONLY]


def make(
    registry: Mapping[str, Callable],
    kind: str,
    name: str,
    settings: Mapping[str, Any],
    **given: Any,
) -> Any:
    """Returns the registry's entry `name` built with its settings.

    `settings` holds numbers and options as "<name>.<setting>", defaults fill the rest; positional
    parameters are taken from `given` by their names.
    """
    factory = lookup(registry, kind, name)
    keyword = {p.name: settings.get(f"{name}.{p.name}", p.default) for p in _keyword_only(factory)}
    return factory(*(given[p] for p in positional(factory)), **keyword)


def checked(factory: Callable[P, R]) -> Callable[P, R]:
    """Returns `factory` with its settings checked at each call, so that a library call is refused
    as a flag is.

    Checked are parameters annotated Number, Share, Real, Whole, Period, int or bool. A number may
    be a jax array or a tracer, whose value is not looked at, and `learning_rate` a schedule. Raises
    ValueError that names the setting, the value and what is allowed.
    """
    signature = signature_of(factory)

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
    if kind in (Number, Share, Real):
        return _number(name, value, kind)
    if kind is Whole:
        return value if isinstance(value, jax.Array) else whole(name, value, 1, never=True)
    if kind is int:
        return _whole(name, value)
    if kind is Period:
        return whole(name, value, 0, never=True)
    if kind is bool and not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} is {value!r}: allowed are True and False.")
    return value


def _number(name: str, value: Any, kind: Any) -> Any:
    if isinstance(value, jax.Array) or (name.endswith(".learning_rate") and callable(value)):
        return value  # (a tracer is a jax.Array too)
    scalar = np.asarray(value)
    real = scalar.dtype.kind in "iuf" and scalar.shape == ()
    low, high = (-np.inf if kind is Real else 0.0), (1.0 if kind is Share else np.inf)
    if not real or not low <= float(scalar) <= high:
        allowed = {Share: "0 to 1", Real: "finite numbers"}.get(kind, "numbers from 0 on")
        raise ValueError(f"{name} is {value!r}: allowed are {allowed}.")
    return value


def _whole(name: str, value: Any) -> int:
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value > LARGEST_WHOLE:
        raise ValueError(f"{name} is {value!r}: allowed are whole numbers up to {LARGEST_WHOLE}.")
    return int(value)
