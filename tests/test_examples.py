"""The examples run as they are, show what they promise, and stay as long as two screens."""

import contextlib
import io
import json
import pathlib
import re
import runpy
import sys
import time

import jax
import matplotlib.pyplot as plt
import pytest

import plasticity_jax as pj

FOLDER = pathlib.Path(__file__).parents[1] / "examples"
REGISTRIES = (
    pj.environments.ENVIRONMENTS,
    pj.probes.PROBES,
    pj.models.MODELS,
    pj.datasets.DATASETS,
)

pytestmark = pytest.mark.usefixtures("compiled_quickly")


@pytest.fixture
def run(monkeypatch):
    """Runs an example as `python examples/NAME.py` does; returns its names and what it printed."""
    monkeypatch.setattr(sys, "argv", ["example"])
    before = [dict(registry) for registry in REGISTRIES]

    def once(name):
        printed = io.StringIO()
        # strangers have jax as it comes
        with contextlib.redirect_stdout(printed), jax.numpy_rank_promotion("allow"):
            names = runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
        return names, printed.getvalue()

    yield once
    for registry, entries in zip(REGISTRIES, before, strict=True):
        registry.clear()
        registry.update(entries)


def test_two_tasks(run):
    """Both ways learn both tasks, and an abrupt change costs a loss that small steps never have."""
    _, printed = run("two_tasks")
    losses = [float(text) for text in re.findall(r"on the way (\S+),", printed)]
    assert printed.count("accuracy at the end 100%") == 4
    assert losses[0] == losses[2]  # the first task is the same
    assert losses[1] > 2 * losses[3]


def test_your_method(run):
    """Each method does what it is for, and the composition what both are for."""
    _, printed = run("your_method")
    largest = [float(text) for text in re.findall(r"largest parameter (\S+)", printed)]
    assert largest[0] > largest[1] > largest[2] == largest[3] == 0.5


def test_your_probe(run):
    """Two of four units are stuck; in the run a high learning rate saturates and a low one does
    not.
    """
    names, printed = run("your_probe")
    assert "by hand: 0.50" in printed
    last = names["table"].query("task == 2").groupby("learning_rate").saturated_fraction.mean()
    assert last.iloc[0] < 0.05 < 0.2 < last.iloc[1]


def test_your_environment(run):
    """A strong picture costs accuracy while it changes, and less if it changes in small steps."""
    names, _ = run("your_environment")
    mean = names["arms"].online_accuracy_mean.mean()
    assert mean[4.0, 1] < mean[4.0, 10] < mean[0.5, 1]


@pytest.mark.long
def test_your_model(run):
    """It learns, its units are seen and recycled, and more of them the higher the threshold."""
    names, printed = run("your_model")
    assert "parameters: 10794 in ['first', 'in0', 'out0', 'in1', 'out1', 'head']" in printed
    table = names["table"]
    assert table.online_accuracy.gt(0.3).all()  # a guess is right in a tenth
    reset = table.query("task > 0").groupby("redo.threshold").units_reset.mean()
    assert 0 < reset[0.0] < reset[reset.index[1]]
    assert table["dormant_fraction/h1"].between(0, 1).all()


@pytest.mark.long
def test_your_dataset(run):
    """A file that is not there is told of in a sentence; its rows are learnt."""
    names, printed = run("your_dataset")
    assert "without the file:" in printed
    assert "expected a file with numbers and commas." in printed
    assert names["table"].accuracy.gt(0.9).all()
    assert set(names["table"].dataset) == {"spirals"}


def test_your_checkpoint(run):
    names, printed = run("your_checkpoint")
    loss = [float(measured["loss"]) for measured in names["table"].values()]
    assert loss == sorted(loss, reverse=True)
    assert len(loss) == 5
    assert "largest Hessian eigenvalue" in printed


