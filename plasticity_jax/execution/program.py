"""Programs: a Spec with its lanes and its data, planned and checked before anything is compiled."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from plasticity_jax import datasets, models, registry
from plasticity_jax import lanes as lanes_
from plasticity_jax.execution import placement
from plasticity_jax.reporting import metrics as metrics_
from plasticity_jax.spec import Spec
from plasticity_jax.storage import paths
from plasticity_jax.training import network
from plasticity_jax.types import Array, Data, Environment, Key, PyTree

History = dict[str, np.ndarray]
"""Metrics of one program so far: {name: [tasks done, lanes]}."""


class Program(NamedTuple):
    """One Spec with all its lanes (completed: every number given) and how they are executed.

    Attributes:
      start: what they begin from; None: they are drawn.
    """

    spec: Spec
    lanes: list[dict[str, Any]]
    execution: placement.Execution
    start: "Start | None" = None


class Start(NamedTuple):
    """The trained states that lanes begin from, each from the lane of its seed.

    Attributes:
      folder: the workdir that they are in; "given parameters" if they are in none.
      tasks: after whose end they are, of each lane; -1 of given parameters.
      digests: SHA-256 of the state of each lane, shortened.
      states: () -> the states [lanes, ...].
      donors: of each lane, the lane that it begins from: its number in the folder's table, its
        method and its numbers. Empty in records from before there were any.
    """

    folder: str
    tasks: list[int]
    digests: list[str]
    states: Callable[[], PyTree]
    donors: Sequence[Mapping[str, Any]] = ()


def device_data(dataset: datasets.Dataset) -> Data:
    """Returns a dataset as the arrays that programs take (numpy; uint8 images); put it on devices
    as you like.
    """
    images = [dataset.images, dataset.labels, dataset.test_images, dataset.test_labels]
    statistics = [np.asarray(s, np.float32) for s in (dataset.mean, dataset.std)]
    arrays: list[Any] = [*map(np.asarray, images), *statistics]
    return Data(*arrays, classes=dataset.classes)


def load_dataset(
    spec: Spec, data_dir: str | None = None, download: bool = False
) -> datasets.Dataset:
    """Returns the Spec's dataset, subsampled as it says. Raises DataError, or ValueError if it asks
    for too much.
    """
    if not isinstance(spec, Spec):
        raise ValueError(f"spec is {registry.shown(spec)}: allowed is a Spec.")
    if data_dir:
        data_dir = paths.expanded(data_dir, "data_dir")
    return datasets.subsample(
        datasets.load(spec.dataset, data_dir, download), spec.samples, seed=spec.subsample_seed
    )


def load_data(spec: Spec, data_dir: str | None = None, download: bool = False) -> Data:
    """Returns the Spec's dataset as the `data` argument of its pure functions.

    >>> data = pj.load_data(pj.Spec(dataset="digits", samples=320))
    >>> data.x.shape, data.y.shape, data.classes
    ((320, 8, 8, 1), (320,), 10)
    """
    return jax.tree.map(jax.numpy.asarray, device_data(load_dataset(spec, data_dir, download)))


def sizes(specs: Sequence[Spec], data: Data) -> dict[Spec, int]:
    """Returns how many examples a task of each Spec has in `data`.

    Raises ValueError (one sentence) if an environment or a model cannot use these data.
    """
    found = {}
    for spec in specs:
        environment = spec.make_environment()
        if environment.data != "nothing":
            _check_data(spec, environment, data)
        environment.check(data, spec.first_task + spec.tasks)
        if "clone_r2" in spec.probe_names():
            _check_clones(spec, environment, data)
        found[spec] = environment.size(data)
    return found


def _check_data(spec: Spec, environment: Environment, data: Data) -> None:
    """Raises ValueError if the environment or the model cannot use these examples."""
    real = data.classes == 0
    if real != (environment.data == "numbers"):
        has, wants = ("real targets", "classes") if real else ("classes", "real targets")
        raise ValueError(
            f"dataset {spec.dataset!r} has {has}, but environment {spec.environment!r} needs "
            f"{wants}: allowed is another dataset or environment."
        )
    reads = models.inputs(models.MODELS[spec.model])
    if data.x.ndim == 2 and "vectors" not in reads:
        raise ValueError(
            f"dataset {spec.dataset!r} has rows of features, but model {spec.model!r} reads "
            f"{' and '.join(reads)}: allowed is mlp."
        )


def _check_clones(spec: Spec, environment: Environment, data: Data) -> None:
    """Raises ValueError if some layer's units cannot be dealt out to groups of clones."""
    factor = registry.whole("clone_r2.factor", dict(spec.options).get("clone_r2.factor", 2), 2)

    def hidden(key: Key, data: Data) -> Mapping[str, Array]:
        net = network.network(spec, environment, data)
        collections = net.init(key)
        params = collections.pop("params")
        task = environment.task(key, data, jnp.int32(0))
        batch = environment.examples(data, task, jnp.zeros(1, jnp.int32))
        found = net.apply(params, collections, batch.x, False)[1]
        return {group: one for group, one in found.items() if group not in net.linear}

    for group, one in jax.eval_shape(hidden, jax.random.key(0), data).items():
        if one.shape[-1] % factor:
            raise ValueError(
                f"clone_r2.factor is {factor}: allowed are whole numbers from 2 that divide the "
                f"{one.shape[-1]} units of {group}."
            )


def plan(
    runs: Sequence[tuple[Spec, Sequence[Mapping[str, Any]]]],
    samples: int | Mapping[Spec, int],
    strategy: str | None = None,
    width: int | None = None,
) -> list[Program]:
    """Returns the programs of a run, checked; `samples` says how many examples a task has, as
    `sizes` does of each Spec.

    Raises ValueError (one sentence) for anything that cannot run.
    """
    if len({spec for spec, _ in runs}) < len(runs):
        raise ValueError("a Spec is given twice: allowed is one list of lanes for each Spec.")
    metrics_.of_specs([spec for spec, _ in runs])  # (checks their names)
    checked = []
    for spec, given in runs:
        count = samples if isinstance(samples, int) else samples[spec]
        checked.append((spec, lanes_.check(spec, given, count)))
    lanes_.check_distinct(checked)
    return [
        Program(spec, lanes, placement.execution(placement.kind(spec), len(lanes), strategy, width))
        for spec, lanes in checked
    ]


def load_common_dataset(
    specs: Sequence[Spec], data_dir: str | None, download: bool
) -> datasets.Dataset:
    """Returns the dataset that all Specs of a run share. Raises ValueError if they differ in it."""
    for name in ("dataset", "samples", "subsample_seed"):
        given = list(dict.fromkeys(getattr(spec, name) for spec in specs))
        if len(given) > 1:
            raise ValueError(
                f"{name} is {given[0]!r} and {given[1]!r}: allowed is one for all programs of a "
                "run."
            )
    dataset = load_dataset(specs[0], data_dir, download)
    for spec in specs:
        if spec.dataset != "generated":  # which has places for texts, and no classes
            spec.check_classes(dataset.classes)
    return dataset
