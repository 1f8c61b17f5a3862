"""Figure B.7: loss of a cloned MLP by size and decay of gradient noise.

Source: Joudaki et al., figures B.6 to B.9.
Command: python -m experiments.barriers.figure_B_7 --data_dir=DIR --workdir=runs/barriers_B_7
    --scale=reduced
Cost: --dry_run says it.
Paper: no numbers in its text. Given the workdir of figure B.6 it draws what is there.
"""

import sys

from experiments.barriers import cloning

if __name__ == "__main__":
    sys.exit(cloning.main(__doc__, cloning.figure("B.7", "noise_mlp", "loss")))
