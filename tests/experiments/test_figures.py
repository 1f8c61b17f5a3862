"""The figure files: every one plans at every scale, and one runs, is drawn, and is drawn again from
its workdir.
"""

import dataclasses
import importlib
import json
import pathlib

import numpy as np
import pandas as pd
import pytest

from experiments import benchmark, demo, figures
from experiments.gradual import kinds, settings
from plasticity_jax import lanes
from plasticity_jax.cli import flags, launcher
from plasticity_jax.cli import settings as settings_
from plasticity_jax.estimates import cost
from plasticity_jax.execution import program, rows, sweep
from plasticity_jax.execution.placement import Execution
from plasticity_jax.methods import METHODS
from plasticity_jax.reporting import collect
from plasticity_jax.storage.workdir import WorkdirError

pytestmark = pytest.mark.usefixtures("compiled_quickly")

FILES = sorted(
    path.stem for path in (pathlib.Path(figures.__file__).parent / "gradual").glob("figure_*.py")
)
KINDS = {"methods": kinds.BY_METHOD, "granularity": kinds.BY_GRANULARITY}
NEEDED = sorted(
    {
        f"--{flag}=here"
        for one in settings.BENCHMARKS.values()
        for flag in one.recipe.published.needs
    }
)
TINY = [
    "--samples=64",
    "--epochs=4",
    "--width=8",
    "--depth=1",
    "--granularity=2",
    "--seeds=1",
    "--probes=parameter_norm",
]


def made(name: str, which: str, arms: str, metric: str = "") -> figures.Figure:
    return figures.Figure(name, settings.BENCHMARKS[which], KINDS[arms], metric)


def planned(which: str, arms: str, argv=NEEDED, **own) -> figures.Plan:
    choices = figures.chosen(figures.OWN | own, argv)
    return figures.plan(made("1", which, arms), choices, argv)


def specs(which: str, arms: str, **own):
    plan = planned(which, arms, **own)
    values, given = flags.parse([], plan.defaults)
    return flags.runs(values, given, plan.arms)


def test_every_figure_of_the_paper_has_a_file_that_says_what_it_is():
    assert sorted(
        f"figure_{name}" for name in (["1a", "1b", "1c", "2", "3", "4", "5a", "5b", "6", "7a", "7b",
            "8a", "8b", "9a", "9b"])
    ) == FILES  # fmt: skip
    for name in FILES:
        text = importlib.import_module(f"experiments.gradual.{name}").__doc__ or ""
        for part in (
            "Source: Liu & Mou, figure",
            f"python -m experiments.gradual.{name} ",
            "Cost a lane: ",
            "Paper: ",
        ):
            assert part.replace("Cost a lane", "Cost") in text.replace("Cost a lane", "Cost"), (
                name,
                part,
            )


@pytest.mark.parametrize("scale", benchmark.SCALES)
@pytest.mark.parametrize("arms", ["methods", "granularity"])
@pytest.mark.parametrize("which", settings.BENCHMARKS)
def test_every_figure_can_be_planned_at_every_scale(which, arms, scale):
    runs = specs(which, arms, scale=scale, controls=True)
    for spec, given in runs:
        lanes.check(spec, given, spec.samples)  # the transition has as many steps as plateaus
    arms_found = [
        (spec.method, spec.transition, lane["granularity"])
        for spec, given in runs
        for lane in given
    ]
    if arms == "methods":
        assert {method for method, _, k in arms_found if k == 1} == set(settings.METHODS)
        gradual = settings.BENCHMARKS[which].recipe.transitions
        assert {transition for method, transition, k in arms_found if k > 1} >= set(gradual)
        assert {method for method, _, k in arms_found if k > 1} == {"none"}
    else:
        first, second, *_ = settings.BENCHMARKS[which].recipe.granularities
        assert {first, second} <= {k for *_, k in arms_found}


@pytest.mark.parametrize("which", settings.BENCHMARKS)
def test_settings_are_the_values_that_their_flags_are_read_as(which):
    """A text in place of a number would do as well on a command line, and not in Python."""
    one = settings.BENCHMARKS[which]
    published = one.recipe.published
    for known in (one.paper, one.reduced, one.smoke, *published[:3]):
        for name, value in known.items():
            read = settings_.read(name, settings_.text(value))
            assert (read, type(read)) == (value, type(value)), name


