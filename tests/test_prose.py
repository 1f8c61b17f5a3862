"""How docstrings are laid out, so that what a module prints with --help can be read and copied; and
one spelling, the American one, as that of the field's terms (regularization, initialization).
"""

import ast
import re
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
    assert stray("one goes\n  on here\nand here") == ["  on here"]
