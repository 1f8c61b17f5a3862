"""The runs beyond the paper: what they plan is what their rules say."""

import sys

import pytest

from experiments import beyond, foretelling, optimizer_state, postponed
from plasticity_jax import flags, lanes

QUESTIONS = {
    "optimizer_state": optimizer_state.QUESTION,
    "tuning": optimizer_state.TUNING,
    "postponed": postponed.QUESTION,
    "foretelling": foretelling.QUESTION,
}


def planned(question: beyond.Question, scale: str):
    small, changes = (
        (beyond.BENCHMARK.reduced, question.reduced) if scale == "reduced" else (beyond.BENCHMARK.smoke, question.smoke)
    )
    defaults = {**beyond.BENCHMARK.paper, "method": "none", **small, **changes}
    return flags.runs(flags.parse([], defaults)[0], (), question.arms(defaults))


@pytest.mark.parametrize("scale", beyond.SCALES)
@pytest.mark.parametrize("name", QUESTIONS)
def test_every_question_can_be_planned(name, scale):
    for spec, given in planned(QUESTIONS[name], scale):
        lanes.check(spec, given, spec.samples or 0)


def test_seeds_tasks_and_arms_are_those_of_the_rules():
    found = {name: planned(question, "reduced") for name, question in QUESTIONS.items()}
    seeds = {name: sorted({lane["seed"] for _, given in runs for lane in given}) for name, runs in found.items()}
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
    assert tasks == {"optimizer_state": {50}, "tuning": {5}, "postponed": {100}, "foretelling": {50}}
    doses = [
        lane["granularity"] for spec, given in found["foretelling"] if spec.transition == "output" for lane in given
    ]
    assert sorted({*doses}) == [1, 2, 4, 10, 20, 40, 1600]


def test_one_runs_at_smoke_scale(tmp_path, monkeypatch, capsys):
    tiny = ["--scale=smoke", "--seeds=1", "--tasks=1", "--epochs=3", "--samples=128", "--width=4", "--depth=1"]
    rest = ["--probes=parameter_norm", "--noprogress", "--learning_rate=1e-3", f"--workdir={tmp_path}"]
    monkeypatch.setattr(sys, "argv", ["postponed", *tiny, *rest])
    assert beyond.main(postponed.__doc__, postponed.QUESTION) == 0
    assert "task sampling, K = 4" in capsys.readouterr().out


def test_an_unknown_scale_is_one_sentence(capsys):
    assert beyond.main("", postponed.QUESTION, argv=["--scale=paper"]) == 2
    assert "scale is 'paper'" in capsys.readouterr().err
