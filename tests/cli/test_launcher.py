"""The launcher as a user meets it: exit codes, one sentence for every fault, and a finished,
repeatable workdir.
"""

import contextlib
import gzip
import importlib.metadata
import io
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pandas as pd
import pytest
from helpers import tiny

import plasticity_jax
from experiments.gradual import random_mnist
from plasticity_jax import spec
from plasticity_jax.cli import launcher, pictures
from plasticity_jax.estimates import cost, profile
from plasticity_jax.execution import compiled, growth, placement, program, record, slices, sweep
from plasticity_jax.storage import workdir

ROOT = pathlib.Path(__file__).parents[2]
TINY = (
    "--samples=100 --epochs=2 --tasks=2 --batch_size=20 --seeds=1 --probes=none --noprogress "
    "--width=8 --depth=1"
)
TINY = (TINY + " --norm=none --optimizer=sgd").split()
FILES = {"results.parquet", "summary.csv", "final.csv", "config.json", "curves.png", "curves.svg"}
FILES |= {"report.html"}


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, cache):
    """A cache and settings of JAX that no other test shares."""
    monkeypatch.setenv("PLASTICITY_CACHE_DIR", str(cache))
    monkeypatch.delenv("PLASTICITY_DATA_DIR", raising=False)
    # it is for processes of their own
    monkeypatch.setattr(launcher, "prepare_jax", lambda *_: None)


@pytest.fixture
def nothing_compiles(monkeypatch):
    monkeypatch.setattr(
        compiled, "compile_program", lambda *_: pytest.fail("something was compiled")
    )
    # --dry_run's trial, which has its own test
    monkeypatch.setattr(cost, "estimate", lambda *_: cost.Estimate(5400.0, 1, 1))


def launch(*argv, doc="What it is.", **experiment):
    return launcher.launch(launcher.Experiment(doc, **experiment), [*TINY, *map(str, argv)])


def refused(capsys, *argv):
    """Exit code and the sentence of a command that must say no other thing."""
    code = launch(*argv)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1
    return code, err


def test_clones_that_do_not_share_out_the_units_are_refused(capsys, tmp_path, nothing_compiles):
    for factor, allowed in ((3, "numbers from 2 that divide the 8 units of h0."), (1, "from 2.")):
        workdir = tmp_path / "run"
        given = ["--probes=clone_r2", f"--clone_r2.factor={factor}", f"--workdir={workdir}"]
        code, said = refused(capsys, *given)
        assert code == 2
        assert said.startswith(f"error: clone_r2.factor is {factor}: allowed are whole numbers ")
        assert said.endswith(f"{allowed}\n")
        assert not workdir.exists()


