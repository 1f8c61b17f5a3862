"""Figure 5b: granularity of the change, Bigram Cipher, one T5 block.

Source: Liu & Mou, figure 5b, section 5.3.
Command: python -m experiments.gradual.figure_5b --workdir=runs/figure_5b --scale=reduced
Cost: paper, 4,000 steps a task and lane, for an accelerator; reduced, half an hour on two cores
(--dry_run says it).
Paper: abrupt change loses much; coarse steps lose less; the finest keep a near-perfect score
throughout.
"""

import sys

from experiments import figures
from experiments.gradual import kinds, settings

if __name__ == "__main__":
    benchmark = settings.BENCHMARKS["bigram_cipher"]
    figure = figures.Figure("5b", benchmark, kinds.BY_GRANULARITY)
    sys.exit(figures.main(__doc__, figure))
