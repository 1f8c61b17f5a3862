"""What the paper's own figures show of the claims that are checked, read off to about 5 % of an
axis: start and end in figures 3.2 and 3.3, the end in the others.

Shares are of 1, where README.md has points.
"""

from collections.abc import Mapping

PRINTED = (
    ("3.2, MLP", "accuracy falls", ".88 to .39"),
    ("3.2, MLP", "dead units become more", ".20 to .53"),
    ("3.3, MLP", "the effective rank falls", "55 to 25"),
    ("3.2, CNN", "accuracy does not fall", ".975 to .92 and more"),
    ("3.2, CNN", "dead units become more", ".55 to .69"),
    ("3.3, CNN", "the effective rank falls", "55 to 34"),
    ("3.2, ResNet-18", "accuracy does not fall", ".955 to .99"),
    ("3.2, ResNet-18", "dead units become more", ".555 to .75"),
    ("3.3, ResNet-18", "the effective rank falls", "68 to 60"),
    ("3.2, ViT", "accuracy falls", ".99 to .09"),
    ("3.2, ViT", "duplicate units become more", ".01 to .95"),
    ("3.3, ViT", "the effective rank falls", "131 to 3"),
    ("5.1, MLP", "norms keep", "none 25, batch 70, layer 66"),
    ("5.1, CNN", "norms keep", "none 34, batch 71, layer 50; with scale and offset 95 and 88"),
    ("5.1, ResNet-18", "norms keep", "none 60, layer 99; with scale and offset 120, batch 132"),
    ("5.1, ViT", "norms keep", "none 3, batch 92; with scale and offset batch 101, layer 103"),
    ("5.1, MLP", "norms with scale and offset", "of the CNN batch 71 to 95, layer 50 to 88"),
    ("B.1, MLP", "accuracy is higher", "none .73, batch .945, layer .96"),
    ("B.1, CNN", "accuracy is higher", "none .96, batch .975, layer .97"),
    ("B.1, ResNet-18", "accuracy is higher", "none .965, batch .995, layer .99"),
    ("B.1, ViT", "accuracy is higher", "none .60, batch .99, layer .99"),
    ("B.1, MLP", "norms lower dead", "none .43, batch 0, layer .02"),
    ("B.1, CNN", "norms lower dead", "none .71, batch .275, layer .31"),
    ("B.1, ResNet-18", "norms lower dead", "none .735, batch .015, layer .03"),
    ("B.1 (text), MLP", "norms lower duplicates", "bars: none .016, batch .001, layer .001"),
    ("B.1 (text), CNN", "norms lower duplicates", "bars: none .0057, batch .008, layer .0125"),
    ("B.1 (text), ResNet-18", "norms lower duplicates", "bars: none .007, batch .024, layer .022"),
    ("B.1 (text), ViT", "norms lower duplicates", "bars: none .38, batch .035, layer .015"),
    ("B.1 (text), ViT", "norms lower saturated", "bars: none .93, batch 1.0, layer .995"),
    ("B.1 (bars), CNN", "norms raise duplicates", "none .0057, batch .008, layer .0125"),
    ("B.1 (bars), ResNet-18", "norms raise duplicates", "none .007, batch .024, layer .022"),
    ("B.1 (bars), ViT", "norms raise saturated", "none .93, batch 1.0, layer .995"),
    ("B.1, MLP", "dropout raises dead", ".43 to .485"),
    ("B.1, MLP", "dropout lowers accuracy", ".73 to .70"),
    ("B.1, CNN", "dropout raises dead", ".71 to .715, within its error"),
    ("B.1, CNN", "dropout lowers accuracy", ".96 to .95, within its error"),
    ("B.1, ResNet-18", "dropout raises dead", ".735 to .805"),
    ("B.1, ResNet-18", "dropout lowers accuracy", ".965 to .90"),
    ("B.1, ViT", "dropout raises duplicate", ".38 to .57"),
    ("B.1, ViT", "dropout lowers accuracy", ".60 to .41"),
    ("B.1, ViT", "dropout lowers saturated", ".93 to .83"),
    ("B.5, CNN", "with gradient descent", "R2 1"),
    ("B.5, CNN", "noise and dropout part them", "R2 .68 and .95"),
    ("B.5, CNN", "noise more than dropout", "R2 .68 and .95"),
    ("B.5, CNN", "noise raises the rank", "120 to 203"),
    ("B.5, ResNet-18", "with gradient descent", "R2 1"),
    ("B.5, ResNet-18", "noise and dropout part them", "R2 .76 and .975"),
    ("B.5, ResNet-18", "noise more than dropout", "R2 .76 and .975"),
    ("B.5, ResNet-18", "noise raises the rank", "171 to 277"),
    ("B.5, ViT", "with gradient descent", "R2 1"),
    ("B.5, ViT", "noise and dropout part them", "R2 .545 and .725"),
    ("B.5, ViT", "noise more than dropout", "R2 .545 and .725"),
    ("B.5, ViT", "noise raises the rank", "238 to 375"),
    ("B.11, MLP", "clones stay clones", "R2 1.000 of both"),
    ("B.12, MLP", "Adam ends at a higher loss", ".85, gradient descent .76"),
    ("B.11, MLP", "Adam ends at a lower rank", "60.5, gradient descent 71.5"),
)
"""(figure and network, how a claim begins, the paper's numbers)."""

