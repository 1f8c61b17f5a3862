"""Figure 9b: share of dormant units by granularity, Bigram Cipher, one T5 block.

Source: Liu & Mou, figure 9b, appendix C.
Command: python -m experiments.gradual.figure_9b --workdir=runs/figure_9b --scale=reduced
Same runs as figure 5b: --from=runs/figure_5b draws it from those.
Cost: paper, 4,000 steps a task and lane, for an accelerator; reduced, half an hour on two cores
(--dry_run says it).
Paper: the finer the change, the fewer dormant units.
"""

import sys

from experiments import figures
from experiments.gradual import kinds, settings

if __name__ == "__main__":
    benchmark = settings.BENCHMARKS["bigram_cipher"]
    figure = figures.Figure("9b", benchmark, kinds.BY_GRANULARITY, "dormant_fraction")
    sys.exit(figures.main(__doc__, figure))
