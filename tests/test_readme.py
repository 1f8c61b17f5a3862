"""Documents: every snippet runs, every command is taken, every link leads somewhere, every part is
named, every measured figure has a source.
"""

import contextlib
import importlib
import importlib.util
import io
import re
import runpy
import shlex
import shutil
import sys

import jax
import pytest
from helpers.documents import BLOCK, DOCUMENTS, ROOT, blocks, commands, read

import plasticity_jax as pj
from benchmarks import parts
from experiments import computation
from plasticity_jax import datasets, own_parts
from plasticity_jax.cli import commands as commands_
from plasticity_jax.cli import launcher, slicing
from plasticity_jax.execution import sweep
from plasticity_jax.execution.engines import local, sliced, slurm
from plasticity_jax.optimizers import OPTIMIZERS, SCHEDULES
from plasticity_jax.stream.transitions import TRANSITIONS

COMMANDS = [(document, line) for document in DOCUMENTS for line in commands(document)]


def test_every_document_is_listed():
    """Those that a reader is sent to; texts of results are written by `make claims`."""
    docs = ROOT / "docs"
    found = [
        path for folder in ("", "decisions", "results") for path in (docs / folder).glob("*.md")
    ]
    assert {path.relative_to(ROOT).as_posix() for path in found} <= set(DOCUMENTS)


def test_every_decision_has_a_line_in_the_notes():
    """Which leads to it: that links lead somewhere is tested for all documents."""
    notes = read("BUILD_NOTES.md")
    pages = [name for name in DOCUMENTS if name.startswith("docs/decisions/")]
    headings = re.findall(r"^## (\d+)\. (.+)$", "".join(map(read, pages)), re.MULTILINE)
    assert len({number for number, _ in headings}) == len(headings) > 60
    for number, title in headings:
        assert f"\n- [{number}. {title}](docs/decisions/" in notes, title


def test_the_readme_is_three_screens():
    assert len(read("README.md").splitlines()) < 120


# What can be pasted


def session(document):
    """The names that all of a document's Python leaves, run from top to bottom."""
    names = {}
    # strangers have jax as it comes
    with jax.numpy_rank_promotion("allow"), contextlib.redirect_stdout(io.StringIO()):
        for snippet in blocks(document, "python"):
            exec(compile(snippet, document, "exec"), names)
    return names


@pytest.mark.long
def test_python_of_the_readme():
    """It runs, and its table shows that gradual change keeps accuracy where abrupt loses it."""
    table = session("README.md")["table"]
    last = table[table.task == table.task.max()].groupby("granularity").online_accuracy.mean()
    assert last[1] < 0.5 < 0.8 < last[20]


@pytest.mark.long
def test_python_of_the_page_about_python(compiled_quickly):
    names = session("docs/python.md")
    assert names["metrics"]["online_accuracy"].shape == (4,)
    assert 0 <= names["dormant"] <= 1
    assert jax.tree.structure(names["updates"]) == jax.tree.structure(names["params"])


def test_no_other_document_has_python():
    assert [d for d in DOCUMENTS if blocks(d, "python")] == ["README.md", "docs/python.md"]


class Taken(Exception):
    """A command line is good enough to train with."""


def take(*_, **__):
    raise Taken


@pytest.fixture
def nothing_trains(tmp_path, monkeypatch):
    """A folder with the results that are in the repository, no data, and an exception in place of
    training.
    """
    results = ROOT / "experiments" / "gradual" / "results"
    for place in (
        "selected.json",
        "runs/select/selected.json",
        "experiments/gradual/results/selected.json",
    ):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(results / "selected.json", tmp_path / place)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.setattr(own_parts, "LOADED", {})
    before = {kind: dict(known) for kind, known in own_parts.REGISTRIES.items()}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PLASTICITY_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("PLASTICITY_DATA_DIR", raising=False)
    monkeypatch.setattr(launcher, "prepare_jax", lambda *_: None)
    monkeypatch.setattr(sweep, "run_in_workdir", take)
    monkeypatch.setattr(sliced, "run_in_slices", take)
    monkeypatch.setattr(local, "devices", lambda: local.Devices("cpu", 2))
    monkeypatch.setattr(slurm, "check", lambda passed: None)
    monkeypatch.setattr(slicing, "prepare", lambda values: None)
    monkeypatch.setattr(computation, "run", take)
    yield
    sys.modules.pop("your_parts", None)
    for kind, known in own_parts.REGISTRIES.items():
        known.clear()
        known.update(before[kind])


def exit_code(module, arguments, monkeypatch):
    """The exit code of `python -m MODULE ARGUMENTS`, 0 if it would train."""
    found = importlib.import_module(module)
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    try:
        if hasattr(found, "main"):
            return found.main(arguments)
        runpy.run_path(found.__file__, run_name="__main__")
    except Taken:
        return 0
    except SystemExit as stopped:
        return stopped.code
    raise AssertionError(f"{module} does nothing")


