"""Claims and numbers as text: Markdown tables, and templates filled with numbers from the lane
tables.
"""

import itertools
import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from experiments.gradual.claims import chosen, decided, rule, statements, tables
from experiments.gradual.claims.statements import Claim, Test
from experiments.gradual.claims.words import interval, mean_text, p_text, shown, unit
from plasticity_jax.reporting import significance

NAMES = {
    "sp": "shrink and perturb",
    "l2": "L2",
    "spectral": "spectral",
    "redo": "ReDo",
    "output": "output interpolation",
    "input": "input interpolation",
    "sampling": "task sampling",
    "smoothing": "constant smoothing",
    "annealing": "annealed smoothing",
    "transition": "the transition without a stable phase",
    "stable": "the stable phase alone, abruptly",
    "still": "a task that does not change",
    "still_gradual": "the same with the gradual schedule",
    "hessian_top": "largest eigenvalue",
    "dormant_fraction": "dormant units",
    "never_active_fraction": "units that never fire",
    "representation_change": "representation change",
    "distance_from_init": "distance from initialization",
    "units_reset": "units reset a task",
}
SHOWN_SEEDS = 3  # with as many seeds or fewer, each is shown


def name_of(arm: str) -> str:
    """Returns an arm in words: "K = 20", "abrupt", "task sampling"."""
    return (
        f"K = {int(arm[1:]):,}"
        if re.fullmatch(r"K\d+", arm)
        else NAMES.get(arm, arm.replace("_", " "))
    )


# Numbers per seed of a test


def values(table: str, test: Test) -> tables.Series:
    """Returns the number per seed that a test is about."""
    metric = test.metric or tables.TABLES[table].metric
    if test.rank:
        return ranks(table, test.arm.split(), metric, test.tasks, test.rank)
    mine = tables.per_seed(table, test.arm, metric, test.tasks)
    if test.early:
        return (tables.per_seed(table, test.arm, metric, test.early) - mine).dropna()
    if test.minus:
        others: tables.Frame = pd.DataFrame(
            {a: tables.per_seed(table, a, metric, test.tasks) for a in test.minus.split()}
        )
        mine = mine - (others.max(axis=1) if test.direction != "<" else others.min(axis=1))
    return mine.dropna()


def ranks(
    table: str, arms: Sequence[str], metric: str, tasks: tuple[int, int] | None, of: str
) -> tables.Series:
    """Returns Spearman's correlation over arms of a metric with their order ("K") or the result, by
    seed.

    0 where all values are the same; an arm without a value in the window is left out.
    """
    found: tables.Frame = pd.DataFrame(
        {arm: tables.per_seed(table, arm, metric, tasks) for arm in arms}
    )
    end: tables.Frame = pd.DataFrame({arm: tables.per_seed(table, arm) for arm in arms})
    made = {}
    for seed, row in found.iterrows():
        known = row.dropna()
        against = (
            np.array([list(arms).index(a) for a in known.index])
            if of == "K"
            else end.loc[seed, known.index]
        )
        made[seed] = decided.correlation(known, against)
    return pd.Series(made)


def acted(table: str, method: str) -> bool:
    """Returns whether a method did anything.

    Where units are counted: whether it reset one a task or more on the mean. In older tables:
    whether a digit of the first task differs from shrink and perturb's, which acts at task changes
    only, and has a program of the same shape, so that it says what last bits do. What happened in
    later tasks these do not tell.
    """
    if "units_reset" in tables.lanes(table):
        return bool(tables.arm(table, method)["units_reset"].mean() >= 1)
    columns = [
        c for c in (tables.TABLES[table].metric, "loss", "hessian_top") if c in tables.lanes(table)
    ]
    first = [
        tables.arm(table, arm).query("task == 1").set_index("seed")[columns]
        for arm in (method, "sp")
    ]
    return not first[0].equals(first[1])


# Tables of claims


