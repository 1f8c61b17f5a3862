"""Figure 1: the larger the mean of the targets, or the share of labels redrawn at a time, the
more plasticity is lost.

Source: Lyle et al., figure 1, section 3.1 and the label resets; --only=a or b for one of them.
Command: python -m experiments.disentangling.figure_1 --data_dir=DIR --workdir=runs/disentangling_1
    --scale=reduced
Cost: --dry_run says it.
Paper: fine-tuning is the worse the larger the offset; redrawing 1 % of the labels hardly hurts in
the preprint (the published version says that it does), larger shares more.
"""

import sys

from experiments import figures
from experiments.disentangling import settings

if __name__ == "__main__":
    sys.exit(
        figures.main(
            __doc__,
            settings.figure("1a", "offsets"),
            settings.figure("1b", "shares"),
        )
    )
