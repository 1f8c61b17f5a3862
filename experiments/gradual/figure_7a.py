"""Figure 7a: largest Hessian eigenvalue by granularity, Random MNIST, MLP.

Source: Liu & Mou, figure 7a, appendix C.
Command: python -m experiments.gradual.figure_7a --data_dir=DIR --workdir=runs/figure_7a
    --scale=reduced
Same runs as figure 5a: --from=runs/figure_5a draws it from those.
Cost: paper, 19,200 steps a task and lane, 14 hours on two cores; reduced, 2,400, 20 minutes
(--dry_run says it).
Paper: the finer the change, the lower the eigenvalue.
"""

import sys

from experiments import figures
from experiments.gradual import kinds, settings

if __name__ == "__main__":
    benchmark = settings.BENCHMARKS["random_mnist"]
    figure = figures.Figure("7a", benchmark, kinds.BY_GRANULARITY, "hessian_top")
    sys.exit(figures.main(__doc__, figure))
