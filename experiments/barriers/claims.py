"""What README.md says of figures whose lanes are kept: arms, effects and verdicts on claims.

Command: python -m experiments.barriers.claims
Rule: as `experiments.accounts` has it. A claim is a number of each seed, or several,
that the paper says to be above 0; with Student's 95 % intervals over seeds it agrees if all are
above 0, disagrees if one is below, and is not told else. Of class split a claim is judged only
where the network without norm loses accuracy (`experiments.presence`, first five
seeds); elsewhere the effect is not present, and the numbers alone are told.
Writes the tables between the marks of README.md, from the lanes in results/lanes.
"""

import itertools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments import accounts, presence
from experiments.accounts import Claim, Contrast, Where, last, more
from experiments.barriers import areas, cloning, printed
from experiments.benchmark import NOTHING
from plasticity_jax.reporting import statistics
from plasticity_jax.storage import table as table_
from plasticity_jax.storage import writing

README = Path(__file__).parent / "README.md"
LANES = README.parent / "results" / "lanes"
WINDOW = 5  # tasks of the end
FIRST = 5  # seeds that say whether there is an effect
FAST = "split_mlp_01"  # lanes of an MLP at ten times its learning rate
AFFINE, AFFINE_FAST = "affine_mlp", "affine_mlp_01"  # lanes of its norms with and without scale
# class split, of whose stream other lanes say whether there is an effect
EFFECTS = {AFFINE: "split_mlp", AFFINE_FAST: FAST}
NEW = "split_tiny"  # lanes of an MLP at two learning rates, whose tasks have classes of their own
# lanes on digits, at learning rates at which an effect was looked for
DIGITS = {
    "mlp": "split_digits",
    **{model: f"split_digits_{model}" for model in ("cnn", "resnet18", "vit")},
}
SMALL_CLONES = "clone_resnet18_small"  # lanes of a narrower ResNet-18, on images of 16 x 16
NAMES = {"mlp": "MLP", "cnn": "CNN", "resnet18": "ResNet-18", "vit": "ViT"}
DEAD, TWINS, STUCK = "dead_fraction", "duplicate_fraction", "saturated_fraction"
RANK, ACCURACY, R2 = "effective_rank", "online_accuracy", "clone_r2"
CLONED = 0.999  # R2 from which on units are clones


class Column(NamedTuple):
    """A column of a table of arms: its heading, what is measured, what it is multiplied by, and how
    many digits are told.
    """

    heading: str
    metric: str
    scale: int = 1
    digits: int = 1


SPLIT = (
    Column("accuracy, %", ACCURACY, 100),
    Column("dead, %", DEAD, 100),
    Column("duplicates, %", TWINS, 100),
    Column("saturated, %", STUCK, 100),
    Column("effective rank", RANK),
)
_OF_CLONES = ("surgery", "method", "gradient_noise.scale", "gradient_noise.decay")
CLONES = (
    Column("R2", R2, digits=4),
    Column("loss", "loss", digits=3),
    Column("effective rank", RANK),
)


def _norm(model: str, norm: str, dropout: float = 0.0, affine: bool = True) -> Where:
    return {"norm": norm, f"{model}.dropout": dropout, f"{model}.norm_affine": affine}


def rise(where: Where, metric: str) -> Contrast:
    """Returns the mean over the last tasks of an arm less its first task, seed by seed."""

    def of(table: Any) -> Any:
        values = accounts.arm(table, where, metric)
        return (values.iloc[-WINDOW:].mean() - values.iloc[0]).to_numpy()

    return of


def fall(where: Where, metric: str) -> Contrast:
    """Returns what `rise` does with the opposite sign."""
    of = rise(where, metric)
    return lambda table: -of(table)


def _split(figure: str, says: str, model: str, unit: str, **contrasts: Contrast) -> Claim:
    return Claim(f"{figure}, {NAMES[model]}", says, f"split_{model}", unit, contrasts)


def _course(model: str, where: Where = NOTHING) -> list[Claim]:
    """What figures 3.2 and 3.3 say of a network without norm and dropout, and with `where`."""
    bare = {**_norm(model, "none"), **where}
    grows = TWINS if model == "vit" else DEAD
    what = "duplicate" if model == "vit" else "dead"
    falls = model in ("mlp", "vit")
    accuracy = fall(bare, ACCURACY) if falls else rise(bare, ACCURACY)
    words = "accuracy falls" if falls else "accuracy does not fall"
    return [
        _split("3.2", words, model, "points", by=accuracy),
        _split("3.2", f"{what} units become more", model, "points", by=rise(bare, grows)),
        _split("3.3", "the effective rank falls", model, "of rank", by=fall(bare, RANK)),
    ]


