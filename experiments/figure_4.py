"""Figure 4: generalisation on the Bigram Cipher, one T5 block; abrupt change with every method, task sampling with none.

Source: Liu & Mou, figure 4, section 5.2.
Command: python -m experiments.figure_4 --workdir=runs/figure_4 --scale=reduced
Cost a lane: paper, 4,000 steps a task, for an accelerator; reduced, 1,200 of a small T5 block (--dry_run says it all).
Paper: unregularised falls to a test BLEU-2 of 20 % after 50 tasks; ReDo and L2 fail; spectral regularization, shrink
and perturb and task sampling hold. In the public code the test items are training items (--as_published).
"""

import sys

from experiments import figures

if __name__ == "__main__":
    sys.exit(figures.main(__doc__, figures.Figure("4", "bigram_cipher", "methods")))
