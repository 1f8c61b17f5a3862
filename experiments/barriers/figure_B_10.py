"""Figure B.10: R2 of a cloned MLP by dropout.

Source: Joudaki et al., figure B.10.
Command: python -m experiments.barriers.figure_B_10 --data_dir=DIR --workdir=runs/barriers_B_10
    --scale=reduced
Cost: --dry_run says it.
Paper: without dropout clones stay, with more of it they part sooner. No numbers in its text.
"""

import sys

from experiments.barriers import cloning

if __name__ == "__main__":
    sys.exit(cloning.main(__doc__, cloning.figure("B.10", "dropout")))
