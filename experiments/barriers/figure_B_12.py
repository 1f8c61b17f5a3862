"""Figure B.12: loss of clones under gradient descent, momentum, Adam and AdamW.

Source: Joudaki et al., figures B.11 and B.12.
Command: python -m experiments.barriers.figure_B_12 --data_dir=DIR --workdir=runs/barriers_B_12
    --scale=reduced
Cost: --dry_run says it.
Paper: .76 with gradient descent, .85 with Adam. Given the workdir of figure B.11 it draws what is
there.
"""

import sys

from experiments.barriers import cloning

if __name__ == "__main__":
    sys.exit(cloning.main(__doc__, cloning.figure("B.12", "optimizers", "loss")))
