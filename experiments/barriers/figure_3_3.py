"""Figure 3.3: effective rank in class split, four networks without norm.

Source: Joudaki et al., figure 3.3.
Command: python -m experiments.barriers.figure_3_3 --data_dir=DIR --workdir=runs/barriers_3_3
    --scale=reduced
Cost: --dry_run says it; none with --from=runs/barriers_3_2, which has these runs.
Paper: it falls from 55 to 25 (MLP), 55 to 34 (CNN), 68 to 60 (ResNet-18), 131 to 3 (ViT).
"""

import sys

from experiments import figures
from experiments.barriers import settings

if __name__ == "__main__":
    sys.exit(figures.main(__doc__, settings.figure("3.3", "class_split", "effective_rank")))