def process(module, *argv, **environ):
    # (as `finished` is compiled, with whose numbers some are compared)
    quickly = {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    command = [sys.executable, "-m", module, *map(str, argv)]
    own = {**os.environ, **quickly, **environ}
    return subprocess.Popen(
        command, cwd=ROOT, env=own, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(running):
    out, err = running.communicate()
    return running.returncode, out, err


WHOLE = "allowed are whole numbers from 1."
NUMBERS = "allowed are numbers such as 0.001, 1e-3 or 2/3"
MANY = ",".join(map(str, range(1, 101)))
USAGE = {
    "--granularty=5": (
        "unknown flag --granularty (did you mean --granularity?): --help and --list name all flags."
    ),
    "--seeds": "Missing value for flag --seeds",
    "stray": "argument 'stray' is not a flag: allowed are flags as --name=value",
    "--dry_run=maybe": "flag --dry_run=maybe: allowed are true and false.",
    "--tasks=1e3": f"tasks is '1e3': {WHOLE}",
    "--epochs=999999999999": f"epochs is 999999999999: {WHOLE[:-1]} to 2147483647.",
    "--epochs=2147483647": "a task has 10737418235 steps: allowed are fewer than 2147483647.",
    "--tasks=2147483647": (
        "2147483647 tasks have 21474836470 steps: allowed are fewer than 2147483647."
    ),
    "--probe_every=9999999999 --probes=dormant_fraction": (
        f"probe_every is 9999999999: {WHOLE[:-1]} to 2147483647, or"
    ),
    "--method=redo --redo.period=10000000000": (
        "redo.period is 10000000000: allowed are whole numbers from 0 to"
    ),
    "--method=redo --redo.warmup=-1": (
        "redo.warmup is -1: allowed are whole numbers from 0, or 'never'."
    ),
    "--depth=5000": f"depth is 5000: {WHOLE[:-1]} to 1000.",
    "--seeds=1000000000": "this grid has 1,000,000,000 lanes or more: allowed are at most 100,000.",
    f"--learning_rate={MANY} --granularity={MANY} --adam.b1={MANY} --optimizer=adam": (
        "this grid has 1,000,000 lanes or"
    ),
    f"--width={MANY} --depth={MANY} --epochs={MANY}": (
        "this grid has 1,000,000 programs or more: allowed are at most"
    ),
    "--last=99999999999999999999": f"last is 99999999999999999999: {WHOLE[:-1]} to 2147483647.",
    "--undefok=granularty --granularty=5": (
        "unknown flag --undefok: --help and --list name all flags."
    ),
    "--data_dir=\udcff": "argument '--data_dir=\\udcff' is not text: allowed is text in UTF-8.",
    "--depth=2,": f"depth is '': {WHOLE}",
    "--samples=5000": "digits has 1437 training images, fewer than the 5000 samples asked for.",
    "--batch_size=101": "batch_size is 101: allowed is at most the number of samples, 100.",
    "--granularity=abc": f"granularity is 'abc': {WHOLE}",
    "--granularity=1,,5": f"granularity is '': {WHOLE}",
    "--granularity=8": "granularity is 8, but the transition has 7 steps (0.666667 of 10): allowed",
    "--granularity=2 --transition_fraction=0": (
        "granularity is 2, but the transition has 0 steps (0 of 10): allowed"
    ),
    "--transition_fraction=1.5": "transition_fraction is 1.5: allowed is 0 to 1.",
    "--learning_rate=": f"learning_rate is '': {NUMBERS}",
    "--learning_rate=-1": "learning_rate is -1.0: allowed is 0 or more.",
    "--optimizer=adam --adam.b1=1.5": "adam.b1 is 1.5: allowed is 0 to 1.",
    "--method=l2 --l2.strength=-1": "l2.strength is -1.0: allowed is 0 or more.",
    "--method=shrink_and_perturb --shrink_and_perturb.shrink=2": (
        "shrink_and_perturb.shrink is 2.0: allowed is 0 to 1."
    ),
    "--learning_rate=1e39": f"learning_rate is '1e39': {NUMBERS}, up to 3.4e+38.",
    "--method=l2+l2": "method 'l2+l2' has 'l2' twice: each method may be given once.",
    "--method=none,": "unknown method '': known are none, l2, ",
    "--method=l2+": "unknown method '': known are none, l2, ",
    "--method=redo --redo.period=0": (
        "redo.period is 0: allowed are whole numbers from 1, or 'never'."
    ),
    "--schedule=cosine --cosine.over=foo": "cosine.over is 'foo': allowed are 'task', 'run'.",
    "--method=redo --redo.score=foo": "redo.score is 'foo': allowed are 'batch', 'running'.",
    "--method=l2 --l2.on=some": (
        "l2.on is 'some': allowed are 'all', 'matrices', 'not_norms', 'not_biases'."
    ),
    "--redo.threshold=0.1": (
        "redo.threshold is '0.1', but no arm of this run uses redo: add redo or leave it out."
    ),
    "--random_labels.draw=coin": (
        "random_labels.draw is 'coin': allowed are 'shuffle', 'iid', 'classes'."
    ),
    "--transition=input": (
        "'random_labels' share inputs: allowed are output, smoothing, annealing, sampling, abrupt."
    ),
    "--environment=permuted_pixels --transition=output": (
        "transition 'output' needs tasks that share inputs"
    ),
    "--probes=": "unknown probe '': known are hessian_top, ",
    "--dataset=digit": "nknown dataset 'digit'; known are digits, mnist, ",
    "--dataset=arrays:": "names no folder; write arrays:PATH.",
    "--lane_strategy=fast": (
        "lane_strategy is 'fast': allowed are 'plain', 'vmap', 'map', 'sharded'."
    ),
    "--lane_width=4 --lane_strategy=map": "lane_width is 4: allowed with map is 1.",
    "--band=xx": "band is 'xx': allowed are 'minmax', 'sem', 'ci', 't'.",
    "--workdir=": "workdir is not given: name a folder with --workdir=DIR.",
    "--profile=": "profile is not given: name a folder with --profile=DIR.",
    "--profile=traces --lane_strategy=plain": (
        "lane_strategy of a profile is 'plain': allowed are 'vmap', 'map', 'shard"
    ),
}
ON_NUMBERS = "--environment=target_offset --head=two_hot"
USAGE |= {
    f"{ON_NUMBERS} --two_hot.bins=1": "two_hot.bins is 1: allowed are whole numbers from 2.",
    f"{ON_NUMBERS} --two_hot.bins=0": "two_hot.bins is 0: allowed are whole numbers from 2.",
    f"{ON_NUMBERS} --two_hot.low=10": "two_hot.high is 10.0: allowed are numbers above two_hot.low",
    f"{ON_NUMBERS} --two_hot.smoothing=2": "two_hot.smoothing is 2.0: allowed is 0 to 1.",
    "--environment=target_offset --transition=output": (
        "transition 'output' needs targets that are distr"
    ),
    "--head=two_hot": "head 'two_hot' needs targets that are numbers, but those of 'random_labels'",
    "--random_labels.share=1.5": "random_labels.share is 1.5: allowed is 0 to 1.",
    "--random_labels.share=-0.1": "random_labels.share is -0.1: allowed is 0 to 1.",
    "--random_labels.share=nan": "random_labels.share is 'nan': allowed are numbers",
    "--norm=batch --batch_size=1": "norm 'batch' takes statistics over a minibatch, but batch_size",
    "--norm=batch+layer --batch_size=1": (
        "norm 'batch+layer' takes statistics over a minibatch, but"
    ),
}
COUNTS = (
    "seeds samples tasks epochs batch_size width depth granularity lane_width probe_samples last"
)
USAGE |= {f"--{name}=0": f"{name} is 0: {WHOLE}" for name in COUNTS.split()}
NAMES = (
    "environment transition model norm activation initialization head optimizer schedule precision "
    "method probe"
)
USAGE |= {
    f"--{name}{'s' * (name == 'probe')}=foo": f"unknown {name} 'foo': known are "
    for name in NAMES.split()
}


@pytest.mark.parametrize("argv", USAGE)
@pytest.mark.usefixtures("nothing_compiles")
def test_a_fault_of_the_command_line_is_one_sentence_and_exit_code_2(
    argv, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    code, sentence = refused(capsys, f"--workdir={tmp_path / 'run'}", *argv.split(" "))
    assert code == 2
    assert USAGE[argv] in sentence
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("nothing_compiles")
@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ("--probe_samples=100", ""),
        (
            "--probe_samples=101",
            "note: probe_samples is 101, but a task has 100 examples, so probes see these.\n",
        ),
        ("--probes=none --probe_samples=101", ""),
        ("", ""),  # the usual 512 says "at most all" by itself
    ],
)
def test_a_probe_batch_larger_than_a_task_is_told(wanted, told, capsys):
    assert launch("--probes=dormant_fraction", *wanted.split(), "--dry_run") == 0
    assert capsys.readouterr().err == told


def test_a_workdir_must_be_given(capsys):
    assert refused(capsys) == (
        2,
        "error: workdir is not given: name a folder with --workdir=DIR.\n",
    )


@pytest.mark.usefixtures("nothing_compiles")
@pytest.mark.parametrize(
    ("folder", "reason"),
    [
        ("file", "file is not a directory."),
        ("file/below", "file is not a directory."),
        # not even root may create a file there; elsewhere it is no folder at all
        ("/proc/run", "/proc is not"),
    ],
)
def test_a_workdir_that_cannot_be_one_is_exit_code_1(folder, reason, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    code, sentence = refused(capsys, f"--workdir={tmp_path / folder}")
    assert code == 1
    assert sentence.startswith(f"error: The workdir {tmp_path / folder} cannot be used: ")
    assert reason in sentence
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.usefixtures("nothing_compiles")
def test_a_profile_that_cannot_be_written_is_exit_code_1(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    told = (
        f"error: The profile {tmp_path / 'file'} cannot be used: {tmp_path / 'file'} is not a "
        f"directory.\n"
    )
    assert refused(capsys, f"--profile={tmp_path / 'file'}") == (1, told)


def test_a_profile_runs_no_experiment_and_needs_no_workdir(tmp_path, capsys):
    assert (
        launch(
            f"--profile={tmp_path / 'traces'}", f"--workdir={tmp_path / 'run'}", "--method=none,l2"
        )
        == 0
    )
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith("program 1 of 2: mlp, sgd, float32, method none; ")
    assert [line.split()[0] for line in out.splitlines() if "%" in line] == [*profile.PARTS]
    assert not (tmp_path / "run").exists()
    assert len(list(tmp_path.glob("traces/plugins/profile/*/*.trace.json.gz"))) == 1


def spoiled(kind, folder):
    """Makes data that are missing or spoiled; returns the flags that ask for them."""
    if kind == "corrupt arrays":
        np.save(folder / "train_images.npy", np.zeros((100, 3, 3, 1), np.uint8))
        (folder / "train_labels.npy").write_bytes(b"\x93NUMPY, but no more")
    elif kind == "corrupt mnist":
        for name in (
            "train-images-idx3",
            "train-labels-idx1",
            "t10k-images-idx3",
            "t10k-labels-idx1",
        ):
            (folder / f"{name}-ubyte.gz").write_bytes(gzip.compress(bytes(100)))
    return (
        [f"--dataset=arrays:{folder}"]
        if "arrays" in kind
        else ["--dataset=mnist", f"--data_dir={folder}"]
    )


@pytest.mark.parametrize(
    "kind", ["missing mnist", "corrupt mnist", "missing arrays", "corrupt arrays"]
)
@pytest.mark.usefixtures("nothing_compiles")
def test_missing_and_corrupt_data_are_one_sentence_and_exit_code_1(kind, tmp_path, capsys):
    data = tmp_path / "data"
    data.mkdir()
    code, sentence = refused(capsys, f"--workdir={tmp_path / 'run'}", *spoiled(kind, data))
    assert code == 1
    assert str(data) in sentence
    assert ("--data_dir" in sentence and "--download" in sentence) == (kind == "missing mnist")
    assert not (tmp_path / "run").exists()


def test_help_and_list_need_no_workdir(capsys):
    assert launch("--help", doc="Short words.", defaults={"tasks": "77"}) == 0
    assert capsys.readouterr().out.startswith("Short words.\n\nwhat changes\n")
    assert launch("--list") == 0
    assert "\n  shrink_and_perturb " in capsys.readouterr().out


@pytest.mark.usefixtures("nothing_compiles")
def test_dry_run_prints_grid_programs_lanes_steps_and_memory(tmp_path, capsys):
    grid = (
        "--granularity=1,5 --method=none,redo+l2 --l2.strength=1e-3,1e-4 --redo.period=7 --seeds=3"
    )
    assert launch("--dry_run", f"--workdir={tmp_path / 'run'}", *grid.split()) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("data: digits, 100 examples, ")
    assert [line for line in lines if "method" in line][1].endswith("method redo+l2, redo.period 7")
    assert sum("granularity 5, " in line and line.endswith("; seeds 0 to 2") for line in lines) == 3
    assert sum("l2.strength 0.0001" in line for line in lines) == 2
    totals = [line.split(" steps a lane; ")[0].strip() for line in lines if " MiB a lane" in line]
    assert totals == ["6 lanes x 2 tasks, 20", "12 lanes x 2 tasks, 20"]
    assert lines[-2:] == [
        "in all 2 compiled programs, 18 lanes, 360 lane-steps",
        "about 1.5 hours on this machine, besides compiling (a trial says so)",
    ]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("nothing_compiles")
@pytest.mark.long
def test_a_dry_run_says_what_is_new_in_a_workdir(finished, capsys, monkeypatch):
    monkeypatch.setattr(cost, "estimate", lambda *_: cost.Estimate(60.0, 2, 2))
    asked = ["--dry_run", f"--workdir={finished[0]}"]
    assert launch(*asked, *GRID) == 0
    assert f"{finished[0]}: no lane of these is new" in capsys.readouterr().out
    assert launch(*asked, *GRID, "--first_seed=1") == 0
    assert f"{finished[0]}: seed 2 is new: " in capsys.readouterr().out
    assert launch(*asked, *GRID, "--batch_size=7", "--samples=99") == 1
    assert "samples is 99, but the lanes in" in capsys.readouterr().err


@pytest.mark.usefixtures("nothing_compiles")
@pytest.mark.long
def test_a_dry_run_counts_what_is_many(tmp_path, capsys, monkeypatch):
    grid = "--granularity=1,2,5 --method=l2 --l2.strength=1e-3,2e-3,3e-3,4e-3,5e-3,6e-3,7e-3"
    monkeypatch.setattr(cost, "estimate", lambda *_: cost.Estimate(60.0, 2, 5))
    assert launch("--dry_run", *grid.split(), "--seeds=2") == 0
    out = capsys.readouterr().out
    words = "21 arms: 3 x granularity from 1 to 5, 7 x l2.strength from 0.001 to 0.007, 2 seeds"
    assert words in out
    assert "seeds 0 to 1" not in out
    assert out.endswith("(trials of 2 of 5 kinds of program say so)\n")
    assert launch("--dry_run", "--long", *grid.split(), "--seeds=2") == 0
    assert capsys.readouterr().out.count("seeds 0 to 1") == 21
    widths = f"--width={','.join(map(str, range(1, 23)))}"
    assert launch("--dry_run", widths) == 0
    out = capsys.readouterr().out
    assert out.count("\nprogram ") == 20
    assert "and 2 programs more (--long lists them)\nin all 22 compiled programs" in out


@pytest.mark.usefixtures("nothing_compiles")
def test_random_mnist_tells_its_grid(capsys):
    argv = ["--dry_run", "--dataset=digits", "--samples=1280", "--tasks=2"]
    assert launcher.launch(random_mnist.EXPERIMENT, argv) == 0
    assert "in all 6 compiled programs, 35 lanes, " in capsys.readouterr().out


GRID = [
    "--method=none,l2",
    "--l2.strength=1e-3,1e-4",
    "--granularity=1,5",
    "--seeds=2",
    "--probes=dormant_fraction",
]


def contents(folder):
    return {name: (folder / name).read_bytes() for name in FILES}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, compiled_quickly):
    """A finished workdir with two programs, and the text that the run printed."""
    folder, text = tmp_path_factory.mktemp("finished") / "runs" / "first", io.StringIO()
    with contextlib.redirect_stdout(text), pytest.MonkeyPatch.context() as patch:
        patch.setattr(launcher, "prepare_jax", lambda *_: None)
        assert launch(f"--workdir={folder}", *GRID) == 0
    return folder, text.getvalue()


def test_results_have_a_row_per_lane_and_task_and_a_column_for_everything(finished):
    table = pd.read_parquet(finished[0] / "results.parquet")
    assert len(table) == len(table.groupby(["lane", "task"])) == 2 * (2 + 4) * 2
    measured = {"online_accuracy", "accuracy", "loss", "finite", "dormant_fraction"}
    settings = {
        "seed",
        "method",
        "transition",
        "granularity",
        "learning_rate",
        "transition_fraction",
        "l2.strength",
    }
    assert settings | measured <= set(table.columns)
    assert sum(column.startswith("dormant_fraction/") for column in table.columns) == 1
    assert "test_accuracy" not in table  # random labels have no test split
    assert not table[sorted(measured)].isna().any(axis=None)
    assert (table["l2.strength"].isna() == (table["method"] == "none")).all()
    assert sorted(table["l2.strength"].dropna().unique()) == [1e-4, 1e-3]
    assert (
        table.groupby(["method", "granularity", "seed"], sort=True)["lane"].nunique().tolist()
        == [2] * 4 + [1] * 4
    )


def test_config_records_everything_that_decides_the_numbers(finished):
    config = json.loads((finished[0] / "config.json").read_text())
    none, l2 = config["settings"]["programs"]
    # what came later is left out where it is as it was: workdirs from before are known again
    assert set(none["spec"]) == set(spec.Spec.__dataclass_fields__) - set(spec.LATER)
    assert (none["spec"]["method"], l2["spec"]["method"], l2["spec"]["samples"]) == (
        "none",
        "l2",
        100,
    )
    assert none["lanes"][0].items() >= {
        ("learning_rate", 1e-3),
        ("transition_fraction", 2 / 3),
        ("granularity", 1),
    }
    assert {"lane_strategy", "lane_width"} <= set(none)
    assert len(config["settings"]["data"]["fingerprint"]) == 64
    assert {"jax", "flax", "numpy", "python"} <= set(config["versions"])
    assert "(cpu)" in config["device"] or "(gpu)" in config["device"]
    assert "seed 0" in config["data_source"]


def test_a_run_leaves_summary_figure_and_a_table_to_read(finished):
    folder, text = finished
    assert {path.name for path in folder.iterdir()} == FILES | {"checkpoints", "lock"}
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "</svg>" in (folder / "curves.svg").read_text()
    assert {"method", "l2.strength", "metric", "task", "mean"} <= set(
        pd.read_csv(folder / "summary.csv").columns
    )
    assert text.startswith("online accuracy")
    assert [words.split(",")[0] for words in text.splitlines()].count("L2") == 4
    said = f"\n\nfigure: {folder / 'curves.png'}\npage: {folder / 'report.html'}\n"
    assert text.endswith(said)


@pytest.mark.usefixtures("nothing_compiles")
@pytest.mark.long
def test_a_finished_run_is_drawn_and_written_as_a_paper_wants_it(finished, tmp_path, capsys):
    folder = tmp_path / "copy"
    shutil.copytree(finished[0], folder)
    asked = ["--figure_format=pdf", "--figure_width=single", "--figure_title=Mine"]
    asked += ["--export=markdown,latex", "--arm_names=A;B;C;D;E;F"]
    assert launch(f"--workdir={folder}", *GRID, *asked) == 0
    out = capsys.readouterr().out
    assert f"figure: {folder / 'curves.pdf'}" in out
    assert "minus A, points" in out
    assert sum(line.startswith(("A  ", "F  ")) for line in out.splitlines()) == 2
    assert (folder / "curves.pdf").read_bytes().startswith(b"%PDF")
    assert "| B | 2 |" in (folder / "final.md").read_text()
    assert r"\begin{tabular}" in (folder / "final.tex").read_text()
    written = pd.read_csv(folder / "final.csv")
    assert {"metric", "arm", "mean", "minus"} <= set(written.columns)
    assert set(written["arm"]) == set("ABCDEF")
    drawn = (folder / "curves.pdf").read_bytes()
    # what lies there is kept up to date, and nothing else is written
    (folder / "final.tex").unlink()
    assert launch(f"--workdir={folder}", *GRID) == 0
    assert "| B |" not in (folder / "final.md").read_text()
    assert not (folder / "final.tex").exists()
    assert (folder / "curves.pdf").read_bytes() != drawn


def test_a_title_names_the_method_of_all_arms():
    def titled(*methods):
        specs = [tiny.spec(method=method) for method in methods]
        return pictures.title(
            [program.Program(s, [{}], placement.execution("mlp", 1)) for s in specs]
        )

    assert titled("redo").endswith(", ReDo")
    assert titled("none") == titled("redo", "l2") == titled("redo").removesuffix(", ReDo")


@pytest.mark.usefixtures("nothing_compiles")
@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--figure_format=gif", "figure_format is 'gif': allowed are 'svg', 'png', 'pdf'."),
        ("--figure_width=wide", "figure_width is 'wide': allowed are 'page', 'double', 'single'."),
        ("--export=word", "export is 'word': allowed are 'markdown', 'latex'."),
        ("--arm_names=A;B;C", "arm_names are 3: allowed are as many as arms, 1, apart by ;"),
    ],
)
def test_pictures_that_there_are_not_are_refused_before_a_run(flag, said, tmp_path, capsys):
    folder = tmp_path / "run"
    assert launch(f"--workdir={folder}", *TINY, flag) == 2
    assert said in capsys.readouterr().err
    assert not folder.exists()