@pytest.mark.parametrize(("document", "line"), COMMANDS, ids=str)
def test_commands_are_taken(document, line, nothing_trains, monkeypatch, capsys):
    words = [word if word != "..." else "--workdir=DIR" for word in shlex.split(line)]
    if words[0] == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        targets = [word for word in words[1:] if "=" not in word]
        assert all(f"\n{target}:" in makefile for target in targets)
        return
    if words[0] != "python":
        assert line == ". .venv/bin/activate"
        return
    if words[1].endswith(".py"):
        assert (ROOT / words[1]).exists()
        return
    assert words[1] == "-m"
    module, arguments = words[2], words[3:]
    assert importlib.util.find_spec(module)
    if module == "plasticity_jax" and arguments[1:]:
        module = "plasticity_jax.cli.commands"
        # (in a sentence on a flag the folder is left out)
        if all(word.startswith("--") for word in arguments[1:]):
            arguments = [*arguments, "--workdir=DIR" if arguments[0] == "run" else "DIR"]
    elif module == "plasticity_jax":  # (a command alone is only named)
        assert {*"".join(arguments).split("|")} <= {*commands_.COMMANDS}
        return
    if module == "benchmarks":
        named = {word for word in arguments if not word.startswith("--")}
        assert named <= {*parts.PARTS, "PART..."}
        return
    if module.startswith(("experiments", "plasticity_jax.")) and arguments:
        code, told = exit_code(module, arguments, monkeypatch), capsys.readouterr().err
        # not here: data, or runs that another command leaves
        missing = re.search("--data_dir|not found|not a workdir|No such file|is no folder", told)
        extra = re.search(r"is not installed: allowed with the extra \w+,", told)
        assert code == 0 or (code == 1 and missing) or (code == 2 and extra), told


@pytest.mark.parametrize("line", [line for d, line in COMMANDS if "experiments.run" in line])
def test_a_flag_that_is_none_is_not_taken(line, nothing_trains, monkeypatch, capsys):
    arguments = [*shlex.split(line)[3:], "--widht=3"]
    assert exit_code("experiments.run", arguments, monkeypatch) == 2
    assert "widht" in capsys.readouterr().err


def test_extras_are_there():
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    for document in DOCUMENTS:
        for extra in re.findall(r'pip install -e "\.\[(\w+)\]"', read(document)):
            assert f'"{extra}": [' in setup


# What is measured

MEASURED = (
    r"\d (?:us|ms|s|min|minutes|h|hours|[KMGk]i?B|[GT]FLOPS?|steps/s|%)(?![\w/])"
    r"|\d times (?:as|the)"
)
# intervals, ratios, and two cells of a table that are a number and nothing else
NUMBERS = (
    r"\d \[[-+]?[\d.,]+, [-+]?[\d.,]+\]|\d x(?!\w)"
    r"|(?:\| *[-+]?\d[\d.,]*(?: %)? *(?=\|)){2}"
)
# percentages that a statistic or a measurement is defined by
RULES = r"(?:95|80|\b5) %|(?:less|more) than \d+ %|at\s+(?:most|least) [\d.]+ %"
SOURCE = (
    r"`(?:time |[\w./]+/)?(?:python|make|plasticity) |^python -m "
    r"|`[\w./]+\.(?:csv|json|parquet|py)`|`test_\w+`|<!-- "
    r"|\(results/\w+\.csv\)|\(\.\./experiments/[\w/]+/README\.md"
)
WRITTEN = r"<!-- .*?-->.*?<!-- end.*?-->"  # between marks, from committed tables


def sections(text):
    return re.split(r"^(?=#{1,4} )", text, flags=re.MULTILINE)


def pieces(text):
    """Paragraphs and items of lists; a table with the paragraph that introduces it."""
    found = []
    for section in sections(re.sub(WRITTEN, "", text, flags=re.DOTALL)):
        before = ""
        for block in re.split(r"\n\s*\n", section):
            items = re.split(r"^(?=- )", block, flags=re.MULTILINE)
            found += [f"{before}\n\n{item}" if item.startswith("|") else item for item in items]
            before = block
    return found


def unsourced(parts, figures=MEASURED):
    """First lines of those parts of a document that have a measured figure without a command, a
    test or a table beside it.
    """
    return [
        part.strip().partition("\n")[0]
        for part in parts
        if re.search(figures, re.sub(RULES, "", part)) and not re.search(SOURCE, part, re.MULTILINE)
    ]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_measured_figures_have_a_source(document):
    """Where they stand; of a paper's account in their section, as its tables and intervals are
    compared with its lanes (`tests/experiments`).
    """
    if document.startswith("experiments/"):
        assert unsourced(sections(read(document))) == []
    else:
        assert unsourced(pieces(read(document)), f"{MEASURED}|{NUMBERS}") == []


