"""The rooms of the package: each imports from rooms below it only, so that there is no circle
between them.
"""

import ast
import pathlib
import re

import pytest

import plasticity_jax

ROOT = pathlib.Path(plasticity_jax.__file__).parent
TESTS = pathlib.Path(__file__).parent

# from the ground up; rooms of one line may not know of each other
ROOMS = (
    ("types",),
    ("registry", "precision", "trees"),
    ("storage",),
    ("datasets",),
    ("optimizers", "stream"),
    ("text", "probes", "methods", "heads", "surgery", "agents"),
    ("manifolds",),
    ("environments", "models"),
    ("spec", "own_parts"),
    ("lanes",),
    ("arms",),
    ("training",),
    ("reporting",),
    ("execution",),
    ("theory", "estimates"),
    ("cli",),
    ("__main__",),
)
LEVEL = {room: level for level, rooms in enumerate(ROOMS) for room in rooms}


def room_of(path: pathlib.Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path: pathlib.Path) -> set[str]:
    """The rooms that a file imports from, wherever in the file it does."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    ours = [name.split(".") for name in names if name.split(".")[0] == "plasticity_jax"]
    return {parts[1] for parts in ours if len(parts) > 1 and parts[1] in LEVEL}


FILES = [path for path in sorted(ROOT.rglob("*.py")) if path != ROOT / "__init__.py"]


def test_every_file_is_in_a_known_room():
    assert {room_of(path) for path in FILES} == set(LEVEL)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_come_from_below(path):
    own = room_of(path)
    above = {room for room in imported(path) if room != own and LEVEL[room] >= LEVEL[own]}
    assert not above, (
        f"{own} is not above {', '.join(sorted(above))}: move what it needs to a room below."
    )


@pytest.mark.parametrize("folder", ["plasticity_jax", "benchmarks"])
def test_no_package_knows_the_experiments(folder):
    for path in (ROOT.parent / folder).rglob("*.py"):
        assert "import experiments" not in path.read_text(encoding="utf-8")
        assert "from experiments" not in path.read_text(encoding="utf-8")


# which benchmarks there are; a small run of the first paper; the sentences of docs/choosing.md
OF_PAPERS = {"select.py", "demo.py", "choosing.py"}


PAPERS = ("gradual", "barriers", "disentangling")
# asks of a run of the first paper whether what it measures foretells the fall
ASKS_ANOTHER = {("barriers", "foretelling.py", "gradual")}


@pytest.mark.parametrize("paper", PAPERS)
def test_a_paper_is_removed_as_one(paper):
    """No file of another paper imports it."""
    found = {
        (other, path.name, paper)
        for other in PAPERS
        for path in (ROOT.parent / "experiments" / other).rglob("*.py")
        if other != paper
        and re.search(rf"(from|import) experiments\.{paper}\b", path.read_text(encoding="utf-8"))
    }
    assert found == {one for one in ASKS_ANOTHER if one[2] == paper}


def test_what_the_papers_share_knows_none_of_them():
    shared = list((ROOT.parent / "experiments").glob("*.py"))
    assert {path.name for path in shared} > OF_PAPERS
    for path in shared:
        if path.name not in OF_PAPERS:
            text = path.read_text(encoding="utf-8")
            for paper in PAPERS:
                assert not re.search(rf"(from|import) experiments\.{paper}\b", text), path.name


# folders of tests that are of no room: what tests share, and tests of what lies beside the package
BESIDE = {"helpers", "docs", "benchmarks", "experiments", "faults"}


def test_tests_lie_in_folders_of_the_rooms():
    folders = {path.parent.relative_to(TESTS) for path in TESTS.rglob("test_*.py")}
    rooms = {folder for folder in folders if folder.parts and folder.parts[0] not in BESIDE}
    assert {folder for folder in rooms if not (ROOT / folder).is_dir()} == set()


@pytest.mark.parametrize("path", sorted(TESTS.rglob("test_oracle_*.py")), ids=lambda p: p.stem)
def test_files_that_are_called_oracles_have_nothing_else(path):
    """Else `conftest.pytest_ignore_collect` would leave out a test that was asked for."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    whole = [ast.unparse(one) for one in tree.body if isinstance(one, ast.Assign)]
    if "pytestmark = pytest.mark.oracle" not in whole:
        tests = [one for one in tree.body if isinstance(one, ast.FunctionDef)]
        for one in (one for one in tests if one.name.startswith("test_")):
            assert "pytest.mark.oracle" in map(ast.unparse, one.decorator_list), one.name
