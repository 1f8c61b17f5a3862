"""What the three deciding runs say by the rules of experiments/gradual/rules.md: numbers, tables,
verdicts.
"""

import itertools
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.stats

from experiments.gradual.claims import rule, tables
from experiments.gradual.claims.tables import Frame, Series
from experiments.gradual.claims.words import interval, mean_text, p_text, shown
from plasticity_jax.reporting import significance
from plasticity_jax.storage import table as table_

ACCURACY = "online_accuracy"
LOW = 0.9


def found(name: str) -> Frame | None:
    """Returns the lane table of a run with `task` from 1, or None if the run is not finished."""
    path = tables.FOLDER / "lanes" / f"{name}.parquet"
    return table_.read(path).assign(task=lambda t: t["task"] + 1) if path.exists() else None


def by_task(rows: Frame, metric: str = ACCURACY) -> Frame:
    """Returns a metric as [task, seed]."""
    return rows.pivot(index="task", columns="seed", values=metric).astype(np.float64)


# 1. Is it Adam?

VARIANTS = {
    "Adam": {"optimizer": "adam", "method": "none", "adam.eps": 1e-8, "adam.b2": 0.999},
    "eps 1e-6": {"optimizer": "adam", "method": "none", "adam.eps": 1e-6},
    "b2 0.99": {"optimizer": "adam", "method": "none", "adam.b2": 0.99},
    "optimizer_reset": {"optimizer": "adam", "method": "optimizer_reset"},
    "momentum": {"optimizer": "momentum"},
}


def variant(table: Frame, name: str, changes: bool) -> Frame:
    """Returns the rows of one variant of optimizer_state."""
    rows = table[table["random_labels.change"] == changes]
    for column, value in VARIANTS[name].items():
        known = rows[column]
        rows = rows[
            np.isclose(known, value, rtol=1e-4) if isinstance(value, float) else known == value
        ]
    return rows


class Adam(NamedTuple):
    """By variant: share of tasks in a burst and lowest accuracy without a change, accuracy at the
    end with it, by seed.
    """

    bursts: Frame
    lowest: Series
    end: Frame


def adam(table: Frame) -> Adam:
    """Returns the statistics of rule 1, columns are variants and rows are seeds."""
    still = {name: by_task(variant(table, name, False)).loc[2:50] for name in VARIANTS}
    changing = {name: by_task(variant(table, name, True)).loc[46:50] for name in VARIANTS}
    return Adam(
        pd.DataFrame({name: (a < 0.99).mean() for name, a in still.items()}),
        pd.Series({name: a.min().min() for name, a in still.items()}),
        pd.DataFrame({name: a.mean() for name, a in changing.items()}),
    )


