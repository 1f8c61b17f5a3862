"""The pages that are made from the code: one for each part, and those of files outside of docs/."""

import ast
import csv
import functools
import importlib
import inspect
import math
import os
import pathlib
import re
import textwrap
import typing
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from plasticity_jax import (
    agents,
    datasets,
    environments,
    heads,
    methods,
    models,
    optimizers,
    probes,
    registry,
    surgery,
)
from plasticity_jax.reporting import literature, metrics
from plasticity_jax.spec import Spec
from plasticity_jax.stream import transitions
from plasticity_jax.training import supervised
from plasticity_jax.types import Data

ROOT = pathlib.Path(__file__).parents[1]
SOURCES = {  # page -> the file that it shows
    f"generated/{name}": pathlib.Path(path)
    for name, path in (
        ("contributing", "CONTRIBUTING.md"),
        ("decisions", "BUILD_NOTES.md"),
        ("changelog", "CHANGELOG.md"),
    )
}


class Kind(NamedTuple):
    """Parts of one sort.

    Attributes:
      title: heading of their page.
      words: what they are, in a sentence.
      parts: name -> factory.
      tests: folders of tests/ where theirs are.
    """

    title: str
    words: str
    parts: Mapping[str, Callable]
    tests: tuple[str, ...]


KINDS = {
    "environments": Kind(
        "Environments",
        "What a task is: the examples, what changes between tasks, the loss and the score.",
        environments.ENVIRONMENTS,
        ("environments", "stream"),
    ),
    "transitions": Kind(
        "Transitions",
        "How one task turns into the next.",
        {name: one.mix for name, one in transitions.TRANSITIONS.items()},
        ("stream",),
    ),
    "models": Kind("Networks", "What learns.", models.MODELS, ("models",)),
    "heads": Kind(
        "Heads",
        "How the outputs of a network are read and scored.",
        heads.HEADS,
        ("heads",),
    ),
    "agents": Kind(
        "Agents",
        "How a network acts in a world and learns from what it remembers.",
        agents.AGENTS,
        ("agents",),
    ),
    "surgery": Kind(
        "Surgery",
        "What is done to a trained network before a run begins from it.",
        surgery.SURGERIES,
        ("surgery",),
    ),
    "methods": Kind(
        "Methods",
        "What is done against the loss of plasticity: functions from an optimizer to an optimizer.",
        methods.METHODS,
        ("methods",),
    ),
    "probes": Kind(
        "Probes",
        "What is measured at the start or the end of a task.",
        probes.PROBES,
        ("probes",),
    ),
    "optimizers": Kind(
        "Optimizers and schedules",
        "How gradients become steps; optax's, by their names.",
        {**optimizers.OPTIMIZERS, **optimizers.SCHEDULES},
        ("optimizers",),
    ),
    "datasets": Kind("Data", "Where examples come from.", datasets.DATASETS, ("datasets",)),
}


def write(folder: pathlib.Path) -> None:
    """Writes every page into `folder`, of which nothing old is left."""
    made = {name.partition("/")[2]: text(path) for name, path in SOURCES.items()}
    for kind, known in KINDS.items():
        made[kind] = overview(kind, known)
        made |= {f"{kind}_{file_name(name)}": page(known, name) for name in known.parts}
    made["flags"] = flags()
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.md"):
        if old.stem not in made:
            old.unlink()
    for name, words in made.items():
        path = folder / f"{name}.md"
        if not path.exists() or path.read_text(encoding="utf-8") != words:
            path.write_text(words, encoding="utf-8")


def text(path: pathlib.Path) -> str:
    """Returns a document of the repository without what only GitHub reads."""
    return re.sub(r"<!--.*?-->\n*", "", (ROOT / path).read_text(encoding="utf-8"), flags=re.DOTALL)


def relative(path: pathlib.Path, start: pathlib.Path) -> str:
    """Returns a path as a link from a page in the folder `start`."""
    return pathlib.Path(os.path.relpath(path, start)).as_posix()


def file_name(part: str) -> str:
    """Returns the name of a part's page."""
    return re.sub(r"\W", "_", part)


