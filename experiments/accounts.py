"""What the README says of figures whose lanes are kept: a table of arms, whether the effect is
there, and a verdict on each claim of a paper.

Rule: a claim is a number of each seed that the paper says to be above 0, or several such numbers.
With Student's 95 % intervals over seeds it agrees if all are above 0, disagrees if one is below,
and is not told else. What is told here stands between the marks of a paper's README.md.
"""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments import presence
from plasticity_jax import spec
from plasticity_jax.reporting import over_seeds, statistics
from plasticity_jax.storage import table as table_

Where = Mapping[str, Any]
"""Settings, by their columns, that one arm alone has."""

Contrast = Callable[[Any], np.ndarray]
"""A table of lanes -> a number of each seed, [seeds], which the paper says to be above 0."""


class Kept(NamedTuple):
    """A figure of which the lanes are kept.

    Attributes:
      bare: the arm without remedies.
      metric: of its table.
      window: tasks in a row of "best" and "last".
    """

    bare: Where
    metric: str = "online_accuracy"
    window: int = 5


class Claim(NamedTuple):
    """What the paper says of a figure.

    Attributes:
      figure: its number.
      says: the sentence, in our words.
      lanes: name of the kept lanes that it is checked on.
      unit: of the contrasts, as printed; "points" are hundredths.
      contrasts: what must be above 0 for it to hold, by name.
    """

    figure: str
    says: str
    lanes: str
    unit: str
    contrasts: Mapping[str, Contrast]


def arm(table: Any, where: Where, metric: str) -> Any:
    """Returns the values of one arm, a row for each task and a column for each seed.

    Raises ValueError if not exactly one arm has these settings.
    """
    table = table[[*dict.fromkeys([*where, "seed", "task", metric])]]
    table.attrs = {}  # (long, and pandas copies them with every column)
    for name, value in where.items():
        table = table[table[name] == value]
    if not len(table) or bool(table.duplicated(["seed", "task"]).to_numpy().any()):
        told = ", ".join(f"{name}={value}" for name, value in where.items())
        raise ValueError(f"{told} names {len(table)} rows: allowed is what one arm alone has.")
    return table.pivot(index="task", columns="seed", values=metric)


def last(where: Where, metric: str, window: int) -> Contrast:
    """Returns each seed's mean over the last `window` tasks."""
    return lambda table: arm(table, where, metric).iloc[-window:].mean().to_numpy()


def more(
    greater: Where, lesser: Where, metric: str = "online_accuracy", window: int = 5
) -> Contrast:
    """Returns by how much the last tasks of one arm are above those of another, seed by seed."""
    first, second = last(greater, metric, window), last(lesser, metric, window)
    return lambda table: first(table) - second(table)


def decades(greater: Where, lesser: Where, metric: str, window: int = 5) -> Contrast:
    """Returns by how many powers of ten the last tasks of one arm are above those of another."""
    first, second = last(greater, metric, window), last(lesser, metric, window)
    return lambda table: np.log10(first(table)) - np.log10(second(table))


def decline(where: Where, metric: str, window: int) -> Contrast:
    """Returns the second `window` of tasks less the last one; a fresh network has the first."""

    def of(table: Any) -> np.ndarray:
        values = arm(table, where, metric)
        return (values.iloc[window : 2 * window].mean() - values.iloc[-window:].mean()).to_numpy()

    return of


def course(where: Where, metric: str, start: str | None = None) -> Contrast:
    """Returns the first value of a run less its last; the first of `start`, if that is given."""

    def of(table: Any) -> np.ndarray:
        first = arm(table, where, start or metric).iloc[0]
        return (first - arm(table, where, metric).iloc[-1]).to_numpy()

    return of


def together(where: Where, first: str, second: str) -> Contrast:
    """Returns Spearman's correlation of two measurements over the tasks of each seed."""

    def of(table: Any) -> np.ndarray:
        one, other = arm(table, where, first), arm(table, where, second)
        return one.corrwith(other, method="spearman").to_numpy()

    return of


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Returns the mean over seeds and the ends of Student's interval."""
    found = over_seeds.statistics(values)
    return float(found.mean), float(found.t_low), float(found.t_high)


def verdict(intervals: list[tuple[float, float, float]]) -> str:
    """Returns whether what the paper says to be above 0 is so."""
    if all(low > 0 for _, low, _ in intervals):
        return "agrees"
    return "disagrees" if any(high < 0 for _, _, high in intervals) else "not told"


def there(names: Any, folder: Path) -> list[str]:
    """Returns those of the names whose lanes are in a folder."""
    return [name for name in names if (folder / f"{name}.parquet").is_file()]


def is_present(name: str, kept: Mapping[str, Kept], folder: Path) -> bool:
    """Returns whether the arm without remedies of a kept figure loses plasticity; True if there is
    no such arm.
    """
    if name not in kept:
        return True
    one = kept[name]
    rows = rows_with(table_.read(folder / f"{name}.parquet"), one.bare)
    return presence.is_present(presence.fallen(rows, one.metric, one.window))


