"""The sentences of README.md whose numbers are those of committed tables."""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments import accounts, prose
from experiments.barriers import claims
from experiments.barriers.areas import RESULTS
from experiments.prose import Sentence, Told, short
from plasticity_jax.models import ACTIVATIONS
from plasticity_jax.theory.ranks import alpha

LANES = prose.Lanes(claims.LANES)
ACCURACY, DEAD, TWINS, RANK, R2 = (
    claims.ACCURACY,
    claims.DEAD,
    claims.TWINS,
    claims.RANK,
    claims.R2,
)
LOSS, CBP = "online_loss_mean", "Continual Backprop"
WIDTHS = (5, 10, 50, 100)
NAMES_OF_ALPHA = ["function", "eps", "simulated", "plain", "centered"]  # columns of figure A.2
BARE = {"norm": "none", "mlp.dropout": 0.0, "mlp.norm_affine": True}


def _first_tasks(count: int) -> dict[str, float]:
    """Mean loss over the first tasks of figure 5.2, by arm."""
    rows = prose.statistics(RESULTS / "figure_5.2.csv")
    return rows[rows["task"] < count].groupby("arm")["mean"].mean().to_dict()


@functools.cache
def bit_flipping() -> Mapping[str, Any]:
    """Of figure 5.2: the first task, the first ten, and the end."""
    end = prose.final(RESULTS / "figure_5.2_final.csv")
    apart = prose.final(RESULTS / "figure_5.2_final.csv", "minus")(LOSS, CBP)
    first, ten = _first_tasks(1), _first_tasks(10)
    return {
        "bare_first": short(first["none"]),
        "bare": end(LOSS, "none"),
        "cbp_first": short(first[CBP]),
        "cbp_ten": short(ten[CBP]),
        "cbp": end(LOSS, CBP),
        "less": Told(-apart.mean, -apart.high, -apart.low),
        "bare_rank": end(RANK, "none"),
        "dead": end(DEAD, "none"),
        "cbp_rank": end(RANK, CBP),
    }


@functools.cache
def by_width() -> Mapping[str, Any]:
    """Of figure 5.3: loss, duplicates and rank in the end by width, without and with continual
    backprop.
    """
    end = prose.final(RESULTS / "figure_5.3_final.csv")
    found: dict[str, Any] = {}
    for name, arm in (("bare", "width={}"), ("cbp", f"{CBP}, width={{}}")):
        for width in WIDTHS:
            for what, metric in (("loss", LOSS), ("twins", TWINS), ("rank", RANK)):
                found[f"{name}_{what}_{width}"] = end(metric, arm.format(width))
        found[f"{name}_twins"] = [short(found[f"{name}_twins_{width}"].mean, 3) for width in WIDTHS]
    return found


@functools.cache
def ranks() -> Mapping[str, Any]:
    """Of figures 3.1 and A.1 to A.4."""
    after = prose.statistics(RESULTS / "figure_3.1.csv").query("index == 1").set_index("function")
    one = {name: f"{value:.2f}" for name, value in after["effective_rank"].items()}
    matrix = prose.statistics(RESULTS / "figure_A.1.csv")
    formula = prose.statistics(RESULTS / "figure_A.2.csv").set_axis(NAMES_OF_ALPHA, axis=1)
    near = formula[(formula["eps"] - 0.022).abs() < 1e-3].set_index("function")
    shown = prose.statistics(RESULTS / "figure_A.3.csv").set_index(["function", "scale", "shift"])
    maps = prose.statistics(RESULTS / "figure_A.4.csv").dropna()
    most = maps.loc[maps.groupby("function")["alpha"].idxmax()].set_index("function")
    selu = maps[maps["function"] == "selu"]
    functions = [ACTIVATIONS[name] for name in ("relu", "tanh", "gelu")]
    return {
        "plain": [short(abs(alpha(one)), 3) for one in functions],
        "centered": [short(alpha(one, centred=True), 3) for one in functions],
        "most": most["alpha"],
        "frozen": {name: short(value) for name, value in most["frozen"].items()},
        "silent": selu.loc[selu["frozen"] == 1, "alpha"].max(),
        "scaled": ", ".join(value for name, value in one.items() if name.startswith("tanh")),
        "sign": one["sign"],
        "input": one["input"],
        "before": set(matrix["before"]).pop() if matrix["before"].nunique() == 1 else None,
        "after": set(matrix["after"]).pop() if matrix["after"].nunique() == 1 else None,
        "relu": near.loc["relu"],
        "gelu": near.loc["gelu"],
        "tanh_100": shown.loc[("tanh", 100, 0)],
        "relu_low": shown.loc[("relu", 1, -4)],
        "relu_high": shown.loc[("relu", 1, 2)],
        "frozen_100": short(shown.loc[("tanh", 100, 0), "frozen"]),
        "frozen_high": short(shown.loc[("relu", 1, 2), "frozen"], 3),
        "alpha_high": short(shown.loc[("relu", 1, 2), "alpha"]),
    }