def _norms(model: str) -> list[Claim]:
    """What figures 5.1 and B.1 and the text say of norms."""
    bare = _norm(model, "none")
    norms = {norm: _norm(model, norm) for norm in ("batch", "layer")}

    def less(metric: str) -> dict[str, Contrast]:
        return {norm: more(bare, normed, metric) for norm, normed in norms.items()}

    def greater(metric: str) -> dict[str, Contrast]:
        return {norm: more(normed, bare, metric) for norm, normed in norms.items()}

    found = [
        _split("5.1", "norms keep a higher effective rank", model, "of rank", **greater(RANK)),
        _split("B.1", "accuracy is higher with norms", model, "points", **greater(ACCURACY)),
        _split("B.1 (text)", "norms lower duplicates", model, "points", **less(TWINS)),
        _split("B.1 (text)", "norms lower saturated units", model, "points", **less(STUCK)),
    ]
    if model != "vit":
        found.append(_split("B.1", "norms lower dead units", model, "points", **less(DEAD)))
    if model in ("cnn", "resnet18"):
        words = "norms raise duplicates, against its text"
        found.append(_split("B.1 (bars)", words, model, "points", **greater(TWINS)))
    if model == "vit":
        words = "norms raise saturated units, against its text"
        found.append(_split("B.1 (bars)", words, model, "points", **greater(STUCK)))
    return found


def _dropped(model: str) -> list[Claim]:
    """What figure B.1 says of dropout without norm: of the ViT, whose dead units it lacks, what it
    says of duplicates and saturated units.
    """
    bare, dropped = _norm(model, "none"), _norm(model, "none", 0.1)
    grows, what = (TWINS, "duplicate") if model == "vit" else (DEAD, "dead")
    words = f"dropout raises {what} units where there is no norm"
    accurate, fewer = (more(bare, dropped, metric) for metric in (ACCURACY, STUCK))
    found = [
        _split("B.1", words, model, "points", by=more(dropped, bare, grows)),
        _split("B.1", "dropout lowers accuracy there", model, "points", by=accurate),
    ]
    if model == "vit":
        words = "dropout lowers saturated units there"
        found.append(_split("B.1", words, model, "points", by=fewer))
    return found


def _affine(model: str) -> Claim:
    """What figure 5.1 says of a norm's scale and offset."""
    ranks = {
        norm: more(_norm(model, norm), _norm(model, norm, affine=False), RANK)
        for norm in ("batch", "layer")
    }
    words = "norms with scale and offset keep a higher rank"
    return Claim(f"5.1, {NAMES[model]}", words, AFFINE, "of rank", ranks)


def _on_digits() -> list[Claim]:
    """The same on digits at high learning rates; of the MLP dropout was not run there."""
    found = []
    for model, lanes in DIGITS.items():
        own = [*_course(model), *_norms(model), _affine(model)]
        own += _dropped(model) if model != "mlp" else []
        found += [one._replace(figure=f"{one.figure}, digits", lanes=lanes) for one in own]
    return found


def _cloned(model: str, dropout: float = 0.0, method: str = "none") -> Where:
    return {"surgery": "clone", f"{model}.dropout": dropout, "method": method}


def _clones(model: str, figure: str = "B.5") -> list[Claim]:
    """What figures 4.1 and B.5 say of clones."""
    exact, noisy = _cloned(model), _cloned(model, method="gradient_noise")
    dropped = _cloned(model, 0.1)

    def claim(says: str, unit: str, **contrasts: Contrast) -> Claim:
        return Claim(f"{figure}, {NAMES[model]}", says, f"clone_{model}", unit, contrasts)

    parts = {"noise": _parts(noisy), "dropout": _parts(dropped)}
    words = "with gradient descent clones stay clones: R2 less 0.999"
    return [
        claim(words, "of R2", by=_stays(exact)),
        claim("noise and dropout part them: 0.999 less R2", "of R2", **parts),
        claim("noise more than dropout", "of R2", by=more(dropped, noisy, R2)),
        claim("noise raises the rank of clones", "of rank", by=more(noisy, exact, RANK)),
    ]


