"""Who is told of a task while a run goes on."""

import pandas as pd
import pytest
from helpers import tiny

from plasticity_jax.execution import program as program_
from plasticity_jax.execution import progress, sweep, watching
from plasticity_jax.execution import rows as rows_
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


NAMES = {lane: f"K = {lane % 2}" for lane in range(9)}


def rows(task, *lanes):
    found = [[lane, task, 0.25 * lane, ok] for lane, ok in lanes]
    names = ["lane", "task", "online_accuracy", "finite"]
    made = pd.DataFrame(found, columns=names)
    made.attrs[metrics.KEY] = {"scores": ["online_accuracy"], "columns": {}}
    return made


def test_a_bar_says_what_compiles_and_how_the_newest_task_went():
    shown = Shown()
    bar = watching.Bar(shown, NAMES)
    bar.begins("program 1 of 2", ["mlp with redo", "", "mlp with redo"])
    bar.moves(0)
    bar.begins("program 1 of 2")
    bar.moves(4)
    bar.tells(rows(0, (0, True), (1, True), (2, True), (3, True)))
    assert shown.said == [
        "program 1 of 2: compiling mlp with redo",
        "program 1 of 2",
        "online accuracy: 0.25 (K = 0), 0.5 (K = 1)",
    ]
    assert shown.n == 4


def test_what_compiles_is_named_by_model_and_method():
    assert watching.compiled(tiny.spec(method="none")) == "mlp"
    assert watching.compiled(tiny.spec(method="l2+redo")) == "mlp with ReDo + L2"


def test_of_many_arms_the_ends_are_named():
    shown = Shown()
    watching.Bar(shown, dict(enumerate("abcdefghi"))).tells(rows(0, *((n, True) for n in range(9))))
    assert shown.said == ["online accuracy: from 0 (a) to 2 (i) in 9 arms"]


def test_arms_are_named_by_what_differs():
    """Also those that differ in nothing but a number."""
    spec = tiny.spec()
    lanes = [{"learning_rate": rate, "seed": seed} for rate in (0.1, 0.01) for seed in range(2)]
    programs = program_.plan([(spec, lanes)], 64)
    assert rows_.arm_names(programs, [[3, 2, 1, 0]]) == {
        3: "learning_rate=0.1",
        2: "learning_rate=0.1",
        1: "learning_rate=0.01",
        0: "learning_rate=0.01",
    }


def test_a_lane_that_diverges_is_told_once():
    shown = Shown()
    bar = watching.Bar(shown, NAMES)
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
    watching.Bar(shown, NAMES).tells(both)
    assert shown.said == [
        "lane 2 diverged by task 3",
        "online accuracy: 0.25 (K = 0), 0.25 (K = 1)",
    ]


def test_a_bar_that_is_not_shown_says_nothing():
    shown = Shown(disable=True)
    watching.Bar(shown, NAMES).tells(rows(0, (0, False)))
    assert shown.said == []


@pytest.mark.long
def test_a_function_is_called_with_the_rows_of_each_task_once(tmp_path, compiled_quickly):
    """Also where the run goes on in another call, and without a workdir; with the table's rows."""
    spec = tiny.spec(dataset=tiny.arrays(tmp_path / "data"), tasks=2)
    longer = tiny.spec(dataset=spec.dataset, tasks=3)
    told, at = [], []

    def tell(rows):
        told.append(rows)
        at.append(progress.read(tmp_path / "run"))

    sweep.run(spec, SEEDS, tmp_path / "run", on_task=tell)
    assert [list(one["task"]) for one in told] == [[0, 0], [1, 1]]
    assert [(one.compiling, one.before) for one in at] == [("", 0)] * 2
    table = sweep.run(longer, SEEDS, tmp_path / "run", on_task=tell)
    assert at[-1].before == 4
    assert not (tmp_path / "run" / progress.FILE).exists()
    again = []
    in_memory = sweep.run(longer, SEEDS, on_task=again.append)
    for parts, whole in ((told, table), (again, in_memory)):
        found = pd.concat(parts).sort_values(["lane", "task"], ignore_index=True)
        pd.testing.assert_frame_equal(found, whole, check_exact=True)