def overview(kind: str, known: Kind) -> str:
    """Returns the page of a sort of parts: each with its first sentence."""
    rows = [
        f"| [`{name}`]({kind}_{file_name(name)}.md) | {cell(registry.describe(factory))} |"
        for name, factory in known.parts.items()
    ]
    tree = "\n".join(f"{kind}_{file_name(name)}" for name in known.parts)
    return "\n".join(
        [
            f"# {known.title}",
            "",
            known.words,
            "",
            "| name | what |",
            "|---|---|",
            *rows,
            "",
            f"```{{toctree}}\n:hidden:\n\n{tree}\n```",
            "",
        ]
    )


def cell(words: str) -> str:
    """Returns words as they may stand in a table."""
    pieces = escaped(words).split("`")
    pieces[1::2] = [code.replace("|", "\\|") for code in pieces[1::2]]
    return "`".join(pieces)


def escaped(words: str) -> str:
    """Returns a docstring's words as Markdown: what it would take for markup is shown as it is."""
    pieces = words.split("`")  # every second one is code
    plain = [re.sub(r"([*_<>\[\]|~])", r"\\\1", piece) for piece in pieces[::2]]
    pieces[::2] = plain
    return "`".join(pieces)


def page(known: Kind, name: str) -> str:
    """Returns the page of one part: docstring, settings, where it is, what checks it."""
    factory = known.parts[name]
    doc = inspect.getdoc(factory) or ""
    first, _, rest = doc.partition("\n\n")
    lines = [f"# `{name}`", "", escaped(" ".join(first.split())), ""]
    lines += [paragraph(part) for part in rest.split("\n\n") if part.strip()]
    lines += settings(name, factory)
    if known is KINDS["methods"]:
        lines += acts(name, factory)
    if known is KINDS["probes"]:
        lines += [*measures(name, factory), *limits(name, factory)]
        lines += ["## What it costs", "", *cost("probes", name)]
    lines += namesakes(name, factory)
    papers = literature.of_part(name, factory)
    if papers:
        lines += ["## Literature", "", *(f"- {{cite:t}}`{key}`" for key in papers), ""]
    module, path = where(factory)
    lines += ["## Where it is", "", f"`{module}.{factory.__name__}`, in `{path}`.", ""]
    found = tests(known.tests, name, factory.__name__)
    if found:
        lines += ["## What checks it", "", "Tests that name it:", ""]
        lines += [f"- `{path}`: {', '.join(names)}" for path, names in found.items()] + [""]
    return "\n".join(lines)


class Acts(NamedTuple):
    """When a method acts that is no term of the loss, and what becomes of the optimizer's moments.

    Attributes:
      when: "every" step, those at which a unit is "due", the last of each "period", or the first
        of a task ("boundary").
      moments: "forgotten" of weights that are replaced, "kept" as they are, "fed" with what the
        method makes of the gradient, or all of them begun "afresh".
      but: what its settings change of that, a sentence with a space before it.
    """

    when: str
    moments: str
    but: str = ""


ACTS = {  # `tests/docs/test_pages.py` compares it with what they do
    "shrink_and_perturb": Acts(
        "boundary",
        "kept",
        ' With `period` it acts every so many steps instead, with `moment` "before" ahead of the '
        "new task's first step, where a loop of one's own calls `pj.methods.begin`.",
    ),
    "redo": Acts("period", "forgotten"),
    "continual_backprop": Acts("due", "forgotten"),
    "optimizer_reset": Acts("boundary", "afresh"),
    "clip": Acts("every", "fed"),
    "head_reset": Acts("boundary", "forgotten", ' With `to` "zero" moments are kept.'),
    "full_reset": Acts("boundary", "forgotten"),
    "gradient_noise": Acts("every", "fed"),
    "weight_norm_constraint": Acts("every", "kept"),
}
WHEN = {
    "every": "at every step",
    "due": "at every step at which a unit is due",
    "period": "every `period` steps",
    "boundary": "at the first step of a new task",
}
MOMENTS = {
    "forgotten": "parameters change, and what the optimizer remembers of weights that are replaced "
    "(its moments) becomes what it would have of new ones; step counts stay, but with "
    "`--optimizer=adam_per_weight`",
    "kept": "parameters change, and what the optimizer remembers of them (its moments) is kept",
    "fed": "it changes the gradient, and the optimizer's moments see what it makes of it",
    "afresh": "the optimizer's moments and step counts start afresh, and parameters are kept",
}
TERMS = {  # what a factory returns that is a term of the loss -> when it acts
    methods.Penalty: "At every step: the term's gradient is added ahead of the optimizer, whose "
    "moments see the sum.",
    methods.Term: "At every step: the term is part of the loss, in the training step's own forward "
    "pass, so that the optimizer's moments see its gradient.",
}
BOUNDARY = {
    True: "It looks at where a task begins (`Context.boundary`), which a loop of one's own tells "
    "it.",
    False: "Where a task begins plays no part.",
}