_ACCURACY, _BITS, _R2, _DEAD, _TWINS, _STUCK, _RANK = (
    "online_accuracy",
    "online_squared_error",
    "clone_r2",
    "dead_fraction",
    "duplicate_fraction",
    "saturated_fraction",
    "effective_rank",
)
_MLP = ("MLP", "MLP, rate 0.01")
_BARE, _BATCH, _LAYER = "no norm", "batch", "layer"
_NORMED = {  # effective ranks of figure 5.1; with norms without scale and offset after
    "mlp": ({_BARE: 25}, {_BATCH: 70, _LAYER: 66}),
    "cnn": ({_BARE: 34, _BATCH: 95, _LAYER: 88}, {_BATCH: 71, _LAYER: 50}),
    "resnet18": ({_BARE: 60, _BATCH: 132, _LAYER: 120}, {_LAYER: 99}),
    "vit": ({_BARE: 3, _BATCH: 101, _LAYER: 103}, {_BATCH: 92}),
}
_BARS = {  # of figure B.1: without norm, with batch norm, with layer norm; each with dropout after
    "mlp": {
        _ACCURACY: (0.73, 0.70, 0.945, 0.75, 0.96, 0.755),
        _DEAD: (0.43, 0.485, 0, 0.02, 0.02, 0.07),
        _TWINS: (0.016, 0.030, 0.001, 0.0035, 0.001, 0.008),
    },
    "cnn": {
        _ACCURACY: (0.96, 0.95, 0.975, 0.96, 0.97, 0.96),
        _DEAD: (0.71, 0.715, 0.275, 0.29, 0.31, 0.315),
        _TWINS: (0.0057, 0.0058, 0.008, 0.008, 0.0125, 0.0085),
    },
    "resnet18": {
        _ACCURACY: (0.965, 0.90, 0.995, 0.995, 0.99, 0.99),
        _DEAD: (0.735, 0.805, 0.015, 0.02, 0.03, 0.035),
        _TWINS: (0.007, 0.009, 0.024, 0.019, 0.022, 0.022),
    },
    "vit": {
        _ACCURACY: (0.60, 0.41, 0.99, 0.99, 0.99, 0.99),
        _STUCK: (0.93, 0.83, 1.0, 1.0, 0.995, 0.995),
        _TWINS: (0.38, 0.57, 0.035, 0.01, 0.015, 0.035),
    },
}


def _ranks(network: str, after: str = "") -> dict[tuple[str, str], float]:
    """The ranks of a network without dropout, by how its arms are called after their norm."""
    return {(norm + after, _RANK): rank for norm, rank in _NORMED[network][0].items()}


def _plain(network: str) -> dict[tuple[str, str], float]:
    """Those where norms have no scale and offset."""
    ranks = _NORMED[network][1].items()
    return {(f"{norm}, {network}.norm_affine=false", _RANK): rank for norm, rank in ranks}


def _bars(network: str, *dropouts: str) -> dict[tuple[str, str], float]:
    """The bars of a network, by how its arms without and with dropout are called after their norm;
    of the first alone where the others were not run.
    """
    norms = (_BARE, _BATCH, _LAYER)
    found = {}
    for metric, numbers in _BARS[network].items():
        for number, after in enumerate(dropouts):
            own = zip(norms, numbers[number::2], strict=True)
            found |= {(norm + after, metric): value for norm, value in own}
    return found


_NOISE = "cloned, noise 0.01 x 0.999^t"


def _of_clones(r2: Mapping[str, float], rank: Mapping[str, float]) -> dict[tuple[str, str], float]:
    """Variance explained and rank of clones, by what their arms are called."""
    ends = {(arm, _R2): number for arm, number in r2.items()}
    return ends | {(arm, _RANK): number for arm, number in rank.items()}


def _of_widths(arms: Mapping[str, Mapping[str, tuple[float, ...]]]) -> dict[tuple[str, str], float]:
    """What is measured of bit flipping at widths of 5, 10, 50 and 100, by what arms begin with."""
    found = {}
    for arm, numbers in arms.items():
        for metric, values in numbers.items():
            for width, value in zip((5, 10, 50, 100), values, strict=True):
                found[f"{arm}width={width}", metric] = value
    return found


