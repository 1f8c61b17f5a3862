"""Sentences on a table, from tables whose course is known."""

import re

import numpy as np
import pandas as pd
import pytest

from plasticity_jax.reporting import findings, statistics

TASKS = 20
RANDOM = np.random.default_rng(0)


def step(at, before, after, tasks=TASKS):
    """A course that goes from one level to another at a task, counted from 0."""
    return np.where(np.arange(tasks) < at, before, after).astype(float)


def table(arms, tasks=TASKS):
    """{arm: {column: course of each seed}} as a table; a little noise tells seeds apart."""
    rows = []
    for number, (name, columns) in enumerate(arms.items()):
        seeds = len(next(iter(columns.values())))
        for seed, task in np.ndindex(seeds, tasks):
            row = {"lane": 10 * number + seed, "task": task, "seed": seed, "method": name}
            row |= {column: courses[seed][task] for column, courses in columns.items()}
            row["finite"] = bool(np.isfinite(row["online_accuracy"]))
            rows.append(row)
    return pd.DataFrame(rows)


def noise(size=1e-3, tasks=TASKS):
    return RANDOM.normal(0, size, tasks)


FALLING = [step(at, 0.9, 0.3) + noise() for at in (10, 11, 12)]
STEADY = [np.full(TASKS, 0.9) + noise(0.01) for _ in range(3)]


def test_a_fall_is_found_where_it_is():
    rows = statistics.arms(table({"none": {"online_accuracy": FALLING}}), ["method"]).rows[0]
    found = findings.change(rows, "online_accuracy")
    assert found is not None
    assert found.told
    np.testing.assert_allclose(found.start, 0.9, atol=2e-3)
    np.testing.assert_allclose(found.end, 0.3, atol=2e-3)
    assert found.mean == pytest.approx(-0.6, abs=2e-3)
    assert found.low < found.mean < found.high < 0
    # of five tasks in a row the third is the one that makes it more than half
    assert found.half.tolist() == [12, 13, 14]


def test_sentences_of_arms_that_fall_hold_and_rise():
    arms = {"none": FALLING, "l2": STEADY, "redo": [1 - course for course in FALLING]}
    found = findings.of_table(
        table({name: {"online_accuracy": courses} for name, courses in arms.items()}),
        ["method"],
        "online_accuracy",
    )
    fall, hold, rise = found.changes
    assert fall.startswith("none falls from 90.0 % to 30.0 %, by -60.0 points (-60.")
    assert fall.endswith("3 of 3 seeds fall, half of the way by task 14 (13 to 15).")
    assert hold.startswith("L2 neither falls nor rises for certain: from ")
    assert rise.startswith("ReDo rises from 10.0 % to 70.0 %, by +60.0 points")
    assert found.ends[0].startswith("Better than none at the end: L2 (+60.")
    assert "points, p < 0.001); ReDo (+40.0 points, p < 0.001)." in found.ends[0]
    assert not found.diverged
    assert "With 3 seeds an arm the intervals are Student's" in found.warnings[0]


def test_noise_alone_falls_no_more_often_than_it_may():
    """Of 80 arms of noise, about 5 % are told to change."""
    told = 0
    for _ in range(80):
        courses = [RANDOM.normal(0.5, 0.1, TASKS) for _ in range(4)]
        rows = table({"none": {"online_accuracy": courses}}).sort_values(["seed", "task"])
        found = findings.change(rows, "online_accuracy")
        assert found is not None
        told += found.told
    assert told < 12


def test_what_moved_before_is_told_with_how_reliably():
    columns = {
        "online_accuracy": FALLING,
        # of two seeds before, of one after; spanning decades, so by its logarithm
        "hessian_top": [10 ** (3 * step(at, 0, 1)) + abs(noise()) for at in (7, 8, 14)],
        "dormant_fraction": [step(at, 0.1, 0.6) + noise() for at in (6, 7, 8)],
        "parameter_norm": [step(at, 1.0, 3.0) + noise() for at in (14, 15, 16)],
        "effective_rank": [np.full(TASKS, 5.0) + noise() for _ in range(3)],
        # of which the clock is all that there is to know
        "distance_from_init": [np.arange(TASKS) + noise() for _ in range(3)],
    }
    found = findings.of_table(table({"none": columns}), ["method"], "online_accuracy")
    assert found.first == [
        "Before none fell, there moved: dormant units in 3 of 3 seeds (median 4 tasks earlier), "
        "largest Hessian eigenvalue in 2 of 3 seeds (median 3 tasks earlier). "
        "Drifting steadily all along: distance from initial weights."
    ]