@pytest.mark.parametrize("cut", [sections, pieces])
def test_what_is_a_source(cut):
    said = "# A\nA step takes 3 ms{}.\n# B\nIntervals are 95 % intervals.\n"

    def found(text):
        return unsourced(cut(text))

    assert found(said.format("")) == ["# A"]
    assert found(said.format(", by `python -m benchmarks mlp`")) == []
    assert found(said.format(" (measured once, in May 2026)")) == ["# A"]
    assert found(said.replace("95 %", "17 %").format(", see `costs.csv`")) == ["# B"]


def test_every_piece_has_its_own_source():
    figures = f"{MEASURED}|{NUMBERS}"
    table = "Some lines.\n\n| a | b | c |\n|---|---|---|\n| 1 | 2 | 3.5 |\n"
    other = "- It takes 3 s.\n- Here too: 4 s, `make bench`.\n\nAnd 1.2 [1.1, 1.3] x.\n"
    assert unsourced(pieces(table + "\n`make bench`\n"), figures) == ["Some lines."]
    assert unsourced(pieces(table.replace("lines", "lines of `make bench`")), figures) == []
    assert unsourced(pieces(other), figures) == ["- It takes 3 s.", "And 1.2 [1.1, 1.3] x."]
    assert (
        unsourced(pieces(f"<!-- claims: a -->\n\n{other}\n<!-- end of claims -->\n"), figures) == []
    )


# What leads somewhere


def anchors(path):
    """The names that links to a document's headings have."""
    headings = re.findall(
        r"^#+ (.+)$", BLOCK.sub("", path.read_text(encoding="utf-8")), re.MULTILINE
    )
    words = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {text.replace(" ", "-") for text in words}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_to_files_and_headings(document):
    text = BLOCK.sub("", read(document))
    # pages that `make docs` makes, and checks, are not in the repository; only the site's own
    # first page, which no other document leads to, leads to them
    made = ("generated/",) if document == "docs/index.md" else ()
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        assert not target.endswith("docs/index.md"), document
        if target.startswith(("https://", *made)):
            continue
        name, _, heading = target.partition("#")
        path = (ROOT / document).parent / name if name else ROOT / document
        assert path.exists(), target
        if heading:
            assert heading in anchors(path), target


@pytest.mark.parametrize("document", DOCUMENTS)
def test_paths_in_sentences_exist(document):
    """Paths from the root of the repository, of the package, the experiments or the tests."""
    roots = [ROOT, *(ROOT / name for name in ("plasticity_jax", "experiments", "tests"))]
    rooms = {path.name for root in roots for path in root.iterdir() if path.is_dir()}
    for path in re.findall(r"`(\w+/[\w./]*)`", read(document)):
        if path.partition("/")[0] in rooms - {"results", "runs", "checkpoints"}:
            assert any((root / path).exists() for root in roots), path


MODULES = {path.stem for path in (ROOT / "plasticity_jax").rglob("*.py")}


@pytest.mark.parametrize("document", [name for name in DOCUMENTS if "decisions/" in name])
def test_names_in_decisions_exist(document):
    """`module.name` of the package, in whichever room."""
    for module, name in re.findall(r"`(\w+)\.(?!py`)(\w+)(?:\([\w, ]*\))?`", read(document)):
        if module in MODULES:
            found = [path for path in (ROOT / "plasticity_jax").rglob(f"{module}.py")]
            words = "".join(path.read_text(encoding="utf-8") for path in found)
            assert re.search(rf"\b{name}\b", words), f"{module}.{name}"


def test_the_table_of_rooms_has_every_room():
    said = set(
        re.findall(r"`(\w+)(?:/|\.py)`", read("CONTRIBUTING.md").partition("## The rooms")[2])
    )
    there = {
        path.name for path in (ROOT / "plasticity_jax").iterdir() if path.suffix in (".py", "")
    }
    assert {name.removesuffix(".py") for name in there} - {"__init__", "__pycache__"} <= said


PARTS = {
    *datasets.DATASETS,
    *pj.environments.ENVIRONMENTS,
    *TRANSITIONS,
    *pj.models.MODELS,
    *pj.heads.HEADS,
    *OPTIMIZERS,
    *SCHEDULES,
    *pj.methods.METHODS,
    *pj.probes.PROBES,
    *pj.surgery.SURGERIES,
    *pj.agents.AGENTS,
}


@pytest.mark.parametrize("name", sorted(PARTS))
def test_every_part_is_named(name):
    text = read("docs/parts.md")
    split = name.removeprefix("emnist/")
    assert f"`{name}`" in text or (split != name and f"`{split}`" in text)


def test_every_public_name_is_said():
    page = read("docs/python.md")
    assert all(f"`{name}`" in page or f"`pj.{name}`" in page for name in pj.__all__)


@pytest.mark.parametrize("name", ["README.md", "CITATION.cff", "experiments/gradual/README.md"])
@pytest.mark.long
def test_the_version_of_the_paper_that_is_judged_is_named(name):
    """The second differs from the first in what it claims."""
    assert "second version" in (ROOT / name).read_text()
