"""Figure 9a: share of dormant units by granularity, Random MNIST, MLP.

Source: Liu & Mou, figure 9a, appendix C.
Command: python -m experiments.gradual.figure_9a --data_dir=DIR --workdir=runs/figure_9a
    --scale=reduced
Same runs as figure 5a: --from=runs/figure_5a draws it from those.
Cost: paper, 19,200 steps a task and lane, 14 hours on two cores; reduced, 2,400, 20 minutes
(--dry_run says it).
Paper: the finer the change, the fewer dormant units.
"""

import sys

from experiments import figures
from experiments.gradual import kinds, settings

if __name__ == "__main__":
    benchmark = settings.BENCHMARKS["random_mnist"]
    figure = figures.Figure("9a", benchmark, kinds.BY_GRANULARITY, "dormant_fraction")
    sys.exit(figures.main(__doc__, figure))
