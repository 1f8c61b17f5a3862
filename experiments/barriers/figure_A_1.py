"""Figure A.1: the number of singular values before and after an activation function.

Source: Joudaki et al., figure A.1.
Command: python -m experiments.barriers.figure_A_1 --workdir=runs/barriers_A_1
Cost: seconds to a minute; nothing is trained.
Paper: 10 before and 50 after ReLU, tanh, GELU, sigmoid and ELU.
"""

import sys

from experiments.barriers import ranks

if __name__ == "__main__":
    sys.exit(ranks.main(__doc__, "A.1"))