@pytest.mark.parametrize("every", [1, 5, 10])
def test_a_measurement_of_some_tasks_is_held_against_the_score_at_these(every):
    tasks, made = np.arange(1, 101), {"online_accuracy": (70, 0.9, 0.3), "ntk": (50, 0.1, 0.6)}
    courses = {
        name: [step(at + seed, before, after, 100) + noise(tasks=100) for seed in range(3)]
        for name, (at, before, after) in made.items()
    }
    courses["ntk"] = [np.where(tasks % every, np.nan, course) for course in courses["ntk"]]
    found = findings.of_table(table({"none": courses}, 100), ["method"], "online_accuracy")
    said = re.search(r"in 3 of 3 seeds \(median (\d+) tasks earlier\)\.$", found.first[0])
    assert said
    assert abs(int(said[1]) - 20) <= every


def test_of_a_fall_before_which_nothing_moved_it_is_said():
    after = [step(14, 0.1, 0.6) + noise() for _ in range(3)]
    for courses in (after, [np.full(TASKS, 5.0) + noise() for _ in range(3)]):
        columns = {"online_accuracy": FALLING, "ntk": courses}
        found = findings.of_table(table({"none": columns}), ["method"], "online_accuracy")
        assert found.first == ["Before none fell, nothing moved."]
    columns["ntk"] = [np.full(TASKS, np.nan)] * 3
    found = findings.of_table(table({"none": columns}), ["method"], "online_accuracy")
    assert found.first == []


def test_of_a_loss_more_is_worse():
    losses = [-course for course in FALLING]
    made = table({"none": {"online_accuracy": STEADY, "loss": losses}})
    found = findings.of_table(made, ["method"], "loss")
    assert found.changes[0].startswith("none falls from -0.9 to -0.3, by +0.6")


def test_lanes_that_diverge_are_named():
    lost = step(10, 0.9, np.nan)
    made = table(
        {"none": {"online_accuracy": [*STEADY[:2], lost]}, "l2": {"online_accuracy": STEADY}}
    )
    found = findings.of_table(made, ["method"], "online_accuracy")
    assert found.diverged == ["none: 1 of 3 seeds diverged: seed 2 from task 11."]
    assert "Values that are not finite are left out of every mean, and counted." in found.warnings


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        (1, "Some arms have one seed, which says nothing of chance: they have no interval."),
        (2, "With 2 seeds an arm the intervals are Student's"),
        (12, "With 12 seeds an arm the bootstrap intervals are somewhat too narrow"),
        (20, None),
    ],
)
def test_few_seeds_are_warned_of(seeds, said):
    courses = [np.full(4, 0.5) + noise(0.1, 4) for _ in range(seeds)]
    made = table({"none": {"online_accuracy": courses}}, 4)
    found = findings.of_table(made, ["method"], "online_accuracy")
    assert [warning[: len(said or "")] for warning in found.warnings] == ([said] if said else [])


def test_short_runs_and_single_seeds_say_so():
    short = table({"none": {"online_accuracy": [c[:3] for c in FALLING]}}, 3)
    found = findings.of_table(short, ["method"], "online_accuracy")
    assert found.changes == ["With fewer than 4 tasks nothing is said of falls."]
    one = table({"none": {"online_accuracy": FALLING[:1]}})
    found = findings.of_table(one, ["method"], "online_accuracy")
    assert found.changes[0].endswith("in its one seed, which says nothing of chance.")


def test_other_seeds_other_lengths_and_equal_ends_are_warned_of():
    made = table(
        {"none": {"online_accuracy": [np.full(TASKS, 1.0)] * 3}, "l2": {"online_accuracy": STEADY}}
    )
    made = made[~((made["method"] == "l2") & ((made["seed"] == 2) | (made["task"] > 15)))]
    found = findings.of_table(made, ["method"], "online_accuracy")
    text = " ".join(found.warnings)
    assert "Arms have different seeds" in text
    assert "Lanes have 16 to 20 tasks" in text
    assert "All seeds end alike: none;" in text
