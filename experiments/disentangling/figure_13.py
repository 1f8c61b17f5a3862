"""Figures 13 to 15: singular values of the last hidden layer against the mean of the targets.

Source: Lyle et al., appendix: figures 13 to 15.
Command: python -m experiments.disentangling.figure_13 --data_dir=DIR
--workdir=runs/disentangling_13 --scale=reduced; or --from=runs/disentangling_1/offsets.
Cost: --dry_run says it.
Paper: the largest one grows from 1e3 at mean 0 to 1e8 at mean 100 without norm; one direction of
the features, not the bias, carries the mean.
"""

import sys

from experiments import figures
from experiments.disentangling import settings

if __name__ == "__main__":
    sys.exit(
        figures.main(
            __doc__,
            settings.figure("13", "offsets", "feature_spectrum/largest"),
        )
    )