@functools.cache
def on_digits() -> Mapping[str, Any]:
    """Of the MLP on digits: how many networks fall, and what norms do to them."""
    name = "split_digits"
    bare = LANES.values(name, BARE, ACCURACY)
    lost = 100 * (bare.iloc[0] - bare.iloc[-5:].mean())
    few = sorted(lost)[:2]
    fallen = claims.fallen(name)
    others = 100 * (fallen["best"] - fallen["last"])[~fallen["fell"]]
    normed = {norm: {**BARE, "norm": norm} for norm in ("batch", "layer")}
    plain = {norm: {**BARE, "norm": norm, "mlp.norm_affine": False} for norm in normed}
    kept = [LANES.values(name, where, ACCURACY).iloc[-5:].mean().min() for where in normed.values()]
    found: dict[str, Any] = {
        "fell": int(fallen["fell"].sum()),
        "others": sorted({f"{value:.1f}" for value in others}),
        "much": int(np.floor(sorted(lost)[2])),
        "few": [f"{value:.0f}" for value in reversed(few)],
        "dead": LANES.end(name, BARE, DEAD),
        "kept": f"{np.floor(1000 * min(kept)) / 10:.1f}",
        "twins": LANES.end(name, BARE, TWINS),
    }
    for norm in normed:
        for what, where in (("", normed[norm]), ("_plain", plain[norm])):
            for metric in (DEAD, TWINS, RANK):
                found[f"{norm}{what}_{metric}"] = LANES.end(name, where, metric)
    return found


def _dropped(model: str) -> Mapping[str, Told]:
    """By how much a network on digits ends lower with dropout, without norm."""
    where = {"norm": "none", f"{model}.norm_affine": True}
    arms = [{**where, f"{model}.dropout": share} for share in (0.0, 0.1)]
    return {"less": LANES.more(claims.DIGITS[model], (arms[0], arms[1]), ACCURACY)}


@functools.cache
def fast() -> Mapping[str, Any]:
    """Of the MLP at the rate at which accuracy falls: what norms keep, and what their scale and
    offset do.
    """
    found: dict[str, Any] = {"bare": LANES.end(claims.FAST, BARE, ACCURACY)}
    for norm in ("batch", "layer"):
        normed = {**BARE, "norm": norm}
        found[norm] = LANES.end(claims.FAST, normed, ACCURACY)
        for what, own in (("", normed), ("_plain", {**normed, "mlp.norm_affine": False})):
            for metric in (DEAD, RANK):
                found[f"{norm}{what}_{metric}"] = LANES.end(claims.AFFINE_FAST, own, metric)
    return found


def _long(rate: float) -> Told:
    return LANES.task("split_long", 4, {"learning_rate": rate}, ACCURACY)


