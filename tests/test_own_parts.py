"""Parts of one's own from a module: they run, are recorded, and faults are told with file and
line.
"""

import json
import pathlib
import re
import sys

import pandas as pd
import pytest

from plasticity_jax import own_parts, registry
from plasticity_jax.cli import commands, flags, launcher

pytestmark = pytest.mark.usefixtures("compiled_quickly")

ROOT = pathlib.Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "parts" / "your_parts.py"


@pytest.fixture(autouse=True)
def registries_come_back(monkeypatch):
    """Registries, modules and paths are after a test what they were before."""
    monkeypatch.setattr(own_parts, "LOADED", {})
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = {kind: dict(known) for kind, known in own_parts.REGISTRIES.items()}
    yield
    for name in ("mine", "your_parts", "beside_mine"):
        sys.modules.pop(name, None)
    for kind, known in own_parts.REGISTRIES.items():
        known.clear()
        known.update(before[kind])


def written(folder, text, name="mine.py"):
    path = folder / name
    path.write_text(text)
    return str(path)


@pytest.mark.long
def test_the_worked_file_runs_from_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(launcher, "prepare_jax", lambda *_: None)
    docstring = EXAMPLE.read_text().partition("Run: ")[2].partition(" (seconds)")[0]
    words = docstring.replace("\\\n", " ").split()
    assert words[:3] == ["python", "-m", "experiments.run"]
    asked = [word.replace("examples/", f"{ROOT}/examples/") for word in words[3:]]
    asked = [word for word in asked if not word.startswith("--workdir")]
    run = [*asked, f"--workdir={tmp_path / 'run'}", "--noprogress", "--sign_noise.scale=0,1e-3"]
    experiment = launcher.Experiment("Any run.")
    assert launcher.launch(experiment, run) == 0
    table = pd.read_parquet(tmp_path / "run" / "results.parquet")
    assert set(table.model) == {"one_layer"}
    assert table.largest_weight.gt(0).all()
    assert sorted(table["sign_noise.scale"].unique()) == pytest.approx([0, 1e-3])
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    [(name, digest)] = record["imports"].items()
    assert name == str(EXAMPLE)
    assert len(digest) == 64
    own_parts.LOADED[name] = "0" * 64  # as if the file had changed
    capsys.readouterr()
    assert launcher.launch(experiment, run) == 0
    assert capsys.readouterr().err == f"note: {name} has changed since this run began.\n"


def test_a_module_by_name_and_a_file_are_loaded_once(tmp_path, monkeypatch):
    written(tmp_path, 'import plasticity_jax as pj\npj.probes.PROBES["one"] = lambda _: 1.0\n')
    monkeypatch.chdir(tmp_path)
    values, _ = flags.parse(["--import", "mine", "--probes=one"])
    assert values["import"] == "mine"
    own_parts.load(["mine", "mine"])
    assert list(own_parts.LOADED) == ["mine"]


def test_annotations_that_are_text_are_read_all_the_same(tmp_path):
    text = (
        "from __future__ import annotations\nimport plasticity_jax as pj\n"
        "from plasticity_jax.types import Number\n"
        "def halved(*, strength: Number = 0.5) -> pj.methods.Penalty:\n"
        '    """Half of it."""\n    return pj.methods.Penalty(lambda p, m: 0.0, strength)\n'
        'pj.methods.METHODS["halved"] = halved\n'
    )
    own_parts.load([written(tmp_path, text)])
    method = own_parts.METHODS["halved"]
    assert registry.numbers(method) == {"strength": 0.5}
    assert (
        registry.returned(method) is own_parts.REGISTRIES["method"]["l2"].__annotations__["return"]
    )


