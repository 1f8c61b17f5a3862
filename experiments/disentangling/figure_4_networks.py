"""Figure 4 with other networks: norms and L2 on random labels, in a CNN and in ResNet-18.

Source: Lyle et al., figure 4, who have MLP, CNN and ResNet. At the paper's scale `figure_4` has all
of its arms with all three; these are the few that smaller machines can do, --only=c with the CNN, r
with ResNet-18.
Command: python -m experiments.disentangling.figure_4_networks --data_dir=DIR
    --workdir=runs/disentangling_4_networks --scale=reduced
Cost: --dry_run says it.
Paper: layer or batch norm with L2 is best in all three networks.
"""

import sys

from experiments import figures
from experiments.disentangling import settings

if __name__ == "__main__":
    sys.exit(
        figures.main(
            __doc__,
            settings.figure("4c", "norms_cnn"),
            settings.figure("4r", "norms_resnet"),
        )
    )
