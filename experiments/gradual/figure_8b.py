"""Figure 8b: change of the representation from task to task by granularity, Bigram Cipher, one T5
block.

Source: Liu & Mou, figure 8b, appendix C.
Command: python -m experiments.gradual.figure_8b --workdir=runs/figure_8b --scale=reduced
Same runs as figure 5b: --from=runs/figure_5b draws it from those.
Cost: paper, 4,000 steps a task and lane, for an accelerator; reduced, half an hour on two cores
(--dry_run says it).
Paper: the finer the change, the better the network keeps moving its representation.
"""

import sys

from experiments import figures
from experiments.gradual import kinds, settings

if __name__ == "__main__":
    benchmark = settings.BENCHMARKS["bigram_cipher"]
    figure = figures.Figure("8b", benchmark, kinds.BY_GRANULARITY, "representation_change")
    sys.exit(figures.main(__doc__, figure))
