"""Figure 2, right: units of the last layer that became linear, with and without layer norm.

Source: Lyle et al., figure 2. Its left and middle panels, within the first steps after a switch,
are not here yet; means of preactivations and alignment of gradients at the start of a task are
among the probes.
Command: python -m experiments.disentangling.figure_2 --data_dir=DIR --workdir=runs/disentangling_2
--scale=reduced. Cost: --dry_run says it.
Paper (of 256 units, read off): GELU without norm about 250 where labels are drawn for each example,
about 170 where classes change places, about 0 with layer norm; leaky ReLU without norm 200 to 250,
with it about 40 and 10.
"""

import sys

from experiments import figures
from experiments.disentangling import settings

if __name__ == "__main__":
    sys.exit(
        figures.main(
            __doc__,
            settings.figure("2", "units"),
        )
    )
