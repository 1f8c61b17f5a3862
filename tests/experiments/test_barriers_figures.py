"""The figures of Joudaki et al.: what they run, how they are analysed, and small ones run."""

import importlib
import pathlib

import numpy as np
import pandas as pd
import pytest

from experiments import barriers, figures
from experiments.barriers import cloning, foretelling, ranks, settings
from experiments.benchmark import SCALES
from plasticity_jax.cli import flags

FILES = sorted(path.stem for path in pathlib.Path(barriers.__file__).parent.glob("figure_*.py"))
NAMES = ["3_1", "3_2", "3_3", "4_1", "5_1", "5_2", "5_3"]
APPENDIX = ["A_1", "A_2", "A_3", "A_4", "B_1", *(f"B_{number}" for number in range(5, 13))]
EVERY = {**settings.BENCHMARKS, **cloning.BENCHMARKS}
TINY = ["--dataset=digits", "--seeds=1", "--depth=1", "--width=4", "--norm=none"]
TINY += ["--tasks=1", "--figure_format=png", "--noprogress"]


def runs(name: str, scale: str, published: bool = False):
    figure = figures.Figure("x", EVERY[name], settings.KIND)
    plan = figures.plan(figure, figures.Choices(scale=scale, as_published=published))
    values, given = flags.parse([], plan.defaults)
    return figure, flags.runs(values, given, plan.arms)


def test_every_figure_has_a_file_that_says_what_it_shows_and_how_it_is_run():
    assert sorted(f"figure_{name}" for name in NAMES + APPENDIX) == FILES
    for name in FILES:
        text = importlib.import_module(f"experiments.barriers.{name}").__doc__ or ""
        assert f"python -m experiments.barriers.{name} " in text
        for word in ("Source: Joudaki et al., figure", "Paper", "Cost:"):
            assert word in text, name


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", EVERY)
def test_every_figure_is_a_run_that_measures_its_metric(name, scale):
    figure, found = runs(name, scale)
    figures.metrics.check_measured([spec for spec, _ in found], figures.metric_of(figure))


def test_as_published_draws_the_accuracy_among_all_outputs(capsys):
    figure = settings.figure("3.2", "class_split")
    plan = figures.plan(figure, figures.Choices(as_published=True))
    assert figures.metric_of(plan.figure) == "accuracy_of_all"
    assert capsys.readouterr().err == ""
    values, given = flags.parse([], plan.defaults)
    specs = [spec for spec, _ in flags.runs(values, given, plan.arms)]
    figures.metrics.check_measured(specs, "accuracy_of_all")
    figures.plan(settings.figure("3.3", "class_split", "effective_rank"), plan.choices)
    assert "--as_published changes nothing" in capsys.readouterr().err


def test_clones_as_published_are_those_of_the_public_code(capsys):
    named = {"B.5": "clone_networks", "B.8": "noise_vit", "B.9": "noise_vit"}
    named |= {"4.1": "clone_mlp", "B.11": "optimizers", "B.12": "optimizers"}
    for name, benchmark in named.items():
        metric = "loss" if name in ("B.9", "B.12") else ""
        figure = cloning.figure(name, benchmark, metric)
        clean = figures.plan(figure, figures.Choices())
        plan = figures.plan(figure, figures.Choices(as_published=True))
        assert figures.metric_of(plan.figure) == (metric or "clone_r2/as_published")
        values, given = flags.parse([], plan.defaults)
        found = flags.runs(values, given, plan.arms)
        figures.metrics.check_measured([spec for spec, _ in found], figures.metric_of(plan.figure))
        optimizers = {spec.optimizer for spec, _ in found}
        by_optimizer = {"momentum", "adam", "adamw"}
        assert optimizers == (by_optimizer if benchmark == "optimizers" else {"momentum"})
        for spec, _ in found:
            if spec.model == "vit" and spec.surgery == "clone":
                assert dict(spec.options)["clone.rescale"] is False
        assert not any("clone.rescale" in one for one in (clean.defaults, *clean.arms))
    assert "vit" in {arm["model"] for arm in cloning.BENCHMARKS["clone_networks"].recipe.grids}
    given = figures.Choices(as_published=True, given={"optimizer": "sgd"})
    assert figures.plan(cloning.figure("B.11", "optimizers"), given).arms
    assert capsys.readouterr().err == ""


def test_arms_are_those_of_the_paper():
    _, found = runs("norms", "paper")
    assert len(found) == 4 * (1 + 2 * 2)
    assert {(spec.model, spec.norm) for spec, _ in found} == {
        (model, norm) for model in settings.NETWORKS for norm in ("none", "batch", "layer")
    }
    assert {
        lane["learning_rate"] for spec, own in found if spec.model == "vit" for lane in own
    } == {1e-4}
    _, found = runs("bit_flip_widths", "paper")
    assert sorted((spec.method, spec.width) for spec, _ in found) == sorted(
        (method, width) for method in settings.BOTH for width in settings.WIDTHS
    )
    assert all(spec.tasks * spec.samples == 5_000_000 for spec, _ in found)
    _, (_, replaced) = runs("bit_flip", "paper", published=True)
    assert dict(replaced[0].options)["continual_backprop.count"] == "at_least_one"