@pytest.mark.long
def test_a_kind_of_figure_of_another_paper_needs_nothing_of_the_first(capsys):
    """Arms, defaults, captions and what is taken from the command line come from the kind alone."""
    smoke = {"dataset": "digits", "samples": 64, "epochs": 1, "tasks": 1, "seeds": 1, "depth": 1}
    one = benchmark.Benchmark("widths", "Widths", "accuracy", smoke, {}, {}, recipe=(4, 8))
    kind = figures.Kind(
        arms=lambda figure, choices: [{"width": figure.benchmark.recipe}],
        defaults=lambda one, choices: one.at(choices.scale),
        taken=lambda one, choices: {"width"},
        remarks=lambda figure, choices, table: ["Nothing else."],
    )
    figure = figures.Figure("1", one, kind)
    assert figures.main("Doc.", figure, argv=["--dry_run", "--probes=none", "--width=3"]) == 0
    out = capsys.readouterr().out
    assert "in all 2 compiled programs, 2 lanes" in out
    assert "mlp 1 x 4," in out
    assert "mlp 1 x 8," in out
    plan = figures.plan(figure, figures.Choices())
    table = unrun(flags.runs(flags.parse([], plan.defaults)[0], (), plan.arms))
    values = flags.parse(["--tasks=2"], plan.defaults)[0]
    said = "Differs from the paper's numbers: tasks 2 (1). Nothing else."
    assert figures.differences(plan, values, table) == said


