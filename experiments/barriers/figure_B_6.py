"""Figure B.6: R2 of a cloned MLP by size and decay of gradient noise.

Source: Joudaki et al., figures B.6 to B.9.
Command: python -m experiments.barriers.figure_B_6 --data_dir=DIR --workdir=runs/barriers_B_6
    --scale=reduced
Cost: --dry_run says it.
Paper: the more noise and the slower it decays, the sooner clones part. No numbers in its text.
"""

import sys

from experiments.barriers import cloning

if __name__ == "__main__":
    sys.exit(cloning.main(__doc__, cloning.figure("B.6", "noise_mlp")))
