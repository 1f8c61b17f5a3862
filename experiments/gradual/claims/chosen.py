"""What a selection tried and chose, from its lane table."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.gradual.claims import tables
from experiments.gradual.settings import BENCHMARKS
from plasticity_jax.storage import table as table_

ARMS = {
    "none": "abrupt, no method",
    "output": "output interpolation",
    "sampling": "task sampling",
    "l2": "L2",
    "shrink_and_perturb": "shrink and perturb",
    "spectral": "spectral regularization",
    "redo": "ReDo",
}
NUMBERS = ("learning_rate", "l2.strength", "shrink_and_perturb.shrink", "shrink_and_perturb.noise")
NUMBERS = (*NUMBERS, "spectral.strength", "redo.period")


def configurations(benchmark: str) -> tables.Frame:
    """Returns a row per arm and configuration tried: arm, its numbers, mean over seeds and tasks,
    each seed's mean.
    """
    table: tables.Frame = table_.read(tables.FOLDER / "lanes" / f"selection_{benchmark}.parquet")
    gradual = (table["method"] == "none") & (table["granularity"] > 1)
    table = table.assign(arm=table["method"].where(~gradual, table["transition"]))
    numbers = [n for n in NUMBERS if n in table]
    by_seed = (
        table.groupby(["arm", *numbers, "seed"], dropna=False)[BENCHMARKS[benchmark].metric]
        .mean()
        .unstack("seed")
    )
    return by_seed.assign(mean=by_seed.mean(axis=1)).reset_index()


def block(benchmark: str) -> str:
    """Returns what each arm's grid gave as a Markdown table; "97 % (96, 98)" has the two seeds."""
    every = configurations(benchmark)
    path = pathlib.Path(tables.FOLDER, "selected.json")
    selected = json.loads(path.read_text(encoding="utf-8"))[benchmark]["arms"]
    numbers = [n for n in NUMBERS if n in every]
    rates = sorted(every["learning_rate"].unique(), reverse=True)
    head = [f"best at {rate:.2g}" for rate in rates]
    lines = [
        "| arm | tried | "
        + " | ".join(head)
        + " | chosen | as good to the last digit | at an edge of its grid |"
    ]
    lines.append("|---" * (len(rates) + 5) + "|")
    for arm, words in ARMS.items():
        own = every[every["arm"] == arm]
        if own.empty:
            continue
        cells = [_best(own[own["learning_rate"] == rate]) for rate in rates]
        varied = [n for n in numbers if own[n].nunique() > 1]
        chosen = own
        for name in varied:
            chosen = chosen[
                np.isclose(chosen[name].astype(float), float(selected[arm][name]), rtol=1e-4)
            ]
        (row,) = chosen.to_dict("records")
        equal = own[(own["mean"] == row["mean"]) & (own.index != chosen.index[0])]
        ties = [_values(other, varied) for other in equal.to_dict("records")]
        edges = [
            n for n in varied if np.isclose(row[n], [own[n].min(), own[n].max()], rtol=1e-6).any()
        ]
        cells += [
            _values(row, varied),
            "; ".join(ties),
            ", ".join(n.partition(".")[2] or "rate" for n in edges),
        ]
        lines.append(f"| {words} | {len(own)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _best(rows: tables.Frame) -> str:
    if rows.empty:
        return "-"
    row = rows.loc[rows["mean"].idxmax()]
    seeds = [row[c] for c in rows.columns if isinstance(c, int | np.integer)]
    return f"{100 * row['mean']:.1f} % ({100 * min(seeds):.1f}, {100 * max(seeds):.1f})"


def _values(row: Mapping[str, Any], varied: Sequence[str]) -> str:
    """A configuration in words: "rate 0.001, strength 0.1"."""
    words = []
    for name in varied:
        words.append(f"{name.partition('.')[2] or 'rate'} {float(f'{row[name]:.2g}'):g}")
    return ", ".join(words)