ENTER = "import plasticity_jax as pj\n"
FAULTS = {
    "nothing": ("x = 1\n", "mine.py enters nothing in a registry: allowed is a module with a line"),
    "syntax": ("x = 1\ndef f(:\n", "mine.py, line 2: "),
    "raises": (
        "x = 1\n\nraise RuntimeError('no luck.')\n",
        "mine.py, line 3: RuntimeError: no luck.",
    ),
    "imports": (
        "import no_such_module_at_all\n",
        "mine.py, line 1: ModuleNotFoundError: No module",
    ),
    "replaces": (
        f'{ENTER}pj.methods.METHODS["l2"] = lambda: None\n',
        "mine.py replaces the method 'l2': allowed are new names.",
    ),
    "name of another kind": (
        f'{ENTER}pj.probes.PROBES["l2"] = lambda _: 1.0\n',
        "mine.py has the name of the method 'l2': allowed are new names.",
    ),
    "no default": (
        f'{ENTER}def m(*, x): pass\npj.methods.METHODS["m"] = m\n',
        "has no default for x: every setting needs one.",
    ),
    "no default by place": (
        f'{ENTER}def m(units, strength): pass\npj.methods.METHODS["m"] = m\n',
        "has no default for strength: every setting needs one.",
    ),
    "leaves": ("import sys\n\nsys.exit(0)\n", "mine.py, line 3: SystemExit: 0."),
    "no function": (f'{ENTER}pj.probes.PROBES["p"] = 3\n', "is none: allowed is a function."),
    "no transition": (
        f'{ENTER}pj.transitions.TRANSITIONS["t"] = lambda *a: a[1]\n',
        "is none: allowed is a Transition.",
    ),
    "unknown annotation": (
        f"from __future__ import annotations\n{ENTER}def m(*, x: Nmber = 1.0): pass\n"
        'pj.methods.METHODS["m"] = m\n',
        "cannot be read (name 'Nmber' is not defined).",
    ),
}


def test_a_part_that_fails_where_it_is_used_is_told_before_anything_is_written(tmp_path, capsys):
    body = (
        "def m(*, x: float = 1.0):\n    return 5\n\n\ndef n(*, x: float = 1.0):\n    return 1 / 0\n"
    )
    entries = 'pj.methods.METHODS["m"] = m\npj.methods.METHODS["n"] = n\n'
    path = written(tmp_path, f"{ENTER}\n\n{body}\n\n{entries}")
    for method, said in (
        ("m", "method 'm' makes 5: allowed is a Method"),
        ("n", "mine.py, line 9: Zero"),
    ):
        arguments = [f"--import={path}", f"--workdir={tmp_path / 'run'}", f"--method={method}"]
        arguments += ["--dataset=digits", "--samples=64"]
        assert launcher.launch(launcher.Experiment("Any run."), arguments) == 2
        told = capsys.readouterr().err
        assert said in told
        assert told.count("\n") == 1
        assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_a_file_may_import_its_neighbour_and_a_run_says_which_modules_it_needs(tmp_path, capsys):
    (tmp_path / "beside_mine.py").write_text("STRENGTH = 0.5\n")
    text = f"{ENTER}from beside_mine import STRENGTH\n\n\n"
    text += "def m(*, x: float = STRENGTH):\n    return pj.methods.l2(strength=x)\n"
    path = written(tmp_path, text + '\n\npj.methods.METHODS["m"] = m\n')
    tiny = ["--dataset=digits", "--samples=64", "--tasks=1", "--epochs=1", "--width=4", "--depth=1"]
    arguments = [f"--import={path}", f"--workdir={tmp_path / 'run'}", "--method=m", "--probes=none"]
    assert (
        launcher.launch(launcher.Experiment("Any run."), [*arguments, *tiny, "--noprogress"]) == 0
    )
    own_parts.LOADED.clear()
    del own_parts.METHODS["m"]
    capsys.readouterr()
    assert commands.main(["show", str(tmp_path / "run")]) == 1
    assert "that are not loaded (unknown method 'm'" in (told := capsys.readouterr().err)
    assert f"allowed with --import={path}, in Python after importing them." in told


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_one_sentence_with_file_and_line_and_leave_nothing(fault, tmp_path, capsys):
    text, said = FAULTS[fault]
    before = {kind: dict(known) for kind, known in own_parts.REGISTRIES.items()}
    path = written(tmp_path, text)
    arguments = [f"--import={path}", f"--workdir={tmp_path / 'run'}"]
    assert launcher.launch(launcher.Experiment("Any run."), arguments) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1
    assert before == own_parts.REGISTRIES
    assert not (tmp_path / "run").exists()
    assert not own_parts.LOADED


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "no_such_module_at_all",
            "import is 'no_such_module_at_all': ModuleNotFoundError: No module",
        ),
        ("./nowhere/mine.py", "import is './nowhere/mine.py': there is no such file."),
        ("", "import is empty: allowed is a module's name, or the path of a file."),
        ("sys", "import is 'sys', which is no file: allowed is a module with a file."),
    ],
)
def test_modules_that_there_are_not(name, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        own_parts.load([name])


def test_a_file_with_the_name_of_another_module_is_refused(tmp_path):
    path = written(tmp_path, "x = 1\n", "json.py")
    with pytest.raises(ValueError, match="a module json is there already: give the file another"):
        own_parts.load([path])
