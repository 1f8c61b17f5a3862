"""The command lines of README and docs, run one after another in one folder, as `make snippets`
does. Which way a command of a document is tested:

- `python -m experiments.run ...` and every `plasticity ...` that names a folder (in README and
  docs, in blocks or in sentences): run here as it stands but for SMALL, which makes it short.
- A figure or another file of `experiments/`: `tests/test_readme.py` takes its flags up to where it
  would train or asks for data, as full ones take hours. At smoke size `make smoke` runs all figures
  of `experiments/gradual` and, of the other papers, bit flipping, class split of an MLP and labels
  redrawn in shares; `tests/experiments` runs clones, ranks, `staying`, kernels and the bandit. Of
  the rest it tests what their commands would train, at each scale, not that it trains.
- `python -m benchmarks ...`: the module is there and the parts are its; one measures for minutes.
- `make ...`: the target is there; `.ci/run` and CONTRIBUTING.md say what runs it.
- `python examples/...`: `tests/test_examples.py` runs each.
- A command alone, such as `plasticity list`: it is one of those that are known.
"""

import re
import runpy
import shlex
import shutil
import sys

import pytest
from helpers.documents import DOCUMENTS, ROOT, commands

from plasticity_jax import own_parts
from plasticity_jax.cli import commands as plasticity
from plasticity_jax.cli import launcher

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("compiled_quickly")]

# what makes a run short, with steps for a change in 20; of a flag given twice the last one holds
SMALL = {"epochs": 4, "samples": 64, "batch_size": 8, "width": 8, "depth": 1}
FEW = {"tasks": 4, "wave": 1, "seeds": 2, "slice": 2}  # half of what is there, at most these
OWN_DATA = ("--import", "--dataset=blobs")  # sizes of the worked file are its own, and small
# where a sentence has no folder that a run leaves
FOLDERS = {"DIR": "runs/first", "runs/a": "runs/first", "runs/b": "runs/more"}

COMMANDS = list(
    dict.fromkeys(
        line
        for document in DOCUMENTS
        if document.startswith(("README", "docs/"))
        for line in commands(document)
        if re.match(
            r"python -m experiments\.run --workdir=runs/|python -m experiments\.run --import", line
        )
        or re.match(r"python -m plasticity_jax (?!slice)\w+ .*(?:\bDIR\b|\bruns/)", line)
    )
)


def fewer(word):
    """A flag with a number of tasks, seeds or lanes that is small; more stay more."""
    flag, _, value = word.partition("=")
    most = FEW.get(flag.removeprefix("--"))
    return word if most is None else f"{flag}={max(1, min(int(value) // 2, most))}"


def small(words):
    """A run's arguments with fewer and smaller tasks."""
    if set(OWN_DATA) & {word.partition("=")[0] for word in words}:
        return words
    words = [fewer(word) for word in words]
    changes = [f"--{name}={value}" for name, value in SMALL.items()]
    return [*words, *changes, "--probes=dormant_fraction"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the commands are typed."""
    path = tmp_path_factory.mktemp("typed")
    shutil.copytree(ROOT / "examples", path / "examples")
    return path


@pytest.fixture
def typed(folder, monkeypatch):
    """Runs a command line of a document and returns its exit code."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PLASTICITY_CACHE_DIR", str(folder / "cache"))
    monkeypatch.setattr(launcher, "prepare_jax", lambda *_: None)
    monkeypatch.setattr(own_parts, "LOADED", {})
    before = {kind: dict(known) for kind, known in own_parts.REGISTRIES.items()}

    def once(line):
        _, _, module, *words = shlex.split(line)
        words = [FOLDERS.get(word, word) for word in words]
        if "--to=runs/all" in words:  # (two pages begin it)
            shutil.rmtree("runs/all", ignore_errors=True)
        if module == "plasticity_jax":
            return plasticity.main(words)
        monkeypatch.setattr(sys, "argv", [module, *small(words), "--noprogress"])
        try:
            runpy.run_module(module, run_name="__main__")
        except SystemExit as stopped:
            return stopped.code
        raise AssertionError(f"{module} does nothing")

    yield once
    sys.modules.pop("your_parts", None)
    for kind, known in own_parts.REGISTRIES.items():
        known.clear()
        known.update(before[kind])


def test_what_is_run():
    assert len(COMMANDS) > 20
    assert "runs/first" in COMMANDS[0]  # which others read
    assert small(["--seeds=12", "--tasks=3"])[:2] == ["--seeds=2", "--tasks=1"]


@pytest.mark.parametrize("line", COMMANDS, ids=str)
def test_a_command_runs(line, typed, capsys):
    code = typed(line)
    assert code == 0, capsys.readouterr().err
    if line == COMMANDS[0]:  # (the pages have two such folders; this one is of another rate)
        more = line.replace("runs/first", "runs/more").replace("1e-2", "2e-2")
        assert line != more
        assert typed(more) == 0