@pytest.mark.usefixtures("nothing_compiles")
def test_a_finished_run_is_not_run_again(finished, capsys):
    folder, text = finished
    before = contents(folder)
    assert launch(f"--workdir={folder}", *GRID) == 0
    assert capsys.readouterr() == (text, "")
    assert contents(folder) == before
    # what decides no number of the results may change
    assert (
        launch(f"--workdir={folder}", *GRID, "--band=sem", "--last=1", "--checkpoint_every=9") == 0
    )
    assert "last task" in capsys.readouterr().out


@pytest.mark.usefixtures("nothing_compiles")
@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("--tasks=1", "tasks is 1, but lanes in "),
        ("--lane_width=7", "lane_width is 7, but the lanes in "),
        ("--subsample_seed=1", "subsample_seed is 1, but the lanes in "),
    ],
)
def test_what_a_workdir_cannot_take_is_refused(finished, change, told, capsys):
    folder = finished[0]
    before = contents(folder)
    code, sentence = refused(capsys, f"--workdir={folder}", *GRID, change)
    assert code == 1
    assert told in sentence
    assert "use another --workdir" in sentence
    assert ": allowed " in sentence
    assert contents(folder) == before


@pytest.mark.usefixtures("nothing_compiles")
def test_a_workdir_in_use_or_with_a_spoiled_config_is_refused(finished, tmp_path, capsys):
    with workdir.lock(finished[0]):
        code, sentence = refused(capsys, f"--workdir={finished[0]}", *GRID)
    assert code == 1
    assert f"in use by process {os.getpid()} " in sentence
    (tmp_path / "config.json").write_text("{")
    assert "config.json cannot be read" in refused(capsys, f"--workdir={tmp_path}")[1]