def describe(table: str, test: Test, found: rule.Estimate) -> str:
    """Returns what was measured as words, with the t interval; single seeds too where there are
    few.
    """
    metric = test.metric or tables.TABLES[table].metric
    what = f"{NAMES[metric]} of " if metric in NAMES else ""
    first, last = test.tasks or (0, 0)
    window = f" (task {first})" if first == last else f" (tasks {first} to {last})"
    window = "" if test.tasks is None else window
    if test.rank:
        of = "K" if test.rank == "K" else "the result"
        ends = f"[{found.low:+.2f}, {found.high:+.2f}]"
        return f"rank correlation of {NAMES[metric]} with {of}{window} {found.mean:+.2f} {ends}"
    mine = float(tables.per_seed(table, test.arm, metric, test.tasks).mean())
    level = f"{what}{name_of(test.arm)}{window} {shown(mine, metric)}{unit(metric)}"
    if not (test.minus or test.early):
        text = f"{level} {interval(found.low, found.high, metric)}"
    else:
        others = " or ".join(map(name_of, test.minus.split()))
        others = f"the best of {others.replace(' or ', ', ')}" if " " in test.minus else others
        if metric in tables.LOGARITHMIC:
            ends = interval(found.low, found.high, metric)
            text = f"{level}, {shown(found.mean, metric)} times {others} {ends}"
        else:
            since = (
                f"fallen since tasks {test.early[0]} to {test.early[1]} by"
                if test.early
                else f"minus {others}"
            )
            points = " points" if tables.is_share(metric) else ""
            sign = "" if test.early else "+"
            ends = interval(found.low, found.high, metric, sign)
            text = f"{level}, {since} {shown(found.mean, metric, sign)}{points} {ends}"
    if len(found.values) <= SHOWN_SEEDS:
        sign = "+" if test.minus and metric not in tables.LOGARITHMIC else ""
        text += f" (seeds {', '.join(shown(v, metric, sign) for v in found.values)})"
    return text


def _run(table: str, claim: Claim) -> bool:
    arms: list[str] = []
    for test in claim.tests:
        arms += [*test.arm.split(), *test.minus.split()]
    return all(tables.has(table, arm) for arm in arms)


def judged(table: str) -> list[tuple[Claim, list[tuple[Test, rule.Estimate, float]]]]:
    """Returns the claims of a table with each test's estimate and corrected p value."""
    rows = []
    for claim in statements.CLAIMS[table]:
        if not _run(table, claim):
            claim = claim._replace(tests=(), remark="not run yet")
        rows.append(claim)
    tests = list(itertools.chain.from_iterable(claim.tests for claim in rows))
    found = [rule.estimate(values(table, test), test.direction, test.bound) for test in tests]
    corrected = significance.holm([one.p for one in found])
    tested = zip(tests, found, corrected, strict=True)
    return [(claim, list(itertools.islice(tested, len(claim.tests)))) for claim in rows]


def claims(table: str) -> str:
    """Returns the claims of a table as a Markdown table, or a line that says that its run is not
    finished.
    """
    if not tables.there(table):
        return decided.NOT_FINISHED
    lines = ["| claim (Liu & Mou, v2; figure) | measured | verdict | remark |", "|---|---|---|---|"]
    for claim, tested in judged(table):
        measured = [f"{describe(table, test, one)}; {p_text(p)}" for test, one, p in tested]
        words = [rule.verdict(one, p, test.direction, test.bound) for test, one, p in tested] or [
            "not tested"
        ]
        if claim.method and not acted(table, claim.method):
            counted = "units_reset" in tables.lanes(table)
            words = ["did not act" if counted else "not seen to act"]
        if len(set(words)) == 1:
            words = words[:1]
        remark = fill(claim.remark, table)
        source = f" ({claim.source})" if claim.source != "none" else ""
        lines.append(
            f"| {claim.says}{source} | {'<br>'.join(measured)} | {'<br>'.join(words)} | {remark} |"
        )
    return "\n".join(lines)


