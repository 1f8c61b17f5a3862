"""Figure 3: parameter norm and sharpness grow together; the tangent kernel collapses.

Source: Lyle et al., figure 3.
Command: python -m experiments.disentangling.figure_3 --data_dir=DIR --workdir=runs/disentangling_3
    --scale=reduced
Cost: --dry_run says it.
Paper: the norm tracks the largest Hessian eigenvalue; with ReLU and random labels the kernel
becomes block-diagonal, with leaky ReLU less so. Numbers here, effective ranks and cosines; pictures
of kernels are those of `kernels`.
"""

import sys

from experiments import figures
from experiments.disentangling import settings

if __name__ == "__main__":
    sys.exit(
        figures.main(
            __doc__,
            settings.figure("3", "norms_and_kernels"),
        )
    )