def _stays(where: Where) -> Contrast:
    """How far R2 is above that at which the paper calls units clones, `CLONED`."""
    kept = last(where, R2, WINDOW)
    return lambda table: kept(table) - CLONED


def _parts(where: Where) -> Contrast:
    stays = _stays(where)
    return lambda table: -stays(table)


def _noise(model: str, figures: tuple[str, str]) -> list[Claim]:
    """What figures B.6 and B.7, or B.8 and B.9, say of noise on clones."""
    ranks, losses = figures

    def noisy(scale: float, decay: float) -> Where:
        own = {"gradient_noise.scale": scale, "gradient_noise.decay": decay}
        return {"surgery": "clone", "method": "gradient_noise", **own}

    def claim(figure: str, says: str, unit: str, **contrasts: Contrast) -> Claim:
        return Claim(f"{figure}, {NAMES[model]}", says, f"noise_{model}", unit, contrasts)

    sizes = {
        f"{low} to {high}": more(noisy(low, 0.999), noisy(high, 0.999), R2)
        for low, high in itertools.pairwise((0.01, 0.02, 0.05))
    }
    decays = {
        f"{low} to {high}": more(noisy(0.05, low), noisy(0.05, high), R2)
        for low, high in itertools.pairwise((0.0, 0.9, 0.99, 0.999, 1.0))
    }
    whole, once = noisy(0.05, 1.0), noisy(0.05, 0.0)
    once_alone = "noise in one step alone parts them"
    return [
        claim(ranks, "more noise parts clones further (decay 0.999)", "of R2", **sizes),
        claim(ranks, "slower decay parts them further (size 0.05)", "of R2", **decays),
        claim(ranks, f"{once_alone}: 0.999 less R2", "of R2", by=_parts(noisy(0.01, 0.0))),
        claim(f"{losses} (ours)", "much noise costs loss", "of loss", by=more(whole, once, "loss")),
        claim(f"{ranks} (ours)", "and raises the rank", "of rank", by=more(whole, once, RANK)),
    ]


def _by_dropout() -> list[Claim]:
    """What figure B.10 says of dropout on clones of an MLP."""
    none, some, much = (_cloned("mlp", share) for share in (0.0, 0.1, 0.2))

    def claim(says: str, unit: str, **contrasts: Contrast) -> Claim:
        return Claim("B.10, MLP", says, "dropout_mlp", unit, contrasts)

    parts = {"0.1": _parts(some), "0.2": _parts(much)}
    return [
        claim("without dropout clones stay clones: R2 less 0.999", "of R2", by=_stays(none)),
        claim("dropout parts them: 0.999 less R2", "of R2", **parts),
        claim("more of it parts them further", "of R2", by=more(some, much, R2)),
    ]


def _by_optimizer() -> list[Claim]:
    """What figures B.11 and B.12 and a remark say of optimizers on clones of an MLP."""
    names = ("sgd", "momentum", "adam", "adamw")
    clones = {name: {"surgery": "clone", "optimizer": name} for name in names}
    stays = {name: _stays(clones[name]) for name in ("sgd", "adam")}
    breaks = {name: _parts(clones[name]) for name in names[1:]}
    sgd, adam = clones["sgd"], clones["adam"]

    def claim(figure: str, says: str, unit: str, **contrasts: Contrast) -> Claim:
        return Claim(f"{figure}, MLP", says, "optimizers_mlp", unit, contrasts)

    return [
        claim("B.11", "clones stay clones: R2 less 0.999", "of R2", **stays),
        claim(
            "4 (remark)", "momentum, Adam and decay break them: 0.999 less R2", "of R2", **breaks
        ),
        claim("B.12", "Adam ends at a higher loss", "of loss", by=more(adam, sgd, "loss")),
        claim("B.11", "Adam ends at a lower rank", "of rank", by=more(sgd, adam, RANK)),
    ]


