"""Figure B.11: clones under gradient descent, momentum, Adam and AdamW.

Source: Joudaki et al., figures B.11 and B.12.
Command: python -m experiments.barriers.figure_B_11 --data_dir=DIR --workdir=runs/barriers_B_11
    --scale=reduced
Cost: --dry_run says it.
Paper: R2 is 1.000 with gradient descent and Adam, which surprises it; a theorem says so for any
optimizer that treats each number alike. Momentum and AdamW are ours.
"""

import sys

from experiments.barriers import cloning

if __name__ == "__main__":
    sys.exit(cloning.main(__doc__, cloning.figure("B.11", "optimizers")))
