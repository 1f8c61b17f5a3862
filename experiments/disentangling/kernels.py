"""Pictures of tangent kernels: as drawn, and after what makes them collapse.

Source: Lyle et al., figure 3, right.
Question: is the kernel diagonal and of rank one for targets with a large mean, and are there blocks
for ReLU and random labels, fewer for leaky ReLU?
Command: python -m experiments.disentangling.kernels --workdir=runs/kernels [--scale=smoke]
Cost: ten minutes; five seeds of an MLP on the 8x8 digits inside scikit-learn.
Rule: the kernel of 64 inputs, the mean over outputs, of unit diagonal, its rows in the order of an
average-linkage tree of 1 - cosine, so that blocks lie together. Whether it is a diagonal and a
matrix of rank one: the share of its squares beside the diagonal that one factor explains.
Writes: kernels.png (of the first seed), kernels.csv (effective ranks, largest eigenvalue's share,
cosine, one factor's share: means and 95 % intervals, Student's t over seeds).
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments import accounts, computation
from plasticity_jax import Spec, lanes, make_run, probes
from plasticity_jax.execution import placement, program
from plasticity_jax.reporting import curves
from plasticity_jax.storage import writing
from plasticity_jax.training import network

INPUTS = 64
COLUMNS = {  # name -> settings and numbers; the first is the second before its first step
    "mean of targets 100": (
        {"environment": "target_offset", "activation": "relu"},
        {"target_offset.offset": 100.0},
    ),
    "random labels, ReLU": ({"environment": "random_labels", "activation": "relu"}, {}),
    "random labels, leaky ReLU": (
        {"environment": "random_labels", "activation": "leaky_relu"},
        {},
    ),
}
NORMS = {"none": "no norm", "layer": "layer norm"}


class Scale(NamedTuple):
    """How large it is.

    Attributes:
      samples, epochs, tasks, width: of the runs.
      seeds: how many of them.
    """

    samples: int
    epochs: int
    tasks: int
    width: int
    seeds: int


SCALES = {"reduced": Scale(1280, 40, 10, 64, 5), "smoke": Scale(128, 2, 1, 8, 2)}


def spec(scale: Scale, norm: str, settings: dict[str, Any]) -> Spec:
    """Returns what is trained: an MLP with Adam, tasks that begin abruptly."""
    own = dict(samples=scale.samples, epochs=scale.epochs, width=scale.width, tasks=scale.tasks)
    return Spec(dataset="digits", transition="abrupt", norm=norm, probes=(), **own, **settings)


def trained(one: Spec, numbers: dict[str, Any], seeds: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns kernels [64, 64] of a network of each seed, as drawn and after its tasks, on the same
    inputs.
    """
    import jax
    import jax.numpy as jnp

    data, run = program.load_data(one), make_run(one)
    options = placement.options(one.model)
    task = jax.jit(run.run_task, donate_argnums=1, compiler_options=options)
    environment = one.make_environment(numbers)
    net = network.network(one, environment, data)
    drawn = environment.task(jax.random.key(0), data, jnp.int32(0))
    x = environment.examples(data, drawn, jnp.arange(INPUTS)).x

    @jax.jit
    def kernel(state: Any) -> Any:
        found = probes.layerwise_ntk(
            lambda params: net.apply(params, state.variables, x, False)[0], state.params
        )
        assert found is not None  # (an MLP is made of dense layers and norms)
        return found

    begin, found = jax.jit(run.init), []
    for seed in range(seeds):
        given = lanes.complete(one, {**numbers, "seed": seed})
        lane = {name: values[0] for name, values in lanes.stack([given]).items()}
        state = begin(lane, data)
        first = np.asarray(kernel(state))
        for number in range(one.tasks):
            state, _ = task(lane, state, data, np.int32(number))
        found.append((first, np.asarray(kernel(state))))
    return found


def ordered(kernel: np.ndarray) -> np.ndarray:
    """Returns the kernel of unit diagonal with rows that are alike beside each other.

    Rows without a kernel, of inputs whose outputs no parameter moves, come last, as zeros.
    """
    from scipy.cluster import hierarchy
    from scipy.spatial import distance

    size = np.sqrt(np.maximum(np.diagonal(kernel), 0))
    awake = np.flatnonzero(size > 0)
    cosines = np.zeros_like(kernel)
    if len(awake) > 1:
        part = kernel[np.ix_(awake, awake)] / np.outer(size[awake], size[awake])
        apart = np.clip(1 - (part + part.T) / 2, 0, None)
        np.fill_diagonal(apart, 0)
        order = hierarchy.leaves_list(hierarchy.average(distance.squareform(apart)))
        cosines[: len(awake), : len(awake)] = part[np.ix_(order, order)]
    return cosines


