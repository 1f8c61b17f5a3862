"""The pages that documentation makes from the code; `make docs` builds the site and checks its
links.
"""

import importlib.util
import pathlib
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.loops import STRUCTURE, context

from plasticity_jax import methods, registry
from plasticity_jax.types import Start

ROOT = pathlib.Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location("pages", ROOT / "docs" / "pages.py")
assert _spec
assert _spec.loader
pages = importlib.util.module_from_spec(_spec)
sys.modules["pages"] = pages
_spec.loader.exec_module(pages)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs") / "generated"
    folder.mkdir()
    (folder / "of_a_part_that_went.md").write_text("old")
    pages.write(folder)
    return {path.stem: path.read_text(encoding="utf-8") for path in folder.glob("*.md")}


def test_every_part_has_a_page_with_its_settings_and_its_tests(written):
    assert "of_a_part_that_went" not in written
    for kind, known in pages.KINDS.items():
        for name in known.parts:
            page = written[f"{kind}_{pages.file_name(name)}"]
            assert page.startswith(f"# `{name}`\n")
            assert f"({kind}_{pages.file_name(name)}.md)" in written[kind]
    spectral = written["methods_spectral"]
    assert "| `--spectral.strength` | `0.01` | number, from 0 |" in spectral
    assert "| `--spectral.bias_power` | `2` | option |" in spectral
    assert "`plasticity_jax.methods.penalties.spectral`" in spectral
    assert "`test_spectral_against_svd`" in spectral


@pytest.mark.parametrize("kind", ["methods", "probes"])
def test_every_method_and_probe_says_what_checks_it(kind, written):
    known = pages.KINDS[kind]
    for name in known.parts:
        if name != "none":
            assert "## What checks it" in written[f"{kind}_{pages.file_name(name)}"], name


@pytest.mark.parametrize(
    ("method", "when", "remembered"),
    [
        ("l2_init", "At every step: the term's gradient is added ahead of the optimizer", "1"),
        ("infer", "the term is part of the loss", "0"),
        ("head_reset", "Before the first step of a new task", "0"),
        ("shrink_and_perturb", "the optimizer's step, at the first step of a new task", "0"),
        ("weight_norm_constraint", "Right after the optimizer's step, at every step", "0.001"),
        ("optimizer_reset", "Ahead of the optimizer's step, at the first step of a new task", "0"),
        ("clip", "Ahead of the optimizer's step, at every step: it changes the gradient", "0"),
    ],
)
def test_a_method_says_when_it_acts_and_what_it_costs(method, when, remembered, written):
    page = written[f"methods_{method}"]
    assert when in page
    assert f"4 x 64 units): {remembered}.\n\nProcessor time of a training step" in page


PERIOD = 4
SETTINGS = {  # with which each acts, on a network of one batch and four units a layer
    "redo.period": PERIOD,
    "continual_backprop.replacement_rate": 1.0,
    "continual_backprop.maturity": 0.0,
    "clip.norm": 1e-3,
}


def acted(method, settings):
    """When a method acts ({"every"}, {"period"}, {"boundary"}) and what it does to moments, by what
    becomes of parameters and of Adam's moments, which are 1 before.
    """
    (one,) = methods.parts(method, STRUCTURE, SETTINGS | settings)
    bare, optimizer = methods.none()(optax.adam(0.1)), methods.compose(one)(optax.adam(0.1))
    params = STRUCTURE.init(jax.random.key(1))
    ones = jax.tree.map(jnp.ones_like, params)

    def after(tx, step, boundary):
        state = optax.tree.set(tx.init(params), mu=ones, nu=ones, count=jnp.int32(5))
        now = params
        if isinstance(one, methods.Boundary) and boundary and tx is optimizer:
            start = Start(jax.random.key(5), jnp.int32(1), params, lambda p: p, STRUCTURE)
            now, state = methods.begin([one], tx, params, state, start)
        elif not isinstance(one, methods.Boundary):
            updates, state = tx.update(ones, state, params, ctx=context(step, boundary))
            now = optax.apply_updates(params, updates)
        flat = (
            np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
            for tree in (now, optax.tree.get(state, "mu"))
        )
        return *flat, int(optax.tree.get(state, "count"))

    seen = {}
    with jax.disable_jit():
        for at, case in {"every": (1, 0), "period": (PERIOD - 1, 0), "boundary": (1, 1)}.items():
            (p, mu, count), (p0, mu0, count0) = after(optimizer, *case), after(bare, *case)
            if np.any(p != p0) or np.any(mu != mu0):
                changed = mu[mu != mu0]
                fate = "kept" if not changed.size else "fed" if np.any(changed) else "forgotten"
                seen[at] = "afresh" if count != count0 else fate
    assert len(set(seen.values())) == 1, seen
    return set(seen), set(seen.values()).pop()


