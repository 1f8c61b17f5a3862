"""Figure 3: generalization on permuted EMNIST, MLP; abrupt change with every method, gradual change
with none.

Source: Liu & Mou, figure 3, section 5.2.
Command: python -m experiments.gradual.figure_3 --data_dir=DIR --workdir=runs/figure_3
    --scale=reduced
Cost: paper, 23,400 steps a task and lane, a day on two cores; reduced, 1,040, about an hour
(--dry_run says it).
Paper: unregularized loses only about 10 points in 100 tasks; all methods mostly hold; the two
gradual arms are best at task 100.
"""

import sys

from experiments import figures
from experiments.gradual import kinds, settings

if __name__ == "__main__":
    benchmark = settings.BENCHMARKS["permuted_emnist"]
    figure = figures.Figure("3", benchmark, kinds.BY_METHOD)
    sys.exit(figures.main(__doc__, figure))
