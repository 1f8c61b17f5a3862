"""Figure 4: generalization on the Bigram Cipher, one T5 block; abrupt change with every method,
task sampling with none.

Source: Liu & Mou, figure 4, section 5.2.
Command: python -m experiments.gradual.figure_4 --workdir=runs/figure_4 --scale=reduced
Cost: paper, 4,000 steps a task and lane, for an accelerator; reduced, 40 minutes on two cores
(--dry_run says it).
Paper: unregularized falls to a test BLEU-2 of 20 % after 50 tasks; ReDo and L2 fail; spectral
regularization, shrink and perturb and task sampling hold. In the public code the test items are
training items (--as_published).
"""

import sys

from experiments import figures
from experiments.gradual import kinds, settings

if __name__ == "__main__":
    benchmark = settings.BENCHMARKS["bigram_cipher"]
    figure = figures.Figure("4", benchmark, kinds.BY_METHOD)
    sys.exit(figures.main(__doc__, figure))
