"""Figure 5a: granularity of the change, Random MNIST, MLP.

Source: Liu & Mou, figure 5a, section 5.3.
Command: python -m experiments.gradual.figure_5a --data_dir=DIR --workdir=runs/figure_5a
--scale=reduced Cost: paper, 19,200 steps a task and lane, 14 hours on two cores; reduced, 2,400, 20
minutes (--dry_run says it). Paper: abrupt change loses much; coarse steps lose less; the finest
keep near-perfect accuracy throughout.
"""

import sys

from experiments import figures

if __name__ == "__main__":
    sys.exit(figures.main(__doc__, figures.Figure("5a", "random_mnist", "granularity")))
