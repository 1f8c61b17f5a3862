"""Figure 8a: change of the representation from task to task by granularity, Random MNIST, MLP.

Source: Liu & Mou, figure 8a, appendix C.
Command: python -m experiments.gradual.figure_8a --data_dir=DIR --workdir=runs/figure_8a
    --scale=reduced
Same runs as figure 5a: --from=runs/figure_5a draws it from those.
Cost: paper, 19,200 steps a task and lane, 14 hours on two cores; reduced, 2,400, 20 minutes
(--dry_run says it).
Paper: the finer the change, the better the network keeps moving its representation.
"""

import sys

from experiments import figures
from experiments.gradual import kinds, settings

if __name__ == "__main__":
    benchmark = settings.BENCHMARKS["random_mnist"]
    figure = figures.Figure("8a", benchmark, kinds.BY_GRANULARITY, "representation_change")
    sys.exit(figures.main(__doc__, figure))
