"""Selection: what experiments.select chooses and writes, and what figures take and refuse of it."""

import json

import pandas as pd
import pytest

from experiments import figures, select, selection
from experiments.gradual import kinds, settings
from plasticity_jax.cli import settings as settings_
from plasticity_jax.estimates import cost
from plasticity_jax.methods import METHODS

pytestmark = pytest.mark.usefixtures("compiled_quickly")

MNIST = settings.BENCHMARKS["random_mnist"]


def planned(benchmark: str, argv=(), kind=kinds.BY_METHOD, **own) -> figures.Plan:
    figure = figures.Figure("", settings.BENCHMARKS[benchmark], kind)
    return figures.plan(figure, figures.chosen(figures.OWN | own, argv), argv)


def test_selection_takes_the_best_mean_and_leaves_out_what_diverged(tmp_path):
    columns = ["method", "transition", "granularity", "learning_rate", "l2.strength"]
    rows = []
    arms = [
        ("none", "output", 1, 1e-2, None, 0.5),
        ("none", "output", 1, 1e-3, None, 0.6),
        ("none", "output", 1, 1e-4, None, None),
        ("l2", "output", 1, 1e-2, 1e-3, 0.7),
        ("l2", "output", 1, 1e-2, 1e-4, 0.4),
        ("none", "output", 20, 1e-2, None, 0.9),
    ]
    for number, (*arm, score) in enumerate(arms):
        for seed in (0, 1):
            for task in (0, 1):
                fixed = {
                    "lane": 2 * number + seed,
                    "task": task,
                    "seed": seed,
                    "finite": score is not None,
                }
                rows.append(
                    fixed | dict(zip(columns, arm, strict=True)) | {"online_accuracy": score}
                )
    (tmp_path / "selected.json").write_text('{"other": {}}')
    (tmp_path / "random_mnist").mkdir()
    select.chosen(pd.DataFrame(rows), columns, MNIST, "paper", {}, tmp_path)
    found = json.loads((tmp_path / "selected.json").read_text())
    assert found["other"] == {}
    assert found["random_mnist"] == {
        "scale": "paper",
        "seeds": [0, 1],
        "arms": found["random_mnist"]["arms"],
    }
    arms = found["random_mnist"]["arms"]
    assert arms == {
        "none": {"learning_rate": "0.001"},
        "l2": {"learning_rate": "0.01", "l2.strength": "0.001"},
        "output": {"learning_rate": "0.01"},
    }
    assert pd.read_csv(tmp_path / "random_mnist/selection.csv")["chosen"].sum() == 3
    path = str(tmp_path / "selected.json")
    every = {"selection": path, "controls": True}
    own = every | {"methods": "none,l2"}
    for lacking in ("none,l2,redo", "none"):  # sampling diverged and was not chosen
        with pytest.raises(
            ValueError,
            match=r"lacks '(redo|sampling)': allowed are arms that were tuned, none, l2, output",
        ):
            planned("random_mnist", ["--first_seed=2"], **own | {"methods": lacking})
    selected = found["random_mnist"]["arms"] | {"sampling": {"learning_rate": "0.1"}}
    selection.write(tmp_path / "selected.json", "random_mnist", "paper", [0, 1], selected)
    plan = planned("random_mnist", ["--first_seed=2"], **own)
    chosen = {"learning_rate": 0.01, "l2.strength": 0.001}
    assert plan.arms[1] == {"method": "l2", "transition": "output", "granularity": 1, **chosen}
    for arm in plan.arms:  # controls have the learning rate of what they are compared with
        if arm["method"] == "none" and arm["transition"] != "sampling":
            expected = 0.001 if arm.get("granularity") == 1 else 0.01
            assert arm["learning_rate"] == expected, arm
    plan = planned("random_mnist", ["--first_seed=2"], kinds.BY_GRANULARITY, **every)
    assert [arm["learning_rate"] for arm in plan.arms] == [0.001, 0.01, 0.01]
    with pytest.raises(ValueError, match=r"was tuned on seed 1, which is to be reported"):
        planned("random_mnist", ["--first_seed=1"], **own)
    with pytest.raises(
        ValueError, match=r"was made at scale 'paper': allowed is one at 'reduced'\."
    ):
        planned("random_mnist", ["--first_seed=2"], **own | {"scale": "reduced"})
    with pytest.raises(ValueError, match=r"allowed is a selected\.json with 'bigram_cipher'"):
        planned("bigram_cipher", selection=path)


