"""plasticity run, select, show, merge and list, as they are typed."""

import ast
import html
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys

import pandas as pd
import pytest
from helpers import tiny

from plasticity_jax.cli import commands, launcher, pages, showing
from plasticity_jax.execution import merging, sweep
from plasticity_jax.execution.engines import slurm
from plasticity_jax.storage import workdir

ROOT = pathlib.Path(commands.__file__).parents[2]


@pytest.fixture(scope="module")
def runs(tmp_path_factory, compiled_quickly):
    """Two workdirs with a seed each."""
    folder = tmp_path_factory.mktemp("runs")
    spec = tiny.spec(dataset=tiny.arrays(folder / "data"), tasks=2)
    for seed in (0, 1):
        sweep.run([(spec, [{"seed": seed}])], workdir=folder / f"seed_{seed}")
    return folder


@pytest.mark.long
def test_workdirs_are_shown_and_merged(runs, tmp_path, capsys):
    both = [str(runs / "seed_0"), str(runs / "seed_1")]
    assert commands.main(["show", *both]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("online accuracy: mean over the last 2 tasks measured")
    assert shown.splitlines()[-1].split()[:2] == ["abrupt", "2"]
    assert commands.main(["merge", *both, f"--to={tmp_path / 'both'}"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'both'}: 2 lanes of 2 workdirs.\n"
    assert commands.main(["show", str(tmp_path / "both")]) == 0
    assert capsys.readouterr().out == shown
    assert commands.main(["show", both[0], "--last", "1", "--metric=loss"]) == 0
    assert capsys.readouterr().out.startswith("loss: mean over the last task measured")


@pytest.mark.long
def test_finished_runs_get_a_page_and_their_literature(runs, tmp_path, capsys):
    both = [str(runs / "seed_0"), str(runs / "seed_1")]
    path = tmp_path / "both.html"
    assert commands.main(["report", *both, f"--to={path}"]) == 0
    assert capsys.readouterr().out == f"page: {path}\n"
    text = path.read_text(encoding="utf-8")
    assert "Dotted, where the axis has it: chance, " in text
    assert "2 training runs: 1 arm, 2 seeds, 2 tasks." in text
    assert "<h3>seed_0</h3>" in text
    assert "<h3>seed_1</h3>" in text
    assert f"<p>{html.escape(pages.NO_PAPER)}</p>" in text
    moved = shutil.copytree(runs / "seed_1", tmp_path / "moved")
    workdir.remark(moved, "Differs from the paper: tasks 2 (50).")
    assert commands.main(["report", str(moved)]) == 0
    text = (moved / "report.html").read_text(encoding="utf-8")
    assert "Differs from the paper: tasks 2 (50)." in text
    assert html.escape(pages.NO_PAPER) not in text
    capsys.readouterr()
    assert commands.main(["cite", *both]) == 0
    found = capsys.readouterr().out
    assert "@article{liu2026gradually," in found
    assert "sokar2023dormant" not in found


def test_a_page_says_whether_settings_of_a_paper_are_known():
    differs = {"remarks": "Differs from the paper: tasks 2 (50)."}
    assert pages.remarks_of([{}, {"remarks": ""}]) == pages.NO_PAPER
    assert pages.remarks_of([differs, {}, differs]) == differs["remarks"]


def test_chance_is_shown_where_all_folders_record_the_same(tmp_path):
    recorded = {
        "one": {"accuracy": 0.1},
        "two": {"accuracy": 0.1, "loss": 2.0},
        "other": {"accuracy": 0.2},
    }
    folders = {name: str(tmp_path / name) for name in (*recorded, "old")}
    for name, folder in folders.items():
        pathlib.Path(folder).mkdir()
        record = {"chance": recorded[name]} if name in recorded else {}
        workdir.write_config(folder, {}, record)
    assert pages.chance([folders["one"], folders["two"]], "accuracy") == 0.1
    for others in (["one", "other"], ["one", "old"], ["old"]):
        assert pages.chance([folders[name] for name in others], "accuracy") is None
    assert pages.chance([folders["one"], folders["two"]], "loss") is None


@pytest.mark.long
def test_any_arm_may_be_the_one_that_others_are_compared_with(runs, tmp_path, capsys, monkeypatch):
    both = [str(runs / "seed_0"), str(runs / "seed_1")]
    fast, programs = merging.load_with_programs(both)
    slow = fast.assign(lane=fast["lane"] + 2, learning_rate=0.001, online_accuracy=fast["loss"])
    table = pd.concat([fast.assign(learning_rate=0.01), slow], ignore_index=True)
    monkeypatch.setattr(showing, "finished", lambda given: (table, programs))
    shown = ["show", *both]
    assert commands.main(shown) == 0
    usual = capsys.readouterr().out
    assert "minus learning_rate=0.01" in usual
    for baseline in ("learning_rate=0.001", "learning_rate=1e-3", "learning_rate=1e-3,method=none"):
        assert commands.main([*shown, f"--baseline={baseline}", "--difference=2"]) == 0
        other = capsys.readouterr().out
        assert "minus learning_rate=0.001" in other
        assert "from learning_rate=0.001 with a chance" in other
    assert commands.main([*shown, "--arm_names=fast;slow", "--difference=2"]) == 0
    other = capsys.readouterr().out
    assert "from fast with a chance" in other
    assert "  slow: about " in other
    assert commands.main([*shown, "--arm_names=fast;slow", "--baseline=slow", "--export=csv"]) == 0
    found = pd.read_csv(io.StringIO(capsys.readouterr().out)).set_index("arm")
    assert found["minus"].isna().to_dict() == {"fast": False, "slow": True}
    page = tmp_path / "page.html"
    assert commands.main(["report", *both, "--baseline=learning_rate=1e-3", f"--to={page}"]) == 0
    assert "minus learning_rate=0.001, " in page.read_text()
    capsys.readouterr()
    for given, said in (
        ("slow", "baseline is 'slow': allowed are NAME=VALUE,... and the names of arms, learning_"),
        ("learning_rate=3", "the baseline {'learning_rate': 3.0} fits no arm: it must fit one of"),
        ("color=red", "unknown arm column 'color' in the baseline: known are "),
    ):
        assert commands.main([*shown, f"--baseline={given}"]) == 2
        assert capsys.readouterr().err.startswith(f"error: {said}")


@pytest.mark.long
def test_a_paper_gets_a_table_its_p_values_seeds_and_a_figure(runs, tmp_path, capsys):
    both = [str(runs / "seed_0"), str(runs / "seed_1")]
    assert commands.main(["show", *both, "--export=latex", "--arm_names=Ours"]) == 0
    shown = capsys.readouterr().out
    assert shown.endswith("\\end{tabular}\n")
    assert "Ours & 2 &" in shown
    assert commands.main(["show", *both, "--export=csv", "--metric=loss"]) == 0
    found = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert found["metric"].tolist() == ["loss"]
    assert {"seeds", "mean", "t_low"} <= set(found)
    path = tmp_path / "loss.pdf"
    assert commands.main(["show", *both, "--difference=2", f"--figure={path}"]) == 0
    shown = capsys.readouterr().out
    assert "seeds that tell a difference of 2 points from abrupt with a chance of 80 %" in shown
    assert path.read_bytes().startswith(b"%PDF")
    nowhere = tmp_path / "nowhere" / "loss.pdf"
    assert commands.main(["show", *both, f"--figure={nowhere}"]) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["slice"], 2, "0 folders are given: allowed is one, of a slice."),
        (["slice", "a"], 1, "a is no folder: allowed are the folders that a run with --engine"),
        (["slice", "a", "--cores=x"], 2, "cores is 'x': allowed are"),
        (["run", "--workdir=a", "--slice=3"], 2, "slice is given without an engine: add --engine"),
        (["run", "--workdir=a", "--slurm.qos=x"], 2, "slurm.qos is given without an engine"),
        (["run", "--workdir=a", "--slurm.qos"], 2, "--slurm.qos is given: allowed is --slurm.qos="),
        (
            ["run", "--workdir=a", "--engine=lsf"],
            2,
            "engine is 'lsf': allowed are 'local', 'slurm'",
        ),
        (
            ["run", "--workdir=a", "--engine=slurm"],
            2,
            "lane_width is not given: with engine slurm slices may run on other devices",
        ),
        (
            ["run", "--workdir=a", "--engine=slurm", "--lane_width=1"],
            2,
            "slice is not given: allowed is --slice=LANES, or --slice_minutes.",
        ),
        (
            ["run", "--workdir=a", "--engine=local", "--slurm.qos=x"],
            2,
            "slurm.qos is given, but engine is local: leave it out.",
        ),
        (["shwo"], 2, "command is 'shwo': allowed are 'run', 'select', 'show', 'report',"),
        (["show"], 2, "there are no workdirs: give at least one folder of a run."),
        (["show", "nowhere"], 1, "nowhere is no folder: allowed are folders of runs."),
        (
            ["show", "--lsat=3"],
            2,
            "unknown flag --lsat=3: allowed are --last, --metric, --baseline,",
        ),
        (["show", "a", "--export=word"], 2, "export is 'word': allowed are 'latex', 'markdown',"),
        (["show", "a", "--difference=-1"], 2, "difference is -1: allowed are numbers above 0, in"),
        (["show", "a", "--figure=a.bmp"], 2, "the ending of figure is 'bmp': allowed are 'svg',"),
        (
            ["show", "a", "--figure_width=3"],
            2,
            "figure_width is '3': allowed are 'page', 'double',",
        ),
        (["show", "a", "--last=0"], 2, "last is 0: allowed"),
        (["report", "a", "b"], 2, "to is not given, but 2 folders are: name a file with --to=."),
        (["report", "a"], 1, "a is no folder: allowed are folders of runs."),
        (["report", "a", "--band=x"], 2, "band is 'x': allowed are"),
        (["cite", "a"], 1, "a is no folder: allowed are folders of runs."),
        (["merge", "a", "b"], 2, "to is not given: name a folder with --to=DIR."),
        (["merge", "--to=a"], 2, "there are no workdirs: give at least one folder of a run."),
        (["merge", "a", "--to=b"], 1, "a is no folder: allowed are folders of runs."),
        (["list", "methods"], 2, "argument 'methods' is given: list takes none but --import"),
        (["run", "--widht=3"], 2, "unknown flag --widht"),
        (["select", "--widht=3"], 2, "unknown flag --widht"),
        (["select", "--workdir=a", "--metric=los"], 2, "los is to be shown, but this run has"),
        (["run", "--keep_checkpoints=all", "--workdir=a"], 2, "keep_checkpoints is 'all': allowed"),
    ],
)
def test_what_is_typed_wrong_is_one_sentence(arguments, code, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launcher, "prepare_jax", lambda *_: None)
    monkeypatch.setattr(slurm, "check", lambda passed: None)
    assert commands.main(arguments) == code
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"error: {said}")
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_a_metric_that_is_none_is_one_sentence(runs, capsys):
    assert commands.main(["show", str(runs / "seed_0"), "--metric=los"]) == 2
    assert "los" in capsys.readouterr().err


