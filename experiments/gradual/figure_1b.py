"""Figure 1b: trainability on Random CIFAR-10, ResNet-18; abrupt change with every method, gradual
change with none.

Source: Liu & Mou, figure 1 (middle), section 5.1.
Command: python -m experiments.gradual.figure_1b --data_dir=DIR --workdir=runs/figure_1b
    --scale=reduced
Cost: paper, 24,000 steps of ResNet-18 a task and lane, for an accelerator; reduced, 180 of a
quarter of its width, 45 minutes on two cores (--dry_run says it).
Paper: L2 stays near perfect; shrink and perturb and spectral regularization are volatile; ReDo is a
moderate remedy; output interpolation preserves trainability. In the public code the gradual arm
starts from pretrained weights (--as_published).
"""

import sys

from experiments import figures
from experiments.gradual import kinds, settings

if __name__ == "__main__":
    benchmark = settings.BENCHMARKS["random_cifar10"]
    figure = figures.Figure("1b", benchmark, kinds.BY_METHOD)
    sys.exit(figures.main(__doc__, figure))
