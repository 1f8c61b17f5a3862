"""Claims of Lyle et al.: what each contrast is, on hand-made lanes."""

import itertools

import numpy as np
import pandas as pd
import pytest

from experiments import export
from experiments.disentangling import claims, interventions, ordering, rewards, settings, switch


def lanes(arms, seeds=2, tasks=10):
    """Rows of arms, each settings and what makes its value of a task, plus a hundredth by seed."""
    return pd.DataFrame(
        {**where, "seed": seed, "task": task, metric: of(task) + 0.01 * seed}
        for (where, metric, of), seed, task in itertools.product(arms, range(seeds), range(tasks))
    )


def contrasts(found, says):
    (one,) = (claim for claim in found if says in claim.says)
    return one.contrasts


def test_interventions_are_held_against_nothing():
    """Rescaling begins 0.2 behind nothing, tanh ends 0.3 above it, L2 0.05."""
    gains = {"tanh": 0.3, "L2": 0.05}
    arms = [(interventions._alone(), "online_accuracy", lambda task: 0.9 - 0.05 * task)]
    for name, where in interventions.WITHOUT_NORM.items():
        apart = gains.get(name, 0.0)
        arms.append((where, "online_accuracy", lambda task, apart=apart: 0.9 + apart - 0.05 * task))
    table = lanes(arms)
    rescaled = table["method"] == "weight_norm_constraint"
    table.loc[rescaled & (table["task"] == 0), "online_accuracy"] -= 0.2
    of_mlp = [claim for claim in interventions.CLAIMS if claim.figure == "4, MLP"]
    little = contrasts(of_mlp, "others gain nothing")
    assert set(little) == {
        f"10 points less what {name} gains"
        for name in interventions.WITHOUT_NORM
        if name not in ("ReDo", "rescaling")
    }
    np.testing.assert_allclose(little["10 points less what tanh gains"](table), -0.2)
    np.testing.assert_allclose(little["10 points less what L2 gains"](table), 0.05)
    np.testing.assert_allclose(contrasts(of_mlp, "is slow")["behind"](table), 0.2)


@pytest.mark.parametrize(("deviation", "matters"), [(0.1, 0.2), (-0.1, 0.2), (0.4, -0.1)])
def test_an_axis_matters_by_what_its_change_is(deviation, matters):
    """A mean over the minibatch adds 0.3, a deviation over it what is given."""
    levels = {
        "layer": 0.5,
        interventions.OTHER: 0.5 + deviation,
        interventions.HYBRID: 0.8,
        "batch": 0.8 + deviation,
    }
    decayed = {"l2.strength": 1e-5}
    table = lanes(
        [
            ({"norm": norm, **decayed}, "online_accuracy", lambda task, level=level: level)
            for norm, level in levels.items()
        ]
    )
    np.testing.assert_allclose(interventions._means_matter(table, 5), matters)


def test_remedies_of_the_factorial_add_up_if_all_are_above_each_two():
    """Layer norm adds 0.2, L2 0.1, smoothing 0.05."""
    cells = []
    for norm, size, head in itertools.product((0, 1), repeat=3):
        where = {
            "norm": ("none", "layer")[norm],
            "l2.strength": (0.0, 1e-4)[size],
            "head": ("linear", "smoothed")[head],
            "smoothed.smoothing": (np.nan, 0.01)[head],
        }
        level = 0.1 + 0.2 * norm + 0.1 * size + 0.05 * head
        cells.append((where, "online_accuracy", lambda task, level=level: level))
    found = claims._of_factorial("labels", {"head": "smoothed"}).contrasts
    assert len(found) == 7
    gains = {name: of(lanes(cells)) for name, of in found.items()}
    np.testing.assert_allclose(gains["over nothing"], 0.35)
    np.testing.assert_allclose(gains["over L2"], 0.25)
    np.testing.assert_allclose(gains["over layer norm + L2"], 0.05)