def of_one_factor(kernel: np.ndarray, rounds: int = 200) -> float:
    """Returns the share of a kernel's squares beside the diagonal that one factor v explains, in
    (-inf, 1]: 1 where the kernel is a diagonal and v v', of rank one.

    1 - sum_{i != j} (K_ij - v_i v_j)^2 / sum_{i != j} K_ij^2, K of unit diagonal, v by principal
    factors: the top eigenvector of K with v_i^2 on its diagonal, again and again. 1 where nothing
    is beside the diagonal.
    """
    size = np.sqrt(np.maximum(np.diagonal(kernel), 0))
    cosines = kernel / np.where(size > 0, np.outer(size, size), 1)
    beside = cosines * (1 - np.eye(len(kernel)))
    if not beside.any():
        return 1.0
    shared = np.ones(len(kernel))
    factor = np.zeros_like(kernel)
    for _ in range(rounds):
        values, vectors = np.linalg.eigh(beside + np.diag(shared))
        factor = max(values[-1], 0.0) * np.outer(vectors[:, -1], vectors[:, -1])
        shared = np.diagonal(factor)
    missed = (beside - factor) * (1 - np.eye(len(kernel)))
    return float(1 - (missed**2).sum() / (beside**2).sum())


def summary(kernels: Sequence[np.ndarray]) -> dict[str, float]:
    """Returns what is read off the kernels of all seeds, by `probes.kernel_summary` and
    `of_one_factor`: means with the ends of their intervals, as _low and _high.
    """
    import jax.numpy as jnp

    found = [
        {**probes.kernel_summary(jnp.asarray(one)), "one_factor": of_one_factor(one)}
        for one in kernels
    ]
    told: dict[str, float] = {"seeds": len(kernels)}
    for name in found[0]:
        mean, low, high = accounts.interval(np.asarray([float(one[name]) for one in found]))
        told |= {name: mean, f"{name}_low": low, f"{name}_high": high}
    return told


def compute(folder: Path, scale_name: str) -> str:
    """Writes the picture and the table into `folder` and returns what is printed."""
    import pandas as pd

    scale, kernels = SCALES[scale_name], {}
    folder.mkdir(parents=True, exist_ok=True)
    for norm, word in NORMS.items():
        for name, (settings, numbers) in COLUMNS.items():
            pairs = trained(spec(scale, norm, settings), numbers, scale.seeds)
            if name == "random labels, ReLU":
                kernels[word, "as drawn"] = [first for first, _ in pairs]
            kernels[word, name] = [last for _, last in pairs]
    rows = [
        {"norm": norm, "network": name, **summary(of_seeds)}
        for (norm, name), of_seeds in kernels.items()
    ]
    table = pd.DataFrame(rows).round(4)
    writing.text(folder / "kernels.csv", table.to_csv(index=False))
    picture({key: of_seeds[0] for key, of_seeds in kernels.items()}, folder / "kernels.png")
    shown = table[["norm", "network", "rank", "rank_low", "rank_high", "one_factor"]]
    return f"{shown.to_string(index=False)}\n\npicture: {folder / 'kernels.png'}"


def picture(kernels: dict[tuple[str, str], np.ndarray], path: Path) -> None:
    """Draws the kernels, a row for each norm."""
    from matplotlib.figure import Figure

    names = ["as drawn", *COLUMNS]
    figure = Figure(figsize=(11, 5.6), layout="constrained")
    places = figure.subplots(len(NORMS), len(names), squeeze=False)
    shown = []
    for row, norm in zip(places, NORMS.values(), strict=True):
        for axes, name in zip(row, names, strict=True):
            cosines = ordered(kernels[norm, name])
            shown.append(axes.imshow(cosines, cmap="RdBu_r", vmin=-1, vmax=1))
            axes.set_title(f"{name}, {norm}", fontsize=9)
            axes.set_xticks([])
            axes.set_yticks([])
    figure.colorbar(shown[0], ax=places, label="cosine of two inputs' gradients", shrink=0.7)
    curves.store_figure(figure, path)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs it from the command line and returns the exit code."""
    return computation.main(__doc__ or "", SCALES, compute, argv)


if __name__ == "__main__":
    sys.exit(main())
