"""Who is told of a task while a run goes on."""

import pandas as pd
import pytest
from helpers import tiny

from plasticity_jax.execution import sweep, watching
from plasticity_jax.reporting import metrics

SEEDS = [{"seed": 0}, {"seed": 1}]


class Shown:
    """What a progress bar was told, in place of tqdm's."""

    def __init__(self, disable=False):
        self.disable, self.n, self.said = disable, 0, []

    def set_description(self, text):
        self.said.append(text)

    def set_postfix_str(self, text):
        self.said.append(text)

    def write(self, text, file):
        self.said.append(text)

    def update(self, count):
        self.n += count


def rows(task, *lanes, arms=2):
    found = [[lane, task, lane % arms, "none", 0.25 * lane, ok] for lane, ok in lanes]
    names = ["lane", "task", "granularity", "method", "online_accuracy", "finite"]
    made = pd.DataFrame(found, columns=names)
    made.attrs[metrics.KEY] = {"scores": ["online_accuracy"], "columns": {}}
    return made


def test_a_bar_says_what_compiles_and_how_the_newest_task_went():
    shown = Shown()
    bar = watching.Bar(shown)
    bar.begins("program 1 of 2", compiles=True)
    bar.moves(0)
    bar.moves(4)
    bar.tells(rows(0, (0, True), (1, True), (2, True), (3, True)))
    assert shown.said == [
        "program 1 of 2: compiling",
        "program 1 of 2",
        "online accuracy: none K=0 0.25, none K=1 0.5",
    ]
    assert shown.n == 4


def test_a_lane_that_diverges_is_told_once():
    shown = Shown()
    bar = watching.Bar(shown)
    bar.tells(rows(3, (0, True), (1, False)))
    bar.tells(rows(4, (0, True), (1, False)))
    warned = [text for text in shown.said if "diverged" in text]
    assert warned == ["lane 1 diverged by task 3"]
    bar.tells(rows(5, *((lane, False) for lane in range(2, 9))))
    assert shown.said[-2] == "lane 2, 3, 4, 5 and 3 more diverged by task 5"


def test_the_newest_task_of_each_arm_is_shown():
    """Slices are at different tasks."""
    shown = Shown()
    first = rows(4, (0, True), (2, False))
    both = pd.concat([rows(3, (0, True), (2, False)), first, rows(1, (1, True))])
    both.attrs = first.attrs
    watching.Bar(shown).tells(both)
    assert shown.said == [
        "lane 2 diverged by task 3",
        "online accuracy: none K=0 0.25, none K=1 0.25",
    ]


def test_a_bar_that_is_not_shown_says_nothing():
    shown = Shown(disable=True)
    watching.Bar(shown).tells(rows(0, (0, False)))
    assert shown.said == []


@pytest.mark.long
def test_a_function_is_called_with_the_rows_of_each_task_once(tmp_path, compiled_quickly):
    """Also where the run goes on in another call, and without a workdir; with the table's rows."""
    spec = tiny.spec(dataset=tiny.arrays(tmp_path / "data"), tasks=2)
    longer = tiny.spec(dataset=spec.dataset, tasks=3)
    told = []
    sweep.run(spec, SEEDS, tmp_path / "run", on_task=told.append)
    assert [list(one["task"]) for one in told] == [[0, 0], [1, 1]]
    table = sweep.run(longer, SEEDS, tmp_path / "run", on_task=told.append)
    again = []
    in_memory = sweep.run(longer, SEEDS, on_task=again.append)
    for parts, whole in ((told, table), (again, in_memory)):
        found = pd.concat(parts).sort_values(["lane", "task"], ignore_index=True)
        pd.testing.assert_frame_equal(found, whole, check_exact=True)