def test_axes_of_a_figure_may_be_given_and_networks_be_chosen():
    def arms(name: str, *argv: str):
        choices = figures.chosen(figures.OWN, argv)
        return figures.plan(figures.Figure("x", EVERY[name], settings.KIND), choices, argv)

    plan = arms("bit_flip_widths", "--width=5,7", "--seeds=1")
    assert [arm["width"] for arm in plan.arms] == [(5, 7)]
    assert plan.argv == ["--seeds=1"]
    plan = arms("norms", "--model=mlp,vit")
    assert [arm["model"] for arm in plan.arms] == ["mlp", "mlp", "vit", "vit"]
    plan = arms("norms_and_dropout", "--model=cnn", "--cnn.dropout=0.0")
    assert [arm["cnn.dropout"] for arm in plan.arms] == [0.0]
    assert plan.argv == []
    with pytest.raises(ValueError, match="model is 't5': allowed are 'mlp', 'cnn', 'resnet18', 'v"):
        arms("norms", "--model=t5")


def test_arms_that_begin_from_one_network_are_a_group():
    grids = cloning.BENCHMARKS["clone_mlp"].recipe.grids
    plain, dropped = cloning.groups(grids)
    assert (plain.name, dropped.name) == ("mlp", "mlp_01")
    assert [arm["method"] for arm in plain.arms] == ["none", "none", "gradient_noise"]
    assert dropped.base == {"model": "mlp", "mlp.dropout": 0.1}
    assert len(cloning.groups(cloning.BENCHMARKS["optimizers"].recipe.grids)) == 4
    _, found = runs("noise_vit", "paper")
    assert sum(len(own) for _, own in found) == 5 * (1 + 1 + 3 * 5)


@pytest.mark.usefixtures("compiled_quickly")
@pytest.mark.long
def test_a_figure_of_clones_runs(tmp_path, capsys):
    one = cloning.figure("4.1", "clone_mlp")
    recipe = one.benchmark.recipe._replace(grids=one.benchmark.recipe.grids[:2])
    one = one._replace(benchmark=one.benchmark._replace(recipe=recipe))
    argv = ["--scale=smoke", *TINY, "--probes=clone_r2", f"--workdir={tmp_path}"]
    assert cloning.main("", one, argv) == 0
    final = pd.read_csv(tmp_path / "figure_4.1_final.csv").set_index("arm")
    found = final[final["metric"] == "clone_r2"]["mean"]
    assert found["cloned"] == pytest.approx(1, abs=1e-6)
    assert found["not cloned"] < 0.9
    assert (tmp_path / "figure_4.1.png").exists()
    assert "figure 4.1: " in capsys.readouterr().out


def test_what_a_figure_of_clones_does_not_take_is_a_fault_of_the_command_line(capsys):
    one = cloning.figure("4.1", "clone_mlp")
    assert cloning.main("", one, ["--from=here"]) == 2
    assert "allowed is --workdir=DIR" in capsys.readouterr().err
    assert cloning.main("", one, []) == 2
    assert "workdir is not given" in capsys.readouterr().err
    assert cloning.main("", one, ["--controls", "--workdir=x"]) == 2
    assert "figure 4.1 has arms of its own" in capsys.readouterr().err


@pytest.mark.parametrize("name", ranks.FIGURES)
@pytest.mark.long
def test_a_figure_of_numbers_writes_its_table_and_picture(name, tmp_path):
    ranks.run(ranks.FIGURES[name], tmp_path, "smoke")
    assert (tmp_path / f"figure_{name}.png").stat().st_size > 1000
    assert not pd.read_csv(tmp_path / f"figure_{name}.csv").isna().all().any()


def test_the_public_codes_alpha_is_that_of_its_own_quadrature():
    """By their nodes, as many as make the integral; 3 of a ReLU where alpha is 0."""
    nodes, weights = np.polynomial.hermite.hermgauss(100)
    z, (a, b) = nodes / np.sqrt(2), (2.0, -0.5)
    value = np.tanh(a * (z + b))
    expected = weights @ (a * (1 - value**2)) ** 2 / (weights @ value**2) - 1
    table = ranks.with_published(
        pd.DataFrame({"function": ["relu", "tanh"], "scale": [1.0, a], "shift": [0.0, b]})
    )
    assert list(table["alpha_as_published"]) == pytest.approx([3.0, expected], abs=1e-6)


@pytest.mark.long
def test_figures_of_numbers_take_the_flag_of_what_is_published(tmp_path):
    argv = ["--as_published", "--scale=smoke", f"--workdir={tmp_path}"]
    assert ranks.main("", "A.4", argv) == 0
    assert "alpha_as_published" in pd.read_csv(tmp_path / "figure_A.4.csv")
    plan = ranks.FIGURES["A.1"]
    before, after = tmp_path / "before", tmp_path / "after"
    ranks.run(plan, before, "smoke")
    ranks.run(plan, after, "smoke", as_published=True)
    name = "figure_A.1.csv"
    assert (before / name).read_text() == (after / name).read_text()


