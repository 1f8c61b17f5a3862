"""The documents that a reader is sent to, and the commands and code in them."""

import pathlib
import re

ROOT = pathlib.Path(__file__).parents[2]
DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "BUILD_NOTES.md",
    "CHANGELOG.md",
    "docs/benchmarks.md",
    "docs/adding.md",
    "docs/choosing.md",
    "docs/command_line.md",
    "docs/concepts.md",
    "docs/decisions/folders.md",
    "docs/decisions/methods.md",
    "docs/decisions/programs.md",
    "docs/decisions/project.md",
    "docs/decisions/reporting.md",
    "docs/decisions/speed.md",
    "docs/decisions/streams.md",
    "docs/engines.md",
    "docs/first_run.md",
    "docs/index.md",
    "docs/install.md",
    "docs/literature.md",
    "docs/parts.md",
    "docs/python.md",
    "docs/pytorch.md",
    "docs/results/barriers.md",
    "docs/results/disentangling.md",
    "docs/results/gradual.md",
    "docs/results/index.md",
    "docs/results/rules.md",
    "docs/slices.md",
    "docs/statistics.md",
    "experiments/barriers/README.md",
    "experiments/disentangling/README.md",
    "experiments/gradual/README.md",
    "experiments/gradual/rules.md",
)
BLOCK = re.compile(r"^```([\w{}]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def read(document):
    return (ROOT / document).read_text(encoding="utf-8")


def blocks(document, language):
    return [text for name, text in BLOCK.findall(read(document)) if name == language]


def commands(document):
    """The command lines of a document, from blocks and from the middle of sentences."""
    found = []
    for block in blocks(document, ""):
        found += block.replace("\\\n", " ").splitlines()
    prose = BLOCK.sub("", read(document))
    quoted = [" ".join(text.split()) for text in re.findall(r"`([^`]+)`", prose)]
    found += [text for text in quoted if re.match("(python|make|plasticity) ", text)]
    lines = [" ".join(line.partition("   #")[0].split()) for line in found if line.strip()]
    return [re.sub("^plasticity ", "python -m plasticity_jax ", line) for line in lines]
