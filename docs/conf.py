"""How the documentation is built: `make docs`, or `python -m sphinx -W docs docs/_build`."""

import pathlib
import re
import sys

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE), str(ROOT)]

import pages  # noqa: E402  (it lies beside this file)

import plasticity_jax  # noqa: E402

project = "plasticity_jax"
author = "The plasticity_jax authors"
project_copyright = f"2026, {author}"
version = release = plasticity_jax.__version__
extensions = ["myst_parser", "sphinxcontrib.bibtex"]
bibtex_bibfiles = ["../plasticity_jax/reporting/references.bib"]
bibtex_default_style = "plain"
exclude_patterns = ["_build"]
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence", "deflist"]
html_theme = "furo"
html_title = f"plasticity_jax {version}"
html_show_sourcelink = False
html_copy_source = False

pages.write(HERE / "generated")

LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]*)(#[^)\s]*)?\)")
SHOWN = {  # what lies outside of this folder and has a page in it
    "README.md": "index.md",
    "CONTRIBUTING.md": "generated/contributing.md",
    "BUILD_NOTES.md": "generated/decisions.md",
    "CHANGELOG.md": "generated/changelog.md",
    "experiments/disentangling/README.md": "results/disentangling.md",
    "experiments/gradual/README.md": "results/gradual.md",
    "experiments/barriers/README.md": "results/barriers.md",
    "experiments/gradual/rules.md": "results/rules.md",
}


# a document of the repository, without its first line, in a page of this site
SHOWING = re.compile(r"^:::\{include\} (\S+)\n:start-line: 1\n:::$", re.MULTILINE)


def _read(app, name: str, text: list[str]) -> None:
    """Puts documents of the repository into their pages, with links as these need them."""
    page = HERE / f"{name}.md"
    place = pages.SOURCES.get(name, page.relative_to(ROOT)).parent

    def one(match: re.Match) -> str:
        path = (ROOT / place / match[1]).resolve().relative_to(ROOT)
        app.env.note_dependency(str(ROOT / path))
        return _links(pages.text(path).partition("\n")[2], path.parent, page)

    text[0] = SHOWING.sub(one, _links(text[0], place, page))


def _links(text: str, place: pathlib.Path, page: pathlib.Path) -> str:
    """Makes links that a document in the folder `place` has lead from `page` to pages of this site,
    or say a path.
    """

    def one(match: re.Match) -> str:
        mark, words, target, heading = match.groups()
        if not target or re.match(r"\w+:", target):
            return match.group()
        path = (ROOT / place / target).resolve()
        inside = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else ""
        if mark or path.is_relative_to(HERE) or inside in SHOWN:
            path = HERE / SHOWN.get(inside, path)
            return f"{mark}[{words}]({pages.relative(path, page.parent)}{heading or ''})"
        return f"{words} (`{inside}`)"

    return LINK.sub(one, text)


def setup(app) -> None:
    """Called by Sphinx when it begins."""
    app.connect("source-read", _read)
