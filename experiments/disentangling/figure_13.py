"""Figures 13 to 15: features of the last hidden layer against the mean of the targets, with and
without layer norm.

Source: Lyle et al., appendix: figures 13 to 15, singular values of the features. Ours are numbers:
the largest singular value (13), the share of the output that its direction carries (14) and that
the bias carries (15); all singular values are in DIR/arrays. --only=3, 4 or 5 for one of them.
Command: python -m experiments.disentangling.figure_13 --data_dir=DIR
    --workdir=runs/disentangling_13 --scale=reduced
Cost: --dry_run says it.
Paper: the largest one grows from 1e3 at mean 0 to 1e8 at mean 100 without norm; layer norm bounds
it, but lower ones decay all the same; one direction of the features, not the bias, carries the
mean.
"""

import sys

from experiments import figures
from experiments.disentangling import settings

if __name__ == "__main__":
    sys.exit(
        figures.main(
            __doc__,
            settings.figure("13", "spectra", "feature_spectrum/largest"),
            settings.figure("14", "spectra", "feature_spectrum/top_direction"),
            settings.figure("15", "spectra", "feature_spectrum/bias"),
        )
    )