def test_where_lower_is_better_the_lowest_is_chosen(tmp_path):
    rates = {1e-2: 0.9, 1e-3: 0.2, 1e-4: 0.5}
    rows = [
        {"lane": lane, "task": 0, "seed": 0, "finite": True, "method": "none",
         "transition": "output",
         "granularity": 1, "learning_rate": rate, "online_accuracy": loss, "loss": loss}
        for lane, (rate, loss) in enumerate(rates.items())
    ]  # fmt: skip
    (tmp_path / "random_mnist").mkdir()
    for metric, best in (("online_accuracy", "0.01"), ("loss", "0.001")):
        benchmark = MNIST._replace(metric=metric)
        columns = ["method", "transition", "granularity", "learning_rate"]
        select.chosen(pd.DataFrame(rows), columns, benchmark, "paper", {}, tmp_path)
        arms = json.loads((tmp_path / "selected.json").read_text())["random_mnist"]["arms"]
        assert arms["none"] == {"learning_rate": best}


ALL_ARMS: dict = {name: {} for name in (*settings.METHODS, "output", "sampling")}


@pytest.mark.parametrize(
    ("arms", "words"),
    [
        (["x"], "allowed is a selected.json with 'random_mnist'"),
        ({"none": {"l2.strenght": "1"}}, "lacks 'l2': allowed are arms that were tuned, none;"),
        (
            ALL_ARMS | {"l2": {"l2.strenght": "1"}},
            "sets 'l2.strenght': allowed are flags of methods",
        ),
        ({"l2": {"l2.strength": 1}}, "allowed is a selected.json"),
    ],
)
def test_a_selection_that_is_none_is_told(tmp_path, arms, words):
    file = tmp_path / "selected.json"
    file.write_text(json.dumps({"random_mnist": {"scale": "paper", "seeds": [1000], "arms": arms}}))
    with pytest.raises(ValueError, match=words):
        planned("random_mnist", selection=str(file))


@pytest.mark.parametrize("seeds", [[], "12", [1.5], ["1"], None, {"1": 2}])
def test_a_selection_names_whole_seeds(tmp_path, seeds):
    file = tmp_path / "selected.json"
    file.write_text(
        json.dumps({"random_mnist": {"scale": "paper", "seeds": seeds, "arms": ALL_ARMS}})
    )
    with pytest.raises(ValueError, match=r"allowed is a selected\.json with 'random_mnist'"):
        planned("random_mnist", selection=str(file))


@pytest.mark.parametrize("text", ["{broken", "[]", '{"a": NaN}', "[" * 100_000])
def test_select_refuses_a_file_it_cannot_add_to_before_it_trains(text, tmp_path, capsys):
    (tmp_path / "selected.json").write_text(text)
    assert select.main(["--scale=smoke", f"--workdir={tmp_path}"]) == 2
    assert "is no selected.json" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["selected.json"]


def test_benchmarks_are_selected_one_after_another_in_one_workdir(tmp_path, capsys):
    small = ["--tasks=1", "--epochs=4", "--samples=64", "--depth=1", "--seeds=1"]
    argv = ["--scale=smoke", "--methods=none", "--noprogress", *small, f"--workdir={tmp_path}/"]
    for benchmark in ("random_mnist", "permuted_emnist"):
        assert select.main([f"--benchmark={benchmark}", *argv]) == 0, capsys.readouterr().err
        assert f"written: {tmp_path / 'selected.json'}" in capsys.readouterr().out
        assert {"results.parquet", "selection.csv"} <= {
            file.name for file in (tmp_path / benchmark).iterdir()
        }
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "permuted_emnist",
        "random_mnist",
        "selected.json",
    ]
    path = str(tmp_path / "selected.json")
    for benchmark in ("random_mnist", "permuted_emnist"):
        plan = planned(benchmark, scale="smoke", methods="none", selection=path)
        assert all("learning_rate" in arm for arm in plan.arms)
    assert select.main([*argv[:-1], "--workdir="]) == 2
    assert "workdir is not given: name a folder with --workdir=DIR." in capsys.readouterr().err


