"""Figure 5.3: bit flipping with 5, 10, 50 and 100 units.

Source: Joudaki et al., figure 5.3.
Command: python -m experiments.barriers.figure_5_3 --workdir=runs/barriers_5_3 --scale=reduced
Cost: --dry_run says it; the paper's 5 million online steps are minutes on one core.
Paper, in the end at these widths: without continual backprop a loss of .93, .85, .60, .53, an
effective rank of 2.9, 4.5, 7.3, 7.7 and duplicates of .01, .09, .38, .53; with it .47, .38, .055,
.10, then 4.3, 7.1, 9.4, 9.4, and 0, 0, .065, .22. --as_published as of figure 5.2.
"""

import sys

from experiments import figures
from experiments.barriers import settings

if __name__ == "__main__":
    sys.exit(figures.main(__doc__, settings.figure("5.3", "bit_flip_widths")))