def when(name: str, factory: Callable) -> list[str]:
    """Returns the paragraphs on when a method acts, and what becomes of moments."""
    returned = registry.returned(factory)
    told = BOUNDARY[bool({"boundary", "at_boundary"} & _attributes(factory))]
    if returned in TERMS:
        return [TERMS[returned], "", told, ""]
    one = ACTS[name]
    does = f"{MOMENTS[one.moments]}.{one.but}"
    if returned is methods.Boundary:
        return [
            f"Before the first step of a new task: {does} A loop of one's own calls "
            "`pj.methods.begin`.",
            "",
        ]
    kinds = (returned, *typing.get_args(returned))
    place = (
        "Right after the optimizer's step"
        if methods.Rewrite in kinds
        else "Ahead of the optimizer's step"
    )
    return [f"{place}, {WHEN[one.when]}: {does}", "", told, ""]


def acts(name: str, factory: Callable) -> list[str]:
    """Returns the section on when a method acts, what becomes of moments, and what it costs."""
    if name == "none":
        return []
    return [
        "## When it acts",
        "",
        *when(name, factory),
        "## What it costs",
        "",
        "Numbers that it remembers for each parameter, beside Adam's moments and the initial "
        "parameters, which every run keeps (in an MLP of 4 x 64 units): "
        f"{kept(name) - kept('none'):.2g}.",
        "",
        *cost("methods", name),
    ]


def _attributes(factory: Callable) -> set[str]:
    """The attributes that a function reads, and those functions of its module that it names."""
    function = inspect.unwrap(factory)
    module = inspect.getmodule(function)
    found, seen, todo = set(), set(), [function]
    while todo:
        one = todo.pop()
        if one in seen:
            continue
        seen.add(one)
        tree = ast.parse(textwrap.dedent(inspect.getsource(one)))
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                found.add(node.attr)
            other = getattr(module, node.id, None) if isinstance(node, ast.Name) else None
            if inspect.isfunction(other) and inspect.getmodule(other) is module:
                todo.append(other)
    return found


NEEDS = {  # what a probe reads of its Snapshot -> what it measures on
    "params": "the parameters",
    "loss": "the mean loss of the probe batch, with running statistics of norms as in evaluation",
    "hidden": "the activations of the probe batch, by layer",
    "linear": "which layers no activation function follows: these are left out",
    "previous": "the parameters at the end of the task before",
    "previous_hidden": "the activations of the same batch at the end of the task before",
    "initial": "the initial parameters",
    "view": "outputs, preactivations and gradients of the network through given parameters",
    "unit_gradients": "the gradient of the loss by each activation",
    "units": "which weights make each unit and which read it (the model's `units()`)",
    "activation": "the network's activation function",
    "key": "a random key, which is the same for every lane with the same seed and task",
}


def measures(name: str, factory: Callable) -> list[str]:
    """Returns the section on when a probe measures, and on what."""
    found = _attributes(factory)
    needed = [words for attribute, words in NEEDS.items() if attribute in found]
    before = {"previous", "previous_hidden"} & found
    samples = Spec().probe_samples
    return [
        "## When it measures",
        "",
        f"At the end of a task (`--probes={name}`), before its first step "
        f"(`--probes={name}:start`), or both; after every n-th task with `--probe_every=n`; with "
        "`--points=0,1,5` also after these steps of a task, where no agent acts. Where it is not "
        "its turn, the column is empty.",
        "",
        f"On the first {samples} examples of the task (`--probe_samples={samples}`), the same each "
        "time; of an agent, on so many that it remembers. It reads:",
        "",
        *(f"- {words}" for words in needed),
        "",
        *(
            ["In the first task the network before is the one that the run began with.", ""]
            * bool(before)
        ),
    ]


