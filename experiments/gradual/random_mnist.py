"""Random MNIST with an MLP: abrupt change with every mitigation method, and gradual change with
none.

Source: Liu & Mou, figure 1 (left) and section 5.1; numbers recovered from the paper and its public
code. A union of two grids, not a product: --method multiplies the abrupt arms, --transition and
--granularity the gradual ones.
Command: python -m experiments.gradual.random_mnist --data_dir=DIR --workdir=runs/mnist
(DIR has MNIST's four original files)
Cost: 100 tasks x 19,200 steps for each of 35 lanes; --dry_run says it all beforehand, --tasks and
--epochs cut it short.
Paper: unregularized falls from 100 % to chance within about 50 tasks and L2 as fast; ReDo is
moderate, shrink and perturb and spectral regularization volatile; output interpolation is best,
with a minor loss after about task 35.
"""

import sys

from experiments.gradual import settings
from plasticity_jax.cli import launcher

BENCHMARK = settings.BENCHMARKS["random_mnist"]
DEFAULTS = {
    **BENCHMARK.paper,
    "method": settings.METHODS,
    "transition": BENCHMARK.recipe.transitions,
}
ARMS = (
    # abrupt: granularity 1 is the same under any transition
    {"transition": "output", "granularity": 1},
    {"method": "none"},
)
EXPERIMENT = launcher.Experiment(__doc__, DEFAULTS, ARMS, title=BENCHMARK.title)

if __name__ == "__main__":
    sys.exit(launcher.launch(EXPERIMENT))
