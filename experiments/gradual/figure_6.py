"""Figure 6: largest Hessian eigenvalue under every method, Random MNIST (a) and Bigram Cipher (b).

Source: Liu & Mou, figure 6, section 5.3.
Command: python -m experiments.gradual.figure_6 --data_dir=DIR --workdir=runs/figure_6
    --scale=reduced
Same runs as figures 1a and 4: --from=runs/figure_1a,runs/figure_4 draws it from those.
Cost: that of figures 1a and 4, whose runs it can take with --from; reduced, an hour and a quarter
on two cores (--dry_run says it).
Paper: spectral regularization and shrink and perturb keep it small; gradual arms keep it low and
stable without a penalty.
"""

import sys

from experiments import figures
from experiments.gradual import kinds, settings

if __name__ == "__main__":
    first = figures.Figure(
        "6a", settings.BENCHMARKS["random_mnist"], kinds.BY_METHOD, "hessian_top"
    )
    second = figures.Figure(
        "6b", settings.BENCHMARKS["bigram_cipher"], kinds.BY_METHOD, "hessian_top"
    )
    sys.exit(figures.main(__doc__, first, second))