@pytest.mark.oracle
def test_your_pytorch_loop(run):
    """Tasks are learnt whole, and by the last one the two kinds of change differ."""
    names, printed = run("your_pytorch_loop")
    assert printed.count("K = ") == 8
    assert names["abrupt"][0] == names["gradual"][0]  # the first task is the same
    assert names["gradual"][0][0] > 0.9
    assert names["abrupt"][-1] != names["gradual"][-1]


def test_reading_results(run, tmp_path, monkeypatch):
    """The demo's numbers, and those of a folder that is given."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    names, printed = run("reading_results")
    assert "+67.9  +65.6 to +70.3" in printed
    assert sorted(path.name for path in tmp_path.glob("*/*")) == ["curves.png", "curves.svg"]
    one_seed_less = names["table"].query("seed > 0")
    one_seed_less.to_parquet(tmp_path / "results.parquet")
    monkeypatch.setattr(sys, "argv", ["example", str(tmp_path)])
    _, printed = run("reading_results")
    assert "K = 20      3" in printed


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_is_two_screens_and_says_how_to_run_it(path):
    text = path.read_text(encoding="utf-8")
    assert 40 <= len(text.splitlines()) <= 80
    assert f"Run: python examples/{path.name}" in text
    assert f"def test_{path.stem}(" in pathlib.Path(__file__).read_text(encoding="utf-8")


def tour():
    """The notebook's code, by cell."""
    cells = json.loads((FOLDER / "tour.ipynb").read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.parametrize(
    ("there", "repository", "given", "typed", "installed"),
    [
        (True, False, "", None, []),
        (False, True, "", None, ["a/copy"]),
        (False, False, "https://host/owner/name", None, ["git+https://host/owner/name"]),
        (False, False, "", " https://host/owner/name\n", ["git+https://host/owner/name"]),
        (False, False, "", "git+ssh://git@host/owner/name", ["git+ssh://git@host/owner/name"]),
        (False, False, "", "/content/uploaded", ["/content/uploaded"]),
    ],
)
def test_the_tour_installs_what_is_missing(
    there, repository, given, typed, installed, tmp_path, monkeypatch
):
    """Nothing where the package is there; else the repository around it, what is given, or what is
    typed in, which is asked for only then.
    """
    calls = []
    copy = tmp_path / "a" / "copy"
    (copy / "examples").mkdir(parents=True)
    if repository:
        (copy / "plasticity_jax").mkdir()
        (copy / "plasticity_jax" / "__init__.py").touch()
    monkeypatch.chdir(copy / "examples")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name if there else None)
    monkeypatch.setenv("PLASTICITY_SOURCE", given)
    asked = []
    monkeypatch.setattr("builtins.input", lambda words: asked.append(words) or typed)
    monkeypatch.setattr("subprocess.run", lambda words, check: calls.append(words))
    exec(compile(tour()[0], "tour.ipynb", "exec"), {})
    assert len(asked) == (typed is not None)
    assert [words[1:-1] for words in calls] == [["-m", "pip", "install", "--quiet"]] * len(calls)
    assert [words[-1].removeprefix(f"{tmp_path}/") for words in calls] == installed


@pytest.mark.slow
def test_tour(monkeypatch):
    """The notebook's cells run from top to bottom in less than five minutes of processor time, and
    it shows what it says.
    """
    begun = time.process_time()
    monkeypatch.setattr("matplotlib.pyplot.show", lambda: plt.close())
    before = dict(pj.probes.PROBES)
    names, printed = {}, io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), jax.numpy_rank_promotion("allow"):
            for code in tour():
                exec(compile(code, "tour.ipynb", "exec"), names)
    finally:
        pj.probes.PROBES.clear()
        pj.probes.PROBES.update(before)
    assert time.process_time() - begun < 300
    last = names["table"].query("task == 4").groupby("granularity").online_accuracy.mean()
    assert last[1] + 0.2 < last[20]
    assert names["probed"].mean_activation.notna().all()
    assert "spectral 0.001: +" in printed.getvalue()
    assert "largest Hessian eigenvalue" in printed.getvalue()