def test_a_lane_that_diverges_is_told_and_is_no_fault(tmp_path, capsys):
    assert launch(f"--workdir={tmp_path}", "--learning_rate=1e-3,1e38") == 0
    assert "1 of 2 lanes diverged (finite is false)." in capsys.readouterr().out
    assert pd.read_parquet(tmp_path / "results.parquet").groupby("lane")[
        "finite"
    ].last().tolist() == [True, False]


def test_a_second_interrupt_ends_at_once_with_a_sentence(tmp_path, capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep, "run_in_workdir", interrupted)
    monkeypatch.setattr(os, "_exit", sys.exit)
    with pytest.raises(SystemExit, match="130"):
        launch(f"--workdir={tmp_path}")
    assert capsys.readouterr() == (
        "",
        "interrupted: the same command goes on from the last checkpoint, if there is one.\n",
    )


@pytest.mark.usefixtures("nothing_compiles")
def test_a_run_that_does_not_fit_into_memory_is_a_fault_before_it_starts(tmp_path, capsys):
    for flags, allowed in (
        (["--width=3000000", "--depth=2"], "a smaller model, batch or probe batch is allowed."),
        (["--lane_width=100000000"], "lane_width is 100000000, at most "),
    ):
        code, sentence = refused(capsys, *flags, f"--workdir={tmp_path / 'run'}")
        assert code == 1
        assert f"GiB are free: {allowed}" in sentence
    assert list(tmp_path.iterdir()) == []