SLOW = {"continual_backprop", "gradient_noise"}  # (a loop, and draws, op by op)


@pytest.mark.parametrize(
    "method",
    [pytest.param(name, marks=[pytest.mark.long] * (name in SLOW)) for name in pages.ACTS],
)
def test_what_a_page_says_of_a_method_is_what_it_does(method):
    when, moments = acted(method, {})
    assert pages.ACTS[method].moments == moments
    always = {"every", "period", "boundary"}
    assert when == {"every": always, "due": always}.get(
        pages.ACTS[method].when, {pages.ACTS[method].when}
    )


@pytest.mark.parametrize(
    ("setting", "value", "found"),
    [
        ("shrink_and_perturb.moment", "before", ({"boundary"}, "kept")),
        ("shrink_and_perturb.period", PERIOD, ({"period"}, "kept")),
        ("head_reset.to", "zero", ({"boundary"}, "kept")),
    ],
)
def test_what_its_settings_change_of_that(setting, value, found, written):
    method, _, name = setting.partition(".")
    assert f"`{name}`" in pages.ACTS[method].but
    assert acted(method, {setting: value}) == found


def test_every_method_says_when_it_acts_and_what_becomes_of_moments(written):
    terms = {name for name, one in methods.METHODS.items() if registry.returned(one) in pages.TERMS}
    assert set(methods.METHODS) == {"none"} | terms | set(pages.ACTS)
    for name in terms | set(pages.ACTS):
        page = written[f"methods_{name}"]
        said = page.partition("## When it acts\n\n")[2].partition("\n\n## ")[0]
        assert "  " not in said
        if name in terms:
            assert said.startswith("At every step: the term")
            continue
        one = pages.ACTS[name]
        assert f"{pages.MOMENTS[one.moments]}.{one.but}" in said
        assert sum(words in said for words in pages.MOMENTS.values()) == 1
        assert (one.when == "boundary") is not ("Where a task begins plays no part." in said)
        assert ("moments are kept" in page.partition("## ")[0]) <= (one.moments == "kept")


@pytest.mark.parametrize(
    ("method", "looks"),
    [("redo", False), ("shrink_and_perturb", True), ("optimizer_reset", True), ("clip", False)],
)
def test_a_method_says_whether_it_looks_at_where_a_task_begins(method, looks, written):
    page = written[f"methods_{method}"]
    assert ("It looks at where a task begins" in page) is looks
    assert ("Where a task begins plays no part." in page) is not looks


def test_every_probe_says_when_it_measures_on_what_and_its_limits(written):
    for name in pages.KINDS["probes"].parts:
        page = written[f"probes_{name}"]
        when = page.partition("## When it measures\n")[2].partition("\n## ")[0]
        assert f"`--probes={name}:start`" in when
        assert "`--probe_every=n`" in when
        assert re.search(r"It reads:\n\n(- .+\n)+", when), name
        assert "Not a number where" in page.partition("## Limits\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize(
    ("probe", "said", "unsaid"),
    [
        ("distance_from_init", ["the initial parameters", "at parameters alone"], ["batch: with"]),
        ("representation_change", ["at the end of the task before", "In the first task"], []),
        ("ntk", ["refused where examples are texts"], ["must have `view` and"]),
        ("trap", ["must have `view` and `activation` and `units`", "differentiates"], ["A share"]),
        ("feature_spectrum", ["details that need `view` are left out"], ["Snapshot must have"]),
        ("dead_fraction", ["A share, from 0 to 1", "which layers no activation"], ["In the first"]),
    ],
)
def test_what_a_probe_reads_is_found_in_its_code(probe, said, unsaid, written):
    page = written[f"probes_{probe}"]
    sections = page[page.index("## When it measures") : page.index("## What it costs")]
    assert all(words in sections for words in said)
    assert not any(words in sections for words in unsaid)