def optimizer_state(table: Frame) -> str:
    """Returns the table and the verdict of rule 1 as Markdown."""
    said = adam(table)
    others = [name for name in VARIANTS if name != "Adam"]
    fewer, p_fewer = _against_adam(said.bursts, "<")
    gained, p_gained = _against_adam(said.end, ">")
    part = {n: gained[n].mean / (1 - said.end["Adam"].mean()) for n in others}
    lines = [
        "| optimizer | tasks in a burst, no change | minus Adam, points | lowest accuracy | "
        "accuracy after change | "
        "minus Adam, points | part of Adam's loss |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in VARIANTS:
        cells = [
            mean_text(100 * said.bursts[name], "percent") + " %",
            "",
            f"{100 * said.lowest[name]:.1f} %",
        ]
        cells += [mean_text(said.end[name], ACCURACY), "", ""]
        if name in others:
            cells[1] = _tested(fewer[name], p_fewer[name])
            cells[4] = _tested(gained[name], p_gained[name])
            cells[5] = f"{part[name]:.2f}"
        lines.append(f"| {name} | {' | '.join(cells)} |")
    removes = [n for n in others if p_fewer[n] < rule.LEVEL and fewer[n].side > 0]
    half = [n for n in others if p_gained[n] < rule.LEVEL and gained[n].side > 0 and part[n] >= 0.5]
    state = {"optimizer_reset", "eps 1e-6", "b2 0.99"} & {*removes}
    momentum = said.bursts["momentum"].mean() <= said.bursts["Adam"].mean()
    bursts = (
        "the bursts are of Adam's state"
        if state and momentum
        else "whose the bursts are is not told"
    )
    bursts = bursts if removes else "the bursts are not of Adam's state"
    verdict = (
        f"Verdict by the rule: {bursts} (fewer by the rule with {_listed(removes)}). "
        f"Half or more of what abrupt change loses goes with {_listed(half)}."
    )
    return "\n".join([*lines, "", verdict, "", _jumps(table)])


Tests = tuple[dict[str, rule.Estimate], dict[str, float]]


def _against_adam(numbers: Frame, direction: str) -> Tests:
    """The paired differences of all other variants (columns) to Adam, and their corrected p."""
    others = [name for name in VARIANTS if name != "Adam"]
    tests = {n: rule.estimate(numbers[n] - numbers["Adam"], direction, 0.0) for n in others}
    corrected = significance.holm([test.p for test in tests.values()])
    return tests, dict(zip(others, corrected, strict=True))


JUMP = 10  # times the loss of the task before


def jumps(table: Frame) -> Frame:
    """Returns how often the loss of the unchanging task jumps up, tasks 2 to 50; columns are
    variants and rows are seeds.
    """
    found = {}
    for name in VARIANTS:
        loss = by_task(variant(table, name, False), "loss")
        found[name] = (loss / loss.shift() > JUMP).loc[2:50].sum().astype(float)
    return pd.DataFrame(found)


def _jumps(table: Frame) -> str:
    """The same question by the loss, as a table; it has no rule of its own."""
    count = jumps(table)
    tests, corrected = _against_adam(count, "<")
    lines = [
        f"| optimizer | tasks whose loss is over {JUMP} times that of the task before, no change, "
        "by seed | minus Adam |",
        "|---|---|---|",
    ]
    for name in VARIANTS:
        seeds = ", ".join(f"{number:.0f}" for number in count[name])
        difference = ""
        if name in tests:
            difference = _difference(tests[name], corrected[name])
        lines.append(f"| {name} | {seeds} | {difference} |")
    return "\n".join(lines)


def _tested(one: rule.Estimate, p: float) -> str:
    ends = interval(one.low, one.high, ACCURACY, "+")
    return f"{shown(one.mean, ACCURACY, '+')} {ends}, {p_text(p)}"


def _listed(names: list[str]) -> str:
    return ", ".join(names) or "none of the variants"


# 2. Prevented or postponed?

ARMS = {
    "abrupt": {"granularity": 1},
    "output interpolation": {"granularity": 20, "transition": "output"},
    "task sampling": {"granularity": 20, "transition": "sampling"},
}
NEVER = 101


def first_below(accuracy: Series, in_a_row: int = 1) -> float:
    """Returns the first task below 90 % after the first at or above it, the first of so many in a
    row.

    101 if there is none within the tasks given; NaN if no task is at or above 90 %.
    """
    above = accuracy >= LOW
    if not above.any():
        return np.nan
    after = accuracy.loc[above.idxmax() :] < LOW
    run = after.rolling(in_a_row).sum() == in_a_row
    return float(run.idxmax() - in_a_row + 1) if run.any() else float(NEVER)


class Survival(NamedTuple):
    """Of one arm and rate, by seed: first task below 90 %, of two in a row, slope over tasks 51 to
    100 (share a task).
    """

    first: Series
    two: Series
    slope: Series


def survival(table: Frame, rate: float, arm: str) -> Survival:
    """Returns the statistics of rule 2."""
    rows = table[np.isclose(table["learning_rate"], rate, rtol=1e-4)]
    for column, value in ARMS[arm].items():
        rows = rows[rows[column] == value]
    accuracy = by_task(rows)
    late = accuracy.loc[51:]
    slope = {seed: round(float(np.polyfit(late.index, late[seed], 1)[0]), 9) for seed in late}
    return Survival(
        accuracy.apply(first_below), accuracy.apply(first_below, in_a_row=2), pd.Series(slope)
    )


def rates(table: Frame) -> list[float]:
    """Returns the learning rates, each with all three arms, rising."""
    return sorted({float(f"{rate:.2g}") for rate in table["learning_rate"].unique()})


def word(arm: Survival, later: bool, base: float) -> str:
    """Returns rule 2's word for a gradual arm, given whether it is later than abrupt and abrupt's
    median.
    """
    fallen = int((arm.first < NEVER).sum())
    if fallen >= 3:
        return (
            f"postponed by a factor of {arm.first.median() / base:.1f}"
            if later
            else "not told from abrupt"
        )
    if base == NEVER:
        return "neither falls"
    slope = rule.estimate(arm.slope, ">", 0.0)
    if (arm.two == NEVER).all() and (slope.p >= rule.LEVEL or slope.mean > 0):
        return "prevented as far as 100 tasks show"
    return f"not told, at least a factor of {NEVER / base:.1f}"


Pair = tuple[float, str]


class Judged(NamedTuple):
    """Rule 2 for every rate and arm; tests, their corrected p and the words are of gradual arms."""

    made: dict[Pair, Survival]
    tests: dict[Pair, rule.Estimate]
    corrected: dict[Pair, float]
    words: dict[Pair, str]


def judged(table: Frame) -> Judged:
    """Returns the statistics, tests and words of rule 2."""
    every = list(itertools.product(rates(table), ARMS))
    made = {(rate, arm): survival(table, rate, arm) for rate, arm in every}
    pairs = [(rate, arm) for rate, arm in every if arm != "abrupt"]
    words = {pair: "never at 90 %, so nothing to compare" for pair in pairs}
    later = {pair: (made[pair].first - made[pair[0], "abrupt"].first).dropna() for pair in pairs}
    pairs = [pair for pair in pairs if len(later[pair])]
    tests = {pair: rule.estimate(later[pair], ">", 0.0) for pair in pairs}
    corrected = dict(zip(pairs, significance.holm([tests[pair].p for pair in pairs]), strict=True))
    for pair in pairs:
        base = float(made[pair[0], "abrupt"].first.median())
        is_later = corrected[pair] < rule.LEVEL and tests[pair].side > 0
        words[pair] = word(made[pair], is_later, base)
    return Judged(made, tests, corrected, words)


def postponed(table: Frame) -> str:
    """Returns the table and the verdict of rule 2 as Markdown."""
    made, tests, corrected, words = judged(table)
    lines = [
        "| learning rate, arm | first task below 90 %, by seed | two in a row | minus abrupt, "
        "tasks | slope 51 to 100, points a task | verdict |",
        "|---|---|---|---|---|---|",
    ]
    for (rate, arm), one in made.items():
        difference = ""
        if (rate, arm) in tests:
            difference = _difference(tests[rate, arm], corrected[rate, arm])
        slope = 100 * one.slope
        cells = [
            _tasks(one.first),
            _tasks(one.two),
            difference,
            mean_text(slope, "slope"),
            words.get((rate, arm), ""),
        ]
        lines.append(f"| {rate:g}, {arm} | {' | '.join(cells)} |")
    lost = [rate for rate in rates(table) if made[rate, "abrupt"].first.median() <= 50]
    kept = {rate for (rate, _), said in words.items() if said.startswith("prevented")}
    ends = [rate for rate in lost if rate in kept]
    delays = {rate for (rate, _), said in words.items() if said.startswith("postponed")}
    verdict = (
        f"Verdict by the rule: abrupt change falls within 50 tasks at {_rates(lost)}; there a "
        f"gradual arm prevents it at {_rates(ends)}. "
        f"Postponed at {_rates(sorted(delays))}. {_low_rates(made)}"
    )
    return "\n".join([*lines, "", verdict])


def _difference(test: rule.Estimate, p: float, unit: str = "") -> str:
    """A difference with its interval and p."""
    return f"{test.mean:+.1f} [{test.low:+.1f}, {test.high:+.1f}]{unit}, {p_text(p)}"


LOW_RATES = (3e-5, 1e-4)


class LowRate(NamedTuple):
    """Of abrupt change at a low rate: rule 2's word against 1e-3, by how many tasks it is later,
    and p corrected over the low rates.
    """

    said: str
    later: rule.Estimate
    p: float


def low_rates(made: dict[Pair, Survival]) -> dict[float, LowRate]:
    """Returns what is said of abrupt change at each low rate."""
    abrupt = {rate: one for (rate, arm), one in made.items() if arm == "abrupt"}
    low = [rate for rate in LOW_RATES if rate in abrupt]
    if 1e-3 not in abrupt:
        return {}
    base, found = abrupt[1e-3].first, {}
    tests = [rule.estimate((abrupt[rate].first - base).dropna(), ">", 0.0) for rate in low]
    corrected = significance.holm([test.p for test in tests])
    for rate, test, p in zip(low, tests, corrected, strict=True):
        said = word(abrupt[rate], p < rule.LEVEL and test.side > 0, float(base.median()))
        said = said.replace("not told from abrupt", "not told from 1e-3")
        found[rate] = LowRate(said, test, p)
    return found


def _low_rates(made: dict[Pair, Survival]) -> str:
    found = low_rates(made)
    if not found:
        return ""
    words = [f"at {r:g} {one.said} ({_difference(one.later, one.p)})" for r, one in found.items()]
    return f"Abrupt change at a low rate against 1e-3, in tasks: {'; '.join(words)}."


def factors() -> str:
    """Returns by which factors gradual change postponed the fall, the least and the most."""
    words = judged(_kept("postponed")).words.values()
    found = [float(said.rpartition(" ")[2]) for said in words if said.startswith("postponed")]
    return f"{min(found):.1f} to {max(found):.1f}"


def low_rate() -> str:
    """Returns by which factor a tenth of the learning rate postpones the fall."""
    return low_rates(judged(_kept("postponed")).made)[1e-4].said.rpartition(" ")[2]


def lowest_rate() -> str:
    """Returns how much later abrupt change falls at a thirtieth of the learning rate, in tasks."""
    one = low_rates(judged(_kept("postponed")).made)[3e-5]
    return _difference(one.later, one.p, " tasks")


def momentum_loses() -> str:
    """Returns what momentum keeps after abrupt change, minus Adam's, with p corrected over the
    variants.
    """
    tests, corrected = _against_adam(100 * adam(_kept("optimizer_state")).end, ">")
    return _difference(tests["momentum"], corrected["momentum"], " points")


def _kept(name: str) -> Frame:
    table = found(name)
    if table is None:
        raise ValueError(f"there is no table of {name}: allowed is what is in results/lanes.")
    return table


SAID = {
    "factors": factors,
    "low rate": low_rate,
    "lowest rate": lowest_rate,
    "momentum": momentum_loses,
}


def _rates(found: list[float]) -> str:
    return ", ".join(f"{rate:g}" for rate in found) or "no rate"


def _tasks(series: Series) -> str:
    return ", ".join(map(_task, series))


def _task(number: float) -> str:
    if np.isnan(number):
        return "never above"
    return "-" if number == NEVER else f"{int(number)}"


# 3. Does early curvature foretell?

DOSES = (1, 2, 4, 10, 20, 40, 1600)
KINDS = {
    "abrupt": {"granularity": 1},
    "output": {"granularity": 20, "transition": "output"},
    "sampling": {"transition": "sampling"},
    "smoothing": {"transition": "smoothing"},
    "annealing": {"transition": "annealing"},
}
PROBES = {
    "hessian_top": "largest eigenvalue",
    "dormant_fraction": "dormant units (1 %)",
    "tau_dormant_fraction": "units that never fire",
    "representation_change": "representation change",
    "effective_rank": "effective rank",
    "parameter_norm": "norm",
    "distance_from_init": "distance from initialization",
}
EARLY, DRAWS = 5, 9999


def foretelling_arms(table: Frame) -> dict[str, Frame]:
    """Returns the ten arms' rows by name: K1 to K1600, sampling, smoothing, annealing."""
    output = table[table["transition"] == "output"]
    arms = {f"K{k}": output[output["granularity"] == k] for k in DOSES}
    return arms | {
        kind: table[table["transition"] == kind] for kind in ("sampling", "smoothing", "annealing")
    }


def correlation(probe: Any, end: Any) -> float:
    """Returns Spearman's rank correlation, 0 where there is nothing to rank."""
    probe, end = np.asarray(probe), np.asarray(end)
    if len(np.unique(probe)) < 2 or len(np.unique(end)) < 2:
        return 0.0
    found: Any = scipy.stats.spearmanr(probe, end)
    return float(found.statistic)


def within(probe: Frame, end: Frame, draws: int = DRAWS) -> tuple[float, float]:
    """Returns the mean over arms (columns) of the rank correlation over seeds (rows), and its
    permutation p.
    """
    ranked = [
        scipy.stats.rankdata(np.asarray(frame), axis=0) - (len(frame) + 1) / 2
        for frame in (probe, end)
    ]
    size = np.sqrt((ranked[0] ** 2).sum(0) * (ranked[1] ** 2).sum(0))
    size = np.where(size == 0, np.inf, size)
    seen = float(((ranked[0] * ranked[1]).sum(0) / size).mean())
    random = np.random.default_rng(0)
    drawn = [
        ((ranked[0] * random.permuted(ranked[1], axis=0)).sum(0) / size).mean()
        for _ in range(draws)
    ]
    return seen, float((1 + (np.abs(drawn) >= abs(seen) - 1e-12).sum()) / (1 + draws))


class Foretold(NamedTuple):
    """Of one probe: rank correlations by seed over granularities and kinds, and within arms with
    its p value.
    """

    doses: Series
    kinds: Series
    within: float
    p_within: float


def foretold(table: Frame) -> dict[str, Foretold]:
    """Returns the statistics of rule 3 by probe."""
    arms = foretelling_arms(table)
    end = pd.DataFrame({a: by_task(rows).loc[46:50].mean() for a, rows in arms.items()})
    doses = [f"K{k}" for k in DOSES]
    kinds = ["K1", "K20", "sampling", "smoothing", "annealing"]
    made = {}
    for probe in PROBES:
        early = pd.DataFrame({a: by_task(rows, probe).loc[EARLY] for a, rows in arms.items()})
        made[probe] = Foretold(
            _correlations(early[doses], end[doses]),
            _correlations(early[kinds], end[kinds]),
            *within(early, end),
        )
    return made


def _correlations(early: Frame, end: Frame) -> Series:
    """The rank correlation over arms (columns) by seed (rows)."""
    return pd.Series({seed: correlation(early.loc[seed], end.loc[seed]) for seed in end.index})


def foretelling(table: Frame) -> str:
    """Returns the table and the verdict of rule 3 as Markdown."""
    made = foretold(table)
    ways = ("doses", "kinds")
    tests = {}
    for probe, way in itertools.product(made, ways):
        tests[probe, way] = rule.estimate(getattr(made[probe], way), "<", 0.0)
    raw = {
        **{key: one.p for key, one in tests.items()},
        **{(p, "within"): one.p_within for p, one in made.items()},
    }
    corrected = dict(zip(raw, significance.holm([*raw.values()]), strict=True))
    lines = [
        "| probe at task 5 | over granularities | over kinds | within an arm |",
        "|---|---|---|---|",
    ]
    for probe, name in PROBES.items():
        cells = [
            f"{tests[probe, w].mean:+.2f} [{tests[probe, w].low:+.2f}, "
            f"{tests[probe, w].high:+.2f}], {p_text(corrected[probe, w])}"
            for w in ways
        ]
        lines.append(
            f"| {name} | {' | '.join(cells)} | {made[probe].within:+.2f}, "
            f"{p_text(corrected[probe, 'within'])} |"
        )
    said = []
    for way, words in (("doses", "over granularities"), ("kinds", "over kinds of change")):
        test, p = tests["hessian_top", way], corrected["hessian_top", way]
        verb = "does not foretell"
        if p < rule.LEVEL and test.mean < 0:
            verb = "foretells and orders" if test.mean <= -0.8 else "foretells"
        said.append(f"{words} it {verb}")
    inside = corrected["hessian_top", "within"] < rule.LEVEL and made["hessian_top"].within < 0
    said.append(f"within an arm it {'foretells' if inside else 'does not'}")
    others = [p for p in PROBES if p != "hessian_top"]
    for way, words in (("doses", "granularities"), ("kinds", "kinds")):
        top = getattr(made["hessian_top"], way).abs()
        margins = [rule.estimate(top - getattr(made[p], way).abs(), ">", 0.0) for p in others]
        levels = significance.holm([margin.p for margin in margins])
        better = []
        for probe, margin, level in zip(others, margins, levels, strict=True):
            if level < rule.LEVEL and margin.side > 0:
                better.append(PROBES[probe])
        told = _listed(better) if better else "no other probe"
        said.append(f"over {words} it is told to exceed {told}")
    return "\n".join(
        [*lines, "", f"Verdict by the rule, for the largest eigenvalue: {'; '.join(said)}."]
    )


NOT_FINISHED = "(This run is not finished; its rule stands, its table follows.)"
RUNS = {"optimizer_state": optimizer_state, "postponed": postponed, "foretelling": foretelling}


def block(name: str) -> str:
    """Returns a deciding run's table and verdict, or a line that says it is not finished."""
    table = found(name)
    return NOT_FINISHED if table is None else RUNS[name](table)
