"""What the flags say of figures and tables of a run, and what a figure says of its run by
itself.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plasticity_jax import registry, spec
from plasticity_jax.cli import flags, settings
from plasticity_jax.execution import program as program_
from plasticity_jax.spec import Spec
from plasticity_jax.storage import writing

MODELS = {
    "mlp": "MLP",
    "cnn": "CNN",
    "resnet18": "ResNet-18",
    "t5": "T5",
    "vit": "ViT",
    "game_cnn": "game CNN",
}
EXPORTS = {"markdown": "md", "latex": "tex"}  # kind of table -> ending of its file


def check(values: flags.Values, arms: int) -> None:
    """Raises ValueError for flags of figures and tables that a run of so many arms cannot have."""
    from plasticity_jax.reporting import curves, panels

    registry.one_of("band", values["band"], panels.BANDS)
    registry.one_of("figure_width", values["figure_width"], curves.WIDTHS)
    for name in _listed(values, "figure_format"):
        registry.one_of("figure_format", name, curves.FORMATS)
    for name in _listed(values, "export"):
        registry.one_of("export", name, EXPORTS)
    given = names(values)
    if given is not None and len(given) != arms:
        raise ValueError(
            f"arm_names are {len(given)}: allowed are as many as arms, {arms}, apart by ; and in "
            "the order of the printed table."
        )


def arms(programs: Sequence[program_.Program]) -> int:
    """Returns how many arms a run has: settings without their seeds."""
    apart: set[tuple[Any, ...]] = set()
    for number, program in enumerate(programs):
        for lane in program.lanes:
            arm = sorted((name, value) for name, value in lane.items() if name != "seed")
            apart.add((number, *arm))
    return len(apart)


def names(values: flags.Values) -> list[str] | None:
    """Returns what the arms are to be called, None if nothing is said."""
    text = values["arm_names"]
    return None if not text else [name.strip() for name in text.split(";")]


def drawing(values: flags.Values, metric: str, title: str, note: str) -> Any:
    """Returns the `curves.Drawing` of a metric as the flags have it."""
    from plasticity_jax.reporting import curves

    return curves.Drawing(
        metric,
        values["band"],
        title if values["figure_title"] is None else values["figure_title"],
        note,
        names=names(values),
        width=values["figure_width"],
        formats=tuple(dict.fromkeys(_listed(values, "figure_format"))),
    )


def export(values: flags.Values, table: Any, columns: Sequence[str], metric: str) -> None:
    """Writes the printed table of a run's end into the workdir, as --export says, and again into
    the files that an earlier command left.
    """
    from plasticity_jax.reporting import exports

    last = settings.read("last", values["last"])
    for kind, ending in EXPORTS.items():
        path = Path(values["workdir"]) / f"final.{ending}"
        if kind in _listed(values, "export") or path.exists():
            text = exports.KINDS[kind](exports.final(table, columns, metric, last, names(values)))
            writing.text(path, text)


def title(programs: Sequence[program_.Program]) -> str:
    """Returns what a run is of in a few words: environment, data, network and method, as far as all
    its programs have the same.
    """
    from plasticity_jax.reporting import labels

    specs = [program.spec for program in programs]
    environments = {one.environment.replace("_", " ") for one in specs}
    data = {one.dataset for one in specs} - {"generated"}
    networks = {_network(one) for one in specs}
    words = [" and ".join(sorted(environments)).capitalize()]
    if len(data) == 1:
        words.append(f" on {data.pop()}")
    if len(networks) == 1:
        words.append(f", {networks.pop()}")
    methods = {one.method for one in specs}
    # (several are told apart in the legend)
    if len(methods) == 1 and methods != {"none"}:
        words.append(f", {labels.method_name(methods.pop())}")
    return "".join(words)


def _network(one: Spec) -> str:
    size = "" if {"depth", "width"} & set(spec.unread(one.model)) else f" {one.depth} x {one.width}"
    return f"{MODELS.get(one.model, one.model)}{size}"


def setting(programs: Sequence[program_.Program]) -> str:
    """Returns a sentence with what all lanes of a run have in common besides `title`."""
    words = []
    acts = any(program.spec.acts for program in programs)
    for name, words_of in _COMMON.items():
        if acts and name == "epochs":
            continue
        found = {getattr(program.spec, name) for program in programs}
        if len(found) == 1:
            words.append(words_of(found.pop()))
    words = [word for word in words if word]
    lanes = itertools.chain.from_iterable(program.lanes for program in programs)
    rates = {lane["learning_rate"] for lane in lanes}
    if len(rates) == 1:
        words.append(f"learning rate {float(rates.pop()):g}")
    return f"{', '.join(words).capitalize()}." if words else ""


_COMMON = {
    "samples": lambda value: f"{value:,} examples" if value else "all examples",
    "epochs": lambda value: f"{value} epochs a task" if value > 1 else "1 epoch a task",
    "phase_steps": lambda value: f"{value:,} steps a phase" if value else "",
    "batch_size": lambda value: f"batches of {value}",
    "optimizer": str,
}


def _listed(values: flags.Values, name: str) -> list[str]:
    """The items of a flag that is a list; none where it is not given."""
    return [item for item in (values[name] or "").split(",") if item]
