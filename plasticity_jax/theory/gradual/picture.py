"""The figure of `experiments/gradual/theory.py`: theory above, network below."""

import os
import pathlib
import textwrap
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from plasticity_jax.reporting import curves, looks
from plasticity_jax.theory.gradual import landscapes, panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLACK, (ORANGE, BLUE, GREEN) = looks.BLACK, looks.COLORS[:3]
NOTE = (
    "Not modeled by the theory: labels that mix (its change is linear, θ → Aθ, about an origin "
    "that means nothing to a "
    "network), the null space of a classifier's Hessian (so no μ > 0), Adam, minibatches and "
    "budgets, and whether the "
    "minimum that is kept is a good one. Below: ends of training with Adam on minibatches stand in "
    "for minima; one seed, "
    "one transition between two random labelings of {samples} digits, MLP {depth} x {width}, the "
    "same number of steps "
    "in every arm; halfway (new share 0.5) the target is uniform."
)


def draw(
    tables: Mapping[str, pd.DataFrame], scale: panels.Scale, path_without_suffix: str | os.PathLike
) -> list[str]:
    """Writes the figure of the tables (contraction, paths, plan, bridge) as png and svg; returns
    the two paths.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    written = []
    with curves.style():
        fig = Figure(figsize=(14, 8.4), layout="constrained")
        FigureCanvasAgg(fig)
        axes = fig.subplots(2, 3)
        _contraction(axes[0, 0], tables["contraction"])
        _paths(axes[0, 1], tables["paths"])
        _plan(axes[0, 2], tables["plan"].query("landscape == @panels.BUMPED"))
        _movement(axes[1, 0], tables["bridge"])
        _curvature(axes[1, 1], tables["bridge"])
        _conditions(axes[1, 2], tables["bridge"])
        fig.suptitle(
            "Gradual change as a theorem, and what of it a network shows",
            x=0.01,
            ha="left",
            fontweight="bold",
        )
        spec = scale.spec
        note = NOTE.format(samples=spec.samples, depth=spec.depth, width=spec.width)
        fig.supxlabel(
            "\n".join(textwrap.wrap(note, 215)), x=0.01, ha="left", fontsize=8, color="#555555"
        )
        for suffix, metadata in (
            ("svg", {"Date": None, "Creator": None}),
            ("png", {"Software": None}),
        ):
            path = pathlib.Path(f"{os.fspath(path_without_suffix)}.{suffix}")
            curves.store_figure(fig, path, metadata=metadata)
            written.insert(0, str(path))
    return written


def _contraction(axes: "Axes", table: pd.DataFrame) -> None:
    axes.axhline(1, color="#555555", linewidth=0.8)
    one = table[table["landscape"] == "quadratic"]
    axes.plot(
        one["step"],
        one["bound"],
        color=BLACK,
        linestyle="--",
        label="Lemma 4.3, from inequality (9)",
    )
    axes.plot(one["step"], one["exact"], color=BLACK, label="exact bound (ours)")
    for (name, rows), color, marker in zip(
        table.groupby("landscape"), (BLUE, ORANGE), "so", strict=True
    ):
        axes.plot(
            rows["step"],
            rows["measured"],
            marker,
            color=color,
            markersize=3,
            label=f"measured, {name}",
        )
    axes.set(
        xlabel="step size · β",
        ylabel="distance after / before a step, worst",
        ylim=(0.2, 2.05),
        xlim=(0, 2.12),
    )
    axes.set_title("A gradient step in a basin, μ / β = 1/4", loc="left")
    axes.legend(frameon=False, fontsize=8, loc="upper left")


def _paths(axes: "Axes", table: pd.DataFrame) -> None:
    basin = landscapes.two_wells(panels.TILT)
    x, y = np.meshgrid(np.linspace(-1.6, 1.6, 161), np.linspace(-0.9, 1.2, 106))
    height = np.asarray(
        jax.vmap(basin.loss)(jnp.asarray(np.stack([x.ravel(), y.ravel()], 1)))
    ).reshape(x.shape)
    axes.contour(
        x,
        y,
        height,
        levels=np.linspace(height.min() + 0.01, 0.9, 14),
        colors="#BBBBBB",
        linewidths=0.7,
    )
    angle = np.linspace(0, 2 * np.pi, 90)
    center, radius = np.asarray(basin.minimizer), float(basin.radius)
    circle = center[0] + radius * np.cos(angle), center[1] + radius * np.sin(angle)
    axes.plot(*circle, color=GREEN, linewidth=1, label="ball where μ and β hold")
    for (number, rows), color in zip(table.groupby("micro_tasks"), (ORANGE, BLUE), strict=True):
        label = "abrupt (1 micro-task)" if number == 1 else f"{number} micro-tasks (guaranteed)"
        place = center
        for order, (_, one) in enumerate(rows.groupby("micro_task")):
            jump = np.array([place, one[["x", "y"]].to_numpy()[0]]).T
            axes.plot(*jump, color=color, linestyle=":", linewidth=1.2)
            axes.plot(one["x"], one["y"], color=color, label=label if order == 0 else None)
            place = one[["x", "y"]].to_numpy()[-1]
        axes.plot(*place, "o", color=color, markersize=6, zorder=5)
    axes.plot(*center, "k*", markersize=9, zorder=6, label="the minimum to be tracked")
    axes.set(xlabel="θ as the turning landscape sees it", ylim=(-0.9, 1.75))
    axes.grid(False)
    axes.set_yticks([-0.5, 0, 0.5, 1])
    axes.set_title(
        f"Two wells turn by {np.degrees(panels.TURN):.0f}°: change dotted, descent solid",
        loc="left",
    )
    axes.legend(frameon=False, fontsize=8, loc="upper center", ncols=2)


def _plan(axes: "Axes", table: pd.DataFrame) -> None:
    from matplotlib.ticker import FuncFormatter

    degrees = np.degrees(table["angle"])
    axes.plot(
        degrees,
        table["theorem"],
        "o-",
        color=BLACK,
        markersize=3,
        label="guaranteed by Theorem 4.7",
    )
    axes.plot(
        degrees,
        table["sharper"],
        "s-",
        color=BLUE,
        markersize=3,
        label="guaranteed, exact constants (ours)",
    )
    axes.plot(degrees, table["works"], "^-", color=ORANGE, markersize=3, label="works")
    axes.set(xscale="log", yscale="log", xlabel="total change: turn of the landscape (degrees)")
    axes.set_ylabel("fewest equal micro-tasks")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_title("Micro-tasks that a turn needs (bumped quadratic)", loc="left")
    axes.legend(frameon=False, fontsize=8, loc="upper left")


def _arms(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, Any]]:
    """(label, rows, color) of every granularity, abrupt black, finer darker, as in the reports of
    runs.
    """
    granularities = np.unique(table["granularity"].to_numpy(float))
    for order, granularity in enumerate(granularities):
        label = "abrupt" if granularity == 1 else f"{granularity:g} micro-tasks"
        yield (
            label,
            table.loc[table["granularity"] == granularity],
            looks.ramp(granularities, order),
        )


def _movement(axes: "Axes", table: pd.DataFrame) -> None:
    for label, rows, color in _arms(table):
        total, left = rows["moved"].sum(), rows["radius_left"].to_numpy()[-1]
        text = f"{label}: {total:.2f} in all, Π 1/(1 + ε) = {left:.0%}"
        axes.plot(rows["alpha"], rows["moved"], "o-", color=color, markersize=4, label=text)
    axes.set(
        xlabel="share of the new task", ylabel="movement of θ per micro-task / ‖θ‖", xlim=(0, 1.05)
    )
    axes.set_ylim(0, 1.45 * table["moved"].to_numpy().max())
    axes.set_title("Network: how far each micro-task moves it", loc="left")
    axes.legend(frameon=False, fontsize=8, loc="upper left")


def _curvature(axes: "Axes", table: pd.DataFrame) -> None:
    for label, rows, color in _arms(table):
        axes.plot(
            rows["alpha"], rows["top"], "o-", color=color, markersize=4, label=f"largest, {label}"
        )
        axes.plot(rows["alpha"], rows["along"], "^:", color=color, markersize=4)
        axes.plot(rows["alpha"], rows["bottom"], "v", color=color, markersize=5)
    axes.plot([], [], "^:", color="#555555", label="along the step")
    axes.plot([], [], "v", color="#555555", label="smallest, at most this")
    axes.axhline(0, color="#555555", linewidth=0.8)
    axes.set_yscale("symlog", linthresh=1e-4)
    axes.set(xlabel="share of the new task", ylabel="eigenvalue of the Hessian", xlim=(0, 1.05))
    axes.set_ylim(top=table["top"].to_numpy().max() * 3000)
    axes.set_title("Network: curvature where training ends, no μ > 0", loc="left")
    axes.legend(frameon=False, fontsize=8, loc="upper left", ncols=2)


def _conditions(axes: "Axes", table: pd.DataFrame) -> None:
    left, ticks = 0, []
    names = list(panels.CONDITIONS)[::-1]
    for label, rows, color in _arms(table):
        place = left + np.arange(len(rows))
        for height, name in enumerate(names):
            good = panels.CONDITIONS[name](rows).to_numpy()
            axes.scatter(place[good], np.full(good.sum(), height), s=26, color=color, zorder=3)
            axes.scatter(
                place[~good],
                np.full((~good).sum(), height),
                s=26,
                marker="x",
                color=ORANGE,
                zorder=3,
            )
        ticks.append((place.mean(), label.replace(" ", "\n")))
        left = place[-1] + 3
    for height, name in enumerate(names):
        axes.text(-0.5, height + 0.2, name, fontsize=8)
    axes.set_yticks([])
    axes.set_xticks(*zip(*ticks, strict=True))
    axes.set_ylim(-0.5, len(names) - 0.3)
    axes.grid(False)
    axes.set_xlabel("micro-tasks from first to last")
    axes.set_title("Network: does a condition hold? (cross: no)", loc="left")
