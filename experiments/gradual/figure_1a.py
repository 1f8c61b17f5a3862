"""Figure 1a: trainability on Random MNIST, MLP; abrupt change with every method, gradual change
with none.

Source: Liu & Mou, figure 1 (left), section 5.1.
Command: python -m experiments.gradual.figure_1a --data_dir=DIR --workdir=runs/figure_1a
    --scale=reduced
Cost: paper, 19,200 steps a task and lane, 15 hours on two cores; reduced, 2,400, half an hour
(--dry_run says it).
Paper: unregularized falls from 100 % to chance within about 50 tasks and L2 as fast; ReDo is
moderate; shrink and perturb and spectral regularization are volatile; output interpolation is best,
with a minor loss after about task 35.
"""

import sys

from experiments import figures
from experiments.gradual import kinds, settings

if __name__ == "__main__":
    benchmark = settings.BENCHMARKS["random_mnist"]
    figure = figures.Figure("1a", benchmark, kinds.BY_METHOD)
    sys.exit(figures.main(__doc__, figure))