def _fast() -> list[Claim]:
    """What figures 3.2 and 3.3 say of an MLP, at ten times its learning rate; and 5.1 and B.1 of
    norms and dropout, in runs of their own.
    """
    every: Where = {"norm": "none"}
    own = [*_course("mlp")[1:2], *_norms("mlp"), *_dropped("mlp")]
    others = [one._replace(figure=f"{one.figure}, rate 0.01", lanes=FAST) for one in own]
    affine = _affine("mlp")
    others.append(affine._replace(figure=f"{affine.figure}, rate 0.01", lanes=AFFINE_FAST))

    def claim(figure: str, says: str, unit: str, by: Contrast) -> Claim:
        return Claim(f"{figure}, MLP, rate 0.01", says, "foretelling_split", unit, {"by": by})

    return [
        claim("3.2", "accuracy falls", "points", fall(every, ACCURACY)),
        claim("3.2", "dormant units become more", "points", rise(every, "dormant_fraction")),
        claim("3.3", "the effective rank falls", "of rank", fall(every, RANK)),
        *others,
    ]


def _on_new_classes() -> list[Claim]:
    """What figures 3.2 and 3.3 say of an MLP, where each task has classes of Tiny ImageNet that
    were in none before, in tasks as long as the paper's.
    """
    return [
        one._replace(figure=f"{one.figure}, Tiny ImageNet", lanes=NEW)
        for one in _course("mlp", {"learning_rate": 1e-3})
    ]


MODELS = tuple(NAMES)
CLAIMS = (
    *_fast(),
    *_on_new_classes(),
    *_on_digits(),
    *itertools.chain.from_iterable(map(_course, MODELS)),
    *itertools.chain.from_iterable(map(_norms, MODELS)),
    _affine("mlp"),
    *_dropped("mlp"),
    *_clones("mlp", "4.1"),
    *_clones("cnn"),
    # (noise and dropout were run of a small ResNet-18 alone)
    _clones("resnet18")[0],
    *(
        one._replace(figure=f"{one.figure}, 16x16", lanes=SMALL_CLONES)
        for one in _clones("resnet18")
    ),
    *_clones("vit"),
    *_noise("mlp", ("B.6", "B.7")),
    *_noise("vit", ("B.8", "B.9")),
    *_by_dropout(),
    *_by_optimizer(),
)
ARMS: Mapping[str, Sequence[Column]] = {
    **{f"split_{model}": SPLIT for model in MODELS},
    **dict.fromkeys(DIGITS.values(), SPLIT),
    FAST: SPLIT,
    **dict.fromkeys(EFFECTS, SPLIT),
    NEW: SPLIT,
    "split_long": SPLIT,
    **{f"clone_{model}": CLONES for model in MODELS},
    SMALL_CLONES: CLONES,
    **dict.fromkeys(("noise_mlp", "noise_vit", "dropout_mlp", "optimizers_mlp"), CLONES),
}


def there(names: Any) -> list[str]:
    """Returns those of the names whose lanes are there."""
    return accounts.there(names, LANES)


def lanes(name: str) -> Any:
    """Returns the table of lanes that are kept."""
    return table_.read(LANES / f"{name}.parquet")


def rows_of_claims(claims: Sequence[Claim] = CLAIMS) -> str:
    """Returns the table of claims whose lanes are there."""
    lines = ["| figure | what the paper says | | by how much |", "|---|---|---|---|"]
    for claim in claims:
        if not there([claim.lanes]):
            continue
        table = lanes(claim.lanes)
        found = {name: accounts.interval(of(table)) for name, of in claim.contrasts.items()}
        scale, unit = (100, "points") if claim.unit == "points" else (1, claim.unit)
        digits = 4 if "R2" in claim.unit else 3 if "loss" in claim.unit else 1
        words = [f"{name} {accounts.told(one, scale, '+', digits)}" for name, one in found.items()]
        verdict = accounts.verdict(list(found.values()))
        stream = EFFECTS.get(claim.lanes, claim.lanes)
        if "split" in stream and not presence.is_present(fallen(stream)):
            verdict = "effect not present here"
        says = printed.beside(claim.figure, claim.says)
        cells = claim.figure, says, f"**{verdict}**", f"{'; '.join(words)} {unit}"
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def columns_of_clones(table: Any) -> list[str]:
    """Returns the columns that say what an arm of clones is."""
    own = [column for column in _OF_CLONES if column in table]
    return list({*accounts.differing(table), *own})


