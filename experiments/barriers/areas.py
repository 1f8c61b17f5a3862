"""Tables of README.md that are not of arms: how well scores foretell a fall, and certificates."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments import prose
from experiments.barriers import foretelling as foretelling_

RESULTS = Path(__file__).parent / "results"
SCORES = {**foretelling_.SCORES, "trap": "distance from a clone (`trap`)"}


def foretelling(name: str, of_one_task: bool = False) -> str:
    """Returns the table of a foretelling, its largest area first; with the area among cases of one
    task if asked for.
    """
    heads = ["score", "a fall within five tasks if", "area under the ROC curve"]
    heads += ["sensitivity, specificity"]
    heads += ["area among cases of one task"] if of_one_task else []
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    found = _rows(name).sort_values("area", ascending=False, kind="stable")
    for row in found.to_dict("records"):
        cells = [SCORES[row["score"]], row["falls_if"], _interval(row, "area", "")]
        cells.append(_rates(row, lambda row, of: prose.short(row[of])))
        if of_one_task:
            cells.append(_interval(row, "of_one_task"))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def certificates() -> str:
    """Returns the table of the certificates of whether clones part, by steps."""
    lines = [
        "| steps | parted of 432 | v'Hv along the direction: sensitivity, specificity | lowest "
        "curvature below 0 | flow of the first Hessian |",
        "|---|---|---|---|---|",
    ]
    found = _rows("certificate")
    found = found[found["activation"] == "all"]
    for steps, rows in found.groupby("steps"):
        own = rows.set_index("certificate").to_dict("index")
        along, flow = (_rates(own[name], _interval) for name in ("along", "flow"))
        lowest = _rates(own["lowest"], lambda row, of: prose.short(row[of]))
        cells = [steps, own["along"]["parted"], along, lowest, flow]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def blocks() -> dict[str, str]:
    """Returns what stands in README.md after each mark, by the mark."""
    return {
        "foretelling": foretelling("foretelling", of_one_task=True),
        "foretelling: mnist": foretelling("foretelling_mnist", of_one_task=True),
        "foretelling: split": foretelling("foretelling_split"),
        "certificates": certificates(),
    }


def _rows(name: str) -> Any:
    return prose.statistics(RESULTS / f"{name}.csv")


def _rates(row: dict[str, Any], told: Callable[[dict[str, Any], str], str]) -> str:
    return ", ".join(told(row, of) for of in ("sensitivity", "specificity"))


def _interval(row: dict[str, Any], name: str, between: str = "_") -> str:
    ends = ("low", "high") if not between else (f"{name}_low", f"{name}_high")
    low, high = (prose.short(row[end]) for end in ends)
    return f"{prose.short(row[name])} [{low}, {high}]"
