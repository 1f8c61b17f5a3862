"""The sentences of README.md whose numbers are those of committed tables."""

import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments import accounts, presence, prose
from experiments.disentangling import acting, claims, factorial, redrawn, rewards, settings
from experiments.disentangling.interventions import HYBRID
from experiments.prose import Sentence, Told
from plasticity_jax.reporting import over_games

RESULTS, LANES = redrawn.RESULTS, rewards.LANES
BEST, DORMANT, NORM = "peak", "dormant_fraction", "parameter_norm"
CHANGED = {"random_labels.draw": "classes"}
DRAWN = {"random_labels.draw": "iid"}


# the factorial


@functools.cache
def _outcomes(name: str) -> Any:
    return redrawn.cells(name)


def _cells(found: Any, outcome: str, *on: str) -> Any:
    """What the cell with these factors reached, by seed, of the outcomes of a factorial."""
    for factor in factorial.factors(found):
        found = found[found[factor] == int(factor in on)]
    return found.set_index("seed")[outcome]


def _gain(name: str, outcome: str, factor: str, *beside: str) -> Told:
    """What a factor adds beside others, in each seed."""
    found = _outcomes(name)
    more = _cells(found, outcome, factor, *beside) - _cells(found, outcome, *beside)
    return prose.of_seeds(more.to_numpy())


@functools.cache
def interactions() -> Mapping[str, Told]:
    """The least and the largest interaction of two factors on random labels."""
    found = factorial.effects(_outcomes("labels")).set_index("effect")
    pairs = [
        Told(*map(float, found.loc[name, ["mean", "low", "high"]]))
        for name in found.index
        if name.count(" x ") == 1
    ]
    return {"least": min(pairs), "most": max(pairs)}


def _early() -> Any:
    """The factorial with gradual change after six tasks, by the last three of them."""
    table = LANES.table("factorial_gradual")
    return factorial.outcomes(table[table["task"] < 6], "online_accuracy", 3)


@functools.cache
def gradual_change() -> Mapping[str, Told]:
    """What gradual change adds beside other factors, after six tasks and after twenty."""
    early, gradual = _early(), factorial.GRADUAL

    cell = functools.partial(_cells, early, "outcome")
    effects = factorial.effects(early).set_index("effect")
    together = effects.loc[f"layer norm x {gradual}", ["mean", "low", "high"]]
    alone = prose.of_seeds((cell(gradual) - cell()).to_numpy())
    lost = prose.of_seeds((cell("layer norm") - cell("layer norm", gradual)).to_numpy())
    late = {
        name: _gain("gradual", "outcome", gradual, *beside)
        for name, beside in (
            ("nothing", ()),
            ("norm", ("layer norm",)),
            ("smoothed", ("L2", "output")),
            ("all", factorial.FACTORS),
        )
    }
    return {"alone": alone, "lost": lost, "together": Told(*map(float, together)), **late}


@functools.cache
def peaks() -> Mapping[str, Told]:
    """What L2 adds to the best tasks beside layer norm."""
    return {name: _gain(name, BEST, "L2", "layer norm") for name in ("labels", "composite")}


# figures


def _offsets(metric: str) -> dict[str, Told]:
    end = prose.final(RESULTS / "figure_1a_final.csv")
    return {
        f"of_{offset}": end(metric, f"target_offset.offset={offset}")
        for offset in (0, 1, 10, 100, 1000)
    }


@functools.cache
def offsets() -> Mapping[str, Any]:
    """Of figure 1a: the error by the mean of the targets, in the end and in the first task."""
    firsts = {}
    for offset in (0, 1, 10, 100, 1000):
        where = {"target_offset.offset": float(offset)}
        firsts[f"first_{offset}"] = LANES.task("figure_1a", 1, where, "squared_error")
    return {**_offsets("squared_error"), **firsts}


@functools.cache
def afterwards() -> Mapping[str, str]:
    """Of figure 1a with a mean of 0 after the first task: the error by the mean of the first."""
    found = {}
    for name, task, digits in (("second", 2, (3, 3, 3, 2, 2)), ("tenth", 10, (3,) * 5)):
        means = [
            LANES.task("figure_1a_zero", task, {"target_offset.offset": offset}, "squared_error")
            for offset in settings.OFFSETS
        ]
        found[name] = ", ".join(f"{one.mean:.{n}f}" for one, n in zip(means, digits, strict=True))
    return found


def first_rank() -> Mapping[str, Told]:
    """Of figure 1a: the kernel's rank after the first task with a mean of 100."""
    return {"rank": LANES.task("figure_1a", 1, {"target_offset.offset": 100.0}, "ntk")}


@functools.cache
def switch(name: str) -> Mapping[str, Told]:
    """Of figure 2a: what is measured some steps after a switch, as {arm}_{task}_{step}."""
    rows = prose.statistics(RESULTS / f"{name}_switch.csv")
    found = {}
    names = {DORMANT: "", "preactivation": "mean_", "gradient_alignment": "along_"}
    for metric, short in names.items():
        for row in rows[rows["metric"] == metric].to_dict("records"):
            arm = "none" if row["arm"] == "no norm" else row["arm"]
            key = f"{short}{arm}_{row['task'] + 1}_{row['point']}"
            found[key] = Told(row["mean"], row["low"], row["high"])
    return found


