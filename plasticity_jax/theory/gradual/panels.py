"""The tables behind the figure of `experiments/gradual/theory.py`, one function per panel."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from plasticity_jax.spec import Spec
from plasticity_jax.theory.gradual import bridge, landscapes, plan, statements
from plasticity_jax.types import Data


class Scale(NamedTuple):
    """How much is computed.

    Attributes:
      draws: random landscapes per step size.
      angles: total rotations, radians.
      spec: of the network; its epochs are those of one round.
      rounds: of training, task 0 and the transition alike.
      granularities: micro-tasks of the transition, divisors of `rounds`.
    """

    draws: int
    angles: tuple[float, ...]
    spec: Spec
    rounds: int
    granularities: tuple[int, ...]


FULL = Scale(
    draws=200,
    angles=tuple(float(a) for a in np.geomspace(0.05, np.pi, 13)),
    spec=Spec(samples=640, width=64, epochs=60, probes=()),
    rounds=20,
    granularities=(1, 4, 20),
)
SMOKE = Scale(
    draws=20,
    angles=(0.2, 1.0),
    spec=Spec(samples=128, width=16, depth=2, epochs=5, probes=()),
    rounds=4,
    granularities=(1, 4),
)
SCALES = {"full": FULL, "smoke": SMOKE}

BUMPED = "bumped quadratic"  # the landscape of most rows of `plans`
TILT = 0.1  # of the two wells
TURN = 2.6  # radians, for the two wells: far enough for the other one to catch the learner
PRECISION = 1e-3  # distance to a minimum that counts as arrival, in radii of the basin


def contraction(scale: Scale, ratio: float = 0.25) -> pd.DataFrame:
    """Returns what a gradient step does to the distance against what Lemma 4.3 says, for mu / beta
    = `ratio`.

    Columns: landscape, step (η beta), bound (inequality (9)), exact, measured (largest over `draws`
    landscapes). Step sizes beyond 2 / beta are past any bound: there `measured` exceeds 1.
    """
    bump = 5.0
    share = float(np.arccos((ratio * (1 + bump) - 1) / bump) / np.arccos(-1 / bump))

    def of_quadratic(key):
        return landscapes.quadratic(key, 5, ratio, 1.0)

    def of_bumps(key):
        where, axes = jax.random.split(key)
        turned = jax.random.orthogonal(axes, 5)
        return landscapes.bumped_quadratic(landscapes.direction(where, 5), turned, bump, 1.0, share)

    @functools.partial(jax.jit, static_argnums=2)
    def measured(steps, keys, which):
        def one(step, key):
            shape, start = jax.random.split(key)
            basin = which(shape)
            edge = jnp.where(jnp.isfinite(basin.radius), basin.radius, 1.0)
            begin = basin.minimizer + edge * landscapes.direction(start, 5)
            return statements.descend(basin, begin, step / basin.beta, 30).rate

        return jax.vmap(lambda step: jax.vmap(lambda key: one(step, key))(keys).max())(steps)

    steps = jnp.linspace(0.05, 2.1, 42)
    keys = jax.random.split(jax.random.key(0), scale.draws)
    known = {
        "step": np.asarray(steps),
        "bound": np.asarray(statements.contraction(jnp.asarray(ratio), jnp.asarray(1.0), steps)),
        "exact": np.asarray(
            statements.contraction(jnp.asarray(ratio), jnp.asarray(1.0), steps, exact=True)
        ),
    }
    tables = []
    for name, which in (("quadratic", of_quadratic), ("bumped quadratic", of_bumps)):
        found = np.asarray(measured(steps, keys, which))
        tables.append(pd.DataFrame({"landscape": name, **known, "measured": found}))
    return pd.concat(tables, ignore_index=True)


def paths(steps: int = 60) -> pd.DataFrame:
    """Returns gradient descent in two wells that turn by TURN, in the frame in which they stand
    still.

    Columns: micro_tasks, micro_task, step, x, y, loss. One chain is abrupt, one has the fewest
    micro-tasks that the theorem's sharper form guarantees.
    """
    basin, generator = landscapes.two_wells(TILT), plan.rotation(TURN)
    fewest = plan.guaranteed(basin, generator, PRECISION * float(basin.radius), exact=True).number
    tables = []
    for number in (1, fewest or 1):
        points = np.asarray(plan.path_in_moving_frame(basin, generator, number, steps))
        flat = points.reshape(-1, 2)
        tables.append(
            pd.DataFrame(
                {
                    "micro_tasks": number,
                    "micro_task": np.repeat(np.arange(1, number + 1), steps + 1),
                    "step": np.tile(np.arange(steps + 1), number),
                    "x": flat[:, 0],
                    "y": flat[:, 1],
                    "loss": np.asarray(jax.vmap(basin.loss)(jnp.asarray(flat))),
                }
            )
        )
    return pd.concat(tables, ignore_index=True)


def plans(scale: Scale) -> pd.DataFrame:
    """Returns how many micro-tasks turns of a bumped quadratic (‖θ*‖ = 3, dents 1 apart) and that
    of two wells need.

    Columns: landscape, angle, theorem (guaranteed as stated), sharper (guaranteed with exact
    constants), works, failures_above (how many of the next larger numbers fail), steps (that the
    theorem asks for in its last micro-task, by its own step size), or NaN where none was found.
    """
    bumped, wells = (
        landscapes.bumped_quadratic(jnp.array([3.0, 0.0]), bump=20.0),
        landscapes.two_wells(TILT),
    )
    rows = []
    for name, basin, angle in [(BUMPED, bumped, angle) for angle in scale.angles] + [
        ("two wells", wells, TURN)
    ]:
        near, generator = PRECISION * float(basin.radius), plan.rotation(angle)
        theorem = plan.guaranteed(basin, generator, near)
        works = plan.working(basin, generator, near)
        steps = np.nan
        if theorem.number:
            matrices = jnp.tile(
                plan.micro_matrix(generator, theorem.number), (theorem.number, 1, 1)
            )
            steps = float(statements.chain(basin, matrices, near).steps[-1])
        sharper = plan.guaranteed(basin, generator, near, exact=True).number
        rows.append(
            (name, angle, theorem.number, sharper, works.number, len(works.failures_above), steps)
        )
    columns = ["landscape", "angle", "theorem", "sharper", "works", "failures_above", "steps"]
    return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(columns[1:], float))


def bridges(scale: Scale, data: Data, seed: int = 0) -> pd.DataFrame:
    """Returns the Steps of a real transition of the network, one row per granularity and
    micro-task, with the columns

    granularity, micro_task, those of `bridge.Step`, and radius_left: Π 1 / (1 + ε), the share of
    the first radius that Theorem 4.7 would still vouch for after so much movement.
    """
    functions, tables = bridge.make_bridge(scale.spec), []
    fresh = functions.init(seed, data)
    training = bridge.Training(scale.rounds, seed)
    start = bridge.train_rounds(functions, fresh, data, 0, 1.0, training)
    for granularity in scale.granularities:
        steps = bridge.walk(functions, start, data, granularity, training)
        table = pd.DataFrame(steps, columns=bridge.Step._fields).astype(float)
        table.insert(0, "granularity", granularity)
        table.insert(1, "micro_task", range(1, granularity + 1))
        table["radius_left"] = (1 / (1 + table["epsilon"])).cumprod()
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


ROUNDING = 1e-5  # of a loss or curvature in float32, relative to its scale

CONDITIONS = {
    "no barrier on the way": lambda t: t["barrier"] <= ROUNDING * t["loss_before"],
    "convex on the way": lambda t: t["bulge"] <= ROUNDING * t["loss_before"],
    "gradient leads to the new end": lambda t: t["secant_convexity"] > 0,
    "curved up along the step": lambda t: t["along"] > 0,
    "strongly convex (μ > 0)": lambda t: t["bottom"] > ROUNDING * t["top"],
}
"""What the theorem or its proof needs at a micro-task -> whether the rows of `bridges` show it."""


def text(tables: dict[str, pd.DataFrame]) -> str:
    """Returns the short summary of the tables that the experiment prints."""
    step, paths_, plan_, walk = (
        tables[name] for name in ("contraction", "paths", "plan", "bridge")
    )
    legal = step[step["step"] < 2]
    lines = [
        "contraction: measured / exact bound at most "
        f"{(legal['measured'] / legal['exact']).max():.6f}, "
        f"measured / inequality (9) at most {(legal['measured'] / legal['bound']).max():.6f}",
    ]
    for number, rows in paths_.groupby("micro_tasks"):
        end = rows.iloc[-1]
        where = "in the tracked well" if end["x"] > 0 else "in the other well"
        lines.append(f"two wells, turned in {number}: ends {where}, loss {end['loss']:.3f}")
    wells = plan_[plan_["landscape"] != BUMPED].iloc[0]
    lines.append(
        f"two wells: guaranteed from {wells['theorem']:.0f} on by the theorem, from "
        f"{wells['sharper']:.0f} on by exact constants; {wells['works']:.0f} work"
    )
    plan_ = plan_[plan_["landscape"] == BUMPED]
    lines += [
        "",
        f"{'turn':>6}{'theorem':>10}{'sharper':>10}{'works':>8}{'steps the theorem asks for':>30}",
    ]
    for row in plan_.iloc[:: max(1, len(plan_) // 6)].to_dict("records"):
        lines.append(
            f"{np.degrees(row['angle']):5.0f}°{row['theorem']:10.0f}{row['sharper']:10.0f}"
            f"{row['works']:8.0f}{row['steps']:30.3g}"
        )
    lines += [
        "",
        f"{'granularity':>11}{'moved, sum':>12}{'largest':>9}{'radius left':>13}"
        f"{'top at end':>12}{'loss':>9}",
    ]
    lines[-1] += "   conditions: " + "; ".join(CONDITIONS)
    for granularity, rows in walk.groupby("granularity"):
        end = rows.iloc[-1]
        shares = [f"{int(holds_(rows).sum())} of {len(rows)}" for holds_ in CONDITIONS.values()]
        lines.append(
            f"{granularity:11}{rows['moved'].sum():12.2f}{rows['moved'].max():9.2f}"
            f"{end['radius_left']:13.1%}{end['top']:12.3g}{end['loss']:9.2g}   {'; '.join(shares)}"
        )
    return "\n".join(lines)
