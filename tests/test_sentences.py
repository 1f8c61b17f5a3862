"""How the code is written: counts that may fall and not rise.

Where readers stop: nested comprehensions, many parameters, long lines and long functions, names
that mean several things, code that nothing is said of. What was left when this test was written is
its limit. `python tests/test_sentences.py [CHECKOUT]` says the counts.
"""

import ast
import sys
import tokenize
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("plasticity_jax", "experiments", "examples")
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
COLUMNS, PARAMETERS, LINES = 100, 6, 60
MOST = {
    "nested comprehensions": 2,
    "lines over 100 columns": 0,
    "functions with more than 6 parameters": 1,
    "functions of more than 60 lines": 3,
}
MOST_REPEATED, LEAST_COMMENTED = 0.091, 0.0165  # shares, as a larger package has more of both


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


def commented(files: list[Path]) -> tuple[int, int]:
    """Lines that have a comment, and all lines."""
    comments = total = 0
    for file in files:
        with file.open("rb") as opened:
            kinds = [token.type for token in tokenize.tokenize(opened.readline)]
        comments += kinds.count(tokenize.COMMENT)
        total += len(file.read_text(encoding="utf-8").splitlines())
    return comments, total


def repeated(files: list[Path]) -> tuple[int, int]:
    """Public functions and classes whose name stands in several modules, and all by name."""
    modules: Counter[str] = Counter()
    for file in files:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        defined = (ast.FunctionDef, ast.ClassDef)
        modules.update({node.name for node in tree.body if isinstance(node, defined)})
    public = {name: count for name, count in modules.items() if not name.startswith("_")}
    return sum(count > 1 for count in public.values()), len(public)


def package(root: Path) -> list[Path]:
    return sorted((root / "plasticity_jax").rglob("*.py"))


@pytest.fixture(scope="module")
def now():
    return counts(ROOT)


@pytest.mark.parametrize("what", MOST)
def test_it_does_not_become_worse(now, what):
    assert now[what] <= MOST[what]


def test_names_do_not_come_to_mean_more_things():
    found, total = repeated(package(ROOT))
    assert found <= MOST_REPEATED * total


def test_comments_do_not_become_fewer():
    found, total = commented(files(ROOT))
    assert found >= LEAST_COMMENTED * total


def test_what_is_repeated_and_commented(tmp_path):
    one, other = tmp_path / "one.py", tmp_path / "other.py"
    one.write_text("# why\ndef f(): ...\ndef _g(): ...\n\nclass C:\n    def h(self): ...\n")
    other.write_text("def f(): ...  # why\ndef _g(): ...\ndef h(): '# not one'\n")
    assert repeated([one, other]) == (1, 3)
    assert commented([one, other]) == (2, 9)


def test_what_counts():
    tree = ast.parse("[[a for a in b] for b in c]; [a for b in c for a in b]; [a for a in f(b)]")
    assert sum(map(is_nested, ast.walk(tree))) == 2
    function = ast.parse("def f(self, a, b, *, c, d):\n    '''x\n    y'''\n    return a").body[0]
    assert isinstance(function, ast.FunctionDef)
    assert (positional(function), lines(function)) == (2, 2)


if __name__ == "__main__":
    checkout = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT
    for name, count in counts(checkout).items():
        print(f"{count:5} {name}")
    for name, (found, total) in (
        ("lines with a comment", commented(files(checkout))),
        ("public names of the package that stand in several modules", repeated(package(checkout))),
    ):
        print(f"{found:5} of {total:,} ({found / total:.1%}) {name}")
    print(f"{len(files(checkout)):5} files")