def grid(table: str, arms: str, metrics: str, tasks: str = "") -> str:
    """Returns means and t intervals of several arms as a Markdown table; `metrics` apart by a
    space.
    """
    if not tables.there(table):
        return decided.NOT_FINISHED
    names = metrics.split()
    window = _window(tasks) if tasks else None
    lines = [
        "| | " + " | ".join(NAMES.get(m, m.replace("_", " ")) for m in names) + " |",
        "|---" * (len(names) + 1) + "|",
    ]
    for arm in arms.split():
        cells = [mean_text(tables.per_seed(table, arm, m, window), m) for m in names]
        lines.append(f"| {name_of(arm)} | {' | '.join(cells)} |")
    return "\n".join(lines)


# Templates


def _window(text: str) -> tuple[int, int]:
    first, _, last = text.lstrip("@").partition("-")
    return int(first), int(last or first)


def number(words: str, table: str = "") -> str:
    """Returns one number of a template: "[TABLE:]ARM [METRIC] [@TASK | FIRST-LAST] [HOW]".

    HOW: nothing for the mean over seeds, `seeds` for each, `t` with the t interval, `lowest` or
    `highest` of any seed and task in the window; "fall FIRST-LAST" how far it has fallen since;
    "minus ARM" with the t interval. "rank METRIC FIRST-LAST" is the mean rank correlation with the
    result (figure 5a's arms). Raises ValueError for what is none of these.
    """
    if ":" in words:
        table, _, words = (part.strip() for part in words.partition(":"))
    parts = words.split()
    if parts[0] == "rank":
        found = ranks(table, statements.DOSES.split(), parts[1], _window(parts[2]), "result")
        return f"{found.mean():+.2f}"
    which, parts = parts[0], parts[1:]
    metric = (
        parts.pop(0) if parts and parts[0] in tables.lanes(table) else tables.TABLES[table].metric
    )
    window, how = tables.TABLES[table].tasks, ""
    while parts:
        part = parts.pop(0)
        if re.fullmatch(r"@\d+|\d+-\d+", part):
            window = _window(part)
        elif part in ("seeds", "t", "lowest", "highest") and not how:
            how = part
        elif part in ("fall", "minus") and parts and not how:
            how = f"{part} {parts.pop(0)}"
        else:
            raise ValueError(f"{words!r} has {part!r}: allowed are a window and a way.")
    return _number(table, which, metric, window, how)


def _number(table: str, which: str, metric: str, window: tuple[int, int], how: str) -> str:
    if how in ("lowest", "highest"):
        rows = tables.arm(table, which)
        rows = rows[rows["task"].between(*window)][metric]
        value = float(rows.max() if how == "highest" else rows.min())
        value = float(np.log10(max(value, tables.FLOOR))) if metric in tables.LOGARITHMIC else value
        return f"{shown(value, metric)}{unit(metric)}"
    found = tables.per_seed(table, which, metric, window)
    kind, _, other = how.partition(" ")
    if how == "seeds":
        return ", ".join(shown(v, metric) for v in found) + unit(metric)
    if how == "t":
        return mean_text(found, metric)
    if kind == "fall":
        return shown(
            float((tables.per_seed(table, which, metric, _window(other)) - found).mean()), metric
        )
    if kind == "minus":
        test = Test(which, minus=other, metric=metric, tasks=window)
        one = rule.estimate(values(table, test), ">", 0.0)
        return f"{shown(one.mean, metric, '+')} points {interval(one.low, one.high, metric, '+')}"
    return f"{shown(float(found.mean()), metric)}{unit(metric)}"


BLOCKS = {
    "claims": claims,
    "decided": decided.block,
    "selection": chosen.block,
    "said": lambda name: decided.SAID[name](),
}


def fill(template: str, table: str = "") -> str:
    """Returns a template with every {...} replaced by a number (see `number`) or by a table.

    {claims: TABLE}, {grid: TABLE; ARMS; METRICS; WINDOW}, {decided: RUN} and {selection: BENCHMARK}
    are tables, {said: WHAT} is a number of a deciding run.
    """

    def one(match: re.Match) -> str:
        words = " ".join(match.group(1).split())
        kind, _, rest = words.partition(": ")
        if kind in BLOCKS:
            return BLOCKS[kind](rest)
        if kind == "grid":
            return grid(*(part.strip() for part in rest.split(";")))
        return number(words, table)

    return re.sub(r"\{([^{}]+)\}", one, template)