@functools.cache
def linearized() -> Mapping[str, Told]:
    """Of figure 2b: shares of linearized units after the last task, by both rules."""
    found = {}
    for activation, norm, draw in claims.READINGS:
        where = {"activation": activation, "norm": norm, "random_labels.draw": draw}
        for column, short in ((claims.UNITS, ""), (claims.LINES, "line_")):
            key = f"{short}{activation}_{norm}_{draw}"
            found[key] = LANES.task("figure_2b", -1, where, column)
    return found


@functools.cache
def interventions() -> Mapping[str, Any]:
    """Of figure 4: accuracy in the end by intervention, less nothing, and in the first task."""
    end = prose.final(RESULTS / "figure_4_final.csv")
    apart = prose.final(RESULTS / "figure_4_final.csv", "minus")
    decayed = ", l2.strength=1e-05"
    names = {
        "nothing": "none",
        "l2": f"L2{decayed}",
        "rescaled": "weight norm constraint",
        "feature": "feature norm",
        "redo": "ReDo",
        "infer": "InFeR",
        "penalty": "gradient penalty",
        "layer": "layer",
        "layer_l2": f"L2, layer{decayed}",
        "batch": "batch",
        "batch_l2": f"L2, batch{decayed}",
        "crelu": "crelu",
        "both": f"L2, batch+layer{decayed}",
        "little": "L2, l2.strength=1e-06",
        "gelu": "gelu",
        "smoothed": "smoothed",
    }
    found: dict[str, Any] = {key: end("online_accuracy", arm) for key, arm in names.items()}
    lost = apart("online_accuracy", "weight norm constraint")
    found["worse"] = Told(-lost.mean, -lost.high, -lost.low)
    found["leaky"], found["tanh"] = (
        apart("online_accuracy", arm) for arm in ("leaky relu", "tanh")
    )
    first = prose.statistics(RESULTS / "figure_4.csv").query("task == 0").set_index("arm")["mean"]
    found["slow"] = 100 * float(first["weight norm constraint"])
    plain = [arm for arm in first.index if "scale invariant" not in arm]  # (those are slow too)
    others = first[plain].drop("weight norm constraint")
    found["others"] = int(np.floor(100 * others.min()))
    return found


@functools.cache
def axes_of_norms() -> Mapping[str, Told]:
    """Of figure 25: accuracy in the end by what a norm's mean and deviation are over."""
    end = prose.final(RESULTS / "figure_25_final.csv")
    names = {
        "none": "no norm",
        "layer": "layer",
        "batch": "batch",
        "both": "batch+layer",
        "rms": "rms",
        "hybrid": "batch mean+layer deviation",
        "other": "layer mean+batch deviation",
    }
    return {key: end("online_accuracy", arm) for key, arm in names.items()}


# by rule


def present(stream: str, images: str = "cifar10") -> Mapping[str, Any]:
    """How many of the seeds that chose a stream fall on some images, from where to where."""
    metric = redrawn.streams.STREAMS[stream].metric
    found = presence.fallen(LANES.table(f"presence_{images}_{stream}"), metric)
    best, last = float(found["best"].mean()), float(found["last"].mean())
    return {
        "fell": int(found["fell"].sum()),
        "of": len(found),
        "best": 100 * best,
        "last": 100 * last,
        "error": best,
        "error_last": last,
    }


