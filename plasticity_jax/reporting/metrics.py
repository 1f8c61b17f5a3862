"""What the numbers in a table of results are: their words, which way is better, whether they are
shares of 1.

Environments and probes say it of themselves (`types.Metric`), so that nothing here knows a metric
by its name. A table made by a run carries it along in `pandas.DataFrame.attrs`, which Parquet
keeps. Of a column that a table says nothing of (an earlier version wrote it, or pandas lost the
attributes in a merge) holds what the environments and probes registered now say of that name; what
none of them knows is shown as a plain number.
"""

import dataclasses
import functools
import inspect
import itertools
from collections.abc import Container, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from plasticity_jax import spec as spec_
from plasticity_jax.environments import ENVIRONMENTS
from plasticity_jax.lanes import DEFAULTS
from plasticity_jax.probes import PROBES
from plasticity_jax.spec import START, Spec
from plasticity_jax.types import Data, Environment, Metric

if TYPE_CHECKING:
    import pandas

KEY = "metrics"  # of the attributes of a table
# which every environment has, in units of its own
LOSSES = ("loss", "online_loss", "online_loss_mean")
# columns of tables that are no measurements
TAKEN = ("lane", "task", "seed", "finite", "stopped", "task_number", "part", "point")


class Known(NamedTuple):
    """What is known of columns.

    Attributes:
      scores: {column: Metric} of environments, the column that a run is judged by first.
      probes: the same of probes; their details (`probe/detail`) are in the unit of the probe.
    """

    scores: dict[str, Metric]
    probes: dict[str, Metric]


def of_environment(environment: Environment, revisit: int = 0) -> dict[str, Metric]:
    """Returns {column: Metric} of the scores that a run of this environment may have, what it is
    judged by first.

    Judged by is the score of held-out examples, else that of generated texts, else that of the last
    epoch. Raises ValueError if the environment describes a metric that it does not have, or two
    columns would have one name.
    """
    generated = [environment.decoding.metric] if environment.decoding else []
    main, loss = environment.metrics[0], environment.loss_metric._replace(name="loss")
    found = list(environment.scores)

    def add(
        metric: Metric,
        prefix: str = "",
        suffix: str = "",
        words: str = "after the task",
        revisit: str = "",
    ) -> None:
        label = f"{prefix} {metric.label or _words(metric.name)} {words}".strip()
        if prefix == "test":
            metric = metric._replace(chance=functools.partial(_of_held_out, metric))
        name = "_".join(part for part in (revisit, prefix, metric.name, suffix) if part)
        found.append(metric._replace(name=name, label=label))

    for metric in [*generated, *environment.metrics] if environment.test else []:
        add(metric, "test")
    for metric in generated:
        add(metric)
    add(main, "online", words="")
    for metric in environment.metrics:
        add(metric)
    add(loss)
    add(main, "online", "mean", "over the whole task")
    add(loss, "online", words="")
    add(loss, "online", "mean", "over the whole task")
    for back in range(1, revisit + 1):
        ago = "of the task before" if back == 1 else f"of the task {back} before"
        for metric in [*environment.metrics, *generated]:
            for prefix in ("", "test") if environment.test else ("",):
                add(metric, prefix, words=ago, revisit=f"revisit_{back}")
    columns = {metric.name: metric for metric in found}
    if len(columns) < len(found) or not columns.keys().isdisjoint(TAKEN):
        names = ", ".join(repr(metric.name) for metric in environment.metrics)
        raise ValueError(
            f"metrics are {names}: allowed are names that no other column has, as "
            f"{', '.join(TAKEN)} and loss are."
        )
    return columns


def _of_held_out(metric: Metric, data: Data) -> float | None:
    if not len(data.test_y):
        return None
    return metric.guess(dataclasses.replace(data, x=data.test_x, y=data.test_y))


def of_probe(name: str) -> Metric:
    """Returns what a registered probe says of its number: a Metric in its return annotation,
    Annotated[..., Metric()].
    """
    plain = name.removesuffix(START)
    annotation = inspect.signature(PROBES[plain]).return_annotation
    said = [m for m in getattr(annotation, "__metadata__", ()) if isinstance(m, Metric)]
    found = (said[0] if said else Metric())._replace(name=name)
    if name == plain:
        return found
    return found._replace(label=f"{found.label or _words(plain)} at the start of the task")