def limits(name: str, factory: Callable) -> list[str]:
    """Returns the section on where a probe measures nothing, and what its number depends on."""
    found, metric = _attributes(factory), metrics.of_probe(name)
    lines = [
        "Not a number where what it depends on is not finite: of a lane that diverged nothing was "
        "measured, and it enters no mean."
    ]
    if metric.share:
        lines.append(f"A share, from 0 to 1: {metric.label}.")
    if name in probes.OF_ROWS:
        lines.append(
            "It reads one row of outputs for each example: refused where examples are texts, which "
            "have one for each position."
        )
    if name in probes.CURVATURE:
        lines.append(
            "It differentiates the gradient, which takes more memory than any other probe."
        )
    if "units" in found:
        lines.append("Refused of a network that has no unit groups.")
    asked = [one for one in ("view", "activation", "unit_gradients", "units") if one in found]
    if asked:
        names = " and ".join(f"`{one}`" for one in asked)
        code = inspect.getsource(factory)  # (`_view` raises where there is none)
        refused = "_view(" in code or "needs a Snapshot" in code
        lines.append(
            f"In a loop of one's own the Snapshot must have {names}; without, it is refused."
            if refused
            else f"In a loop of one's own, details that need {names} are left out without."
        )
    lines.append(
        "It is of the probe batch: with another `--probe_samples` it is another number."
        if {"hidden", "view", "loss", "unit_gradients"} & found
        else "It looks at parameters alone, whatever the examples are."
    )
    return ["## Limits", "", *(f"- {line}" for line in lines), ""]


def said(ratio: str, unit: str) -> str:
    """Returns what a ratio in the table of costs says of its part."""
    if unit == "gradients":
        return (
            "Processor time once, by itself and with its default settings, on a batch of 512 "
            f"examples: {ratio} times that of the gradient of the same batch's loss."
        )
    where = (
        "where no task begins" if unit == "steps" else f"mean of {unit.removeprefix('steps of ')}"
    )
    return f"Processor time of a training step over one without it, at batch 64, {where}: {ratio}."


@functools.cache
def costs() -> dict[tuple[str, str], dict[str, str]]:
    """Returns the rows of docs/costs.csv, by kind and part."""
    with (ROOT / "docs" / "costs.csv").open(encoding="utf-8", newline="") as file:
        return {(row["kind"], row["part"]): row for row in csv.DictReader(file)}


def cost(kind: str, name: str) -> list[str]:
    """Returns what a part costs in processor time, with the command that measures it."""
    row = costs().get((kind, name))
    if row is None:
        return []
    ratio = "{ratio} [{low}, {high}]".format(**row)
    return [
        f"{said(ratio, row['unit'])} An MLP 784-4x256-10 on one core ({row['machine']}); "
        "median [least, most] of turns. Measured by `python -m benchmarks costs`.",
        "",
    ]


def kept(method: str) -> float:
    """Returns how many numbers a lane's state has for each parameter of a small network."""
    spec = Spec(method=method, width=64, probes=())
    images, labels = np.zeros((64, 8, 8, 1), np.uint8), np.arange(64, dtype=np.int32) % 10
    scale = np.ones(1, np.float32)
    data = Data(images, labels, images[:0], labels[:0], scale, scale, 10)
    state = jax.eval_shape(supervised.make_run(spec).init, {"seed": 0}, data)
    every, parameters = (
        sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
        for tree in (state, state.params)
    )
    return every / parameters


