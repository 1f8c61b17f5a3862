"""How the code is written: counts that may fall and not rise.

Where readers stop: nested comprehensions, many parameters, long lines and long functions. What was
left when this test was written is its limit. `python tests/test_sentences.py [CHECKOUT]` says the
counts.
"""

import ast
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("plasticity_jax", "experiments", "examples")
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
COLUMNS, PARAMETERS, LINES = 100, 6, 60
MOST = {
    "nested comprehensions": 3,
    "lines over 100 columns": 0,
    "functions with more than 6 parameters": 1,
    "functions of more than 60 lines": 3,
}


def files(root: Path) -> list[Path]:
    return sorted(file for folder in FOLDERS for file in (root / folder).rglob("*.py"))


def is_nested(node: ast.AST) -> bool:
    """A comprehension with another one in it, or over several iterables."""
    if not isinstance(node, COMPREHENSIONS):
        return False
    inside = [other for other in ast.walk(node) if isinstance(other, COMPREHENSIONS)]
    return len(inside) > 1 or len(node.generators) > 1


def positional(function: ast.FunctionDef) -> int:
    """Parameters that may be given by their place; the settings of a part are given by name."""
    given = [a.arg for a in (*function.args.posonlyargs, *function.args.args)]
    return len(given) - (given[:1] in (["self"], ["cls"]))


def lines(function: ast.FunctionDef) -> int:
    """Without its docstring."""
    count = (function.end_lineno or 0) - function.lineno + 1
    first = function.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        count -= (first.end_lineno or 0) - first.lineno + 1
    return count


def counts(root: Path) -> Counter[str]:
    found: Counter[str] = Counter(dict.fromkeys(MOST, 0))
    for file in files(root):
        text = file.read_text(encoding="utf-8")
        found["lines over 100 columns"] += sum(len(line) > COLUMNS for line in text.splitlines())
        for node in ast.walk(ast.parse(text)):
            found["nested comprehensions"] += is_nested(node)
            if isinstance(node, ast.FunctionDef):
                many = positional(node) > PARAMETERS
                found["functions with more than 6 parameters"] += many
                found["functions of more than 60 lines"] += lines(node) > LINES
    return found


@pytest.fixture(scope="module")
def now():
    return counts(ROOT)


@pytest.mark.parametrize("what", MOST)
def test_it_does_not_become_worse(now, what):
    assert now[what] <= MOST[what]


def test_what_counts():
    tree = ast.parse("[[a for a in b] for b in c]; [a for b in c for a in b]; [a for a in f(b)]")
    assert sum(map(is_nested, ast.walk(tree))) == 2
    function = ast.parse("def f(self, a, b, *, c, d):\n    '''x\n    y'''\n    return a").body[0]
    assert isinstance(function, ast.FunctionDef)
    assert (positional(function), lines(function)) == (2, 2)


if __name__ == "__main__":
    for name, count in counts(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT).items():
        print(f"{count:5} {name}")
