"""Figure 5: layer norm, L2 and two-hot targets, these with label smoothing too, alone and together.

Source: Lyle et al., figure 5, and the three streams of its text: --only=a is the composite one, in
which pixels, labels and the mean of targets change, b the continual one, without the mean, c the
growing one, of the mean alone.
Command: python -m experiments.disentangling.figure_5 --data_dir=DIR --workdir=runs/disentangling_5
    --scale=reduced
Cost: --dry_run says it.
Paper: the remedies add up, to nearly no loss of plasticity; some settings need label smoothing.
"""

import sys

from experiments import figures
from experiments.disentangling import settings

if __name__ == "__main__":
    sys.exit(
        figures.main(
            __doc__,
            settings.figure("5a", "composite"),
            settings.figure("5b", "continual"),
            settings.figure("5c", "growing"),
        )
    )