def namesakes(name: str, factory: Callable) -> list[str]:
    """Returns sections of what has a part's name beside its factory: the plain function of a probe,
    the class of a network; what is not public has none.
    """
    lines = []
    own = literature.plain(factory)
    for other, thing in literature.things(name, factory).items():
        if thing is own or other.startswith("_"):
            continue
        words = inspect.getdoc(literature.plain(thing)) or ""
        lines += [f"## `{other}` by itself", ""]
        if not inspect.isclass(thing):
            names = [*inspect.signature(thing).parameters]
            module = inspect.getmodule(literature.plain(factory))
            lines += [f"`{module.__name__}.{other}({', '.join(names)})`", ""]
        lines += [paragraph(part) for part in words.split("\n\n") if part.strip()]
    return lines


def paragraph(words: str) -> str:
    """Returns a paragraph of a docstring as Markdown; lists of arguments become lists, examples
    blocks of code.
    """
    if words.startswith(">>> "):
        return f"```pycon\n{words}\n```\n"
    head, _, body = words.partition("\n")
    if head.rstrip() in ("Args:", "Raises:", "Attributes:", "Returns:"):
        listed, after = re.match(r"((?:[ ]+[^\n]*\n?)*)(.*)", body, re.DOTALL).groups()
        entries = re.split(r"\n(?=\S)", textwrap.dedent(listed))
        shown = [f"- {escaped(' '.join(entry.split()))}" for entry in entries if entry.strip()]
        rest = [paragraph(after)] if after.strip() else []
        return "\n".join([f"**{head.strip(': ')}**", "", *shown, "", *rest])
    return escaped(" ".join(words.split())) + "\n"


def settings(name: str, factory: Callable) -> list[str]:
    """Returns the section of a part's settings, with flag, default and what may differ by lane."""
    numbers, options = registry.numbers(factory), registry.options(factory)
    if not numbers and not options:
        return []
    lines = ["## Settings", "", "| flag | default | kind |", "|---|---|---|"]
    for setting, default in numbers.items():
        low, high = registry.bounds(factory)[setting]
        ends = (
            f"{'' if low is None else f', from {low:g}'}{'' if high is None else f' to {high:g}'}"
        )
        lines.append(f"| `--{name}.{setting}` | {shown(default)} | number{ends} |")
    lines += [
        f"| `--{name}.{setting}` | {shown(default)} | option |"
        for setting, default in options.items()
    ]
    return [
        *lines,
        "",
        "The values of a *number* share one compiled program; every value of an *option* has its "
        "own.",
        "",
    ]


def shown(default: Any) -> str:
    """Returns a default as a flag would have it."""
    return "" if default is None or default == "" else f"`{default}`"


def where(factory: Callable) -> tuple[str, str]:
    """Returns a part's module, and its file from the root of the repository."""
    factory = inspect.unwrap(factory)
    while isinstance(factory, functools.partial):
        factory = factory.func
    module = importlib.import_module(factory.__module__)
    path = pathlib.Path(module.__file__ or "")
    inside = path.is_relative_to(ROOT)
    return module.__name__, path.relative_to(ROOT).as_posix() if inside else path.name


def tests(folders: tuple[str, ...], *names: str) -> dict[str, list[str]]:
    """Returns the tests whose code has a part's name as a word, by file."""
    found: dict[str, list[str]] = {}
    word = re.compile(rf"\b({'|'.join(map(re.escape, {*names}))})\b")
    for folder in folders:
        for path in sorted((ROOT / "tests" / folder).rglob("test_*.py")):
            mine = [name for name, source in _tests_of(path) if word.search(source)]
            if mine:
                said = [f"`{name}`" for name in mine[:6]]
                more = [f"and {len(mine) - 6} more"] if len(mine) > 6 else []
                found[path.relative_to(ROOT).as_posix()] = said + more
    return found


@functools.cache
def _tests_of(path: pathlib.Path) -> list[tuple[str, str]]:
    """Name and code of every test of a file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [
        (node.name, "\n".join(lines[node.lineno - 1 : node.end_lineno]))
        for node in ast.parse("\n".join(lines)).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]


def flags() -> str:
    """Returns the page of all flags, as --help and `plasticity list` print them."""
    from plasticity_jax.cli import help

    lines = ["# All flags", "", "What `--help` prints:", "", "```text", help.usage(""), "```"]
    return "\n".join(
        [*lines, "", "What `plasticity list` prints:", "", "```text", help.listing(), "```", ""]
    )
