"""Does the curvature across a pair of clones foretell whether the two part in training?

Question: two clones are moved apart a little, in a random direction, and the network trains on.
Are they farther apart after 1, 10, 100, 300 steps than at first, and which certificate, computed
before the first step, tells?
Source: the criterion of Joudaki et al., section 4 (the sign of v'Hv), which they leave open; the
experiment is ours. Networks are MLPs of two layers on scikit-learn's digits, trained for a while,
then cloned; every unit of a layer gives a pair. Training is gradient descent on all examples, so
that the certificate is of the loss that is descended.
Command: python -m experiments.barriers.certificate --workdir=runs/certificate [--scale=smoke]
Cost: minutes on two cores.
Certificates: `along`, v'Hv / v'v along the random direction v itself; `lowest`, the smallest
eigenvalue of the Hessian on all directions that part the two; `flow`, whether (I - rate H)^n v is
longer than v, which takes the Hessian of the beginning for that of the whole training.
Writes: certificate_pairs.csv, a row for each pair; certificate.csv, sensitivity (of pairs that
  part, the share that is foretold) and specificity with 95 % of bootstraps over networks; .png.
"""

import itertools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import computation
from plasticity_jax.models import MLP
from plasticity_jax.probes import hessian_vector_product
from plasticity_jax.reporting import curves
from plasticity_jax.storage import writing
from plasticity_jax.surgery import clone
from plasticity_jax.types import Array, Key, PyTree, Recipient, TrainState, UnitGroup

CERTIFICATES = ("along", "lowest", "flow")
RESAMPLES = 2000
TICKS = (-1.0, -1e-2, 0.0, 1e-2, 1.0)
SIZE = 1e-3  # of the parting, over the norm of what the two have


class Scale(NamedTuple):
    """How much is done.

    Attributes:
      activations, trained, seeds: one network for each; `trained` are steps of Adam.
      width: units of a layer before cloning, and so pairs.
      examples: of digits.
      horizons: steps after which distances are compared.
      rate: of gradient descent.
    """

    activations: tuple[str, ...] = ("tanh", "relu", "gelu")
    trained: tuple[int, ...] = (0, 100, 1000)
    seeds: int = 3
    width: int = 8
    examples: int = 256
    horizons: tuple[int, ...] = (1, 10, 100, 300)
    rate: float = 0.1


SCALES = {
    "full": Scale(),
    "smoke": Scale(("tanh",), (20,), 2, 2, 32, (1, 5)),
}


def digits(count: int) -> tuple[Array, Array]:
    """Returns the first `count` digits, standardized [N, 64], and their classes [N]."""
    from sklearn import datasets

    images, labels = datasets.load_digits(return_X_y=True)
    x = (images[:count] - images.mean()) / images.std()
    return jnp.asarray(x, jnp.float32), jnp.asarray(labels[:count], jnp.int32)


def loss_of(net: MLP, data: tuple[Array, Array]) -> Callable[[PyTree], Array]:
    """Returns params -> [] the mean cross-entropy."""
    x, y = data

    def loss(params: PyTree) -> Array:
        logits = net.apply({"params": params}, x)
        return optax.softmax_cross_entropy_with_integer_labels(jnp.asarray(logits), y).mean()

    return loss


def trained(net: MLP, data: tuple[Array, Array], key: Key, steps: int) -> PyTree:
    """Returns the parameters of a network after so many steps of Adam on all examples."""
    loss, optimizer = loss_of(net, data), optax.adam(1e-3)
    params = net.init(key, data[0])["params"]

    def step(carry: Any, _: None) -> tuple[Any, None]:
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), None, length=steps)
    return params


def cloned(net: MLP, params: PyTree, x: Array) -> tuple[MLP, PyTree]:
    """Returns the network with each unit twice, and its parameters."""
    surgery = clone(factor=2)
    assert surgery.model is not None
    wide = surgery.model(net)

    def shapes() -> TrainState:
        made = jax.eval_shape(lambda: wide.init(jax.random.key(0), x)["params"])
        return TrainState(made, {}, made, ())

    state = TrainState(params, {}, params, ())
    made = surgery.operate(jax.random.key(0), state, Recipient(wide, shapes))
    return wide, made.params


def parting(params: PyTree, unit: UnitGroup, pair: Array | int, numbers: Array) -> PyTree:
    """Returns the direction that moves unit 2 `pair` by `numbers` and its clone against it.

    `numbers` [n + 1 + m] are of the kernel that makes the unit, its bias, and the one that reads
    it.
    """
    made, read = params[unit.made_by[0]], params[unit.feeds[0]]
    count, units = made["kernel"].shape
    ends = 2 * pair + jnp.arange(2)
    signs = jnp.zeros(units).at[ends].set(jnp.asarray([1.0, -1.0]))
    own, bias, out = numbers[:count], numbers[count], numbers[count + 1 :]
    direction = jax.tree.map(jnp.zeros_like, params)
    direction[unit.made_by[0]] = {"kernel": own[:, None] * signs[None], "bias": bias * signs}
    feeds = direction[unit.feeds[0]]
    feeds["kernel"] = feeds["kernel"] + signs[:, None] * out[None, : read["kernel"].shape[-1]]
    return direction


