"""Figure 2: the first steps after a switch (left, middle), and units of the last layer that became
linear (right), with and without layer norm.

Source: Lyle et al., figure 2; --only=a for left and middle, b for right. Of the former
figure_2a_switch.png is the picture: dormant units, preactivations, alignment of first-layer
gradients and the loss at chosen steps of the second and of the last task.
Command: python -m experiments.disentangling.figure_2 --data_dir=DIR --workdir=runs/disentangling_2
    --scale=reduced
Cost: --dry_run says it.
Paper (read off): dead units rise from about .2 to .7 without norm; with layer norm they jump to
about .9 and are back at 0 within 400 steps. Linearized units, of 256: GELU without norm about 250
where labels are drawn for each example, about 170 where classes change places, about 0 with layer
norm; leaky ReLU without norm 200 to 250, with it about 40 and 10.
"""

import sys

from experiments import figures
from experiments.disentangling import settings

if __name__ == "__main__":
    sys.exit(
        figures.main(
            __doc__,
            settings.figure("2a", "switch"),
            settings.figure("2b", "units"),
        )
    )
