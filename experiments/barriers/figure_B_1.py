"""Figures B.1 to B.4: dead, duplicate and saturated units and accuracy by norm and dropout.

Source: Joudaki et al., figure B.1 and those after it, in class split; --only=a, b, c or d for one.
Command: python -m experiments.barriers.figure_B_1 --data_dir=DIR --workdir=runs/barriers_B_1
    --scale=reduced
Then --only=b --from=runs/barriers_B_1 and so on draw the others.
Cost: --dry_run says it.
Paper, none / batch / layer without dropout: dead units of the MLP .43 / 0 / .02, of the CNN .71 /
.275 / .31, of ResNet-18 .735 / .015 / .03; saturated units of the ViT .93 / 1 / .995. Its text says
that norms lower dead, saturated and duplicate units in all networks; its own bars have more
saturated units in the ViT, more duplicates in CNN and ResNet-18.
"""

import sys

from experiments import figures
from experiments.barriers import settings

PARTS = {
    "B.1a": "",
    "B.1b": "duplicate_fraction",
    "B.1c": "saturated_fraction",
    "B.1d": "online_accuracy",
}
FIGURES = [settings.figure(name, "norms_and_dropout", metric) for name, metric in PARTS.items()]

if __name__ == "__main__":
    argv = sys.argv[1:]
    chosen = FIGURES if any(text.startswith("--only") for text in argv) else FIGURES[:1]
    sys.exit(figures.main(__doc__, *chosen))
