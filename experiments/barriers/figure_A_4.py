"""Figure A.4: alpha and frozen inputs of four functions by scale and shift.

Source: Joudaki et al., figure A.4.
Command: python -m experiments.barriers.figure_A_4 --workdir=runs/barriers_A_4
Cost: seconds to a minute; nothing is trained.
Paper: large alpha comes with frozen units; its own column of alpha has a mistake in the quadrature:
--as_published has it beside ours.
"""

import sys

from experiments.barriers import ranks

if __name__ == "__main__":
    sys.exit(ranks.main(__doc__, "A.4"))
