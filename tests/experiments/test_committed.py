"""What is committed of all papers: no table has a column in which nothing stands, and the code that
made lanes is in this history.
"""

import csv
import json
import shutil
import subprocess
from pathlib import Path

import pytest

import experiments

ROOT = Path(experiments.__file__).parent
PAPERS = sorted(folder.parent for folder in ROOT.glob("*/results"))
NOTHING = ("", "nan")


@pytest.mark.parametrize("paper", PAPERS, ids=lambda folder: folder.name)
def test_no_column_of_a_table_is_empty(paper):
    empty = {}
    for path in paper.glob("results/**/*.csv"):
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.reader(file)
            head = next(rows)
            left = set(range(len(head)))
            for row in rows:
                left -= {place for place in left if row[place] not in NOTHING}
                if not left:
                    break
        if left:
            empty[path.name] = [head[place] for place in sorted(left)]
    assert empty == {}


@pytest.fixture(scope="module")
def history() -> list[str]:
    """The names of all commits behind this one."""
    if shutil.which("git") is None or not (ROOT.parent / ".git").exists():
        pytest.skip("there is no history of git here.")

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=ROOT, check=True, capture_output=True, text=True
        ).stdout

    if git("rev-parse", "--is-shallow-repository").strip() == "true":
        pytest.skip("the history is cut short.")
    return git("rev-list", "HEAD").split()


@pytest.mark.parametrize("paper", PAPERS, ids=lambda folder: folder.name)
def test_the_code_that_made_lanes_is_in_the_history_or_told(paper, history):
    account = (paper / "README.md").read_text(encoding="utf-8")
    paths = sorted(paper.glob("results/lanes/*.json"))
    records = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in paths}
    assert records
    unknown = {
        name: version
        for name, made in records.items()
        for version in (record["code_version"] for record in made)
        if version not in account
        if not any(commit.startswith(version) for commit in history)
    }
    assert unknown == {}