def test_a_fault_without_words_has_some(tmp_path, capsys, monkeypatch):
    def fails(*_, **__):
        raise MemoryError

    monkeypatch.setattr(sweep, "run_in_workdir", fails)
    assert launch(f"--workdir={tmp_path / 'run'}") == 1
    told = (
        "error: memory ran out (MemoryError): allowed is a smaller run, or more memory for this "
        "process.\n"
    )
    assert capsys.readouterr().err == told
    assert launcher.fault(MemoryError("Unable to allocate 9 TiB"), 1) == 1  # as numpy says it
    assert capsys.readouterr().err == told.replace("(MemoryError)", "(Unable to allocate 9 TiB)")
    assert launcher.fault(OSError(), 1) == 1
    assert capsys.readouterr().err == "error: OSError\n"


def test_the_home_folder_is_meant_by_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    asked = {}
    monkeypatch.setattr(
        sweep,
        "run_in_workdir",
        lambda programs, dataset, folder, *_, **__: asked.update(folder=folder),
    )
    monkeypatch.setattr(launcher, "report", lambda *_: "")
    dataset = tiny.arrays(tmp_path / "data", 100).replace(str(tmp_path), "~")
    assert launch("--workdir=~/run", f"--dataset={dataset}") == 0
    assert asked == {"folder": f"{tmp_path}/run"}


