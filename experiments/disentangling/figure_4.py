"""Figure 4: each intervention alone on random labels.

Source: Lyle et al., figure 4. Shampoo is in no library at hand.
Command: python -m experiments.disentangling.figure_4 --data_dir=DIR --workdir=runs/disentangling_4
    --scale=reduced
Cost: --dry_run says it.
Paper: layer or batch norm with L2 is best, rescaling to the initial norm slow, ReDo helps, others
gain nothing.
"""

import sys

from experiments import figures
from experiments.disentangling import settings

if __name__ == "__main__":
    sys.exit(
        figures.main(
            __doc__,
            settings.figure("4", "interventions"),
        )
    )