@pytest.mark.long
def test_the_best_of_each_arm_is_chosen(runs, tmp_path, monkeypatch, capsys):
    """By the mean over all tasks and seeds, on seeds that no run has by default."""
    monkeypatch.setattr(launcher, "prepare_jax", lambda *_: None)
    words = [f"--dataset=arrays:{runs / 'data'}", "--tasks=2", "--epochs=2", "--batch_size=16"]
    words += ["--width=8", "--depth=1", "--norm=none", "--method=none,l2", "--noprogress"]
    words += ["--learning_rate=1e-2,1e-5", "--l2.strength=1e-3,0.5", f"--workdir={tmp_path}"]
    assert commands.main(["select", *words, "--metric=online_loss"]) == 0
    told = capsys.readouterr().out
    found = json.loads((tmp_path / "selected.json").read_text())
    assert (found["metric"], found["seeds"]) == ("online_loss", [1000, 1001])
    table = pd.read_parquet(tmp_path / "results.parquet")
    names = {"none": ["learning_rate"], "l2": ["learning_rate", "l2.strength"]}
    for (arm, chosen), (method, settings) in zip(found["arms"].items(), names.items(), strict=True):
        means = table[table["method"] == method].groupby(settings)["online_loss"].mean()
        best = means.idxmin() if len(settings) > 1 else (means.idxmin(),)
        assert [float(chosen[name]) for name in settings] == pytest.approx(list(best))
        assert f"{arm}: learning_rate {chosen['learning_rate']}" in told
    assert pd.read_csv(tmp_path / "selection.csv")["chosen"].sum() == 2