def test_errors_of_one_task_are_held_against_each_other_by_the_mean_of_targets():
    arms = [
        ({"target_offset.offset": offset}, "squared_error", lambda task, n=n: 10.0 ** (n * task))
        for n, offset in enumerate(settings.OFFSETS)
    ]
    table = lanes(arms, seeds=2).query("seed == 0")
    found = claims._rising_at(3)
    assert list(found) == ["1 over 0", "10 over 1", "100 over 10", "1000 over 100"]
    np.testing.assert_allclose([of(table) for of in found.values()], 2)


def test_after_a_switch_steps_of_one_task_are_compared():
    """Dormant units with layer norm: 0.1 at once, 0.6 after 50 steps, 0.2 after 400."""
    found = [
        (
            {"norm": norm, "point": point},
            switch.DEAD,
            lambda task, s=size + (norm == "none"): s + task,
        )
        for norm in ("none", "layer")
        for point, size in ((0, 0.1), (50, 0.6), (400, 0.2), (700, 0.3))
    ]
    table = lanes(found)
    back = contrasts(switch.CLAIMS, "with layer norm they do too")
    np.testing.assert_allclose(back["task 10, up"](table), 0.5)
    np.testing.assert_allclose(back["task 2, down"](table), 0.4)
    along = table.rename(columns={switch.DEAD: switch.ALONG})
    first = contrasts(switch.CLAIMS, "in a first phase")
    np.testing.assert_allclose(first["layer, task 2"](along), -0.2)
    once = contrasts(switch.CLAIMS, "one way")["layer, task 2"](along)
    np.testing.assert_allclose(once, [0.6, 0.61])


def test_remedies_in_the_bandit_are_compared_in_pairs():
    """Layer norm adds 0.2 and L2 takes 0.1 away; each phase costs 0.01, twice that with 0.99; a
    fresh network has 0.9.
    """
    runs = ordering.Runs("x", "X")
    arms = []
    for norm, size, gamma in itertools.product((0, 1), (0, 1), (0.0, 0.99)):
        own = {"norm": ("none", "layer")[norm], "l2.strength": (0.0, 1e-5)[size]}
        own |= {"dqn.gamma": gamma, "first_task": 0}
        level = 0.5 + 0.2 * norm - 0.1 * size
        cost = 0.01 if gamma == 0 else 0.02
        falls = lambda task, level=level, cost=cost: level - cost * task  # noqa: E731
        arms.append((own, rewards.REWARD, falls))
    table = lanes(arms)
    fresh = table[table["task"] == 0].assign(first_task=9, **{rewards.REWARD: 0.9})
    table = pd.concat([table, fresh])
    found = ordering.of(runs)
    order = contrasts(found, "gamma 0: no norm, L2 of 1e-5, layer norm, both, in this order")
    for name, gain in (("L2 over no norm", -0.1), ("layer norm over L2", 0.3)):
        np.testing.assert_allclose(order[name](table), gain)
    np.testing.assert_allclose(order["both over layer norm"](table), -0.1)
    np.testing.assert_allclose(contrasts(found, "more is lost")["lost"](table), 0.09)
    behind = contrasts(found, "falls behind")["gamma 0"](table)
    np.testing.assert_allclose(behind, [0.9 - 0.41, 0.9 - 0.42])


def test_what_was_measured_within_tasks_is_kept_with_what_lanes_differ_in(tmp_path):
    table = lanes([({"lane": 3, "norm": "none"}, "loss", float)], seeds=1)
    table = pd.concat([table, table.assign(lane=5, norm="layer")])
    table.to_parquet(tmp_path / "results.parquet")
    points = pd.DataFrame({"lane": [3, 5], "task": 0, "seed": 0, "point": 7, "a": [1.0, 2.0]})
    points.assign(b=0.0).to_parquet(tmp_path / "points.parquet")
    path = export.export_points([str(tmp_path)], "one", tmp_path, ["a"])
    kept = pd.read_parquet(path)
    assert kept.to_dict("list") == {**points.to_dict("list"), "norm": ["none", "layer"]}
    with pytest.raises(ValueError, match=r"^points has 'c', but .* did not measure it within task"):
        export.export_points([str(tmp_path)], "one", tmp_path, ["c"])
    with pytest.raises(ValueError, match=r"^points are of 2 workdirs: allowed is one"):
        export.export_points(["a", "b"], "one", tmp_path, ["a"])
