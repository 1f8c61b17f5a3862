"""Figure 1c: trainability on Random Tiny-ImageNet, ResNet-18; abrupt change with every method,
gradual change with none.

Source: Liu & Mou, figure 1 (right), section 5.1.
Command: python -m experiments.gradual.figure_1c --data_dir=DIR --workdir=runs/figure_1c
    --scale=reduced
Cost a lane: paper, 48,000 steps of ResNet-18 a task, for an accelerator; reduced, 96 of a quarter
of its width (--dry_run says it all).
Paper: as on CIFAR-10, with shrink and perturb and spectral regularization at their most volatile.
In the public code the gradual arm starts from pretrained weights at a tenth of the learning rate
(--as_published).
"""

import sys

from experiments import figures
from experiments.gradual import kinds, settings

if __name__ == "__main__":
    benchmark = settings.BENCHMARKS["random_tiny_imagenet"]
    figure = figures.Figure("1c", benchmark, kinds.BY_METHOD)
    sys.exit(figures.main(__doc__, figure))
