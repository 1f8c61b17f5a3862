"""The cloning experiment: a network is trained, made wider with the same outputs, and both go on.

Arms that begin from the same network (model, norm, dropout, optimizer) are a group, which has a
folder in the workdir: `GROUP/base` is the network, `GROUP/after` what goes on from it, cloned or
not.
Source: Joudaki et al., experiment E2.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments import figures
from experiments.barriers.settings import KIND, SIZES, SMALL, SMOKE, Arms
from experiments.benchmark import Benchmark, Settings
from plasticity_jax.cli import flags, help, launcher
from plasticity_jax.reporting import metrics

HELP = """
The network is trained in WORKDIR/GROUP/base; --tasks is of what comes after, 5 epochs each.
--dry_run tells of the networks before they are cloned alone.
"""
BEFORE = {"paper": 4, "reduced": 4, "smoke": 1}  # parts of 5 epochs
CONTINUED = {"surgery": "none", "method": "none"}
CLONED = {"surgery": "clone", "method": "none"}
NOISY = {
    "surgery": "clone",
    "method": "gradient_noise",
    "gradient_noise.scale": 0.01,
    "gradient_noise.decay": 0.999,
}
SWEEP = {
    **NOISY,
    "gradient_noise.scale": (0.01, 0.02, 0.05),
    "gradient_noise.decay": (0.0, 0.9, 0.99, 0.999, 1.0),
}
COMMON = {
    **SIZES,
    "environment": "class_split",
    "class_split.per_task": 10,
    "class_split.classes": "regroup",  # (all ten classes again: one task, measured in parts)
    "dataset": "cifar10",
    "epochs": 5,
    "tasks": 100,
    "batch_size": 128,
    "optimizer": "sgd",
    "learning_rate": 0.01,
    "norm": "batch",
    "vit.dropout": 0.0,
    "seeds": 5,
    "first_seed": 40,
    "probes": ("clone_r2", "effective_rank", "trap"),
}
REDUCED = {**SMALL, "width": 32, "samples": 1000, "tasks": 20, "seeds": 3, "probe_samples": 250}
SMOKE_ = {**SMOKE, "samples": 128, "batch_size": 32, "epochs": 1, "tasks": 2}
PUBLISHED = {"optimizer": "momentum"}  # (its gradient descent has momentum .9)
OF_VIT = {"clone.rescale": False}  # its clone of a ViT, whose outputs differ


def _network(name: str) -> Settings:
    """Settings of a network: its own norm and learning rate."""
    if name == "vit":
        return {"model": name, "norm": "layer", "learning_rate": 0.01}
    return {"model": name}


def _with_dropout(name: str, share: float) -> tuple[Settings, ...]:
    own = {**_network(name), f"{name}.dropout": share}
    return ({**own, **CONTINUED}, {**own, **CLONED})


def _three(name: str) -> tuple[Settings, ...]:
    """The network, its clone, its clone with noise; and both with dropout."""
    own = _network(name)
    plain = ({**own, **CONTINUED}, {**own, **CLONED}, {**own, **NOISY})
    return (*plain, *_with_dropout(name, 0.1))


def _sweep(name: str) -> tuple[Settings, ...]:
    own = _network(name)
    return ({**own, **CONTINUED}, {**own, **CLONED}, {**own, **SWEEP})


def _optimizers() -> tuple[Settings, ...]:
    found: list[Settings] = []
    for optimizer in ("sgd", "momentum", "adam", "adamw"):
        rate = {"learning_rate": 1e-3} if optimizer in ("adam", "adamw") else {}
        own = {**_network("mlp"), "optimizer": optimizer, **rate}
        found += [{**own, **CONTINUED}, {**own, **CLONED}]
    return tuple(found)


def _benchmark(name: str, title: str, grids: tuple[Settings, ...]) -> Benchmark[Arms]:
    vit = any(grid["model"] == "vit" for grid in grids)
    published = {**PUBLISHED, **OF_VIT} if vit else PUBLISHED
    return Benchmark(name, title, "clone_r2", COMMON, REDUCED, SMOKE_, Arms(grids, published))


BENCHMARKS = {
    one.name: one
    for one in (
        _benchmark("clone_mlp", "Cloning an MLP", _three("mlp")),
        _benchmark(
            "clone_networks",
            "Cloning CNN, ResNet-18 and ViT",
            (*_three("cnn"), *_three("resnet18"), *_three("vit")),
        ),
        _benchmark("noise_mlp", "Noise on clones of an MLP", _sweep("mlp")),
        _benchmark("noise_vit", "Noise on clones of a ViT", _sweep("vit")),
        _benchmark(
            "dropout",
            "Dropout on clones of an MLP",
            (
                *_with_dropout("mlp", 0.0),
                *_with_dropout("mlp", 0.1),
                *_with_dropout("mlp", 0.2),
            ),
        ),
        _benchmark("optimizers", "Clones under four optimizers", _optimizers()),
    )
}


def _arms(figure: figures.Figure, choices: figures.Choices) -> list[dict[str, Any]]:
    """The arms of a figure; as published, without those of gradient descent in a figure by
    optimizer, for which momentum stands there.
    """
    found = KIND.arms(figure, choices)
    if not choices.as_published or "optimizer" in choices.given:
        return found
    return [arm for arm in found if arm.get("optimizer") != "sgd"]


CLONING = KIND._replace(arms=_arms)


class Group(NamedTuple):
    """Arms that begin from the same network.

    Attributes:
      name: of its folder.
      base: settings of the network.
      arms: what goes on from it.
    """

    name: str
    base: Settings
    arms: list[Settings]


def figure(name: str, benchmark: str, metric: str = "") -> figures.Figure:
    """Returns a figure of the cloning experiment."""
    return figures.Figure(name, BENCHMARKS[benchmark], CLONING, metric)


def groups(arms: Sequence[Settings]) -> list[Group]:
    """Returns the groups of arms, by what they have before surgery and method."""
    found: dict[str, Group] = {}
    for arm in arms:
        base = {name: value for name, value in arm.items() if not _of_after(name)}
        parts = [str(value) for name, value in base.items() if name != "learning_rate"]
        name = "_".join(part.replace(".", "") for part in parts)
        found.setdefault(name, Group(name, base, [])).arms.append(arm)
    return list(found.values())


def _of_after(name: str) -> bool:
    return name.partition(".")[0] in ("surgery", "method", "gradient_noise", "clone")


def main(doc: str | None, figure: figures.Figure, argv: Sequence[str] | None = None) -> int:
    """Runs and draws a figure from the command line and returns the exit code."""
    try:
        own, rest = flags.own(figures.OWN, sys.argv[1:] if argv is None else argv)
        if own["from"] is not None or own["only"] is not None:
            raise ValueError(
                "from or only is given: allowed is --workdir=DIR, where what is there is drawn."
            )
        plan = figures.plan(figure, figures.chosen(own, rest), rest)
        values, _ = flags.parse(plan.argv, plan.defaults)
        if values["help"] or values["list"]:
            text = help.usage(f"{doc}{figures.HELP}{HELP}", plan.defaults)
            launcher.say(text if values["help"] else help.listing())
            return 0
        if not (values["workdir"] or values["dry_run"]):
            raise ValueError("workdir is not given: name a folder with --workdir=DIR.")
    except ValueError as error:
        return launcher.fault(error, launcher.USAGE)
    tables: list[Any] = []
    for group in groups(plan.arms):
        if code := _run(plan, group, values, tables):
            return code
    return 0 if values["dry_run"] else _draw(plan, values, tables)


def _run(plan: figures.Plan, group: Group, values: flags.Values, tables: list[Any]) -> int:
    """Trains the network of a group, then what goes on from it, whose table it adds to `tables`;
    returns the exit code.
    """
    folder = Path(values["workdir"] or "") / group.name
    names = ("--workdir", "--start")
    rest = [text for text in plan.argv if text.partition("=")[0] not in names]
    before = [text for text in rest if text.partition("=")[0] != "--tasks"]
    defaults = {**plan.defaults, **group.base}
    tasks = BEFORE[plan.choices.scale]
    base = launcher.Experiment(None, {**defaults, "tasks": tasks}, title=group.name)
    code = launcher.launch(base, [*before, f"--workdir={folder / 'base'}"])
    if code or values["dry_run"]:
        return code

    def keep(table: Any, columns: Sequence[str], values: flags.Values) -> str:
        del columns, values
        tables.append(table)
        return f"{group.name} is done."

    title = f"{group.name}, after"
    after = launcher.Experiment(None, defaults, group.arms, title=title, then=keep)
    where = [f"--workdir={folder / 'after'}", f"--start={folder / 'base'}"]
    return launcher.launch(after, [*rest, *where])


def _draw(plan: figures.Plan, values: flags.Values, tables: Sequence[Any]) -> int:
    """Draws what all groups have become; returns the exit code."""
    try:
        _, given = flags.parse(plan.argv, plan.defaults)
        runs = flags.runs(values, given, plan.arms)
        table = named(_joined(tables), figures.arm_columns(runs))
        table.attrs[metrics.KEY] = metrics.record([spec for spec, _ in runs])
        launcher.say(figures.draw(plan, table, ["network"], values))
    except ValueError as error:
        return launcher.fault(error, launcher.USAGE)
    except OSError as error:
        return launcher.fault(error, launcher.ENVIRONMENT)
    return 0


def _joined(tables: Sequence[Any]) -> Any:
    """Several tables as one, their lanes numbered in its order."""
    import pandas

    first, parts = 0, []
    for table in tables:
        parts.append(table.assign(lane=table["lane"] + first))
        first += int(table["lane"].max()) + 1
    return pandas.concat(parts, ignore_index=True)


def named(table: Any, columns: Sequence[str]) -> Any:
    """Returns a table with the column `network`, which says in words what an arm is; `columns` are
    those in which arms differ.
    """
    arms = table[list(columns)].drop_duplicates()
    several = [name for name in columns if arms[name].nunique() > 1]
    words = [_words(arm, several) for arm in arms.to_dict("records")]
    return table.merge(arms.assign(network=words), on=list(columns), how="left")


def _words(arm: Mapping[str, Any], several: Sequence[str]) -> str:
    parts = [str(arm[name]) for name in ("model", "optimizer") if name in several]
    parts.append("cloned" if arm["surgery"] == "clone" else "not cloned")
    if arm["method"] == "gradient_noise":
        scale, decay = arm["gradient_noise.scale"], arm["gradient_noise.decay"]
        parts.append(f"noise {scale:g} x {decay:g}^t")
    parts += [f"dropout {arm[n]:g}" for n in several if n.endswith(".dropout") and arm[n] > 0]
    return ", ".join(parts)
