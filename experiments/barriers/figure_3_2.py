"""Figure 3.2: accuracy, dead and duplicate units in class split, four networks without norm.

Source: Joudaki et al., figure 3.2.
Command: python -m experiments.barriers.figure_3_2 --data_dir=DIR --workdir=runs/barriers_3_2
    --scale=reduced
Cost: --dry_run says it.
Paper: accuracy of the MLP falls from .88 to .39, of the ViT from .99 to .09, those of CNN and
ResNet-18 stay; dead units rise in all but the ViT, whose units become duplicates (.01 to .95). Its
accuracy is among all outputs, which --as_published draws.
"""

import sys

from experiments import figures
from experiments.barriers import settings

if __name__ == "__main__":
    sys.exit(figures.main(__doc__, settings.figure("3.2", "class_split")))