def _cycles(name: str, share: float) -> Any:
    """Mean accuracy over seeds while all labels are redrawn once, in per cent, by cycle."""
    where = {"random_labels.share": share}
    values = LANES.values(name, where, "online_accuracy").mean(axis=1)
    return 100 * values.groupby(values.index // claims.CYCLE).mean()


@functools.cache
def shares() -> Mapping[str, float]:
    """Of figure 1b on digits: the second cycle with 1 % at a time, the first with all, and ends."""
    slow, whole = _cycles("figure_1b", 0.01), _cycles("figure_1b", 1.0)
    lost = accounts.decline({"random_labels.share": 0.01}, "online_accuracy", claims.CYCLE)(
        LANES.table("figure_1b_cifar10")
    )
    return {
        "second": slow.iloc[1],
        "end": slow.iloc[-1],
        "whole": whole.iloc[0],
        "whole_end": whole.iloc[-1],
        "lost": 100 * lost.mean(),
    }


@functools.cache
def kernels() -> Mapping[str, Any]:
    """Of figure 3: accuracy, rank of the kernel, norm and sharpness over ten tasks; and of the
    kernels of five seeds.
    """
    relu = {"norm": "none", "activation": "relu"}
    leaky = {"norm": "none", "activation": "leaky_relu"}
    values = {
        metric: LANES.values("figure_3", relu, metric)
        for metric in ("online_accuracy", "ntk", NORM, "hessian_top")
    }
    rows = prose.statistics(RESULTS / "kernels.csv").set_index(["norm", "network"])

    def of(norm: str, network: str, what: str = "rank") -> Told:
        row = rows.loc[(norm, network)]
        return Told(*(float(row[f"{what}{end}"]) for end in ("", "_low", "_high")))

    sharp = values["hessian_top"].mean(axis=1)
    return {
        "first": 100 * float(values["online_accuracy"].iloc[0].mean()),
        "last": 100 * float(values["online_accuracy"].iloc[-1].mean()),
        "rank": float(values["ntk"].iloc[0].mean()),
        "most": float(values["ntk"].iloc[-1].max()),
        "norm": float(values[NORM].iloc[4].mean()),
        "sharp": float(sharp.max()),
        "sharpest": int(sharp.to_numpy().argmax()) + 1,
        "flat": float(sharp.iloc[-1]),
        "leaky_rank": LANES.task("figure_3", -1, leaky, "ntk"),
        "leaky": LANES.task("figure_3", -1, leaky),
        "leaky_norm": LANES.task("figure_3", -1, leaky, NORM),
        "drawn_rank": of("no norm", "as drawn"),
        "drawn_normed_rank": of("layer norm", "as drawn"),
        "mean_rank": of("no norm", "mean of targets 100"),
        "blocks_rank": of("no norm", "random labels, ReLU"),
        "normed_rank": of("layer norm", "mean of targets 100"),
        "labels_rank": of("layer norm", "random labels, ReLU"),
        "mean_factor": of("no norm", "mean of targets 100", "one_factor"),
        "drawn_factor": of("no norm", "as drawn", "one_factor"),
        "normed_factor": of("layer norm", "mean of targets 100", "one_factor"),
        "labels_factor": of("no norm", "random labels, ReLU", "one_factor"),
    }


@functools.cache
def features() -> Mapping[str, Any]:
    """Of figures 13 to 15 on CIFAR-10: the largest singular value after the last task, what its
    direction carries, and the kernel's rank.
    """

    def last(norm: str, offset: float, column: str) -> Told:
        where = {"norm": norm, "target_offset.offset": offset}
        return LANES.task("figure_13_cifar10", -1, where, column)

    def by_mean(norm: str, column: str, digits: int) -> str:
        means = [last(norm, offset, column).mean for offset in settings.OFFSETS]
        return ", ".join(f"{mean:,.{digits}f}" for mean in means)

    direction = "feature_spectrum/top_direction"
    carried = [last(norm, 100.0, direction).mean for norm in ("none", "layer")]
    return {
        "none": by_mean("none", "feature_spectrum/largest", 0),
        "layer": by_mean("layer", "feature_spectrum/largest", 0),
        "rank": by_mean("none", "ntk", 1),
        "normed_rank": by_mean("layer", "ntk", 1),
        "at_10": last("none", 10.0, direction),
        "at_100": int(np.floor(100 * min(carried))),
    }


def loss_of_gelu() -> Mapping[str, Any]:
    """Of figure 2b on CIFAR-10: what GELU loses, and how far preactivations drift."""
    where = {"norm": "none", "activation": "gelu", **DRAWN}
    values = LANES.values("figure_2b_cifar10", where, "online_accuracy")
    drift = LANES.task("figure_2b_cifar10", -1, where, "preactivation")
    return {"lost": 100 * float((values.iloc[0] - values.iloc[-3:].mean()).mean()), "drift": drift}


@functools.cache
def networks() -> Mapping[str, Any]:
    """Of figures 4 and 25 with a CNN and a ResNet-18: what norms end behind."""
    hybrid, other = {"norm": HYBRID}, {"norm": "layer_mean+batch_deviation"}
    resnet = "figure_4_resnet"

    def behind(size: float) -> Told:
        batch, layer = ({"norm": norm, "l2.strength": size} for norm in ("batch", "layer"))
        return LANES.more("figure_4_cnn", (batch, layer), window=3)

    return {
        "behind": behind(0.0),
        "decayed": behind(1e-5),
        "batch": LANES.end(resnet, {"norm": "batch"}, window=2),
        "hybrid": LANES.end(resnet, hybrid, window=2),
        "other": LANES.more(resnet, (hybrid, other), window=2),
        "layer": LANES.more(resnet, (hybrid, {"norm": "layer"}), window=2),
        "rms": LANES.more(resnet, (hybrid, {"norm": "rms"}), window=2),
        "both": LANES.end(resnet, {"norm": "batch+layer"}, window=2),
    }


def _arm(norm: str, head: str, size: float, smoothing: float = 0.0) -> accounts.Where:
    own = {} if head == "linear" else {"two_hot.smoothing": smoothing}
    return {"norm": norm, "head": head, "l2.strength": size, **own}


def _ends(lanes: str, *norms: str, smoothing: tuple[float, ...] = (0.0, 0.01)) -> list[float]:
    """Accuracy in the end, in per cent, of the arms with two-hot targets."""
    every = itertools.product(norms, (0.0, 1e-5), smoothing)
    return [
        100 * LANES.end(lanes, _arm(norm, "two_hot", size, smooth)).mean
        for norm, size, smooth in every
    ]


def _lost(lanes: str, norm: str, size: float = 0.0, smoothing: float = 0.0) -> float:
    """What an arm with two-hot targets loses from its first task to its last five, in points."""
    where = _arm(norm, "two_hot", size, smoothing)
    return 100 * (LANES.task(lanes, 1, where).mean - LANES.end(lanes, where).mean)


@functools.cache
def together() -> Mapping[str, Any]:
    """Of figure 5: what two-hot targets learn and lose, by stream and norm."""
    normed, plain = _arm("layer", "two_hot", 0.0), _arm("none", "two_hot", 0.0)
    linear = _arm("layer", "linear", 0.0)
    bare = [
        _lost(lanes, "none", size, smoothing)
        for lanes, size, smoothing in itertools.product(
            ("figure_5b_mnist", "figure_5b_cifar10"), (0.0, 1e-5), (0.0, 0.01)
        )
    ]
    nothing = LANES.end("figure_5c", claims.NOTHING)
    smoothed = _ends("figure_5c", "none", "layer", smoothing=(0.01,))
    every = _ends("figure_5a_cifar10", "none", "layer", smoothing=(0.01,))
    without = _ends("figure_5a_cifar10", "none", "layer", smoothing=(0.0,))
    begun = [
        100 * LANES.task("figure_5c", 1, _arm(norm, "two_hot", size, 0.01)).mean
        for norm, size in itertools.product(("none", "layer"), (0.0, 1e-5))
    ]
    gained = [more - less for more, less in zip(every, without, strict=True)]
    whole = "figure_5a_cifar10"
    return {
        "learned": LANES.task("figure_5b", 1, normed),
        "linear": LANES.task("figure_5b", 1, linear),
        "left": LANES.end("figure_5b", normed),
        "least": min(bare),
        "most": max(bare),
        "first": LANES.task("figure_5b_cifar10", 1, plain),
        "end": LANES.end("figure_5b_cifar10", plain),
        "mnist": _lost("figure_5b_mnist", "layer"),
        "cifar": _lost("figure_5b_cifar10", "layer"),
        "growing": LANES.end("figure_5c", normed),
        "nothing": nothing,
        "cost": LANES.more("figure_5c", (claims.NOTHING, linear)),
        "few": 100 * nothing.mean - max(smoothed),
        "many": 100 * nothing.mean - min(smoothed),
        "begun": min(begun),
        "begun_most": max(begun),
        "bare_best": 100 * presence_of(whole)["best"].mean(),
        "bare_last": LANES.end(whole, claims.NOTHING),
        "normed_first": LANES.task(whole, 1, linear),
        "normed_second": LANES.task(whole, 2, linear),
        "hot_first": LANES.task(whole, 1, plain),
        "hot": LANES.end(whole, plain),
        "hot_normed": LANES.end(whole, normed),
        "hot_l2": LANES.end(whole, _arm("none", "two_hot", 1e-5)),
        "smoothed_least": min(every),
        "smoothed_most": max(every),
        "gained_least": min(gained),
        "gained_most": max(gained),
        "smoothed_first": LANES.task(whole, 1, _arm("layer", "two_hot", 1e-5, 0.01)),
    }


def presence_of(lanes: str) -> Any:
    """Returns `presence.fallen` of the arm without a remedy."""
    kept = claims.KEPT[lanes]
    table = LANES.table(lanes)
    for name, value in kept.bare.items():
        table = table[table[name] == value]
    return presence.fallen(table, kept.metric, kept.window)


# where an agent acts


def _reward(lanes: str, phase: int, greater: accounts.Where, lesser: accounts.Where) -> Told:
    """By how much the reward of one arm is above another's in a phase, from 1, seed by seed."""
    more, less = _rewards(lanes, phase, (greater, lesser))
    return prose.of_seeds((more - less).to_numpy())


def _rewards(lanes: str, phase: int, arms: Sequence[accounts.Where]) -> list[Any]:
    """The rewards of arms in a phase, from 1, each by seed."""
    return [LANES.values(lanes, where, rewards.REWARD).loc[phase - 1] for where in arms]


def _bandit(lanes: str, phase: int, size: float = 1e-5, **others: Any) -> Mapping[str, Told]:
    """What layer norm, L2, and L2 beside layer norm gain in a phase."""

    def arm(norm: str, strength: float) -> accounts.Where:
        return rewards.aged(norm, **{"l2.strength": strength}, **others)

    bare, normed, decayed, both = (
        arm(norm, strength) for norm, strength in (
            ("none", 0.0), ("layer", 0.0), ("none", size), ("layer", size)
        )
    )  # fmt: skip
    return {
        "norm": _reward(lanes, phase, normed, bare),
        "l2": _reward(lanes, phase, decayed, bare),
        "beside": _reward(lanes, phase, both, normed),
        "apart": _reward(lanes, phase, normed, decayed),
        "together": _interaction(lanes, phase, (bare, normed, decayed, both)),
    }


def _interaction(lanes: str, phase: int, arms: Sequence[accounts.Where]) -> Told:
    """What layer norm gains with L2 less what it gains without, in a phase, seed by seed."""
    bare, normed, decayed, both = _rewards(lanes, phase, arms)
    return prose.of_seeds(((both - decayed) - (normed - bare)).to_numpy())


@functools.cache
def bandit() -> Mapping[str, Any]:
    """Of the bandit on digits, in the tenth phase."""
    near, far = ({"dqn.gamma": gamma} for gamma in rewards.GAMMAS)
    found: dict[str, Any] = {f"near_{k}": v for k, v in _bandit("bandit", 10, **near).items()}
    found |= {f"far_{k}": v for k, v in _bandit("bandit", 10, **far).items()}
    for norm in rewards.NORMS:
        where = rewards.aged(norm, **{"l2.strength": 0.0}, **far)
        found[f"{norm}_dead"] = LANES.end("bandit", where, DORMANT, 1)
        found[f"{norm}_rank"] = LANES.end("bandit", where, "effective_rank", 1)
    return found


@functools.cache
def bandit_on_cifar10() -> Mapping[str, Any]:
    """Of the bandit on CIFAR-10, in the third phase."""
    lanes, found = "bandit_cifar10", {}
    for name, gamma in (("near", 0.0), ("far", 0.99)):
        own = {"dqn.gamma": gamma}
        found |= {f"{name}_{k}": v for k, v in _bandit(lanes, 3, **own).items()}
        found[f"{name}_little"] = _bandit(lanes, 3, 1e-6, **own)["beside"]
    far = {"l2.strength": 0.0, "dqn.gamma": 0.99}
    found["dead"] = LANES.task(lanes, 10, rewards.aged("none", **far), DORMANT)
    found["normed_dead"] = LANES.task(lanes, 3, rewards.aged("layer", **far), DORMANT)
    return found


def _in_game(lanes: str, game: str, task: int) -> Told:
    """What layer norm gains in a game, in a part from 1; -1 is the last."""
    own = {"minatar.game": game, "dqn.epsilon": 0.05}
    values = [
        LANES.values(lanes, rewards.aged(norm, **own), rewards.RETURN) for norm in ("layer", "none")
    ]
    place = task - 1 if task > 0 else task
    return prose.of_seeds((values[0].iloc[place] - values[1].iloc[place]).to_numpy())


@functools.cache
def minatar() -> Mapping[str, Any]:
    """Of MinAtar: what layer norm gains, over both games as well, and units that are dormant."""
    columns = ["norm", "minatar.game", "dqn.epsilon"]

    def over(lanes: str) -> list[Told]:
        scores = acting.normalised(LANES.table(lanes), columns, acting.MINATAR)
        found = [over_games.interquartile_mean(games) for games in scores.values()]
        return [Told(*map(float, one)) for one in found]

    bare, normed = over("minatar")
    longest_bare, longest_normed = over("minatar_long")
    where = rewards.aged("none", **{"minatar.game": "breakout", "dqn.epsilon": 0.05})
    longer = rewards.compared("minatar_breakout").set_index("norm")
    return {
        "breakout": _in_game("minatar", "breakout", -1),
        "asterix": _in_game("minatar", "asterix", -1),
        "bare": bare,
        "normed": normed,
        "longest_bare": longest_bare,
        "longest_normed": longest_normed,
        "dead_first": LANES.task("minatar", 1, where, DORMANT),
        "dead": LANES.task("minatar", -1, where, DORMANT),
        "longest": _in_game("minatar_long", "breakout", -1),
        "longest_asterix": _in_game("minatar_long", "asterix", -1),
        "longer": _in_game("minatar_breakout", "breakout", 6),
        "fresh": longer.loc["none", "fresh"],
        "fresh_normed": longer.loc["layer", "fresh"],
    }


@functools.cache
def turns() -> Mapping[str, Any]:
    """Of two games in turn: what layer norm gains in Breakout, units, and a player by chance."""
    own = rewards.in_turn()
    found = rewards.compared("minatar_turns").set_index(["minatar.game", "norm"])
    more = rewards.arm_of(own, "breakout", "layer", rewards.RETURN)
    more = more - rewards.arm_of(own, "breakout", "none", rewards.RETURN)
    dead = {}
    for game, norm in itertools.product(rewards.GAMES, rewards.NORMS):
        units = rewards.arm_of(own, game, norm, DORMANT).mean(axis=1)
        dead |= {f"{game}_{norm}_first": units.iloc[0], f"{game}_{norm}_last": units.iloc[-1]}
    return {
        "greedy": rewards.told(found.loc[("breakout", "none")], "greedy"),
        "greedy_normed": rewards.told(found.loc[("breakout", "layer")], "greedy"),
        "greedy_asterix": rewards.told(found.loc[("asterix", "none")], "greedy"),
        "greedy_asterix_normed": rewards.told(found.loc[("asterix", "layer")], "greedy"),
        "above": rewards.told(found.loc[("breakout", "none")], "last - fresh"),
        "above_normed": rewards.told(found.loc[("breakout", "layer")], "last - fresh"),
        "chance": rewards.told(found.loc[("asterix", "none")], "chance"),
        "first": prose.of_seeds(more.iloc[0].to_numpy()),
        "last": prose.of_seeds(more.iloc[-1].to_numpy()),
        "grown": prose.of_seeds((more.iloc[-1] - more.iloc[0]).to_numpy()),
        **{name: 100 * value for name, value in dead.items()},
    }


@functools.cache
def atari() -> Mapping[str, Any]:
    """Of the long run in Atari: the mean score from the fifth part on, and dormant units."""
    table = LANES.table("atari_long").sort_values("task")
    return {
        "score": float(table[rewards.SCORE].iloc[4:].mean()),
        "dead": 100 * float(table[DORMANT].iloc[-1]),
        "empty": int(table["greedy_return"].isna().sum()),
        "parts": len(table),
    }


SENTENCES = (
    Sentence(
        "between {least:+.1pm} and {most:+.1pm} points. On targets with an offset", interactions
    ),
    Sentence(
        "it gains {alone:.1pm} points [{alone_low:.1f}, {alone_high:.1f}] where there is nothing "
        "else and loses {lost:.1p} beside layer norm, an interaction of {together:+.1p}",
        lambda: _with_ends(gradual_change(), "alone"),
    ),
    Sentence(
        "({nothing:+.1p}), both arms being near guessing, but {norm:.1p} beside layer norm, "
        "{smoothed:.1p} beside L2 with smoothing, and {all:.1p} beside all three",
        gradual_change,
    ),
    Sentence(
        "differ by {labels:+.1pm} points [{labels_low:+.1f}, {labels_high:+.1f}] on `labels` and "
        "{composite:+.1p} on `composite`",
        lambda: _with_ends(peaks(), "labels"),
    ),
    Sentence(
        "{of_0:.3} at 0, {of_1:.3} at 1, {of_10:.3} at 10, {of_100:.2} at 100, "
        "{of_1000:.1} at 1000",
        offsets,
    ),
    Sentence(
        "({first_0:.3m}, {first_1:.3m}, {first_10:.3m}, {first_100:.1m}, {first_1000:.0m})", offsets
    ),
    Sentence(
        "effective rank of the tangent kernel {of_0:.1} at 0, {of_1:.1} at 1, {of_10:.1} at 10, "
        "{of_100:.1m} at 100, {of_1000:.1m} at 1000",
        lambda: _offsets("ntk"),
    ),
    Sentence("is {second} by the mean of the first, in the tenth task {tenth}:", afterwards),
    Sentence("At 100 it is {rank:.2m} after the first task already", first_rank),
    Sentence(
        "Task 10: without norm {none_10_0:.0%} before, {none_10_50:.0%} after 50 steps, "
        "{none_10_700:.0%m} after 700; with layer norm {layer_10_0:.0%}, {layer_10_50:.0%}, "
        "{layer_10_700:.0%}. In task 2: {layer_2_0:.0pm}, {layer_2_50:.0%m} and {layer_2_700:.1%m} "
        "with layer norm. Without norm all preactivations are pushed one way: their mean falls "
        "from {mean_none_2_0:.2m} to {mean_none_2_50:.2m} in 50 steps",
        lambda: switch("figure_2a"),
    ),
    Sentence(
        "Task 2: without norm {along_none_2_0:.2} at its start, {along_none_2_50:.2} after 50 "
        "steps; with layer norm {along_layer_2_0:.2} and {along_layer_2_50:.2}. Task 10: without "
        "norm {along_none_10_0:.2} at its start, where {none_10_0:.0%m} of the units are dormant, "
        "with layer norm {along_layer_10_0:.2}",
        lambda: switch("figure_2a"),
    ),
    Sentence(
        "GELU {gelu_none_iid:.0%} for drawn labels (paper 98 %), {gelu_none_classes:.1%m} for "
        "changed classes (66 %), {gelu_layer_iid:.0pm} with layer norm; leaky ReLU "
        "{leaky_relu_none_iid:.0%} and {leaky_relu_none_classes:.0pm} (78 to 98 %), "
        "{leaky_relu_layer_iid:.0pm} with layer norm. By the rule for smooth units, a line that "
        "fits (on either side of 0, in all layers), leaky ReLU has "
        "{line_leaky_relu_none_iid:.0%} and {line_leaky_relu_none_classes:.0%}, with layer "
        "norm {line_leaky_relu_layer_iid:.1pm} and "
        "{line_leaky_relu_layer_classes:.0%m}",
        linearized,
    ),
    Sentence(
        "nothing {nothing:.1%}, batch norm {batch:.1p} with and without L2, layer norm "
        "{layer:.1p}, "
        "with L2 (1e-5) {layer_l2:.1p}; L2 {l2:.1pm}, feature norm {feature:.1pm}, InFeR "
        "{infer:.1pm}, gradient penalty {penalty:.1pm}, none of them told from nothing. Rescaling "
        "is slow ({slow:.1f} % on the first task, others with a plain output above {others}) and "
        "ends at {rescaled:.1p}, worse than nothing by {worse:.1pm} points "
        "[{worse_low:.1f}, {worse_high:.1f}]. **Not told** that ReDo helps: {redo:.1p}. Leaky ReLU "
        "gains {leaky:.1p}, tanh {tanh:.1p}.",
        lambda: _with_ends(interventions(), "worse"),
    ),
    Sentence("CReLU ends at {crelu:.1%m}", interventions),
    Sentence(
        "Besides: L2 of 1e-6 {little:.1pm}, GELU {gelu:.1pm} and smoothed labels {smoothed:.1pm}, "
        "not above nothing; layer norm before batch norm, with L2, {both:.1p}",
        interventions,
    ),
    Sentence(
        "mean over the minibatch {batch:.1pm} to {hybrid:.1%m} whatever the deviation is over "
        "(hybrid {hybrid:.1p}, layer norm then batch norm {both:.1p}, batch norm "
        "{batch:.1p}), mean "
        "over the units of an example {layer:.1p} (layer norm) and {other:.1p} (the other hybrid), "
        "no mean {rms:.1p} (RMS norm), no norm {none:.1p}",
        axes_of_norms,
    ),
    Sentence("accuracy {best:.1f} to {last:.1f} % on `labels`", lambda: present("labels", "mnist")),
    Sentence("{best:.1f} to {last:.1f} % on `composite`", lambda: present("composite", "mnist")),
    Sentence(
        "squared error {error:.3f} to {error_last:.3f} on `offset`",
        lambda: present("offset", "mnist"),
    ),
    Sentence("labels {fell} of {of} ({best:.0f} to {last:.0f} %)", lambda: present("labels")),
    Sentence("composite {fell} of {of} ({best:.0f} to {last:.0f} %)", lambda: present("composite")),
    Sentence("offset of 100 {fell} of {of}: not present", lambda: present("offset")),
    Sentence("({second:.0f} to {end:.0f} % with 1 %)", shares),
    Sentence("{whole:.0f} to {whole_end:.0f} %. (Levels", shares),
    Sentence("by {lost:.0f} points with 1 %", shares),
    Sentence(
        "goes from {first:.0f} to {last:.0f} % in ten tasks while the effective rank of the kernel "
        "of 64 inputs goes from {rank:.0f} to **{most:.1f} in every seed**",
        kernels,
    ),
    Sentence("norm grows to {norm:.0f} in the same", kernels),
    Sentence("to {sharp:.0f} in task {sharpest} and falls to {flat:.1f} with", kernels),
    Sentence(
        "keeps rank {leaky_rank:.0m} and an accuracy of {leaky:.0pm} % though its norm grows to "
        "{leaky_norm:.0m}",
        kernels,
    ),
    Sentence(
        "the kernel as drawn has rank {drawn_rank:.2} already: a mean of 100 leaves "
        "{mean_rank:.2} and collapses nothing, random labels raise it to {blocks_rank:.1}",
        kernels,
    ),
    Sentence(
        "it from {drawn_normed_rank:.1} to {normed_rank:.1}, and random labels raise it to "
        "{labels_rank:.1}, near its diagonal",
        kernels,
    ),
    Sentence(
        "one factor explains {mean_factor:.3} of what is beside the diagonal, with layer norm "
        "{normed_factor:.3}; but as drawn {drawn_factor:.3} without norm, and after random labels "
        "{labels_factor:.3}",
        kernels,
    ),
    Sentence("without norm {none}; with layer norm {layer}.", features),
    Sentence(
        "carries {at_10:.0pm} % of the output at 10 and more than {at_100} % at 100", features
    ),
    Sentence(
        "in the same order: without norm {rank}, so that it is lost at 100 and 1000 (**agrees**) "
        "but not step by step (**disagrees**); with layer norm {normed_rank}.",
        features,
    ),
    Sentence(
        "GELU loses {lost:.0f} points; its preactivations drift far below 0 ({drift:.0m} on "
        "average)",
        loss_of_gelu,
    ),
    Sentence(
        "from {none_2_0:.0pm} to {none_2_50:.0%} in 50 steps of task 2 and from {none_6_0:.0pm} to "
        "{none_6_50:.0%m} in task 6, and stay; with layer norm from {layer_6_0:.0pm} to "
        "{layer_6_50:.0%} and are back at {layer_6_700:.0%m} after 700",
        lambda: switch("figure_2a_cifar10"),
    ),
    Sentence(
        "their uniformity is {along_none_2_0:.2} at the start of task 2 and {along_none_2_50:.2} "
        "after 50 steps without norm, {along_layer_2_0:.2} and {along_layer_2_50:.2} with layer",
        lambda: switch("figure_2a_cifar10"),
    ),
    Sentence(
        "where MNIST has {along_none_2_0:.2m} and {along_layer_2_0:.2m}.",
        lambda: switch("figure_2a"),
    ),
    Sentence("is {behind:.0pm} points behind, {decayed:.0pm} with L2", networks),
    Sentence(
        "batch norm {batch:.0%m}, the hybrid with layer norm's deviation {hybrid:.1pm}, half",
        networks,
    ),
    Sentence("layer norm before batch norm {both:.1pm},", networks),
    Sentence(
        "ends {other:.0pm} points below, layer norm {layer:.0pm}, RMS norm {rms:.0pm}.", networks
    ),
    Sentence("({learned:.0pm} against {linear:.0%m})", together),
    Sentence("the most is lost (to {left:.0%m})", together),
    Sentence(
        "lose {least:.0f} to {most:.0f} points from the first task on ({first:.0pm} to {end:.0%m} "
        "on CIFAR-10), with layer norm still {mnist:.0f} on MNIST and {cifar:.0f} on CIFAR-10",
        together,
    ),
    Sentence("ends at {growing:.1%m}, with and without L2, but nothing at all has", together),
    Sentence("has {nothing:.1pm}: effect not present", together),
    Sentence("*costs* {cost:.0pm} points", together),
    Sentence(
        "end {few:.0f} to {many:.0f} points below nothing and begin with {begun:.0f} to "
        "{begun_most:.0f} %",
        together,
    ),
    Sentence("falls from {bare_best:.0f} to {bare_last:.0%m}", together),
    Sentence("falls from {normed_first:.0pm} to {normed_second:.0%m} in the second task", together),
    Sentence(
        "({hot_first:.0pm} to {hot:.0%m}), less of it with layer norm ({hot_normed:.0%m}) or L2 "
        "({hot_l2:.0%m})",
        together,
    ),
    Sentence(
        "end at {smoothed_least:.0f} to {smoothed_most:.0f} % whatever stands beside them, "
        "{gained_least:.0f} to {gained_most:.0f} points above those without",
        together,
    ),
    Sentence("(hence {smoothed_first:.0%m} with layer norm)", together),
    Sentence(
        "with gamma 0 layer norm gains {near_norm:+.3}, L2 of 1e-5 {near_l2:+.3}, and L2 beside "
        "layer norm {near_beside:+.3}. With gamma 0.99 layer norm gains {far_norm:+.3}, L2 "
        "{far_l2:+.3}; units die ({none_dead:.0%m} without norm, {layer_dead:.0%m} with) and the "
        "features' effective rank falls to {none_rank:.1m} and {layer_rank:.0m}",
        bandit,
    ),
    Sentence(
        "layer norm {norm:+.3}, L2 {l2:+.3}, L2 beside layer norm {beside:+.3}, layer norm less L2 "
        "{apart:+.3}.",
        lambda: _bandit("bandit_mnist", 10),
    ),
    Sentence(
        "layer norm {norm:+.3}, L2 {l2:+.3}, L2 beside layer norm {beside:+.3}, layer norm less L2 "
        "{apart:+.3}. With gamma 0.99 an L2 of 1e-6 does nothing",
        lambda: _bandit("bandit_mnist_far", 10, 1e-6),
    ),
    Sentence(
        "what layer norm gains with L2 of 1e-5 less what it gains without is {near_together:+.3} "
        "with gamma 0 and {far_together:+.3} with 0.99",
        bandit,
    ),
    Sentence(
        "on MNIST {together:+.3} with gamma 0",
        lambda: _bandit("bandit_mnist", 10),
    ),
    Sentence(
        "and {together:+.3} with 0.99, where neither gains by L2",
        lambda: _bandit("bandit_mnist_far", 10),
    ),
    Sentence(
        "With the paper's 1e-6 L2 gains {l2:+.3} without norm and {beside:+.3} beside it",
        lambda: _bandit("bandit_mnist", 10, 1e-6),
    ),
    Sentence(
        "ten times as much gains {l2:+.3} without norm and {beside:+.3} beside it",
        lambda: _bandit("bandit_mnist_far", 10, 1e-5),
    ),
    Sentence(
        "it gains {near_norm:+.3} in the third phase with gamma 0 and {far_norm:+.3} with 0.99",
        bandit_on_cifar10,
    ),
    Sentence(
        "L2 of 1e-5 gains {near_l2:+.3} without norm and gamma 0, nothing ({far_l2:+.3}) with "
        "0.99, and *loses* beside layer norm, {near_beside:+.3} and {far_beside:+.3}; 1e-6, the "
        "paper's own, changes little: {near_little:+.3} and {far_little:+.3} beside layer norm. "
        "Dormant units with gamma 0.99: {dead:.0%m} without norm in the tenth phase, "
        "{normed_dead:.0%m} with layer norm in the third",
        bandit_on_cifar10,
    ),
    Sentence("Layer norm less none: Breakout {breakout:+.2}, Asterix {asterix:+.2}.", minatar),
    Sentence(
        "In the last part layer norm less none: Breakout {longest:+.2}, Asterix "
        "{longest_asterix:+.2}.",
        minatar,
    ),
    Sentence("is {bare:.2} without and {normed:.2} with layer norm (bootstrap", minatar),
    Sentence(
        "interquartile mean over both games and all seeds is {longest_bare:.2} without and "
        "{longest_normed:.2} with layer norm",
        minatar,
    ),
    Sentence(
        "Greedily: Breakout {greedy:.2} without and {greedy_normed:.2} with layer norm, Asterix "
        "{greedy_asterix:.2} and {greedy_asterix_normed:.2}.",
        turns,
    ),
    Sentence(
        "{dead:.0%m} of the units are dormant at the end of Breakout, {dead_first:.0%m}", minatar
    ),
    Sentence("{longer:+.2}; a fresh network has {fresh:.2f} and {fresh_normed:.2f} there", minatar),
    Sentence("by {above:.2} without and {above_normed:.2} with layer norm", turns),
    Sentence(
        "Layer norm gains in the first phase, {first:+.2}, and what it gains in the last is not "
        "told, {last:+.2}; from first to last it gains {grown:+.2} more. Dormant units: "
        "{breakout_none_first:.0f} to {breakout_none_last:.0f} % in Breakout without norm, "
        "{breakout_layer_last:.0f} with; in Asterix {asterix_none_first:.0f} to "
        "{asterix_none_last:.0f} and {asterix_layer_first:.0f} to {asterix_layer_last:.0f} %. "
        "Asterix is not learned: a player by chance has {chance:.2}",
        turns,
    ),
    Sentence("the third run scores {score:.2f} on average", atari),
    Sentence("{dead:.0f} % of the units are dormant", atari),
    Sentence("`greedy_return` is empty in {empty} of the {parts} parts", atari),
)


def _with_ends(numbers: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """Adds the ends of some intervals, in points, where a unit stands between mean and interval."""
    ends = {}
    for name in names:
        one = numbers[name]
        ends |= {f"{name}_low": 100 * one.low, f"{name}_high": 100 * one.high}
    return {**numbers, **ends}
