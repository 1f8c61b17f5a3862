"""What is known of the columns of a table, and a run of an environment with a metric of its own, to
table and picture.
"""

from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from helpers import tiny

from plasticity_jax.cli import launcher
from plasticity_jax.environments import (
    ENVIRONMENTS,
    bigram_cipher,
    permuted_pixels,
    random_labels,
    random_seq2seq,
)
from plasticity_jax.execution import compiled
from plasticity_jax.probes import PROBES
from plasticity_jax.reporting import curves, metrics, tables
from plasticity_jax.storage import table as table_
from plasticity_jax.types import Array, Batch, Data, Metric, Snapshot

pytestmark = pytest.mark.usefixtures("compiled_quickly")


def error(logits, batch):
    return (logits.argmax(-1) != batch.y.argmax(-1)).astype(jnp.float32)


def guessing(data):
    return 1 - 1 / data.classes


ERROR = Metric("error", "mistakes", better="lower", share=True, chance=guessing, of=error)


def mistakes(*, of: str = "classes"):
    """Random labels judged by the share of wrong answers."""
    return random_labels()._replace(
        metrics=({"classes": ERROR, "nobody": Metric("error", of=error)}[of],)
    )


def named(name: str):
    return random_labels()._replace(metrics=(Metric(name, of=error),))


LOSS = ["online_loss", "online_loss_mean"]

# --- columns
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "columns"),
    [
        (random_labels(), ["online_accuracy", "accuracy", "loss", "online_accuracy_mean", *LOSS]),
        (permuted_pixels(),
         ["test_accuracy", "online_accuracy", "accuracy", "loss", "online_accuracy_mean", *LOSS]),
        (random_seq2seq(), ["bleu2", "online_token_accuracy", "token_accuracy", "loss",
                            "online_token_accuracy_mean", *LOSS]),
        (bigram_cipher(),
         ["test_bleu2", "test_token_accuracy", "bleu2", "online_token_accuracy", "token_accuracy",
                           "loss", "online_token_accuracy_mean", *LOSS]),
        (mistakes(), ["online_error", "error", "loss", "online_error_mean", *LOSS]),
    ],
)  # fmt: skip
def test_columns_come_with_what_a_run_is_judged_by_first(environment, columns):
    assert list(metrics.of_environment(environment)) == columns
    assert metrics.judged_by([environment], columns) == columns[0]
    # (a text environment without held-out examples in its data has no columns of them)
    here = [c for c in columns if not c.startswith("test_")]
    assert metrics.judged_by([environment], here) == here[0]


def test_columns_say_what_they_are():
    known = metrics.of_environment(bigram_cipher())
    assert {c: m.label for c, m in known.items()} == {
        "test_bleu2": "test BLEU-2 after the task",
        "test_token_accuracy": "test token accuracy after the task",
        "bleu2": "BLEU-2 after the task",
        "online_token_accuracy": "online token accuracy",
        "token_accuracy": "token accuracy after the task",
        "loss": "loss in nats after the task",
        "online_token_accuracy_mean": "online token accuracy over the whole task",
        "online_loss": "online loss in nats",
        "online_loss_mean": "online loss in nats over the whole task",
    }
    losses = {"loss", "online_loss", "online_loss_mean"}
    assert {c for c, m in known.items() if m.share} == known.keys() - losses
    assert {c for c, m in known.items() if m.better == "lower"} == losses
    assert metrics.of_environment(mistakes())["online_error"][:4] == (
        "online_error",
        "online mistakes",
        "lower",
        True,
    )
    # an environment that says nothing more than the name of its metric: a plain number, its loss in
    # no unit
    plain = named("accuracy")._replace(loss_metric=Metric("loss", better="lower"))
    assert metrics.of_environment(plain)["accuracy"][:4] == (
        "accuracy",
        "accuracy after the task",
        None,
        False,
    )
    assert metrics.of_environment(plain)["loss"] == Metric("loss", "loss after the task", "lower")


@pytest.mark.parametrize(
    "name", ["loss", "finite", "seed", "online_loss", "task_number", "part", "point"]
)
def test_a_metric_does_not_take_the_name_of_another_column(name):
    with pytest.raises(
        ValueError, match=f"metrics are '{name}': allowed are names that no other column has"
    ):
        metrics.of_environment(named(name))


def test_what_fits_no_metric_or_another_s_column_is_refused_before_anything_runs(
    monkeypatch, tmp_path, capsys
):
    monkeypatch.setitem(ENVIRONMENTS, "mistakes", mistakes)
    monkeypatch.setitem(ENVIRONMENTS, "norms", lambda: named("width"))
    monkeypatch.setitem(ENVIRONMENTS, "points", lambda: named("accuracy"))
    monkeypatch.setattr(
        compiled, "compile_program", lambda *_: pytest.fail("something was compiled")
    )
    for flags, told in {
        "--environment=norms": "metric 'width' of norms has the name of a setting or a probe.",
        "--environment=random_labels,points": (
            "points means by 'online_accuracy' something else than another"
        ),
    }.items():
        assert launch(tmp_path / "run", *flags.split()) == 2
        assert told in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_judged_by_what_all_environments_have():
    columns = ["online_accuracy", "accuracy", "test_accuracy", "loss", "online_error", "error"]
    assert metrics.judged_by([random_labels(), permuted_pixels()], columns) == "online_accuracy"
    # they share but the loss
    assert metrics.judged_by([permuted_pixels(), mistakes()], columns) == "test_accuracy"


