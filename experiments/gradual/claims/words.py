"""Numbers as text."""

import numpy as np

from experiments.gradual.claims import rule, tables


def shown(value: float, metric: str, sign: str = "") -> str:
    """Returns a number of a metric as text: shares in percent (without the sign %), others with
    three digits.

    Values of a logarithmic metric come as logarithms.
    """
    if not np.isfinite(value):
        return "-"
    if tables.is_share(metric):
        return f"{100 * value:{sign}.1f}"
    value = 10**value if metric in tables.LOGARITHMIC else value
    if value == 0:
        return "0"
    digits = max(0, 2 - int(np.floor(np.log10(abs(value)))))
    return f"{float(f'{value:.3g}'):{sign},.{min(digits, 5)}f}"


def unit(metric: str) -> str:
    """Returns what stands behind a number of a metric."""
    return " %" if tables.is_share(metric) else ""


def interval(low: float, high: float, metric: str, sign: str = "") -> str:
    """Returns the ends of an interval as text."""
    return f"[{shown(low, metric, sign)}, {shown(high, metric, sign)}]"


def p_text(value: float) -> str:
    """Returns a p value as text."""
    if value < 0.001:
        return "p < 0.001"
    return f"p = {value:.2g}" if value < 0.995 else "p = 1"


def mean_text(per_seed: tables.Series, metric: str) -> str:
    """Returns mean and t interval of numbers per seed as text."""
    known = per_seed.dropna()
    if known.empty:
        return "-"
    one = rule.estimate(known, ">", 0.0)
    return f"{shown(one.mean, metric)}{unit(metric)} {interval(one.low, one.high, metric)}"
