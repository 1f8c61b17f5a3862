"""Writes the generated parts of documents (see PARTS), or with --check says whether they are as
they should be.

Command: python -m experiments.gradual.claims [--check | --pictures]
--pictures draws every figure and deciding run whose lanes are kept into
experiments/gradual/results, with its curves and final table.
"""

import difflib
import pathlib
import re
import sys
from collections.abc import Sequence

from experiments.gradual.claims import text
from plasticity_jax.storage import writing

FOLDER = pathlib.Path(__file__).parent
ROOT = FOLDER.parents[2]
PARTS = {
    "README.md": ("caption",),
    "docs/choosing.md": ("choosing",),
    "experiments/gradual/README.md": ("account", "figures", "claim_by_claim", "demo"),
}
END = "<!-- end of claims -->"


def mark(part: str) -> str:
    """Returns the line that begins a generated part."""
    return f"<!-- claims: {part}.md, written by `make claims` -->"


def rendered(current: str, part: str) -> str:
    """Returns a document with one generated part replaced by its filled template.

    Raises ValueError if the document has not exactly one such part.
    """
    found = re.findall(f"{re.escape(mark(part))}.*?{re.escape(END)}", current, re.DOTALL)
    if len(found) != 1:
        raise ValueError(
            f"the document has {len(found)} parts between {mark(part)} and {END}: expected one."
        )
    template = (FOLDER / f"{part}.md").read_text(encoding="utf-8")
    return current.replace(found[0], f"{mark(part)}\n\n{text.fill(template).strip()}\n\n{END}")


def main(argv: Sequence[str] | None = None) -> int:
    """Writes or checks from the command line and returns the exit code."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    if arguments not in ([], ["--check"], ["--pictures"]):
        print(__doc__)
        return 2
    if "--pictures" in arguments:
        from experiments.gradual.claims import pictures, redrawn

        print("\n".join(map(str, [*redrawn.draw(), *pictures.draw()])) or "no lanes are kept")
        return 0
    wrong = 0
    for name, parts in PARTS.items():
        path = ROOT / name
        current = wanted = path.read_text(encoding="utf-8")
        for part in parts:
            wanted = rendered(wanted, part)
        if "--check" not in arguments:
            writing.text(path, wanted)
        elif wanted != current:
            wrong = 1
            lines = difflib.unified_diff(
                current.splitlines(), wanted.splitlines(), name, "as generated", lineterm="", n=0
            )
            print("\n".join(lines))
            print(f"{name} differs from what its tables say: `make claims` writes it.")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