def of_specs(specs: Sequence[Spec]) -> Known:
    """Returns what is known of the columns of a run of these Specs.

    Raises ValueError if a metric has the name of a setting or a probe, or if two environments mean
    different things by one name.
    """
    scores: dict[str, Metric] = {}
    for spec in specs:
        settings = {
            *spec.axes(),
            *spec.known_options(),
            *spec.known_numbers(),
            *DEFAULTS,
            *spec.probes,
        }
        for column, metric in of_environment(spec.make_environment(), spec.revisit).items():
            if column in settings or spec_.is_setting(column):
                raise ValueError(
                    f"metric {column!r} of {spec.environment} has the name of a setting or a probe."
                )
            # (functions cannot be compared)
            if metric[:4] != scores.setdefault(column, metric)[:4]:
                raise ValueError(
                    f"{spec.environment} means by {column!r} something else than another "
                    "environment does."
                )
    probes = itertools.chain.from_iterable(spec.probes for spec in specs)
    return Known(scores, {name: of_probe(name) for name in probes})


def check_measured(specs: Sequence[Spec], column: str, held_out: bool = True) -> None:
    """Returns if a run of these Specs measures `column`; `held_out` is whether its data has
    held-out examples.

    Raises ValueError that says what to add.
    """
    known, whole = of_specs(specs), column.partition("/")[0]
    there = [name for name in known.scores if held_out or not name.startswith("test_")]
    if column in there:
        return
    if whole in known.probes:
        if all(spec.probe_every > spec.tasks for spec in specs):
            often = spec_.word("probe_every", specs[0].probe_every, str(specs[0].probe_every))
            raise ValueError(
                f"probe_every is {often}, but {column} is to be shown: allowed are up to "
                f"{max(spec.tasks for spec in specs)}, the number of tasks."
            )
        return
    if whole in PROBES:
        given = ",".join(known.probes) or "none"
        raise ValueError(f"probes is {given!r}, but {column} is to be shown: add {whole}.")
    why = ", with data that has a test split" if column in known.scores else ""
    raise ValueError(
        f"{column} is to be shown, but this run has {', '.join(there)}: allowed are runs that have "
        f"it{why}."
    )


def record(specs: Sequence[Spec]) -> dict[str, Any]:
    """Returns what is known of the columns of a run as JSON types: what its table carries along."""
    known = of_specs(specs)
    return {"scores": _recorded(known.scores), "probes": _recorded(known.probes)}


def _recorded(columns: Mapping[str, Metric]) -> dict[str, dict[str, Any]]:
    return {
        column: {"label": metric.label, "better": metric.better, "share": metric.share}
        for column, metric in columns.items()
    }


def of_table(table: "pandas.DataFrame") -> Known:
    """Returns what is known of a table's columns. Raises ValueError if what it carries along is not
    what `record` makes.
    """
    known = Known({}, {name: of_probe(name) for name in PROBES})
    for factory in ENVIRONMENTS.values():
        for column, metric in of_environment(factory()).items():
            known.scores.setdefault(column, metric)
    said = table.attrs.get(KEY, {})
    try:
        for kind, columns in known._asdict().items():
            for column, entry in said.get(kind, {}).items():
                columns[column] = _read(column, **entry)
    except (TypeError, AttributeError):
        raise ValueError(
            f"what the table carries along of its metrics is damaged: {str(said)[:200]}."
        ) from None
    return known


def _read(column: str, label: str, better: str | None, share: bool) -> Metric:
    if not (
        isinstance(label, str) and better in (None, "higher", "lower") and isinstance(share, bool)
    ):
        raise TypeError
    return Metric(column, label, better, share)


def of_column(table: "pandas.DataFrame", column: str) -> Metric:
    """Returns what is known of one column; a probe's details are in its unit.

    Raises as `of_table`.
    """
    whole, _, detail = column.partition("/")
    known = of_table(table)
    metric = {**known.probes, **known.scores}.get(whole, Metric())
    return metric._replace(name=column, label=(not detail and metric.label) or _words(column))


def _words(column: str) -> str:
    return column.replace("_", " ")


def judged_by(environments: Sequence[Environment], columns: Container[str]) -> str:
    """Returns the column among `columns` that a run is judged by: a score of all its environments,
    if there is one.
    """
    orders = [list(of_environment(environment)) for environment in environments]
    every = dict.fromkeys(itertools.chain(*orders))
    there = [column for column in every if column in columns]
    common = set(every).intersection(*orders) - set(LOSSES)
    return next((column for column in there if column in common), there[0])


def chances(environments: Sequence[Environment], data: Data) -> dict[str, float]:
    """Returns {column: value of guessing} of the scores that have one, as `chance` has it."""
    columns = dict.fromkeys(itertools.chain.from_iterable(map(of_environment, environments)))
    found = {column: chance(environments, data, column) for column in columns}
    return {column: float(value) for column, value in found.items() if value is not None}


def chance(environments: Sequence[Environment], data: Data, column: str) -> float | None:
    """Returns the value of guessing in a column of scores: None where there is none, or not one for
    all environments.
    """
    metrics = [of_environment(environment).get(column, Metric()) for environment in environments]
    values = {metric.guess(data) for metric in metrics}
    return values.pop() if len(values) == 1 else None
