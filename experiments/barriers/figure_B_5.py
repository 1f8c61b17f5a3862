"""Figure B.5: clones of a CNN, a ResNet-18 and a ViT.

Source: Joudaki et al., figure B.5.
Command: python -m experiments.barriers.figure_B_5 --data_dir=DIR --workdir=runs/barriers_B_5
    --scale=reduced
Cost: --dry_run says it.
Paper, R2 in the end with gradient descent, dropout, noise: CNN 1, .95, .68; ResNet-18 1, .975, .76;
ViT 1, .725, .545; its ViT clone is not function-preserving, ours is.
"""

import sys

from experiments.barriers import cloning

if __name__ == "__main__":
    sys.exit(cloning.main(__doc__, cloning.figure("B.5", "clone_networks")))