def test_every_grid_has_the_benchmark_s_own_value_and_every_method_of_a_figure_is_tuned():
    assert select.with_usual((1e-2, 1e-4), 0.01) == (1e-2, 1e-4)
    assert select.with_usual((1e-2, 1e-4), 1e-3) == (1e-2, 1e-4, 1e-3)
    assert select.with_usual((1e-2,), None) == (1e-2,)
    for scale in ("paper", "reduced"):
        tuned = {flag.partition(".")[0] for flag in select.GRIDS[scale]}
        assert tuned >= {*settings.METHODS, "l2_init"} - {"none"}
        assert tuned <= {*METHODS, "learning_rate"}


def test_select_takes_methods_and_refuses_others(monkeypatch, capsys):
    monkeypatch.setattr(cost, "estimate", lambda *_: cost.Estimate(1.0, 1, 1))
    assert select.main(["--scale=smoke", "--methods=none,l2x", "--dry_run"]) == 2
    assert "method" in capsys.readouterr().err
    assert select.main(["--scale=smoke", "--methods=none,l2_init", "--dry_run"]) == 0
    assert "method l2_init" in capsys.readouterr().out


def test_a_grid_of_ones_own_replaces_the_ready_made_one(monkeypatch, capsys):
    monkeypatch.setattr(cost, "estimate", lambda *_: cost.Estimate(1.0, 1, 1))
    assert (
        select.main(
            [
                "--scale=smoke",
                "--methods=none,l2",
                "--dry_run",
                "--learning_rate=0.5",
                "--l2.strength=7",
            ]
        )
        == 0
    )
    out = capsys.readouterr().out
    assert "learning_rate 0.5, " in out
    assert "learning_rate 0.01" not in out
    assert out.count("l2.strength 7,") == 1
    assert "in all 3 compiled programs, 8 lanes" in out


def test_all_settings_of_an_arm_are_written_and_taken(tmp_path, capsys):
    small = ["--tasks=1", "--epochs=4", "--samples=64", "--depth=1", "--seeds=1", "--noprogress"]
    grids = [
        "--redo.threshold=0.1,0.5",
        "--redo.relative=true,false",
        "--redo.warmup=3",
        "--learning_rate=1e-3",
    ]
    assert (
        select.main(["--scale=smoke", "--methods=redo", *small, *grids, f"--workdir={tmp_path}"])
        == 0
    )
    path = tmp_path / "selected.json"
    arms = json.loads(path.read_text())["random_mnist"]["arms"]
    table = pd.read_csv(tmp_path / "random_mnist/selection.csv")
    assert len(table) == 4 + 2
    (best,) = table[table["chosen"] & (table["method"] == "redo")].to_dict("records")
    assert float(arms["redo"]["redo.threshold"]) == best["redo.threshold"]
    assert arms["redo"]["redo.relative"] == str(best["redo.relative"]).lower()
    assert (
        arms["redo"].items()
        >= {"redo.warmup": "3", "redo.period": "4", "learning_rate": "0.001"}.items()
    )
    assert set(arms["output"]) == {"learning_rate"}
    own = {"scale": "smoke", "methods": "redo", "selection": str(path)}
    taken = planned("random_mnist", **own).arms[0]
    assert {name: taken[name] for name in arms["redo"]} == {
        name: settings_.read(name, text) for name, text in arms["redo"].items()
    }
    with pytest.raises(
        ValueError,
        match=r"redo.period is '9', but .*selected.json has its own: leave one of them out",
    ):
        planned("random_mnist", ["--redo.period=9"], **own)
    capsys.readouterr()
    for axis in ("granularity=4,8", "optimizer=adam,sgd"):
        assert select.main(["--scale=smoke", f"--{axis}", f"--workdir={tmp_path}/more"]) == 2
        said = (
            "allowed here are several values of learning_rate and of methods' settings, one of "
            "others."
        )
        assert said in capsys.readouterr().err
