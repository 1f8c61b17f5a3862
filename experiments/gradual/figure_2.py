"""Figure 2: trainability on Random Seq2Seq, one T5 block; abrupt change with every method, task
sampling with none.

Source: Liu & Mou, figure 2, section 5.1.
Command: python -m experiments.gradual.figure_2 --workdir=runs/figure_2 --scale=reduced
Cost: paper, 72,000 steps a task and lane, for an accelerator; reduced, 40 minutes on two cores
(--dry_run says it).
Paper: shrink and perturb and spectral regularization do well, ReDo and L2 poorly; task sampling
matches or exceeds the best.
"""

import sys

from experiments import figures
from experiments.gradual import kinds, settings

if __name__ == "__main__":
    benchmark = settings.BENCHMARKS["random_seq2seq"]
    figure = figures.Figure("2", benchmark, kinds.BY_METHOD)
    sys.exit(figures.main(__doc__, figure))
