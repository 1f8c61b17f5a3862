"""Figures in words: the table that is printed, and what it was measured on."""

from collections.abc import Sequence

from benchmarks.rivals import Figure


def table(figures: Sequence[Figure]) -> str:
    """Returns the figures as lines: part, what, median [range], what to reach, whether it is
    reached.
    """
    met = {True: "yes", False: "NO", None: ""}
    return "\n".join(
        f"{f.part:9} {f.what:66} {shown(f):>40}  {reach(f):16} {met[f.met]}".rstrip()
        for f in figures
    )


def shown(figure: Figure) -> str:
    """Returns median [range] of a figure with its unit."""
    low, high = min(figure.values), max(figure.values)
    middle, low, high = (number(value, figure.unit) for value in (figure.median, low, high))
    return f"{middle} [{low}, {high}] {figure.unit}".rstrip()


def number(value: float, unit: str) -> str:
    """Returns a value as it reads best in its unit."""
    if unit == "%":
        return f"{100 * value:.1f}" if abs(value) >= 0.1 else f"{100 * value:.2f}"
    if unit == "x":
        return f"{value:.3f}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def reach(figure: Figure) -> str:
    """Returns in words what a figure is to reach."""
    if figure.at_least is not None:
        return f"at least {number(figure.at_least, figure.unit)}"
    return "" if figure.at_most is None else f"at most {number(figure.at_most, figure.unit)}"


def processor(text: str) -> str:
    """Returns the model and the widest vectors of the first processor in /proc/cpuinfo's text, on
    which speeds depend more than on a model's name. Raises KeyError if it names no model.
    """
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        found.setdefault(name.strip(), value.strip())
    flags = found.get("flags", "").split()
    vectors = {"avx512f": "AVX-512", "avx2": "AVX2"}
    widest = next((word for flag, word in vectors.items() if flag in flags), "")
    numbers = [f"{name} {found[name]}" for name in ("cpu family", "model") if name in found]
    return ", ".join([found["model name"], *numbers, *([widest] if widest else [])])