def apart(params: PyTree, unit: UnitGroup, pair: Array | int) -> Array:
    """Returns how far unit 2 `pair` and its clone are from being clones, []."""
    made, read = params[unit.made_by[0]], params[unit.feeds[0]]
    both = jnp.concatenate([made["kernel"], made["bias"][None], read["kernel"].T])
    return jnp.linalg.norm(both[:, 2 * pair] - both[:, 2 * pair + 1]) / jnp.sqrt(2.0)


def lowest(
    loss: Callable[[PyTree], Array], params: PyTree, unit: UnitGroup, pair: Array | int, count: int
) -> Array:
    """Returns the smallest curvature of all directions that part a pair, []."""

    def moved(numbers: Array) -> Array:
        direction = parting(params, unit, pair, numbers)
        return loss(jax.tree.map(jnp.add, params, direction))

    hessian = jax.hessian(moved)(jnp.zeros(count))
    return jnp.linalg.eigvalsh(hessian)[0] / 2  # (a direction is sqrt(2) times as long)


def followed(
    loss: Callable[[PyTree], Array],
    params: PyTree,
    unit: UnitGroup,
    pair: Array | int,
    key: Key,
    scale: Scale,
) -> dict[str, Array]:
    """Returns the certificates of a pair, and how many times as far apart it is at each horizon."""
    made, read = params[unit.made_by[0]]["kernel"], params[unit.feeds[0]]["kernel"]
    count = made.shape[0] + 1 + read.shape[-1]
    drawn = parting(params, unit, pair, jax.random.normal(key, (count,)))
    own = jnp.linalg.norm(made[:, 2 * pair]) + jnp.linalg.norm(read[2 * pair])
    size = SIZE * own / optax.tree.norm(drawn)
    direction = jax.tree.map(lambda leaf: size * leaf, drawn)
    product = hessian_vector_product(loss, params)
    length = optax.tree.norm(direction)
    along = jnp.asarray(optax.tree.vdot(direction, product(direction))) / length**2

    def step(carry: tuple[PyTree, PyTree], _: None) -> tuple[Any, tuple[Array, Array]]:
        here, flow = carry
        descend = lambda leaf, slope: leaf - scale.rate * slope  # noqa: E731
        here = jax.tree.map(descend, here, jax.grad(loss)(here))
        flow = jax.tree.map(descend, flow, product(flow))
        return (here, flow), (apart(here, unit, pair), optax.tree.norm(flow))

    start = jax.tree.map(jnp.add, params, direction)
    first = apart(start, unit, pair)
    _, (distance, flow) = jax.lax.scan(step, (start, direction), None, scale.horizons[-1])
    found = {"along": along, "lowest": lowest(loss, params, unit, pair, count)}
    for n in scale.horizons:
        found |= {f"ratio_{n}": distance[n - 1] / first, f"flow_{n}": flow[n - 1] / length}
    return found


def pairs(scale: Scale) -> Any:
    """Returns a row for each pair of all networks, as pandas.DataFrame."""
    import pandas as pd

    frames = []
    for activation in scale.activations:
        frames += _of_activation(scale, activation)
    return pd.concat(frames, ignore_index=True)


def _of_activation(scale: Scale, activation: str) -> list[Any]:
    """A table for each network and group. Networks are trained in float32 and followed in float64,
    as parted clones are nearly equal.
    """
    import pandas as pd

    data = digits(scale.examples)
    net = MLP(10, width=scale.width, depth=2, norm="none", activation=activation)
    train = jax.jit(lambda key, steps: trained(net, data, key, steps), static_argnums=1)
    follow = _followers(scale, net, data)
    frames = []
    for steps, seed in itertools.product(scale.trained, range(scale.seeds)):
        key = jax.random.key(seed)
        _, params = cloned(net, train(key, steps), data[0])
        params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), params)
        known = {"activation": activation, "trained": steps, "seed": seed}
        for place, (group, run) in enumerate(follow.items()):
            own = jax.random.fold_in(jax.random.fold_in(key, steps), place)
            found = run(params, jnp.arange(scale.width), jax.random.split(own, scale.width))
            columns = {name: np.asarray(value) for name, value in found.items()}
            frames.append(pd.DataFrame({**known, "group": group, **columns}))
    return frames