def rows_of_claims(claims: Any, kept: Mapping[str, Kept], folder: Path) -> str:
    """Returns the table of claims whose lanes are in a folder."""
    lines = ["| figure | what the paper says | | by how much |", "|---|---|---|---|"]
    # (many claims are of the same lanes)
    read = functools.cache(lambda name: table_.read(folder / f"{name}.parquet"))
    present = functools.cache(lambda name: is_present(name, kept, folder))
    for claim in claims:
        if not there([claim.lanes], folder):
            continue
        table = read(claim.lanes)
        found = {name: interval(of(table)) for name, of in claim.contrasts.items()}
        scale, unit = (100, "points") if claim.unit == "points" else (1, claim.unit)
        numbers = "; ".join(f"{name} {told(one, scale, '+')}" for name, one in found.items())
        word = f"**{verdict(list(found.values()))}**"
        if not present(claim.lanes):
            word += "; effect not present here"
        cells = claim.figure, claim.says, word, f"{numbers} {unit}".rstrip()
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def told(
    found: tuple[float, float, float], scale: float, sign: str = "", digits: int | None = None
) -> str:
    """Returns a mean and its interval; with as many digits as `digits_of` the scale if none are
    given.
    """
    digits = digits_of(scale) if digits is None else digits
    mean, low, high = (f"{scale * value:{sign}.{digits}f}" for value in found)
    return f"{mean} [{low}, {high}]"


def digits_of(scale: float) -> int:
    """Returns how many digits are told of what is multiplied by `scale`: fewer of hundredths."""
    return 1 if scale == 100 else 2


def differing(table: Any) -> list[str]:
    """Returns the columns of settings, but for the seed, in which lanes differ."""
    return [
        str(name)
        for name, values in table.items()
        if spec.is_setting(str(name)) and name != "seed" and values.nunique(dropna=False) > 1
    ]


def filled(text: str, blocks: Mapping[str, str]) -> str:
    """Returns a README's text with what stands after each of its marks, by the mark; marks that it
    does not have are left out.
    """
    for mark, made in blocks.items():
        begin, end = f"<!-- {mark} -->", "<!-- end -->"
        before, _, rest = text.partition(begin)
        if rest:
            _, _, after = rest.partition(end)
            text = f"{before}{begin}\n\n{made}\n\n{end}{after}"
    return text


class Reached(NamedTuple):
    """What an arm reached, of each seed [seeds]; errors as minus their logarithm to base 10.

    Attributes:
      label: what the arm is called.
      first, best, end: its first task, the best mean of tasks in a row, and the last such mean.
    """

    label: str
    first: np.ndarray
    best: np.ndarray
    end: np.ndarray


def reached(table: Any, kept: Kept) -> list[Reached]:
    """Returns what each arm of a figure reached."""
    columns = differing(table)
    found = statistics.arms(table, columns)
    made = []
    for label, rows in zip(statistics.arm_labels(table, columns), found.rows, strict=True):
        values = rows.pivot(index="task", columns="seed", values=kept.metric)
        windows = _windows(values, kept.window, kept.metric == presence.ERROR)
        made.append(Reached(label, *windows))
    return made


def rows_of_arms(name: str, kept: Kept, folder: Path) -> str:
    """Returns the table of a figure's arms, and the sentence whether the effect is there."""
    table = table_.read(folder / f"{name}.parquet")
    error = kept.metric == presence.ERROR
    scale, unit = (1, "-log10 of squared error") if error else (100, "%")
    bare = _windows(arm(table, kept.bare, kept.metric), kept.window, error)
    lines = [
        f"| arm | first task, {unit} | best {kept.window} in a row | last {kept.window} | less "
        "nothing |",
        "|---|---|---|---|---|",
    ]
    for one in reached(table, kept):
        first, best, end = (told(interval(part), scale) for part in one[1:])
        same = np.array_equal(one.end, bare[2])
        apart = "" if same else told(interval(one.end - bare[2]), scale, "+")
        lines.append(f"| {one.label} | {first} | {best} | {end} | {apart} |")
    rows = rows_with(table, kept.bare)
    effect = presence.told(name, presence.fallen(rows, kept.metric, kept.window))
    return "\n".join([*lines, "", f"- {effect}"])


def rows_with(table: Any, where: Where) -> Any:
    """Returns the rows of a table that have these settings."""
    for name, value in where.items():
        table = table[table[name] == value]
    return table


def _windows(values: Any, window: int, error: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The first task, the best mean of tasks in a row, and the last, of each seed; errors as minus
    their logarithm.
    """
    means = values.rolling(min(window, len(values))).mean().dropna(how="all")
    best = means.min() if error else means.max()
    parts = values.iloc[0], best, means.iloc[-1]
    first, most, end = (-np.log10(part.to_numpy()) if error else part.to_numpy() for part in parts)
    return first, most, end
