"""Figure 3.1: eigenvalues after tanh(a x) of 20 units of rank 5.

Source: Joudaki et al., figure 3.1.
Command: python -m experiments.barriers.figure_3_1 --workdir=runs/barriers_3_1
Cost: seconds to a minute; nothing is trained.
Paper: effective rank 4.25, 4.25, 5.1, 7.9, 9.2, 9.65 for a of .01, .1, 1, 5, 20, 100; 9.8 after the
sign; 4.25 before.
"""

import sys

from experiments.barriers import ranks

if __name__ == "__main__":
    sys.exit(ranks.main(__doc__, "3.1"))
