"""Figure 4.1: a cloned MLP stays a clone, unless noise or dropout part its units.

Source: Joudaki et al., figure 4.1.
Command: python -m experiments.barriers.figure_4_1 --data_dir=DIR --workdir=runs/barriers_4_1
    --scale=reduced
Cost: --dry_run says it.
Paper: R2 of clones (their own form of it) .984 throughout with gradient descent; .98, .745, .60
with noise; .95 to .76 with dropout. Loss in the end of the clone (and of the network that was not
cloned): 1.16 (1.14), .845 (1.075), 1.23 (1.34).
"""

import sys

from experiments.barriers import cloning

if __name__ == "__main__":
    sys.exit(cloning.main(__doc__, cloning.figure("4.1", "clone_mlp")))
