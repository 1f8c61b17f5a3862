"""Layer norm and L2 where inputs and frequencies of classes shift from phase to phase.

Source: Lyle et al., iWildCam: 20 camera locations of 2,000 steps each, 5 seeds. Ours are shifts by
formula of images at hand (`phased_shift`), as the data of iWildCam are not.
Command: python -m experiments.disentangling.phases --data_dir=DIR
    --workdir=runs/disentangling_phases --scale=reduced
Cost: --dry_run says it.
Paper: layer norm with L2 widens the gap at the end.
"""

import sys

from experiments import figures
from experiments.disentangling import settings

if __name__ == "__main__":
    sys.exit(
        figures.main(
            __doc__,
            settings.figure("phases", "phases"),
        )
    )