_DROPPED = "cloned, dropout 0.1"
_BITS_BY_WIDTH = {
    "": {
        _BITS: (0.93, 0.85, 0.60, 0.53),
        _RANK: (2.9, 4.5, 7.3, 7.7),
        _TWINS: (0.01, 0.09, 0.38, 0.53),
    },
    "Continual Backprop, ": {
        _BITS: (0.47, 0.38, 0.055, 0.10),
        _RANK: (4.3, 7.1, 9.4, 9.4),
        _TWINS: (0, 0, 0.065, 0.22),
    },
}
_OF_OPTIMIZERS = {
    ("sgd, cloned", _R2): 1,
    ("sgd, cloned", "loss"): 0.76,
    ("sgd, cloned", _RANK): 71.5,
    ("adam, cloned", _R2): 1,
    ("adam, cloned", "loss"): 0.85,
    ("adam, cloned", _RANK): 60.5,
    ("adam, not cloned", _RANK): 62,
}
_OF_MLP = _bars("mlp", ", mlp.dropout=0", ", mlp.dropout=0.1") | _ranks("mlp", ", mlp.dropout=0")
ENDS: dict[str, Mapping[tuple[str, str], float]] = {
    "3.2": {
        **{(arm, _ACCURACY): 0.39 for arm in _MLP},
        **{(arm, _DEAD): 0.53 for arm in _MLP},
        ("CNN", _DEAD): 0.69,
        ("ResNet-18", _ACCURACY): 0.99,
        ("ResNet-18", _DEAD): 0.75,
        ("ViT", _ACCURACY): 0.09,
        ("ViT", _TWINS): 0.95,
    },
    "3.3": {
        **{(arm, _RANK): 25 for arm in _MLP},
        ("CNN", _RANK): 34,
        ("ResNet-18", _RANK): 60,
        ("ViT", _RANK): 3,
    },
    "5.1_mlp": _ranks("mlp") | _plain("mlp"),
    "5.1_mlp_01": _ranks("mlp") | _plain("mlp"),
    "B.1_mlp": _OF_MLP,
    "B.1_mlp_01": _OF_MLP,
    **{f"B.1_{one}": _bars(one, "") | _ranks(one) for one in ("cnn", "resnet18", "vit")},
    "B.1_digits": _bars("mlp", "") | _ranks("mlp") | _plain("mlp"),
    **{
        f"B.1_{one}_digits": _bars(one, "", f", {one}.dropout=0.1") | _ranks(one) | _plain(one)
        for one in ("cnn", "resnet18", "vit")
    },
    "B.12": _OF_OPTIMIZERS,
    "4.1": {
        **_of_clones(
            {},  # (of another form than ours, in which exact clones have .984)
            {"not cloned": 63, "cloned": 72, _NOISE: 86, f"not {_DROPPED}": 54, _DROPPED: 64},
        ),
        ("not cloned", "loss"): 1.14,
        ("cloned", "loss"): 1.16,
        (_NOISE, "loss"): 0.845,
        (f"not {_DROPPED}", "loss"): 1.34,
        (_DROPPED, "loss"): 1.23,
    },
    "5.2": {
        ("none", _BITS): 0.78,
        ("Continual Backprop", _BITS): 0.52,
        ("none", _RANK): 2.9,
        ("Continual Backprop", _RANK): 4.3,
    },
    "5.3": _of_widths(_BITS_BY_WIDTH),
    "B.5_cnn": _of_clones(
        {"cloned": 1, _DROPPED: 0.95, _NOISE: 0.68}, {"cloned": 120, _DROPPED: 120, _NOISE: 203}
    ),
    "B.5_resnet18": _of_clones({"cloned": 1}, {"cloned": 171}),
    "B.5_resnet18_small": _of_clones(
        {"cloned": 1, _DROPPED: 0.975, _NOISE: 0.76}, {"cloned": 171, _DROPPED: 191, _NOISE: 277}
    ),
    "B.5_vit": _of_clones(
        {"cloned": 1, _DROPPED: 0.725, _NOISE: 0.545}, {"cloned": 238, _DROPPED: 308, _NOISE: 375}
    ),
    "B.11": _OF_OPTIMIZERS,
}
"""{name of a figure's files: {(arm, metric): the paper's number in the end}}; the CNN's accuracy in
figure 3.2, from .92 to .99, is no one number. Ranks beside figure B.1 are those of figure 5.1.
"""


def beside(figure: str, says: str) -> str:
    """Returns what a claim says, such as "accuracy falls" of "3.2, MLP, digits", with the paper's
    numbers in brackets where it has any.
    """
    number, network, *_ = figure.split(", ")
    for own, begins, numbers in PRINTED:
        if own == f"{number}, {network}" and says.startswith(begins):
            return f"{says} ({numbers})"
    return says