@pytest.mark.usefixtures("nothing_compiles")
@pytest.mark.long
def test_a_dry_run_tells_what_a_model_is_made_from(capsys):
    argv = [
        "--dry_run",
        "--dataset=digits",
        "--samples=100",
        "--batch_size=20",
        "--model=cnn",
        "--epochs=1",
        "--tasks=1",
    ]
    assert launcher.launch(launcher.Experiment("", {"width": 64}), argv) == 0
    assert "transition output, cnn, norm layer, relu, torch, adam," in capsys.readouterr().out


def test_a_workdir_from_before_is_known_by_what_its_model_reads(tmp_path):
    """Width and depth of a CNN were recorded as given, and meant nothing."""
    made = tiny.spec(dataset=tiny.arrays(tmp_path / "data"), model="cnn")
    dataset = program.load_dataset(made)
    programs = program.plan([(made, [{}])], 64)
    old = json.loads(json.dumps(slices.settings(slices.in_order(programs), dataset)))
    old["programs"][0]["spec"] |= {"width": 8, "depth": 1}
    for name in ("numbers", "folder"):
        del old["programs"][0][name]
    workdir.write_config(tmp_path, old, {})
    planned = growth.plan(tmp_path, programs, dataset)
    assert planned.is_recorded
    assert planned.slices[0].folder == "0"
    old["programs"][0]["spec"] |= {"norm": "batch"}
    workdir.write_config(tmp_path, old, {})
    assert growth.plan(tmp_path, programs, dataset).news == ["norm none is new: 1 lane"]


