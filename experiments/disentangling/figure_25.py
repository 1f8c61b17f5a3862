"""Figure 25 (27 in the published version): over which axes a norm takes its mean and its deviation.

Source: Lyle et al., appendix: the ablation of normalization axes; random labels, Adam, L2 of 1e-5.
Command: python -m experiments.disentangling.figure_25 --data_dir=DIR
    --workdir=runs/disentangling_25 --scale=reduced
Cost: --dry_run says it.
Paper: the hybrid of batch norm's mean and layer norm's deviation is the most robust; that each unit
keeps its mean over examples matters more.
"""

import sys

from experiments import figures
from experiments.disentangling import settings

if __name__ == "__main__":
    sys.exit(
        figures.main(
            __doc__,
            settings.figure("25", "axes"),
        )
    )