def _twins(model: str) -> Mapping[str, Told]:
    """Duplicates and rank of a network by norm."""
    found = {}
    for norm in ("none", "batch", "layer"):
        where = {"norm": norm, f"{model}.dropout": 0.0}
        found[norm] = LANES.end(f"split_{model}", where, TWINS)
        found[f"{norm}_rank"] = LANES.end(f"split_{model}", where, RANK)
    return found


@functools.cache
def cloned_mlp() -> Mapping[str, Any]:
    """Of figure 4.1."""
    end = prose.final(RESULTS / "figure_4.1_final.csv")
    apart = prose.final(RESULTS / "figure_4.1_final.csv", "minus")
    noisy, dropped = "cloned, noise 0.01 x 0.999^t", "cloned, dropout 0.1"
    return {
        "r2": end(R2, "cloned"),
        "trap": int(end("trap", "cloned").mean),
        "noise": end(R2, noisy),
        "dropout": end(R2, dropped),
        "rank": end(RANK, "cloned"),
        "noise_rank": end(RANK, noisy),
        "dropout_rank": end(RANK, dropped),
        "loss": end("loss", "cloned"),
        "bare_loss": end("loss", "not cloned"),
        "less": apart("loss", "cloned"),
        "dropout_loss": end("loss", dropped),
        "bare_dropout_loss": end("loss", "not cloned, dropout 0.1"),
        "neighbors": end(R2, "not cloned"),
    }


def _noisy(scale: float, decay: float) -> accounts.Where:
    return {
        "surgery": "clone",
        "method": "gradient_noise",
        "gradient_noise.scale": scale,
        "gradient_noise.decay": decay,
    }


@functools.cache
def by_noise() -> Mapping[str, Any]:
    """Of figures B.6 to B.9: noise in one step alone, and much of it."""
    exact = {"surgery": "clone", "method": "none"}
    little = 1 - LANES.end("noise_vit", _noisy(0.01, 0.0), R2).mean
    more = 1 - LANES.end("noise_vit", _noisy(0.05, 0.0), R2).mean
    once = LANES.values("noise_mlp", _noisy(0.01, 0.0), R2)
    return {
        "start": short(float(once.iloc[0].mean()), 3),
        "end": LANES.end("noise_mlp", _noisy(0.01, 0.0), R2),
        "loss_slow": LANES.end("noise_mlp", _noisy(0.05, 0.999), "loss"),
        "loss": LANES.end("noise_mlp", _noisy(0.05, 1.0), "loss"),
        "exact": LANES.end("noise_mlp", exact, "loss"),
        "vit_little": f"{little:.6f}".replace("0.", ".", 1),
        "vit_more": f"{more:.5f}".replace("0.", ".", 1),
    }


@functools.cache
def staying(name: str = "staying") -> Mapping[str, Any]:
    """The largest of three seeds by training and network, and how many runs are as foretold."""
    rows = prose.statistics(RESULTS / f"{name}.csv")
    most = rows.groupby(["training", "network"])[["certificate", "distance"]].max()
    order = ["mlp", "cnn", "resnet18", "vit"]

    def told(training: str, of: str, how: str = ".2g") -> str:
        values = most.loc[training][of].loc[order]
        return ", ".join(f"{value:{how}}".replace("0.", ".", 1) for value in values)

    kept = most.drop(index=["noise", "dropout"], level="training")
    return {
        "noise": told("noise", "certificate", ".2f"),
        "noise_distance": told("noise", "distance"),
        "dropout": told("dropout", "certificate", ".2f"),
        "dropout_distance": told("dropout", "distance"),
        "kept": f"{float(kept.to_numpy().max()):g}",
        "right": int((rows["foretold"] == rows["parted"]).sum()),
    }


def staying_on_images() -> Mapping[str, Any]:
    """The same on a part of CIFAR-10."""
    return staying("staying_cifar10")


