"""The table of a run's end for a document."""

import pandas as pd

from plasticity_jax.reporting import exports

TABLE = pd.DataFrame(
    [
        {"lane": 2 * arm + seed, "task": 0, "seed": seed, "method": method, "finite": True}
        | {"online_accuracy": 0.5 + 0.2 * arm + 0.1 * seed}
        for arm, method in enumerate(("none", "shrink_and_perturb"))
        for seed in range(2)
    ]
)


def test_markdown_by_hand():
    text = exports.markdown(exports.final(TABLE, ["method"]))
    lines = text.splitlines()
    assert lines[0].endswith("differences: paired, same seed and same tasks.")
    assert (
        lines[2] == "| arm | seeds | mean, % | 95 % interval | minus none, points | 95 % interval |"
    )
    assert lines[3] == "|---|---:|---:|---:|---:|---:|"
    assert lines[5].startswith("| Shrink & Perturb | 2 | 75.0 |")
    assert "| +20.0 | +20.0 to +20.0 |" in lines[5]


def test_latex_by_hand():
    text = exports.latex(exports.final(TABLE, ["method"], names=["ours_0", "theirs"]))
    assert r"\begin{tabular}{lrrrrr}" in text
    assert r"arm & seeds & mean, \% & 95 \% interval & minus ours\_0, points &" in text
    assert r"theirs & 2 & 75.0 &" in text
    assert text.count(r"\\") == 3
    assert text.endswith("\\end{tabular}\n")


def test_a_cell_cannot_end_its_table():
    shown = exports.Final(["head"], [["arm"], ["a|b & c"]])
    assert r"| a\|b & c |" in exports.markdown(shown)
    assert r"a|b \& c \\" in exports.latex(shown)
    powers = exports.Final(["head"], [["arm"], [r"10^3 ~ \x"]])
    said = r"10\textasciicircum{}3 \textasciitilde{} \textbackslash{}x \\"
    assert said in exports.latex(powers)
