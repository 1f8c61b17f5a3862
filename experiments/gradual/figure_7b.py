"""Figure 7b: largest Hessian eigenvalue by granularity, Bigram Cipher, one T5 block.

Source: Liu & Mou, figure 7b, appendix C.
Command: python -m experiments.gradual.figure_7b --workdir=runs/figure_7b --scale=reduced
Same runs as figure 5b: --from=runs/figure_5b draws it from those.
Cost: paper, 4,000 steps a task and lane, for an accelerator; reduced, half an hour on two cores
(--dry_run says it).
Paper: the finer the change, the lower the eigenvalue.
"""

import sys

from experiments import figures
from experiments.gradual import kinds, settings

if __name__ == "__main__":
    benchmark = settings.BENCHMARKS["bigram_cipher"]
    figure = figures.Figure("7b", benchmark, kinds.BY_GRANULARITY, "hessian_top")
    sys.exit(figures.main(__doc__, figure))
