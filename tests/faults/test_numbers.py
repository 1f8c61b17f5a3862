"""Numbers that are none in one lane of eight: the others stay as they were, to the bit, and the
lane is marked from that task on, in the table, the figure and the page.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from helpers import tiny

from plasticity_jax import methods, probes, registry
from plasticity_jax.environments import ENVIRONMENTS, random_labels
from plasticity_jax.execution import sweep
from plasticity_jax.methods import lifting
from plasticity_jax.reporting import curves, findings, page, statistics
from plasticity_jax.storage import table as table_
from plasticity_jax.stream import keys
from plasticity_jax.types import Array, Environment, Method, Snapshot, Whole

pytestmark = [pytest.mark.faults, pytest.mark.slow]

NEVER = registry.LARGEST_WHOLE
WHAT = {1: np.nan, 2: np.inf, 3: -np.inf, 4: 3e38}
"""What a number becomes; the last is one whose square float32 does not hold."""
WHERE = {1: "gradient", 2: "parameter"}
TASKS, STEPS, LANES = 3, 8, 8
STRUCK = 5
# the first step, one in the middle of the second task, the last one
MOMENTS = (1, 12, TASKS * STEPS)
MEASURED = [
    "online_accuracy", "online_accuracy_mean", "online_loss", "accuracy", "hollow",
    "hollow/endless",
]  # fmt: skip


def bad(what):
    return jnp.array([0.0, *WHAT.values()], jnp.float32)[what]


@registry.checked
def strike(*, at: Whole = 1, what: Whole = 1, where: Whole = 1) -> Method:
    """At one step the first number of a gradient, or of a parameter, is none. Source: ours."""

    def method(optimizer):
        inner = lifting.extended(optimizer)

        def struck(tree, now):
            leaves, structure = jax.tree.flatten(tree)
            hit = leaves[0].ravel().at[0].set(bad(what)).reshape(leaves[0].shape)
            leaves[0] = jnp.where(now, hit, leaves[0])
            return jax.tree.unflatten(structure, leaves)

        def update(updates, state, params=None, *, ctx=None, **extra):
            now = ctx.step + 1 == at
            updates = struck(updates, now & (jnp.asarray(where) == 1))
            found, state = inner.update(updates, state, params, ctx=ctx, **extra)
            return struck(found, now & (jnp.asarray(where) == 2)), state

        return inner._replace(update=update)

    return method


def torn(*, since: Whole = 1, pixel: Whole = 1, case: Whole = 1) -> Environment:
    """Random labels, where from a task on an image has a pixel that is no number; `case` changes
    nothing, and tells lanes apart. Source: ours.
    """
    whole = random_labels()

    def task(key, data, t):
        return whole.task(key, data, t), jnp.asarray(t) + 1 >= since

    def examples(data, drawn, index):
        labels, late = drawn
        batch = whole.examples(data, labels, index)
        first = (index == 0).reshape(-1, *[1] * (batch.x.ndim - 1))
        return batch._replace(x=jnp.where(first & late, bad(pixel), batch.x))

    return whole._replace(task=task, examples=examples)


def hollow(snapshot: Snapshot) -> dict[str, Array]:
    """The length of all parameters, which is no number in one lane from a task on. Source: ours."""
    size = jnp.sqrt(sum((leaf**2).sum() for leaf in jax.tree.leaves(snapshot.params)))
    own = [keys.role(jax.random.key(STRUCK), keys.PROBE, task) for task in range(1, TASKS)]
    data = jax.random.key_data(snapshot.key)
    now = jnp.stack([(data == jax.random.key_data(key)).all() for key in own]).any()
    return {"": jnp.where(now, jnp.nan, size), "endless": jnp.where(now, jnp.inf, size)}


def lane(seed, **changes):
    usual = {"strike.at": NEVER, "torn.since": NEVER}
    return {"seed": seed, **usual, **{name.replace("_", ".", 1): v for name, v in changes.items()}}


def cases():
    """{what is done: (lanes of which one is struck, the task from which on it is)}."""
    found = {"nothing": ([lane(seed) for seed in range(LANES)], None)}
    for at in MOMENTS:
        for what, value in WHAT.items():
            for where, name in WHERE.items():
                hit = lane(STRUCK, strike_at=at, strike_what=what, strike_where=where)
                others = [lane(seed) if seed != STRUCK else hit for seed in range(LANES)]
                found[f"{value} in a {name} at step {at}"] = others, (at - 1) // STEPS
    for what in (1, 2):
        hit = lane(STRUCK, torn_since=2, torn_pixel=what)
        others = [lane(seed) if seed != STRUCK else hit for seed in range(LANES)]
        found[f"{WHAT[what]} in an image"] = others, 1
    # (of a probe: in every case, where that seed is; here it is not)
    found["no probe that is hollow"] = (
        [lane(seed if seed != STRUCK else 105) for seed in range(LANES)],
        None,
    )
    return found


CASES = cases()


@pytest.fixture(scope="module")
def runs(tmp_path_factory, compiled_quickly):
    """The rows of each case, all from one compiled program, eight lanes at a time."""
    root = tmp_path_factory.mktemp("numbers")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(methods.METHODS, "strike", strike)
        patch.setitem(ENVIRONMENTS, "torn", torn)
        patch.setitem(probes.PROBES, "hollow", hollow)
        spec = tiny.spec(
            dataset=tiny.arrays(root / "data"), environment="torn", method="strike",
            probes=("hollow",), optimizer="adam", tasks=TASKS,
        )  # fmt: skip
        every = []
        for number, (lanes, _) in enumerate(CASES.values(), 1):
            every += [one | {"torn.case": number} for one in lanes]
        sweep.run(spec, every, root / "run", lane_width=LANES)
        whole = table_.read(root / "run" / "results.parquet")
    parts = {}
    for number, name in enumerate(CASES):
        own = whole["lane"].between(LANES * number, LANES * number + LANES - 1)
        rows = whole.loc[own].assign(lane=whole["lane"] - LANES * number)
        told = [name for name in rows if name.startswith(("strike.", "torn."))]
        parts[name] = rows.drop(columns=told).reset_index(drop=True)
    return parts


def same(left, right):
    assert len(left)
    pd.testing.assert_frame_equal(
        left.reset_index(drop=True), right.reset_index(drop=True), check_exact=True
    )


@pytest.mark.parametrize("case", [name for name, (_, task) in CASES.items() if task is not None])
def test_a_lane_is_marked_and_the_others_stay(case, runs):
    rows, straight, (_, task) = runs[case], runs["nothing"], CASES[case]
    other = rows["seed"] != STRUCK
    same(rows[other], straight[other])
    before = ~other & (rows["task"] < task)
    if task:
        same(rows[before], straight[before])
    struck = rows[~other]
    assert struck["finite"].tolist() == [one < task for one in range(TASKS)]
    assert struck.loc[struck["task"] >= task, MEASURED].isna().to_numpy().all()


def test_a_lane_is_marked_in_figure_and_page(runs, tmp_path):
    rows = runs["inf in a gradient at step 12"]
    arms = ["granularity"]
    drawn = curves.figure(rows, arms)
    (legend,) = [axes.get_legend() for axes in drawn.axes if axes.get_legend()]
    assert "1 of 8 seeds diverged, from task 2" in legend.texts[0].get_text()
    assert "A diverged seed is left out" in drawn._supxlabel.get_text()
    (line,) = findings.of_table(rows, arms, "online_accuracy").diverged
    assert line.endswith("1 of 8 seeds diverged: seed 5 from task 2.")
    about = page.About("It", "", "", "", [], "")
    assert "1 of 8 seeds diverged" in page.page(rows, arms, page.Shown("online_accuracy"), about)


def test_a_probe_without_a_number_leaves_the_lane_sound_and_is_told(runs):
    """The network is as sound as before, so that its other measurements stay."""
    rows, straight = runs["nothing"], runs["no probe that is hollow"]
    other = rows["seed"] != STRUCK
    same(rows[other], straight[other])
    struck = rows[~other]
    assert struck["finite"].all()
    assert struck["hollow"].isna().tolist() == [False, True, True]
    assert np.isinf(struck["hollow/endless"]).tolist() == [False, True, True]
    assert struck[["online_accuracy", "accuracy", "loss"]].notna().to_numpy().all()
    summary = statistics.summary(rows, ["granularity"])
    for name in ("hollow", "hollow/endless"):
        found = summary[summary["metric"] == name]
        assert found["count"].tolist() == [8, 7, 7]
        assert np.isfinite(found["mean"]).all()
    said = "Some seeds have no value of: hollow (from task 2)."
    assert said in curves.figure(rows, ["granularity"])._supxlabel.get_text()
    about = page.About("It", "", "", "", [], "")
    shown = page.Shown("online_accuracy")
    assert said in page.page(rows, ["granularity"], shown, about)
    assert "no value of" not in page.page(straight, ["granularity"], shown, about)
