"""Figure 5.2: bit flipping with 5 units, with and without continual backprop.

Source: Joudaki et al., figure 5.2.
Command: python -m experiments.barriers.figure_5_2 --workdir=runs/barriers_5_2 --scale=reduced
Cost: --dry_run says it; the paper's 5 million online steps are minutes on one core.
Paper: without it the loss grows from .38 to about .78 and the effective rank falls from 4.05 to
2.9; with it .47 to .52 and 4.0 to 4.3. Its public code replaces a mature unit at every step and
takes the whole layer's bias with it: --as_published.
"""

import sys

from experiments import figures
from experiments.barriers import settings

if __name__ == "__main__":
    sys.exit(figures.main(__doc__, settings.figure("5.2", "bit_flip")))