def _followers(scale: Scale, net: MLP, data: tuple[Array, Array]) -> dict[str, Callable]:
    """{group: (parameters of the clone, pairs [n], keys [n]) -> `followed` of each}."""
    wide = net.widened(2)
    loss = loss_of(wide, (data[0].astype(jnp.float64), data[1]))

    def of_unit(unit: UnitGroup) -> Callable:
        def one(params: PyTree, pair: Array | int, key: Key) -> dict[str, Array]:
            return followed(loss, params, unit, pair, key, scale)

        return jax.jit(jax.vmap(one, in_axes=(None, 0, 0)))

    return {group: of_unit(unit) for group, unit in wide.units().items()}


def foretold(table: Any, certificate: str, horizon: int) -> np.ndarray:
    """Returns [pairs] bool: the certificate says that the two part."""
    if certificate == "flow":
        return table[f"flow_{horizon}"].to_numpy() > 1
    return table[certificate].to_numpy() < 0


def judged(table: Any, horizons: Sequence[int]) -> Any:
    """Returns sensitivity and specificity of each certificate at each horizon, by activation and
    for all, with intervals over networks, as pandas.DataFrame.
    """
    import pandas as pd

    rows = []
    for name in ("all", *table["activation"].unique()):
        part = table if name == "all" else table[table["activation"] == name]
        networks = part.groupby(["activation", "trained", "seed"]).ngroup().to_numpy()
        for horizon in horizons:
            parted = part[f"ratio_{horizon}"].to_numpy() > 1
            for certificate in CERTIFICATES:
                said = foretold(part, certificate, horizon)
                own = {"activation": name, "steps": horizon, "certificate": certificate}
                own |= {"parted": int(parted.sum()), "fell_back": int((~parted).sum())}
                rows.append({**own, **_shares(said, parted, networks)})
    return pd.DataFrame(rows)


def _shares(said: np.ndarray, parted: np.ndarray, networks: np.ndarray) -> dict[str, float]:
    """Sensitivity and specificity, and the ends of their intervals; NaN where there is no case."""
    random = np.random.default_rng(0)
    count = networks.max() + 1
    weights = random.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)[:, networks]
    found: dict[str, float] = {}
    for name, cases, right in (
        ("sensitivity", parted, said & parted),
        ("specificity", ~parted, ~said & ~parted),
    ):
        total, hits = weights @ cases, weights @ right
        known = total > 0
        shares = hits[known] / total[known]
        low, high = np.percentile(shares, [2.5, 97.5]) if len(shares) else (np.nan, np.nan)
        share = right.sum() / cases.sum() if cases.any() else np.nan
        found |= {name: share, f"{name}_low": low, f"{name}_high": high}
    return found


def picture(table: Any, horizons: Sequence[int], path: Path) -> None:
    """Draws how far pairs are apart against each certificate's number, at the first and the last
    horizon.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), layout="constrained")
    every = figure.subplots(2, 3)
    for row, horizon in enumerate((horizons[0], horizons[-1])):
        for column, name in enumerate(("along", "lowest", f"flow_{horizon}")):
            axes = every[row][column]
            for activation, part in table.groupby("activation", sort=False):
                growth = np.log(part[f"ratio_{horizon}"])
                values = np.log(part[name]) if name.startswith("flow") else part[name]
                axes.plot(values, growth, ".", markersize=3, label=activation)
            axes.axhline(0, color="0.6", linewidth=1)
            axes.axvline(0, color="0.6", linewidth=1)
            axes.set_xscale("symlog", linthresh=1e-4)
            axes.set_yscale("symlog", linthresh=1e-4)
            axes.set_xticks(TICKS)
            axes.set_yticks(TICKS)
            axes.set_xlabel(f"log {name}" if name.startswith("flow") else name)
        every[row][0].set_ylabel(f"log growth, {horizon} steps")
    every[0][0].legend(fontsize="x-small")
    curves.store_figure(figure, path)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs it from the command line and returns the exit code."""
    return computation.main(
        __doc__ or "", SCALES, lambda folder, name: run(folder, SCALES[name]), argv
    )


def run(folder: Path, scale: Scale) -> str:
    """Writes tables and picture into `folder` and returns the text to print. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    with jax.enable_x64(True):
        table = pairs(scale)
    found = judged(table, scale.horizons)
    # (with all digits: whether a pair parted is told by the last of them)
    writing.text(folder / "certificate_pairs.csv", table.to_csv(index=False))
    writing.text(folder / "certificate.csv", found.to_csv(index=False, float_format="%.4g"))
    picture(table, scale.horizons, folder / "certificate.png")
    shown = found[found["activation"] == "all"].drop(columns="activation")
    return f"{len(table)} pairs\n{shown.round(3).to_string(index=False)}"


if __name__ == "__main__":
    sys.exit(main())
