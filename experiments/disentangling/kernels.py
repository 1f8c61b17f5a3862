"""Pictures of tangent kernels: as drawn, and after what makes them collapse.

Source: Lyle et al., figure 3, right.
Question: is the kernel diagonal and of rank one for targets with a large mean, and are there blocks
for ReLU and random labels, fewer for leaky ReLU?
Command: python -m experiments.disentangling.kernels --workdir=runs/kernels [--scale=smoke]
Cost: two minutes; one seed of an MLP on the 8x8 digits inside scikit-learn.
Rule: the kernel of 64 inputs, the mean over outputs, of unit diagonal, its rows in the order of an
average-linkage tree of 1 - cosine, so that blocks lie together.
Writes: kernels.png, kernels.csv (effective ranks, largest eigenvalue's share, cosine).
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments import computation
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
    """

    samples: int
    epochs: int
    tasks: int
    width: int


SCALES = {"reduced": Scale(1280, 40, 10, 64), "smoke": Scale(128, 2, 1, 8)}


def spec(scale: Scale, norm: str, settings: dict[str, Any]) -> Spec:
    """Returns what is trained: an MLP with Adam, tasks that begin abruptly."""
    own = dict(samples=scale.samples, epochs=scale.epochs, width=scale.width, tasks=scale.tasks)
    return Spec(dataset="digits", transition="abrupt", norm=norm, probes=(), **own, **settings)


def trained(one: Spec, numbers: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Returns kernels [64, 64] of a network, as drawn and after its tasks, on the same inputs."""
    import jax
    import jax.numpy as jnp

    data = program.load_data(one)
    lane = {k: v[0] for k, v in lanes.stack([lanes.complete(one, numbers)]).items()}
    run = make_run(one)
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

    state = jax.jit(run.init)(lane, data)
    first = np.asarray(kernel(state))
    for number in range(one.tasks):
        state, _ = task(lane, state, data, np.int32(number))
    return first, np.asarray(kernel(state))


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


def summary(kernel: np.ndarray) -> dict[str, float]:
    """Returns what is read off a kernel, by `probes.kernel_summary`."""
    import jax.numpy as jnp

    found = probes.kernel_summary(jnp.asarray(kernel))
    return {name: float(value) for name, value in found.items()}


def compute(folder: Path, scale_name: str) -> str:
    """Writes the picture and the table into `folder` and returns what is printed."""
    import pandas as pd

    scale, kernels = SCALES[scale_name], {}
    folder.mkdir(parents=True, exist_ok=True)
    for norm, word in NORMS.items():
        for name, (settings, numbers) in COLUMNS.items():
            first, last = trained(spec(scale, norm, settings), numbers)
            if name == "random labels, ReLU":
                kernels[word, "as drawn"] = first
            kernels[word, name] = last
    rows = [
        {"norm": norm, "network": name, **summary(kernel)}
        for (norm, name), kernel in kernels.items()
    ]
    table = pd.DataFrame(rows).round(4)
    writing.text(folder / "kernels.csv", table.to_csv(index=False))
    picture(kernels, folder / "kernels.png")
    return f"{table.to_string(index=False)}\n\npicture: {folder / 'kernels.png'}"


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
