"""The runs beyond the paper: what they plan is what their rules say."""

import json
import sys

import pandas as pd
import pytest

from experiments import export
from experiments.gradual import beyond, foretelling, optimizer_state, postponed
from plasticity_jax import lanes
from plasticity_jax.cli import flags
from plasticity_jax.execution import record as record_
from plasticity_jax.spec import Spec

pytestmark = pytest.mark.usefixtures("compiled_quickly")

QUESTIONS = {
    "optimizer_state": optimizer_state.QUESTION,
    "tuning": optimizer_state.TUNING,
    "postponed": postponed.QUESTION,
    "foretelling": foretelling.QUESTION,
}


def planned(question: beyond.Question, scale: str):
    defaults = question.defaults(scale)
    return flags.runs(flags.parse([], defaults)[0], (), question.arms(defaults))


@pytest.mark.parametrize("scale", beyond.SCALES)
@pytest.mark.parametrize("name", QUESTIONS)
def test_every_question_can_be_planned(name, scale):
    for spec, given in planned(QUESTIONS[name], scale):
        lanes.check(spec, given, spec.samples or 0)


def test_seeds_tasks_and_arms_are_those_of_the_rules():
    found = {name: planned(question, "reduced") for name, question in QUESTIONS.items()}
    seeds = {
        name: sorted({lane["seed"] for _, given in runs for lane in given})
        for name, runs in found.items()
    }
    assert seeds == {
        "optimizer_state": [20, 21, 22, 23, 24],
        "tuning": [1000, 1001],
        "postponed": [15, 16, 17, 18, 19],
        "foretelling": [*range(5, 15)],
    }
    assert {name: sum(len(given) for _, given in runs) for name, runs in found.items()} == {
        "optimizer_state": 50,
        "tuning": 6,
        "postponed": 60,
        "foretelling": 100,
    }
    tasks = {name: {spec.tasks for spec, _ in runs} for name, runs in found.items()}
    assert tasks == {
        "optimizer_state": {50},
        "tuning": {5},
        "postponed": {100},
        "foretelling": {50},
    }
    doses = [
        lane["granularity"]
        for spec, given in found["foretelling"]
        if spec.transition == "output"
        for lane in given
    ]
    assert sorted({*doses}) == [1, 2, 4, 10, 20, 40, 1600]


@pytest.mark.long
def test_one_runs_at_smoke_scale(tmp_path, monkeypatch, capsys):
    tiny = [
        "--scale=smoke",
        "--seeds=1",
        "--tasks=1",
        "--epochs=3",
        "--samples=128",
        "--width=4",
        "--depth=1",
    ]
    rest = [
        "--probes=parameter_norm",
        "--noprogress",
        "--learning_rate=1e-3",
        f"--workdir={tmp_path}",
    ]
    monkeypatch.setattr(sys, "argv", ["postponed", *tiny, *rest])
    assert beyond.main(postponed.__doc__, postponed.QUESTION) == 0
    assert "task sampling, K = 4" in capsys.readouterr().out
    folder = tmp_path / "reported"
    folder.mkdir()
    assert (
        export.main(
            [f"--from={tmp_path},{tmp_path}", "--name=twice", "--code=abc", f"--folder={folder}"]
        )
        == 0
    )
    table, once = (
        pd.read_parquet(folder / "twice.parquet"),
        pd.read_parquet(tmp_path / "results.parquet"),
    )
    assert table["lane"].tolist() == [*once["lane"], *(once["lane"] + once["lane"].max() + 1)]
    expected = {"dataset": "digits", "samples": 128, "batch_size": 32, "code_version": "abc"}
    assert {name: set(table[name]) for name in expected} == {
        name: {value} for name, value in expected.items()
    }
    assert table["compiler_options"].str.contains("xla_cpu").all()
    assert not [column for column in table if "/" in column]
    assert export.main([f"--from={tmp_path}", "--name=once", f"--folder={folder}"]) == 0
    assert set(pd.read_parquet(folder / "once.parquet")["code_version"]) == {record_.code_version()}
    first = [f"--from={tmp_path}", "--name=first", "--tasks=1", f"--folder={folder}"]
    assert export.main(first) == 0
    assert pd.read_parquet(folder / "first.parquet")["task"].eq(0).all()
    (cut,) = json.loads((folder / "first.json").read_text(encoding="utf-8"))
    assert (cut["tasks_kept"], cut["programs_not_begun"]) == (1, 0)
    (record, same) = json.loads((folder / "twice.json").read_text(encoding="utf-8"))
    assert record == same
    assert record["settings"]["data"]["name"] == "digits"
    assert "/" not in record["data_source"].partition(";")[0]


def test_of_a_run_that_was_stopped_only_what_had_begun_is_exported(tmp_path):
    """Of three programs, one with two lanes in both tasks, one in the first alone, one not begun:
    one task of two programs is there, two of none.
    """
    spec = {**Spec(tasks=2).record(), "samples": 64}
    own = [{"spec": spec, "lanes": [{}] * count} for count in (2, 1, 1)]
    config = {"settings": {"programs": own}, "data_source": "x"}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    rows = pd.DataFrame({"lane": [0, 1, 2, 0, 1], "task": [0, 0, 0, 1, 1]})
    rows.to_parquet(tmp_path / "results.parquet")
    command = [f"--from={tmp_path}", "--name=a", f"--folder={tmp_path}"]
    assert export.main([*command, "--tasks=1"]) == 0
    assert pd.read_parquet(tmp_path / "a.parquet")["lane"].tolist() == [0, 1, 2]
    (record,) = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert record["programs_not_begun"] == 1
    assert [len(one["lanes"]) for one in record["settings"]["programs"]] == [2, 1]
    assert export.main([*command, "--tasks=2"]) == 2
    assert export.main([*command, "--tasks=1", "--add"]) == 0  # arms that were run later
    assert pd.read_parquet(tmp_path / "a.parquet")["lane"].tolist() == [0, 1, 2, 3, 4, 5]
    assert len(json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))) == 2


def test_code_outside_of_a_checkout_is_not_recorded(tmp_path):
    assert record_.code_version(tmp_path) == "not recorded"


def test_what_cannot_be_exported_is_one_sentence(tmp_path, capsys):
    assert export.main(["--from=a"]) == 2
    assert export.main([f"--from={tmp_path}", "--name=a", f"--folder={tmp_path}"]) == 1
    config = {"settings": {"programs": [{"spec": {"tasks": 2}, "lanes": [{}]}]}, "data_source": "x"}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    pd.DataFrame({"lane": [0], "task": [0]}).to_parquet(tmp_path / "results.parquet")
    capsys.readouterr()
    assert export.main([f"--from={tmp_path}", "--name=a", f"--folder={tmp_path}"]) == 2
    assert "has 1 rows of 2: allowed are finished runs" in capsys.readouterr().err
    assert export.main([f"--from={tmp_path}", "--name=a", "--tasks=0"]) == 2
    assert "tasks is 0: allowed are whole numbers from 1" in capsys.readouterr().err
    assert export.main([f"--from={tmp_path}", "--name=b", f"--folder={tmp_path}", "--add"]) == 2
    assert "has no table 'b'" in capsys.readouterr().err


def test_an_unknown_scale_is_one_sentence(capsys):
    assert beyond.main("", postponed.QUESTION, argv=["--scale=paper"]) == 2
    assert "scale is 'paper'" in capsys.readouterr().err