def test_arms_of_clones_are_told_in_words():
    own = {"method": "none", "surgery": "clone", "model": "vit", "vit.dropout": 0.0}
    rows = [
        own,
        {**own, "surgery": "none"},
        {**own, "vit.dropout": 0.1},
        {**own, "method": "gradient_noise"},
    ]
    noise = {"gradient_noise.scale": 0.01, "gradient_noise.decay": 0.999}
    rows[3] |= noise
    found = cloning.named(pd.DataFrame(rows), [*own, *noise])
    assert list(found["network"]) == [
        "cloned",
        "not cloned",
        "cloned, dropout 0.1",
        "cloned, noise 0.01 x 0.999^t",
    ]


def test_a_flag_that_a_figure_of_numbers_lacks_is_refused(capsys):
    assert ranks.main("", "3.1", ["--seeds=3", "--workdir=x"]) == 2
    assert (
        "allowed are --workdir=DIR, --progress, --as_published, --scale" in capsys.readouterr().err
    )


def lane(number: int, accuracy: list[float], **columns) -> pd.DataFrame:
    own = {"lane": number, "seed": number, "task": range(len(accuracy))}
    return pd.DataFrame({**own, "online_accuracy": accuracy, **columns})


def test_cases_are_tasks_before_a_fall_whose_next_five_are_known():
    fallen = lane(0, [0.1, *[1.0] * 11, 0.89, 1.0])
    whole = lane(1, [0.1, *[1.0] * 13])
    assert foretelling.fall(fallen["online_accuracy"].to_numpy()) == 12
    assert foretelling.fall(whole["online_accuracy"].to_numpy()) is None
    found = foretelling.cases(pd.concat([fallen, whole]))
    first = found[found["lane"] == 0]
    assert list(first["task"]) == list(range(4, 12))
    assert list(first["falls"]) == [False] * 3 + [True] * 5
    second = found[found["lane"] == 1]
    assert list(second["task"]) == list(range(4, 9))
    assert not second["falls"].any()


def test_areas_are_those_of_scikit_learn():
    from sklearn import metrics  # (seconds, for every worker of the tests)

    random = np.random.default_rng(0)
    score, falls = random.integers(0, 9, 60).astype(float), random.random(60) < 0.3
    assert foretelling.area(score, falls) == pytest.approx(metrics.roc_auc_score(falls, score))
    at = foretelling.threshold(score, falls)
    high, true, places = metrics.roc_curve(falls, score, drop_intermediate=False)
    best = np.max(true - high)
    assert true[places == at] - high[places == at] == pytest.approx(best)


def test_what_a_score_tells_among_cases_of_one_task():
    random = np.random.default_rng(0)
    lane, task = (one.ravel() for one in np.indices((6, 8)))
    score, falls = random.integers(0, 5, lane.size) + 10.0 * task, random.random(lane.size) < 0.4
    score[0] = np.nan
    late = pd.DataFrame({"lane": lane, "task": task, "score": score, "falls": falls})
    area, low, high = foretelling.at_one_time(late, random)
    won = []
    for _, one in late.dropna().groupby("task"):
        yes, no = (one["score"][one["falls"] == which] for which in (True, False))
        won += list(np.sign(np.subtract.outer(yes.to_numpy(), no.to_numpy())).ravel() / 2 + 0.5)
    assert area == pytest.approx(np.mean(won))
    assert low < area < high
    timeless = foretelling.at_one_time(late.assign(score=task), random)
    assert timeless == (0.5, 0.5, 0.5)
    assert np.isnan(foretelling.at_one_time(late.assign(falls=task < 4), random)).all()


def test_a_score_is_judged_on_seeds_that_did_not_choose_its_threshold():
    random, lanes = np.random.default_rng(0), []
    for number in range(9):
        at = 10 + number
        accuracy = [1.0] * at + [0.5] * (20 - at)
        steps = np.arange(20)
        trap = np.where(steps >= at - 5, 0.1, 0.9)
        lanes.append(lane(number, accuracy, trap=trap, hessian_top=random.random(20)))
    found = foretelling.judged(pd.concat(lanes)).set_index("score")
    assert found.loc["trap", ["area", "low", "high", "sensitivity"]].tolist() == [1, 1, 1, 1]
    assert found.loc["trap", "falls_if"] == "low"
    assert 0.2 < found.loc["hessian_top", "area"] < 0.8
    assert 0.5 < found.loc["task", "area"] < 1
    assert set(found["lanes"]) == {6}
    with pytest.raises(ValueError, match="cases, all alike: allowed are runs in which"):
        foretelling.judged(
            pd.concat([lane(0, [1.0] * 14), lane(1, [1.0] * 14), lane(2, [1.0] * 14)])
        )
