"""Numbers in the sentences of a paper's README.md, each worked out from a committed table.

A paper lists its sentences in a file of its own: the words as they stand, with a place for each
number, and what makes the numbers. A test fills the places in and looks for the words.
"""

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments import accounts
from plasticity_jax.storage import table as table_


class Told(NamedTuple):
    """A mean over seeds and the ends of its interval.

    A format says how it is written: `.1` as "20.8 [14.3, 27.3]", with `+` in front of that with
    signs; then `p` for hundredths, `%` for hundredths with " %" behind the mean, `m` for the mean
    alone, and `z` without a zero before the point.
    """

    mean: float
    low: float
    high: float

    def __format__(self, how: str) -> str:
        found = re.fullmatch(r"(\+?)\.(\d)([p%mz]*)", how)
        if found is None:
            raise ValueError(f"{how!r} is no format of a Told: allowed are such as .1, +.2p, .0%m.")
        sign, digits, marks = found.groups()
        scale = 100 if {"p", "%"} & {*marks} else 1
        words = [f"{scale * value:{sign}.{digits}f}" for value in self]
        # (some accounts write shares as .25)
        if "z" in marks:
            words = [re.sub(r"^([+-]?)0\.", r"\1.", word) for word in words]
        mean, low, high = words
        mean += " %" if "%" in marks else ""
        return mean if "m" in marks else f"{mean} [{low}, {high}]"


class Sentence(NamedTuple):
    """Words of a document, with places as `str.format` has them, and what fills these."""

    words: str
    numbers: Callable[[], Mapping[str, Any]]

    def filled(self) -> str:
        """Returns the words with their numbers."""
        return self.words.format(**self.numbers())


class Lanes(NamedTuple):
    """The folder in which a paper's lanes are kept."""

    folder: Path

    def table(self, name: str) -> Any:
        """Returns kept lanes."""
        return _read(self.folder / f"{name}.parquet")

    def values(self, name: str, where: accounts.Where, metric: str) -> Any:
        """Returns what one arm measured, a row for each task and a column for each seed."""
        return accounts.arm(self.table(name), where, metric)

    def end(
        self, name: str, where: accounts.Where, metric: str = "online_accuracy", window: int = 5
    ) -> Told:
        """Returns the mean over an arm's last tasks."""
        return of_seeds(accounts.last(where, metric, window)(self.table(name)))

    def task(
        self, name: str, number: int, where: accounts.Where, metric: str = "online_accuracy"
    ) -> Told:
        """Returns an arm's value in one task, from 1; -1 is the last."""
        place = number - 1 if number > 0 else number
        return of_seeds(self.values(name, where, metric).iloc[place].to_numpy())

    def more(
        self,
        name: str,
        arms: tuple[accounts.Where, accounts.Where],
        metric: str = "online_accuracy",
        window: int = 5,
    ) -> Told:
        """Returns by how much the last tasks of the first arm are above those of the second."""
        greater, lesser = arms
        return of_seeds(accounts.more(greater, lesser, metric, window)(self.table(name)))


@functools.cache
def _read(path: Path) -> Any:
    # (a paper's sentences ask for the same lanes many times, and pandas copies attributes with
    # every column)
    table = table_.read(path)
    table.attrs = {}
    return table


def of_seeds(values: Any) -> Told:
    """Returns the mean over seeds and Student's interval."""
    return Told(*accounts.interval(np.asarray(values)))


def statistics(path: Path) -> Any:
    """Returns a committed table of statistics."""
    import pandas as pd

    return pd.read_csv(path)


def final(path: Path, column: str = "") -> Callable[[str, str], Told]:
    """Returns (measurement, arm) -> what a table of the end says; with `column` "minus" of the
    difference to its first arm.
    """
    rows = statistics(path).set_index(["metric", "arm"])
    names = ["minus", "minus_t_low", "minus_t_high"] if column else ["mean", "t_low", "t_high"]
    return lambda metric, arm: Told(*map(float, rows.loc[(metric, arm), names]))


def short(value: float, digits: int = 2) -> str:
    """Returns a share as tables of areas have it: without a zero before the point, 0 and 1 as they
    are.
    """
    words = f"{value:.{digits}f}"
    whole = f"{value:.0f}"
    return whole if float(words) == float(whole) else re.sub(r"^(-?)0\.", r"\1.", words)


def lacking(text: str, sentences: Sequence[Sentence]) -> list[str]:
    """Returns the sentences, with their numbers, that a document does not have; line ends count as
    blanks.
    """
    flat = _flat(text)
    filled = [one.filled() for one in sentences]
    return [words for words in filled if words not in flat]


def _flat(text: str) -> str:
    """A text in one line, without the marks of quotations."""
    return " ".join(re.sub(r"^> ", "", text, flags=re.MULTILINE).split())


INTERVAL = re.compile(r"[\d.,]+(?: %| points)? \[[-+.\d,]+, [-+.\d,]+\]")
FLAGS = re.DOTALL | re.MULTILINE


def unchecked(text: str, sentences: Sequence[Sentence]) -> list[str]:
    """Returns the numbers with intervals that stand neither in a sentence of the list nor in a
    table that is written from lanes.
    """
    # (what a code block or a written table has is not prose)
    prose = re.sub(r"<!-- [\w: ]+ -->.*?<!-- end -->|^```.*?^```", "", text, flags=FLAGS)
    flat = _flat(prose)
    for one in sentences:
        flat = flat.replace(one.filled(), "")
    return INTERVAL.findall(flat)
