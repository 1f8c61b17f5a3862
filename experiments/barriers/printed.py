"""What the paper's own figures show of the claims that are checked, read off to about 5 % of an
axis: start and end in figures 3.2 and 3.3, the end in the others.

Shares are of 1, where README.md has points.
"""

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

_ACCURACY, _DEAD, _TWINS, _RANK = (
    "online_accuracy",
    "dead_fraction",
    "duplicate_fraction",
    "effective_rank",
)
_MLP = ("MLP", "MLP, rate 0.01")
_NO_NORM, _BATCH, _LAYER = (
    tuple(f"{norm}, mlp.dropout={share}" for share in ("0", "0.1"))
    for norm in ("no norm", "batch", "layer")
)
_BARS = {  # of the MLP, without and with dropout
    _ACCURACY: {_NO_NORM: (0.73, 0.70), _BATCH: (0.945, 0.75), _LAYER: (0.96, 0.755)},
    _DEAD: {_NO_NORM: (0.43, 0.485), _BATCH: (0, 0.02), _LAYER: (0.02, 0.07)},
    _TWINS: {_NO_NORM: (0.016, 0.030), _BATCH: (0.001, 0.0035), _LAYER: (0.001, 0.008)},
}
_OF_NORMS = {
    ("no norm", _RANK): 25,
    ("batch, mlp.norm_affine=false", _RANK): 70,
    ("layer, mlp.norm_affine=false", _RANK): 66,
}
_OF_BARS = {
    (arm, metric): number
    for metric, bars in _BARS.items()
    for arms, numbers in bars.items()
    for arm, number in zip(arms, numbers, strict=True)
}
ENDS: dict[str, dict[tuple[str, str], float]] = {
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
    "5.1_mlp": _OF_NORMS,
    "5.1_mlp_01": _OF_NORMS,
    "B.1_mlp": _OF_BARS,
    "B.1_mlp_01": _OF_BARS,
    "B.12": {
        ("sgd, cloned", "loss"): 0.76,
        ("sgd, cloned", "clone_r2"): 1.0,
        ("sgd, cloned", _RANK): 71.5,
        ("adam, cloned", "loss"): 0.85,
        ("adam, cloned", "clone_r2"): 1.0,
        ("adam, cloned", _RANK): 60.5,
        ("adam, not cloned", _RANK): 62,
    },
}
"""{figure as it is redrawn: {(arm, metric): the paper's number in the end}}; the CNN's accuracy,
from .92 to .99, is no one number.
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
