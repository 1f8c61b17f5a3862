"""Figure 5: layer norm, L2 and two-hot targets, alone and together, on the composite stream.

Source: Lyle et al., figure 5.
Command: python -m experiments.disentangling.figure_5 --data_dir=DIR --workdir=runs/disentangling_5
--scale=reduced. Cost: --dry_run says it.
Paper: the remedies add up, to nearly no loss of plasticity.
"""

import sys

from experiments import figures
from experiments.disentangling import settings

if __name__ == "__main__":
    sys.exit(
        figures.main(
            __doc__,
            settings.figure("5", "composite"),
        )
    )