@pytest.mark.parametrize("which", settings.BENCHMARKS)
def test_compared_arms_take_the_same_steps(which):
    assert (
        len(
            {spec.epochs * (spec.samples // spec.batch_size) for spec, _ in specs(which, "methods")}
        )
        == 1
    )


def test_numbers_of_the_paper():
    wanted = {  # samples, batch, epochs, optimizer, steps per task
        "random_mnist": (5120, 64, 240, "adam", 19_200),
        "random_cifar10": (50_000, 250, 120, "adamw", 24_000),
        "random_tiny_imagenet": (100_000, 250, 120, "adamw", 48_000),
        "permuted_emnist": (47_000, 400, 200, "adam", 23_400),
        "random_seq2seq": (5120, 64, 900, "adamw", 72_000),
        "bigram_cipher": (1280, 64, 200, "adamw", 4_000),
    }
    for which, numbers in wanted.items():
        spec = specs(which, "methods")[0][0]
        steps = spec.epochs * (spec.samples // spec.batch_size)
        found = spec.samples, spec.batch_size, spec.epochs, spec.optimizer, steps
        assert found == numbers, which
        assert spec.tasks == 100


def test_controls_are_what_they_say():
    controls = {}
    for spec, given in specs("random_mnist", "methods", controls=True):
        for lane in given:
            key = (
                spec.transition,
                lane["granularity"],
                dict(spec.options).get("random_labels.change", True),
            )
            controls.setdefault((*key, spec.epochs, round(lane["transition_fraction"], 3)), 0)
    # as soft, at the same times, without interpolation
    assert ("smoothing", 20, True, 240, 0.667) in controls
    assert ("output", 20, False, 240, 0.667) in controls
    assert ("output", 1, False, 240, 0.667) in controls
    assert ("output", 20, True, 160, 1.0) in controls  # the transition's epochs alone
    assert ("output", 1, True, 80, 0.667) in controls  # the stable phase alone


def test_the_control_of_granularity_is_a_plateau_for_every_step():
    ((_, given),) = specs("random_mnist", "granularity", controls=True)
    assert sorted({lane["granularity"] for lane in given}) == [1, 2, 4, 10, 20, 40, 160 * 80]
    of = "random_mnist", "granularity"
    shorter = planned(*of, ["--epochs=9", "--samples=640"], controls=True)
    assert shorter.arms[-1]["granularity"] == 6 * 10
    given = planned(*of, ["--granularity=1,3", "--epochs=9"])
    assert [arm["granularity"] for arm in given.arms] == [1, (3,)]
    assert given.argv == ["--epochs=9"]
    with pytest.raises(ValueError, match=r"epochs is '9,18': allowed with controls is one value\."):
        planned(*of, ["--epochs=9,18"], controls=True)


def unrun(runs):
    """The table that these runs would leave, one task of each lane, with nothing measured."""
    programs = [program.Program(spec, [lanes.complete(spec, lane) for lane in given],
        Execution("map", 1, 1))
                for spec, given in runs]  # fmt: skip
    return rows.table(programs, [{"finite": np.ones((1, len(given)), bool)} for _, given in runs])


def caption(figure, *argv, **own):
    """What a figure of these flags says below it of its settings; the paper's scale without a
    published pretraining.
    """
    argv = [*NEEDED, *argv]
    plan = figures.plan(figure, figures.chosen(figures.OWN | own, argv), argv)
    # (a pretrained network would have to be there)
    left = [text for text in plan.argv if not text.endswith("=here")]
    arms = [{k: v for k, v in arm.items() if v != "here"} for arm in plan.arms]
    values, given = flags.parse(left, plan.defaults)
    given = {name for name in given if not all(name in arm for arm in arms)}
    return figures.differences(plan, values, unrun(flags.runs(values, given, arms)))


def test_a_figure_says_where_its_numbers_are_not_the_papers():
    figure = made("5b", "bigram_cipher", "granularity")
    assert caption(figure) == ""
    said = "Differs from the paper's numbers: tasks 3 (100), bigram_cipher.words 2 (10)."
    assert caption(figure, "--tasks=3", "--bigram_cipher.words=2", "--granularity=1,5") == said
    methods = figure._replace(kind=kinds.BY_METHOD)
    said = said.replace(").", "), granularity 1,5 (20).")
    assert caption(methods, "--tasks=3", "--bigram_cipher.words=2", "--granularity=1,5") == said
    assert caption(figure, as_published=True) == (
        "Differs from the paper's numbers: bigram_cipher.mask_padding false (true), "
        "bigram_cipher.beams 5 (1), "
        "bigram_cipher.test leaked (clean). The abrupt arm resets its optimizer."
    )
    other = made("1b", "random_cifar10", "methods")
    gradual = "Gradual arms have adamw.weight_decay 0.01, resnet18.pretrained given."
    twice = (
        "Output interpolation has twice the granularity, as steps of 0.05 of each half of its way."
    )
    stem = "Differs from the paper's numbers: resnet18.stem 7x7 (3x3)."
    assert caption(other, as_published=True) == f"{stem} {gradual} {twice}"
    # a granularity that is given is every arm's own
    given = stem.replace(").", "), granularity 10 (20).")
    assert caption(other, "--granularity=10", as_published=True) == f"{given} {gradual}"


def test_a_caption_names_only_settings_that_some_arm_has():
    """At reduced scale ReDo's period changes, which figures of granularity and of other methods
    have nothing of.
    """
    methods, granularity = (made("1", "random_mnist", arms) for arms in KINDS)
    fewer = "samples 1280 (5120), tasks 50 (100), epochs 120 (240), width 64 (256)"
    redo = ", redo.period 250 (1000), redo.warmup 250 (1000)"
    assert caption(methods, scale="reduced") == f"Differs from the paper's numbers: {fewer}{redo}."
    assert (
        caption(methods, scale="reduced", methods="none,l2")
        == f"Differs from the paper's numbers: {fewer}."
    )
    assert caption(granularity, scale="reduced") == f"Differs from the paper's numbers: {fewer}."
    for which in settings.BENCHMARKS:
        for scale in benchmark.SCALES:
            text = caption(made("1", which, "granularity"), scale=scale)
            assert not [name for name in METHODS if f"{name}." in text], text
    # no probe runs, so none has samples; every change is abrupt, so no transition takes a share
    assert caption(methods, "--probes=none", "--probe_samples=7") == ""
    assert caption(granularity, "--granularity=1", "--transition_fraction=1/2") == ""
    assert caption(granularity, "--transition_fraction=1/2") == (
        "Differs from the paper's numbers: transition_fraction 1/2 (2/3)."
    )


def test_a_caption_of_a_selection_names_no_value_that_every_arm_replaces(tmp_path):
    own = {"selection": str(tmp_path / "selected.json"), "scale": "reduced"}
    arms = {name: {"learning_rate": "0.01"} for name in (*settings.METHODS, "output", "sampling")}
    arms["redo"]["redo.period"] = "77"
    chosen = {"random_seq2seq": {"scale": "reduced", "seeds": [1000], "arms": arms}}
    (tmp_path / "selected.json").write_text(json.dumps(chosen))
    told = f"as chosen in {own['selection']}."
    methods = caption(made("2", "random_seq2seq", "methods"), **own)
    assert methods.endswith(f". Learning rates and methods' settings {told}")
    assert "learning_rate 2e-3" not in methods  # the scale's, which no arm has
    assert "redo.period" not in methods
    assert "first_seed 1 (0)" in methods
    alone = caption(made("2", "random_seq2seq", "granularity"), **own)
    assert alone.endswith(f". Learning rates {told}")


def test_a_note_of_an_experiment_makes_way_for_what_flags_change(tmp_path, monkeypatch):
    """The demo's note tells its settings; with others it would be wrong."""
    told = []
    monkeypatch.setattr(launcher, "prepare_jax", lambda *_: None)
    monkeypatch.setattr(launcher, "report", lambda *args: told.append(args[-1]) or "")
    noted = demo.EXPERIMENT._replace(note=lambda table, values: f"{len(table)} lanes")

    def run(programs, *_, **__):
        return unrun([(p.spec, p.lanes) for p in programs])

    monkeypatch.setattr(sweep, "run_in_workdir", run)
    argv = [f"--workdir={tmp_path}", "--noprogress", "--band=sem", "--last=3"]
    for more in ([], ["--tasks=5", "--seeds=2", "--granularity=1,2", "--method=none"]):
        assert launcher.launch(demo.EXPERIMENT, [*argv, *more]) == 0
    assert launcher.launch(noted, argv) == 0
    different = "Differs from the experiment's own settings: tasks 5 (30), seeds 2 (4)."
    assert told == [demo.NOTE, different, "12 lanes"]


def test_data_without_what_a_figure_shows_are_told_before_anything_runs(tmp_path, capsys):
    np.save(tmp_path / "train_images.npy", np.arange(576, dtype=np.uint8).reshape(64, 3, 3, 1))
    np.save(tmp_path / "train_labels.npy", np.arange(64) % 4)
    figure = made("3", "permuted_emnist", "methods")
    argv = ["--scale=smoke", f"--dataset=arrays:{tmp_path}", "--samples=64", "--probes=none"]
    assert figures.main("", figure, argv=[*argv, f"--workdir={tmp_path / 'run'}"]) == 2
    assert capsys.readouterr().err == (
        "error: test_accuracy is to be shown, but this run has online_accuracy, accuracy, loss, "
        "online_accuracy_mean, online_loss, online_loss_mean: allowed are runs that have it, with "
        "data that "
        "has a test split.\n"
    )
    assert not (tmp_path / "run").exists()


def test_as_published_turns_on_what_the_public_code_did():
    plan = planned("random_cifar10", "methods", as_published=True)
    assert "--resnet18.pretrained=here" not in plan.argv  # not for all arms
    for arm in plan.arms:
        settings_of = {**plan.defaults, **arm}
        found = settings_of.get("resnet18.pretrained"), settings_of["adamw.weight_decay"]
        assert found == ((None, 0) if arm.get("granularity") == 1 else ("here", 0.01))
    with pytest.raises(ValueError, match=r"as_published is given without resnet18.pretrained"):
        planned("random_cifar10", "methods", [], as_published=True)
    plan = planned("bigram_cipher", "methods", as_published=True)
    assert plan.defaults["bigram_cipher.test"] == "leaked"
    abrupt, *_ = (arm["method"] for arm in plan.arms if arm.get("granularity") == 1)
    assert abrupt == "optimizer_reset"
    plan = planned("bigram_cipher", "granularity", as_published=True)
    assert [(arm["method"], arm["granularity"]) for arm in plan.arms] == [
        ("optimizer_reset", 1),
        ("none", (2, 4, 10, 20)),
    ]


def test_what_nothing_is_published_of_is_said(capsys):
    planned("permuted_emnist", "methods", as_published=True)
    assert (
        "note: --as_published changes nothing in figure 1, Permuted EMNIST"
        in capsys.readouterr().err
    )
    planned("random_mnist", "granularity", as_published=True)
    assert (
        "note: --as_published changes nothing in figure 1, Random MNIST" in capsys.readouterr().err
    )
    for which in settings.BENCHMARKS:
        if which != "permuted_emnist":
            planned(which, "methods", as_published=True)
    assert capsys.readouterr().err == ""


def test_published_output_interpolation_has_its_steps_in_each_half():
    arms = planned("random_mnist", "methods", as_published=True).arms
    assert [arm["granularity"] for arm in arms if arm["transition"] == "output"][-1] == 40
    assert all("granularity" not in arm for arm in arms if arm["transition"] == "sampling")
    arms = planned("random_mnist", "methods", as_published=True, controls=True).arms
    halves = [arm for arm in arms if arm["transition"] in ("output", "smoothing")]
    assert {arm["granularity"] for arm in halves} == {1, 40}
    assert [arm["granularity"] for arm in arms if arm["transition"] == "smoothing"] == [40]
    arms = planned("random_mnist", "methods").arms
    assert all(arm.get("granularity", 1) == 1 for arm in arms)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--controls=maybe"], "flag --controls=maybe: allowed are true and false."),
        (
            ["--controls", "--transition_fraction=1"],
            "allowed with controls is a share that leaves an epoch",
        ),
        (["--controls", "--epochs=4,6"], "epochs is '4,6': allowed with controls is one value."),
        (["--from="], "from is '': name workdirs"),
        (["--from=a", "--dry_run"], "dry_run is given with from, which runs nothing"),
    ],
)
def test_what_a_figure_refuses(arguments, words, capsys, tmp_path):
    figure = made("1a", "random_mnist", "methods")
    argv = ["--scale=smoke", f"--workdir={tmp_path / 'w'}", *arguments]
    assert figures.main("", figure, argv=argv) == 2
    assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_granularity_that_is_none_is_told(capsys):
    figure = made("5a", "random_mnist", "granularity")
    assert figures.main("", figure, argv=["--scale=smoke", "--granularity=", "--dry_run"]) == 2
    assert "granularity is ''" in capsys.readouterr().err


def test_a_figure_runs_is_drawn_and_drawn_again_from_its_workdir(tmp_path, capsys):
    figure = made("5a", "random_mnist", "granularity")
    argv = ["--scale=smoke", "--noprogress", *(text for text in TINY if "granularity" not in text)]
    assert figures.main("Doc.", figure, argv=[*argv, "--workdir", f"{tmp_path / 'run'}"]) == 0
    assert "figure 5a: " in capsys.readouterr().out
    assert (tmp_path / "run/figure_5a.png").exists()
    kept, table = (
        pd.read_csv(tmp_path / "run/figure_5a.csv"),
        pd.read_parquet(tmp_path / "run/results.parquet"),
    )
    assert kept["arm"].unique().tolist() == [
        "abrupt",
        "output interpolation, K = 2",
        "output interpolation, K = 4",
    ]
    want = table.sort_values(["granularity", "task"])["online_accuracy"].to_numpy()  # of one seed
    assert kept["mean"].to_numpy() == pytest.approx(want, abs=1e-6)
    finals = pd.read_csv(tmp_path / "run/figure_5a_final.csv")
    assert finals["arm"].unique().tolist() == kept["arm"].unique().tolist()
    assert {"online_accuracy", "parameter_norm"} <= set(finals["metric"])
    again = made("7a", "random_mnist", "granularity", "parameter_norm")
    assert (
        figures.main(
            "Doc.", again, argv=[*argv, f"--from={tmp_path / 'run'}", f"--workdir={tmp_path / 'x'}"]
        )
        == 0
    )
    assert not (tmp_path / "x/figure_7a_final.csv").exists()
    assert (tmp_path / "x/figure_7a.svg").exists()
    capsys.readouterr()
    assert figures.main("Doc.", again, argv=[*argv, f"--from={tmp_path / 'run'}", "--seeds=2"]) == 1
    said = (
        "lacks 3 of the 6 lanes asked for: the first has seed 1, where the nearest there has seed "
        "0; allowed are"
    )
    assert said in capsys.readouterr().err
    assert (
        figures.main(
            "Doc.", figure, argv=[*argv, f"--from={tmp_path / 'run'}", "--probes=gradient_norm"]
        )
        == 0
    )
    capsys.readouterr()
    assert (
        figures.main(
            "Doc.", again, argv=[*argv, f"--workdir={tmp_path / 'y'}", "--probes=gradient_norm"]
        )
        == 2
    )
    said = "probes is 'gradient_norm', but parameter_norm is to be shown: add parameter_norm."
    assert said in capsys.readouterr().err
    assert not (tmp_path / "y").exists()
    assert figures.main("Doc.", again, argv=[*argv, f"--from={tmp_path}"]) == 1
    said = (
        f"{tmp_path} is not a workdir with results (there is no config.json): expected the "
        f"folder that a run was given"
    )
    assert said in capsys.readouterr().err
    assert figures.main("Doc.", again, argv=["--scale=smoke", "--methods=l2"]) == 2
    assert (
        "methods is 'l2', but figure 7a compares granularities: leave it out."
        in capsys.readouterr().err
    )
    assert figures.main("Doc.", again, argv=["--scale=large"]) == 2
    assert "scale is 'large': allowed are 'paper', 'reduced', 'smoke'" in capsys.readouterr().err


def test_lanes_are_collected_from_several_workdirs_in_the_order_asked_for(tmp_path):
    import plasticity_jax as pj

    spec = pj.Spec(samples=64, tasks=1, epochs=1, width=8, depth=1, probes=())
    parts = [pj.grid(seed=[seed], learning_rate=1e-2) for seed in (0, 1)]
    tables = [pj.run(spec, part, tmp_path / str(i)) for i, part in enumerate(parts)]
    both = collect.collect([tmp_path / "1", tmp_path / "0"], [(spec, [*parts[0], *parts[1]])])
    assert both["lane"].tolist() == [0, 1]
    want = pd.concat(tables, ignore_index=True).assign(lane=[0, 1])
    pd.testing.assert_frame_equal(both, want)
    old = tmp_path / "0" / "results.parquet"  # as from before precision could be named
    tables[0].drop(columns="precision").to_parquet(old)
    again = collect.collect([tmp_path / "1", tmp_path / "0"], [(spec, [*parts[0], *parts[1]])])
    assert again["precision"].tolist() == ["float32", "float32"]
    with pytest.raises(
        WorkdirError,
        match=(
            r"lacks 1 of the 1 lanes asked for: the first has seed 5, where the nearest there has "
            r"seed 0;"
        ),
    ):
        collect.collect([tmp_path / "0"], [(spec, pj.grid(seed=5, learning_rate=1e-2))])
    far = dataclasses.replace(spec, width=9, depth=2, epochs=2, samples=65)
    with pytest.raises(
        WorkdirError,
        match=(
            r"first has (\w+ [^ ,]+, ){4}1 more, where the nearest there has (\w+ [^ ,]+, ){4}1 "
            r"more;"
        ),
    ):
        collect.collect([tmp_path / "0"], [(far, pj.grid(seed=5, learning_rate=1e-2))])


def test_unfinished_runs_and_different_data_are_not_collected(tmp_path):
    import json

    import plasticity_jax as pj

    spec = pj.Spec(samples=64, tasks=2, epochs=1, width=8, depth=1, probes=())
    for seed in (0, 1):
        pj.run(spec, pj.grid(seed=[seed]), tmp_path / str(seed))
    folders, wanted = [tmp_path / "0", tmp_path / "1"], [(spec, pj.grid(seed=range(2)))]
    assert len(collect.collect(folders, wanted)) == 4
    shorter = dataclasses.replace(spec, tasks=1)
    pj.run(shorter, pj.grid(seed=[0]), tmp_path / "short")
    first = collect.collect([tmp_path / "short", *folders], [(shorter, pj.grid(seed=range(2)))])
    assert first[["lane", "task"]].to_numpy().tolist() == [[0, 0], [1, 0]]
    assert len(collect.collect([tmp_path / "short", *folders], wanted)) == 4
    config = tmp_path / "1" / "config.json"
    text = config.read_text()
    told = json.loads(text)
    told["settings"]["data"]["fingerprint"] = "another"
    config.write_text(json.dumps(told))
    with pytest.raises(WorkdirError, match=r"1/config.json cannot be read as .* written with"):
        collect.collect(folders, wanted)
    del told["sha256"]
    config.write_text(json.dumps(told))
    with pytest.raises(
        WorkdirError,
        match=r"0 and .*1 were trained on different data of one name \(fingerprints .*another\)",
    ):
        collect.collect(folders, wanted)
    config.write_text(text)
    table = pd.read_parquet(tmp_path / "1" / "results.parquet")
    table[table["task"] == 0].to_parquet(tmp_path / "1" / "results.parquet")
    with pytest.raises(
        WorkdirError, match=r"1 has 1 of 2 tasks of a lane asked for: allowed are finished runs;"
    ):
        collect.collect(folders, wanted)


def test_methods_can_be_chosen_and_one_of_two_figures(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(cost, "estimate", lambda *_: cost.Estimate(1.0, 1, 1))
    arms = planned("random_mnist", "methods", methods="none,l2_init").arms
    assert [arm["method"] for arm in arms] == ["none", "l2_init", "none", "none"]
    both = [
        made("6a", "random_mnist", "methods"),
        made("6b", "bigram_cipher", "methods"),
    ]
    argv = [
        "--scale",
        "smoke",
        "--dry_run",
        "--only=b",
        "--bigram_cipher.words=1",
        "--methods=none",
        "--probes=none",
    ]
    assert figures.main("Doc.", *both, argv=argv) == 0
    out = capsys.readouterr().out
    assert "bigram_cipher" in out
    assert "random_labels" not in out
    assert figures.main("Doc.", *both, argv=["--only=c"]) == 2
    assert "known are a, b" in capsys.readouterr().err
    assert figures.main("Doc.", *both, argv=["--help"]) == 0
    assert capsys.readouterr().out.count("This figure's own flags") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (
            ["--selection={}/selected.json"],
            2,
            "allowed is a selected.json with 'bigram_cipher' in it.",
        ),
        (["--activation=crelu"], 2, "activation of t5 is 'crelu': allowed are"),
        (
            ["--bigram_cipher.vocabulary={}/none"],
            1,
            "none cannot be read (No such file or directory)",
        ),
        (["--methods=none"], 1, "bigram_cipher/config.json cannot be read as the record of a run"),
    ],
)
def test_what_the_second_of_two_figures_lacks_is_told_before_the_first_runs(
    arguments, code, words, capsys, tmp_path
):
    arms = {name: {"learning_rate": "0.01"} for name in (*settings.METHODS, "output", "sampling")}
    chosen = {"random_mnist": {"scale": "smoke", "seeds": [1000], "arms": arms}}
    (tmp_path / "selected.json").write_text(json.dumps(chosen))
    (tmp_path / "w/bigram_cipher").mkdir(parents=True)
    (tmp_path / "w/bigram_cipher/config.json").write_text('{"settings": {}}')
    both = [
        made("6a", "random_mnist", "methods"),
        made("6b", "bigram_cipher", "methods"),
    ]
    given = [text.format(tmp_path) for text in arguments]
    argv = ["--scale=smoke", "--noprogress", "--probes=none", f"--workdir={tmp_path / 'w'}", *given]
    assert figures.main("Doc.", *both, argv=argv) == code
    said = capsys.readouterr()
    assert words in said.err
    assert said.out == ""
    assert [file.name for file in (tmp_path / "w").iterdir()] == ["bigram_cipher"]


def test_a_flag_that_every_arm_has_its_own_of_is_refused(capsys):
    figure = made("1a", "random_mnist", "methods")
    assert (
        figures.main("Doc.", figure, argv=["--scale=smoke", "--method=l2_init", "--dry_run"]) == 2
    )
    assert (
        "method is 'l2_init', but every arm of this run has its own: leave it out."
        in capsys.readouterr().err
    )
