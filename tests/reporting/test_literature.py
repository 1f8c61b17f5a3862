"""What to cite: every paper that a docstring names has an entry, and a run says which it used."""

import ast
import pathlib
import re

import pytest

import plasticity_jax
from plasticity_jax import agents, datasets, heads, methods, models, optimizers, probes, surgery
from plasticity_jax.environments import ENVIRONMENTS
from plasticity_jax.reporting import literature
from plasticity_jax.spec import Spec
from plasticity_jax.stream import transitions

ROOT = pathlib.Path(plasticity_jax.__file__).parent
PARTS = {
    **ENVIRONMENTS,
    **{name: one.mix for name, one in transitions.TRANSITIONS.items()},
    **models.MODELS,
    **heads.HEADS,
    **agents.AGENTS,
    **surgery.SURGERIES,
    **methods.METHODS,
    **probes.PROBES,
    **optimizers.OPTIMIZERS,
    **optimizers.SCHEDULES,
    **datasets.DATASETS,
}
# what is usual, or made here
NOBODYS = {"none", "abrupt", "linear", "constant", "sgd", "generated", "arrays:PATH"}


def docstrings():
    kinds = (ast.Module, ast.FunctionDef, ast.ClassDef)
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, kinds) and (words := ast.get_docstring(node)):
                yield path.name, words


def test_every_paper_that_a_docstring_names_has_an_entry():
    lacking = set()
    for file, words in docstrings():
        for author, year in literature.named(words):
            if literature.key(author, year) is None:
                lacking.add((file, author, year))
    assert not lacking


@pytest.mark.parametrize("name", sorted(PARTS))
def test_every_part_names_a_paper_or_is_nobodys(name):
    assert bool(literature.of_part(name, PARTS[name])) != (name in NOBODYS)


def test_entries_are_whole_and_named_by_author_and_year():
    text = literature.FILE.read_text(encoding="utf-8")
    assert len(literature.entries()) == len(re.findall("^@", text, re.MULTILINE))
    for key, entry in literature.entries().items():
        assert entry.count("{") == entry.count("}"), key
        author = re.search(r"author = \{(.*?),", entry)
        year = re.search(r"year = \{(\d{4})\}", entry)
        assert author, key
        assert year, key
        assert "title = {" in entry, key
        assert key.startswith(re.sub(r"\W", "", author[1]).lower() + year[1]), key


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("Source: Sokar et al. 2023.", [("Sokar", "2023")]),
        (
            "Krogh & Hertz 1991; van Hasselt et al. (2016)",
            [("Krogh", "1991"), ("van Hasselt", "2016")],
        ),
        (
            "Lyle, Rowland & Dabney 2022 and Student's (1908)",
            [("Lyle", "2022"), ("Student", "1908")],
        ),
        ("Papers of 2023, and In 2024", [("In", "2024")]),
        ("no paper", []),
    ],
)
def test_papers_are_found_by_author_and_year(words, found):
    assert literature.named(words) == found


def test_a_run_cites_what_it_used_and_nothing_else():
    spec = Spec(method="redo+l2", probes=("hessian_top",), transition="sampling", dataset="mnist")
    found = literature.of_specs([spec, Spec(optimizer="sgd", probes=(), model="resnet18")])
    assert found["sokar2023dormant"] == ["redo"]
    assert found["krogh1991simple"] == ["l2"]
    assert found["lecun1998gradient"] == ["mnist"]
    assert found["alpaydin1998optical"] == ["digits"]
    assert found["he2016deep"] == ["resnet18"]
    assert {"sampling", "random_labels", "hessian_top"} <= {*found["liu2026gradually"]}
    assert "dohare2024loss" not in found
    text = literature.bibtex(found)
    assert text.startswith("% the framework\n@software{plasticity_jax,")
    assert f"version = {{{plasticity_jax.__version__}}}" in text
    assert "% redo\n@inproceedings{sokar2023dormant,\n" in text
    assert text.count("\n@") == 1 + len(found)


@pytest.mark.parametrize("file", ["README.md", "CITATION.cff"])
def test_the_version_that_is_cited_is_this_one(file):
    text = (ROOT.parent / file).read_text(encoding="utf-8")
    found = re.findall(r"^ *version *[:=] *\{?([\d.]+)", text, re.MULTILINE)
    assert found == [plasticity_jax.__version__]
