"""Figure 5a: granularity of the change, Random MNIST, MLP.

Source: Liu & Mou, figure 5a, section 5.3.
Command: python -m experiments.gradual.figure_5a --data_dir=DIR --workdir=runs/figure_5a
    --scale=reduced
Cost: paper, 19,200 steps a task and lane, 14 hours on two cores; reduced, 2,400, 20 minutes
(--dry_run says it).
Paper: abrupt change loses much; coarse steps lose less; the finest keep near-perfect accuracy
throughout.
"""

import sys

from experiments import figures
from experiments.gradual import kinds, settings

if __name__ == "__main__":
    benchmark = settings.BENCHMARKS["random_mnist"]
    figure = figures.Figure("5a", benchmark, kinds.BY_GRANULARITY)
    sys.exit(figures.main(__doc__, figure))