@pytest.mark.parametrize("name", ["", "--help", *(f"{name} --help" for name in commands.COMMANDS)])
def test_help_says_what_there_is(name, capsys):
    assert commands.main(name.split()) == 0
    assert "plasticity " in capsys.readouterr().out


def test_list_names_every_part(capsys):
    assert commands.main(["list"]) == 0
    assert "continual_backprop" in capsys.readouterr().out


@pytest.mark.long
def test_no_accelerator_is_started_where_nothing_is_run(runs, tmp_path):
    """As another process may have all memory of an accelerator."""
    script = (
        "import jax; from plasticity_jax.cli import commands\n"
        f"for words in (['show', {str(runs / 'seed_0')!r}], ['list'],"
        f" ['merge', {str(runs / 'seed_1')!r}, '--to={tmp_path / 'new'}']):\n"
        "    assert commands.main(words) == 0\n"
        "assert jax.config.jax_platforms == 'cpu'\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.long
def test_the_installed_script_and_the_module_are_this_command():
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "plasticity_jax", "shwo"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: command is 'shwo'")
    written = (ROOT / "setup.py").read_text(encoding="utf-8")
    values = [node.value for node in ast.walk(ast.parse(written)) if isinstance(node, ast.Constant)]
    assert "plasticity = plasticity_jax.cli.commands:main" in values