def rows_of_arms(name: str, columns: Sequence[Column]) -> str:
    """Returns the table of the arms of kept lanes over the last tasks, accuracy and R2 of the first
    as well.
    """
    table = lanes(name)
    settings = accounts.differing(table)
    if columns is CLONES:
        table, settings = cloning.named(table, columns_of_clones(table)), ["network"]
    found = statistics.arms(table, settings)
    labels = statistics.arm_labels(table, settings)
    heads = [column.heading for column in columns]
    first = columns[0]
    lines = [
        f"| arm | {first.heading}, first task | {' | '.join(heads)} |",
        f"|{'---|' * (len(columns) + 2)}",
    ]
    for label, rows in zip(labels, found.rows, strict=True):
        cells = [label, _told(rows, first, slice(0, 1))]
        cells += [_told(rows, column, slice(-WINDOW, None)) for column in columns]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _told(rows: Any, column: Column, tasks: slice) -> str:
    found = accounts.interval(_means(rows, column.metric, tasks))
    return accounts.told(found, column.scale, digits=column.digits)


def _means(rows: Any, metric: str, tasks: slice) -> Any:
    """The mean of an arm over some tasks, seed by seed."""
    values = rows.pivot(index="task", columns="seed", values=metric)
    return values.iloc[tasks].mean().to_numpy()


def bare(name: str, where: Where = NOTHING) -> Any:
    """Returns the lanes of the first five seeds without norm and dropout, of several learning rates
    those with that of `where`, or else with the lowest.
    """
    table = lanes(name)
    found = table[table["norm"] == "none"]
    for dropout in (column for column in table if column.endswith(".dropout")):
        found = found[found[dropout].fillna(0) == 0]
    if "learning_rate" in found:
        rate = where.get("learning_rate", found["learning_rate"].min())
        found = found[found["learning_rate"] == rate]
    first = sorted(found["seed"].unique())[:FIRST]
    return found[found["seed"].isin(first)]


def fallen(name: str, where: Where = NOTHING) -> Any:
    """Returns `presence.fallen` of `bare`."""
    return presence.fallen(bare(name, where), ACCURACY)


def effects() -> str:
    """Returns a sentence for each network: whether its accuracy falls at all without norm."""
    news = "MLP, classes of Tiny ImageNet that are new in each task"
    fast = {"learning_rate": 0.01}
    named = [
        *((f"split_{model}", name, NOTHING) for model, name in NAMES.items()),
        ("foretelling_split", "MLP, learning rate 0.01", NOTHING),
        (FAST, "MLP, learning rate 0.01, of other seeds", NOTHING),
        (DIGITS["mlp"], "MLP on digits, learning rate 0.03", NOTHING),
        (DIGITS["cnn"], "CNN on digits, learning rate 0.03", NOTHING),
        (DIGITS["resnet18"], "ResNet-18 on digits, learning rate 0.02", NOTHING),
        (DIGITS["vit"], "ViT on digits, learning rate 0.01", NOTHING),
        (NEW, news, NOTHING),
        (NEW, f"{news}, learning rate 0.01", fast),
    ]
    said = [
        presence.told(words, fallen(name, where)) for name, words, where in named if there([name])
    ]
    return "\n".join(f"- {one.removeprefix('stream ')}" for one in said)


def readouts() -> str:
    """Returns the table of what the other readout says: accuracy among the classes of a task and
    among all outputs, over the last tasks without norm and dropout.
    """
    lines = [
        "| lanes | among the task's classes, % | among all outputs, % | less, points |",
        "|---|---|---|---|",
    ]
    for name in there([*(f"split_{model}" for model in MODELS), FAST, *DIGITS.values()]):
        rows = bare(name)
        own, all_ = (
            _means(rows, metric, slice(-WINDOW, None)) for metric in ("accuracy", "accuracy_of_all")
        )
        cells = [accounts.told(accounts.interval(one), 100) for one in (own, all_, own - all_)]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def blocks() -> dict[str, str]:
    """Returns what stands in README.md after each mark, by the mark."""
    made = {f"arms: {name}": rows_of_arms(name, ARMS[name]) for name in there(ARMS)}
    return {
        **made,
        **areas.blocks(),
        "readouts": readouts(),
        "effects": effects(),
        "claims": rows_of_claims(),
    }


def filled(text: str) -> str:
    """Returns the text of README.md with its tables."""
    return accounts.filled(text, blocks())


def main() -> int:
    """Writes the tables; returns the exit code."""
    writing.text(README, filled(README.read_text(encoding="utf-8")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