# --- guessing
# --------------------------------------------------------------------------------------------------


def data(labels, test=()) -> Data:
    made = tiny.data(len(labels), test=len(test))
    return Data(made.x, np.array(labels, np.int32), made.test_x, np.array(test, np.int32),
                made.mean, made.std, int(max(labels)) + 1)  # fmt: skip


@pytest.mark.parametrize(
    ("labels", "chance"),
    [
        ([0, 1, 2, 3], 1 / 4),
        ([0, 1, 2, 999], 1 / 4),  # 1,000 classes, of which a task has four
        ([1, 2, 3, 4, 1, 2, 3, 4], 1 / 4),
        ([0] * 9 + [1], 0.9),
        ([0, 0, 0], 1.0),  # one class: every answer is right
    ],
)
@pytest.mark.long
def test_guessing_is_the_best_answer_that_looks_at_no_image(labels, chance):
    """Against the environment's own metric of every constant answer on the labels of its own
    tasks.
    """
    environment, made = random_labels(), data(labels)
    assert metrics.chance([environment], made, "online_accuracy") == pytest.approx(chance)
    task = environment.task(jax.random.key(3), made, 0)
    y = environment.examples(made, task, jnp.arange(len(labels))).y
    answers = np.eye(made.classes, dtype=np.float32)[sorted(set(labels))]
    scores = [
        environment.metrics[0].of(np.broadcast_to(answer, y.shape), Batch(None, y, None)).mean()
        for answer in answers
    ]
    assert max(scores) == pytest.approx(chance)


@pytest.mark.long
def test_guessing_where_labels_are_drawn_is_one_over_the_classes():
    """Labels are drawn among all classes, whichever of them the dataset has."""
    environment, made = random_labels(draw="iid"), data([0, 0, 0, 4] * 500)
    assert metrics.chance([environment], made, "accuracy") == 1 / 5
    labels = np.asarray(environment.task(jax.random.key(0), made, 0))
    assert [(labels == answer).mean() for answer in range(5)] == pytest.approx(
        [1 / 5] * 5, abs=0.04
    )


def test_guessing_of_held_out_examples_is_of_their_labels():
    made = data([0, 0, 1, 1], test=[0, 1, 1, 1])
    assert metrics.chance([permuted_pixels()], made, "test_accuracy") == 0.75
    assert metrics.chance([permuted_pixels()], made, "accuracy") == 0.5


def test_where_none_is_right_there_is_none():
    made = data([0, 1])
    assert metrics.chance([random_seq2seq()], made, "bleu2") is None
    assert metrics.chance([bigram_cipher()], made, "test_bleu2") is None
    assert metrics.chance([random_labels()], made, "loss") is None
    assert metrics.chance([random_labels()], made, "unknown") is None
    assert metrics.chance([random_labels(), random_labels()], made, "accuracy") == 0.5
    both = [random_labels(), random_labels(draw="iid")]
    # 2/3 and 1/2: no line is right for both
    assert metrics.chance(both, data([0, 0, 1]), "accuracy") is None
    assert metrics.chance([permuted_pixels()], made, "test_accuracy") is None  # (no such examples)


def test_every_score_with_a_level_of_chance_is_recorded():
    made = data([0, 0, 1, 1], test=[0, 1, 1, 1])
    found = metrics.chances([permuted_pixels()], made)
    assert found.pop("test_accuracy") == 0.75
    assert found == dict.fromkeys(["accuracy", "online_accuracy", "online_accuracy_mean"], 0.5)
    both = [random_labels(), random_labels(draw="iid")]
    assert metrics.chances(both, data([0, 0, 1])) == {}


# --- tables
# --------------------------------------------------------------------------------------------------


def table(column="online_error", **attributes):
    rows = [
        {"lane": s, "task": t, "seed": s, "finite": True, column: 0.25 + s / 8}
        for s in (0, 1)
        for t in (0, 1)
    ]
    made = pd.DataFrame(rows)
    made.attrs |= attributes
    return made


SAID = {
    "scores": {"online_error": {"label": "online mistakes", "better": "lower", "share": True}},
    "probes": {},
}


def test_a_table_carries_its_metrics_through_parquet_and_selections(tmp_path):
    table_.write(table(metrics=SAID), tmp_path / "results.parquet")
    back = table_.read(tmp_path / "results.parquet")
    for found in (
        back,
        back[back["seed"] == 0],
        back.sort_values("seed").reset_index(drop=True),
        back.head(3),
    ):
        text = tables.final_table(found, [], "online_error")
        assert "over seeds; lower is better\n" in text
        assert "mean, %" in text
    drawn = curves.figure(back, [], curves.Drawing("online_error"))
    assert drawn.axes[0].get_ylabel() == "online mistakes"
    assert drawn.axes[0].yaxis.get_major_formatter()(0.25) == "25.0%"


