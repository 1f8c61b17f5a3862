"""Figure B.8: R2 of a cloned ViT by size and decay of gradient noise.

Source: Joudaki et al., figures B.6 to B.9.
Command: python -m experiments.barriers.figure_B_8 --data_dir=DIR --workdir=runs/barriers_B_8
    --scale=reduced
Cost: --dry_run says it.
Paper: no numbers in its text.
"""

import sys

from experiments.barriers import cloning

if __name__ == "__main__":
    sys.exit(cloning.main(__doc__, cloning.figure("B.8", "noise_vit")))
