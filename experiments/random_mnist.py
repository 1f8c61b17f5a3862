"""Random MNIST with an MLP: abrupt change with every mitigation method, and gradual change with none.

Source: Liu & Mou, figure 1 (left) and section 5.1; numbers recovered from the paper and its public code. A union of two
grids, not a product: --method multiplies the abrupt arms, --transition and --granularity the gradual ones.
Command: python -m experiments.random_mnist --data_dir=DIR --workdir=runs/mnist   (DIR has MNIST's four original files)
Cost: 100 tasks x 19,200 steps for each of 35 lanes; --dry_run says it all beforehand, --tasks and --epochs cut it short.
Paper: unregularised falls from 100 % to chance within about 50 tasks and L2 as fast; ReDo is moderate, shrink and
perturb and spectral regularization volatile; output interpolation is best, with a minor loss after about task 35.
"""

import sys

from plasticity_jax import launcher

DEFAULTS = {
    "dataset": "mnist",
    "samples": "5120",
    "environment": "random_labels",
    "tasks": "100",
    "epochs": "240",
    "batch_size": "64",
    "transition_fraction": "2/3",
    "seeds": "5",
    "learning_rate": "1e-3",
    # the abrupt arms, with the values of the paper's public code for this benchmark
    "method": "none,l2,shrink_and_perturb,spectral,redo",
    "l2.strength": "1e-3",
    "shrink_and_perturb.shrink": "0.9",
    "shrink_and_perturb.noise": "0.01",
    "spectral.strength": "0.1",
    "spectral.target": "initial",
    "spectral.bias_power": "1",
    "redo.period": "1000",
    "redo.warmup": "1000",
    "redo.threshold": "0.1",
    "redo.score": "running",
    "redo.max_fraction": "0.05",
    # the gradual arms
    "transition": "output,sampling",
    "granularity": "20",
}
ARMS = (
    {"transition": "output", "granularity": "1"},  # abrupt: granularity 1 is the same under any transition
    {"method": "none"},
)

if __name__ == "__main__":
    sys.exit(launcher.launch(__doc__, DEFAULTS, ARMS, title="Random MNIST, MLP 4 x 256"))
