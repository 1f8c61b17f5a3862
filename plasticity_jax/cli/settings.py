"""Settings by the names of their flags: as Python's values, and as text on the command line.

A setting is a field of `Spec`, a number of a lane, a part's own setting ("redo.period") or a flag
of a run ("seeds"). Experiments have Python's values; text is made of them, and read, here alone.
"""

import decimal
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from plasticity_jax import arms, lanes, registry, spec

Setting: TypeAlias = bool | int | float | str | tuple["Setting", ...] | None
"""None where nothing is given, a tuple where a flag lists several values."""
Settings: TypeAlias = Mapping[str, Setting]

SPEC_FIELDS = arms.FIELDS
# smallest and largest of the whole numbers among the flags of a run
RUN_LIMITS = {
    "seeds": (1, 2**63),
    "first_seed": (0, registry.LARGEST_WHOLE),
    "lane_width": (1, registry.LARGEST_WHOLE),
    "start_task": (0, registry.LARGEST_WHOLE),
    "checkpoint_every": (1, registry.LARGEST_WHOLE),
    "slice": (1, registry.LARGEST_WHOLE),
    "slice_minutes": (1, registry.LARGEST_WHOLE),
    "workers": (1, 1024),
    "wave": (1, registry.LARGEST_WHOLE),
    "last": (1, registry.LARGEST_WHOLE),
}


def text(value: Setting) -> str | None:
    """Returns a setting as people write its flag: 1e-3, 2/3, true, a list with commas."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, tuple):
        return ",".join(str(text(item)) for item in value)
    if isinstance(value, bool):
        return str(value).lower()
    return _short(value) if isinstance(value, float) else str(value)


def _short(value: float) -> str:
    """The shorter of the plain and the scientific notation, both exact."""
    if value == 2 / 3:
        return "2/3"
    digits = decimal.Decimal(repr(value)).normalize()
    return min(f"{digits:f}", f"{digits:e}", key=len)


def default_text(value: Any) -> str | None:
    """Returns the default of a registered part as --help and --list show it: as Python writes
    it.
    """
    return str(value) if isinstance(value, float) and value != 2 / 3 else text(value)


def read(name: str, given: str | None) -> Any:
    """Returns the setting that a flag's text says, a tuple if it lists several values.

    Raises ValueError, one sentence, for text that is none of this flag.
    """
    values = several(name, given)
    return values[0] if len(values) == 1 else tuple(values)


def listed(name: str, value: Setting) -> list[Any]:
    """Returns the values of a setting, each once; one of a setting that is no axis.

    Text is read as its flag's would be; raises ValueError as `read` does.
    """
    if value is None or isinstance(value, str):
        return several(name, value)
    whole_list = name in SPEC_FIELDS and not SPEC_FIELDS[name].metadata["axis"]
    if not isinstance(value, tuple) or whole_list:
        return [value]
    return list(dict.fromkeys(itertools.chain.from_iterable(listed(name, one) for one in value)))


def several(name: str, given: str | None) -> list[Any]:
    """Returns the values that a flag's text lists, each once; one of a flag that is no axis.

    Raises ValueError as `read` does.
    """
    if given is None:
        return [None]
    part, dot, _ = name.partition(".")
    if name in SPEC_FIELDS:
        return _of_spec(name, given)
    if name in RUN_LIMITS:
        return [whole(name, given, *RUN_LIMITS[name])]
    if name in lanes.DEFAULTS or (dot and name in _numbers(part)):
        return [number(name, item) for item in items(given)]
    if dot:
        default = registry.options(spec.PARTS[part])[name.removeprefix(f"{part}.")]
        return [_option(name, item, default) for item in items(given)]
    return [given]


def pairs(flag: str, given: str | None) -> dict[str, Any] | None:
    """Returns the settings of a flag's text NAME=VALUE,...; None if it is not given.

    Raises ValueError, one sentence, for other text.
    """
    if given is None:
        return None
    found = _named(flag, given, lambda pair: pair.partition("="), "settings as NAME=VALUE")
    for name, value in found.items():
        known = (
            name in SPEC_FIELDS or name in lanes.DEFAULTS or name.partition(".")[0] in spec.PARTS
        )
        found[name] = read(name, value) if known else value
    return found


def limits(flag: str, given: str) -> dict[str, float]:
    """Returns the numbers of a flag's text NAME:VALUE,...

    Raises ValueError, one sentence, for other text.
    """
    # (a column's name may have a colon, a number has none)
    allowed = "NAME:VALUE, such as online_accuracy:0.2"
    named = _named(flag, given, lambda pair: pair.rpartition(":"), allowed)
    return {name: number(f"{flag} of {name}", value) for name, value in named.items()}


def _named(
    flag: str, given: str, parted: Callable[[str], tuple[str, str, str]], allowed: str
) -> dict[str, Any]:
    """The texts of a flag's list by their names; `parted` gives a name, the sign and the text.

    Raises ValueError that says what is `allowed`.
    """
    found: dict[str, str] = {}
    for pair in items(given):
        name, sign, value = parted(pair)
        if not (sign and name and value) or name in found:
            raise ValueError(
                f"{flag} is {given!r}: allowed are {allowed}, with commas between, each once."
            )
        found[name] = value
    return found


def _of_spec(name: str, given: str) -> list[Any]:
    about = SPEC_FIELDS[name].metadata
    if SPEC_FIELDS[name].type == tuple[str, ...]:  # a list of names, but not an axis
        return [tuple(_split(given))]
    if name == "points" and "," in given:  # steps, and no axis either
        return [tuple(whole(name, item, *about["limits"]) for item in _split(given))]
    listed = items(given) if about["axis"] else [given]
    return [whole(name, item, *about["limits"]) if about["limits"] else item for item in listed]


def _numbers(part: str) -> set[str]:
    """The names of a part's traced numbers."""
    return {f"{part}.{number}" for number in registry.numbers(spec.PARTS[part])}


def _option(name: str, given: str, default: Any) -> Any:
    """An option's value, of the type of its default."""
    if isinstance(default, bool):
        return registry.one_of(name, given.lower(), ("true", "false")) == "true"
    if isinstance(default, int):
        return whole(name, given, 0)
    return number(name, given) if isinstance(default, float) else given


def items(given: str) -> list[str]:
    """Returns the items of a list with commas, each once."""
    return list(dict.fromkeys(_split(given)))


def _split(given: str) -> list[str]:
    return [item.strip() for item in given.split(",")]


def whole(name: str, given: str, low: int, high: int = registry.LARGEST_WHOLE) -> int:
    """Returns text as a whole number, also "never" of a flag that says how often.

    Raises ValueError that names the flag and what is allowed.
    """
    try:
        value: int | str = int(given)
    except ValueError:
        value = given
    often = name == "checkpoint_every" or spec.is_period(name)
    return registry.whole(name, value, low, high, never=often)


def number(name: str, given: str) -> float:
    """Returns text as a number, such as "1e-3" or "2/3".

    Raises ValueError with the flag's `name` if it is none.
    """
    if lanes.is_whole(name):
        return whole(name, given, 1)
    above, slash, below = given.partition("/")
    try:
        value = float(above) / (float(below) if slash else 1.0)
    except (ValueError, ZeroDivisionError):
        value = math.nan
    if not abs(value) <= registry.LARGEST:
        shown, largest = registry.shown(given), f"{registry.LARGEST:.2g}"
        raise ValueError(
            f"{name} is {shown}: allowed are numbers such as 0.001, 1e-3 or 2/3, up to {largest}."
        )
    return value