def cases(name: str) -> Mapping[str, Any]:
    """How many cases a foretelling is of, and what intervals leave out a chance of a half."""
    rows = prose.statistics(RESULTS / f"{name}.csv").set_index("score")
    apart = rows[(rows["low"] > 0.5) | (rows["high"] < 0.5)]
    return {
        "cases": set(rows["cases"]).pop(),
        "falls": set(rows["falls"]).pop(),
        "lanes": set(rows["lanes"]).pop(),
        "apart": ", ".join(apart.index),
        "trap": f"{short(rows.loc['trap', 'area'])} [{short(rows.loc['trap', 'low'])}, "
        f"{short(rows.loc['trap', 'high'])}]",
    }


def first_fall(name: str) -> list[int]:
    """The task, from 1, in which each network of a foretelling first has less than 90 % of the mean
    of its tasks 2 to 5.
    """
    values = LANES.values(name, {"norm": "layer"}, ACCURACY)
    low = values < 0.9 * values.iloc[1:5].mean()
    low.iloc[:5] = False
    return [int(column.to_numpy().argmax()) + 1 for _, column in low.items() if column.any()]


def _always_frozen(name: str) -> int:
    """The task, from 1, from which on a frozen unit is the nearer trap in every network."""
    nearer = LANES.values(name, {"norm": "layer"}, "trap/manifold").mean(axis=1)
    return int(nearer[nearer < 1].index.max()) + 2


@functools.cache
def trap_on_mnist() -> Mapping[str, Any]:
    """How far the networks of figure 1a are from clones, by time."""
    fell = first_fall("foretelling_mnist")
    where = {"norm": "layer"}
    values = LANES.values("foretelling_mnist", where, "trap")
    at = [values.iloc[task - 1, seed] for seed, task in enumerate(fell)]
    frozen = {
        f"frozen_{task}": LANES.task("foretelling_mnist", task, where, "trap/frozen_distance")
        for task in (1, 5, 10, 15)
    }
    return {
        **frozen,
        "always": _always_frozen("foretelling_mnist"),
        "count": len(fell),
        "earliest": min(fell),
        "latest": max(fell),
        "first": short(float(values.iloc[0].mean())),
        "falling": short(float(np.mean(at))),
        "last": short(float(values.iloc[-1].mean())),
    }


@functools.cache
def trap_on_digits() -> Mapping[str, Any]:
    """How far the networks of digits are from frozen and from cloned units, by time."""
    course = functools.partial(LANES.task, "foretelling_digits", where={"norm": "layer"})
    found: dict[str, Any] = {}
    for task in (1, 4, 9, 21):
        found[f"frozen_{task}"] = course(number=task, metric="trap/frozen_distance")
        found[f"accuracy_{task}"] = course(number=task)
    found["clone_1"] = course(number=1, metric="trap")
    found["clone_21"] = course(number=21, metric="trap")
    return {
        **found,
        "fell": len(first_fall("foretelling_digits")),
        "always": _always_frozen("foretelling_digits"),
    }