def test_every_method_and_probe_has_a_cost_and_its_page_shows_it(written):
    parts = {(kind, name) for kind in ("methods", "probes") for name in pages.KINDS[kind].parts}
    assert set(pages.costs()) == parts - {("methods", "none")}
    for (kind, name), row in pages.costs().items():
        ratio, low, high = (float(row[column]) for column in ("ratio", "low", "high"))
        assert 0 < low <= ratio <= high, name
        words = written[f"{kind}_{pages.file_name(name)}"].partition("## What it costs\n")[2]
        shown = f"{row['ratio']} [{row['low']}, {row['high']}]"
        assert shown in words, name
        assert "`python -m benchmarks costs`" in words, name
    assert pages.cost("methods", "of nobody") == []


def test_a_probe_says_its_formula_and_its_literature(written):
    page = written["probes_hessian_top"]
    assert "`plasticity_jax.probes.hessian_top(loss, params, key, iterations, tolerance)`" in page
    assert "\n- key: for the start vector.\n" in page
    assert "\n\nNaN where the loss or a parameter is not finite." in page
    assert "- {cite:t}`liu2026gradually`" in page
    assert "- {cite:t}`sokar2023dormant`" in written["methods_redo"]
    assert "## `ResNet18` by itself" in written["models_resnet18"]
    assert not any("## `_" in page for page in written.values())


def words_of(page: str) -> str:
    """What a page says of a part in prose: without code, examples and what is refused."""
    first, *sections = re.split(r"^## ", page, flags=re.MULTILINE)
    kept = [first, *(one for one in sections if " by itself\n" in one)]
    prose = re.sub(r"^```.*?^```|`[^`]*`", "", "\n".join(kept), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"Raises\b.*?\.(?=\s|$)", "", prose).replace("\\", "")


FORMULA = r"[\w)\]|>] (?:<-|[<>]=?|=|/|\+|\*) [\w(\[|#]"


@pytest.mark.parametrize("kind", ["methods", "probes"])
def test_every_method_and_probe_has_a_formula_and_a_source(kind, written):
    for name in pages.KINDS[kind].parts:
        if name == "none":
            continue
        page = written[f"{kind}_{pages.file_name(name)}"]
        assert re.search(FORMULA, words_of(page)), f"{name} has no formula"
        source = re.search(r"\bSource: (ours\b)?", words_of(page))
        assert source, f"{name} has no source"
        assert source[1] or "{cite:t}" in page, f"{name} names no paper"


def test_what_is_a_formula():
    said = "# `a`\n\nMean of *x* = 3.\n\n## Settings\n\nb = 2\n\n## `a` by itself\n\n{}\n"
    for none in (
        "# `a`\n\nIt is `a = b`. Raises ValueError for a < 1.\n",
        "# `a`\n\n```pycon\n>>> a = b\n```\n\n## Settings\n\nb = 2\n",
    ):
        assert not re.search(FORMULA, words_of(none))
    assert re.search(FORMULA, words_of(said.format("p <- shrink \\* p")))
    assert "Settings" not in words_of(said.format(""))


def test_examples_are_shown_as_code(written):
    example = (
        "\n```pycon\n>>> activations = jnp.array([[0.0, 1.0, 0.0, 2.0], [0.0, 0.0, 3.0, 1.0]])\n"
    )
    assert example in written["probes_dormant_fraction"]
    assert "\n[-1.0, 2.0]\n```\n" in written["methods_l2"]
    assert not any(r"\>\>\>" in page for page in written.values())


def test_words_are_shown_as_they_are():
    assert pages.escaped("sum_b *x* `a_b*` [0, 1]") == r"sum\_b \*x\* `a_b*` \[0, 1\]"
    assert pages.cell("a | `b | c`") == r"a \| `b \| c`"


def test_documents_lose_only_comments(written):
    assert "<!--" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert "<!--" not in pages.text(pathlib.Path("README.md"))
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.sub(r"\s", "", written["changelog"]) == re.sub(r"\s", "", changelog)
