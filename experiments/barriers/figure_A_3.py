"""Figure A.3: alpha and frozen inputs of tanh(a z) and relu(z + b).

Source: Joudaki et al., figure A.3.
Command: python -m experiments.barriers.figure_A_3 --workdir=runs/barriers_A_3
Cost: seconds to a minute; nothing is trained.
Paper: alpha of tanh grows from 0 to 53 and the share of frozen inputs to .94 at a of 100; alpha of
the ReLU falls from 9.2 to -.8 and its share from 1 to .02.
"""

import sys

from experiments.barriers import ranks

if __name__ == "__main__":
    sys.exit(ranks.main(__doc__, "A.3"))