SENTENCES = (
    Sentence("{bare_first} in the first task, {bare:.2z} in the end;", bit_flipping),
    Sentence(
        "{cbp_first} in the first task, {cbp_ten} over the first ten, {cbp:.3z} in the end; "
        "{less:.2z} less than without",
        bit_flipping,
    ),
    Sentence("{bare_rank:.2z} in the end: {dead:.1%} of units are dead", bit_flipping),
    Sentence("then {cbp_rank:.2}", bit_flipping),
    Sentence(
        "{bare_loss_5:.2zm}, {bare_loss_10:.2z}, {bare_loss_50:.2z}, {bare_loss_100:.2z} | agrees",
        by_width,
    ),
    Sentence(
        "{cbp_loss_5:.2zm}, {cbp_loss_10:.2zm}, {cbp_loss_50:.3z}, {cbp_loss_100:.3z} | lower",
        by_width,
    ),
    Sentence(
        "| {bare_twins[0]}, {bare_twins[1]}, {bare_twins[2]}, {bare_twins[3]}: dead units", by_width
    ),
    Sentence(
        "| {cbp_twins[0]}, {cbp_twins[1]}, {cbp_twins[2]}, {cbp_twins_100:.3z} | agrees", by_width
    ),
    Sentence(
        "{cbp_rank_5:.1m}, {cbp_rank_10:.1m}, {cbp_rank_50:.1m}, {cbp_rank_100:.1}; without it "
        "{bare_rank_5:.2zm}, {bare_rank_10:.2zm}, {bare_rank_50:.2zm}, {bare_rank_100:.1z}",
        by_width,
    ),
    Sentence("| {scaled}; {sign}; {input} (one draw of the mixing) |", ranks),
    Sentence("| {before} before, {after} after, for all five |", ranks),
    Sentence(
        "for ReLU at eps .022 it says {relu.plain:.2f}, the simulation {relu.simulated:.2f}, "
        "and {relu.centered:.2f} with alpha centered; GELU {gelu.plain:.2f}, "
        "{gelu.simulated:.2f}, {gelu.centered:.2f}",
        ranks,
    ),
    Sentence(
        "tanh at a = 100: {tanh_100.alpha:.1f} and {frozen_100}; ReLU at b = -4: "
        "{relu_low.alpha:.1f} and {relu_low.frozen:.1f}, at b = 2: {alpha_high} and {frozen_high}",
        ranks,
    ),
    Sentence(
        "| {plain[0]}, {plain[1]} and {plain[2]}; with alpha centered {centered[0]}, {centered[1]} "
        "and {centered[2]} |",
        ranks,
    ),
    Sentence(
        "tanh {most[tanh]:.1f}, where {frozen[tanh]} of the inputs are frozen; sigmoid "
        "{most[sigmoid]:.1f} ({frozen[sigmoid]}), ReLU {most[relu]:.0f} ({frozen[relu]}), SELU "
        "{most[selu]:.1f} ({frozen[selu]}), whose alpha is {silent:.1f} where all",
        ranks,
    ),
    Sentence(
        "at {batch:.0pm} and {layer:.0%m} where the bare network ends at {bare:.0%m}, a", fast
    ),
    Sentence(
        "({batch_effective_rank:.1m} with batch norm against {batch_plain_effective_rank:.1m} "
        "without, {layer_effective_rank:.1m} and {layer_plain_effective_rank:.1m} with layer norm) "
        "and let units die ({batch_dead_fraction:.1pm} and {layer_dead_fraction:.1%m} against "
        "{batch_plain_dead_fraction:.1pm} and {layer_plain_dead_fraction:.1%m}), as on digits",
        fast,
    ),
    Sentence("at .01 accuracy is {slow:.0pm} % in the fourth task", lambda: {"slow": _long(0.01)}),
    Sentence(
        "{fell} of these 5 seeds fall by ten points, the other two by {others[0]} each", on_digits
    ),
    Sentence(
        "by {much} points or more, the others by {few[0]} and {few[1]}, and {dead:.0pm} % of units "
        "are dead; with either norm all five keep {kept} % and more",
        on_digits,
    ),
    Sentence(
        "from {twins:.0pm} % to {batch_duplicate_fraction:.0pm} % and "
        "{layer_duplicate_fraction:.0pm} %. Scale and offset *lower* the rank "
        "({batch_plain_effective_rank:.1m} to {batch_effective_rank:.1m}, "
        "{layer_plain_effective_rank:.1m} to {layer_effective_rank:.1m}) and let units die "
        "({batch_plain_dead_fraction:.0pm} to {batch_dead_fraction:.0pm} %, "
        "{layer_plain_dead_fraction:.0pm} to {layer_dead_fraction:.0pm} %)",
        on_digits,
    ),
    Sentence("makes the loss larger, agreed, by {less:.1p} points", lambda: _dropped("vit")),
    Sentence(
        "its rank is {none_rank:.0m}, with layer norm none is and its rank is {layer_rank:.0m}",
        lambda: _twins("vit"),
    ),
    Sentence(
        "Those of the CNN go up, from {none:.0pm} % to {batch:.0pm} % and {layer:.0pm} %",
        lambda: _twins("cnn"),
    ),
    Sentence("R2 {r2:.4m} in every seed", cloned_mlp),
    Sentence("(`trap` {trap})", cloned_mlp),
    Sentence("| 1 to {noise:.3z} |", cloned_mlp),
    Sentence("| 1 to {dropout:.3z} |", cloned_mlp),
    Sentence("| {noise_rank:.1} against {rank:.1} | not told |", cloned_mlp),
    Sentence("| {dropout_rank:.1} against {rank:.1} | agrees |", cloned_mlp),
    Sentence(
        "{loss:.3z} against {bare_loss:.3z}, paired difference {less:.2z} | disagrees: "
        "the clone, which has four times the connections, ends lower; with dropout "
        "{dropout_loss:.3zm} against {bare_dropout_loss:.3zm} |",
        cloned_mlp,
    ),
    Sentence("is {neighbors:.2zm} here, not 0", cloned_mlp),
    Sentence("R2 is {start} after five epochs and {end:.3zm} in the end", by_noise),
    Sentence(
        "costs loss ({loss_slow:.3zm} and {loss:.3zm} against {exact:.3zm}) and raises", by_noise
    ),
    Sentence("takes {vit_little} (size .01) to {vit_more} (.05) of R2", by_noise),
    Sentence("| {kept}, {kept}, {kept}, {kept} with each of the four |", staying),
    Sentence("| noise (.01) | {noise} | {noise_distance} |", staying),
    Sentence("| dropout (.1) | {dropout} | {dropout_distance} |", staying),
    Sentence("In all {right} runs the certificate foretells", staying),
    Sentence("{kept}, {kept}, {kept}, {kept} there too with each of the four", staying_on_images),
    Sentence("noise {noise} and at last {noise_distance}", staying_on_images),
    Sentence("dropout {dropout} and {dropout_distance}; all {right} runs", staying_on_images),
    Sentence("30 seeds; all {fell} networks fell", trap_on_digits),
    Sentence(
        "The nearest unit has to move by {frozen_1:.2z} of its size to be frozen after the first "
        "task, by {frozen_4:.2z} after the fourth, {frozen_9:.2z} after the ninth and "
        "{frozen_21:.3z} after the twenty-first, while accuracy goes from {accuracy_1:.1pm} to "
        "{accuracy_4:.1pm}, {accuracy_9:.1pm} and {accuracy_21:.1p} %; to be a clone, by "
        "{clone_1:.2z} and {clone_21:.2z}. From task {always} on a frozen unit is the nearer trap "
        "in every network",
        trap_on_digits,
    ),
    Sentence("All {count} networks fell, at tasks {earliest} to {latest};", trap_on_mnist),
    Sentence(
        "there are {cases} cases of {lanes} networks, {falls} of them within five tasks",
        lambda: cases("foretelling_mnist"),
    ),
    Sentence(
        "(a relative distance of {first} in the first task, {falling} when accuracy is lost, "
        "{last} in the end)",
        trap_on_mnist,
    ),
    Sentence(
        "The nearest unit has to move by {frozen_1:.2z} of its size to be frozen after the first "
        "task, by {frozen_5:.3z} after the fifth, {frozen_10:.4z} after the tenth and "
        "{frozen_15:.5z} after the fifteenth; from task {always} on it is the nearer trap in "
        "every network",
        trap_on_mnist,
    ),
    Sentence(
        "{cases} cases of {lanes} networks are left, {falls} of them within five tasks of the "
        "fall. No score is told from chance: every interval holds .5, but for the distance from a "
        "clone ({trap})",
        lambda: cases("foretelling_split"),
    ),
)