def test_versions_of_what_is_only_on_the_path(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    versions = record.environment_record(program.load_dataset(tiny.spec(samples=64)))["versions"]
    assert versions["plasticity_jax"] == plasticity_jax.__version__
    assert versions["jax"] == jax.__version__
    assert versions["orbax-checkpoint"] == "0." + versions["orbax-checkpoint"][2:]


@pytest.mark.long
def test_a_reader_that_leaves_is_no_fault():
    """As of --help | head -1."""
    for command in ("--help", "--list"):
        with process("experiments.run", command) as running:
            assert running.stdout
            assert running.stderr
            assert running.stdout.readline()
            running.stdout.close()
            assert running.stderr.read() == ""
        assert running.returncode == 0


def test_memory_that_runs_out_all_the_same_is_one_sentence(tmp_path, capsys, monkeypatch):
    def fails(*_, **__):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\nallocating 36 bytes.")

    monkeypatch.setattr(sweep, "run_in_workdir", fails)
    assert launch(f"--workdir={tmp_path / 'run'}") == 1
    err = capsys.readouterr().err
    assert err.startswith(
        "error: memory ran out in spite of the estimate (RESOURCE_EXHAUSTED: Out of memory): the"
    )
    assert err.count("\n") == 1


def test_an_interrupt_before_the_run_is_one_sentence(tmp_path):
    """In the trial of --dry_run, after the grid is printed and before anything else looks after
    signals.
    """
    running = process(
        "experiments.run", "--dry_run", "--dataset=digits", f"--workdir={tmp_path / 'run'}"
    )
    assert running.stdout
    while "lane-steps" not in running.stdout.readline():
        pass
    running.send_signal(signal.SIGINT)
    status, _, err = finish(running)
    assert (status, err) == (
        130,
        "interrupted: the same command goes on from the last checkpoint, if there is one.\n",
    )
    assert list(tmp_path.iterdir()) == []


def test_processes_end_with_the_exit_code_and_one_sentence_or_none(tmp_path):
    usage = process("experiments.run", f"--workdir={tmp_path / 'run'}", "--granularty=5")
    data = process(
        "experiments.gradual.random_mnist",
        f"--workdir={tmp_path / 'run'}",
        f"--data_dir={tmp_path}",
        "--tasks=2",
    )
    for running, code, told in ((usage, 2, "--granularity"), (data, 1, "train-images")):
        status, out, err = finish(running)
        assert (status, out, err.count("\n")) == (code, "", 1)
        assert told in err
    assert list(tmp_path.iterdir()) == []
    small = ["--method=none,l2", "--tasks=2", "--width=8", "--depth=1", "--probes=none"]
    status, out, err = finish(process("experiments.demo", "--dry_run", *small))
    assert (status, err) == (0, "")
    assert "12 lanes x 2 tasks, 4,800 steps a lane; " in out


def test_a_deterministic_run_is_recorded_and_on_a_cpu_the_same_bits(
    finished, tmp_path, monkeypatch
):
    # the user's own, which must stay
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=false")
    running = process("experiments.run", *TINY, *GRID, "--deterministic", f"--workdir={tmp_path}")
    assert finish(running)[0::2] == (0, "")
    recorded = json.loads((tmp_path / "config.json").read_text())["xla_flags"]
    assert recorded == "--xla_cpu_enable_fast_math=false --xla_gpu_deterministic_ops=true"
    assert "deterministic" not in json.loads((finished[0] / "config.json").read_text())["xla_flags"]
    pd.testing.assert_frame_equal(
        *(pd.read_parquet(folder / "results.parquet") for folder in (tmp_path, finished[0])),
        check_exact=True,
    )


def test_determinism_is_refused_where_it_comes_too_late(monkeypatch):
    """In a process whose backend runs, on anything but a CPU."""

    def runs_already(*_):
        raise RuntimeError

    monkeypatch.undo()  # prepare_jax itself
    monkeypatch.setattr(jax.config, "update", runs_already)
    launcher.prepare_jax(deterministic=True)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setenv("XLA_FLAGS", "")
    launcher.prepare_jax()
    with pytest.raises(
        ValueError, match="deterministic is given, but jax runs already: allowed is a process that"
    ):
        launcher.prepare_jax(deterministic=True)


def test_a_stopped_run_goes_on_to_the_same_results(tmp_path):
    argv = [
        *TINY,
        "--environment=permuted_pixels",
        "--transition=input",
        "--granularity=3",
        "--tasks=40",
        "--seeds=2",
    ]
    folder = tmp_path / "stopped"
    # what one process compiles, the next need not (a stop comes long after that)
    once = {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }

    def newest():
        return max(
            (int(path.name) for path in folder.glob("checkpoints/*/*") if path.name.isdigit()),
            default=0,
        )

    stops = [
        (signal.SIGTERM, 143),
        (signal.SIGINT, 130),
        (signal.SIGUSR1, 138),
        (signal.SIGHUP, 129),
    ]
    for number, code in stops:
        # a checkpoint of this process, not of the one before: only then its own handlers are set
        saved = newest()
        running = process("experiments.run", *argv, f"--workdir={folder}", **once)
        while newest() == saved:
            assert running.poll() is None, running.communicate()
            time.sleep(0.01)
        running.send_signal(number)
        status, out, err = finish(running)
        assert (status, out) == (code, "")
        saved = int(err.removeprefix("stopped: ").split()[0])
        assert err == (
            f"stopped: {saved} of 40 tasks of this program are saved; the same command goes on "
            f"from there.\n"
        )
        assert len(pd.read_parquet(folder / "results.parquet")) == 2 * saved < 2 * 40
    texts, tables = [], []
    for path in (folder, tmp_path / "whole"):
        status, out, err = finish(process("experiments.run", *argv, f"--workdir={path}", **once))
        assert (status, err) == (0, "")
        texts.append(out.replace(str(path), ""))
        tables.append(pd.read_parquet(path / "results.parquet"))
    assert texts[0] == texts[1]
    assert "test_accuracy" in tables[0]
    assert not tables[0].duplicated(["lane", "task"]).any()
    pd.testing.assert_frame_equal(*tables, check_exact=True)
