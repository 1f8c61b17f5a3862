"""Figure A.2: the effective rank near collapse, by formula and simulated.

Source: Joudaki et al., figure A.2.
Command: python -m experiments.barriers.figure_A_2 --workdir=runs/barriers_A_2
Cost: seconds to a minute; nothing is trained.
Paper: formula and simulation agree; that holds for tanh alone, as their simulation centers and
their formula does not. With alpha centered they agree for all.
"""

import sys

from experiments.barriers import ranks

if __name__ == "__main__":
    sys.exit(ranks.main(__doc__, "A.2"))