def test_a_table_that_says_nothing_is_read_by_what_is_registered(monkeypatch):
    assert metrics.of_column(table(), "online_error") == Metric("online_error", "online error")
    assert "mean, %" not in tables.final_table(table(), [], "online_error")
    assert metrics.of_column(table(), "test_bleu2").share
    assert metrics.of_column(table(), "dormant_fraction/h0")[:4] == (
        "dormant_fraction/h0", "dormant fraction/h0", None, True)  # fmt: skip
    assert metrics.of_column(table(), "hessian_top").label == "largest Hessian eigenvalue"
    monkeypatch.setitem(ENVIRONMENTS, "mistakes", mistakes)
    assert metrics.of_column(table(), "online_error")[:4] == (
        "online_error",
        "online mistakes",
        "lower",
        True,
    )


@pytest.mark.parametrize(
    "said",
    [
        {"scores": []},
        {"scores": {"a": {"label": "a", "better": None}}},
        {"scores": {"a": {"label": 1, "better": None, "share": True}}},
        {"probes": {"a": {"label": "a", "better": "sideways", "share": True}}},
        [],
    ],
)
def test_a_table_whose_record_is_damaged_is_told(said, tmp_path):
    table(metrics=said).to_parquet(tmp_path / "results.parquet")
    with pytest.raises(
        ValueError, match=r"what the table carries along of its metrics is damaged: "
    ):
        metrics.of_table(table_.read(tmp_path / "results.parquet"))


def test_a_probe_says_beside_itself_whether_it_is_a_share(monkeypatch):
    assert {name for name in PROBES if metrics.of_probe(name).share} == {
        "dead_fraction",
        "dormant_fraction",
        "duplicate_fraction",
        "frozen_fraction",
        "linearized_fraction",
        "never_active_fraction",
        "saturated_fraction",
        "tau_dormant_fraction",
    }

    def halves(snapshot: Snapshot) -> Annotated[Array, Metric(label="halves of it", share=True)]:
        """Half of something."""
        return jnp.float32(0.5)

    monkeypatch.setitem(PROBES, "halves", halves)
    monkeypatch.setitem(PROBES, "plain", lambda snapshot: jnp.float32(0.5))
    assert metrics.of_probe("halves") == Metric("halves", "halves of it", share=True)
    assert metrics.of_probe("plain") == Metric("plain")
    said = metrics.record([tiny.spec(probes=("halves", "plain"))])
    assert said["probes"] == {
        "halves": {"label": "halves of it", "better": None, "share": True},
        "plain": {"label": "", "better": None, "share": False},
    }
    made = table("online_accuracy", metrics=said).assign(halves=0.5, plain=0.5)
    panels = [
        axes.get_ylabel()
        for axes in curves.figure(made, [], curves.Drawing("online_accuracy")).axes
        if axes.get_ylabel()
    ]
    assert panels == ["online accuracy", "halves of it", "plain"]


# --- from the command line
# ----------------------------------------------------------------------------------------


def launch(folder, *flags):
    small = (
        "--samples=64 --epochs=2 --tasks=2 --batch_size=16 --width=8 --depth=1 --norm=none "
        "--optimizer=sgd"
    )
    more = ["--seeds=2", "--probes=none", "--noprogress", f"--workdir={folder}"]
    return launcher.launch(launcher.Experiment(""), [*small.split(), *more, *flags])


@pytest.mark.long
def test_an_environment_with_a_metric_of_its_own_from_the_command_line_to_table_and_picture(
    monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(launcher, "prepare_jax", lambda *_: None)
    monkeypatch.setitem(ENVIRONMENTS, "mistakes", mistakes)
    assert launch(tmp_path / "a", "--environment=mistakes", "--granularity=1,2") == 0
    lines = capsys.readouterr().out.splitlines()
    assert (
        lines[0] == "online error: mean over the last 2 tasks measured, over seeds; lower is better"
    )
    assert lines[1] == "intervals: 95 %, Student's t over seeds (fewer than 10)"
    assert [" ".join(line.split()) for line in lines[4:5]] == [
        "arm seeds mean, % 95 % interval minus abrupt, points 95 % interval"
    ]
    made = table_.read(tmp_path / "a" / "results.parquet")
    mean = 100 * made.loc[made["granularity"] == 1, "online_error"].mean()
    assert lines[5].split()[:3] == ["abrupt", "2", f"{mean:.1f}"]
    assert metrics.of_column(made, "online_error")[:4] == (
        "online_error",
        "online mistakes",
        "lower",
        True,
    )
    picture = (tmp_path / "a" / "curves.svg").read_text()
    assert "<!-- online mistakes -->" in picture
