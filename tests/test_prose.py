"""How docstrings are laid out, so that what a module prints with --help can be read and copied; and
one spelling, the American one, as that of the field's terms (regularization, initialization).
"""

import ast
import functools
import itertools
import re
import symtable
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("plasticity_jax", "experiments", "examples")
FILES = sorted(file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py"))
ITEMS = r"(?:Source|Command|Cost|Paper)\b[^:.\n]{0,20}:"
COMMAND = r"Command: (?:[A-Z_]+=\S+ )*python -m \S+(?: \[?-\S+| \|)*"
HANGS = r"\s*(?:[\w*`, ]+: |- |Writes ).*|.*:"  # its following lines may be indented
BRITISH = (
    r"(?<![\w`])(?:un|re)?(?:(?:normal|optim|regular|initial|general|standard|token|quant)is"
    r"(?:e[ds]?|ing|ations?)|colour\w*|neighbour\w*|favour\w*|grey|centred|labell(?:ed|ing)"
    r"|modell(?:ed|ing)|analysed)(?![\w`])"
)
REFERENCE = r"`([a-z_]\w*(?:\.\w+)+)[`(]"
# what is no module there, but a variable or a file
LOCAL = {"run.init", "run.run_task", "spec.epochs", "online.loss"}
LOCAL |= {"results.parquet", "metrics.jsonl"}
MODULES: dict[str, list[Path]] = {}
for _file in FILES:
    _name = _file.parent.name if _file.name == "__init__.py" else _file.stem
    MODULES.setdefault(_name, []).append(_file)
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef)


def run_together(text: str) -> list[str]:
    """Items in the middle of a line, and commands that something else stands behind."""
    inside = [line for line in text.splitlines() if re.search(r"\S.*\b" + ITEMS, line)]
    items = re.findall(r"^Command:.*(?:\n +\S.*)*", text, re.MULTILINE)
    commands = [" ".join(item.split()) for item in items]
    return inside + [item for item in commands if not re.fullmatch(COMMAND, item)]


def stray(text: str) -> list[str]:
    """Lines that are indented deeper than the line of the same paragraph that they go on with."""
    pairs = zip(text.splitlines(), text.splitlines()[1:], strict=False)
    found = [(a, b) for a, b in pairs if a.strip() and depth(b) > depth(a)]
    return [b for a, b in found if not re.fullmatch(HANGS, a)]


def british(file: Path) -> list[str]:
    """Words of comments, docstrings and sentences; names in code and in backticks stay theirs."""
    with file.open("rb") as opened:
        tokens = list(tokenize.tokenize(opened.readline))
    texts = [token.string for token in tokens if token.type in (tokenize.STRING, tokenize.COMMENT)]
    sentences = [text for text in texts if re.search(r"\s", text)]
    return re.findall(BRITISH, " ".join(sentences), re.IGNORECASE)


def strings_below_fields(file: Path) -> list[str]:
    """Records that tell a field in a string of its own, where others have `Attributes:`."""
    trees = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    records = [node for node in trees if isinstance(node, ast.ClassDef)]
    return [
        record.name
        for record in records
        for field, below in itertools.pairwise(record.body)
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr)
    ]


def unknown(text: str) -> list[str]:
    """References such as `module.name` to what no module of that name has, and no package."""
    found = []
    for reference in re.findall(REFERENCE, text):
        for module, name in itertools.pairwise(reference.split(".")):
            files = MODULES.get(module, [])
            if files and not any(name in defined(file) for file in files):
                found.append(reference)
    return sorted({*found} - LOCAL)


@functools.cache
def defined(file: Path) -> set[str]:
    """The names of a module, and the modules of a package."""
    names = symtable.symtable(file.read_text(encoding="utf-8"), file.name, "exec").get_identifiers()
    beside = file.parent.iterdir() if file.name == "__init__.py" else ()
    return {*names, *(other.stem for other in beside)}


def depth(line: str) -> int:
    return len(line) - len(line.lstrip())


@pytest.fixture(scope="module")
def docstrings() -> list[tuple[Path, ast.AST, str]]:
    return [
        (file, node, ast.get_docstring(node) or "")
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, DOCUMENTED)
    ]


def test_items_and_commands_have_lines_of_their_own(docstrings):
    modules = [(f, text) for f, node, text in docstrings if isinstance(node, ast.Module)]
    shown = [(f, text) for f, text in modules if "plasticity_jax" not in f.relative_to(ROOT).parts]
    assert [(f.name, run_together(text)) for f, text in shown if run_together(text)] == []


def test_no_line_is_indented_in_the_middle_of_a_paragraph(docstrings):
    assert [(f.name, stray(text)) for f, _, text in docstrings if stray(text)] == []


def test_errors_are_told_in_sentences(docstrings):
    """One dialect: "Raises ValueError for ...", nowhere a block of them."""
    assert [f.name for f, _, text in docstrings if re.search(r"^ *Raises:", text, re.M)] == []


def test_fields_are_told_in_the_docstring_of_their_class():
    assert [(file.name, name) for file in FILES if (name := strings_below_fields(file))] == []


def test_what_docstrings_refer_to_exists(docstrings):
    assert [(f.name, names) for f, _, text in docstrings if (names := unknown(text))] == []


def test_there_is_one_spelling():
    assert [(file.name, words) for file in FILES if (words := british(file))] == []


def test_what_is_another_spelling(tmp_path):
    file = tmp_path / "part.py"
    file.write_text("colour = 'normalised'  # a Colour\n'`grey` or un' 'of normalised ones'\n")
    assert british(file) == ["Colour", "normalised"]
    file.write_text("normalised_rank = f'{colour} of normalized neighbors'\n")
    assert british(file) == ["colour"]  # a name in a sentence is read, too


def test_what_counts():
    good = "What.\n\nSource: a, b.\nCommand: python -m c --d\n    --e=[f] [--g]\nCost: h.\n"
    assert run_together(good) == stray(good) == []
    assert run_together("Command: python -m c\n    --d Cost: h.") == [
        "    --d Cost: h.",
        "Command: python -m c --d Cost: h.",
    ]
    assert run_together("It is so. Paper: a.") == ["It is so. Paper: a."]
    assert run_together("Command: python -m c and more") == ["Command: python -m c and more"]
    assert unknown("`lanes.grid`, `stream.order.epoch(key)`, `grid.lanes` and lanes.none") == []
    assert unknown("`stream.epoch` and `placement.execute(`, `stream.order.epochs`") == [
        "placement.execute",
        "stream.epoch",
        "stream.order.epochs",
    ]
    assert stray("one goes\n  on here\nand here") == ["  on here"]
