"""Figure 5.1: effective rank in class split without norm, with batch and layer norm.

Source: Joudaki et al., figure 5.1; norms with and without scale and offset.
Command: python -m experiments.barriers.figure_5_1 --data_dir=DIR --workdir=runs/barriers_5_1
    --scale=reduced
Cost: --dry_run says it.
Paper, in the end, none / layer / batch (layer and batch with scale and offset): MLP 25 / 66 / 70;
CNN 34 / 50 / 71 (88 / 95); ResNet-18 60 / 99 / - (120 / 132); ViT 3 / - / 92 (103 / 101).
"""

import sys

from experiments import figures
from experiments.barriers import settings

if __name__ == "__main__":
    sys.exit(figures.main(__doc__, settings.figure("5.1", "norms")))
